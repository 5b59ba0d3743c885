"""The state of one SMTP session and of its transaction: what filters see, and nothing else.

The behaviour (commands, replies, forwarding) is in the engine modules beside this one. Flags are enumerated in the
order in which they are logged. Source: spec chapter session, 1.3, 1.5 and 11.7.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Iterable
from enum import Enum, StrEnum
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from smtpf.journal.message import Message
from smtpf.pipeline import Code, Verdict
from smtpf.settings.store import Settings
from smtpf.smtp.grammar import Path
from smtpf.stats.counter import Counter

if TYPE_CHECKING:
    from smtpf.journal.journal import Journal
    from smtpf.maps.routes import Route
    from smtpf.message.header import HeaderEnd, HeaderList
    from smtpf.message.spool import Spool
    from smtpf.smtp.slots import ReplySlots
    from smtpf.stats.tables import Statistics

T = TypeVar("T")

MAX_DECISIONS = 200
"""Decisions kept of one session, the first ones."""


class State(StrEnum):
    """States of a session, by the names CONN shows."""

    CONN = "CONN"
    HELO = "HELO"
    EHLO = "EHLO"
    MAIL = "MAIL"
    RCPT = "RCPT"
    DATA = "DATA"
    SINK = "SINK"
    QUIT = "QUIT"


class ClientFlag(StrEnum):
    MX = "mx"
    LAN = "lan"
    RELAY = "relay"
    SECOND_MX = "2nd_mx"
    FORGED = "forged"
    LOCALHOST = "localhost"
    BLACK = "black"
    GREY = "grey"
    SAVE = "save"
    TAG = "tag"
    WHITE = "white"
    DISCARD = "discard"
    IP_IN_PTR = "ip_in_ptr"
    HELO_IP = "helo_ip"
    HELO_HOST = "helo_host"
    PTR_MULTIDOMAIN = "ptr_multidomain"
    NO_PTR = "no_ptr"
    NO_PTR_ERROR = "no_ptr_error"
    EHLO_NO_HELO = "ehlo_no_helo"
    SCHIZO = "schizo"
    EXEMPT_GREY_LIST = "exempt_grey_list"
    PASSED_GREY_LIST = "passed_grey_list"
    PIPELINING = "pipelining"
    SMTP_LOWER_CASE = "smtp_lower_case"
    IO_ERROR = "io_error"
    RATE_LIMIT = "rate_limit"
    CONCURRENCY_LIMIT = "concurrency_limit"
    LOCAL_BLACK = "local_black"
    TRAP = "trap"
    TEMPFAIL = "tempfail"
    AUTH = "auth"
    QUIT = "quit"
    IPV6 = "ipv6"


class MailFlag(StrEnum):
    BLACK = "black"
    WHITE = "white"
    TEMPFAIL = "tempfail"
    EXTRA_SPACES = "extra_spaces"
    LOCAL_BLACK = "local_black"
    EIGHT_BIT_MIME = "8bitmime"
    BINARY_MIME = "binarymime"


class RcptFlag(StrEnum):
    BLACK = "black"
    WHITE = "white"
    TEMPFAIL = "tempfail"
    EXTRA_SPACES = "extra_spaces"
    LOCAL_BLACK = "local_black"
    FAILED = "failed"


_TRUSTED = frozenset({ClientFlag.LOCALHOST, ClientFlag.RELAY})
_USUAL_SUSPECTS = _TRUSTED | {ClientFlag.WHITE}
_KNOWN = _USUAL_SUSPECTS | {ClientFlag.GREY, ClientFlag.PASSED_GREY_LIST}


class MsgFlag(StrEnum):
    GREY_CONTENT = "grey_content"
    GREY_HASH_MISMATCH = "grey_hash_mismatch"
    URI_DNS_BL = "uri_dns_bl"
    URI_BL = "uri_bl"
    URI_IMPLICIT = "uri_implicit"
    EMEW_PASS = "emew_pass"
    DISCARD = "discard"
    POLICY = "policy"
    TAG = "tag"
    TAGGED = "tagged"
    QUEUED = "queued"
    SAVE = "save"
    TRAP = "trap"
    INFECTED = "infected"
    OK_AV = "ok_av"
    OK = "ok"


def flag_text(flags: Iterable[str], order: type[StrEnum]) -> str:
    """Names of the set flags in table order, joined by commas; empty if none."""
    if not flags:
        return ""
    if len(present := set(flags)) == 1:
        return str(*present)
    return ",".join(sorted(present, key=_places(order).__getitem__))


@cache
def _places(order: type[StrEnum]) -> dict[str, int]:
    return {flag: place for place, flag in enumerate(order)}


class SpfResult(Enum):
    """Results of RFC 7208 2.6, by the words of log lines."""

    NONE = "None"
    NEUTRAL = "Neutral"
    PASS = "Pass"
    FAIL = "Fail"
    SOFTFAIL = "SoftFail"
    TEMPERROR = "TempError"
    PERMERROR = "PermError"


class Recipient:
    """One RCPT: its path, flags, route and what became of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        """As parsed. A filter may replace it (time-limited addresses); forwarding uses it."""
        self.flags: set[RcptFlag] = set()
        self.parameters: dict[str, str] = {}
        """ESMTP parameters of RCPT, keys upper case."""
        self.route: Route | None = None
        self.forward: Any = None
        """The forward connection that carries it (``smtp/forward.py``)."""
        self.discarded = False
        """Accepted towards the client, forwarded nowhere (To:-family DISCARD or TRAP)."""
        self.trapped = False
        """Discarded because its own list entry said TRAP."""
        self.white = False
        """Its own list entry said OK."""
        self.expired: Path | None = None
        """The path as the client wrote it, when it is a time-limited address whose time is over."""


