"""The resolver against a scripted server over real sockets."""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Callable, Iterator
from typing import Any

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import udp
from twisted.internet.defer import CancelledError, gatherResults
from twisted.internet.task import Clock

from smtpf.dns import wire
from smtpf.dns.answer import Answer, Mx, Status
from smtpf.dns.client import MAX_FORGERIES, TURN, _Port
from smtpf.dns.hosts import HostsFile
from smtpf.dns.resolver import FAILURE_TTL, UNBOUNDED_TTL, Resolver
from smtpf.dns.servers import DNS_SERVERS, server, system_servers
from smtpf.settings.option import OptionError
from test.support.dns_server import Script, ScriptedServer, reply

SOA = "example. 600 SOA ns.example. root.example. 1 2 3 4 120"


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[ScriptedServer, Resolver]]]:
    """``serve(script, **options)``: a scripted server and a resolver that asks it."""
    from twisted.internet import reactor

    made: list[Any] = []

    def start(script: Script, **options: Any) -> tuple[ScriptedServer, Resolver]:
        server = ScriptedServer(reactor, script)
        resolver = Resolver(reactor, [server.address], **{"timeout": 5.0, **options})
        made.extend((server, resolver))
        return server, resolver

    yield start
    for one in made:
        one.stop()


def test_answer_is_cached_and_then_immediate(serve: Any, reactor_run: Any) -> None:
    server, resolver = serve(lambda query, tcp: reply(query, "mail.example. 300 A 192.0.2.7"))
    answer = reactor_run(resolver.query("Mail.Example.", "A"))
    assert answer == Answer("mail.example", "A", Status.OK, ("192.0.2.7",), ttl=300)
    assert resolver.query("mail.example", "A") == answer
    assert len(server.queries) == 1


def test_same_question_under_way_is_sent_once(serve: Any, reactor_run: Any) -> None:
    server, resolver = serve(lambda query, tcp: reply(query, "a.example. 300 A 192.0.2.7"))
    answers = reactor_run(gatherResults([resolver.query("a.example", "A") for _ in range(5)]))
    assert {answer.addresses for answer in answers} == {("192.0.2.7",)}
    assert len(server.queries) == 1


def test_query_carries_edns_and_recursion_desired(serve: Any, reactor_run: Any) -> None:
    server, resolver = serve(lambda query, tcp: reply(query))
    reactor_run(resolver.query("a.example", "MX"))
    query = server.seen[0]
    assert query.edns == 0
    assert query.payload == 1232
    assert query.flags & dns.flags.RD


def test_ids_and_ports_vary(serve: Any, reactor_run: Any) -> None:
    server, resolver = serve(lambda query, tcp: reply(query))
    reactor_run(gatherResults([resolver.query(f"h{n}.example", "A") for n in range(40)]))
    assert len({query.id for query in server.seen}) > 30
    assert len({port for _, _, _, port in server.queries}) > 3


class FewIds(random.Random):
    """Draws one of sixteen identifiers, so that many are taken."""

    def getrandbits(self, bits: int) -> int:
        return super().getrandbits(bits) & 15


def test_identifier_that_is_taken_is_drawn_again(serve: Any, reactor_run: Any) -> None:
    server, resolver = serve(lambda query, tcp: reply(query), chance=FewIds(1))
    reactor_run(gatherResults([resolver.query(f"h{n}.example", "A") for n in range(40)]), timeout=0.9)
    assert len(server.seen) == 40


