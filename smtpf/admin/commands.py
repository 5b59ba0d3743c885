"""The administration commands: what a postmaster asks a running node, and what he changes in it.

They are given on the SMTP port by clients of this machine, before MAIL FROM, or at the control socket. Each method is one
command and gives the lines of its reply. Source: spec chapter operations, 3.8 and 4.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from smtpf.admin.asker import Asker
from smtpf.admin.roster import KILLED, OwnSessions, Roster
from smtpf.cache.records import Record, encoded
from smtpf.cache.store import Cache, CacheError
from smtpf.journal.message import info
from smtpf.journal.verbose import VERBOSE
from smtpf.pipeline import Code, Verdict, reject
from smtpf.reply import Answer, Reply, printable, render
from smtpf.settings.runtime import INVALID_VALUE, Refused, change, listing
from smtpf.settings.words import cut
from smtpf.smtp import commands as smtp_commands
from smtpf.smtp import replies
from smtpf.smtp.administration import may_administer
from smtpf.stats.counter import Counter, Group
from smtpf.stats.listing import COLUMNS, Facts, start_time, stat_lines
from smtpf.stats.sampling import sample_load

if TYPE_CHECKING:
    from smtpf.admin.configuration import Configuration
    from smtpf.cache.activity import Row
    from smtpf.smtp.conversation import Conversation
    from smtpf.smtp.engine import Command, Engine

ADMIN = info(
    1120,
    "admin %s",
    "An administration command was given. Values of options whose name tells that they are secret are not shown.",
    fields=("command",),
    since="new",
)
ADMIN_COMMANDS_GIVEN = Counter("admin-commands", Group.CONNECT, "Administration commands that were accepted.")

KILLING = Reply(324, "214 2.0.0 killing session %s", meaning="KILL found the session and cuts it.")
RELOAD_REFUSED = Reply(
    1123, "554 5.3.5 options not reloaded", meaning="RELOAD found errors in the option file; they stand above this line."
)
NO_SESSION = Reply(326, "504 5.5.4 session %s not found", meaning="KILL named a session that does not exist, or no longer.")

VERBS = ("CONN", "CACHE", "INFO", "KILL", "LKEY", "OPTN", "STAT", "VERB")
"""The commands, each a method of :class:`Administration` of the same name."""
MORE = "214-2.0.0 "
WIDTH = 72
"""Columns at which INFO begins another line."""
LONGEST_ACTIVE = 510
"""Octets of one line of CACHE ACTIVE."""
HIDDEN_FROM_OTHERS = frozenset({"STAT", "CACHE"})
"""Verbs that clients without rights are told not to exist (#248)."""

_SECRET = re.compile(r"pass|secret|key", re.IGNORECASE)
_CACHE_NAMES = {"A": "ACTIVE", "G": "GET", "P": "PUT", "D": "DELETE"}
_CACHE_USAGE = ("CACHE ACTIVE", "CACHE GET key", "CACHE PUT key value", "CACHE DELETE key")

Run = Callable[[Asker, str, str], Awaitable[Answer | None]]
LicenceFields = Callable[[], Awaitable[Sequence[tuple[str, str]]]]


class Administration:
    """The commands of one node, by verb in ``commands``."""

    def __init__(
        self,
        engine: Engine,
        configuration: Configuration,
        cache: Cache,
        *,
        version: str,
        accepted_now: Callable[[], int],
        active: Callable[[], Sequence[Row]],
        licence: LicenceFields,
        build: Callable[[], Mapping[str, str]],
        roster: Roster | None = None,
    ) -> None:
        """``accepted_now`` counts the connections of this second, ``active`` tells of the cluster, ``licence`` checks the key again.

        ``build`` gives name and value of each line of INFO. ``roster`` knows the sessions, where they are not all the engine's.
        """
        self._engine = engine
        self._roster: Roster = OwnSessions(engine) if roster is None else roster
        self._configuration = configuration
        self._cache = cache
        self._version = version
        self._accepted_now = accepted_now
        self._active = active
        self._licence = licence
        self._build = build
        self.commands: dict[str, Run] = {verb: getattr(self, verb.lower()) for verb in VERBS}

    async def carry_out(self, run: Run, asker: Asker, argument: str, line: str) -> Answer | None:
        """Count, log and do one accepted command."""
        note(self._engine, asker, line)
        return await run(asker, argument, line)

    def for_smtp(self) -> dict[str, Command]:
        """The commands as the SMTP port takes them, each behind the question of rights."""
        return {verb: guarded(verb, partial(self.carry_out, run)) for verb, run in self.commands.items()}

    async def conn(self, asker: Asker, argument: str, line: str) -> Answer:
        """CONN: the sessions."""
        threads, sessions = await self._roster.listing()
        return listed([f"th={threads} cn={len(self._roster)} cs={self._accepted_now()}", *sessions], asker.sid)

    async def kill(self, asker: Asker, argument: str, line: str) -> Answer | None:
        """KILL session-id: cut a session."""
        if not argument:
            return await _missing(asker, line)
        if asker.conversation is not None and argument == asker.sid:
            await end_own_session(asker)
            return None
        killing = render(KILLING, (argument,), asker.sid)
        return killing if await self._roster.kill(argument) else render(NO_SESSION, (argument,), asker.sid)

    async def optn(self, asker: Asker, argument: str, line: str) -> Answer:
        """OPTN: show all options, or change some."""
        current = self._engine.settings.current
        if not argument:
            return listed(listing(current), asker.sid)
        outcome = change(current, argument)
        if isinstance(outcome, Refused):
            return render(outcome.reply, (outcome.name,), asker.sid)
        if outcome.options and not self._configuration.apply(outcome.settings):
            return render(INVALID_VALUE, (outcome.options[0].name,), asker.sid)
        await self._roster.bring_up_to_date()
        asker.adopt(self._engine.settings.current)
        return render(replies.END, (), asker.sid)

    async def verb(self, asker: Asker, argument: str, line: str) -> Answer:
        """VERB words: show the verbose flags, after changing those named."""
        verbose = self._engine.journal.verbose
        lines = []
        if argument:
            unknown = verbose.apply(argument)
            self._configuration.apply(self._engine.settings.current.evolve({VERBOSE: verbose.text()}))
            await self._roster.bring_up_to_date()
            asker.adopt(self._engine.settings.current)
            if unknown:
                lines.append(f"unknown: {' '.join(unknown)}")
        return Answer((*_continued([*verbose.lines(WIDTH - len(MORE)), *lines]), "214 2.0.0 End."))

    async def stat(self, asker: Asker, argument: str, line: str) -> Answer:
        """STAT [R|H|W]: the counters, of all three tables or of one."""
        engine = self._engine
        await self._roster.bring_up_to_date()
        sample_load(engine.stats)
        facts = Facts(self._version, engine.stats.started, engine.now(), len(self._roster))
        return listed(stat_lines(engine.stats, facts, COLUMNS.get(argument[:1].upper())), asker.sid)

    async def info(self, asker: Asker, argument: str, line: str) -> Answer:
        """INFO: the versions."""
        lines: list[str] = []
        for name, value in self._build().items():
            lines += textwrap.wrap(
                f'{name}="{value}"', WIDTH - len(MORE), subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
            )
        return listed(lines, asker.sid)

    async def lkey(self, asker: Asker, argument: str, line: str) -> Answer:
        """LKEY: check the licence key again, and show it."""
        return listed((f'{name}="{value}"' for name, value in await self._licence()), asker.sid)

    async def reload(self, asker: Asker, argument: str, line: str) -> Answer:
        """RELOAD, at the control socket only: read options, maps, certificates and files again."""
        outcome = await self._configuration.reload()
        if outcome.problems:
            told = (f"554-5.3.5 {printable(problem)}" for problem in outcome.problems)
            return Answer((*told, *render(RELOAD_REFUSED, (), asker.sid).lines), RELOAD_REFUSED.number)
        lines = [f"changed: {name}" for name in outcome.changed] + [f"needs restart: {name}" for name in outcome.restart]
        return listed(lines, asker.sid)

    async def cache(self, asker: Asker, argument: str, line: str) -> Answer:
        """CACHE ACTIVE, GET, PUT and DELETE; the first letter is enough."""
        what, _, rest = argument.partition(" ")
        key, _, value = rest.strip().partition(" ")
        value = value.strip()
        letter = what[:1].upper()
        name = _CACHE_NAMES.get(letter)
        if name is None:
            return listed(_CACHE_USAGE, asker.sid)
        if letter != "A" and not (key and (value or letter != "P")):
            return render(replies.MISSING_ARGUMENT, (line,), asker.sid)
        try:
            if letter == "A":
                rows = (f"211-2.0.0 {printable(str(row))}"[:LONGEST_ACTIVE] for row in self._active())
                return Answer((*rows, "211 2.0.0 end"))
            if letter == "P":
                record = await self._cache.write(key, value)
                await self._roster.bring_up_to_date()
                return Answer((shown(record),))
            found = await (self._cache.read(key) if letter == "G" else self._cache.remove(key))
        except CacheError:
            return Answer((f"510 5.0.0 {name} error",))
        if letter == "D":
            await self._roster.bring_up_to_date()
        return Answer(("210 2.0.0 key not found" if found is None else shown(found),))


def note(engine: Engine, asker: Asker, line: str) -> None:
    """Count and log an accepted command."""
    engine.stats.add(ADMIN_COMMANDS_GIVEN)
    engine.journal.write(ADMIN, without_secrets(line), session=asker.sid)


async def end_own_session(asker: Asker) -> None:
    """KILL of the session in which it is given: the answer comes first."""
    assert asker.conversation is not None
    await asker.conversation.write(render(KILLING, (asker.sid,), asker.sid))
    asker.conversation.kill(reject(KILLED, asker.sid))


def guarded(verb: str, run: Callable[[Asker, str, str], Awaitable[Answer | None]]) -> Command:
    """``run`` for those who may administer; others are told that there is no such command, or not now."""

    async def command(talk: Conversation, argument: str, line: str) -> Verdict | Answer | None:
        if may_administer(talk.session):
            return await run(Asker(talk.session.sid, talk), argument, line)
        if verb in HIDDEN_FROM_OTHERS:
            return await smtp_commands.unknown(talk, verb)
        return Verdict(Code.CONTINUE, replies.OUT_OF_SEQUENCE, (verb,))

    return command


def listed(lines: Iterable[str], sid: str) -> Answer:
    """A reply of ``lines`` and the end #548."""
    return Answer((*_continued(lines), *render(replies.END, (), sid).lines), replies.END.number)


def _continued(lines: Iterable[str]) -> Iterable[str]:
    return (MORE + printable(line) for line in lines)


async def _missing(asker: Asker, line: str) -> Answer | None:
    """#249, on the SMTP port after the idle stage."""
    if asker.conversation is None:
        return render(replies.MISSING_ARGUMENT, (line,), asker.sid)
    await asker.conversation.respond(await smtp_commands.missing_argument(asker.conversation, line))
    return None


def shown(record: Record) -> str:
    """The one line that CACHE shows of a record."""
    times = " ".join(f"{name}=0x{second:x} ({start_time(second)})" for name, second in (("c", record.c), ("t", record.t), ("e", record.e)))
    return f'211 2.0.0 k="{plain(record.key)}" d="{plain(record.value)}" h={record.h} {times}'


def plain(text: str) -> str:
    """``text`` of a cache record with every octet that is not printable US-ASCII as ``\\xNN``."""
    return "".join(chr(octet) if 0x20 <= octet < 0x7F else f"\\x{octet:02x}" for octet in encoded(text))


def without_secrets(line: str) -> str:
    """A command line for the log: what OPTN sets an option to is hidden when the option's name tells of a secret."""
    verb, _, argument = line.strip().partition(" ")
    if verb.upper() != "OPTN":
        return line.strip()
    words: list[str] = []
    follows = False
    for word in cut(argument):
        name, mark, value = word.text.partition("=")
        if follows or (mark and _SECRET.search(name)):
            words.append("***" if follows else f"{name}=***")
        else:
            words.append(word.text)
        # A blank around the equals sign makes the value a word of its own, or several.
        follows = follows or (_SECRET.search(name) is not None and not value and (not name.startswith(("+", "-")) or bool(mark)))
    return " ".join((verb, *words))
