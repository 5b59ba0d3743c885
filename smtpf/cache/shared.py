"""The cache kept by a Valkey or Redis server, for a fleet whose nodes all ask the same one instead of telling each other.

Keys, values and life times are those of the cache file. A record is a hash ``smtpf:<key>`` with the fields of a row (``d h c t
e o``), which the server itself removes at its end. Memory answers for a few seconds only, because other nodes write too; counters
are always kept by the server, so that a limit holds for the whole fleet. While the server is away nothing is found (#542) and
nothing stored (#544), at once and without waiting. ``server`` keeps the connection. Source: spec chapter operations, 1.3 to 1.6.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any, Literal

from smtpf.cache import opening
from smtpf.cache.database import buried
from smtpf.cache.operations import Increment, Operation, Put, Read, Remove
from smtpf.cache.peers import CACHE_HOSTS, CACHE_MULTICAST_IP, CACHE_UNICAST_DOMAIN, CACHE_UNICAST_HOSTS
from smtpf.cache.records import Record, decoded, encoded
from smtpf.cache.resp import Reply
from smtpf.cache.server import BadAddress, Server, address_of, endpoint_of, greeting_of, names_server
from smtpf.cache.store import FRONT_LIMIT, Cache, Done, cache_from
from smtpf.journal.message import err

if TYPE_CHECKING:
    from smtpf.cache.store import _Unknown
    from smtpf.journal.journal import Journal
    from smtpf.settings.store import Settings

PREFIX = b"smtpf:"
"""Before each key, for servers that others use too."""
MEMORY_SECONDS = 5.0
"""For which memory may answer; what another node writes is seen after that time at the latest."""
FIELDS = (b"d", b"h", b"c", b"t", b"e", b"o")

NO_CLUSTER = err(
    1114,
    "cache-path=%s is shared by its server, but %s is set",
    "A cache server and replication between nodes exclude each other: remove the cluster options, or name a file. The node does not start.",
    since="modern",
)

_STORE = """
local function store(d, h, c, t, e, o, left)
  h, c, t, e = string.format('%.0f', h), string.format('%.0f', c), string.format('%.0f', t), string.format('%.0f', e)
  redis.call('HSET', KEYS[1], 'd', d, 'h', h, 'c', c, 't', t, 'e', e, 'o', o)
  if left > 0 then redis.call('EXPIRE', KEYS[1], string.format('%.0f', left)) else redis.call('DEL', KEYS[1]) end
  return {d, h, c, t, e, o}
end
local old = redis.call('HMGET', KEYS[1], 'd', 'h', 'c', 'e')
local now = tonumber(ARGV[2])
local alive = old[1] and (tonumber(old[4]) or 0) > now
"""
"""The life left is told in seconds, so that the server's clock need not be that of the nodes."""
PUT = (
    _STORE
    + """
local e = tonumber(ARGV[3])
local h, c = 1, now
if alive then h, c = (tonumber(old[2]) or 0) + 1, tonumber(old[3]) or now end
return store(ARGV[1], h, c, now, e, ARGV[4], e - now)
"""
).encode()
INCREMENT = (
    _STORE
    + """
if not alive then return store(ARGV[1], 1, now, now, now + tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[3])) end
local count = string.format('%.0f', (tonumber(old[1]) or 0) + tonumber(ARGV[1]))
local e = tonumber(old[4])
return store(count, (tonumber(old[2]) or 0) + 1, tonumber(old[3]) or now, now, e, ARGV[4], e - now)
"""
).encode()
REMOVE = b"""
local old = redis.call('HMGET', KEYS[1], 'd', 'h', 'c', 't', 'e', 'o')
redis.call('DEL', KEYS[1])
return old
"""


