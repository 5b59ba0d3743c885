"""Makes ``twistd smtpf`` known to twistd; nothing else."""

from twisted.application.service import ServiceMaker

smtpf = ServiceMaker("smtpf", "smtpf.tap", "An SMTP filtering proxy.", "smtpf")
