"""A whole node without a process: the engine with all filters, in-memory network, zone, maps and cache.

``Talk`` is a node; ``talk.connect("192.0.2.7")`` a client. Commands are sent with ``client.say("EHLO x")``, which gives the
reply's lines. ``talk.hop("192.0.2.1", 25)`` adds a scripted next hop.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, maybeDeferred
from twisted.internet.protocol import Protocol

from smtpf.cache.opening import CACHE_PATH
from smtpf.cache.store import cache_from
from smtpf.dns.domains import TLD_LEVEL_ONE_FILE, TLD_LEVEL_TWO_FILE, Domains
from smtpf.filters import order
from smtpf.filters.building import Materials, filters_of
from smtpf.filters.click import Click
from smtpf.filters.counting import OwnTallies
from smtpf.filters.dns_list import ClientLists
from smtpf.journal.journal import Entry, Journal
from smtpf.journal.verbose import Verbose
from smtpf.maps.access import AccessMap
from smtpf.maps.routes import RouteMap
from smtpf.maps.source import FixedSource, table_of
from smtpf.maps.text import parse_text
from smtpf.pipeline import Pipeline, settled
from smtpf.settings.catalogue import instances
from smtpf.settings.option import Option
from smtpf.settings.store import Settings, SettingsHolder
from smtpf.smtp import options as opt
from smtpf.smtp.auth_proxy import AuthProxy
from smtpf.smtp.call_ahead import CallAhead
from smtpf.smtp.dsn import DsnSender
from smtpf.smtp.engine import Engine
from smtpf.smtp.etrn import QueueRequest
from smtpf.smtp.forward import Forwarder
from smtpf.smtp.identifiers import SessionIds
from smtpf.smtp.kept import FORWARD_REUSE_LIMIT
from smtpf.smtp.reception import Reception
from smtpf.smtp.submit import Submitter
from smtpf.smtp.texts import read_texts
from smtpf.stats.counter import Counter
from smtpf.stats.routes import RouteCounts
from smtpf.stats.tables import Statistics
from test.support.net import MemoryNet
from test.support.scripted_hop import DEFAULTS, HopSession
from test.support.zones import ZoneResolver

OURS = "mx.test"
NUMBER = re.compile(r" #(\d+)( \S{18})?$")
BEGINNING = 1_780_000_000.0
"""Unix seconds at which every node of a test begins."""


class Hop:
    """A scripted next hop in memory. ``lines`` and ``contents`` are what it heard."""

    def __init__(self, script: Mapping[str, Any]) -> None:
        self.script = {**DEFAULTS, **script}
        self.lines: list[str] = []
        self.contents: list[bytes] = []
        self.sessions: list[HopSession] = []
        self.ended = 0
        self.waiting: list[Any] = []

    def make(self) -> HopSession:
        session = HopSession()
        session.factory = self  # type: ignore[assignment]
        return session

    @property
    def verbs(self) -> list[str]:
        return [line.split(" ")[0].upper() for line in self.lines]


class Talk:
    """A node in memory. ``entries`` are its log lines, ``net`` its network and clock."""

    def __init__(
        self,
        options: Mapping[Any, str] | None = None,
        *,
        access: str = "",
        route: str = "",
        zone: str = "",
        mx_checks: bool = False,
        extensions: Any = (),
        net: Any = None,
    ) -> None:
        self.net = MemoryNet() if net is None else net
        self.entries: list[Entry] = []
        self.journal = Journal(self.entries.append, Verbose("info,warn,tls"))
        quiet = {opt.RATE_THROTTLE: "0", opt.SMTP_DROP_AFTER: "0", CACHE_PATH: ":memory:", FORWARD_REUSE_LIMIT: "0"}
        if not mx_checks:
            quiet.update(_quiet_options())
        self.settings = SettingsHolder(Settings.of({**quiet, **_by_declaration(options or {})}))
        settings = self.settings.current
        self.stats = Statistics(self.net, self.journal)
        self.stats.counting = True
        self.resolver = ZoneResolver(zone, self.net)
        self.access_map = AccessMap(FixedSource(_table(access)), self.journal)
        self.route_map = RouteMap(FixedSource(_table(route)), self.journal)
        self.cache = cache_from(settings, self.journal, None, now=self.now)
        self.cache.start()
        rng = random.Random(7)
        domains = _domains(settings)
        forwarder = Forwarder(self.net, self.resolver, rng)
        materials = Materials(
            settings=self.settings, journal=self.journal, stats=self.stats, reactor=self.net, rng=rng, in_thread=_here,
            access=self.access_map, routes=self.route_map, resolver=self.resolver, domains=domains, cache=self.cache, now=self.now,
            tallies=OwnTallies.make(self.now), submitter=Submitter(self.route_map, forwarder), host_name=OURS,
        )  # fmt: skip
        self.filters = filters_of(materials)
        further = [each.filter(materials) for each in extensions]
        for each in (*self.filters, *further):
            each.configure(settings)
            ensureDeferred(settled(each.start()))
        self.engine = Engine(
            reactor=self.net, settings=self.settings, journal=self.journal, stats=self.stats,
            pipeline=Pipeline(order.bind(self.filters, further)), routes=self.route_map, resolver=self.resolver, domains=domains,
            forwarder=forwarder, ids=SessionIds(4711), rng=rng, in_thread=_here, route_counts=RouteCounts(self.journal),
            call_ahead=CallAhead(forwarder, self.cache), auth_proxy=AuthProxy(self.route_map, forwarder),
            dsn=DsnSender(Submitter(self.route_map, forwarder), self.resolver, self.journal, self.now),
            queue_request=QueueRequest(self.route_map, forwarder), host_name=OURS, descriptor_limit=1_000_000,
            addition=next(each.addition for each in self.filters if isinstance(each, Click)),
            look_ahead=next(each.begin for each in self.filters if isinstance(each, ClientLists)),
            texts=read_texts(settings, self.journal), now=self.now,
        )  # fmt: skip
        self.reception = Reception(self.engine, lambda seconds: None, lambda: None)

    def now(self) -> float:
        return BEGINNING + self.net.seconds()

    def hop(self, host: str, port: int = 25, **script: Any) -> Hop:
        """A next hop at ``host:port``; ``RCPT=b"550 no\\r\\n"`` changes its script."""
        hop = Hop(script)
        self.net.listen(host, port, hop.make)
        return hop

    def connect(self, address: str = "192.0.2.7", *, at: str = "192.0.2.25", first: bytes = b"") -> Client:
        """A client at ``address`` whose banner has come; ``first`` is what it sends before."""
        client = Client(self)
        wire = self.reception.factory(OURS).buildProtocol(None)
        near = self.net.join(wire, client, (address, 50000), (at, 25))
        if first:
            near.write(first)
        self.net.pump()
        client.wait()
        return client

    def greeted(self, address: str = "192.0.2.7", name: str = "mail.example.org") -> Client:
        """A client that has said EHLO."""
        client = self.connect(address)
        client.say(f"EHLO {name}")
        return client

    def logged(self, number: int) -> list[str]:
        """Texts of the log lines with this number."""
        return [entry.body for entry in self.entries if entry.message.number == number]

    def counted(self, counter: Counter) -> int:
        return self.stats.value(counter)


class Client(Protocol):
    """A client of a ``Talk``."""

    def __init__(self, talk: Talk) -> None:
        self.talk = talk
        self.heard = b""
        self.gone = False
        self.banner: list[str] = []

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Any = None) -> None:
        self.gone = True

    def wait(self) -> None:
        """For the banner; an unknown client is kept waiting half a second."""
        for _ in range(4):
            if self.heard or self.gone:
                break
            self.talk.net.pass_time(0.3)
        self.banner = self.take()

    def send(self, octets: bytes) -> list[str]:
        """Send octets; the replies that come without time passing."""
        if not self.gone:
            self.transport.write(octets)
        self.talk.net.pump()
        return self.take()

    def say(self, line: str) -> list[str]:
        """One command; its reply's lines."""
        return self.send(line.encode("utf-8") + b"\r\n")

    def message(self, text: str = "Subject: hello\r\n\r\nA line.\r\n") -> list[str]:
        """DATA and a message; the reply to its dot."""
        answer = self.say("DATA")
        if not answer[-1].startswith("354"):
            return answer
        return self.send(text.encode("utf-8") + b".\r\n")

    def take(self) -> list[str]:
        heard, self.heard = self.heard, b""
        return heard.decode("utf-8", "replace").split("\r\n")[:-1]


