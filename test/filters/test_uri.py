"""Links in messages and names of the envelope, held against lists and the DNS, as clients and postmasters see it."""

from __future__ import annotations

from pathlib import Path

import pytest

from smtpf.filters import uri, uri_envelope, uri_hosts, uri_links, uri_lists
from smtpf.filters.postponing import AUTH_DELAY_CHECKS
from smtpf.message.spool import SAVE_DIR
from smtpf.smtp.slots import SMTP_DELAY_CHECKS
from test.support.talk import Client, Talk, codes

ROUTE = "route:hill.org FORWARD: 192.0.2.1"
ZONE = """
spamdom.com.multi.lists.net A 127.0.0.2
invalid.multi.lists.net NXDOMAIN NXDOMAIN
"""
LIST = {uri_lists.URI_BL: "multi.lists.net"}


def node(options: dict[object, str] | None = None, zone: str = "", access: str = "") -> Talk:
    talk = Talk(options, access=access, route=ROUTE, zone=ZONE + zone)
    talk.hop("192.0.2.1")
    return talk


def recipient(talk: Talk) -> Client:
    client = talk.greeted(name="mail.kestrel.net")
    client.say("MAIL FROM:<ada@kestrel.net>")
    client.say("RCPT TO:<ann@hill.org>")
    return client


def sent(talk: Talk, body: str, headers: str = "Subject: boat\r\n") -> str:
    return recipient(talk).message(f"{headers}\r\n{body}\r\n")[-1]


@pytest.mark.parametrize(
    ("options", "access", "body", "reply", "number"),
    [
        (LIST, "", "http://www.spamdom.com/", "rejected content, black listed www.spamdom.com by multi.lists.net #762 #895 ", 523),
        ({}, "body:rejdom.com REJECT", "http://x.rejdom.com/", "rejected content, URI x.rejdom.com black listed #763 #895 ", 0),
        ({}, 'body:bad@mail.com "REJECT:no mail.com"', "bad@mail.com", "rejected content, URI bad@mail.com no mail.com #763 #895 ", 0),
        (
            {uri.URI_REQUIRE_DOMAIN: "+"}, "", "http://198.51.100.1/x",
            'rejected content, host is an IP in URL "http://198.51.100.1/x" #765 #895 ', 0,
        ),
        (
            {**LIST, uri_lists.URI_CITE_LIST: "-"}, "", "http://www.spamdom.com/",
            "rejected content, black listed www.spamdom.com #762 #895 ", 523,
        ),
    ],
)  # fmt: skip
def test_worked_examples(options: dict[object, str], access: str, body: str, reply: str, number: int) -> None:
    talk = node(options, access=access)
    assert sent(talk, body).startswith("550 5.7.1 " + reply)
    if number:
        assert talk.logged(number) == ["uri-bl found www.spamdom.com multi.lists.net"]


def test_white_listed_host_is_not_asked_about() -> None:
    talk = node(LIST, access="body:spamdom.com OK")
    assert sent(talk, "http://www.spamdom.com/").startswith("250")
    assert talk.logged(764) == ["URI <www.spamdom.com> white listed"]


def test_white_listed_redirector_does_not_hide_its_target() -> None:
    talk = node(LIST, access="body:gooddom.com OK")
    assert codes([sent(talk, "http://go.gooddom.com/?to=http://www.spamdom.com/x")]) == ["550 #895"]


def test_discard_says_that_the_message_was_taken_and_logs_why() -> None:
    talk = node({**LIST, uri_lists.URI_BL_POLICY: "discard"})
    assert codes([sent(talk, "http://www.spamdom.com/")]) == ["250 #554"]
    assert talk.logged(785) == ["discarded: black listed www.spamdom.com by multi.lists.net #762"]


