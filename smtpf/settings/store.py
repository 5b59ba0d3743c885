"""The settings in force: an immutable snapshot of every option's text and value.

Made once from the option file and the command line, and again for each change at run time; sessions read it with
``settings[OPTION]``, which is one dict look-up. ``SettingsHolder`` is the single place that knows the newest snapshot.
Source: spec chapter options, sections 1 and 7.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from smtpf.settings.option import AnyOption, Option, flag_level

T = TypeVar("T")


def sort_key(option: AnyOption) -> str:
    """Help order: by name, without regard to case and to the ``_`` of an experimental option."""
    return option.name.lower().lstrip("_")


def canonical(option: AnyOption, text: str) -> str:
    """``text`` as it is kept. The many spellings of a flag become ``+``, ``-`` or its level. Raises OptionError."""
    if option.kind != "bool":
        return text
    level = flag_level(text)
    return {0: "-", 1: "+"}.get(level, str(level))


class Settings(dict[AnyOption, Any]):
    """Immutable. ``settings[OPTION]`` is the typed value; an option that the set does not hold gives its default.

    A dict with ``__missing__``, because nothing else in Python reads as fast; what is in it as a dict is a cache of
    values and no part of the interface. Raises OptionError when made with a text that an option does not take.
    """

    __slots__ = ("_texts", "options")

    options: tuple[AnyOption, ...]
    """The options of this set in help order."""
    _texts: dict[AnyOption, str]

    def __init__(self, options: Iterable[AnyOption] = (), texts: Mapping[AnyOption, str] | None = None) -> None:
        kept = {option: canonical(option, text) for option, text in (texts or {}).items()}
        self._texts = kept
        self.options = tuple(sorted({*options, *kept}, key=sort_key))
        super().__init__((option, option.parse(text)) for option, text in kept.items())

    @classmethod
    def of(cls, texts: Mapping[AnyOption, str] | None = None) -> Settings:
        """``Settings.of({OPTION: "text"})``: these texts, and the default of everything else."""
        return cls((), texts)

    def evolve(self, texts: Mapping[AnyOption, str]) -> Settings:
        """The same settings with other texts for some options. Raises OptionError."""
        return Settings(self.options, {**self._texts, **texts})

    if TYPE_CHECKING:

        def __getitem__(self, option: Option[T]) -> T: ...

    def __missing__(self, option: Option[T]) -> T:
        value = option.default_value
        super().__setitem__(option, value)
        return value

    def text(self, option: AnyOption) -> str:
        """The option's text as it was given, else its default."""
        given = self._texts.get(option)
        return canonical(option, option.default) if given is None else given

    def changed(self, option: AnyOption) -> bool:
        """True when the text differs from the default."""
        given = self._texts.get(option)
        return given is not None and given != canonical(option, option.default)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Settings):
            return NotImplemented
        return set(self.options) == set(other.options) and all(self.text(option) == other.text(option) for option in self.options)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"<Settings of {len(self.options)} options>"

    def _immutable(self, *args: Any, **named: Any) -> NoReturn:
        raise TypeError("settings do not change; evolve() makes new ones")

    __setitem__ = __delitem__ = __ior__ = update = pop = popitem = clear = setdefault = _immutable


Listener = Callable[[Settings], None]


class SettingsHolder:
    """The newest settings, and who wants to hear of new ones."""

    __slots__ = ("_listeners", "current")

    def __init__(self, settings: Settings) -> None:
        self.current = settings
        self._listeners: list[Listener] = []

    def replace(self, settings: Settings) -> None:
        """Make ``settings`` the current ones, then tell every listener, in the order they came."""
        self.current = settings
        for listener in tuple(self._listeners):
            listener(settings)

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """``listener(settings)`` is called after each replacement. Calling the result ends that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)
