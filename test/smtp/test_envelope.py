"""MAIL and RCPT (chapter session, 3.5 to 3.7 and 6), and the routes of chapter maps, 26.5, that need a session."""

from __future__ import annotations

import pytest

from smtpf.smtp import counters
from test.support.talk import Client, Talk, codes

ROUTES = """\
route:127.0.0.1         FORWARD: 127.0.0.1:26; RELAY
route:10.0.0.1          RELAY
route:192.168.0         RELAY
route:2001:db8          RELAY
route:example.com       FORWARD: 192.168.1.2; RELAY
route:example.org       FORWARD: 192.0.2.1
route:info@example.org  FORWARD: 192.0.2.2
route:abuse@            FORWARD: 192.0.2.9:2525
route:example.net       FORWARD: 192.0.2.3, 192.0.2.4; RCPT: 192.168.1.2
route:v6.example        FORWARD: [2001:db8::1]:26, 2001:db8::2 192.0.2.5:8025
"""
FOREIGN = "203.0.113.9"


def named(client: str, name: str, forward: str = "") -> str:
    reverse = ".".join(reversed(client.split(".")))
    return f"{reverse}.in-addr.arpa PTR {name}\n{name} A {forward or client}\n"


def rcpt(talk: Talk, client: str, recipient: str, sender: str = "x@foreign.example") -> tuple[Client, list[str]]:
    connected = talk.greeted(client, "client.example.edu")
    assert codes(connected.say(f"MAIL FROM:<{sender}>")) == ["250 #283"]
    return connected, connected.say(f"RCPT TO:<{recipient}>")


# 3.7, through the wire


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("MAIL FROM:<>", "250 2.1.0 sender <> accepted #283"),
        ("MAIL FROM:<fred>", "553 5.1.7 address incomplete, sender <fred> #279"),
        (
            "MAIL FROM:fred@example.com",
            "553 5.1.0 address does not conform to RFC 2821 syntax, sender fred@example.com #279",
        ),
        ("MAIL FROM:<a b@example.com>", "553 5.1.7 invalid local part, sender <a b@example.com> #279"),
        ("MAIL FROM:<@a.org,@b.net:joe@c.com>", "250 2.1.0 sender <joe@c.com> accepted #283"),
        ("MAIL FROM:<joe@x..com>", "553 5.1.7 address incomplete, sender <joe@x..com> #279"),
        ("MAIL FROM:<<joe@x.com>>", "553 5.1.0 imbalanced angle brackets in path, sender <<joe@x.com>> #279"),
        ("MAIL TO:<joe@x.com>", "501 5.5.2 syntax error #280"),
        ("mail from:<joe@x.com>", "250 2.1.0 sender <joe@x.com> accepted #283"),
        ("MAIL FROM:<joe@x.com> FOO=1", "555 5.5.4 invalid or unsupported parameters #1016"),
        ("MAIL FROM:<joe@x.com> RET=HDRS", "555 5.5.4 invalid or unsupported parameters #1016"),
        ("MAIL FROM:<joe@x.com> ENVID=1", "555 5.5.4 invalid or unsupported parameters #1016"),
        ("MAIL FROM:<joe@x.com> BODY=BINARYMIME", "555 5.5.4 invalid or unsupported parameters #1016"),
        ("MAIL FROM:<joe@x.com> BODY=9BIT", "555 5.5.4 invalid or unsupported parameters #1016"),
        ("MAIL FROM:<joe@x.com> BODY=8BITMIME SIZE=100 AUTH=<>", "250 2.1.0 sender <joe@x.com> accepted #283"),
        ("MAIL FROM:<joe@x.com> SIZE=1 SIZE=2", "501 5.5.2 syntax error #280"),
    ],
)
def test_mail(line: str, answer: str) -> None:
    talk = Talk()
    client = talk.greeted(name="client.example.edu")
    (heard,) = client.say(line)
    assert heard.startswith(answer + " ")
    number = answer.rpartition("#")[2]
    assert len(talk.logged(717)) == (0 if number == "280" else 1)


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("RCPT TO:<>", "550 5.7.1 null recipient invalid #286"),
        ("RCPT TO:<<>>", "553 5.1.0 imbalanced angle brackets in path, recipient <<>> #284"),
        ("RCPT TO:<a b@example.com>", "553 5.1.3 invalid local part, recipient <a b@example.com> #284"),
        ("RCPT FROM:<a@example.com>", "501 5.5.2 syntax error #285"),
        ("RCPT TO:<a@example.com> NOTIFY=NEVER", "555 5.5.4 invalid or unsupported parameters #1017"),
        ("RCPT TO:<a@example.com> ORCPT=rfc822;x", "555 5.5.4 invalid or unsupported parameters #1017"),
        ("RCPT TO:<a%b@example.com>", "550 5.7.1 routed address relaying denied #131"),
        ("RCPT TO:<a!b@example.com>", "550 5.7.1 UUCP addressing denied #132"),
        ('RCPT TO:<"a@b"@example.com>', "550 5.7.1 special case of at-sign in local-part denied #133"),
    ],
)
def test_refused_recipients(line: str, answer: str) -> None:
    talk = Talk(route=ROUTES)
    hop = talk.hop("192.168.1.2")
    client = talk.greeted(name="client.example.edu")
    client.say("MAIL FROM:<joe@x.com>")
    (heard,) = client.say(line)
    assert heard.startswith(answer + " ")
    assert hop.lines == []
    assert codes(client.say("DATA")) == ["503 #251"]
    assert codes(client.say("RCPT TO:<ann@example.com>")) == ["250 #297"]


