"""The route map: the worked examples, hosts, counts and the order of trial."""

from __future__ import annotations

from collections.abc import Coroutine
from random import Random
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from smtpf.journal.journal import Entry, Journal
from smtpf.maps.hosts import Host, parse_host
from smtpf.maps.routes import Counts, Route, RouteMap, in_order_of_trial, parse_counts
from smtpf.maps.source import FAILED, FixedSource, table_of
from smtpf.maps.text import parse_text
from smtpf.waiting import run

MAP = """\
route:127.0.0.1         FORWARD: 127.0.0.1:26; RELAY
route:10.0.0.1          RELAY
route:192.168.0         RELAY
route:2001:db8          RELAY
route:example.com       FORWARD: 192.168.1.2; RELAY
route:example.org       FORWARD: 192.0.2.1
route:info@example.org  FORWARD: 192.0.2.2
route:abuse@            FORWARD: 192.0.2.9:2525
route:example.net       FORWARD: scan.example, 192.0.2.4; RCPT: 192.168.1.2
route:v6.example        FORWARD: [2001:db8::1]:26, 2001:db8::2 host.example:8025
"""


def at_once(work: Coroutine[Deferred[Any], Any, Any]) -> Any:
    results: list[Any] = []
    assert run(work, results.append, lambda failure: failure.raiseException()) is None
    return results[0]


def route_map(text: str = MAP, log: list[Entry] | None = None) -> RouteMap:
    records = ((line.key, line.value) for line in parse_text(text.encode()).lines)
    return RouteMap(FixedSource(table_of(records)), Journal((log if log is not None else []).append))


@pytest.mark.parametrize(
    ("address", "relay", "key"),
    [
        ("10.0.0.1", True, "route:10.0.0.1"),
        ("10.0.0.12", False, None),
        ("192.168.0.77", True, "route:192.168.0"),
        ("127.0.0.1", True, "route:127.0.0.1"),
        ("2001:db8::5", True, "route:2001:db8"),
        ("203.0.113.9", False, None),
    ],
)
def test_client_address(address: str, relay: bool, key: str | None) -> None:
    route = at_once(route_map().for_client_address(address))
    assert (bool(route and route.relay), route and route.key) == (relay, key)


@pytest.mark.parametrize(("name", "relay"), [("mail.example.com", True), ("mx.example.org", False), ("x.example", False)])
def test_verified_client_name(name: str, relay: bool) -> None:
    route = at_once(route_map().for_client_name(name))
    assert bool(route and route.relay) is relay


@pytest.mark.parametrize(
    ("recipient", "hosts"),
    [
        ("joe@example.org", ["192.0.2.1:25"]),
        ("Info@Example.ORG", ["192.0.2.2:25"]),
        ("info+x@example.org", ["192.0.2.1:25"]),
        ("joe@sub.example.org", ["192.0.2.1:25"]),
        ("abuse@other.example", ["192.0.2.9:2525"]),
        ("abuse@example.org", ["192.0.2.1:25"]),
        ("joe@other.example", None),
        ("postmaster", None),
        ("", None),
        ("joe@v6.example", ["[2001:db8::1]:26", "[2001:db8::2]:25", "host.example:8025"]),
    ],
)
def test_recipient(recipient: str, hosts: list[str] | None) -> None:
    route = at_once(route_map().for_recipient(recipient))
    assert (None if route is None else list(map(str, route.forward))) == hosts


def test_call_ahead_hosts_and_auth_hosts() -> None:
    route = at_once(route_map().for_auth_id("ann@example.net"))
    assert [host.host for host in route.rcpt] == ["192.168.1.2"]
    assert [host.text for host in route.forward] == ["scan.example", "192.0.2.4"]
    assert at_once(route_map().for_auth_id("ann")) is None