class Transaction:
    """MAIL FROM to final dot, RSET, next MAIL, or the end of the session."""

    def __init__(self, tid: str, sender: Path) -> None:
        self.tid = tid
        self.sender = sender
        self.parameters: dict[str, str] = {}
        """ESMTP parameters of MAIL, keys upper case."""
        self.flags: set[MsgFlag] = set()
        self.mail_flags: set[MailFlag] = set()
        self.list_state: Code = Code.CONTINUE
        """What Connect:, dns-wl, Connect:From:, From:, click or TAG said of the message: CONTINUE, ACCEPT, GREY or DISCARD."""
        self.recipients: list[Recipient] = []
        """Accepted ones (discarded ones included), in order."""
        self.refused_recipients = 0
        self.spf_mail = SpfResult.NONE
        self.spf_helo = SpfResult.NONE
        self.headers: HeaderList | None = None
        """From the headers stage on: the header fields, editable until the message is relayed."""
        self.header_end: HeaderEnd | None = None
        """What ended the header section."""
        self.original_headers: tuple[bytes, ...] = ()
        """Header fields as the client sent them."""
        self.spool: Spool | None = None
        """The body as it will be relayed."""
        self.octets = 0
        """Message octets as received (stuffed dots counted, final dot line not)."""
        self.complete = False
        """The end of the body has come: the chunk that the content stage now looks at, which may be empty, is the last one."""
        self.message_id = ""
        """Content of the Message-ID field without angle brackets."""
        self.subject = ""
        self.emew = "none"
        """none, pass, fail or expired: the ``ret-id`` of Received."""
        self.save_directory = ""
        self.trap_directory = ""
        self.delivered = False
        """At least one next hop has taken the message."""
        self.outcome: Verdict | None = None
        """What became of the message; None while it is under way, and when it never came to the dot."""
        self._own: dict[type[Any], Any] = {}

    def own(self, kind: type[T]) -> T:
        """A filter's state of this transaction: made by ``kind()`` at the first call, then the same object."""
        made: T | None = self._own.get(kind)
        if made is None:
            made = self._own[kind] = kind()
        return made

    def owned(self, kind: type[T]) -> T | None:
        """As :meth:`own`, but None when it has not been made: for who has nothing to say then."""
        return self._own.get(kind)

    @property
    def accepted_count(self) -> int:
        return len(self.recipients)

    @property
    def forwarded(self) -> list[Recipient]:
        """Recipients that a next hop has accepted."""
        return [recipient for recipient in self.recipients if recipient.forward is not None and not recipient.discarded]

    @property
    def recipient_flags(self) -> set[RcptFlag]:
        union: set[RcptFlag] = set()
        for recipient in self.recipients:
            union |= recipient.flags
        return union


async def _no_rest(seconds: float) -> bool:
    return False


def _no_input() -> tuple[int, bytes]:
    return 0, b""


