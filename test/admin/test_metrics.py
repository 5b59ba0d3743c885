"""Metrics: made from the declarations of the counters, and the page of the manual made from the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from twisted.internet.task import Clock

import smtpf
from smtpf.admin.health import address_of
from smtpf.admin.metrics import OF_THE_NODE, NodeFacts, exposition, metric_of, page
from smtpf.cache.cluster import PEERS
from smtpf.settings.catalogue import instances
from smtpf.smtp.counters import CLIENTS
from smtpf.stats.counter import Counter
from smtpf.stats.general import HIGH_CONNECTIONS
from smtpf.stats.tables import Statistics

MANUAL = Path(smtpf.__file__).parent.parent / "docs" / "metrics.md"


def test_manual_lists_every_metric() -> None:
    assert MANUAL.read_text() == page(instances(Counter)), "python -m smtpf.admin.metrics > docs/metrics.md"


def test_every_counter_has_a_name_of_its_own() -> None:
    families = [metric_of(counter).family for counter in instances(Counter)] + [metric.family for metric in OF_THE_NODE]
    assert len(families) == len(set(families))
    assert all(re.fullmatch(r"smtpf_[a-z0-9_]+", family) for family in families)


def test_scrape_tells_type_help_and_value_of_each_and_ends_with_eof() -> None:
    stats = Statistics(Clock(), None, [CLIENTS, HIGH_CONNECTIONS, PEERS])
    stats.add(CLIENTS, 3)
    stats.raise_to(HIGH_CONNECTIONS, 2)
    stats.set(PEERS, 1)
    text = exposition(stats, NodeFacts('3.0"', 12.5, 4, True))
    assert text.startswith("# TYPE smtpf_build info\n") and 'smtpf_build_info{version="3.0\\""} 1\n' in text
    assert "# TYPE smtpf_clients counter\n# HELP smtpf_clients Connections accepted.\nsmtpf_clients_total 3\n" in text
    assert "# TYPE smtpf_high_connections gauge\n" in text and "\nsmtpf_high_connections 2\n" in text
    assert "\nsmtpf_cluster_peers 1\n" in text and "\nsmtpf_start_time_seconds 12.500\n" in text
    assert "\nsmtpf_sessions 4\n" in text and "\nsmtpf_ready 1\n" in text and text.endswith("\n# EOF\n")


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("9025", ("127.0.0.1", 9025)),
        ("127.0.0.1:9025", ("127.0.0.1", 9025)),
        ("[::1]:9025", ("::1", 9025)),
        ("192.0.2.1:1", ("192.0.2.1", 1)),
        ("", None),
        ("0", None),
        ("host:9025", None),
        ("127.0.0.1:99999", None),
    ],
)
def test_where_the_web_server_listens(text: str, address: tuple[str, int] | None) -> None:
    assert address_of(text) == address