def test_none_asks_no_list_but_keeps_the_other_tests() -> None:
    options = {**LIST, uri_lists.URI_BL_POLICY: "none", uri.URI_REQUIRE_DOMAIN: "+"}
    talk = node(options)
    assert sent(talk, "http://www.spamdom.com/").startswith("250")
    assert not [name for name, _ in talk.resolver.asked if "multi.lists" in name]
    assert codes([sent(node(options), "http://198.51.100.1/x")]) == ["550 #895"]


def test_a_second_message_of_the_session_hears_the_same() -> None:
    client = recipient(node(LIST))
    for _ in range(2):
        assert codes(client.message("Subject: x\r\n\r\nhttp://www.spamdom.com/\r\n"))[-1] == "550 #895"
        client.say("MAIL FROM:<ada@kestrel.net>")
        client.say("RCPT TO:<ann@hill.org>")


def test_more_links_than_the_limit_are_not_tested() -> None:
    talk = node({**LIST, uri.URI_MAX_TEST: "2"})
    assert sent(talk, "http://one.com/ http://two.com/ http://spamdom.com/").startswith("250")
    assert talk.counted(uri.MAX_TEST) == 1
    assert "spamdom.com.multi.lists.net" not in [name for name, _ in talk.resolver.asked]


def test_the_first_listed_link_decides_however_the_answers_come() -> None:
    zone = "slow.com.multi.lists.net A 127.0.0.2\nslow.com.multi.lists.net A DELAY 3"
    talk = node(LIST, zone)
    client = recipient(talk)
    assert codes(client.message("Subject: x\r\n\r\nhttp://slow.com/ http://spamdom.com/\r\n")) == []
    talk.net.pass_time(4)
    assert "black listed slow.com by" in client.take()[-1]
    assert len(talk.logged(523)) == 1


def test_a_bare_domain_is_flagged() -> None:
    talk = node(LIST)
    assert codes([sent(talk, "visit www.spamdom.com.")]) == ["550 #895"]
    assert talk.counted(uri.IMPLICIT) == 1
    assert 'uri_bl,uri_implicit,policy"' in talk.logged(720)[0]


def test_sub_domains_are_asked_about_from_the_registered_one_down() -> None:
    talk = node({**LIST, uri_lists.URI_SUB_DOMAINS: "+"}, "b.spam.goodhost.com.multi.lists.net A 127.0.0.2")
    assert codes([sent(talk, "http://a.b.spam.goodhost.com/")]) == ["550 #895"]
    asked = [name.removesuffix(".multi.lists.net") for name, _ in talk.resolver.asked if name.endswith("goodhost.com.multi.lists.net")]
    assert asked == ["goodhost.com", "spam.goodhost.com", "b.spam.goodhost.com"]


def test_domain_bl_is_asked_once_about_the_whole_name() -> None:
    talk = node({uri_lists.DOMAIN_BL: "dbl.lists.net"}, "www.x.com.dbl.lists.net A 127.0.1.2")
    assert codes([sent(talk, "http://www.x.com/")]) == ["550 #895"]
    assert talk.counted(uri.DOMAIN_BL_HIT) == 1


@pytest.mark.parametrize(("address", "refused"), [("45.76.10.30", True), ("10.1.2.3", False), ("127.0.0.9", False), ("0.1.2.3", False)])
def test_uri_dns_bl_asks_about_public_addresses(address: str, refused: bool) -> None:
    backwards = ".".join(reversed(address.split(".")))
    talk = node({uri_lists.URI_DNS_BL: "bl.lists.net"}, f"www.bread.org A {address}\n{backwards}.bl.lists.net A 127.0.0.2")
    assert sent(talk, "http://www.bread.org/").startswith("550" if refused else "250")