class SharedCache(Cache):
    """Records on a server. Made by :func:`node_cache_from`."""

    counts_in_memory = False

    def __init__(
        self,
        settings: Settings,
        journal: Journal,
        server: Server,
        *,
        now: Callable[[], float] = time.time,
        front_limit: int = FRONT_LIMIT,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        super().__init__(settings, journal, now=now, front_limit=front_limit)
        self._server = server
        self._node = random_bytes(16).hex()
        self._front_began = now()

    async def start(self) -> None:
        """Try to connect, within a bound. The node starts in either case: no mail is refused for want of a cache."""
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop()

    @property
    def node(self) -> str:
        """Another one at each start."""
        return self._node

    def _held(self, key: str) -> Record | Literal[_Unknown.UNKNOWN] | None:
        if not 0 <= self._now() - self._front_began < MEMORY_SECONDS:
            self.forget()
            self._front_began = self._now()
        return super()._held(key)

    def _submit(self, operation: Operation, done: Done) -> bool:
        connection = self._server.connection
        if connection is None:
            return False

        def answered(reply: Reply, error: Exception | None) -> None:
            result = None
            if error is None:
                try:
                    result = self._result(operation, reply)
                except (TypeError, ValueError, AttributeError):
                    error = ValueError("the server holds no record under this key")
            done(result, error)

        return connection.ask(self._words(operation), answered)

    def _words(self, operation: Operation) -> tuple[bytes, ...]:
        key, node = PREFIX + encoded(operation.key), self._node.encode()
        match operation:
            case Read():
                return (b"HMGET", key, *FIELDS)
            case Put():
                return (b"EVAL", PUT, b"1", key, encoded(operation.value), b"%d" % operation.now, b"%d" % operation.e, node)
            case Increment():
                return (b"EVAL", INCREMENT, b"1", key, b"%d" % operation.amount, b"%d" % operation.now, b"%d" % operation.window, node)
            case Remove():
                return (b"EVAL", REMOVE, b"1", key)

    def _result(self, operation: Operation, reply: Reply) -> Any:
        record = _record(operation.key, reply)
        if not isinstance(operation, Remove):
            return record
        alive = record is not None and record.alive(operation.now)
        return (record if alive else None), buried(record, operation.key, operation.now, self._node)


def _record(key: str, fields: list[bytes | None]) -> Record | None:
    """Raises TypeError, ValueError or AttributeError for what is no record."""
    d, h, c, t, e, o = fields
    if d is None:
        return None
    h, c, t, e = (0 if number is None else int(number) for number in (h, c, t, e))  # type: ignore[assignment]
    return Record(key, decoded(d), h, c, t, e, (o or b"").decode("ascii", "replace"))  # type: ignore[arg-type]


def node_cache_from(
    settings: Settings,
    journal: Journal,
    reactor: Any,
    *,
    give_up: Callable[[], None] = lambda: None,
    rng: Random | None = None,
    now: Callable[[], float] = time.time,
) -> Cache:
    """The cache of a node, file or server, not yet started. Raises ``opening.CacheOpenError``, logged (#172, #173, #1114)."""
    path = settings[opening.CACHE_PATH]
    if not names_server(path):
        return cache_from(settings, journal, reactor, give_up=give_up, now=now)
    try:
        address = address_of(path)
    except BadAddress as problem:
        raise _refused(journal, path.partition("://")[0] + "://", problem) from problem
    for option in (CACHE_MULTICAST_IP, CACHE_UNICAST_DOMAIN, CACHE_UNICAST_HOSTS, CACHE_HOSTS):
        if settings.text(option):
            journal.write(NO_CLUSTER, address.shown, option.name)
            raise opening.CacheOpenError(option.name)
    try:
        endpoint, greeting = endpoint_of(address, reactor), greeting_of(address)
    except Exception as problem:
        # An unreadable file of certificates is an OSError, a ValueError, or one of OpenSSL's own.
        raise _refused(journal, address.shown, problem) from problem
    server = Server(reactor, journal, endpoint, greeting, address.shown, rng or Random())
    return SharedCache(settings, journal, server, now=now)


def _refused(journal: Journal, shown: str, problem: Exception) -> opening.CacheOpenError:
    text = getattr(problem, "strerror", None) or str(problem) or type(problem).__name__
    journal.write(opening.OPEN_ERROR, shown, text, getattr(problem, "errno", 0) or 0)
    return opening.CacheOpenError(text)
