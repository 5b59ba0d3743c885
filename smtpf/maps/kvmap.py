"""The tool that compiles a text map into a database, dumps one, and checks a text.

``smtpf-map access!sql!/etc/smtpf/access.sq3 < access.cf``. The database is built beside the old one and put in its place
by renaming, so that a running node reads either the old or the new map. Source: spec chapter maps, section 7.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Callable, Iterable, Sequence
from getopt import GetoptError, gnu_getopt
from pathlib import Path
from typing import BinaryIO, TextIO

import attrs

from smtpf.maps.check import check_text, told
from smtpf.maps.keys import normal_key
from smtpf.maps.opening import Specification, parse_specification
from smtpf.maps.source import MapError
from smtpf.maps.sqlite import ALL, connect
from smtpf.maps.text import Line, Text, parse_text

GOOD, BAD, USAGE = 0, 1, 64
NEW_MODE = 0o660
"""Permissions of a database that did not exist before."""

BUSY_SECONDS = 20.0

CREATE = "CREATE TABLE IF NOT EXISTS kvm ( k TEXT PRIMARY KEY, v TEXT )"
SAVE = "INSERT OR REPLACE INTO kvm (k, v) VALUES (CAST(?1 AS TEXT), CAST(?2 AS TEXT))"

HELP = """\
usage: smtpf-map [-abnlLuU] MAP < text     compile
       smtpf-map -d MAP > text             dump
       smtpf-map -c MAP [FILE ...]         check the files, or standard input
MAP is TABLE!TYPE!LOCATION, such as access!sql!/etc/smtpf/access.sq3; TABLE alone is enough with -c.
  -a  add to the map instead of replacing it     -b  keep keys that have no value
  -c  check only (also --check)                  -d  dump
  -l  keys to lower case    -u  to upper case    -n  no effect
  -L  values to lower case  -U  to upper case