def test_name_servers_of_a_link() -> None:
    zone = "www.x.com A 45.76.1.1\nx.com NS ns1.badns.net\nbadns.net.ns.lists.net A 127.0.0.2\nwww.x.com NS NXDOMAIN"
    talk = node({uri_lists.NS_BL: "ns.lists.net"}, zone)
    assert sent(talk, "http://www.x.com/").startswith("550 5.7.1 rejected URI NS, black listed www.x.com by ns.lists.net #762 #894 ")
    assert talk.logged(523) == ["ns-bl found ns1.badns.net ns.lists.net"]
    zone = "x.com NS ns1.badns.net\nns1.badns.net A 45.76.1.9\n9.1.76.45.ns.lists.net A 127.0.0.2"
    talk = node({uri_lists.NS_A_BL: "ns.lists.net"}, zone)
    assert codes([sent(talk, "http://x.com/")]) == ["550 #894"]
    assert talk.logged(523) == ["ns-a-bl found 45.76.1.9 ns.lists.net"]


def test_name_servers_of_the_domain_count_for_a_host_that_has_none_of_its_own() -> None:
    zone = "www.x.com A 45.76.1.1\nx.com NS ns1.badns.net\nbadns.net.ns.lists.net A 127.0.0.2"
    assert codes([sent(node({uri_lists.NS_BL: "ns.lists.net"}, zone), "http://www.x.com/")]) == ["550 #894"]


@pytest.mark.parametrize(
    ("option", "value", "zone", "text"),
    [
        (uri_hosts.URI_REJECT_ON_TIMEOUT, "+", "www.x.com * SERVFAIL", "URI domain www.x.com lookup timeout #744"),
        (uri_hosts.URI_REJECT_UNKNOWN, "+", "", "URI domain www.x.com does not exist (NXDOMAIN) #745"),
        (uri_hosts.URI_REJECT_UNKNOWN, "+", "www.x.com MX 5 a.b.com", "URI domain www.x.com does not exist (NODATA) #745"),
        (
            uri_hosts.URI_IP_IN_NAME, "+",
            "www.x.com CNAME c-45-76-1-2.isp.net\nc-45-76-1-2.isp.net A 45.76.1.2\nc-45-76-1-2.isp.net A 45.76.1.3",
            "URI host www.x.com contains IP 45.76.1.2 in c-45-76-1-2.isp.net #746",
        ),
        (uri_hosts.URI_REQUIRE_PTR, "2", "www.x.com A 45.76.1.2\nwww.x.com A 45.76.1.3", "URL host www.x.com is missing a PTR #748"),
        (
            uri_hosts.URI_IP_IN_PTR, "1", "www.x.com A 45.76.1.2\n2.1.76.45.in-addr.arpa PTR c-45-76-1-2.isp.net",
            "URI host www.x.com has IP 45.76.1.2 in PTR c-45-76-1-2.isp.net #747",
        ),
        (uri_hosts.URI_NS_NXDOMAIN, "+", "www.x.com A 45.76.1.2", "URI host www.x.com in non-existant domain #740"),
        (
            uri_hosts.URI_NS_NXDOMAIN, "+", "www.x.com A 45.76.1.2\nx.com SOA ns.x.com h.x.com 1\nx.com NS ns.gone.net",
            "URI domain x.com where NS ns.gone.net in non-existant domain #743",
        ),
        (
            uri_hosts.URI_IP_IN_NS, "+", "x.com NS c-45-76-1-2.isp.net\nc-45-76-1-2.isp.net A 45.76.1.2",
            "URI domain x.com where NS c-45-76-1-2.isp.net contains IP 45.76.1.2 in name #741",
        ),
        (uri_hosts.URI_VALID_SOA, "1", "", "URI www.x.com invalid SOA (2) #973"),
        (uri_hosts.URI_VALID_SOA, "1", "x.com SOA primary h.x.com 1", "URI www.x.com invalid SOA (7) #973"),
    ],
)  # fmt: skip
def test_tests_by_the_dns(option: object, value: str, zone: str, text: str) -> None:
    talk = node({option: value}, zone)
    assert f"rejected content, {text} #895 " in sent(talk, "http://www.x.com/")


