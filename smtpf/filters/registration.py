"""The counters of all parts in the order in which the statistics list them: those of the core, then filter after filter as they run.

Source: spec chapter operations, 3.3.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType

from smtpf.filters.order import ORDER
from smtpf.settings.catalogue import modules
from smtpf.stats.counter import Counter

_FILTERS = f"{__package__}."
_OURS = "smtpf."


def counters_in_order(extra: Iterable[ModuleType] = ()) -> tuple[Counter, ...]:
    """All counters; those of the modules ``extra``, filters of third parties, come last."""
    places: dict[str, int] = {}
    for hooks in ORDER.values():
        for hook in hooks:
            places.setdefault(hook.__module__, len(places))

    def place(module: ModuleType) -> int:
        name = module.__name__
        if name.startswith(_FILTERS):
            return places.get(name, len(places))
        return -1 if name.startswith(_OURS) else len(places) + 1

    found: dict[Counter, int] = {}
    for module in modules(extra):
        for value in vars(module).values():
            if isinstance(value, Counter):
                # A filter may import a counter of the core, and never the other way round.
                found[value] = min(place(module), found.get(value, len(places) + 1))
    return tuple(sorted(found, key=lambda counter: found[counter]))
