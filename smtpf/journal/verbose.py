"""Which classes of log lines are written: the words of option ``verbose``, their levels, and the list VERB shows.

A postmaster turns a class on by naming its word, off by ``-word``, and sets its degree by ``word=2``. The journal asks
the levels kept here for every message it is given. Source: spec chapters operations, 4.8 and 5.1, and options, 10.
"""

from __future__ import annotations

from collections.abc import Iterable

from smtpf.settings.option import Words, parse_number

LONGEST = 4096
"""Octets of the longest value of ``verbose`` that is taken (#795)."""

WIDTH = 72
"""Columns of one line of the listing."""

_BY_SPACE = (
    "access attachment auth avastd cache clamd cli click connect ctasd data db debug digest dns dupmsg emew fpscand grey headers helo "
    "info ixhash kvm lua mail mutex noop p0f rate rbl rcpt reply rset sav savdid save siq size smtp socket spamd spf stats subject "
    "timelimitrcpt timers tls trace uri valgrind warn"
)

WORDS = tuple(_BY_SPACE.split(" "))
"""The words that are known without any filter."""

BUILT_IN = {"info": 1, "tls": 1, "warn": 1}
"""Levels of words that the option does not name; all others are 0."""

ALIASES = {"smtp-dot": ("smtp", 1), "smtp-data": ("smtp", 3), "socket-fd": ("socket", 1)}
"""Words of the 2.1 line, and what each means now when it is turned on."""

VERBOSE = Words(
    "verbose",
    "warn,info,smtp=1,tls",
    "Words for the classes of messages that are written to the log: `word` turns one on, `-word` off, `word=N` sets its degree. "
    "Errors and the summary lines of sessions, senders, recipients and messages are always written; an empty list leaves only those.",
    choices="words with optional level, such as smtp=2; empty: errors and summary lines only",
    area="log",
)


class Verbose:
    """The level of every verbose word."""

    __slots__ = ("levels",)

    def __init__(self, text: str = VERBOSE.default, words: Iterable[str] = ()) -> None:
        """``words``: those that filters add to the built-in ones."""
        self.levels: dict[str, int] = dict.fromkeys((*WORDS, *words), 0)
        """Level by word. Read at every log call; change it only through the methods."""
        self.reset(text)

    def register(self, words: Iterable[str]) -> None:
        """Make further words known, off until named."""
        for word in words:
            self.levels.setdefault(word, 0)

    def reset(self, text: str) -> list[str]:
        """Take ``text`` as the value of option ``verbose``: words it does not name get their built-in level. Returns the unknown words.

        An empty text is the terse log: every word off.
        """
        built_in = BUILT_IN if text.strip(" ,;\t") else {}
        for word in self.levels:
            self.levels[word] = built_in.get(word, 0)
        return self.apply(text)

    def apply(self, text: str) -> list[str]:
        """Change the words named in ``text`` and no other, as VERB does. Returns the words that are not known, as they were written."""
        unknown = []
        for given in VERBOSE.parse(text.replace("\t", " ")):
            name, level = _word_and_level(given)
            if name in ALIASES:
                name, meant = ALIASES[name]
                level = meant if level == 1 else level
            if level is None or name not in self.levels:
                unknown.append(given)
            else:
                self.levels[name] = level
        return unknown

    def lines(self, width: int = WIDTH) -> list[str]:
        """Every word in alphabetical order as ``+word``, ``-word`` or ``word=N``, in lines of at most ``width`` columns."""
        lines: list[str] = []
        for word in sorted(self.levels):
            level = self.levels[word]
            shown = f"{word}={level}" if level > 1 else f"{'+' if level else '-'}{word}"
            if lines and len(lines[-1]) + 1 + len(shown) <= width:
                lines[-1] += " " + shown
            else:
                lines.append(shown)
        return lines

    def text(self) -> str:
        """The shortest value of option ``verbose`` that gives these levels; empty when all are off."""
        named = []
        for word in sorted(self.levels):
            level = self.levels[word]
            if level == 1:
                named.append(word)
            elif level > 1:
                named.append(f"{word}={level}")
        if not named:
            return ""
        return ",".join([f"-{word}" for word in sorted(BUILT_IN) if not self.levels[word]] + named)


def _word_and_level(given: str) -> tuple[str, int | None]:
    """Word in lower case, and the level it asks for: None when that is no number."""
    sign = given[0] if given[0] in "+-" else ""
    name, equals, degree = given[len(sign) :].lower().partition("=")
    if sign == "-":
        return name, 0
    if not equals:
        return name, 1
    try:
        return name, max(0, parse_number(degree))
    except ValueError:
        return name, None
