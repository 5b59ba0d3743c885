"""Every counter of the node as metrics in the OpenMetrics text format, and the page of the manual that lists them.

The metrics are made from the declarations of the counters: a new counter is a new metric, and nothing stands twice. Format:
OpenMetrics 1.0, which Prometheus reads.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable

import attrs

from smtpf.stats.counter import Counter, Kind
from smtpf.stats.tables import Statistics, Table

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PREFIX = "smtpf_"

_UNFIT = re.compile(r"[^a-z0-9_]+")


@attrs.frozen
class Metric:
    """One metric family. ``sample`` is the name before the value."""

    family: str
    kind: str
    meaning: str

    @property
    def sample(self) -> str:
        return f"{self.family}_total" if self.kind == "counter" else self.family


@attrs.frozen
class NodeFacts:
    """What is told beside the counters."""

    version: str
    started: float
    """Unix seconds."""
    sessions: int
    ready: bool


INFO = Metric(f"{PREFIX}build", "info", "The version, as label.")
STARTED = Metric(f"{PREFIX}start_time_seconds", "gauge", "When the process started, in Unix seconds.")
SESSIONS = Metric(f"{PREFIX}sessions", "gauge", "Sessions open now.")
READY = Metric(f"{PREFIX}ready", "gauge", "1 while the node accepts connections, else 0.")
OF_THE_NODE = (INFO, STARTED, SESSIONS, READY)


def metric_of(counter: Counter) -> Metric:
    """The metric of a counter: events are counters, gauges and high-water marks are gauges."""
    name = _UNFIT.sub("_", counter.name.lower()).strip("_")
    return Metric(PREFIX + name, "counter" if counter.kind is Kind.EVENT else "gauge", counter.meaning)


def exposition(stats: Statistics, facts: NodeFacts) -> str:
    """The answer to a scrape. The values are those since the start of the process; a restart begins at 0, as scrapers expect."""
    lines = [*_family(INFO), f'{INFO.family}_info{{version="{_label(facts.version)}"}} 1']
    for metric, value in ((STARTED, f"{facts.started:.3f}"), (SESSIONS, str(facts.sessions)), (READY, str(int(facts.ready)))):
        lines += [*_family(metric), f"{metric.sample} {value}"]
    for counter in stats.counters:
        metric = metric_of(counter)
        lines += [*_family(metric), f"{metric.sample} {stats.value(counter, Table.RUNTIME)}"]
    return "\n".join((*lines, "# EOF", ""))


def _family(metric: Metric) -> Iterable[str]:
    meaning = metric.meaning.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
    return f"# TYPE {metric.family} {metric.kind}", f"# HELP {metric.family} {meaning}"


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


PAGE = """\
# Metrics

`metrics-listen=127.0.0.1:9025` gives the node a small web server: `/metrics` for Prometheus and whoever else reads OpenMetrics,
`/healthz` for a watchdog (200 as long as the process answers) and `/readyz` for a load balancer (200 while new clients are
accepted, 503 with the reason while it starts or ends). It is off by default and knows no passwords: keep it on an address that only
your own machines reach.

Counters (`_total`) begin at 0 when the process starts. The gauges named `high` keep the largest value since then. A counter's name
in STAT is its name here without `smtpf_` and `_total`, with `-` for `_`. This page is made by `python -m smtpf.admin.metrics`.

| metric | kind | what it tells |
|---|---|---|
"""


def page(counters: Iterable[Counter]) -> str:
    """The page of the manual."""
    metrics = [*OF_THE_NODE, *sorted((metric_of(counter) for counter in counters), key=lambda metric: metric.family)]
    rows = []
    for metric in metrics:
        name = f"{metric.family}_info" if metric.kind == "info" else metric.sample
        meaning = " ".join(metric.meaning.split()).replace("|", "\\|")
        rows.append(f"| `{name}` | {metric.kind} | {meaning} |")
    return PAGE + "\n".join(rows) + "\n"


if __name__ == "__main__":
    from smtpf.settings.catalogue import instances

    sys.stdout.write(page(instances(Counter)))
