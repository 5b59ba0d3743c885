"""The licence key, for those who must run with one. Nothing here happens unless ``lickey-file`` is set.

The key is a text file of ``name=value`` lines, signed with Ed25519. It is checked once before the node is ready, and again
by LKEY; a key that expires later is told of once a day and stops nothing. No mail leaves the machine.
Source: spec chapter operations, 7.
"""

from __future__ import annotations

import errno
import ipaddress
import platform
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import attrs
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from twisted.internet.defer import Deferred

from smtpf.journal.message import Message, err, info, warn
from smtpf.maps.routes import Counts, RouteMap
from smtpf.settings.option import Text

if TYPE_CHECKING:
    from smtpf.journal.journal import Journal
    from smtpf.settings.store import Settings

EXIT_INVALID = 3
"""Exit status of a start that the licence key forbids, and of ``test-lickey`` for a bad key."""
LARGEST = 65_536
"""Octets of a key file."""
DAY = 86_400
PRODUCT = "smtpf"
REQUIRED = ("client-name", "client-mail", "generated-by", "keycode", "core-per-ip-list")
SIGNATURE = "hash"
ANY_ADDRESS = frozenset({"127.0.0.1", "0.0.0.0"})

LICKEY_FILE = Text(
    "lickey-file",
    "",
    "A licence key file to be checked at start. Empty, the default: no key is needed and nothing is checked.",
    choices='absolute path; "" = none',
    runtime=False,
    area="licence",
)
LICKEY_PUBKEY = Text(
    "lickey-pubkey",
    "",
    "The Ed25519 public key, 64 hex digits, that the licence key must be signed for.",
    choices="hex digits",
    runtime=False,
    since="new",
    area="licence",
)
EXPIRES_SOON = warn(
    395,
    "%s-%s license key expires in less than %d day%s",
    "The licence key has run for all but its last day. The node goes on when it has expired, but would not start again.",
    fields=("product", "version", "days", "plural"),
)
MUST_BE_SET = err(396, "license key %s must be set", "The named field of the licence key file is missing or empty.", fields=("field",))
FUTURE = err(
    397,
    "license key date-issued is in the future, please check your system clock",
    "The licence key was issued at a time that has not come yet, by the clock of this machine.",
)
EXPIRED = err(
    398,
    "license key has expired",
    "The licence key has ended: the node does not start with it. A node that is running goes on, and tells so once a day.",
)
UNREADABLE = err(
    399,
    "license key %s error: %s (%d)",
    "The named field of the licence key file does not hold what belongs there: a date, or a number.",
    fields=("field", "error", "errno"),
)
INVALID = err(
    401,
    "license key invalid",
    "The signature of the licence key does not fit its fields and the option lickey-pubkey: it was changed, or is for another key.",
)
NOT_FOR_PROGRAM = err(
    402, "license key not for %s/%s", "The licence key is for another program or a later version of it.", fields=("product", "version")
)
NOT_FOR_PLATFORM = err(403, "license key not for %s", "The licence key is for another operating system.", fields=("platform",))
BAD_ADDRESS = err(404, "invalid license key IP address [%s]", "An entry of core-per-ip-list has no IP address.", fields=("address",))
SYNTAX = err(
    405, "lickey syntax error: %s", "A line of the licence key file, or an entry of its core-per-ip-list, cannot be read.", fields=("text",)
)
NOT_LICENSED = err(
    406,
    "not licensed for IP [%s]",
    "An address of this machine is not in the licence key. The node starts when another one is.",
    fields=("address",),
)
LICENSED = info(
    408, "found valid licensed IP [%s]", "The licence key is good for this address of the machine.", fields=("address",), always=True
)
LOAD_ERROR = err(
    409,
    'license key "%s" load error: %s (%d)',
    "The file that lickey-file names cannot be read. The node does not start.",
    fields=("file", "error", "errno"),
)
TOO_MANY_ROUTES = err(
    411,
    "route-map entries=%lu exceeds license key max-domains=%ld",
    "The route map has more entries than the licence key allows. The node does not start.",
    fields=("entries", "most"),
)
NO_LINT = err(813, "lint option requires special license key", "The licence key does not allow the option lint, which is off now.")


