"""A cache server of the Valkey or Redis kind: what ``cache-path`` says of it, and a connection that is made again when it is lost.

A postmaster writes ``redis://``, ``rediss://``, ``valkey://``, ``valkeys://`` or ``unix://`` into ``cache-path`` and reads of
the connection in #1115 and #1116. For the programmer: ``address_of`` reads the option, ``Server`` has a connection or none;
nobody ever waits for one, except the node for the first attempt at its start.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import attrs
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory
from twisted.internet.ssl import Certificate, TLSVersion, optionsForClientTLS, platformTrust, trustRootFromCertificates

from smtpf.cache.resp import RespConnection
from smtpf.journal.message import info, warn

if TYPE_CHECKING:
    from smtpf.journal.journal import Journal

PORT = 6379
CONNECT_SECONDS = 3.0
"""For a connection to be made."""
FIRST_PAUSE = 0.25
"""Seconds before the second attempt; each later pause is twice as long."""
LONGEST_PAUSE = 15.0
DRAIN_SECONDS = 2.0
"""For requests under way when the node ends."""
_TLS = {"redis": False, "valkey": False, "rediss": True, "valkeys": True, "unix": False}
"""The words before ``://``, and whether TLS is meant."""

UP = info(1115, "cache server %s connected", "The cache server named by cache-path answers. Its records are in use.", since="modern")
AWAY = warn(
    1116,
    "cache server %s away: %s",
    "The cache server cannot be reached, refuses this node, or does not answer in time. Until #1115 nothing is found in the cache (#542)"
    " and nothing stored (#544); mail goes on, without grey-listing and message limits.",
    since="modern",
)


class BadAddress(ValueError):
    """``cache-path`` names no server that can be used. ``str()`` says why, without any secret."""


@attrs.frozen
class ServerAddress:
    """Where the server is and how it is greeted."""

    shown: str
    """For log lines; holds no secret."""
    host: str = ""
    port: int = PORT
    path: str = ""
    """A Unix socket; then host and port mean nothing."""
    tls: bool = False
    ca: str = ""
    """PEM file of the authorities that the server's certificate is checked against; empty: those of the system."""
    db: int = 0
    user: str = ""
    password_file: str = ""


def names_server(cache_path: str) -> bool:
    """Whether ``cache-path`` names a server and no file."""
    scheme, mark, _ = cache_path.partition("://")
    return bool(mark) and scheme.lower() in _TLS


def address_of(cache_path: str) -> ServerAddress:
    """``scheme://[user@]host[:port][/db]`` or ``unix:///path``, with ``?db=``, ``?password-file=`` and ``?ca=``. Raises BadAddress."""
    try:
        parts = urlsplit(cache_path)
        port = parts.port
    except ValueError:
        raise BadAddress("no server address") from None
    if parts.password is not None:
        # Options are shown to everybody who may ask the node for them, and so is this log line.
        raise BadAddress("a password is no part of cache-path; name its file by ?password-file=")
    more = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = more.keys() - {"db", "password-file", "ca"}
    if unknown or parts.fragment:
        raise BadAddress(f"{min(unknown, default='#')} is not known here")
    of_unix = parts.scheme == "unix"
    if of_unix == bool(parts.hostname) or (of_unix and not parts.path.strip("/")):
        raise BadAddress("unix:// takes an absolute path and no host" if of_unix else "the host is missing")
    return ServerAddress(
        shown=cache_path.partition("?")[0], host=parts.hostname or "", port=port or PORT, path=unquote(parts.path) if of_unix else "",
        tls=_TLS[parts.scheme], ca=more.get("ca", ""), db=_database(parts, more), user=unquote(parts.username or ""),
        password_file=more.get("password-file", ""),
    )  # fmt: skip


def _database(parts: SplitResult, more: dict[str, str]) -> int:
    text = more.get("db") or (parts.path.strip("/") if parts.scheme != "unix" else "") or "0"
    if not text.isdecimal() or len(text) > 6:
        raise BadAddress("the database is no number")
    return int(text)


