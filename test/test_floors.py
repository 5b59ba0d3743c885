"""The house has floors, and imports run down its stairs only: one way, no circles.

Imports that serve only the type checker are free.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import smtpf

ROOT = Path(smtpf.__file__).parent

FLOORS = (
    {"console", "demo", "manual", "running", "tap"},
    {"node", "process", "report", "serving", "workers"},
    {"admin", "filters"},
    {"smtp"},
    {"scanners", "message", "maps", "cache", "dns"},
    {"pipeline", "reply", "shared_memory", "waiting"},
    {"settings", "journal", "stats"},
)
"""From the highest to the lowest; modules of one floor may visit each other as long as no circle comes of it."""

LOWER_STILL = {("settings", "reply"), ("settings", "waiting"), ("journal", "waiting"), ("stats", "waiting"), ("stats", "reply")}
"""Steps up by one stair that are allowed: a reply and a way of waiting are plain values that need no room of their own."""


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = ["smtpf", *path.relative_to(ROOT).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: set[str], deferred: bool) -> Iterator[str]:
    """Modules of ours that ``path`` imports; with ``deferred`` also those imported inside functions."""
    yield from _imports(ast.parse(path.read_text(encoding="utf-8")), known, deferred)


def _imports(node: ast.AST, known: set[str], deferred: bool) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not deferred:
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names if alias.name in known)
        elif isinstance(child, ast.ImportFrom) and child.module and child.module.split(".")[0] == "smtpf":
            for alias in child.names:
                inner = f"{child.module}.{alias.name}"
                yield inner if inner in known else child.module
        else:
            yield from _imports(child, known, deferred)


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def floor(name: str) -> int:
    return next((height for height, rooms in enumerate(reversed(FLOORS)) if name in rooms), -1)


def test_every_module_stands_on_a_floor() -> None:
    assert sorted({room(module) for module in modules() if "." in module and floor(room(module)) < 0}) == []


def test_imports_run_from_higher_floors_to_lower_ones() -> None:
    found = modules()
    upward = [
        f"{module} imports {target}"
        for module, path in found.items()
        if "." in module
        for target in imports(path, set(found), deferred=True)
        if "." in target and floor(room(target)) > floor(room(module)) and (room(module), room(target)) not in LOWER_STILL
    ]
    assert upward == []


def test_no_import_goes_in_a_circle() -> None:
    found = modules()
    graph = {module: sorted(set(imports(path, set(found), deferred=False)) - {"smtpf", module}) for module, path in found.items()}
    assert circle(graph) == []


def circle(graph: dict[str, list[str]]) -> list[str]:
    """A way through ``graph`` that comes back to where it began, or nothing."""
    done: set[str] = set()

    def walk(at: str, way: list[str]) -> list[str]:
        if at in way:
            return [*way[way.index(at) :], at]
        if at in done:
            return []
        for target in graph.get(at, []):
            found = walk(target, [*way, at])
            if found:
                return found
        done.add(at)
        return []

    for start in graph:
        if found := walk(start, []):
            return found
    return []
