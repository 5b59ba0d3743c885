"""``smtpf cache`` and ``smtpf-cache``: look into the cache of a running node and change it, or do so with the file of a stopped one.

Commands are words of the command line or lines of standard input: GET, PUT, REMOVE (or DELETE), and QUIT; the first letter is
enough. A change to a running node goes to the whole cluster at once; one made in the file goes there when the node is started and
meets the others again. Source: spec chapter operations, 9.1.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, TextIO, TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from smtpf.admin.client import NotReached, RunningNode, connect
from smtpf.admin.tools import FAILED, Usage, read_call, told
from smtpf.cache.database import COLUMNS, Database, record_of
from smtpf.cache.opening import CACHE_PATH, CacheOpenError
from smtpf.cache.records import Record, decoded, encoded, storable
from smtpf.cache.store import Cache, CacheError, cache_from
from smtpf.journal.journal import Journal
from smtpf.settings.language import EXIT_USAGE

T = TypeVar("T")

USAGE = """\
usage: smtpf cache [--json] [--socket=PATH] [get KEY | put KEY VALUE | remove KEY | active]
       smtpf cache --offline=FILE [--ttl=SECONDS] [get KEY | put KEY VALUE | remove KEY]
       smtpf cache --offline=FILE --dump > FILE
       smtpf cache --offline=FILE --load < FILE
