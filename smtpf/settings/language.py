"""The smtpf.cf language: from command line and option file to settings, with everything wrong in them told at once.

The command line names the option file, the file sets options, and the command line is applied on top of it. Nothing is
guessed: an unknown name, a value that an option does not take, a word behind which the rest of a line would be lost are
errors, each with file, line and the nearest known name. ``+lenient`` makes warnings of them.
Source: spec chapter options, sections 2 to 4 and 9.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import attrs

from smtpf.journal.message import Message, warn
from smtpf.settings.option import Action, AnyOption, OptionError, Words
from smtpf.settings.process_options import ACTION_ORDER, FILE, LENIENT
from smtpf.settings.store import Settings
from smtpf.settings.words import END_OF_OPTIONS, Assignment, Form, Word, assignment, cut

COMMAND_LINE = "command line"
EXIT_BAD_SETTINGS = 1
EXIT_USAGE = 64
"""EX_USAGE of sysexits.h."""

UNKNOWN_IGNORED = warn(
    1130,
    'option "%s" unknown, ignored',
    "The option file or the command line names something that is no option, and +lenient lets it pass. Correct or remove it.",
    fields=("option",),
    since="new",
)

Reader = Callable[[str], bytes]


@attrs.frozen
class Place:
    """Where a word stood. ``line`` is 0 on the command line."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@attrs.frozen
class Problem:
    """Something wrong with the settings. ``str()`` is the line for the operator."""

    file: str
    line: int
    text: str
    is_error: bool = True
    exit_status: int = EXIT_BAD_SETTINGS
    unknown: str = ""
    """The name that is not known, when that is the problem; for log message #1130."""
    always: bool = False
    """True: stays an error with ``+lenient``."""

    def __str__(self) -> str:
        return f"{Place(self.file, self.line)}: {'error' if self.is_error else 'warning'}: {self.text}"


class Loaded(NamedTuple):
    settings: Settings
    problems: tuple[Problem, ...]
    actions: tuple[Action, ...]
    """Requested actions, first the one to do first."""

    @property
    def exit_status(self) -> int:
        """With what the process ends because of the problems; 0 when it may start."""
        return max((problem.exit_status for problem in self.problems if problem.is_error), default=0)


@attrs.frozen
class Known:
    """An option as it was named: by its own name, or by an old one."""

    option: AnyOption
    alias: str = ""
    is_fallback: bool = False


class Names:
    """All names of a set of options, old ones too, found without regard to case."""

    def __init__(self, options: Iterable[AnyOption]) -> None:
        """Raises ValueError when two options share a name."""
        self._known: dict[str, Known] = {}
        for option in options:
            self._add(option.name, Known(option))
            for alias in option.aliases:
                self._add(alias, Known(option, alias))
            for alias in option.fallback_aliases:
                self._add(alias, Known(option, alias, is_fallback=True))

    def _add(self, name: str, known: Known) -> None:
        if name.lower() in self._known:
            raise ValueError(f"two options are called {name}")
        self._known[name.lower()] = known

    def find(self, name: str) -> Known | None:
        return self._known.get(name.lower())

    def nearest(self, name: str) -> str:
        """The known name most like ``name``; empty when none is near."""
        near = difflib.get_close_matches(name.lower(), self._known, n=1)
        return near[0] if near else ""


