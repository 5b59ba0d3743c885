"""The grammar of MAIL and RCPT: the tables of the session chapter, 3.7, and eighty odd addresses."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpf.smtp.grammar import (
    NULL_PATH,
    Argument,
    ArgumentFault,
    Path,
    PathError,
    PathRules,
    Role,
    domain_key,
    parse_mail_argument,
    parse_path,
    parse_rcpt_argument,
)

S, R = Role.SENDER, Role.RECIPIENT
STRICT = PathRules()
LOOSE = PathRules(angle_brackets=False)
UTF8 = PathRules(utf8=True)

IMBALANCED = "5.1.0 imbalanced angle brackets in path"
NOT_2821 = "5.1.0 address does not conform to RFC 2821 syntax"
ROUTE = "5.1.0 invalid source route"
INCOMPLETE = "5.1.7 address incomplete"
LONG_LOCAL = "5.1.0 local-part too long, see RFC 2821 section 4.5.3.1"
LONG_DOMAIN = "5.1.0 domain name too long, see RFC 2821 section 4.5.3.1"
S_LOCAL, R_LOCAL = "5.1.7 invalid local part", "5.1.3 invalid local part"
S_DOMAIN, R_DOMAIN = "5.1.7 invalid domain name", "5.1.3 invalid domain name"

TABLE = [
    ("<fred>", S, INCOMPLETE),
    ("fred@example.com", S, NOT_2821),
    ("<a b@example.com>", S, S_LOCAL),
    ("<joe@x..com>", S, INCOMPLETE),
]


@pytest.mark.parametrize(("text", "role", "error"), TABLE)
def test_refusals_of_the_published_table(text: str, role: Role, error: str) -> None:
    argument = parse_mail_argument(f"FROM:{text}")
    assert isinstance(argument, Argument)
    refused = parse_path(argument.path, role, STRICT)
    assert refused == PathError(text, error)
    assert refused.code == 553


def test_null_sender_is_null() -> None:
    path = parse_path("<>", S, STRICT)
    assert path == NULL_PATH
    assert path.is_null and not path.qualified


def test_unqualified_recipient_is_accepted() -> None:
    path = parse_path("<postmaster>", R, STRICT)
    assert isinstance(path, Path)
    assert (path.mailbox, path.domain, path.qualified, path.is_null) == ("postmaster", "", False, False)


def test_detail_is_split_at_the_first_plus() -> None:
    path = parse_path("<joe+list@example.com>", R, STRICT)
    assert isinstance(path, Path)
    assert (path.mailbox, path.detail, path.local, path.address) == ("joe", "list", "joe+list", "joe+list@example.com")


def test_literal_plus_keeps_the_local_part_whole() -> None:
    path = parse_path("<joe+list@example.com>", R, PathRules(literal_plus=True))
    assert isinstance(path, Path)
    assert (path.mailbox, path.detail) == ("joe+list", "")


def test_source_route_stays_in_the_text_and_leaves_the_address() -> None:
    path = parse_path("<@a.org,@b.net:joe@c.com>", S, STRICT)
    assert isinstance(path, Path)
    assert (path.text, path.address, path.mailbox, path.domain) == ("<@a.org,@b.net:joe@c.com>", "joe@c.com", "joe", "c.com")


REFUSED = [
    ("<<a@b.net>>", S, STRICT, IMBALANCED),
    ("<<>>", S, STRICT, IMBALANCED),
    ("<<<a>>>", R, LOOSE, IMBALANCED),
    ("<a@b.net", S, STRICT, IMBALANCED),
    ("a@b.net>", S, STRICT, IMBALANCED),
    ("<a@b.net>>", R, STRICT, IMBALANCED),
    ("><", R, STRICT, IMBALANCED),
    ("<a@b.net><c@d.net>", R, STRICT, IMBALANCED),
    ('<"a@b.net>', S, STRICT, IMBALANCED),
    ("<a@b.net\\>", S, STRICT, IMBALANCED),
    ("", R, STRICT, NOT_2821),
    ("<a@b.net>x", R, STRICT, NOT_2821),
    ("Joe <a@b.net>", R, STRICT, NOT_2821),
    ("< >", S, STRICT, S_LOCAL),
    ("< a@b.net>", S, STRICT, S_LOCAL),
    ("< a@b.net>", R, STRICT, R_LOCAL),
    ("<a@b.net >", R, STRICT, R_DOMAIN),
    ("<@a.org>", S, STRICT, ROUTE),
    ("<@a.org:>", S, STRICT, ROUTE),
    ("<@:a@b.net>", S, STRICT, ROUTE),
    ("<@>", R, STRICT, ROUTE),
    ("<@a.org,b.net:a@b.net>", R, STRICT, ROUTE),
    ("<@a..org:a@b.net>", R, STRICT, ROUTE),
    ("<.a@b.net>", S, STRICT, S_LOCAL),
    ("<a.@b.net>", S, STRICT, S_LOCAL),
    ("<a..b@b.net>", R, STRICT, R_LOCAL),
    ("<.@b.net>", R, STRICT, R_LOCAL),
    ('<"a"b@b.net>', R, STRICT, R_LOCAL),
    ('<a"b"@b.net>', R, STRICT, R_LOCAL),
    ('<"a#b"@b.net>', R, STRICT, R_LOCAL),
    ('<"a\tb"@b.net>', R, STRICT, R_LOCAL),
    ('<"a\x00b"@b.net>', R, STRICT, R_LOCAL),
    ("<a\x00b@b.net>", R, STRICT, R_LOCAL),
    ("<a,b@b.net>", R, STRICT, R_LOCAL),
    ("<a(c)@b.net>", R, STRICT, R_LOCAL),
    ("<a:b@b.net>", R, STRICT, R_LOCAL),
    ("<a;b@b.net>", R, STRICT, R_LOCAL),
    ("<[a]@b.net>", R, STRICT, R_LOCAL),
    ("<a@>", S, STRICT, INCOMPLETE),
    ("<a@>", R, STRICT, R_DOMAIN),
    ("<a@>", S, LOOSE, S_DOMAIN),
    ("<a@localhost>", S, STRICT, INCOMPLETE),
    ("<a@.net>", S, STRICT, INCOMPLETE),
    ("<a@.net>", R, STRICT, R_DOMAIN),
    ("<a@b.net.>", S, STRICT, S_DOMAIN),
    ("<joe@x..com>", R, STRICT, R_DOMAIN),
    ("<joe@x.y..com>", S, STRICT, S_DOMAIN),
    ("<a@b@c.net>", S, STRICT, INCOMPLETE),
    ("<a@b@c.net>", R, STRICT, R_DOMAIN),
    ("<a@b.net@c.net>", S, STRICT, S_DOMAIN),
    ("<a@1.2.3.4>", R, STRICT, R_DOMAIN),
    ("<a@b.n_t>", R, STRICT, R_DOMAIN),
    ("<a@b.net,c@d.net>", R, STRICT, R_DOMAIN),
    ("<a@b!c.net>", R, STRICT, R_DOMAIN),
    ("<a@b.net\x00>", R, STRICT, R_DOMAIN),
    ("<a@b.net\n>", R, STRICT, R_DOMAIN),
    ("<a@[127.0.0.1>", R, STRICT, R_DOMAIN),
    ("<a@[127.0.0.256]>", R, STRICT, R_DOMAIN),
    ("<a@[1.2.3]>", S, STRICT, S_DOMAIN),
    ("<a@[::1]>", R, STRICT, R_DOMAIN),
    ("<a@[IPv6:1.2.3.4]>", R, STRICT, R_DOMAIN),
    ("<a@[IPv6:fe80::1%eth0]>", R, STRICT, R_DOMAIN),
    ("<a@[x-tag:data]>", R, STRICT, R_DOMAIN),
    ("<a@[192.0.2.1].net>", R, STRICT, R_DOMAIN),
    ("<a@" + "x" * 256 + ">", S, STRICT, LONG_DOMAIN),
    ("<a@" + "x." * 127 + "com>", R, STRICT, LONG_DOMAIN),
    ("<a@" + "x" * 64 + ".com>", R, PathRules(domain_length=True), LONG_DOMAIN),
    ("<" + "x" * 65 + "@b.net>", R, PathRules(local_length=True), LONG_LOCAL),
    ("<jörg@b.net>", R, STRICT, R_LOCAL),
    ("<a@bücher.example>", S, STRICT, INCOMPLETE),
    ("<a@bücher.example>", R, STRICT, R_DOMAIN),
    ("<a@b\u3002net>", R, UTF8, R_DOMAIN),
    ("<a@\u2488com.net>", R, UTF8, R_DOMAIN),
    ("<a@b\udcff.net>", R, UTF8, R_DOMAIN),
    ("<a\udcff@b.net>", R, UTF8, R_LOCAL),
]


@pytest.mark.parametrize(("text", "role", "rules", "error"), REFUSED)
def test_refused_with_its_error(text: str, role: Role, rules: PathRules, error: str) -> None:
    assert parse_path(text, role, rules) == PathError(text, error)


TAKEN = [
    # text, role, rules, mailbox, detail, domain, literal
    ("<a@b.net>", S, STRICT, "a", "", "b.net", ""),
    ("<A.B@EXAMPLE.Com>", R, STRICT, "a.b", "", "example.com", ""),
    ("a@b.net", S, LOOSE, "a", "", "b.net", ""),
    ("< a@b.net >", S, LOOSE, "a", "", "b.net", ""),
    ("a <b> c", R, LOOSE, "b", "", "", ""),
    ("Joe <a@b.net>", R, LOOSE, "a", "", "b.net", ""),
    ("<fred>", S, LOOSE, "fred", "", "", ""),
    ("<a@localhost>", R, STRICT, "a", "", "localhost", ""),
    ('<"<>"@x.org>', S, STRICT, '"<>"', "", "x.org", ""),
    ('<"joe"@x.org>', S, STRICT, "joe", "", "x.org", ""),
    ('<"j\\oe"@x.org>', S, STRICT, "joe", "", "x.org", ""),
    ("<j\\oe@x.org>", S, STRICT, "joe", "", "x.org", ""),
    ('<"a b"@x.org>', S, STRICT, '"a b"', "", "x.org", ""),
    ("<a\\ b@x.org>", S, STRICT, '"a b"', "", "x.org", ""),
    ('<"a@b"@x.org>', R, STRICT, '"a@b"', "", "x.org", ""),
    ("<a\\@b@x.org>", R, STRICT, '"a@b"', "", "x.org", ""),
    ('<"a\\"b\\\\"@x.org>', R, STRICT, '"a\\"b\\\\"', "", "x.org", ""),
    ('<".a"@x.org>', R, STRICT, '".a"', "", "x.org", ""),
    ('<""@x.org>', R, STRICT, '""', "", "x.org", ""),
    ('<"a b+c"@x.org>', R, STRICT, '"a b"', "c", "x.org", ""),
    ("<a+b+C@x.org>", R, STRICT, "a", "b+C", "x.org", ""),
    ("<+a@x.org>", R, STRICT, "+a", "", "x.org", ""),
    ("<a+@x.org>", R, STRICT, "a", "", "x.org", ""),
    ("<a%b@x.org>", R, STRICT, "a%b", "", "x.org", ""),
    ("<a!b!c@x.org>", R, STRICT, "a!b!c", "", "x.org", ""),
    ("<!#$%&'*-/=?^_`{|}~@x.org>", R, STRICT, "!#$%&'*-/=?^_`{|}~", "", "x.org", ""),
    ("<a@x_y.org>", R, STRICT, "a", "", "x_y.org", ""),
    ("<a@1.2.3.a4>", R, STRICT, "a", "", "1.2.3.a4", ""),
    ("<a@x.xn--p1ai>", S, STRICT, "a", "", "x.xn--p1ai", ""),
    ("<a@127.net>", S, STRICT, "a", "", "127.net", ""),
    ("<a@[192.0.2.1]>", S, STRICT, "a", "", "[192.0.2.1]", "192.0.2.1"),
    ("<a@[127.0.0.1]>", R, STRICT, "a", "", "[127.0.0.1]", "127.0.0.1"),
    ("<a@[IPv6:2001:DB8::1]>", S, STRICT, "a", "", "[ipv6:2001:db8::1]", "2001:db8::1"),
    ("<a@[ipv6:2001:db8:0:0:0:0:0:1]>", R, STRICT, "a", "", "[ipv6:2001:db8::1]", "2001:db8::1"),
    ("<a@[IPv6:::ffff:192.0.2.1]>", R, STRICT, "a", "", "[192.0.2.1]", "192.0.2.1"),
    ("<@[192.0.2.1]:a@b.net>", R, STRICT, "a", "", "b.net", ""),
    ("<@a,@b.c:postmaster>", R, STRICT, "postmaster", "", "", ""),
    ("<" + "x" * 300 + "@b.net>", R, STRICT, "x" * 300, "", "b.net", ""),
    ("<a@" + "x" * 64 + ".com>", R, STRICT, "a", "", "x" * 64 + ".com", ""),
    ("<" + "x" * 64 + "@b.net>", R, PathRules(local_length=True), "x" * 64, "", "b.net", ""),
    ("<jörg@b.net>", S, UTF8, "jörg", "", "b.net", ""),
    ("<JÖRG@b.net>", S, UTF8, "jörg", "", "b.net", ""),
    ("<jo\u0308rg@b.net>", S, UTF8, "jörg", "", "b.net", ""),
    ('<"jö rg"@b.net>', S, UTF8, '"jö rg"', "", "b.net", ""),
    ("<a@BÜCHER.example>", S, UTF8, "a", "", "xn--bcher-kva.example", ""),
    ("<a@пример.рф>", S, UTF8, "a", "", "xn--e1afmkfd.xn--p1ai", ""),
]


@pytest.mark.parametrize(("text", "role", "rules", "mailbox", "detail", "domain", "literal"), TAKEN)
def test_taken_apart(text: str, role: Role, rules: PathRules, mailbox: str, detail: str, domain: str, literal: str) -> None:
    path = parse_path(text, role, rules)
    assert isinstance(path, Path)
    assert path.text == text
    assert (path.mailbox, path.detail, path.domain, path.literal) == (mailbox, detail, domain, literal)
    assert path.address.startswith(path.local)


def test_a_label_and_u_label_are_one_key() -> None:
    assert domain_key("Bücher.Example") == domain_key("XN--BCHER-KVA.example") == "xn--bcher-kva.example"


ARGUMENTS = [
    ("FROM:<a@b.net>", "<a@b.net>", {}, False),
    ("from:<a@b.net>", "<a@b.net>", {}, False),
    ("FROM: <a@b.net>", "<a@b.net>", {}, True),
    ("FROM : <a@b.net>", "<a@b.net>", {}, True),
    ("FROM:\t<a@b.net>  ", "<a@b.net>", {}, True),
    ("FROM:<a@b.net> SIZE=10  body=8bitmime", "<a@b.net>", {"SIZE": "10", "BODY": "8bitmime"}, False),
    ("FROM:<a@b.net> SMTPUTF8 AUTH=<>", "<a@b.net>", {"SMTPUTF8": "", "AUTH": "<>"}, False),
    ("FROM:<a@b.net>SIZE=10", "<a@b.net>", {"SIZE": "10"}, False),
    ("FROM:<> SIZE=10", "<>", {"SIZE": "10"}, False),
    ('FROM:<"a> SIZE=1"@b.net> SIZE=2', '<"a> SIZE=1"@b.net>', {"SIZE": "2"}, False),
    ("FROM:<a\\>b@b.net> SIZE=2", "<a\\>b@b.net>", {"SIZE": "2"}, False),
    ("FROM:<a b@example.com> SIZE=2", "<a b@example.com>", {"SIZE": "2"}, False),
    ("FROM:a@b.net SIZE=2", "a@b.net", {"SIZE": "2"}, False),
    ("FROM:a@b.net AUTH=<>", "a@b.net", {"AUTH": "<>"}, False),
    ('FROM:"a b"@b.net SIZE=2', '"a b"@b.net', {"SIZE": "2"}, False),
    ("FROM:<a@b.net SIZE=2", "<a@b.net", {"SIZE": "2"}, False),
    ("FROM:<<a@b.net>> SIZE=2", "<<a@b.net>>", {"SIZE": "2"}, False),
    ("FROM:<a@b.net>>", "<a@b.net>>", {}, False),
    ("FROM:<<>>", "<<>>", {}, False),
    ("FROM:Joe Doe <a@b.net> SIZE=2", "Joe Doe <a@b.net>", {"SIZE": "2"}, False),
    ('FROM:<"a@b.net> SIZE=2', '<"a@b.net>', {"SIZE": "2"}, False),
    ("FROM:<@a.org,@b.net:joe@c.com>", "<@a.org,@b.net:joe@c.com>", {}, False),
]


@pytest.mark.parametrize(("line", "path", "parameters", "spaced"), ARGUMENTS)
def test_end_of_the_path_is_found_by_grammar(line: str, path: str, parameters: dict[str, str], spaced: bool) -> None:
    assert parse_mail_argument(line) == Argument(path, parameters, spaced)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("FROM", ArgumentFault.MISSING),
        ("<a@b.net>", ArgumentFault.MISSING),
        ("FROM:", ArgumentFault.MISSING),
        ("FROM: \t ", ArgumentFault.MISSING),
        ("TO:<a@b.net>", ArgumentFault.SYNTAX),
        ("FORM:<a@b.net>", ArgumentFault.SYNTAX),
        ("<a:b@c.net>", ArgumentFault.SYNTAX),
        ("FROM:<a@b.net> SIZE=1 size=2", ArgumentFault.SYNTAX),
    ],
)
def test_faulty_argument_names_its_reply(line: str, fault: ArgumentFault) -> None:
    assert parse_mail_argument(line) is fault


def test_rcpt_wants_to() -> None:
    assert parse_rcpt_argument("to:<a@b.net> NOTIFY=NEVER") == Argument("<a@b.net>", {"NOTIFY": "NEVER"}, False)
    assert parse_rcpt_argument("FROM:<a@b.net>") is ArgumentFault.SYNTAX


ODD = st.text(alphabet='<>"\\@.,:;[]()+ \tab#IPv6:12ö\udc80\x00=', max_size=60)


@given(ODD, st.sampled_from([S, R]), st.sampled_from([STRICT, LOOSE, UTF8, PathRules(angle_brackets=False, utf8=True)]))
def test_any_text_gives_a_path_or_an_error(text: str, role: Role, rules: PathRules) -> None:
    path = parse_path(text, role, rules)
    if isinstance(path, Path):
        again = parse_path(f"<{path.address}>", role, rules)
        assert isinstance(again, Path)
        assert (again.address, again.mailbox, again.domain) == (path.address, path.mailbox, path.domain)
        assert path.domain.isascii()
        assert not any(ord(octet) < 32 for octet in path.address)


@given(ODD)
def test_any_argument_is_taken_or_faulted(text: str) -> None:
    parsed = parse_mail_argument("FROM:" + text)
    if isinstance(parsed, Argument):
        assert parsed.path and parsed.path in text


@pytest.mark.parametrize("unit", ["<", ">", '"', "\\", "a.", '\\"', "@a,", " <", "a@"])
def test_time_is_linear_in_the_length(unit: str) -> None:
    text = unit * 200_000
    begin = time.process_time()
    parse_mail_argument("FROM:<" + text)
    parse_path("<" + text + ">", S, STRICT)
    assert time.process_time() - begin < 2.0
