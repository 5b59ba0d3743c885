"""smtpf: an SMTP filtering proxy."""

__version__ = "3.0.0.dev0"