@pytest.mark.parametrize(("option", "auth", "code"), [("-", False, "250 #283"), ("+", False, "501 #280"), ("+", True, "250 #283")])
def test_blanks_before_the_path(option: str, auth: bool, code: str) -> None:
    talk = Talk({"rfc2821-extra-spaces": option}, access="connect:192.0.2.7 OK\n" if auth else "", route=ROUTES)
    talk.hop("192.168.1.2")
    client = talk.greeted(name="client.example.edu")
    assert codes(client.say("MAIL FROM: <joe@x.com>")) == [code]
    assert 'f="extra_spaces"' in talk.logged(717)[0]
    client.say("MAIL FROM:<joe@x.com>")
    assert codes(client.say("RCPT TO: <ann@example.com>")) == ["250 #297" if code[0] == "2" else "501 #285"]
    assert "extra_spaces" in talk.logged(718)[0]


def test_one_domain_per_session() -> None:
    talk = Talk({"one-domain-per-session": "+"})
    client = talk.greeted(name="client.example.edu")
    for line in ("MAIL FROM:<joe@example.org>", "RSET", "MAIL FROM:<ann@EXAMPLE.org>", "RSET"):
        assert codes(client.say(line))[0].startswith("250")
    (line,) = client.say("MAIL FROM:<joe@other.net>")
    assert line.startswith("450 4.7.1 more than one sender <joe@other.net> domain per session; domain=example.org #944 ")
    assert talk.counted(counters.ONE_DOMAIN) == 1


def test_bounces_are_of_no_domain() -> None:
    talk = Talk({"one-domain-per-session": "+"})
    client = talk.greeted(name="client.example.edu")
    for path in ("<>", "<joe@example.org>", "<>", "<ann@example.org>"):
        assert codes(client.say(f"MAIL FROM:{path}")) == ["250 #283"]
        client.say("RSET")
    assert codes(client.say("MAIL FROM:<joe@other.net>")) == ["450 #944"]


def test_known_clients_send_for_several_domains() -> None:
    talk = Talk({"one-domain-per-session": "+"}, access="connect:192.0.2.7 OK\n")
    client = talk.greeted(name="client.example.edu")
    for line in ("MAIL FROM:<joe@example.org>", "RSET", "MAIL FROM:<joe@other.net>"):
        assert codes(client.say(line))[0].startswith("250")


def test_parameters_after_helo() -> None:
    talk = Talk(route=ROUTES)
    client = talk.connect()
    client.say("HELO client.example.edu")
    assert codes(client.say("MAIL FROM:<joe@x.com> SIZE=100")) == ["555 #1016"]
    client.say("MAIL FROM:<joe@x.com>")
    assert codes(client.say("RCPT TO:<ann@example.com> X=Y")) == ["555 #1017"]


def test_a_transaction_has_at_most_a_thousand_recipients() -> None:
    talk = Talk(route=ROUTES)
    hop = talk.hop("192.168.1.2")
    client = talk.greeted(name="client.example.edu")
    client.say("MAIL FROM:<joe@x.com>")
    group = b"".join(b"RCPT TO:<u%d@example.com>\r\n" % count for count in range(1003))
    heard: list[str] = []
    for start in range(0, len(group), 60000):
        heard += client.send(group[start : start + 60000])
    assert codes(heard) == ["250 #297"] * 1000 + ["452 #1147"] * 3
    assert len(hop.verbs) == 1002


# 6.2 and 6.4


def test_a_recipient_refused_by_the_next_hop_leaves_the_connection_open() -> None:
    talk = Talk(route=ROUTES)
    hop = talk.hop("192.168.1.2", RCPT=[b"550 5.1.1 no such user\r\n", b"250 ok\r\n"])
    client, answer = rcpt(talk, FOREIGN, "a@example.com")
    assert answer[0].startswith("550 5.1.1 recipient <a@example.com> denied #300 ")
    assert codes(client.say("RCPT TO:<b@example.com>")) == ["250 #297"]
    assert len(hop.sessions) == 1


