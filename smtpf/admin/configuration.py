"""Changing a running node: options by OPTN and VERB, and everything at once by SIGHUP or ``smtpf reload``.

A change is taken whole or not at all: with one error in the option file, or one part of the node that cannot live with
the new options, the old ones stay in force and the log tells why. Maps, certificates and texts are read one by one; one
that cannot be read keeps what it had and says so itself. Source: spec chapters options, 7, and operations, 4.4 and 6.6.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import attrs
from twisted.internet.defer import Deferred, DeferredLock
from twisted.python.failure import Failure

from smtpf.journal.journal import Journal
from smtpf.journal.message import Message, err, info
from smtpf.journal.verbose import VERBOSE
from smtpf.settings.language import Loaded, log_unknown
from smtpf.settings.runtime import reloaded
from smtpf.settings.store import Settings, SettingsHolder

MOST_PROBLEMS = 20
"""Errors of one reading of the option file that are logged."""

NOT_RELOADED = err(
    1134,
    "options not reloaded: %s",
    "The option file was to be read again and has an error: nothing of it is in force, the node goes on with the options it had. "
    "Mend the line and reload; `smtpf check` tells all errors at once.",
    fields=("problem",),
    since="new",
)
RELOADED = info(
    1135,
    "reloaded, options changed=%lu",
    "Options, maps, certificates and text files have been read again. What could not be read has a line of its own before this one.",
    fields=("changed",),
    always=True,
    since="new",
)
SOURCE_FAILED = err(
    1136,
    "%s not reloaded: %s (%d)",
    "A file was to be read again and could not be. What was read from it before stays in use.",
    fields=("file", "error", "errno"),
    since="new",
)

Listener = Callable[[Settings], object]
Reread = Callable[[], Loaded]
Source = Callable[[], "Awaitable[object] | None"]
InThread = Callable[..., Deferred[Any]]


@attrs.frozen
class Reloaded:
    """What became of a reload, for the one who asked for it."""

    problems: tuple[str, ...] = ()
    """Why nothing was changed; empty when the options were taken."""
    restart: tuple[str, ...] = ()
    """Options that have another value in the file and need a restart."""
    changed: tuple[str, ...] = ()


class Configuration:
    """The one place where the options of a running node change."""

    def __init__(
        self,
        holder: SettingsHolder,
        journal: Journal,
        in_thread: InThread,
        reread: Reread | None = None,
        permitted: Callable[[Settings], Settings] = lambda settings: settings,
    ) -> None:
        """``reread`` reads option file and command line again; it may block, so it is called by ``in_thread``.

        ``permitted`` takes back what the licence key does not allow.
        """
        self._holder = holder
        self._journal = journal
        self._in_thread = in_thread
        self._reread = reread
        self._permitted = permitted
        self._lock = DeferredLock()
        self._sources: list[tuple[str, Source]] = []
        holder.subscribe(self._use_words)
        self._words = holder.current.text(VERBOSE)

    def follow(self, *listeners: Listener) -> None:
        """Call each with new settings, in this order. Call this with all that are to follow before the node is ready."""
        for listener in listeners:
            self._holder.subscribe(listener)  # type: ignore[arg-type]

    def on_reload(self, name: str, source: Source) -> None:
        """Read ``source`` again at each reload. It keeps what it has when it cannot be read, and logs that."""
        self._sources.append((name, source))

    def apply(self, settings: Settings) -> bool:
        """Put ``settings`` in force. False, with everything as it was, when a part of the node cannot live with them."""
        before = self._holder.current
        try:
            self._holder.replace(self._permitted(settings))
        except Exception:
            self._journal.failure(Failure(), doing="configure")
            self._holder.replace(before)
            return False
        return True

    async def reload(self) -> Reloaded:
        """Read everything again; one reload at a time."""
        await self._lock.acquire()
        try:
            return await self._reload()
        finally:
            self._lock.release()

    async def _reload(self) -> Reloaded:
        outcome = await self._reload_options()
        await self.read_sources()
        if not outcome.problems:
            self._journal.write(RELOADED, len(outcome.changed))
        return outcome

    async def read_sources(self) -> None:
        """Read everything but the options again."""
        for name, source in self._sources:
            try:
                work = source()
                if work is not None:
                    await work
            except Exception as error:
                self._journal.write(SOURCE_FAILED, name, getattr(error, "strerror", None) or error, getattr(error, "errno", None) or 0)

    async def _reload_options(self) -> Reloaded:
        if self._reread is None:
            return Reloaded()
        loaded: Loaded = await self._in_thread(self._reread)
        errors = tuple(str(problem) for problem in loaded.problems if problem.is_error)
        if not errors:
            log_unknown(loaded.problems, self._journal.write)
            errors, outcome = self._take(loaded.settings)
            if not errors:
                return outcome
        for problem in errors[:MOST_PROBLEMS]:
            self._journal.write(NOT_RELOADED, problem)
        return Reloaded(errors)

    def _take(self, fresh: Settings) -> tuple[tuple[str, ...], Reloaded]:
        current = self._holder.current
        restart: list[str] = []

        def write(message: Message, name: str) -> None:
            restart.append(name)
            self._journal.write(message, name)

        new = reloaded(current, fresh, write)
        changed = [option for option in new.options if new.text(option) != current.text(option)]
        unfit = tuple(f'"{option.name}" does not take this value in a running node' for option in changed if not option.fits(new[option]))
        if unfit:
            return unfit, Reloaded()
        if not self.apply(new):
            return ("a part of the node failed with the new options",), Reloaded()
        return (), Reloaded((), tuple(restart), tuple(option.name for option in changed))

    def _use_words(self, settings: Settings) -> None:
        words = settings.text(VERBOSE)
        if words != self._words:
            self._words = words
            self._journal.use_words(words)