class Draft:
    """Settings in the making: takes assignments one by one, and keeps what was wrong with them."""

    def __init__(self, base: Settings, names: Names) -> None:
        self._base = base
        self._names = names
        self._texts: dict[AnyOption, str] = {}
        self._set_by_own_name: set[AnyOption] = set()
        self._warned: set[str] = set()
        self.problems: list[Problem] = []

    def settings(self) -> Settings:
        return self._base.evolve(self._texts)

    def text(self, option: AnyOption) -> str:
        given = self._texts.get(option)
        return self._base.text(option) if given is None else given

    def put(self, option: AnyOption, text: str) -> None:
        """Set ``option`` whatever was assigned. Raises OptionError with a later ``settings()`` when it does not take ``text``."""
        self._texts[option] = text

    def error(self, place: Place, text: str, *, unknown: str = "") -> None:
        self.problems.append(Problem(place.file, place.line, text, unknown=unknown))

    def refusal(self, place: Place, text: str, exit_status: int = EXIT_BAD_SETTINGS) -> None:
        """Note an error that ``+lenient`` does not make a warning of."""
        self.problems.append(Problem(place.file, place.line, text, exit_status=exit_status, always=True))

    def warning(self, place: Place, text: str) -> None:
        self.problems.append(Problem(place.file, place.line, text, is_error=False))

    def _warn_once(self, name: str, place: Place, text: str) -> None:
        if name not in self._warned:
            self._warned.add(name)
            self.warning(place, text)

    def apply(self, given: Assignment, place: Place) -> None:
        """Do what ``given`` asks for, or note why not."""
        known = self._names.find(given.name)
        if known is None:
            self.error(place, self._unknown(given), unknown=given.name)
            return
        option = known.option
        if option.ignored:
            self._warn_once(option.name, place, f'"{option.name}" no longer does anything: {option.meaning}')
            return
        if known.alias:
            self._warn_once(known.alias, place, f'"{known.alias}" is the old name of "{option.name}"')
        if known.is_fallback and option in self._set_by_own_name:
            return
        if given.form is Form.SIGN and option.kind in ("string", "list"):
            self.warning(place, f'"{option.name}" takes a text, so {given.value}{given.name} is not heeded; write {option.name}=')
            return
        self._assign(option, given, place)
        if not known.alias:
            self._set_by_own_name.add(option)

    def _assign(self, option: AnyOption, given: Assignment, place: Place) -> None:
        before = self.text(option) if given.form is Form.APPEND else ""
        text = f"{before};{given.value}" if before else given.value
        try:
            option.parse(text)
        except OptionError as wrong:
            self.error(place, f'"{option.name}" {wrong}')
            if not isinstance(option, Words) or not option.words:
                return
            text = option.known_part(text)
        self._texts[option] = text

    def _unknown(self, given: Assignment) -> str:
        if given.form is Form.SIGN and "=" in given.name:
            return f'"{given.value}{given.name}" has both a sign and a value; write {given.name}'
        near = self._names.nearest(given.name)
        return f'no option is called "{given.name}"' + (f'; "{near}" is the nearest name' if near else "")

    def apply_words(self, words: Iterable[Word], place: Place) -> str:
        """Apply words from left to right, up to ``--`` or a word that is no option.

        What stands from there on would be ignored: the answer says so, and is empty when nothing would.
        """
        ahead = iter(words)
        for word in ahead:
            if word.text == END_OF_OPTIONS and not word.broken:
                lost = next(ahead, None)
                return f'"{lost.text}" and what follows stand behind "--" and would be ignored' if lost else ""
            if word.broken:
                self.error(place, f'"{word.text}": {word.broken}')
                continue
            given = assignment(word.text)
            if given is None:
                return f'"{word.text}" is not an option (write +name, -name or name=value); the line would be ignored from here on'
            self.apply(given, place)
        return ""

    def apply_file(self, content: bytes, file: str) -> None:
        """Apply an option file, line by line. Source: section 3; UTF-8, lines of any length."""
        for number, raw in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
            place = Place(file, number)
            try:
                line = raw.decode()
            except UnicodeDecodeError:
                self.error(place, "the line is not UTF-8")
                continue
            if ignored := self.apply_words(cut(line), place):
                self.error(place, ignored)


def read_file(path: str) -> bytes:
    """The content of an option file. Raises OSError."""
    return Path(path).read_bytes()


def load(
    argv: Sequence[str],
    options: Iterable[AnyOption],
    default_file: str = FILE.default,
    read: Reader = read_file,
) -> Loaded:
    """Settings from the command line ``argv`` (without program name) and the option file that it names.

    There are always settings: what is wrong is left out of them and told in the problems. The process may start only
    when ``exit_status`` is 0. ``read`` gives a file's content or raises OSError.
    """
    every = {*options, FILE, LENIENT}
    names = Names(every)
    line = [Word(text) for text in argv]
    named_file = _named_file(line)
    file = default_file if named_file is None else named_file

    draft = Draft(Settings(every), names)
    if file:
        _apply_option_file(draft, file, is_default=named_file is None, read=read)
    if ignored := draft.apply_words(line, Place(COMMAND_LINE)):
        draft.refusal(Place(COMMAND_LINE), ignored, EXIT_USAGE)
    draft.put(FILE, file)
    settings = draft.settings()
    problems = draft.problems
    if settings[LENIENT]:
        problems = [attrs.evolve(problem, is_error=problem.always) for problem in problems]
    return Loaded(settings, tuple(problems), _requested(settings))


def log_unknown(problems: Iterable[Problem], write: Callable[[Message, str], object]) -> None:
    """Log the names that ``+lenient`` let pass, by ``write`` of the journal."""
    for problem in problems:
        if problem.unknown and not problem.is_error:
            write(UNKNOWN_IGNORED, problem.unknown)


def _named_file(line: Iterable[Word]) -> str | None:
    """The text of ``file=`` on the command line, which is looked for before anything else is read."""
    text: str | None = None
    for word in line:
        given = assignment(word.text)
        if given is None:
            break
        if given.name.lower() == FILE.name and given.form is not Form.SIGN:
            text = given.value
    return text


def _apply_option_file(draft: Draft, file: str, *, is_default: bool, read: Reader) -> None:
    try:
        content = read(file)
    except FileNotFoundError:
        place = Place(file)
        if is_default:
            draft.warning(place, "there is no such file; the defaults are used")
        else:
            draft.refusal(place, "there is no such file")
    except OSError as failure:
        draft.refusal(Place(file), f"cannot be read: {failure.strerror or failure}")
    else:
        draft.apply_file(content, file)


def _requested(settings: Settings) -> tuple[Action, ...]:
    asked = [option for option in settings.options if isinstance(option, Action) and settings[option]]
    return tuple(sorted(asked, key=lambda action: ACTION_ORDER.index(action) if action in ACTION_ORDER else len(ACTION_ORDER)))