@pytest.mark.parametrize(
    ("rtype", "record", "check"),
    [
        ("AAAA", "x.example. 60 AAAA 2001:DB8:0:0::1", lambda answer: answer.addresses == ("2001:db8::1",)),
        ("MX", "x.example. 60 MX 10 Mail.Example.", lambda answer: answer.exchanges == (Mx(10, "mail.example"),)),
        ("MX", "x.example. 60 MX 0 .", lambda answer: answer.exchanges == (Mx(0, ""),)),
        ("NS", "x.example. 60 NS NS1.Other.", lambda answer: answer.records[0].original == "NS1.Other."),
        ("TXT", 'x.example. 60 TXT "v=spf1 " "-all"', lambda answer: answer.texts == (b"v=spf1 -all",)),
        ("SOA", "x.example. 60 SOA a.example. b.example. 7 1 2 3 4", lambda answer: answer.soa.serial == 7),
        ("PTR", "x.example. 60 PTR Host.Example.", lambda answer: answer.names == ("host.example",)),
    ],
)
def test_record_types(serve: Any, reactor_run: Any, rtype: str, record: str, check: Any) -> None:
    _, resolver = serve(lambda query, tcp: reply(query, record))
    assert check(reactor_run(resolver.query("x.example", rtype)))


def test_negative_answers_live_as_long_as_the_soa_minimum(reactor_run: Any) -> None:
    clock = Clock()
    query = wire.response(reply(dns.message.make_query("no.example", "A"), rcode=3, authority=(SOA,)).to_wire(), 0, b"", 1)
    assert query is None  # another identifier and name
    asked = dns.message.make_query("no.example", "A", id=9)
    octets = reply(asked, rcode=3, authority=(SOA,)).to_wire()
    got = wire.response(octets, 9, wire.wire_name("no.example") or b"", 1)
    assert got is not None
    answer = wire.answer("no.example", "A", got)
    assert (answer.status, answer.ttl, answer.authority.owner) == (Status.NXDOMAIN, 120, "example")  # type: ignore[union-attr]
    resolver = Resolver(clock, [], hosts=HostsFile("/nonexistent"))
    resolver._keep(("no.example", "A"), answer)
    assert resolver.query("no.example", "A") is answer
    clock.advance(121)
    assert resolver._cached(("no.example", "A")) is None


@pytest.mark.parametrize(("rcode", "kept"), [(0, UNBOUNDED_TTL), (3, UNBOUNDED_TTL), (2, FAILURE_TTL)])
def test_a_negative_answer_without_soa_is_hardly_kept(rcode: int, kept: int) -> None:
    clock = Clock()
    asked = dns.message.make_query("no.example", "A", id=9)
    got = wire.response(reply(asked, rcode=rcode).to_wire(), 9, wire.wire_name("no.example") or b"", 1)
    assert got is not None
    resolver = Resolver(clock, [], hosts=HostsFile("/nonexistent"))
    resolver._keep(("no.example", "A"), wire.answer("no.example", "A", got))
    clock.advance(kept - 0.1)
    assert resolver._cached(("no.example", "A")) is not None
    clock.advance(0.2)
    assert resolver._cached(("no.example", "A")) is None


@pytest.mark.parametrize(
    ("rcode", "status"), [(2, Status.SERVFAIL), (5, Status.REFUSED), (4, Status.NOTIMP), (1, Status.FORMERR), (9, Status.OTHER)]
)
def test_error_codes_are_told_apart_and_kept_briefly(serve: Any, reactor_run: Any, rcode: int, status: Status) -> None:
    _, resolver = serve(lambda query, tcp: reply(query, rcode=rcode))
    answer = reactor_run(resolver.query("a.example", "A"))
    assert answer.status is status
    assert answer.failed
    assert resolver.query("a.example", "A") is answer
    assert FAILURE_TTL <= 10


def test_server_without_edns_is_asked_again_without(serve: Any, reactor_run: Any) -> None:
    def script(query: dns.message.Message, tcp: bool) -> Any:
        if query.edns >= 0:
            return query.id.to_bytes(2, "big") + b"\x80\x01" + bytes(8)  # FORMERR, a bare header
        return reply(query, "a.example. 60 A 192.0.2.1")

    _, resolver = serve(script)
    assert reactor_run(resolver.query("a.example", "A")).addresses == ("192.0.2.1",)


