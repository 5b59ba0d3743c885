"""Reserved names, known top-level domains, registered domains, and the names that grey-listing groups by."""

from __future__ import annotations

from pathlib import Path

import pytest

from smtpf.dns.domains import Domains, is_address, is_host_name, is_reserved, is_reserved_helo

DOMAINS = Domains()


@pytest.mark.parametrize(
    "name",
    [
        *("example.com", "mail.example.org", "fred@example.net", "host.localdomain", "pc.local", "a.test", "A.Test.", "x.invalid"),
        *("a.lan", "a.home", "a.onion", "x.arpa", "a.alt", "a.internal", "a_example.com"),
    ],
)
def test_reserved(name: str) -> None:
    assert is_reserved(name)


@pytest.mark.parametrize(
    "name", ["my-example.com", "myexample.com", "example.co.uk", "test", "localhost", "", "9.2.0.192.in-addr.arpa", "1.0.ip6.arpa"]
)
def test_not_reserved(name: str) -> None:
    assert not is_reserved(name)


def test_helo_may_be_a_name_of_the_local_network() -> None:
    assert not is_reserved_helo("pc.local")
    assert not is_reserved_helo("pc.lan")
    assert is_reserved_helo("pc.localdomain")
    assert is_reserved_helo("mail.example.com")


@pytest.mark.parametrize(
    ("host", "registered"),
    [
        ("www.shop.example.com", "example.com"),
        ("a.b.example.co.uk", "example.co.uk"),
        ("co.uk", None),
        ("com", None),
        ("x.zzzz", None),
        ("Example.COM.", "example.com"),
        ("bücher.example.de", "example.de"),
        ("", None),
        ("a..com", None),
    ],
)
def test_registered_domain(host: str, registered: str | None) -> None:
    assert DOMAINS.registered(host) == registered


def test_known_top_level_domains() -> None:
    assert DOMAINS.known("a.com")
    assert DOMAINS.known("xn--p1ai")
    assert not DOMAINS.known("a.zzzz")
    assert not DOMAINS.known("192.0.2.1")
    assert DOMAINS.testable("[192.0.2.1]")
    assert not DOMAINS.testable("co.uk")


def test_files_replace_one_level_each(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("com\nlocalnet uk\n")
    two.write_text("blogspot.com\n")
    domains = Domains(one.read_text().split(), two.read_text().split())
    assert domains.known("a.localnet")
    assert not domains.known("a.org")
    assert domains.registered("x.joe.blogspot.com") == "joe.blogspot.com"
    assert domains.registered("a.example.co.uk") == "co.uk"


@pytest.mark.parametrize(
    ("name", "ptr", "ptrn"),
    [
        ("out3.pool1.example.com", "pool1.example.com", "out#.pool#.example.com"),
        ("mail.example.com", "example.com", "mail.example.com"),
        ("example.com", "example.com", "example.com"),
        ("pcspecialist.co.uk", "pcspecialist.co.uk", "pcspecialist.co.uk"),
        ("mx12.pcspecialist.co.uk", "pcspecialist.co.uk", "mx#.pcspecialist.co.uk"),
        ("mx1.3com.com", "3com.com", "mx#.3com.com"),
        ("host", "host", "host"),
    ],
)
def test_grey_list_grouping(name: str, ptr: str, ptrn: str) -> None:
    assert (DOMAINS.ptr_suffix(name), DOMAINS.compacted(name)) == (ptr, ptrn)


@pytest.mark.parametrize("name", ["mail.example.com", "a_b.example", "x", "3com.com", "xn--a.example"])
def test_host_names(name: str) -> None:
    assert is_host_name(name)


@pytest.mark.parametrize("name", ["", ".", "a..b", "-a.b", "a-.b", "a b", "192.0.2.1", "a\\000.b", "a" * 254, "é.example", "a\n"])
def test_no_host_names(name: str) -> None:
    assert not is_host_name(name)


@pytest.mark.parametrize(("text", "address"), [("192.0.2.1", True), ("[IPv6:2001:db8::1]", True), ("a.example", False), ("", False)])
def test_addresses(text: str, address: bool) -> None:
    assert is_address(text) is address
