"""Look-ups in the access map: the worked examples of the specification, and what surrounds them."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from smtpf.journal.journal import Entry, Journal
from smtpf.journal.verbose import Verbose
from smtpf.maps.access import AccessMap, Hit, Limit
from smtpf.maps.source import FAILED, FixedSource, Found, table_of
from smtpf.maps.text import parse_text
from smtpf.waiting import run


def at_once(work: Coroutine[Deferred[Any], Any, Any]) -> Any:
    """The result of work that does not wait."""
    results: list[Any] = []
    assert run(work, results.append, lambda failure: failure.raiseException()) is None
    return results[0]


def access_map(text: str, log: list[Entry] | None = None, verbose: str = "") -> AccessMap:
    lines = parse_text(text.encode()).lines
    journal = Journal((log if log is not None else []).append, Verbose(verbose))
    return AccessMap(FixedSource(table_of((line.key, line.value) for line in lines)), journal)


def look_up(access: AccessMap, tag: str, name: str, address: str, mails: tuple[str, ...]) -> Hit | None:
    if tag == "connect:from:":
        return at_once(access.lookup_connect_from(name, address, mails[0]))
    if tag == "connect:to:":
        return at_once(access.lookup_connect_to(name, address, mails[0]))
    if tag == "from:to:":
        return at_once(access.lookup_from_to(*mails))
    if mails:
        return at_once(access.lookup_mail(tag, mails[0]))
    return at_once(access.lookup_client(tag, name, address))


LOOKUPS = [
    (1, "connect:192.0.2.9 OK\nconnect:192.0.2 REJECT", "connect:", "mx.example.net", "192.0.2.9", (), "OK", "connect:192.0.2.9"),
    (2, "connect:192.0.2 REJECT\nconnect:192 OK", "connect:", "mx.example.net", "192.0.2.9", (), "REJECT", "connect:192.0.2"),
    (3, "connect:192.0 REJECT", "connect:", "", "192.0.2.9", (), "REJECT", "connect:192.0"),
    (4, "connect:192.0.2 REJECT\nconnect:mx.example.net OK", "connect:", "mx.example.net", "192.0.2.9", (), "REJECT", "connect:192.0.2"),
    (5, "connect:19 REJECT", "connect:", "", "192.0.2.9", (), None, None),
    (6, "CONNECT:Example.NET OK", "connect:", "mx.sub.example.net", "192.0.2.9", (), "OK", "connect:example.net"),
    (
        7,
        "connect:example.net OK\nconnect:sub.example.net REJECT",
        "connect:",
        "mx.sub.example.net",
        "192.0.2.9",
        (),
        "REJECT",
        "connect:sub.example.net",
    ),
    (8, "connect:net REJECT", "connect:", "mx.example.net", "192.0.2.9", (), "REJECT", "connect:net"),
    (9, "connect: REJECT", "connect:", "mx.example.net", "192.0.2.9", (), "REJECT", "connect:"),
    (10, "connect: REJECT", "connect:", "", "192.0.2.9", (), "REJECT", "connect:"),
    (11, "connect:[192.0.2.9] REJECT", "connect:", "", "192.0.2.9", (), "REJECT", "connect:[192.0.2.9]"),
    (12, "connect:2001:db8:0:0:0:0:1234:5678 OK", "connect:", "", "2001:db8::1234:5678", (), "OK", "connect:2001:db8:0:0:0:0:1234:5678"),
    (13, "connect:2001:0DB8:0:0:0:0:1234 OK", "connect:", "", "2001:db8::1234:5678", (), "OK", "connect:2001:db8:0:0:0:0:1234"),
    (14, "connect:2001:db8::1234:5678 OK", "connect:", "", "2001:db8::1234:5678", (), "OK", "connect:2001:db8::1234:5678"),
    (15, "connect:2001:db8:0:1 REJECT\nconnect:2001:db8 OK", "connect:", "", "2001:db8:0:2::1", (), "OK", "connect:2001:db8"),
    (16, "connect:::1 OK", "connect:", "localhost.localhost", "::1", (), "OK", "connect:::1"),
    (17, "connect:192.0.2 OK", "connect:", "", "::ffff:192.0.2.9", (), "OK", "connect:192.0.2"),
    (18, "helo:[192.0.2.9] REJECT", "helo:", "[192.0.2.9]", "", (), "REJECT", "helo:[192.0.2.9]"),
    (19, "helo:arpa REJECT", "helo:", "9.2.0.192.in-addr.arpa", "", (), "REJECT", "helo:arpa"),
    (
        20,
        "from:john@sub.example.com OK\nfrom:example.com REJECT",
        "from:",
        "",
        "",
        ("John@Sub.Example.COM",),
        "OK",
        "from:john@sub.example.com",
    ),
    (21, "from:example.com REJECT\nfrom:john@ OK", "from:", "", "", ("john@sub.example.com",), "REJECT", "from:example.com"),
    (22, "from:john@ OK", "from:", "", "", ("john+news@sub.example.com",), "OK", "from:john@"),
    (23, "from:john@sub.example.com OK", "from:", "", "", ("john+news@sub.example.com",), None, None),
    (24, "from:a+b@ TAG", "from:", "", "", ("a+b+c@d.example",), "TAG", "from:a+b@"),
    (25, "from:com REJECT", "from:", "", "", ("x@y.com",), "REJECT", "from:com"),
    (26, "from: REJECT", "from:", "", "", ("x@y.com",), "REJECT", "from:"),
    (27, "from: REJECT", "from:", "", "", ("",), "REJECT", "from:"),
    (28, "to:postmaster@ OK", "to:", "", "", ("postmaster",), "OK", "to:postmaster@"),
    (29, "to:[192.0.2.1] REJECT", "to:", "", "", ("u@[192.0.2.1]",), "REJECT", "to:[192.0.2.1]"),
    (30, "to:[ipv6:2001:db8::1] REJECT", "to:", "", "", ("u@[IPv6:2001:db8::1]",), "REJECT", "to:[ipv6:2001:db8::1]"),
    (31, "from:example.com REJECT", "from:", "", "", ("a@b@example.com",), "REJECT", "from:example.com"),
    (
        32,
        "connect:192.0.2.9:from:example.com OK",
        "connect:from:",
        "",
        "192.0.2.9",
        ("x@sub.example.com",),
        "OK",
        "connect:192.0.2.9:from:example.com",
    ),
    (
        33,
        "connect:192.0.2.9:from:x@ OK\nconnect:192.0.2:from:x@example.com REJECT",
        "connect:from:",
        "",
        "192.0.2.9",
        ("x@example.com",),
        "OK",
        "connect:192.0.2.9:from:x@",
    ),
    (
        34,
        "connect:192:from:com REJECT\nconnect:mx.example.net:from:x@example.com OK",
        "connect:from:",
        "mx.example.net",
        "192.0.2.9",
        ("x@example.com",),
        "REJECT",
        "connect:192:from:com",
    ),
    (35, "connect:192.0.2.9:from: REJECT", "connect:from:", "", "192.0.2.9", ("",), "REJECT", "connect:192.0.2.9:from:"),
    (36, "connect:192.0.2.9:from: REJECT", "connect:from:", "", "192.0.2.9", ("x@example.com",), None, None),
    (
        37,
        "connect:example.net:to:ann@ REJECT",
        "connect:to:",
        "mx.example.net",
        "192.0.2.9",
        ("ann+x@example.com",),
        "REJECT",
        "connect:example.net:to:ann@",
    ),
    (38, "connect:192.0.2.9:from:example.com !bob@*!OK", "connect:from:", "", "192.0.2.9", ("x@example.com",), None, None),
    (
        39,
        "from:example.org:to:example.com REJECT\nfrom:bob@:to:ann@ OK",
        "from:to:",
        "",
        "",
        ("bob+x@sub.example.org", "ann@example.com"),
        "REJECT",
        "from:example.org:to:example.com",
    ),
    (40, "from:bob@:to:ann@ OK", "from:to:", "", "", ("bob+x@sub.example.org", "ann@example.com"), "OK", "from:bob@:to:ann@"),
    (41, "from::to:ann@example.com REJECT", "from:to:", "", "", ("", "ann@example.com"), "REJECT", "from::to:ann@example.com"),
    (42, "from:root:to:ann@example.com OK", "from:to:", "", "", ("root", "ann@example.com"), "OK", "from:root:to:ann@example.com"),
    (43, "connect:192.0.2 [192.0.2.128/25]REJECT OK", "connect:", "", "192.0.2.200", (), "REJECT", "connect:192.0.2"),
    (44, "connect:192.0.2 [192.0.2.128/25]REJECT OK", "connect:", "", "192.0.2.20", (), "OK", "connect:192.0.2"),
    (45, "connect:192.0.2 [192.0.2.9]OK REJECT", "connect:", "", "192.0.2.9", (), "OK", "connect:192.0.2"),
    (
        46,
        "connect:192.0.2 [192.0.2.128/25]REJECT\nconnect:example.net OK",
        "connect:",
        "mx.example.net",
        "192.0.2.20",
        (),
        "OK",
        "connect:example.net",
    ),
    (47, "connect:192.0.2 [192.0.2.128/25]REJECT\nconnect:192 TAG", "connect:", "", "192.0.2.20", (), None, None),
    (
        48,
        "connect:example.net !smtp*.example.net!OK !www*.example.net!OK REJECT",
        "connect:",
        "smtp3.example.net",
        "192.0.2.9",
        (),
        "OK",
        "connect:example.net",
    ),
    (
        49,
        "connect:example.net !smtp*.example.net!OK !www*.example.net!OK REJECT",
        "connect:",
        "dsl-9.example.net",
        "192.0.2.9",
        (),
        "REJECT",
        "connect:example.net",
    ),
    (50, "connect:example.net !dsl-*.example.net!REJECT\nconnect: TAG", "connect:", "mx.example.net", "192.0.2.9", (), None, None),
    (51, "connect:example.net [192.0.2.0/24]OK REJECT", "connect:", "mx.example.net", "192.0.2.9", (), "REJECT", "connect:example.net"),
    (52, "connect:example.net [192.0.2.0/24]OK", "connect:", "mx.example.net", "192.0.2.9", (), "OK", "connect:example.net"),
    (
        53,
        "from:aol.com /^[a-zA-Z0-9.-]{3,16}@aol.com$/NEXT REJECT\nfrom:grandma@ OK",
        "from:",
        "",
        "",
        ("grandma@aol.com",),
        "OK",
        "from:grandma@",
    ),
    (54, "from:aol.com /^[a-zA-Z0-9.-]{3,16}@aol.com$/NEXT REJECT", "from:", "", "", ("ab@aol.com",), "REJECT", "from:aol.com"),
    (55, "from:aol.com /^[a-zA-Z0-9.-]{3,16}@aol.com$/NEXT REJECT", "from:", "", "", ("joe@aol.com",), None, None),
    (56, "from:aol.com /^[a-z]+@aol.com$/OK REJECT", "from:", "", "", ("joe@AOL.COM",), "OK", "from:aol.com"),
    (57, "from:example.com SKIP\nfrom:com REJECT", "from:", "", "", ("x@example.com",), "SKIP", "from:example.com"),
    (58, "from:example.com NEXT\nfrom:com REJECT", "from:", "", "", ("x@example.com",), "REJECT", "from:com"),
    (59, "from:example.com DUNNO\nfrom: REJECT", "from:", "", "", ("x@example.com",), "SKIP", "from:example.com"),
]


@pytest.mark.parametrize(("row", "text", "tag", "name", "address", "mails", "word", "key"), LOOKUPS, ids=lambda value: None)
def test_worked_lookup(
    row: int, text: str, tag: str, name: str, address: str, mails: tuple[str, ...], word: str | None, key: str | None
) -> None:
    hit = look_up(access_map(text), tag, name, address, mails)
    assert (hit and hit.word, hit and hit.key) == (word, key), row


def test_unqualified_sender_is_tried_as_user_key_first() -> None:
    access = access_map("from:root:to:ann@example.com OK\nfrom:root@:to:ann@example.com REJECT")
    assert look_up(access, "from:to:", "", "", ("root", "ann@example.com")) == Hit("from:root@:to:ann@example.com", "REJECT", "", "REJECT")


def test_literal_of_a_nameless_client_serves_the_connect_tags_only() -> None:
    access = access_map("rate-connect:[ipv6:2001:db8::1] 7\nhelo:[192.0.2.9] REJECT")
    assert at_once(access.lookup_client_number("rate-connect:", "", "2001:db8::1")) == 7
    assert at_once(access.lookup_client_number("rate-connect:", "mx.example.net", "2001:db8::1")) is None
    assert at_once(access.lookup_client("helo:", "", "192.0.2.9")) is None


def test_next_resumes_down_to_the_bare_key() -> None:
    access = access_map("connect:192.0.2 NEXT\nconnect:example.net NEXT\nconnect: TAG")
    assert at_once(access.lookup_client("connect:", "mx.example.net", "192.0.2.9")).key == "connect:"


def test_u_label_and_a_label_reach_the_same_key() -> None:
    for written in ("from:b\u00fccher.example", "from:xn--bcher-kva.example"):
        access = access_map(f"{written} REJECT")
        for asked in ("x@B\u00fccher.example", "x@xn--bcher-kva.example"):
            assert at_once(access.lookup_mail("from:", asked)).key == "from:xn--bcher-kva.example"


def test_absent_tag_asks_for_no_key() -> None:
    asked: list[str] = []
    access = access_map("from: REJECT")
    view: Any = access.source.view
    view.get = asked.append
    assert at_once(access.lookup_client("connect:", "mx.example.net", "192.0.2.9")) is None
    assert asked == []


class Failing:
    tags = None

    def get(self, key: str) -> Found:
        return FAILED


def test_it_is_known_beforehand_which_tags_have_entries() -> None:
    access = access_map("to:fred@example.com OK\nconnect:192.0.2.1:to:fred@example.com OK\n")
    assert access.holds("to:") and access.holds("from:", "to:") and access.holds("connect:to:")
    assert not access.holds("from:", "tls-to:")


def test_failed_lookup_is_a_temporary_failure_and_no_number() -> None:
    source: Any = FixedSource()
    source._table = Failing()
    access = AccessMap(source, Journal([].append))
    for tag in ("connect:", "connect:from:", "connect:to:", "from:to:"):
        hit = look_up(access, tag, "mx.example.net", "192.0.2.9", ("a@b.example", "c@d.example") if tag != "connect:" else ())
        assert hit == Hit(f"{tag}invalid", "TEMPFAIL", "", "TEMPFAIL", failed=True)
    assert access.holds("tls-to:"), "a map that cannot tell its tags may hold any"
    assert at_once(access.lookup_mail_number("grey-to:", "a@b.example")) is None
    assert at_once(access.lookup_mail_list("filename-to:", "a@b.example")) is None


def test_fault_is_logged_once_per_value_with_the_session() -> None:
    log: list[Entry] = []
    access = access_map("connect: !!REJECT OK", log)
    for _ in range(3):
        at_once(access.lookup_client("connect:", "abc", "", "sid"))
    assert [entry.text for entry in log] == ['sid #100 pattern delimiter error: "!!REJECT OK..."']


def test_trace_shows_each_step_and_repeats_faults() -> None:
    log: list[Entry] = []
    access = access_map("connect: !!REJECT !a*!OK [192.0.2.0/24]TAG /b/SKIP CONTENT", log, "access")
    for name, address in (("abc", ""), ("xyz", "192.0.2.1"), ("", "192.0.2.1"), ("bcd", "")):
        at_once(access.lookup_client("connect:", name, address))
    assert [entry.message.number for entry in log] == [
        100,
        101,
        102,
        114,
        100,
        101,
        109,
        113,
        114,
        100,
        101,
        104,
        107,
        114,
        100,
        101,
        109,
        111,
        114,
    ]


@pytest.mark.parametrize(
    ("text", "number", "size", "limit"),
    [
        ("5", 5, 5, None),
        ("-1", -1, -1, Limit(-1)),
        ("10M", None, 10485760, None),
        ("1k", None, 1024, None),
        ("2G", None, 2 << 30, None),
        ("150/30m", None, None, Limit(150, 30, "m")),
        ("10/d", None, None, Limit(10, 1, "d")),
        ("10/D", None, None, Limit(10, 1, "d")),
        ("10/7", None, None, Limit(10, 7, "s")),
        ("10/7x", None, None, None),
        ("SKIP", None, None, None),
        ("NEXT", None, None, None),
        ("TEMPFAIL", None, None, None),
        ("5 6", 5, 5, None),
        ("[192.0.2.0/24]0 300", 0, 0, None),
        ("3/", None, None, None),
    ],
)
def test_numbers_sizes_and_limits(text: str, number: int | None, size: int | None, limit: Limit | None) -> None:
    access = access_map(f"x-connect:192.0.2 {text}\nx-to:ann@ !*!{text}")
    assert at_once(access.lookup_client_number("x-connect:", "", "192.0.2.9")) == number
    assert at_once(access.lookup_client_size("x-connect:", "", "192.0.2.9")) == size
    assert at_once(access.lookup_client_limit("x-connect:", "", "192.0.2.9")) == limit


def test_limit_counts_seconds() -> None:
    assert Limit(150, 30, "m").seconds == 1800


def test_lists_split_at_semicolons_and_commas() -> None:
    access = access_map('filename-to:ann@ *.docm;*.xlsm,"my file.*"\nmimetype-to: !*!!application/pdf;application/*')
    assert at_once(access.lookup_mail_list("filename-to:", "ann@example.com")) == ("*.docm", "*.xlsm", "my file.*")
    assert at_once(access.lookup_mail_list("mimetype-to:", "ann@example.com")) == ("!application/pdf", "application/*")
    assert at_once(access.lookup_mail_list("filename-to:", "bob@example.com")) is None


def test_host_that_is_an_address_has_no_bare_key() -> None:
    access = access_map("body:192.0.2 REJECT\nbody: OK")
    assert at_once(access.lookup_address("body:", "192.0.2.7")).key == "body:192.0.2"
    assert at_once(access.lookup_address("body:", "198.51.100.7")) is None
    assert at_once(access.lookup_domain("body:", "x.example")).key == "body:"
    assert at_once(access.lookup_bare("body:")).word == "OK"
