"""Where the records of a map come from, as look-ups see it.

A look-up takes one ``View`` and asks it for several keys, so that a reload in between never mixes two contents. A view
held in memory answers at once; one that must ask somebody gives a Deferred. Source: spec chapter maps, sections 2 to 8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol

import attrs
from twisted.internet.defer import Deferred

from smtpf.maps.keys import normal_key


@attrs.frozen
class LookupFailed:
    """Neither found nor not found: the map could not be asked. Never to be taken for an absent key."""

    reason: str = ""


FAILED: Final = LookupFailed("map look-up failed")

Found = str | None | LookupFailed
"""Value of a key (may be empty), None when there is no such key, or a failure."""


Walk = Callable[[], "Iterable[tuple[str, str]] | LookupFailed"]


class InThread(Protocol):
    """Run a function in a thread; its result, or its exception, comes by the Deferred."""

    def __call__(self, function: Callable[..., Any], /, *args: Any) -> Deferred[Any]: ...


class View(Protocol):
    """One content of a map, for one look-up."""

    @property
    def tags(self) -> frozenset[str] | None:
        """Tags of which any key exists; None when that is not known."""

    @property
    def walk(self) -> Walk | None:
        """Gives the records one by one; may wait for a disk, so it runs in a thread. None when the map cannot be walked."""

    def get(self, key: str, /) -> Found | Deferred[Found]:
        """The value of a key."""

    def close(self) -> None:
        """No more look-ups will come."""


class Source(Protocol):
    """A map's back end."""

    @property
    def view(self) -> View: ...

    def start(self) -> None:
        """Begin to watch for changes, where there is something to watch."""

    def stop(self) -> Deferred[None] | None:
        """End watching and close what is open."""

    def reload(self) -> Deferred[None] | None:
        """Look at the map again now (SIGHUP), whatever its time stamps say."""

    def when_loaded(self, told: Callable[[], None]) -> None:
        """Call ``told`` after each reload that brought new content."""


@attrs.frozen(eq=False)
class MapError:
    """A map that cannot be opened, as a value: why, in words and as errno or library code (0 when there is none)."""

    reason: str
    number: int = 0


class Table:
    """The whole content of a map in memory."""

    __slots__ = ("get", "records", "tags", "walk")

    def __init__(self, records: Mapping[str, str]) -> None:
        self.records = records
        self.get: Callable[[str], Found] = records.get
        self.tags: frozenset[str] | None = tags_of(records)
        self.walk: Walk | None = records.items

    def close(self) -> None:
        """Nothing to close."""


def tags_of(keys: Iterable[str]) -> frozenset[str]:
    """Tags that begin any of ``keys``; a combination counts under its own name (``connect:to:``) and under its first tag."""
    present: set[str] = set()
    for key in keys:
        tag, _, rest = key.partition(":")
        present.add(f"{tag}:")
        if tag in ("connect", "from"):
            for second in ("from:", "to:"):
                if f":{second}" in rest:
                    present.add(f"{tag}:{second}")
    return frozenset(present)


def table_of(records: Iterable[tuple[str, str]]) -> Table:
    """A table of records as they stand in a file; of equal keys the last one wins."""
    return Table({normal_key(key): value for key, value in records})


EMPTY: Final = Table({})


class FixedSource:
    """A map whose content never changes: a disabled one, or one given in a test."""

    def __init__(self, table: Table = EMPTY) -> None:
        self._table = table

    @property
    def view(self) -> View:
        return self._table

    def start(self) -> None:
        """Nothing to watch."""

    def stop(self) -> None:
        """Nothing to close."""

    def reload(self) -> None:
        """Nothing to read."""

    def when_loaded(self, told: Callable[[], None]) -> None:
        """It is never loaded again."""