def test_truncated_answer_is_fetched_by_tcp(serve: Any, reactor_run: Any) -> None:
    def script(query: dns.message.Message, tcp: bool) -> Any:
        if not tcp:
            return reply(query, flags=dns.flags.TC)
        return reply(query, *(f"big.example. 60 A 192.0.2.{n}" for n in range(250)))

    server, resolver = serve(script)
    answer = reactor_run(resolver.query("big.example", "A"))
    assert len(answer.addresses) == 200  # MAX_RECORDS
    assert [tcp for _, _, tcp, _ in server.queries] == [False, True]


def test_lost_datagram_is_repeated(serve: Any, reactor_run: Any) -> None:
    answers = iter([None, reply])
    server, resolver = serve(lambda query, tcp: (made := next(answers)) and made(query, "a.example. 60 A 192.0.2.1"))
    assert reactor_run(resolver.query("a.example", "A")).ok
    assert len(server.queries) == 2


def test_silence_ends_at_the_timeout(serve: Any, reactor_run: Any) -> None:
    _, resolver = serve(lambda query, tcp: None, timeout=0.3)
    answer = reactor_run(resolver.query("a.example", "A"))
    assert (answer.status, answer.errno, answer.rcode_text) == (Status.TIMEOUT, errno.ETIMEDOUT, "TIMED OUT")


def test_caller_may_wait_less_than_the_query_takes(serve: Any, reactor_run: Any) -> None:
    _, resolver = serve(lambda query, tcp: None, timeout=0.6)
    short, whole = resolver.query("a.example", "A", timeout=0.1), resolver.query("a.example", "A")
    assert reactor_run(short).no_answer
    assert not whole.called
    assert reactor_run(whole).no_answer


def test_cancelled_caller_leaves_the_others_alone(serve: Any, reactor_run: Any) -> None:
    _, resolver = serve(lambda query, tcp: reply(query, "a.example. 60 A 192.0.2.1"))
    gone, other = resolver.query("a.example", "A"), resolver.query("a.example", "A")
    gone.addErrback(lambda failure: failure.trap(CancelledError))
    gone.cancel()
    assert reactor_run(other).ok


def test_no_server_there_is_told_soon(reactor_run: Any) -> None:
    from twisted.internet import reactor

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    resolver = Resolver(reactor, [("127.0.0.1", port)], timeout=20)
    answer = reactor_run(resolver.query("a.example", "A"), timeout=10)
    assert (answer.status, answer.errno) == (Status.TIMEOUT, errno.ECONNREFUSED)
    assert answer.error_text == "Connection refused"
    resolver.stop()


@pytest.mark.parametrize("round_robin", [False, True])
def test_another_server_answers_when_one_fails(serve: Any, reactor_run: Any, round_robin: bool) -> None:
    from twisted.internet import reactor

    bad, _ = serve(lambda query, tcp: reply(query, rcode=2))
    good, _ = serve(lambda query, tcp: reply(query, f"{query.question[0].name} 60 A 192.0.2.1"))
    resolver = Resolver(reactor, [bad.address, good.address], timeout=5, round_robin=round_robin)
    for n in range(4):
        assert reactor_run(resolver.query(f"a{n}.example", "A")).ok
    assert len(good.queries) == 4
    assert len(bad.queries) == (2 if round_robin else 4)
    resolver.stop()


def test_all_servers_failing_gives_the_error_at_once(serve: Any, reactor_run: Any) -> None:
    from twisted.internet import reactor

    servers = [serve(lambda query, tcp: reply(query, rcode=2))[0].address for _ in range(2)]
    resolver = Resolver(reactor, servers, timeout=30)
    assert reactor_run(resolver.query("a.example", "A"), timeout=2).status is Status.SERVFAIL
    resolver.stop()


