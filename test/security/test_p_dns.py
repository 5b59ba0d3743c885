"""Threat P (and L6): forged, hostile and slow DNS answers, over real sockets."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from dns.message import Message, make_query

from smtpf.dns.lists import DnsList, DnsLists
from smtpf.dns.reverse import identify
from smtpf.dns.spf import Spf
from test.support.dns_server import asking, reply

HOSTILE_LABELS = [
    [b"mail\0x", b"example"],
    [b"mail\r\n250 ok", b"example"],
    [b"<script>", b"example"],
    [b"%s%n", b"example"],
    [b"\xff\xfe", b"example"],
    [b"a"] * 126 + [b"b" * 2],
    [b""],
]


def wire_answer(query: Message, rtype: int, rdata: bytes) -> bytes:
    """An answer made by hand, since no library would make it."""
    octets = query.to_wire()
    question = octets[12 : octets.index(b"\0", 12) + 5]
    header = octets[:2] + b"\x81\x80" + struct.pack("!HHHH", 1, 1, 0, 0)
    return header + question + b"\xc0\x0c" + struct.pack("!HHIH", rtype, 1, 60, len(rdata)) + rdata


@pytest.mark.parametrize("labels", HOSTILE_LABELS, ids=range(len(HOSTILE_LABELS)))
def test_hostile_ptr_is_no_name(reactor_run: Any, labels: list[bytes]) -> None:
    rdata = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    with asking(lambda query, tcp: wire_answer(query, 12, rdata)) as (_, resolver):
        client = reactor_run(identify(resolver, "192.0.2.9"))
    if client.name:
        assert set(client.name) <= set("ab.")
    else:
        assert client.no_ptr


def test_hostile_delegation_is_shown_without_control_octets(reactor_run: Any) -> None:
    def script(query: Message, tcp: bool) -> Any:
        if query.question[0].name.to_text().startswith("9."):
            return wire_answer(query, 5, b"\x06a\r\n\0b\x7f\x07example\0")
        return reply(query, rcode=2)

    with asking(script) as (_, resolver):
        client = reactor_run(identify(resolver, "192.0.2.9"))
    assert client.delegations
    assert all(target.isascii() and target.isprintable() for target in client.delegations)


def test_compression_loop_and_cut_answers_are_not_believed(reactor_run: Any) -> None:
    def script(query: Message, tcp: bool) -> Any:
        whole = reply(query, "x.example. 60 A 192.0.2.66").to_wire()
        loop = wire_answer(query, 12, b"\xc0\x0c\xc0\x0e")
        return [whole[:11], loop[:-4] + b"\xff" * 40, b"\xff" * 600]

    with asking(script, timeout=0.3) as (_, resolver):
        assert not reactor_run(resolver.lookup("x.example", "PTR")).ok


def test_answer_to_another_question_is_not_believed(reactor_run: Any) -> None:
    def script(query: Message, tcp: bool) -> Any:
        return reply(make_query("other.example", "A", id=query.id), "x.example. 60 A 203.0.113.66")

    with asking(script, timeout=0.3) as (_, resolver):
        assert reactor_run(resolver.lookup("x.example", "A")).no_answer


def test_twenty_slow_includes_stay_within_the_deadline(reactor_run: Any) -> None:
    from twisted.internet import reactor

    def script(query: Message, tcp: bool) -> Any:
        name = query.question[0].name.to_text()
        number = int(name[1 : name.index(".")])
        return None if number > 2 else reply(query, f'{name} 60 TXT "v=spf1 include:i{number + 1}.example -all"')

    with asking(script) as (_, resolver):
        spf = Spf(resolver, lambda work: pytest.fail("no thread needed"))
        began = reactor.seconds()
        found = reactor_run(spf.check_sender("192.0.2.9", "h.example", "joe@i0.example", timeout=0.6))
        assert reactor.seconds() - began < 2
    assert found.result == "TempError"


def test_zone_that_says_yes_to_all_is_no_list(reactor_run: Any) -> None:
    said: list[Any] = []
    with asking(lambda query, tcp: reply(query, f"{query.question[0].name} 60 A 127.0.0.2")) as (_, resolver):
        lists = DnsLists(resolver, [DnsList("wild.example")], lambda *given: said.append(given))
        for address in ("192.0.2.9", "192.0.2.10"):
            assert reactor_run(lists.address(address)) is None
    assert [message.number for message, *_ in said] == [1162]
