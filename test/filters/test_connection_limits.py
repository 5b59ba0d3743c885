"""Rate-Connect: and Concurrent-Connect:, seen by clients."""

from __future__ import annotations

import pytest

from smtpf.filters.concurrent import CONCURRENT, CONCURRENT_DROP
from smtpf.filters.rate import RATE_421_DELAY, RATE_CLIENT, RATE_DROP
from smtpf.maps.source import FAILED, Found
from test.support.talk import Client, Talk, codes


class Down:
    """A map that cannot be asked."""

    tags = None

    @property
    def view(self) -> Down:
        return self

    def get(self, key: str) -> Found:
        return FAILED


def patient(talk: Talk, address: str = "192.0.2.9") -> Client:
    """A client that waits for its banner or refusal."""
    client = talk.connect(address)
    if not client.banner:
        talk.net.pass_time(15)
        client.banner = client.take()
    return client


def test_the_fourth_connection_of_a_minute_is_refused() -> None:
    talk = Talk(access="rate-connect:192.0.2 3\n")
    for _ in range(3):
        assert codes(patient(talk).banner) == ["220"]
    client = talk.connect("192.0.2.9")
    assert client.banner == []
    talk.net.pass_time(13)
    assert client.take() == []
    talk.net.pass_time(1)
    heard = client.take()
    assert heard[0].startswith("421 4.3.2 client  [192.0.2.9] connections 4 exceed 3/60s #522 ")
    assert client.gone
    assert talk.counted(RATE_CLIENT) == 1
    assert "rate_limit" in talk.logged(721)[0]
    assert codes(patient(talk, "192.0.2.10").banner) == ["220"]


def test_talking_does_not_shorten_the_wait() -> None:
    talk = Talk(access="rate-connect:192.0.2 1\n")
    patient(talk)
    client = talk.connect("192.0.2.9")
    client.send(b"EHLO x\r\n")
    talk.net.pass_time(10)
    assert client.take() == []
    talk.net.pass_time(5)
    assert codes(client.take()) == ["421 #522"]


def test_refused_connections_count_too() -> None:
    talk = Talk({RATE_421_DELAY: "0"}, access="rate-connect:192.0.2.9 1\n")
    assert codes(talk.connect("192.0.2.9").banner) == ["220"]
    talk.net.pass_time(40)
    assert codes(talk.connect("192.0.2.9").banner) == ["421 #522"]
    talk.net.pass_time(40)
    assert codes(talk.connect("192.0.2.9").banner) == ["421 #522"]
    talk.net.pass_time(60)
    assert codes(talk.connect("192.0.2.9").banner) == ["220"]


def test_without_rate_drop_the_client_may_only_quit() -> None:
    talk = Talk({RATE_DROP: "-", RATE_421_DELAY: "0"}, access="rate-connect: 1\n")
    talk.connect("192.0.2.9")
    client = talk.connect("192.0.2.9")
    assert codes(client.banner) == ["421 #522"]
    assert codes(client.say("EHLO mail.example.org")) == ["421 #966"]
    assert codes(client.say("QUIT")) == ["221 #247"]


@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_an_entry_without_a_limit_limits_nobody(value: str) -> None:
    talk = Talk(access=f"rate-connect:192.0.2.9 {value}\nconcurrent-connect:192.0.2.9 {value}\n")
    assert [codes(talk.connect("192.0.2.9").banner) for _ in range(4)] == [["220"]] * 4


def test_localhost_is_not_limited_and_white_clients_are() -> None:
    talk = Talk({RATE_421_DELAY: "0"}, access="rate-connect: 1\nconcurrent-connect: 1\nconnect:192.0.2.9 OK\n")
    assert [codes(talk.connect("127.0.0.1", at="127.0.0.1").banner) for _ in range(3)] == [["220 #632"]] * 3
    talk.connect("192.0.2.9")
    assert codes(talk.connect("192.0.2.9").banner) == ["421 #522"]


def test_an_ipv6_network_is_limited_as_one_client() -> None:
    talk = Talk({RATE_421_DELAY: "0"}, access="rate-connect: 1\n")
    assert codes(talk.connect("2001:db8:0:1::1", at="2001:db8::25").banner) == ["220"]
    assert codes(talk.connect("2001:db8:0:1::2", at="2001:db8::25").banner) == ["421 #522"]
    assert codes(talk.connect("2001:db8:0:2::1", at="2001:db8::25").banner) == ["220"]


def test_existing_sessions_go_on_and_a_closed_one_makes_room() -> None:
    talk = Talk(access="concurrent-connect:192.0.2.9 2\n")
    first, second = patient(talk), patient(talk)
    third = patient(talk)
    assert third.banner[0].startswith("421 4.3.2 client  [192.0.2.9] too many concurrent connections, max=2 #329 ")
    assert third.gone
    assert talk.counted(CONCURRENT) == 1
    assert "concurrency_limit" in talk.logged(721)[0]
    assert codes(second.say("EHLO mail.example.org")) == ["250"]
    first.say("QUIT")
    assert codes(patient(talk).banner) == ["220"]
    assert codes(patient(talk).banner) == ["421 #329"]


def test_a_refused_session_holds_its_place_until_it_closes() -> None:
    talk = Talk({CONCURRENT_DROP: "-"}, access="concurrent-connect: 1\n")
    first = patient(talk)
    second = patient(talk)
    assert codes(second.banner) == ["421 #329"]
    first.say("QUIT")
    assert codes(patient(talk).banner) == ["421 #329"]


def test_limits_are_not_delayed_to_rcpt() -> None:
    from smtpf.smtp.slots import SMTP_DELAY_CHECKS

    talk = Talk({SMTP_DELAY_CHECKS: "+", RATE_421_DELAY: "0"}, access="rate-connect: 1\n")
    talk.connect("192.0.2.9")
    assert codes(talk.connect("192.0.2.9").banner) == ["421 #522"]


@pytest.mark.parametrize(("drops", "gone"), [("+", True), ("-", False)])
def test_a_map_that_cannot_be_asked_refuses_for_now(drops: str, gone: bool) -> None:
    talk = Talk({RATE_DROP: drops})
    talk.access_map.source = Down()
    client = talk.connect("192.0.2.9")
    assert codes(client.banner) == ["421 #966"]
    assert client.gone is gone