"""


@attrs.frozen
class Job:
    """What the command line asks for."""

    flags: frozenset[str]
    map: str
    files: tuple[str, ...]

    def key(self, key: str) -> str:
        if "-l" in self.flags:
            return normal_key(key)
        return key.upper() if "-u" in self.flags else key

    def value(self, value: str) -> str:
        if "-L" in self.flags:
            return value.lower()
        return value.upper() if "-U" in self.flags else value


class Failed(Exception):
    """The job cannot be done; the text is for standard error."""


def main(
    argv: Sequence[str] | None = None, stdin: BinaryIO | None = None, stdout: BinaryIO | None = None, stderr: TextIO | None = None
) -> int:
    """Do what ``argv`` (without the program's name) says; 0 done, 1 failed or wrong, 64 not understood."""
    source = sys.stdin.buffer if stdin is None else stdin
    out = sys.stdout.buffer if stdout is None else stdout
    errors = sys.stderr if stderr is None else stderr

    def tell(text: str) -> None:
        errors.write(text.encode("utf-8", "surrogateescape").decode("utf-8", "replace") + "\n")

    job = read_arguments(sys.argv[1:] if argv is None else argv)
    if job is None:
        errors.write(HELP)
        return USAGE
    try:
        if "-c" in job.flags:
            return check(job, source, tell)
        if "-d" in job.flags:
            dump(job, out)
        else:
            compile_map(job, source, tell)
    except Failed as failure:
        tell(str(failure))
        return BAD
    return GOOD


def read_arguments(argv: Sequence[str]) -> Job | None:
    """The job, or None when the command line is not one."""
    try:
        options, words = gnu_getopt(list(argv), "abcdlLnuU", ["check"])
    except GetoptError:
        return None
    flags = frozenset("-c" if flag == "--check" else flag for flag, _ in options)
    if not words or (len(words) > 1 and "-c" not in flags):
        return None
    return Job(flags, words[0], tuple(words[1:]))


def check(job: Job, source: BinaryIO, tell: Callable[[str], None]) -> int:
    """Complaints about each file, or about standard input."""
    table = job.map.partition("!")[0].lower()
    if table not in ("access", "route"):
        raise Failed("invalid map argument")
    complaints: list[str] = []
    for place in job.files or ("-",):
        try:
            content = source.read() if place == "-" else Path(place).read_bytes()
            complaints += told("stdin" if place == "-" else place, check_text(parse_text(content), table))
        except (OSError, ValueError) as error:
            complaints.append(f"{place}: {error}")
    for complaint in complaints:
        tell(complaint)
    return BAD if complaints else GOOD


def dump(job: Job, out: BinaryIO) -> None:
    """Rows as ``key TAB value``, in the order of the keys."""
    specification = _place(job)
    rows: Iterable[tuple[str, str | None]]
    try:
        if specification.kind == "sql":
            connection = connect(specification.path)
            try:
                rows = connection.execute(f"{ALL} ORDER BY k").fetchall()
            finally:
                connection.close()
        elif specification.kind in ("text", "file"):
            rows = sorted({line.key: line.value for line in parse_text(specification.path.read_bytes()).lines}.items())
        else:
            raise Failed(f"{job.map} open error")
    except (OSError, ValueError, sqlite3.Error):
        raise Failed(f"{job.map} open error") from None
    for key, value in rows:
        out.write(f"{key}\t{value or ''}\n".encode("utf-8", "surrogateescape"))
    out.flush()


def compile_map(job: Job, source: BinaryIO, tell: Callable[[str], None]) -> None:
    """Build the database from ``source`` and put it in the place of the old one."""
    specification = _place(job)
    if specification.kind != "sql":
        raise Failed(f"{job.map} open error")
    rows = _rows(parse_text(source.read()), job, tell)
    path = specification.path
    building = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        _build(building, path if "-a" in job.flags else None, rows, job)
        _keep_owner_and_mode(building, path)
        os.replace(building, path)
    except OSError:
        raise Failed(f"{job.map} open error") from None
    finally:
        building.unlink(missing_ok=True)


def _rows(text: Text, job: Job, tell: Callable[[str], None]) -> list[Line]:
    for number in text.keyless:
        tell(f"kvmap: warning at {number}: line begins with a blank, ignored")
    rows: dict[str, Line] = {}
    for line in text.lines:
        if not line.value and "-b" not in job.flags:
            if not line.blank:
                tell(f'kvmap: warning at {line.number}: key "{line.key}" has no value, skipping')
                continue
            tell(f'kvmap: warning at {line.number}: key "{line.key}" has an empty value')
        key = job.key(line.key)
        if key in rows:
            tell(f'kvmap: warning at {line.number}: key "{line.key}" replaces that of line {rows[key].number}')
        rows[key] = Line(line.number, key, job.value(line.value))
    return list(rows.values())


def _build(building: Path, old: Path | None, rows: list[Line], job: Job) -> None:
    try:
        building.unlink(missing_ok=True)
        os.close(os.open(building, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        connection = sqlite3.connect(building, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            if old is not None and old.exists():
                with connect(old) as kept:
                    kept.backup(connection)
                kept.close()
            connection.execute(CREATE)
            _fill(connection, rows)
        finally:
            connection.close()
    except sqlite3.Error:
        raise Failed(f"{job.map} open error") from None
    descriptor = os.open(building, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fill(connection: sqlite3.Connection, rows: list[Line]) -> None:
    try:
        connection.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error:
        raise Failed("kvmap: BEGIN failed") from None
    for line in rows:
        octets = (line.key.encode("utf-8", "surrogateescape"), line.value.encode("utf-8", "surrogateescape"))
        try:
            connection.execute(SAVE, octets)
        except sqlite3.Error:
            connection.rollback()
            raise Failed(f'kvmap: error at {line.number}: saving key "{line.key}" failed') from None
    try:
        connection.execute("COMMIT")
    except sqlite3.Error:
        raise Failed("kvmap: COMMIT failed") from None


def _keep_owner_and_mode(building: Path, path: Path) -> None:
    try:
        old = path.stat()
    except FileNotFoundError:
        building.chmod(NEW_MODE)
        return
    try:
        os.chown(building, old.st_uid, old.st_gid)
    except PermissionError:
        # Only the superuser may give a file away; the group is what a node reads it by.
        os.chown(building, -1, old.st_gid)
    building.chmod(old.st_mode & 0o7777)


def _place(job: Job) -> Specification:
    table, mark, rest = job.map.partition("!")
    if not mark or not table or "!" not in rest:
        raise Failed("invalid map argument")
    specification = parse_specification(rest)
    if isinstance(specification, MapError):
        raise Failed(f"{job.map} open error")
    return specification
