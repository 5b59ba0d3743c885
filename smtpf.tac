"""The same service as ``twistd smtpf``, for deployments that start a .tac: ``twistd -ny smtpf.tac``.

Write the words of the command line here. The process is twistd's: going into the background is too.
"""

from twisted.application.service import Application
from twisted.internet import reactor

from smtpf.tap import start

WORDS = ("file=/etc/smtpf/smtpf.cf",)

application = Application("smtpf")
start(WORDS, reactor, foreground=True).setServiceParent(application)