Without a command, commands are read from standard input, one a line.
"""
FLAGS = ("--offline=", "--ttl=", "--dump", "--load")
_SHOWN = re.compile(r'k="(.*)" d="(.*)" h=(\d+) c=0x([0-9a-f]+) \(.*?\) t=0x([0-9a-f]+) \(.*?\) e=0x([0-9a-f]+) \(.*?\)')
_ESCAPE = re.compile(r"\\x([0-9a-f]{2})")
_UNSAFE = re.compile(rb"[\x00-\x1f\\]")


class Failed(Exception):
    """The cache could not do it."""


class Records(Protocol):
    """What the commands need: each gives the record or None, and raises Failed."""

    def get(self, key: str) -> Record | None: ...
    def put(self, key: str, value: str) -> Record: ...
    def remove(self, key: str) -> Record | None: ...


class OfNode:
    """The cache of a running node."""

    def __init__(self, node: RunningNode) -> None:
        self._node = node

    def get(self, key: str) -> Record | None:
        return self._ask(f"CACHE GET {key}")

    def put(self, key: str, value: str) -> Record:
        record = self._ask(f"CACHE PUT {key} {value}")
        if record is None:
            raise Failed
        return record

    def remove(self, key: str) -> Record | None:
        return self._ask(f"CACHE DELETE {key}")

    def _ask(self, line: str) -> Record | None:
        try:
            reply = self._node.ask(line)
        except NotReached as problem:
            raise Failed(str(problem)) from problem
        if reply.code == 210:
            return None
        found = _SHOWN.fullmatch(reply.lines[-1])
        if found is None:
            raise Failed(reply.lines[-1])
        created, touched, expires = (int(text, 16) for text in found.groups()[3:])
        return Record(found[1], found[2], int(found[3]), created, touched, expires)


class OfFile:
    """The cache file of a node that is not running."""

    def __init__(self, cache: Cache, ttl: int | None) -> None:
        self._cache = cache
        self._ttl = ttl

    def get(self, key: str) -> Record | None:
        return _now(self._cache.read(key))

    def put(self, key: str, value: str) -> Record:
        return _now(self._cache.write(key, value, self._ttl))

    def remove(self, key: str) -> Record | None:
        return _now(self._cache.remove(key))


def main(words: Sequence[str] | None = None, stdin: TextIO | None = None) -> int:
    """Do what the words ask for. 0 done, 1 failed, 64 not understood."""
    try:
        call, flags = read_call(sys.argv[1:] if words is None else words, FLAGS)
        ttl = int(flags["--ttl"]) if "--ttl" in flags else None
        file = flags.get("--offline", "")
        if (("--dump" in flags or "--load" in flags or ttl is not None) and not file) or ("--dump" in flags and "--load" in flags):
            raise Usage
    except (Usage, ValueError):
        return told(USAGE.rstrip(), EXIT_USAGE)
    lines = [" ".join(call.words)] if call.words else stdin or sys.stdin
    if file:
        return _offline(file, ttl, flags, lines, call.json)
    try:
        with connect(call.settings, call.socket) as node:
            if call.words and call.words[0][:1].lower() == "a":
                return _active(node, call.json)
            return commands(OfNode(node), lines, call.json)
    except NotReached as problem:
        return told(f"smtpf: {problem}", FAILED)


def _offline(file: str, ttl: int | None, flags: dict[str, str], lines: Iterable[str], as_json: bool) -> int:
    journal = Journal(lambda entry: print(entry, file=sys.stderr))
    try:
        from smtpf.settings.store import Settings

        cache = cache_from(Settings.of({CACHE_PATH: file}), journal, None)
        cache.start()
    except CacheOpenError:
        return FAILED
    try:
        if "--dump" in flags:
            return _now(cache.in_thread(dump, writes=False))
        if "--load" in flags:
            records = list(loaded(lines))
            return _now(cache.in_thread(lambda database: store(database, records)))
        return commands(OfFile(cache, ttl), lines, as_json)
    except Failed as problem:
        return told(f"smtpf: {file}: {problem}", FAILED)
    finally:
        cache.stop()


def commands(records: Records, lines: Iterable[str], as_json: bool = False) -> int:
    """Carry out commands up to QUIT, a single dot or the end. 1 when one of them failed."""
    status = 0
    for line in lines:
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if line == "." or line[0] in "Qq":
            break
        said = list(answers(records, line))
        for text, record in said:
            if as_json:
                if record is not None and not (text.startswith("old") and len(said) > 1):
                    print(json.dumps({"key": record.key, "value": record.value, "hits": record.h, "created": record.c,
                                      "touched": record.t, "expires": record.e}))  # fmt: skip
                elif record is None:
                    print(json.dumps({"text": text}))
            else:
                print(text)
        status |= any(text.endswith(" error") for text, _ in said)
    return status


def answers(records: Records, line: str) -> Iterator[tuple[str, Record | None]]:
    """The lines that answer one command, each with the record it tells of."""
    verb, _, rest = line.partition(" ")
    key, _, value = rest.strip().partition(" ")
    value = value.strip()
    letter = verb[0].upper()
    if letter not in "GPRD" or not key or (letter == "P" and not value):
        yield "input error", None
        return
    try:
        if letter == "P":
            old = records.get(key)
            if old is not None:
                yield told_of("old", old), old
            new = records.put(key, value)
            yield told_of("new", new), new
            return
        old = records.get(key) if letter == "G" else records.remove(key)
    except Failed:
        yield f"{ {'G': 'GET', 'P': 'PUT'}.get(letter, 'DELETE') } error", None
        return
    if old is None:
        yield f'key="{key}" not found', None
        return
    yield told_of("old", old), old
    if letter != "G":
        yield f'deleted key="{key}"', None


def told_of(which: str, record: Record) -> str:
    """One record as the tool has always shown it."""
    return f'{which} key="{record.key}" value="{record.value}" hits={record.h} created=0x{record.c:x}'


def dump(database: Database) -> int:
    """Print every living record as key, value, version and times, with tabs between them."""
    for row in database.connection.execute(f"SELECT {COLUMNS} FROM mcc WHERE x = 0"):
        record = record_of(row)
        print("\t".join((_kept(record.key), _kept(record.value), str(record.h), str(record.c), str(record.t), str(record.e))))
    return 0


def store(database: Database, records: Iterable[Record]) -> int:
    """Store records, whatever is there under their keys, as changes of this node. In one transaction."""
    for record in records:
        database.write(attrs.evolve(record, o=database.node))
    return 0


def loaded(lines: Iterable[str]) -> Iterator[Record]:
    """The records of a dump. Raises Failed for a line that is none."""
    for number, line in enumerate(lines, start=1):
        try:
            key, value, *numbers = line.rstrip("\n").split("\t")
            key, value = _plain(key), _plain(value)
            version, created, touched, expires = map(int, numbers)
        except ValueError:
            raise Failed(f"line {number} is not KEY VALUE H C T E with tabs between them") from None
        if not storable(key, value):
            raise Failed(f"line {number}: key or value too long")
        yield Record(key, value, version, created, touched, expires)


def _kept(text: str) -> str:
    """``text`` with control characters and backslashes as ``\\xNN``."""
    return decoded(_UNSAFE.sub(lambda found: b"\\x%02x" % found[0][0], encoded(text)))


def _plain(text: str) -> str:
    return decoded(_ESCAPE.sub(lambda found: chr(int(found[1], 16)), text).encode("utf-8", "surrogateescape"))


def _active(node: RunningNode, as_json: bool) -> int:
    reply = node.ask("CACHE ACTIVE")
    if not reply.good:
        return told(f"smtpf: {reply.lines[-1]}", FAILED)
    rows = [line for line in reply.body if line.startswith("ip=")]
    if as_json:
        print(json.dumps([dict(pair.partition("=")[::2] for pair in row.split()) for row in rows], indent=2))
    else:
        print("\n".join(rows), end="\n" if rows else "")
    return 0


def _now(work: Deferred[T]) -> T:
    """The result of work that has been done in this thread. Raises Failed."""
    outcome: list[Any] = []
    work.addBoth(outcome.append)
    result = outcome[0]
    if isinstance(result, Failure):
        if result.check(CacheError):
            raise Failed(result.getErrorMessage())
        result.raiseException()
    return result  # type: ignore[no-any-return]


if __name__ == "__main__":
    sys.exit(main())