def test_relay_reply_tells_the_words_of_the_next_hop() -> None:
    talk = Talk({"relay-reply": "+"}, route=ROUTES)
    talk.hop("192.168.1.2", RCPT=b"550 5.1.1 No such user\r\n")
    _, answer = rcpt(talk, FOREIGN, "a@example.com")
    assert answer[0].startswith("550 5.1.1 No such user #299 ")


def test_a_connection_lost_after_it_has_recipients_is_no_stale_text() -> None:
    talk = Talk(route=ROUTES)
    hop = talk.hop("192.168.1.2")
    client, answer = rcpt(talk, FOREIGN, "a@example.com")
    assert codes(answer) == ["250 #297"]
    hop.sessions[0].transport.loseConnection()
    talk.net.pump()
    (line,) = client.say("RCPT TO:<b@example.com>")
    assert line.startswith("451 4.4.2 recipient <b@example.com> denied #300 ")
    assert codes(client.message()) == ["451 #307"]


# maps 26.5


@pytest.mark.parametrize(
    ("number", "client", "zone", "relay"),
    [
        ("R1", "10.0.0.1", "", True),
        ("R2", "10.0.0.12", "", False),
        ("R3", "192.168.0.77", "", True),
        ("R4", "203.0.113.1", named("203.0.113.1", "mail.example.com"), True),
        ("R5", "203.0.113.1", named("203.0.113.1", "mail.example.com", "203.0.113.3"), False),
        ("R6", "203.0.113.2", named("203.0.113.2", "mx.example.org"), False),
        ("R7", "127.0.0.1", "", True),
        ("R8", "2001:db8::5", "", True),
    ],
)
def test_who_is_a_relay(number: str, client: str, zone: str, relay: bool) -> None:
    talk = Talk(route=ROUTES, zone=zone)
    talk.connect(client)
    assert ('f="' in talk.logged(637)[0] and "relay" in talk.logged(637)[0]) is relay


@pytest.mark.parametrize(
    ("number", "recipient", "client", "host", "port"),
    [
        ("R9", "joe@example.org", FOREIGN, "192.0.2.1", 25),
        ("R10", "Info@Example.ORG", FOREIGN, "192.0.2.2", 25),
        ("R11", "info+x@example.org", FOREIGN, "192.0.2.1", 25),
        ("R12", "joe@sub.example.org", FOREIGN, "192.0.2.1", 25),
        ("R13", "abuse@other.example", FOREIGN, "192.0.2.9", 2525),
        ("R14", "abuse@example.org", FOREIGN, "192.0.2.1", 25),
        ("R16", "joe@other.example", "10.0.0.1", "127.0.0.1", 26),
        ("R17", "joe@example.org", "10.0.0.1", "127.0.0.1", 26),
        ("R18", "postmaster", FOREIGN, "127.0.0.1", 26),
        ("R19", "joe@v6.example", FOREIGN, "2001:db8::1", 26),
    ],
)
def test_where_a_recipient_goes(number: str, recipient: str, client: str, host: str, port: int) -> None:
    talk = Talk(route=ROUTES)
    places = [("192.0.2.1", 25), ("192.0.2.2", 25), ("192.0.2.9", 2525), ("127.0.0.1", 26), ("192.168.1.2", 25), ("2001:db8::1", 26)]
    hops = {place: talk.hop(*place) for place in places}
    _, answer = rcpt(talk, client, recipient)
    assert codes(answer) == ["250 #297"]
    assert [place for place, hop in hops.items() if hop.lines] == [(host, port)]
    assert hops[host, port].lines[-1] == f"RCPT TO:<{recipient}>"
    assert len(talk.logged(294)) == (port == 26 and host == "127.0.0.1")


def test_r19_hosts_are_tried_in_order() -> None:
    talk = Talk(route=ROUTES)
    last = talk.hop("192.0.2.5", 8025)
    _, answer = rcpt(talk, FOREIGN, "joe@v6.example")
    assert codes(answer) == ["250 #297"]
    assert last.lines
    second = talk.hop("2001:db8::2", 25)
    rcpt(talk, FOREIGN, "joe@v6.example")
    assert second.lines


def test_r15_no_route_is_relaying() -> None:
    _, answer = rcpt(Talk(route=ROUTES), FOREIGN, "joe@other.example")
    assert codes(answer) == ["550 #288"]