def codes(lines: list[str]) -> list[str]:
    """Code and number of each final line: ``["250 #283"]``."""
    found = []
    for line in lines:
        if line[3:4] == " ":
            number = NUMBER.search(line)
            found.append(f"{line[:3]} #{number[1]}" if number else line[:3])
    return found


def _by_declaration(options: Mapping[Any, str]) -> dict[Any, str]:
    """Options may be given by name."""
    return {_options()[key] if isinstance(key, str) else key: value for key, value in options.items()}


def _quiet_options() -> dict[Any, str]:
    """Tests that would interfere where they are not the subject."""
    off = {"mail-require-mx": "-", "grey-key": "", "spf-mail-policy": "", "rfc2606-special-domains": "-", "reject-unknown-tld": "-"}
    return {_options()[name]: value for name, value in off.items() if name in _options()}


@cache
def _options() -> Mapping[str, Any]:
    return {option.name: option for option in instances(Option)}


@cache
def _usual_domains() -> Domains:
    """Reading the list of public suffixes takes longer than everything else in a node."""
    return Domains()


def _domains(settings: Settings) -> Domains:
    plain = settings[TLD_LEVEL_ONE_FILE] == "" and settings[TLD_LEVEL_TWO_FILE] == ""
    return _usual_domains() if plain else Domains.from_settings(settings)


def _table(text: str) -> Any:
    return table_of((line.key, line.value) for line in parse_text(text.encode()).lines)


def _here(work: Any, *args: Any) -> Deferred[Any]:
    return maybeDeferred(work, *args)