def test_cname_chain_is_followed_within_and_across_answers(serve: Any, reactor_run: Any) -> None:
    zone = {
        "a.example.": ("a.example. 50 CNAME B.example.", "b.example. 60 CNAME c.example."),
        "c.example.": ("c.example. 60 CNAME d.example.",),
        "d.example.": ("d.example. 60 A 192.0.2.4",),
    }
    server, resolver = serve(lambda query, tcp: reply(query, *zone[query.question[0].name.to_text()]))
    answer = reactor_run(resolver.query("a.example", "A"))
    assert answer.addresses == ("192.0.2.4",)
    assert [target.original for target in answer.chain] == ["B.example.", "c.example.", "d.example."]
    assert answer.ttl == 50
    assert server.asked() == [("a.example", "A"), ("c.example", "A"), ("d.example", "A")]


@pytest.mark.parametrize("length", [2, 40])
def test_cname_loops_and_endless_chains_come_to_nothing(serve: Any, reactor_run: Any, length: int) -> None:
    def script(query: dns.message.Message, tcp: bool) -> Any:
        number = int(query.question[0].name.to_text().split(".")[0])
        return reply(query, f"{number}.example. 60 CNAME {(number + 1) % length}.example.")

    server, resolver = serve(script)
    answer = reactor_run(resolver.query("0.example", "A"))
    assert answer.status is Status.NODATA
    assert len(server.queries) <= wire.MAX_CHAIN + 2


def test_records_off_the_owner_chain_are_dropped(serve: Any, reactor_run: Any) -> None:
    records = ("b.example. 60 A 203.0.113.66", "a.example. 60 A 192.0.2.1", "c.example. 60 CNAME a.example.")
    _, resolver = serve(lambda query, tcp: reply(query, *records))
    assert reactor_run(resolver.query("a.example", "A")).addresses == ("192.0.2.1",)
    assert not isinstance(resolver.query("b.example", "TXT"), Answer)


@pytest.mark.parametrize("name", ["a" * 64 + ".example", "a..example", ".".join(["abcdefghi"] * 26), "x" * 63 + "é.example"])
def test_impossible_names_do_not_exist_and_are_not_asked(name: str) -> None:
    assert Resolver(Clock(), []).query(name, "A").status is Status.NXDOMAIN  # type: ignore[union-attr]


def test_u_labels_are_asked_as_a_labels(serve: Any, reactor_run: Any) -> None:
    server, resolver = serve(lambda query, tcp: reply(query))
    reactor_run(resolver.query("Bücher.example", "A"))
    assert server.asked() == [("xn--bcher-kva.example", "A")]


def test_host_addresses_prefer_the_hosts_file(serve: Any, reactor_run: Any, tmp_path: Any) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("192.0.2.50 mail.inside alias # comment\n2001:db8::5 mail.inside\nbroken line\n")
    server, resolver = serve(lambda query, tcp: reply(query, f"{query.question[0].name} 60 A 192.0.2.1"), hosts=HostsFile(str(hosts)))
    assert reactor_run(resolver.host_addresses("Mail.Inside")).addresses == ("192.0.2.50", "2001:db8::5")
    assert reactor_run(resolver.host_addresses("localhost")).addresses == ("127.0.0.1", "::1")
    assert reactor_run(resolver.host_addresses("[192.0.2.9]")).addresses == ("192.0.2.9",)
    assert server.queries == []
    assert reactor_run(resolver.host_addresses("out.example")).addresses == ("192.0.2.1",)


def test_host_addresses_tell_missing_from_failed(serve: Any, reactor_run: Any) -> None:
    _, resolver = serve(lambda query, tcp: reply(query, rcode=3 if "no" in query.question[0].name.to_text() else 2))
    missing = reactor_run(resolver.host_addresses("no.example"))
    failed = reactor_run(resolver.host_addresses("bad.example"))
    assert (missing.exists, missing.failed) == (False, False)
    assert (failed.failed, failed.error.rcode_text) == (True, "SERVER")


def test_forged_answers_are_passed_over(serve: Any, reactor_run: Any) -> None:
    def script(query: dns.message.Message, tcp: bool) -> Any:
        other = reply(dns.message.make_query("evil.example", "A", id=query.id), "a.example. 60 A 203.0.113.1")
        wrong_id = reply(query, "a.example. 60 A 203.0.113.2")
        wrong_id.id ^= 1
        another_type = reply(dns.message.make_query("a.example", "TXT", id=query.id))
        return [other, wrong_id, another_type, query.to_wire(), b"", b"\0" * 5, reply(query, "a.example. 60 A 192.0.2.1")]

    _, resolver = serve(script)
    assert reactor_run(resolver.query("a.example", "A")).addresses == ("192.0.2.1",)


