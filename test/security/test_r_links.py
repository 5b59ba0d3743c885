"""R: links in messages turned against the inside: nothing but public addresses and ports of the web is contacted."""

from __future__ import annotations

import pytest

from test.filters.test_uri import FOLLOW, HOSTS, REDIRECT, node, sent, web


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "192.168.1.1", "169.254.169.254", "::1", "fe80::1", "::ffff:127.0.0.1", "0.0.0.0", "224.0.0.1", "192.0.2.25"],
)
@pytest.mark.parametrize("redirected", [False, True])
def test_nothing_inside_is_contacted(address: str, redirected: bool) -> None:
    kind = "AAAA" if ":" in address else "A"
    talk = node(FOLLOW, f"{HOSTS}\nin.x.com {kind} {address}")
    inside = web(talk, address, {"/": b"HTTP/1.1 200 OK\r\n\r\n"})
    web(talk, "45.76.1.2", {"/": REDIRECT % b"http://in.x.com/"})
    literal = f"[{address}]" if ":" in address else address
    for host in ("go.x.com",) if redirected else ("in.x.com", literal):
        assert sent(talk, f"http://{host}/").startswith("250")
    assert inside == []


def test_one_inner_address_among_others_is_enough_to_stay_away() -> None:
    talk = node(FOLLOW, "two.x.com A 45.76.1.2\ntwo.x.com A 10.0.0.1")
    heard = web(talk, "45.76.1.2", {"/": b"HTTP/1.1 200 OK\r\n\r\n"})
    assert sent(talk, "http://two.x.com/").startswith("250")
    assert heard == []


@pytest.mark.parametrize("port", [25, 22, 6379, 8081])
def test_only_ports_of_the_web_are_contacted(port: int) -> None:
    talk = node(FOLLOW, HOSTS)
    heard = web(talk, "45.76.1.2", {"/": b"HTTP/1.1 200 OK\r\n\r\n"}, port)
    assert sent(talk, f"http://go.x.com:{port}/").startswith("250")
    assert heard == []
