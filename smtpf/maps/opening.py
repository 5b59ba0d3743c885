"""From the text of an ``access-map`` or ``route-map`` option to the map.

What is wrong with a map is told here, once, with the numbers that postmasters know; the caller only ends the program.
Source: spec chapter maps, section 2.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
from twisted.internet.task import deferLater

from smtpf.journal.journal import Journal
from smtpf.maps import access, routes
from smtpf.maps.access import AccessMap
from smtpf.maps.hosts import Host, parse_host
from smtpf.maps.routes import RouteMap
from smtpf.maps.socketmap import DEFAULT_PORT, SocketMap
from smtpf.maps.source import FixedSource, InThread, LookupFailed, MapError, Source
from smtpf.maps.sqlite import SqliteReader
from smtpf.maps.watched import WatchedSource, read_text
from smtpf.stats.tables import Statistics

KINDS = ("text", "file", "sql", "socketmap")
READ_ONLY = "read-only!"
ATTEMPTS = 6
"""How often the route map is tried at start."""

ATTEMPT_SECONDS = 5.0
"""Pause between two attempts."""


@attrs.frozen
class Specification:
    """``TYPE!LOCATION``."""

    text: str
    kind: str
    location: str
    server: Host | None = None

    @property
    def path(self) -> Path:
        return Path(self.location)


def parse_specification(text: str) -> Specification | MapError:
    """The kind and place of a map, or what is wrong with the text."""
    body = text.strip()
    if body.lower().startswith(READ_ONLY):
        body = body[len(READ_ONLY) :]
    kind, mark, location = body.partition("!")
    kind = kind.lower()
    if not mark or kind not in KINDS:
        return MapError(f"not one of {', '.join(f'{known}!' for known in KINDS)}")
    if kind == "socketmap":
        server = parse_host(location, DEFAULT_PORT)
        return MapError("not a host, host:port or socket") if server is None else Specification(text, kind, location, server)
    if not location.startswith("/"):
        return MapError("not an absolute path")
    return Specification(text, kind, location)


@attrs.frozen(eq=False)
class Workshop:
    """What maps are made with: the log, the reactor, and threads."""

    journal: Journal
    reactor: Any
    in_thread: InThread

    def source(self, specification: Specification, table: str) -> Source | MapError:
        """The back end, read for the first time. ``table`` is ``access`` or ``route``."""
        if specification.server is not None:
            return SocketMap(table, specification.server, self.journal, self.reactor)
        read = SqliteReader(self.journal, self.reactor, self.in_thread) if specification.kind == "sql" else read_text
        source = WatchedSource(specification.path, read, self.journal, self.reactor, self.in_thread)
        return source.open() or source


def open_access_map(text: str, workshop: Workshop) -> AccessMap | MapError:
    """The map of the option ``access-map``; an error has been logged (#116, #117) and ends the program with status 1."""
    journal = workshop.journal
    if not text.strip():
        journal.write(access.DISABLED)
        return AccessMap(FixedSource(), journal)
    specification = parse_specification(text)
    if isinstance(specification, MapError):
        journal.write(access.OPEN_ERROR, text)
        return specification
    if specification.kind == "text":
        journal.write(access.TEXT_REFUSED, text)
        return MapError("use file! in place of text!")
    source = workshop.source(specification, "access")
    if isinstance(source, MapError):
        journal.write(access.OPEN_ERROR, text)
        return source
    return AccessMap(source, journal)


async def open_route_map(text: str, workshop: Workshop, stats: Statistics | None = None) -> RouteMap | MapError:
    """The map of the option ``route-map``, its records counted (#557).

    An error ends the program with status 1. It has been logged (#1018, #410), except that the option is empty: the
    caller logs that as #537 with the text of the error.
    """
    if not text.strip():
        return MapError("route-map undefined")
    specification = parse_specification(text)
    if isinstance(specification, MapError):
        return _not_opened(text, specification, workshop.journal)
    outcome: RouteMap | MapError = MapError("")
    for attempt in range(ATTEMPTS):
        if attempt:
            await deferLater(workshop.reactor, ATTEMPT_SECONDS)
        outcome = await _open_and_count(specification, workshop, stats)
        if isinstance(outcome, RouteMap):
            return outcome
    return _not_opened(text, outcome, workshop.journal) if isinstance(outcome, MapError) else outcome


async def _open_and_count(specification: Specification, workshop: Workshop, stats: Statistics | None) -> RouteMap | MapError:
    source = workshop.source(specification, "route")
    if isinstance(source, MapError):
        return source
    routes_found = RouteMap(source, workshop.journal, stats, workshop.in_thread)
    counts = await routes_found.counts()
    if isinstance(counts, LookupFailed):
        source.stop()
        return MapError(counts.reason)
    routes_found.announce(counts)
    return routes_found


def _not_opened(text: str, error: MapError, journal: Journal) -> MapError:
    journal.write(routes.OPEN_ERROR, text, error.reason, error.number)
    journal.write(routes.COUNT_ERROR)
    return error