def test_a_copy_is_kept_of_a_message_with_a_bad_start_of_authority(tmp_path: Path) -> None:
    talk = node({uri_hosts.URI_VALID_SOA: "2", SAVE_DIR: str(tmp_path)}, "x.com SOA primary h.x.com 1")
    assert codes([sent(talk, "http://www.x.com/")]) == ["550 #895"]
    assert len(list(tmp_path.glob("*.msg"))) == 1


@pytest.mark.parametrize(
    ("options", "zone"),
    [
        ({uri_hosts.URI_REJECT_UNKNOWN: "+"}, "www.x.com * SERVFAIL"),
        ({uri_hosts.URI_REJECT_ON_TIMEOUT: "+"}, ""),
        ({uri_hosts.URI_REQUIRE_PTR: "2"}, "www.x.com A 45.76.1.2"),
        ({uri_hosts.URI_IP_IN_NAME: "+"}, "www.x.com A 45.76.1.2"),
        ({uri_hosts.URI_VALID_SOA: "1"}, "x.com * SERVFAIL"),
        ({uri_hosts.URI_VALID_SOA: "1"}, "x.com SOA ns.x.com host.x.com 1"),
    ],
)
def test_what_the_dns_tests_let_pass(options: dict[object, str], zone: str) -> None:
    assert sent(node(options, zone), "http://www.x.com/").startswith("250")


def test_links_in_headers_are_tested_where_the_option_says() -> None:
    headers = "X-Link: see http://www.spamdom.com/\r\nSubject: boat\r\n"
    assert sent(node(LIST), "words", headers).startswith("250")
    assert codes([sent(node({**LIST, uri.URI_BL_HEADERS: "X-Link"}), "words", headers)]) == ["550 #895"]


# The envelope

AT_ONCE = {SMTP_DELAY_CHECKS: "-"}


def test_client_name() -> None:
    zone = "7.2.0.192.in-addr.arpa PTR mail.spamdom.com\nmail.spamdom.com A 192.0.2.7"
    talk = node({**LIST, **AT_ONCE, uri_envelope.URI_BL_PTR: "+"}, zone)
    client = talk.connect()
    assert client.banner[-1].startswith(
        "550 5.7.1 rejected client mail.spamdom.com [192.0.2.7], black listed mail.spamdom.com by multi.lists.net #762 #790 "
    )
    assert talk.counted(uri_envelope.PTR_HIT) == 1


def test_helo() -> None:
    talk = node({**LIST, **AT_ONCE, uri_envelope.URI_BL_HELO: "+"})
    client = talk.connect()
    assert "rejected HELO, black listed mx.spamdom.com by multi.lists.net #762 #792 " in client.say("EHLO mx.spamdom.com")[-1]
    assert client.gone


def test_helo_is_judged_at_mail_when_the_client_shall_have_time_to_authenticate() -> None:
    talk = node({**LIST, **AT_ONCE, uri_envelope.URI_BL_HELO: "+", AUTH_DELAY_CHECKS: "+"})
    client = talk.connect()
    assert client.say("EHLO mx.spamdom.com")[-1].startswith("250")
    assert codes(client.say("MAIL FROM:<ada@kestrel.net>")) == ["550 #792"]


def test_sender() -> None:
    talk = node({**LIST, **AT_ONCE, uri_envelope.URI_BL_MAIL: "+"})
    assert codes(talk.greeted(name="mail.kestrel.net").say("MAIL FROM:<x@spamdom.com>")) == ["550 #794"]
    talk = node(
        {**AT_ONCE, uri_envelope.URI_BL_MAIL: "+", uri_lists.NS_BL: "ns.lists.net"}, "x.com NS ns.bad.net\nbad.net.ns.lists.net A 127.0.0.2"
    )
    assert codes(talk.greeted(name="mail.kestrel.net").say("MAIL FROM:<x@x.com>")) == ["550 #900"]


