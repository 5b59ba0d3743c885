"""DNS lists against the real rbldnsd, through the real resolver."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from smtpf.dns.lists import DnsLists, parse_lists
from smtpf.dns.resolver import Resolver
from test.support.node_process import wait_until

pytestmark = pytest.mark.skipif(shutil.which("rbldnsd") is None, reason="rbldnsd is not installed")

IPV4 = """$SOA 300 ns.lists.test root.lists.test 1 300 300 300 300
:127.0.0.2:listed
127.0.0.2
192.0.2.9
192.0.2.16/28 :127.0.0.4:
192.0.2.33 :127.0.0.1:
192.0.2.34 :127.255.255.254:
"""
EVERYTHING = """$SOA 300 ns.all.test root.all.test 1 300 300 300 300
:127.0.0.2:listed
0.0.0.0/1
128.0.0.0/1
"""
IPV6 = """$SOA 300 ns.six.test root.six.test 1 300 300 300 300
:127.0.0.2:listed
2001:db8:1::/48
"""


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    for name, text in (("ipv4", IPV4), ("ipv6", IPV6), ("all", EVERYTHING)):
        (tmp_path / name).write_text(text)
    tmp_path.chmod(0o755)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
    zones = ["lists.test:ip4trie:ipv4", "six.test:ip6trie:ipv6", "all.test:ip4trie:all"]
    # It refuses to run as root, and a test's folder is for its owner alone.
    place = ["-u", "nobody", "-r", str(tmp_path), "-w", "/"] if os.geteuid() == 0 else ["-w", str(tmp_path)]
    daemon = subprocess.Popen(
        ["rbldnsd", "-n", *place, "-b", f"127.0.0.1/{number}", *zones],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until(lambda: _answers(number) or daemon.poll() is not None)
        assert daemon.poll() is None
        yield number
    finally:
        daemon.terminate()
        daemon.wait(10)


def _answers(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.settimeout(0.2)
        try:
            probe.connect(("127.0.0.1", port))
            probe.send(bytes.fromhex("000101000001000000000000056c69737473047465737400 00060001"))
            return bool(probe.recv(512))
        except OSError:
            return False


@pytest.mark.parametrize(
    ("lists", "address", "found"),
    [
        ("lists.test", "192.0.2.9", "lists.test"),
        ("lists.test", "192.0.2.10", None),
        ("lists.test", "192.0.2.17", "lists.test"),
        ("lists.test:127.0.0.2", "192.0.2.17", None),
        ("lists.test/2", "192.0.2.17", None),
        ("lists.test/4", "192.0.2.17", "lists.test"),
        ("lists.test", "192.0.2.33", None),
        ("lists.test", "192.0.2.34", None),
        ("lists.test", "::ffff:192.0.2.9", "lists.test"),
        ("all.test;lists.test", "192.0.2.9", "lists.test"),
        ("six.test", "2001:db8:1::9", "six.test"),
        ("six.test", "2001:db8:2::9", None),
    ],
)
def test_listings(reactor_run: Any, port: int, lists: str, address: str, found: str | None) -> None:
    from twisted.internet import reactor

    resolver = Resolver(reactor, [("127.0.0.1", port)], timeout=5)

    async def work() -> str | None:
        searched = DnsLists(resolver, parse_lists(lists.split(";")), lambda *args: None).address(address)
        hit = await searched if hasattr(searched, "__await__") else searched
        return hit.name if hit is not None else None

    try:
        assert reactor_run(work()) == found
    finally:
        resolver.stop()