def test_port_under_attack_is_given_up(serve: Any, reactor_run: Any) -> None:
    def script(query: dns.message.Message, tcp: bool) -> Any:
        return [bytes(12)] * MAX_FORGERIES + [reply(query)]

    server, resolver = serve(script)
    for n in range(30):
        reactor_run(resolver.query(f"a{n}.example", "A"))
    assert len({port for _, _, _, port in server.queries}) > 15


def test_one_port_does_not_hold_the_others_up_with_its_answers(serve: Any, reactor_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[int] = []
    read, received = udp.Port.doRead, _Port.datagramReceived

    def one_turn(port: udp.Port) -> None:
        turns.append(0)
        read(port)

    def heard(port: _Port, datagram: bytes, address: Any) -> None:
        turns[-1] += 1
        received(port, datagram, address)

    monkeypatch.setattr(udp.Port, "doRead", one_turn)
    monkeypatch.setattr(_Port, "datagramReceived", heard)
    _, resolver = serve(lambda query, tcp: [*([bytes(400)] * (MAX_FORGERIES - 1)), reply(query, "a.example. 60 A 192.0.2.1")])
    assert reactor_run(resolver.query("a.example", "A")).addresses == ("192.0.2.1",)
    assert sum(turns) == MAX_FORGERIES > max(turns)
    assert max(turns) == -(-TURN // 400)


NAME = wire.wire_name("a.example") or b""


@given(st.binary(max_size=300))
def test_any_octets_behind_a_right_header_are_survived(octets: bytes) -> None:
    head = b"\0\7\x81\x80\0\1\0\3\0\2\0\1" + NAME + b"\0\x0c\0\1"
    got = wire.response(head + octets, 7, NAME, 12)
    if got is not None:
        assert wire.answer("a.example", "PTR", got).status in Status


@given(st.lists(st.binary(min_size=1, max_size=63), min_size=1, max_size=3))
def test_hostile_target_names_become_printable_text(labels: list[bytes]) -> None:
    target = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    record = NAME + b"\0\x0c\0\1\0\0\0\x3c" + len(target).to_bytes(2, "big") + target
    octets = b"\0\7\x81\x80\0\1\0\1\0\0\0\0" + NAME + b"\0\x0c\0\1" + record
    got = wire.response(octets, 7, NAME, 12)
    if got is not None:
        for name in wire.answer("a.example", "PTR", got).names:
            assert name.isascii()
            assert name.isprintable()
            assert " " not in name


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("192.0.2.1", ("192.0.2.1", 53)),
        ("192.0.2.1:5353", ("192.0.2.1", 5353)),
        ("[2001:db8::1]:5353", ("2001:db8::1", 5353)),
        ("2001:db8::1", ("2001:db8::1", 53)),
        ("localhost:5353", ("127.0.0.1", 5353)),
    ],
)
def test_server_notation(text: str, wanted: tuple[str, int]) -> None:
    assert server(text) == wanted


@pytest.mark.parametrize("text", ["dns.example", "192.0.2.1:0", "192.0.2.1:x", "[::1", "1.2.3"])
def test_bad_servers_are_refused(text: str) -> None:
    with pytest.raises(OptionError):
        DNS_SERVERS.parse(text)


def test_system_servers_come_from_resolv_conf(tmp_path: Any) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("# x\nnameserver 192.0.2.1\nsearch example\nnameserver bad\nnameserver 2001:db8::1\n")
    assert system_servers(str(path)) == [("192.0.2.1", 53), ("2001:db8::1", 53)]
    assert system_servers(str(tmp_path / "none")) == [("127.0.0.1", 53)]