def test_body_entries_speak_about_envelope_names() -> None:
    talk = node({**LIST, **AT_ONCE, uri_envelope.URI_BL_MAIL: "+"}, access="body:spamdom.com OK\nbody:x.com REJECT")
    client = talk.greeted(name="mail.kestrel.net")
    assert codes(client.say("MAIL FROM:<x@spamdom.com>")) == ["250 #283"]
    assert talk.logged(769) == ["URI <spamdom.com> white listed"]
    client.say("RSET")
    assert "rejected MAIL FROM, URI x.com black listed #763 #794 " in client.say("MAIL FROM:<x@x.com>")[-1]


@pytest.mark.parametrize(
    ("host", "names"),
    [
        ("a.b.spam.example.com", ("example.com", "spam.example.com", "b.spam.example.com", "a.b.spam.example.com")),
        ("example.com", ("example.com",)),
        (".".join("abcdefghijklmnopqrstuvwxyz") + ".example.com", None),
    ],
)
def test_names_upwards(host: str, names: tuple[str, ...] | None) -> None:
    found = uri_lists.names_upwards(host, "example.com")
    if names is None:
        assert len(found) == uri_lists.MAX_LONGER_NAMES and found[-1] == host
    else:
        assert found == names


# Links followed


def web(talk: Talk, host: str, answers: dict[str, bytes], port: int = 80) -> list[str]:
    """A web server in the talk's network; the request lines it hears."""
    from twisted.internet.protocol import Protocol

    heard: list[str] = []

    class Server(Protocol):
        def dataReceived(self, data: bytes) -> None:
            heard.append(data.decode())
            self.transport.write(answers[data.split(b" ")[1].decode()])

    talk.net.listen(host, port, Server)
    return heard


FOLLOW = {uri_links.URI_LINKS_POLICY: "reject"}
REDIRECT = b"HTTP/1.1 302 Found\r\nLocation: %s\r\n\r\n"
HOSTS = "go.x.com A 45.76.1.2\nwww.spamdom.com A 45.76.1.3"


def test_a_redirection_is_followed_to_its_listed_end() -> None:
    talk = node({**LIST, **FOLLOW}, HOSTS)
    heard = web(talk, "45.76.1.2", {"/a": REDIRECT % b"http://www.spamdom.com/b?c=d"})
    web(talk, "45.76.1.3", {"/b?c=d": b"HTTP/1.1 200 OK\r\n\r\n"})
    assert "black listed www.spamdom.com by" in sent(talk, "http://go.x.com/a?secret=1")
    assert heard[0].startswith("HEAD /a HTTP/1.1\r\nHost: go.x.com\r\n") and "secret" not in heard[0]


def test_a_circle_is_a_broken_link() -> None:
    talk = node(FOLLOW, HOSTS)
    web(talk, "45.76.1.2", {"/a": REDIRECT % b"/b", "/b": REDIRECT % b"http://GO.x.com/a"})
    assert 'rejected content, broken URL "http://go.x.com/a": HTTP redirection loop #766 #895' in sent(talk, "http://go.x.com/a")


def test_a_silent_web_server_costs_ten_seconds_at_most() -> None:
    talk = node(FOLLOW, HOSTS)
    web(talk, "45.76.1.2", {"/": b""})
    client = recipient(talk)
    assert codes(client.message("Subject: x\r\n\r\nhttp://go.x.com/\r\n")) == []
    talk.net.pass_time(11)
    assert codes(client.take()) == ["250 #554"]


def test_an_endless_chain_ends() -> None:
    talk = node(FOLLOW, HOSTS)
    heard = web(talk, "45.76.1.2", {f"/{n}": REDIRECT % f"/{n + 1}".encode() for n in range(50)})
    assert sent(talk, "http://go.x.com/0").startswith("250")
    assert len(heard) == uri_links.MAX_REDIRECTS + 1