def test_only_a_domain_with_forward_is_ours() -> None:
    routes = route_map(MAP + "route:relay.example RELAY\nroute:bob@only.example FORWARD: 192.0.2.1")
    assert [at_once(routes.is_ours(domain)) for domain in ("mx.example.org", "relay.example", "only.example", "foreign.example")] == [
        True,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("text", "key", "forward"),
    [
        (MAP, "route:127.0.0.1", 1),
        ("route:local FORWARD: 127.0.0.1:26\nroute:127.0.0.1 RELAY", "route:local", 1),
        ("route:127 RELAY\nroute:::1 FORWARD: x.example", "route:127", 0),
        ("route:::1 FORWARD: x.example", "route:::1", 1),
        ("route:0:0:0:0:0:0:0:1 FORWARD: x.example", "route:0:0:0:0:0:0:0:1", 1),
        ("route:10 RELAY", None, 0),
    ],
)
def test_local_route(text: str, key: str | None, forward: int) -> None:
    route = at_once(route_map(text).local_route())
    assert (route and route.key, len(route.forward) if route else 0) == (key, forward)


@pytest.mark.parametrize(
    ("value", "forward", "relay"),
    [
        ("FORWARD: ; RELAY", (), True),
        ("FORWARD: RELAY.example", ("RELAY.example",), False),
        ("FORWARD: a ; RELAY", ("a",), True),
        ("RELAY;FORWARD:a,b\tc", ("a", "b", "c"), True),
        ("forward: a; relay", (), False),
        ("X: y; FORWARD: a", ("a",), False),
    ],
)
def test_attributes(value: str, forward: tuple[str, ...], relay: bool) -> None:
    route = at_once(route_map(f"route:example.com {value}").for_domain("example.com"))
    assert (tuple(host.text for host in route.forward), route.relay) == (forward, relay)


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("mx.example", Host("mx.example", "mx.example", 25)),
        ("mx.example:26", Host("mx.example:26", "mx.example", 26)),
        ("192.0.2.1:26", Host("192.0.2.1:26", "192.0.2.1", 26, is_literal=True)),
        ("[192.0.2.1]", Host("[192.0.2.1]", "192.0.2.1", 25, is_literal=True)),
        ("[IPv6:2001:DB8::1]:26", Host("[IPv6:2001:DB8::1]:26", "2001:db8::1", 26, is_literal=True)),
        ("2001:db8::2", Host("2001:db8::2", "2001:db8::2", 25, is_literal=True)),
        ("/run/lmtp", Host("/run/lmtp", "", 0, unix="/run/lmtp")),
        ("mx.example:0", None),
        ("mx.example:70000", None),
        ("mx.example:x", None),
        ("[mx.example]", None),
        ("[192.0.2.1", None),
        ("[192.0.2.1]26", None),
        ("1:2:3", None),
        (":25", None),
        ("a\x00b", None),
    ],
)
def test_host(text: str, host: Host | None) -> None:
    assert parse_host(text) == host


def test_counts_and_their_log_line() -> None:
    log: list[Entry] = []
    routes = route_map(log=log)
    counts = at_once(routes.counts())
    assert counts == Counts(domains=5, addresses=1, accounts=1, unique_domains=5)
    routes.announce(counts)
    assert [entry.text for entry in log] == ["#557 route domains=5 addresses=1 accounts=1"]


def test_counts_of_a_map_server() -> None:
    assert parse_counts("5 1 1 6") == Counts(domains=5, accounts=1, addresses=1, unique_domains=6)
    assert parse_counts("5 1 x 6") is FAILED
    assert parse_counts("5 1 1") is FAILED


def test_failure_is_told_apart_from_absence() -> None:
    class Failing:
        tags = None
        walk = None

        def get(self, key: str) -> Any:
            return FAILED

    source: Any = FixedSource()
    source._table = Failing()
    routes = RouteMap(source, Journal([].append))
    assert at_once(routes.for_recipient("joe@example.org")) is FAILED
    assert at_once(routes.local_route()) is FAILED
    assert at_once(routes.counts()) is FAILED
    assert at_once(routes.is_ours("example.org")) is False


def test_random_selection_tries_each_host_once() -> None:
    hosts = at_once(route_map().for_recipient("joe@v6.example")).forward
    assert in_order_of_trial(hosts, "ordered", Random(1)) == hosts
    orders = {in_order_of_trial(hosts, "random", Random(seed)) for seed in range(40)}
    assert len(orders) == 6
    assert all(sorted(map(str, order)) == sorted(map(str, hosts)) for order in orders)


def test_route_equals_by_value() -> None:
    assert at_once(route_map().for_client_address("10.0.0.1")) == Route("route:10.0.0.1", relay=True)
