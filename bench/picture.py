"""The figures as a picture: one panel for each case, one bar for each way through, as SVG without anything drawn by others."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import attrs

from bench.report import Row

WIDTH = 760
LEFT = 130
"""Where bars begin."""
RIGHT = 150
"""Room for the figures behind them."""
BAR = 18
GAP = 6
HEAD = 34
OURS = "smtpf"
COLOURS = {True: "#1f6f8b", False: "#b8c4cc"}
"""Ours, and others."""


@attrs.frozen
class Measure:
    """A figure that has a panel of its own."""

    key: str
    title: str
    form: str


MEASURES = (
    Measure("percent_of_direct", "messages a second, of the direct way", "{:.1f} %"),
    Measure("cpu_ms_per_message", "processor time a message, all processes", "{:.2f} ms"),
    Measure("times_direct", "median time of a transaction, times the direct one", "{:.1f}"),
    Measure("kilobytes_per_session", "memory of an idle session", "{:.1f} kB"),
)


@attrs.frozen
class Panel:
    """One measure of one case."""

    title: str
    form: str
    bars: tuple[tuple[str, float], ...]

    @property
    def height(self) -> int:
        return HEAD + len(self.bars) * (BAR + GAP) + GAP


def panels(rows: Sequence[Row]) -> list[Panel]:
    """Those that have something to show, case after case."""
    cases = {row.case: row.title for row in rows}
    made = []
    for case, title in cases.items():
        for measure in MEASURES:
            bars = tuple((row.through, row.figures[measure.key]) for row in rows if row.case == case and measure.key in row.figures)
            if bars and any(value for _, value in bars):
                made.append(Panel(f"{case}: {title}: {measure.title}", measure.form, bars))
    return made


def draw(rows: Sequence[Row], caption: str) -> str:
    """The SVG document."""
    shown = panels(rows)
    height = sum(panel.height for panel in shown) + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
        ' font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
    ]
    top = 0
    for panel in shown:
        parts += _drawn(panel, top)
        top += panel.height
    parts.append(f'<text x="10" y="{top + 24}" fill="#555" font-size="11">{escape(caption)}</text>')
    return "\n".join((*parts, "</svg>", ""))


def _drawn(panel: Panel, top: int) -> list[str]:
    most = max(value for _, value in panel.bars) or 1.0
    parts = [f'<text x="10" y="{top + 22}" font-weight="bold">{escape(panel.title)}</text>']
    at = top + HEAD
    for name, value in panel.bars:
        length = max(1.0, (WIDTH - LEFT - RIGHT) * value / most)
        middle = at + BAR - 5
        parts += [
            f'<text x="{LEFT - 8}" y="{middle}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{LEFT}" y="{at}" width="{length:.1f}" height="{BAR}" fill="{COLOURS[name.startswith(OURS)]}"/>',
            f'<text x="{LEFT + length + 8:.1f}" y="{middle}">{panel.form.format(value)}</text>',
        ]
        at += BAR + GAP
    return parts