@attrs.frozen
class Key:
    """A licence key as it stands in its file."""

    fields: Mapping[str, str] = attrs.field(factory=dict)
    """In the order of the file, the signature included."""

    def value(self, name: str) -> str:
        """What is enforced of a field: empty when it is missing, or marked as optional by ``?`` or ``~``."""
        text = self.fields.get(name, "")
        return "" if text[:1] in ("?", "~") else text

    @property
    def signed(self) -> bytes:
        """What the signature is made of: ``name=value`` and LF for each field but ``hash`` and those marked ``~``, sorted by name."""
        return signed_text(self.fields)

    @property
    def allows_lint(self) -> bool:
        return self.fields.get("lint", "") == "1"

    @property
    def expires(self) -> datetime | None:
        """None: never, or not readable."""
        return date(self.value("date-expires"))


@attrs.frozen
class Refusal:
    """Why a key is not good: a message and its arguments."""

    message: Message
    args: tuple[Any, ...] = ()


def signed_text(fields: Mapping[str, str]) -> bytes:
    """The octets that are signed (see ``Key.signed``)."""
    names = sorted(name for name, value in fields.items() if name != SIGNATURE and not value.startswith("~"))
    return "".join(f"{name}={fields[name]}\n" for name in names).encode()


def parse_key(text: str) -> Key | Refusal:
    """The fields of a key file: ``name=value`` lines, the value in quotes or not; blank lines and ``#`` lines are passed over."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, mark, value = line.partition("=")
        value = value.strip()
        if not mark or not name.strip():
            return Refusal(SYNTAX, (line,))
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        fields[name.strip().lower()] = value
    return Key(fields)


def load_key(path: str) -> Key | Refusal:
    """The key in the file ``path``. Waits for the disk."""
    try:
        with open(path, "rb") as file:
            octets = file.read(LARGEST + 1)
    except OSError as error:
        return Refusal(LOAD_ERROR, (path, error.strerror or str(error), error.errno or 0))
    if len(octets) > LARGEST:
        return Refusal(LOAD_ERROR, (path, "file too large", errno.EFBIG))
    return parse_key(octets.decode("utf-8", "replace"))


def date(text: str) -> datetime | None:
    """``2026-01-31``, an ISO date with time, or an RFC 5322 date; in UTC unless it says otherwise. None: neither."""
    for read in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            found = read(text)
        except (ValueError, TypeError, OverflowError):
            continue
        return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    return None


def own_platform() -> str:
    return platform.system()


@attrs.frozen
class Circumstances:
    """What a key is compared with."""

    version: str
    now: datetime
    addresses: Collection[str]
    public_key: str
    platform: str = attrs.field(factory=own_platform)


def refusal(key: Key, here: Circumstances) -> Refusal | None:
    """The first thing that is wrong with ``key`` itself, in the order of the checks; None when it is good so far."""
    for name in REQUIRED:
        if not key.fields.get(name, ""):
            return Refusal(MUST_BE_SET, (name,))
    if not _signature_holds(key, here.public_key):
        return Refusal(INVALID)
    return _of_program(key, here) or _of_dates(key, here)


def _signature_holds(key: Key, public_key: str) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_key)).verify(bytes.fromhex(key.fields.get(SIGNATURE, "")), key.signed)
    except (ValueError, InvalidSignature):
        return False
    return True


def _of_program(key: Key, here: Circumstances) -> Refusal | None:
    name, version, system = key.value("process-name"), key.value("process-version"), key.value("platform")
    if (name and name.lower() != PRODUCT) or (version and _major(version) > _major(here.version)):
        return Refusal(NOT_FOR_PROGRAM, (PRODUCT, here.version))
    if system and system.lower() != here.platform.lower():
        return Refusal(NOT_FOR_PLATFORM, (here.platform,))
    return None


def _of_dates(key: Key, here: Circumstances) -> Refusal | None:
    for name in ("date-issued", "date-expires"):
        if key.value(name) and date(key.value(name)) is None:
            return Refusal(UNREADABLE, (name, "not a date", errno.EINVAL))
    issued, expires = date(key.value("date-issued")), key.expires
    if issued is not None and issued > here.now:
        return Refusal(FUTURE)
    if expires is not None and expires <= here.now:
        return Refusal(EXPIRED)
    return None


def _major(version: str) -> int:
    digits = version.partition(".")[0]
    return int(digits) if digits.isascii() and digits.isdigit() else 0


def licensed_addresses(key: Key) -> frozenset[str] | Refusal:
    """The addresses of core-per-ip-list. The number of cores only matters when it is 0: such an entry never matches."""
    found = set()
    for entry in key.fields.get("core-per-ip-list", "").lstrip("?~").replace(",", " ").replace(";", " ").split():
        cores, mark, address = entry.partition("/")
        if not mark or not (cores.isascii() and cores.isdigit()):
            return Refusal(SYNTAX, (entry,))
        try:
            plain = str(ipaddress.ip_address(address))
        except ValueError:
            return Refusal(BAD_ADDRESS, (address,))
        if int(cores):
            found.add(plain)
    return frozenset(found)


InThread = Callable[..., Deferred[Any]]


class Licence:
    """The licence key of a node. Every method is without effect while ``lickey-file`` is empty."""

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        in_thread: InThread,
        *,
        version: str,
        now: Callable[[], float],
        addresses: Collection[str],
        routes: RouteMap,
    ) -> None:
        """``addresses`` are those of the machine's interfaces."""
        self._settings = settings
        self._journal = journal
        self._in_thread = in_thread
        self._version = version
        self._now = now
        self._addresses = addresses
        self._routes = routes
        self._told_expired = 0.0
        self.key = Key()
        """As it was read last."""

    @property
    def wanted(self) -> bool:
        return bool(self._settings[LICKEY_FILE])

    async def check(self) -> bool:
        """Read and check the key; what is wrong with it, or the address it is good for, has been logged."""
        if not self.wanted:
            return True
        loaded: Key | Refusal = await self._in_thread(load_key, self._settings[LICKEY_FILE])
        if isinstance(loaded, Refusal):
            return self._refuse(loaded)
        self.key = loaded
        now = datetime.fromtimestamp(self._now(), UTC)
        here = Circumstances(self._version, now, self._addresses, self._settings[LICKEY_PUBKEY])
        wrong = refusal(loaded, here)
        if wrong is not None:
            return self._refuse(wrong)
        return self._licensed_here(loaded) and await self._within_domains(loaded)

    async def fields(self) -> tuple[tuple[str, str], ...]:
        """For LKEY: check again, and the fields of the key. A bad key is logged and stops nothing."""
        await self.check()
        return tuple(self.key.fields.items())

    def permitted(self, settings: Settings) -> Settings:
        """``settings`` as the key allows them: without ``lint`` (#813) unless the key has it."""
        if not self.wanted or self.key.allows_lint:
            return settings
        lint = next((option for option in settings.options if option.name == "lint"), None)
        if lint is None or not settings[lint]:
            return settings
        self._journal.write(NO_LINT)
        return settings.evolve({lint: "-"})

    def daily(self) -> None:
        """At each sweep: the warning of the last day, and once a day that the key has ended."""
        if not self.wanted or self.key.expires is None:
            return
        left = self.key.expires.timestamp() - self._now()
        if left > DAY:
            return
        if left > 0:
            self._journal.write(EXPIRES_SOON, PRODUCT, self._version, 1, "")
        elif self._now() - self._told_expired >= DAY:
            self._told_expired = self._now()
            self._journal.write(EXPIRED)

    def _licensed_here(self, key: Key) -> bool:
        licensed = licensed_addresses(key)
        if isinstance(licensed, Refusal):
            return self._refuse(licensed)
        for address in self._addresses:
            if address in licensed or licensed & ANY_ADDRESS:
                self._journal.write(LICENSED, address)
                return True
            self._journal.write(NOT_LICENSED, address)
        return False

    async def _within_domains(self, key: Key) -> bool:
        allowed = key.value("max-domains")
        if not allowed:
            return True
        if not (allowed.isascii() and allowed.isdigit()):
            return self._refuse(Refusal(UNREADABLE, ("max-domains", "not a number", errno.EINVAL)))
        counts = await self._routes.counts()
        if not isinstance(counts, Counts):
            return True
        entries = counts.domains + counts.addresses + counts.accounts
        return entries <= int(allowed) or self._refuse(Refusal(TOO_MANY_ROUTES, (entries, int(allowed))))

    def _refuse(self, wrong: Refusal) -> bool:
        self._journal.write(wrong.message, *wrong.args)
        return False