@pytest.mark.parametrize(
    ("number", "sender", "code"),
    [("R21", "x@foreign.example", "550 #288"), ("R22", "x@example.com", "250 #297"), ("R23", "", "250 #297")],
)
def test_strict_relay(number: str, sender: str, code: str) -> None:
    talk = Talk({"smtp-strict-relay": "+"}, route=ROUTES)
    talk.hop("127.0.0.1", 26)
    _, answer = rcpt(talk, "10.0.0.1", "joe@other.example", sender)
    assert codes(answer) == [code]
    assert talk.logged(570) == (["smtp-strict-relay client  [10.0.0.1] sender <x@foreign.example> denied"] if number == "R21" else [])


def test_r24_r25_an_unknown_recipient_is_remembered() -> None:
    talk = Talk(route=ROUTES)
    hop = talk.hop("192.168.1.2", RCPT=b"550 5.1.1 unknown\r\n")
    for count in (1, 1):
        _, answer = rcpt(talk, FOREIGN, "ann@example.net")
        assert answer[0].startswith("550 5.7.1 recipient <ann@example.net> unknown #292 ")
        assert len(talk.logged(558)) == count
        assert len(hop.sessions) == 1
    assert " rc=5 " in talk.logged(558)[0]


@pytest.mark.parametrize(
    ("number", "routes", "message"),
    [
        ("R31", "route:10.0.0.1 RELAY\n", 566),
        ("R32", "route:127.0.0.1 RELAY\nroute:10.0.0.1 RELAY\n", 567),
        ("R33", "route:127.0.0.1 FORWARD: 10.0.0.1\nroute:10.0.0.1 RELAY\n", 568),
    ],
)
def test_a_local_route_that_cannot_be_used(number: str, routes: str, message: int) -> None:
    talk = Talk(route=routes)
    talk.hop("10.0.0.1")
    _, answer = rcpt(talk, "10.0.0.1", "joe@other.example")
    assert codes(answer) == ["451 #295"]
    assert len(talk.logged(message)) == 1


def test_r34_route_local_queues() -> None:
    talk = Talk(route="route:local FORWARD: 127.0.0.1:26\nroute:10.0.0.1 RELAY\n")
    talk.hop("127.0.0.1", 26)
    _, answer = rcpt(talk, "10.0.0.1", "joe@other.example")
    assert codes(answer) == ["250 #297"]


@pytest.mark.parametrize(("number", "up", "code"), [("R35", True, "250 #297"), ("R36", False, "451 #295")])
def test_the_next_host_of_a_route(number: str, up: bool, code: str) -> None:
    talk = Talk(route="route:example.com FORWARD: 192.0.2.1, 192.0.2.2\n")
    if up:
        talk.hop("192.0.2.2")
    _, answer = rcpt(talk, FOREIGN, "joe@example.com")
    assert codes(answer) == [code]
    assert talk.counted(counters.RCPT_TEMPFAIL) == (not up)


def test_r37_a_route_without_hosts() -> None:
    _, answer = rcpt(Talk(route="route:example.com FORWARD: ; RELAY\n"), FOREIGN, "joe@example.com")
    assert codes(answer) == ["550 #296"]


def test_r43_one_connection_for_one_route() -> None:
    talk = Talk(route=ROUTES)
    hop = talk.hop("192.0.2.1")
    client, _ = rcpt(talk, FOREIGN, "a@example.org")
    assert codes(client.say("RCPT TO:<b@sub.example.org>")) == ["250 #297"]
    assert codes(client.message()) == ["250 #554"]
    assert (len(hop.sessions), len(hop.contents)) == (1, 1)


@pytest.mark.parametrize("recipients", [("postmaster", "x@a.example"), ("x@a.example", "postmaster")])
def test_a_host_that_also_queues_gets_one_transaction(recipients: tuple[str, str]) -> None:
    talk = Talk(route="route:a.example FORWARD: 192.0.2.1\nroute:local FORWARD: 192.0.2.1\n")
    hop = talk.hop("192.0.2.1")
    client, _ = rcpt(talk, FOREIGN, recipients[0])
    assert codes(client.say(f"RCPT TO:<{recipients[1]}>")) == ["250 #297"]
    assert codes(client.message()) == ["250 #554"]
    assert (len(hop.sessions), len(hop.contents)) == (1, 1)


def test_r44_another_port_is_another_host() -> None:
    talk = Talk(route="route:a.example FORWARD: 192.0.2.1:25\nroute:b.example FORWARD: 192.0.2.1:2525\n")
    one, two = talk.hop("192.0.2.1"), talk.hop("192.0.2.1", 2525)
    client, _ = rcpt(talk, FOREIGN, "x@a.example")
    assert codes(client.say("RCPT TO:<x@b.example>")) == ["250 #297"]
    assert len(one.sessions) == len(two.sessions) == 1
