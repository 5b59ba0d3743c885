"""Finds declarations: the options, messages, replies and counters that modules hold as constants.

Nothing registers itself; what is declared is found by its type. ``instances`` is for starting up and reads no source.
``declared`` and ``emitters`` are for ``smtpf list``, the manual and the tests: they tell where a constant is declared and
which modules use it, from the sources.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import sys
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import TypeVar

import attrs

import smtpf

T = TypeVar("T")


def modules(extra: Iterable[ModuleType] = ()) -> tuple[ModuleType, ...]:
    """Every module of the package, imported, and then ``extra``, which may be packages of their own."""
    found: dict[str, ModuleType] = {}
    for root in (smtpf, *extra):
        found[root.__name__] = root
        for entry in pkgutil.walk_packages(getattr(root, "__path__", ()), root.__name__ + "."):
            if not entry.name.endswith("__main__"):
                found[entry.name] = importlib.import_module(entry.name)
    return tuple(found.values())


def instances(kind: type[T], extra: Iterable[ModuleType] = ()) -> tuple[T, ...]:
    """Every module constant that is a ``kind``, each once."""
    return tuple({id(value): value for module in modules(extra) for value in vars(module).values() if isinstance(value, kind)}.values())


def declared(kind: type[T], extra: Iterable[ModuleType] = ()) -> list[tuple[str, str, T]]:
    """(module, constant, value) of every module constant that is a ``kind``, at the place where it is assigned."""
    holders: dict[int, list[tuple[ModuleType, str, T]]] = {}
    for module in modules(extra):
        for name, value in vars(module).items():
            if isinstance(value, kind):
                holders.setdefault(id(value), []).append((module, name, value))
    sources: dict[str, frozenset[str]] = {}
    places = []
    for held in holders.values():
        module, name, value = held[0] if len(held) == 1 else _declaration(held, sources)
        places.append((module.__name__, name, value))
    return places


def _declaration(held: list[tuple[ModuleType, str, T]], sources: dict[str, frozenset[str]]) -> tuple[ModuleType, str, T]:
    """Of the modules that hold a value, the one whose source makes it; the others have imported it."""
    for module, name, value in held:
        if module.__name__ not in sources:
            sources[module.__name__] = frozenset(_made(parsed(module)))
        if name in sources[module.__name__]:
            return module, name, value
    return held[0]


def parsed(module: ModuleType) -> ast.Module:
    """The syntax tree of a module; an empty one when it has no source."""
    loader = module.__spec__.loader if module.__spec__ else None
    source = loader.get_source(module.__name__) if loader is not None and hasattr(loader, "get_source") else None
    return ast.parse(source or "")


def _made(tree: ast.Module) -> Iterator[str]:
    """Names that get the result of a call at module level: ``NAME = Flag(...)``."""
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Call):
            yield from (target.id for target in statement.targets if isinstance(target, ast.Name))
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.value, ast.Call) and isinstance(statement.target, ast.Name):
            yield statement.target.id


def emitters(constants: Iterable[object], extra: Iterable[ModuleType] = ()) -> dict[int, tuple[str, ...]]:
    """For each of ``constants``, by ``id()``, the modules whose source uses it: the import and the declaration are no use of it."""
    users: dict[int, list[str]] = {id(constant): [] for constant in constants}
    for module in modules(extra):
        for used in _used(module):
            if used in users:
                users[used].append(module.__name__)
    return {constant: tuple(names) for constant, names in users.items()}


def _used(module: ModuleType) -> set[int]:
    """``id()`` of everything that the module's source mentions by a name of the module, or of a module it has imported."""
    reader = _Mentions(dict(vars(module)))
    reader.visit(parsed(module))
    return reader.mentioned


@attrs.define(eq=False)
class _Mentions(ast.NodeVisitor):
    """Walks a source; ``scope`` is what its names stand for."""

    scope: dict[str, object]
    mentioned: set[int] = attrs.field(factory=set)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """An import inside a function brings a name that the module does not hold."""
        source = sys.modules.get(node.module or "") if node.col_offset else None
        for alias in node.names if source is not None else ():
            self.scope.setdefault(alias.asname or alias.name, getattr(source, alias.name, None))

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load) and node.id in self.scope:
            self.mentioned.add(id(self.scope[node.id]))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        owner = self.scope.get(node.value.id) if isinstance(node.value, ast.Name) else None
        if isinstance(owner, ModuleType) and isinstance(node.ctx, ast.Load):
            self.mentioned.add(id(getattr(owner, node.attr, None)))
        self.generic_visit(node)
