"""The figures as a table for people and as JSON for programs."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs


@attrs.frozen
class Row:
    """What was measured of one way of a case."""

    case: str
    title: str
    through: str
    """smtpf, or the name of a peer."""
    figures: dict[str, float]


@attrs.frozen
class FilterRow:
    """What a group of filters costs."""

    group: str
    cpu_ms: float
    messages_per_second: float
    refused: int
    passed_over: tuple[str, ...] = ()
    """Options that this version does not have."""


_COLUMNS = (
    ("messages/s", "messages_per_second", "{:.0f}"),
    ("direct/s", "direct_messages_per_second", "{:.0f}"),
    ("of direct", "percent_of_direct", "{:.1f} %"),
    ("MB/s", "megabytes_per_second", "{:.1f}"),
    ("CPU ms", "cpu_ms_per_message", "{:.2f}"),
    ("least CPU ms", "least_cpu_ms_per_message", "{:.2f}"),
    ("median ms", "median_ms", "{:.2f}"),
    ("p99 ms", "p99_ms", "{:.2f}"),
    ("times direct", "times_direct", "{:.1f}"),
    ("kB a session", "kilobytes_per_session", "{:.1f}"),
    ("turn ms", "longest_turn_ms", "{:.1f}"),
    ("turn CPU ms", "longest_turn_cpu_ms", "{:.1f}"),
)


def tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def write(
    folder: Path, rows: Sequence[Row], filters: Sequence[FilterRow], asked: dict[str, Any], draw: Callable[[Sequence[Row], str], str]
) -> str:
    """Write ``latest.md``, ``latest.svg`` and ``latest.json`` into ``folder``; the table. ``draw`` makes the picture and its caption."""
    folder.mkdir(parents=True, exist_ok=True)
    table = _table(rows) + _filter_table(filters)
    facts = _facts()
    caption = f"{facts['date']}, {facts['processors']} processors, {facts['system']}, Python {facts['python']}, {facts['revision']}"
    text = f"{caption}\n\n{table}"
    if rows:
        (folder / "latest.svg").write_text(draw(rows, caption))
    kept = {
        "facts": facts, "asked": {name: str(value) for name, value in asked.items()},
        "cases": [attrs.asdict(row) for row in rows], "filters": [attrs.asdict(row) for row in filters],
    }  # fmt: skip
    (folder / "latest.md").write_text(text)
    (folder / "latest.json").write_text(json.dumps(kept, indent=1) + "\n")
    return text


def _table(rows: Sequence[Row]) -> str:
    shown = [column for column in _COLUMNS if any(column[1] in row.figures for row in rows)]
    if not shown:
        return ""
    lines = ["| case | through | " + " | ".join(column[0] for column in shown) + " |", "|---|---|" + "---:|" * len(shown)]
    for row in rows:
        cells = [form.format(row.figures[key]) if key in row.figures else "" for _, key, form in shown]
        lines.append(f"| {row.case}: {row.title} | {row.through} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _filter_table(rows: Sequence[FilterRow]) -> str:
    if not rows:
        return ""
    least = rows[0].cpu_ms
    lines = [
        "",
        "| filters | CPU ms a message | more than the first | messages/s | refused | unknown options |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        figures = f"{row.cpu_ms:.2f} | {row.cpu_ms - least:+.2f} | {row.messages_per_second:.0f} | {row.refused}"
        lines.append(f"| {row.group} | {figures} | {' '.join(row.passed_over)} |")
    return "\n".join(lines) + "\n"


def _facts() -> dict[str, Any]:
    root = Path(__file__).parent.parent
    revision = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True, check=False
    ).stdout.strip()
    load = os.getloadavg()[0]
    return {
        "date": time.strftime("%Y-%m-%d %H:%M"), "processors": os.cpu_count(), "system": platform.system() + " " + platform.release(),
        "python": platform.python_version(), "revision": revision or "no checkout", "load_average": load,
    }  # fmt: skip