class Session:
    """One accepted TCP connection, from accept to its ``end`` line."""

    slots: ReplySlots

    def __init__(self, sid: str, address: str, settings: Settings, journal: Journal, stats: Statistics, started: float) -> None:
        self.sid = sid
        self.address = address
        """Client address as text; IPv4-mapped peers as plain IPv4, IPv6 in the form of RFC 5952."""
        self.ip: ipaddress.IPv4Address | ipaddress.IPv6Address = _address(address)
        self.settings = settings
        """The options this session began with."""
        self.journal = journal
        self.stats = stats
        self.started = started
        """Reactor seconds at accept."""
        self.name = ""
        """Client name: PTR in lower case without final dot, empty when there is none."""
        self.flags: set[ClientFlag] = set()
        self.state = State.CONN
        self.helo = ""
        """Last HELO or EHLO argument."""
        self.esmtp = False
        """The last greeting was EHLO."""
        self.said_ehlo = False
        self.interface_name = ""
        self.interface_address = ""
        self.port = 0
        """The transport peer's port."""
        self.interface_port = 0
        self.really_local = False
        """The transport peer and the local address are loopback, and no PROXY header or XCLIENT spoke: may administer."""
        self.spoken_for = False
        """The client's address is what a PROXY header or XCLIENT claims."""
        self.auth_id = ""
        self.said_auth = False
        """AUTH was tried: what is no command may be credentials."""
        self.tls: Any = None
        """Facts of the TLS connection (``smtp/tls.py``), None in the clear."""
        self.transaction: Transaction | None = None
        self.mail_count = 0
        """MAIL commands so far."""
        self.forwarded_count = 0
        """Messages accepted by a next hop."""
        self.reject_count = 0
        """4xy and 5xy replies so far."""
        self.last_reject = ""
        """First line of the last 4xy or 5xy reply."""
        self.octets = 0
        """Octets received: commands and data, line ends included."""
        self.spf_helo: SpfResult | None = None
        self.p0f = ""
        """``p0f="..."`` for the end line, or empty."""
        self.p0f_os = ""
        """Name of the client's operating system as p0f knows it, or empty."""
        self.save_directory = ""
        self.trap_directory = ""
        self.ok_av = False
        """Connect: or Helo: said OK+AV."""
        self.protocol = False
        """Connect: said PROTOCOL; inherited by the session's messages."""
        self.command_pause: int | None = None
        """Milliseconds to wait before each command (CommandPause:), None without an entry. Known clients are not kept waiting."""
        self.greet_pause: int | None = None
        """Milliseconds to wait before the banner (GreetPause:), None without an entry."""
        self.tls_connect = ""
        """What Tls-Connect: says: SKIP, REQUIRE, VERIFY or VERIFY:CN=..., empty without an entry."""
        self.size_limit = 0
        """Largest message this client may send as far as is known before RCPT, for EHLO; 0 = no limit known."""
        self.rest: Callable[[float], Awaitable[bool]] = _no_rest
        """``await session.rest(seconds)``: wait; True at once when the client sends something or goes."""
        self.wait: Callable[[float], Awaitable[bool]] = _no_rest
        """``await session.wait(seconds)``: wait, whatever the client sends; True at once when it goes."""
        self.early_input: Callable[[], tuple[int, bytes]] = _no_input
        """What the client has sent ahead of its turn: how many octets, and the first 100 of them."""
        self.broken = False
        """The connection was lost or the client fell silent, as opposed to closing it."""
        self.decisions: Decisions = Decisions()
        self._own: dict[type[Any], Any] = {}

    def own(self, kind: type[T]) -> T:
        """A filter's state of this session: made by ``kind()`` at the first call, then the same object."""
        made: T | None = self._own.get(kind)
        if made is None:
            made = self._own[kind] = kind()
        return made

    def forget_lists(self) -> None:
        """Forget what Connect: and Helo: said of the client besides its flags; they are about to be asked again."""
        self.save_directory = self.trap_directory = ""
        self.ok_av = self.protocol = False

    def forget_client(self) -> None:
        """Another client is spoken for from now on: what was found out about the one before does not hold for it."""
        self.forget_lists()
        self.flags.clear()
        self.tls_connect = self.p0f = self.p0f_os = ""
        self.greet_pause = self.command_pause = None
        self.size_limit = 0
        self._own.clear()

    def part(self) -> None:
        """The session is over: let go of what leads back to it, so that its memory is free at once and not when the collector comes."""
        self.rest = self.wait = _no_rest
        self.early_input = _no_input
        self._own.clear()
        del self.slots

    def log(self, message: Message, *args: Any) -> None:
        """Write one numbered log line of this session."""
        self.journal.write(message, *args, session=self.sid)

    def count(self, counter: Counter, amount: int = 1) -> None:
        self.stats.add(counter, amount)

    @property
    def client(self) -> str:
        """``NAME [ADDR]``; NAME is empty when there is no PTR, its blank stays."""
        return f"{self.name} [{self.address}]"

    @property
    def localhost(self) -> bool:
        return ClientFlag.LOCALHOST in self.flags

    @property
    def relay(self) -> bool:
        return ClientFlag.RELAY in self.flags

    @property
    def auth(self) -> bool:
        return ClientFlag.AUTH in self.flags

    @property
    def white(self) -> bool:
        return ClientFlag.WHITE in self.flags

    @property
    def grey(self) -> bool:
        return ClientFlag.GREY in self.flags

    @property
    def trusted(self) -> bool:
        """localhost or relay."""
        return not self.flags.isdisjoint(_TRUSTED)

    @property
    def usual_suspect(self) -> bool:
        """localhost, relay or white."""
        return not self.flags.isdisjoint(_USUAL_SUSPECTS)

    @property
    def known(self) -> bool:
        """A usual suspect, grey, or passed by grey-listing before: not kept waiting, and free to talk early."""
        return not self.flags.isdisjoint(_KNOWN)

    @property
    def private(self) -> bool:
        """10/8, 172.16/12, 192.168/16, 169.254/16, fe80::/10 or fc00::/7."""
        return _is_private(self.ip)


PRIVATE = tuple(
    ipaddress.ip_network(network)
    for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "fe80::/10", "fc00::/7")
)


_address = lru_cache(maxsize=4096)(ipaddress.ip_address)


@lru_cache(maxsize=4096)
def _is_private(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return any(ip in network for network in PRIVATE if network.version == ip.version)


class Decisions(list[Verdict]):
    """The decisions of a session in order, bounded."""

    def append(self, verdict: Verdict) -> None:
        if len(self) < MAX_DECISIONS:
            super().append(verdict)
