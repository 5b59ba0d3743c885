"""The in-memory resolver of the tests behaves like the real one where tests look."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from smtpf.dns.answer import Answer, Status
from test.support.zones import ZoneResolver

ZONES = """
a.example A 192.0.2.1
b.example CNAME a.example
loop.example CNAME pool.example
pool.example CNAME loop.example
bad.example * SERVFAIL
slow.example A 192.0.2.2
slow.example A DELAY 3
mx.example MX 10 Mail.Example.
"""


@pytest.mark.parametrize(
    ("name", "rtype", "status"),
    [
        ("A.Example.", "A", Status.OK),
        ("a.example", "AAAA", Status.NODATA),
        ("b.example", "A", Status.OK),
        ("example", "A", Status.NODATA),
        ("c.example", "A", Status.NXDOMAIN),
        ("loop.example", "A", Status.NODATA),
        ("bad.example", "TXT", Status.SERVFAIL),
        ("a" * 64 + ".example", "A", Status.NXDOMAIN),
    ],
)
def test_status_follows_the_records(name: str, rtype: str, status: Status) -> None:
    answer = ZoneResolver(ZONES).query(name, rtype)
    assert isinstance(answer, Answer)
    assert answer.status is status


def test_delay_waits_for_the_clock_and_ends_at_the_timeout() -> None:
    clock = Clock()
    resolver = ZoneResolver(ZONES, clock)
    whole = resolver.query("slow.example", "A")
    short = resolver.query("slow.example", "A", timeout=1)
    clock.advance(1)
    assert not whole.called
    assert short.result.no_answer
    clock.advance(2)
    assert whole.result.addresses == ("192.0.2.2",)


def test_mx_host_is_lower_case_and_keeps_its_original() -> None:
    answer = ZoneResolver(ZONES).query("mx.example", "MX")
    assert (answer.exchanges[0].host, answer.exchanges[0].original) == ("mail.example", "Mail.Example.")