def greeting_of(address: ServerAddress) -> tuple[tuple[bytes, ...], ...]:
    """What is said first on each connection. Reads the password file; raises OSError."""
    words: list[tuple[bytes, ...]] = []
    if address.password_file:
        password = Path(address.password_file).read_bytes().rstrip(b"\r\n")
        words.append((b"AUTH", address.user.encode(), password) if address.user else (b"AUTH", password))
    if address.db:
        words.append((b"SELECT", b"%d" % address.db))
    return (*words, (b"PING",))


def endpoint_of(address: ServerAddress, reactor: Any) -> Any:
    """Where to connect. Raises OSError and ValueError for an unusable CA file."""
    if address.path:
        return UNIXClientEndpoint(reactor, address.path, timeout=CONNECT_SECONDS)
    plain = HostnameEndpoint(reactor, address.host, address.port, timeout=CONNECT_SECONDS)
    if not address.tls:
        return plain
    trust: Any = platformTrust()
    if address.ca:
        blocks = Path(address.ca).read_bytes().split(b"-----BEGIN CERTIFICATE-----")[1:]
        if not blocks:
            raise ValueError("no certificate in the file")
        trust = trustRootFromCertificates([Certificate.loadPEM(b"-----BEGIN CERTIFICATE-----" + block) for block in blocks])
    secured = optionsForClientTLS(address.host, trustRoot=trust, extraCertificateOptions={"raiseMinimumTo": TLSVersion.TLSv1_2})
    return wrapClientTLS(secured, plain)


class Server:
    """The server, connected or not. ``greeting`` is said on each new connection before it is used."""

    def __init__(self, reactor: Any, journal: Journal, endpoint: Any, greeting: Sequence[Sequence[bytes]], shown: str, rng: Random) -> None:
        self.connection: RespConnection | None = None
        """Ready for requests; None while there is none."""
        self._reactor = reactor
        self._journal = journal
        self._endpoint = endpoint
        self._greeting = greeting
        self._shown = shown
        self._rng = rng
        self._pause = FIRST_PAUSE
        self._told_away = False
        self._stopped = False
        self._timer: IDelayedCall | None = None
        self._attempting: Deferred[RespConnection] | None = None
        self._made: RespConnection | None = None

    async def start(self) -> None:
        """Make the first attempt, whatever comes of it."""
        await self._attempt()

    async def stop(self) -> None:
        """Let requests under way be answered, for ``DRAIN_SECONDS``, and close."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._attempting is not None:
            self._attempting.cancel()
        elif self.connection is None and self._made is not None:
            self._made.give_up("the node ends")
        connection, self.connection = self.connection, None
        if connection is not None:
            alarm = self._reactor.callLater(DRAIN_SECONDS, connection.give_up, "the node ends")
            await connection.finished()
            if alarm.active():
                alarm.cancel()
            connection.give_up("the node ends")

    async def _attempt(self) -> None:
        self._timer = None
        made: RespConnection
        try:
            # Nothing of the greeting is believed before all of it is answered: a refused AUTH or SELECT is no connection.
            self._attempting = self._endpoint.connect(Factory.forProtocol(self._protocol))
            made = await self._attempting
            self._made = made
            self._attempting = None
            for words in self._greeting:
                await made.answer(words)
        except Exception as error:
            if self._made is not None:
                self._made.give_up(str(error))
            if not self._stopped:
                self._failed(str(error) or type(error).__name__)
            return
        finally:
            self._attempting = None
        self.connection = made
        self._pause = FIRST_PAUSE
        self._told_away = False
        self._journal.write(UP, self._shown)

    def _protocol(self) -> RespConnection:
        made = RespConnection(self._reactor, lambda reason: self._lost(made, reason))
        return made

    def _lost(self, connection: RespConnection, reason: str) -> None:
        if self.connection is connection:
            self.connection = self._made = None
            if not self._stopped:
                self._failed(reason)

    def _failed(self, reason: str) -> None:
        self._made = None
        if not self._told_away:
            self._told_away = True
            self._journal.write(AWAY, self._shown, reason)
        # Nodes that lost the same server shall not all come back in the same moment.
        self._timer = self._reactor.callLater(self._pause * self._rng.uniform(0.8, 1.2), self._again)
        self._pause = min(LONGEST_PAUSE, self._pause * 2)

    def _again(self) -> None:
        ensureDeferred(self._attempt()).addErrback(lambda failure: self._journal.failure(failure, doing="cache server"))
