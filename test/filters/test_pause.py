"""GreetPause: and CommandPause:, seen by patient and by hasty clients."""

from __future__ import annotations

import pytest

from smtpf.filters.pause import SMTP_COMMAND_PAUSE, SMTP_GREET_PAUSE
from smtpf.smtp.early_talk import COMMAND_PAUSE, GREET_PAUSE
from smtpf.smtp.options import RFC2920_PIPELINING
from smtpf.smtp.slots import SMTP_DELAY_CHECKS
from test.support.talk import Client, Talk, codes

ROUTE = "route:example.com FORWARD: 192.0.2.1\n"


def after(client: Client, seconds: float) -> list[str]:
    client.talk.net.pass_time(seconds)
    return client.take()


def waiting(talk: Talk, address: str = "192.0.2.9") -> Client:
    """A client whose connection has just been made; 1.2 seconds have passed unless its banner came before."""
    return talk.connect(address)


def ended(client: Client) -> bool:
    """The node has closed; it lingers while octets of the client are on their way."""
    client.talk.net.pass_time(30)
    return client.gone


def test_the_banner_comes_when_the_pause_is_over() -> None:
    talk = Talk(access="greetpause:192.0.2.9 3000\n")
    client = waiting(talk)
    assert client.banner == []
    assert after(client, 1.6) == []
    assert codes(after(client, 0.4)) == ["220"]
    assert codes(client.say("HELO mail.example.org")) == ["250 #256"]


def test_a_hasty_client_is_refused_in_place_of_the_banner() -> None:
    talk = Talk(access="greetpause:192.0.2.9 3000\n")
    client = waiting(talk)
    heard = client.send(b"EHLO mail.example.org\r\n")
    assert heard[0].startswith("550 5.3.3 pipelining not allowed #643 ")
    assert ended(client)
    assert talk.logged(540) == ["pipeline input=23:EHLO mail.example.org\\x0d\\x0a"]
    assert talk.logged(630) == [" [192.0.2.9] sent traffic before welcome reply, pause=3000"]
    numbers = [entry.message.number for entry in talk.entries]
    assert numbers.index(540) < numbers.index(630)
    assert talk.counted(GREET_PAUSE) == 1
    assert "pipelining" in talk.logged(721)[0]


def test_a_hasty_client_is_refused_at_each_recipient_with_delay_checks() -> None:
    talk = Talk({SMTP_DELAY_CHECKS: "+"}, access="greetpause:192.0.2.9 3000\n", route=ROUTE)
    client = waiting(talk)
    assert codes(client.send(b"EHLO mail.example.org\r\n")) == ["220", "250"]
    assert codes(client.say("MAIL FROM:<joe@example.org>")) == ["250 #283"]
    assert codes(client.say("RCPT TO:<ann@example.com>")) == ["550 #643"]
    assert len(talk.logged(540)) == 1


def test_a_client_that_leaves_in_the_pause_is_no_early_talker() -> None:
    talk = Talk(access="greetpause: 3000\n")
    client = waiting(talk)
    client.transport.loseConnection()
    talk.net.pass_time(4)
    assert talk.logged(540) == talk.logged(630) == []


def test_an_entry_of_0_spares_the_client_the_hold_before_the_banner() -> None:
    talk = Talk(access="greetpause:192.0.2.9 0\n")
    before = talk.net.seconds()
    client = waiting(talk)
    assert codes(client.banner) == ["220"]
    assert talk.net.seconds() == before


@pytest.mark.parametrize("access", ["connect:192.0.2.9 OK", "connect:192.0.2.9 CONTENT"])
def test_known_clients_are_not_kept_waiting(access: str) -> None:
    talk = Talk(access=access + "\ngreetpause: 3000\ncommandpause: 3000\n", route=ROUTE)
    client = waiting(talk)
    assert codes(client.banner) == ["220 #632"]
    heard = client.say("EHLO mail.example.org")
    assert codes(heard) == ["250"]
    assert "250-PIPELINING" in heard
    assert talk.net.seconds() < 0.5


def test_a_pause_is_at_most_a_minute() -> None:
    talk = Talk(access="greetpause: 86400000\n")
    client = waiting(talk)
    assert after(client, 58) == []
    assert codes(after(client, 2)) == ["220"]


def test_options_stand_in_for_missing_entries() -> None:
    talk = Talk({SMTP_GREET_PAUSE: "2000", SMTP_COMMAND_PAUSE: "1000"}, access="greetpause:192.0.2.8 0\n")
    assert codes(waiting(talk, "192.0.2.8").banner) == ["220"]
    client = waiting(talk)
    assert client.banner == []
    assert codes(after(client, 1)) == ["220"]
    assert client.say("HELO mail.example.org") == []
    assert codes(after(client, 1)) == ["250 #256"]


def test_each_command_waits_for_its_pause() -> None:
    talk = Talk(access="commandpause:192.0.2.9 700\n", route=ROUTE)
    client = waiting(talk)
    for line, answer in (("EHLO mail.example.org", "250"), ("MAIL FROM:<joe@example.org>", "250 #283"), ("QUIT", "221 #247")):
        assert client.say(line) == []
        assert after(client, 0.6) == []
        heard = after(client, 0.2)
        assert codes(heard) == [answer]
        assert "250-PIPELINING" not in heard


@pytest.mark.parametrize("second", [b"MAIL FROM:<joe@example.org>\r\n", b"\r\n"])
def test_input_in_the_pause_refuses_the_command_and_closes(second: bytes) -> None:
    talk = Talk(access="commandpause:192.0.2.9 700\n")
    client = waiting(talk)
    assert client.say("EHLO mail.example.org") == []
    assert codes(client.send(second)) == ["550 #643"]
    assert ended(client)
    assert talk.logged(630) == [" [192.0.2.9] sent traffic before EHLO reply, pause=700"]
    assert talk.counted(COMMAND_PAUSE) == 1


def test_octets_in_one_packet_with_the_command_count() -> None:
    talk = Talk(access="commandpause:192.0.2.9 700\n")
    client = waiting(talk)
    assert codes(client.send(b"EHLO mail.example.org\r\nMAIL FROM:<joe@example.org>\r\n")) == ["550 #643"]


def test_with_delay_checks_a_noticed_client_is_still_kept_waiting() -> None:
    talk = Talk({SMTP_DELAY_CHECKS: "+"}, access="commandpause:192.0.2.9 700\n", route=ROUTE)
    client = waiting(talk)
    assert codes(client.send(b"EHLO mail.example.org\r\nMAIL FROM:<joe@example.org>\r\n")) == ["250"]
    assert codes(after(client, 0.8)) == ["250 #283"]
    client.say("RCPT TO:<ann@example.com>")
    assert codes(after(client, 0.8)) == ["550 #643"]
    assert len(talk.logged(630)) == len(talk.logged(540)) == 1


def test_a_command_pause_of_0_allows_pipelining() -> None:
    talk = Talk({RFC2920_PIPELINING: "-"}, access="commandpause:192.0.2.9 0\n", route=ROUTE)
    talk.hop("192.0.2.1")
    client = waiting(talk)
    assert "250-PIPELINING" in client.say("EHLO mail.example.org")
    assert codes(client.send(b"MAIL FROM:<joe@example.org>\r\nRCPT TO:<ann@example.com>\r\n")) == ["250 #283", "250 #297"]
    other = waiting(talk, "192.0.2.8")
    assert "250-PIPELINING" not in other.say("EHLO mail.example.org")
    assert codes(other.send(b"MAIL FROM:<joe@example.org>\r\nRCPT TO:<ann@example.com>\r\n"))[-1] == "550 #643"
