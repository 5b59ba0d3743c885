"""Lists of domains and of mail addresses against the real rbldnsd, through the real resolver."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from smtpf.dns.domains import Domains
from smtpf.dns.lists import DnsLists, Listing, parse_lists
from smtpf.dns.resolver import Resolver
from smtpf.filters.mail_bl import label
from smtpf.filters.uri_lists import URI_BL, URI_DNS_BL, Found, UriLists
from smtpf.journal.journal import Journal
from smtpf.maps.access import AccessMap
from smtpf.maps.source import FixedSource, table_of
from smtpf.settings.store import Settings
from test.support.node_process import wait_until

pytestmark = pytest.mark.skipif(shutil.which("rbldnsd") is None, reason="rbldnsd is not installed")

HEAD = "$SOA 300 ns.lists.test root.lists.test 1 300 300 300 300\n"
NAMES = HEAD + f":127.0.0.2:listed\n.spamdom.com\nsub.halfgood.com\n{label('md5', 'joe@gmail.com')}\n"
HOSTS = "www.bread A 45.76.10.30\n"
ADDRESSES = HEAD + ":127.0.0.2:listed\n45.76.10.30\n"


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    for name, text in (("names", NAMES), ("addresses", ADDRESSES), ("hosts", HOSTS)):
        (tmp_path / name).write_text(text)
    tmp_path.chmod(0o755)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
    zones = ["names.test:dnset:names", "addresses.test:ip4set:addresses", "org:generic:hosts"]
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
            probe.send(bytes.fromhex("000101000001000000000000056e616d6573047465737400 00010001"))
            return bool(probe.recv(512))
        except OSError:
            return False


def lists(port: int, options: dict[Any, str]) -> tuple[UriLists, Resolver]:
    from twisted.internet import reactor

    journal = Journal(lambda entry: None)
    resolver = Resolver(reactor, [("127.0.0.1", port)], timeout=5.0)
    made = UriLists(resolver, Domains(), AccessMap(FixedSource(table_of(())), journal), journal)
    made.configure(Settings.of(options))
    return made, resolver


@pytest.mark.parametrize(
    ("host", "sub_domains", "found"),
    [
        ("www.spamdom.com", False, True),
        ("spamdom.com", False, True),
        ("www.gooddom.com", True, False),
        ("a.sub.halfgood.com", False, False),
        ("a.sub.halfgood.com", True, True),
    ],
)
def test_domains(port: int, reactor_run: Any, host: str, sub_domains: bool, found: bool) -> None:
    made, resolver = lists(port, {URI_BL: "names.test"})
    try:
        hit = reactor_run(made.host(host, sub_domains))
    finally:
        resolver.stop()
    assert hit == (Found(URI_BL, host, "names.test") if found else None)


def test_addresses_behind_a_name(port: int, reactor_run: Any) -> None:
    made, resolver = lists(port, {URI_DNS_BL: "addresses.test"})
    try:
        assert reactor_run(made.host("www.bread.org", False)) == Found(URI_DNS_BL, "www.bread.org", "addresses.test")
    finally:
        resolver.stop()


def test_digests_of_mail_addresses(port: int, reactor_run: Any) -> None:
    from twisted.internet import reactor

    resolver = Resolver(reactor, [("127.0.0.1", port)], timeout=5.0)
    try:
        found = [
            reactor_run(_listed(DnsLists(resolver, parse_lists(["names.test"]), print), who)) for who in ("joe@gmail.com", "amy@gmail.com")
        ]
    finally:
        resolver.stop()
    assert found == [True, False]


async def _listed(lists: DnsLists, address: str) -> bool:
    search = lists.name(label("md5", address))
    return search is not None and (isinstance(search, Listing) or await search is not None)
