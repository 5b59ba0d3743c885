"""What an option is: its name, kind, default and meaning, declared once beside the code that uses it.

The option file, the command line, ``OPTN``, the help dump, the manual and ``smtpf list options``
are all made from these declarations. A module declares its options as module constants::

    GREY_KEY = Words("grey-key", ("ptr", "mail", "rcpt"), "Which session facts form the key.")

and reads one by ``settings[GREY_KEY]``, typed. Source: spec chapter options, section 1.
"""

from __future__ import annotations

from typing import Any, ClassVar, Generic, TypeVar

import attrs

T = TypeVar("T")

TRUE_WORDS = frozenset({"+", "yes", "true", "on"})
FALSE_WORDS = frozenset({"-", "no", "false", "off"})


class OptionError(ValueError):
    """A text that the option does not take. ``str()`` says what is wanted, for the operator."""


def parse_number(text: str) -> int:
    """Decimal or ``0x`` hexadecimal with optional sign; a leading 0 is not octal. Raises ValueError."""
    body = text.strip()
    sign = -1 if body.startswith("-") else 1
    digits = body[1:] if body[:1] in ("+", "-") else body
    if digits[:2].lower() == "0x":
        return sign * int(digits, 16)
    if not digits.isascii() or not digits.isdigit():
        raise ValueError(f"{text!r} is not a number")
    return sign * int(digits)


def default_text(given: str | bool | int | tuple[str, ...]) -> str:
    """A default as a declaration gives it, as the text of an option file."""
    if isinstance(given, str):
        return given
    if isinstance(given, bool):
        return "+" if given else "-"
    return str(given) if isinstance(given, int) else ";".join(given)


@attrs.frozen(eq=False, kw_only=True)
class Option(Generic[T]):
    """One option. ``parse`` turns its text into the value that ``settings[option]`` gives."""

    kind: ClassVar[str]

    name: str = attrs.field(kw_only=False)
    default: str = attrs.field(kw_only=False, converter=default_text)
    """Default as text, the way it is written in an option file."""
    meaning: str = attrs.field(kw_only=False)
    """For the postmaster: what it does, its unit, how it is switched off."""
    choices: str = ""
    """Unit, permitted words separated by ``|``, or how to switch it off; shown, not parsed."""
    runtime: bool = True
    """False: only a restart changes it (#323)."""
    since: str = "seed"
    area: str = ""
    secret: bool = False
    """True: never shown by OPTN and never logged."""
    aliases: tuple[str, ...] = ()
    """Old names, accepted everywhere with a warning."""
    fallback_aliases: tuple[str, ...] = ()
    """Old names that count only as long as the option is not set by its own name."""
    ignored: bool = False
    """True: known, but without effect; accepted with one warning."""

    def parse(self, text: str) -> T:
        """Value of ``text``. Raises OptionError."""
        raise NotImplementedError

    def fits(self, value: T) -> bool:
        """False for a value that ``parse`` takes and a running node must not be given; at start its owner refuses it."""
        return True

    @property
    def default_value(self) -> T:
        return self.parse(self.default)


@attrs.frozen(eq=False, kw_only=True)
class Flag(Option[bool]):
    """On or off: ``+name``, ``-name``. The default is given as a bool."""

    kind = "bool"
    choices: str = "+|-"

    def parse(self, text: str) -> bool:
        return flag_level(text) != 0


@attrs.frozen(eq=False, kw_only=True)
class Level(Option[int]):
    """A flag with degrees: off 0, on 1, and further levels up to ``most``."""

    kind = "bool"
    most: int = 2

    def parse(self, text: str) -> int:
        level = flag_level(text)
        if not 0 <= level <= self.most:
            raise OptionError(f"takes 0 to {self.most}, not {text!r}")
        return level


@attrs.frozen(eq=False, kw_only=True)
class Number(Option[int]):
    """A decimal or hexadecimal number within ``least`` and ``most``."""

    kind = "int"
    least: int | None = None
    most: int | None = None

    def parse(self, text: str) -> int:
        if text.strip() == "":
            value = 0
        elif text == "+":
            value = 1
        elif text == "-":
            value = 0
        else:
            try:
                value = parse_number(text)
            except ValueError:
                raise OptionError(f"takes a number, not {text!r}") from None
        if self.least is not None and value < self.least:
            raise OptionError(f"takes {self.least} or more, not {text!r}")
        if self.most is not None and value > self.most:
            raise OptionError(f"takes {self.most} or less, not {text!r}")
        return value


@attrs.frozen(eq=False, kw_only=True)
class Text(Option[str]):
    """Any text; with ``words`` one of them (compared without regard to case)."""

    kind = "string"
    words: tuple[str, ...] = ()

    def parse(self, text: str) -> str:
        if not self.words:
            return text
        folded = text.lower()
        if folded not in self.words:
            raise OptionError(f"takes one of {'|'.join(self.words)}, not {text!r}")
        return folded


@attrs.frozen(eq=False, kw_only=True)
class Policy(Text):
    """One of a few words, of which the first letters are enough; an empty text is none of them."""

    words: tuple[str, ...] = ("none", "reject", "discard")
    choices: str = attrs.field()

    @choices.default
    def _choices(self) -> str:
        return "|".join(self.words)

    def parse(self, text: str) -> str:
        folded = text.strip().lower()
        found = [word for word in self.words if folded and word.startswith(folded)]
        if folded and len(found) != 1:
            raise OptionError(f"takes one of {self.choices}, not {text!r}")
        return found[0] if found else ""


@attrs.frozen(eq=False, kw_only=True)
class Words(Option[tuple[str, ...]]):
    """A list; elements stand between ``separators``, empty elements are dropped."""

    kind = "list"
    separators: str = ";, "
    words: tuple[str, ...] = ()
    """When given, each element must be one of these."""
    signs: str = ""
    """Characters of which one may stand before each of ``words``."""

    def parse(self, text: str) -> tuple[str, ...]:
        elements = self._cut(text)
        if self.words:
            for element in elements:
                if not self._known(element):
                    raise OptionError(f"takes a list of {'|'.join(self.words)}, not {element!r}")
        return elements

    def _cut(self, text: str) -> tuple[str, ...]:
        for mark in self.separators[1:]:
            text = text.replace(mark, self.separators[0])
        return tuple(element.strip() for element in text.split(self.separators[0]) if element.strip())

    def _known(self, element: str) -> bool:
        bare = element[1:] if element[0] in self.signs else element
        return bare.lower() in self.words

    def known_part(self, text: str) -> str:
        """``text`` without the elements that are none of ``words``."""
        return self.separators[0].join(element for element in self._cut(text) if self._known(element))


@attrs.frozen(eq=False, kw_only=True)
class Action(Option[bool]):
    """Something to do and then end, such as ``+version``. Requested as soon as it has any text."""

    kind = "action"
    default: str = attrs.field(kw_only=False, default="")
    meaning: str = attrs.field(kw_only=False, default="")
    runtime: bool = False

    def parse(self, text: str) -> bool:
        return text != ""


def flag_level(text: str) -> int:
    """The number of a bool's text: words, signs or a number. Raises OptionError."""
    folded = text.strip().lower()
    if folded in TRUE_WORDS:
        return 1
    if folded in FALSE_WORDS or folded == "":
        return 0
    try:
        return parse_number(folded)
    except ValueError:
        raise OptionError(f"takes + or -, not {text!r}") from None


AnyOption = Option[Any]
