"""A session with everything that the client side of a node needs, towards scripted next hops."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet.task import Clock
from twisted.internet.threads import deferToThreadPool

from smtpf.journal.journal import Entry, Journal
from smtpf.journal.verbose import Verbose
from smtpf.maps.hosts import Host
from smtpf.maps.routes import Route, RouteMap
from smtpf.maps.source import FixedSource, table_of
from smtpf.maps.text import parse_text
from smtpf.message.header import HeaderList
from smtpf.message.spool import Room, Spool
from smtpf.settings.store import Settings
from smtpf.smtp.forward import ForwardConnection, Forwarder
from smtpf.smtp.grammar import NULL_PATH, PathRules, Role, parse_path
from smtpf.smtp.grammar import Path as MailPath
from smtpf.smtp.session import Session, Transaction
from smtpf.stats.tables import Statistics
from test.support.zones import ZoneResolver

TID = "26395304711000171c"
SID = "263953047110001700"


def mail_path(address: str) -> MailPath:
    """``address`` parsed as a recipient."""
    if not address:
        return NULL_PATH
    parsed = parse_path(f"<{address}>", Role.RECIPIENT, PathRules())
    assert isinstance(parsed, MailPath)
    return parsed


def hop_host(port: int, name: str = "127.0.0.1") -> Host:
    return Host(f"{name}:{port}", name, port, is_literal=name[0].isdigit())


class Desk:
    """One session and its parts. ``lines`` are the log lines written, without time and process."""

    def __init__(
        self, reactor: Any, options: dict[Any, str] | None = None, *, routes: str = "", tls: Any = None, policy: Any = None, zone: str = ""
    ) -> None:
        self.reactor = reactor
        self.entries: list[Entry] = []
        self.journal = Journal(self.entries.append, Verbose("info,warn,tls"))
        self.settings = Settings.of(options or {})
        self.stats = Statistics(Clock())
        self.stats.counting = True
        self.resolver = ZoneResolver(zone)
        self.forwarder = Forwarder(reactor, self.resolver, Random(1), tls, policy)
        records = ((line.key, line.value) for line in parse_text(routes.encode()).lines)
        self.routes = RouteMap(FixedSource(table_of(records)), self.journal)
        self.session = Session(SID, "192.0.2.7", self.settings, self.journal, self.stats, 0.0)
        self.session.name = "mail.example.org"
        self.session.interface_name = "mx.test"
        self.session.helo = "mail.example.org"

    @property
    def numbers(self) -> list[int]:
        return [entry.message.number for entry in self.entries]

    @property
    def lines(self) -> list[str]:
        return [entry.body for entry in self.entries]

    def counted(self, name: str) -> int:
        return next((self.stats.value(counter) for counter in self.stats.counters if counter.name == name), 0)

    def transaction(self, sender: str = "joe@example.org", **parameters: str) -> Transaction:
        made = Transaction(TID, mail_path(sender))
        made.parameters = parameters
        return made

    def connection(self, transaction: Transaction, hosts: Sequence[Host], key: str = "route:example.com") -> ForwardConnection:
        return self.forwarder.connection(self.session, transaction, Route(key, tuple(hosts)), queued=False)

    def fill(self, transaction: Transaction, head: bytes, body: bytes, folder: Path) -> None:
        """Give the transaction its message."""
        transaction.headers = HeaderList.parse(head)
        transaction.original_headers = transaction.headers.fields
        in_thread = partial(deferToThreadPool, self.reactor, self.reactor.getThreadPool())
        transaction.spool = Spool(TID, str(folder), "x1", transaction.sender.address, head, in_thread, Room(0))
        for start in range(0, len(body), 50000):
            transaction.spool.write(body[start : start + 50000])
