"""``smtpf demo``: the whole way of a message on one machine, without root and without touching anything outside one folder.

The node listens on 127.0.0.1:2525 with its log on standard error, and behind it a small mail server keeps what it gets in a
Maildir and tells of each arrival. The folder holds an ordinary smtpf.cf, access.cf and route.cf, to read and to change.
"""

from __future__ import annotations

import argparse
import getpass
import grp
import mailbox
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from twisted.application.internet import TCPServer
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThreadPool
from twisted.mail.smtp import ESMTP, IMessage, IMessageDelivery, User
from zope.interface import implementer

from smtpf.process.reactor import install
from smtpf.running import run_services
from smtpf.settings.words import escaped
from smtpf.tap import start

HOST = "127.0.0.1"
PORT = 2525
NEXT_HOP_PORT = 2526
FOLDER = "smtpf-demo"
MAX_MESSAGE = 26_214_400
"""Octets of a message that the demonstration's mail server takes."""

ACCESS = """\
# Who may do what: a key, blanks, and the action. Change it while the node runs.
to:nobody@demo.example          REJECT:"nobody lives here"
to:later@demo.example           TEMPFAIL:"come back later"
from:spammer@bad.example        REJECT:"not from you"
"""

ROUTE = """\
# Which domains are ours and where their mail goes. The entry for 127.0.0.1 takes all other mail of trusted clients.
route:127.0.0.1                 FORWARD: {hop}; RELAY
route:demo.example              FORWARD: {hop}
"""

OPTIONS = """\
# The options of the demonstration; `smtpf +help` prints all there are.
interfaces={host}:{port}
interface-name=demo.example
-daemon
run-user={user}
run-group={group}
run-work-dir="{folder}"
run-pid-file="{folder}/smtpf.pid"
access-map="file!{folder}/access.cf"
route-map="file!{folder}/route.cf"
cache-path="{folder}/cache.sq3"
save-dir="{folder}/save"
trap-dir="{folder}/trap"

# The addresses here are of reserved domains, which are refused otherwise.
-rfc2606-special-domains
-reject-unknown-tld
"""

WELCOME = """\
smtpf listens on {host}:{port}; its next hop is a small mail server on {hop}.
Everything is in {folder}: smtpf.cf, access.cf, route.cf, and what arrives in Maildir/new.

Paste one of these into another terminal:

  printf 'From: you@demo.example\\nTo: me@demo.example\\nSubject: hello\\n\\nIt works.\\n' | \\
    curl -s --url smtp://{host}:{port} --mail-from you@demo.example --mail-rcpt me@demo.example --upload-file -

  swaks --server {host}:{port} --from you@demo.example --to me@demo.example

Expect summary lines #717 to #721 below, and the arrival of the message. To nobody@demo.example you
are refused with 550, to later@demo.example with 450. Ctrl-C ends it.
"""

Tell = Callable[[str], None]


def main(words: Sequence[str]) -> int:
    """Prepare the folder and run node and next hop until interrupted. The exit status."""
    reactor = install()
    given = _arguments(words)
    folder = Path(given.work).absolute()
    prepare(folder, given.port, given.hop_port)
    hop = next_hop(reactor, folder / "Maildir", _say, given.hop_port)
    try:
        hop.startService()
    except CannotListenError as error:
        sys.stderr.write(f"smtpf demo: {error}\n")
        return 1
    node = start([f"file={folder / 'smtpf.cf'}"], reactor, foreground=True)
    _say(WELCOME.format(host=HOST, port=given.port, hop=f"{HOST}:{given.hop_port}", folder=folder))
    return run_services(reactor, node)


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="smtpf demo", description="Try smtpf out on this machine.")
    parser.add_argument("--work", metavar="DIR", default=FOLDER, help=f"folder for everything the demonstration keeps (default: {FOLDER})")
    parser.add_argument("--port", type=int, default=PORT, help=f"where smtpf listens; counts for a new folder (default: {PORT})")
    parser.add_argument("--hop-port", type=int, default=NEXT_HOP_PORT, help=f"where the mail server behind it listens ({NEXT_HOP_PORT})")
    return parser.parse_args(words)


def prepare(folder: Path, port: int, next_hop_port: int) -> None:
    """Make ``folder`` with configuration and maps. Files that are there already are kept as they were edited. Raises OSError."""
    for name in ("save", "trap"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    values = {
        "host": HOST,
        "port": port,
        "hop": f"{HOST}:{next_hop_port}",
        "folder": escaped(str(folder)),
        "user": getpass.getuser(),
        "group": grp.getgrgid(os.getgid()).gr_name,
    }
    for name, text in (("smtpf.cf", OPTIONS), ("access.cf", ACCESS), ("route.cf", ROUTE)):
        file = folder / name
        if not file.exists():
            file.write_text(text.format(**values) if name != "access.cf" else text, encoding="utf-8")


def next_hop(reactor: Any, folder: Path, tell: Tell, port: int) -> MultiService:
    """A mail server that takes every message, keeps it in the Maildir ``folder`` and tells so."""
    box = mailbox.Maildir(str(folder), create=True)
    factory = Factory.forProtocol(partial(_Hop, Delivery(reactor, box, tell)))
    service = MultiService()
    TCPServer(port, factory, interface=HOST, reactor=reactor).setServiceParent(service)
    return service


class _Hop(ESMTP):
    def __init__(self, delivery: Delivery) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.delivery = delivery
        self.host = b"hop.demo.example"


@implementer(IMessageDelivery)
class Delivery:
    """Takes every sender and every recipient."""

    def __init__(self, reactor: Any, box: mailbox.Maildir, tell: Tell) -> None:
        self._reactor = reactor
        self._box = box
        self._tell = tell

    def receivedHeader(self, helo: Any, origin: Any, recipients: Any) -> bytes:
        return b"Received: by hop.demo.example with ESMTP"

    def validateFrom(self, helo: Any, origin: Any) -> Any:
        return origin

    def validateTo(self, user: User) -> Callable[[], Arrival]:
        return lambda: Arrival(self, str(user.orig), str(user.dest))

    def keep(self, content: bytes, sender: str, recipient: str) -> Deferred[None]:
        """Store one message; done when it is on the disk."""
        stored: Deferred[str] = deferToThreadPool(self._reactor, self._reactor.getThreadPool(), self._box.add, content)
        return stored.addCallback(
            lambda key: self._tell(f"arrived: from <{sender}> to <{recipient}>, {len(content)} octets, Maildir/new/{key}\n")
        )


@implementer(IMessage)
class Arrival:
    """A message on its way into the Maildir."""

    def __init__(self, delivery: Delivery, sender: str, recipient: str) -> None:
        self._delivery = delivery
        self._sender = sender
        self._recipient = recipient
        self._lines: list[bytes] = []
        self._size = 0

    def lineReceived(self, line: bytes) -> None:
        self._size += len(line) + 1
        if self._size <= MAX_MESSAGE:
            self._lines.append(line)

    def eomReceived(self) -> Deferred[None]:
        return self._delivery.keep(b"\n".join(self._lines) + b"\n", self._sender, self._recipient)

    def connectionLost(self) -> None:
        self._lines.clear()


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
