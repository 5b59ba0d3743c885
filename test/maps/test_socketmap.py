"""The socketmap client against a scripted server on a real socket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.endpoints import TCP4ServerEndpoint, UNIXServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from smtpf.journal.journal import Entry, Journal
from smtpf.maps.access import AccessMap
from smtpf.maps.hosts import parse_host
from smtpf.maps.routes import Counts, RouteMap
from smtpf.maps.socketmap import WAIT_SECONDS, Conversation, Framing, SocketMap, Trouble, interpret, netstring, read_netstring
from smtpf.maps.source import LookupFailed

HANG_UP = b""


class Scripted(Factory):
    """Answers each request by the script; ``HANG_UP`` closes the connection. Keeps what it was sent."""

    def __init__(self, answers: dict[bytes, list[bytes]]) -> None:
        self.answers = answers
        self.seen: list[bytes] = []
        self.connections = 0

    def buildProtocol(self, addr: Any) -> Protocol:
        self.connections += 1
        script = self

        class Server(Protocol):
            def dataReceived(self, data: bytes) -> None:
                script.seen.append(data)
                waiting = script.answers.get(data, [b"8:NOTFOUND,"])
                answer = waiting.pop(0) if len(waiting) > 1 else waiting[0]
                if answer == HANG_UP:
                    self.transport.loseConnection()  # type: ignore[union-attr]
                else:
                    self.transport.write(answer)  # type: ignore[union-attr]

        return Server()


async def served(answers: dict[bytes, list[bytes]], table: str, log: list[Entry]) -> tuple[Any, Scripted, SocketMap]:
    from twisted.internet import reactor

    script = Scripted(answers)
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(script)
    server = parse_host(f"127.0.0.1:{port.getHost().port}")
    assert server is not None
    return port, script, SocketMap(table, server, Journal(log.append), reactor)


FIRST = b"24:access connect:192.0.2.9,"


@pytest.mark.parametrize(
    ("row", "answers", "word", "sent", "connections"),
    [
        ("S1", [b"9:OK REJECT,"], "REJECT", [FIRST], 1),
        ("S2", [b"8:NOTFOUND,"], "OK", [FIRST, b"22:access connect:192.0.2,"], 1),
        ("S2b", [b"9:NOTFOUND ,"], "OK", [FIRST, b"22:access connect:192.0.2,"], 1),
        ("S3", [b"7:TEMP db,"], "TEMPFAIL", [FIRST], 1),
        ("S4", [b"4:PERM,"], "TEMPFAIL", [FIRST], 1),
        ("S5", [b"7:TIMEOUT,"], "TEMPFAIL", [FIRST], 1),
        ("S6", [b"3:OK ,"], None, [FIRST, b"26:access connect:[192.0.2.9],"], 1),
        ("S8", [b"x:OK,"], "TEMPFAIL", [FIRST], 1),
        ("S9", [HANG_UP, b"9:OK REJECT,"], "REJECT", [FIRST, FIRST], 2),
        ("S9b", [HANG_UP, HANG_UP], "TEMPFAIL", [FIRST, FIRST], 2),
        ("unknown word", [b"6:OKAY x,"], "TEMPFAIL", [FIRST], 1),
        ("second reply behind the first", [b"9:OK REJECT,4:OK x,"], "TEMPFAIL", [FIRST], 1),
    ],
)
def test_worked_dialogue(
    reactor_run: Callable[..., Any], row: str, answers: list[bytes], word: str | None, sent: list[bytes], connections: int
) -> None:
    async def dialogue() -> None:
        log: list[Entry] = []
        port, script, source = await served({FIRST: answers, b"22:access connect:192.0.2,": [b"5:OK OK,"]}, "access", log)
        hit = await AccessMap(source, Journal(log.append)).lookup_client("connect:", "", "192.0.2.9")
        assert (None if hit is None else hit.word) == word
        assert script.seen == sent
        assert script.connections == connections
        source.stop()
        await port.stopListening()

    reactor_run(dialogue())


def test_half_a_reply_is_waited_for_and_then_a_failure() -> None:
    clock = Clock()
    conversation = Conversation(clock)
    conversation.makeConnection(StringTransport())
    outcome: list[bytes | Trouble] = []
    conversation.ask(b"access connect:192.0.2.9").addCallback(outcome.append)
    conversation.dataReceived(b"12:OK REJECT,")
    clock.advance(WAIT_SECONDS - 0.1)
    assert outcome == []
    clock.advance(0.1)
    assert outcome == [Trouble.SLOW]
    assert not conversation.open


def test_octets_nobody_asked_for_end_the_connection() -> None:
    conversation = Conversation(Clock())
    conversation.makeConnection(StringTransport())
    conversation.dataReceived(b"9:OK REJECT,")
    assert not conversation.open


def test_counts_are_asked_of_the_server(reactor_run: Callable[..., Any]) -> None:
    async def dialogue() -> None:
        port, script, source = await served({b"22:route route:__counts__,": [b"10:OK 5 1 1 6,"]}, "route", [])
        assert await RouteMap(source, Journal([].append)).counts() == Counts(5, 1, 1, 6)
        assert script.seen == [b"22:route route:__counts__,"]
        source.stop()
        await port.stopListening()

    reactor_run(dialogue())


def test_server_that_is_down_is_told_once_and_again_after_it_has_answered(reactor_run: Callable[..., Any]) -> None:
    async def dialogue() -> None:
        log: list[Entry] = []
        port, script, source = await served({}, "access", log)
        number = port.getHost().port
        await port.stopListening()
        for _ in range(2):
            assert isinstance(await source._get(b"connect:x"), LookupFailed)
        assert [entry.message.number for entry in log] == [1142]
        from twisted.internet import reactor

        port = await TCP4ServerEndpoint(reactor, number, interface="127.0.0.1").listen(script)
        assert await source._get(b"connect:x") is None
        source.stop()
        await port.stopListening()
        assert isinstance(await source._get(b"connect:x"), LookupFailed)
        assert [entry.message.number for entry in log] == [1142, 1142]

    reactor_run(dialogue())


def test_connections_are_kept_and_shared(reactor_run: Callable[..., Any]) -> None:
    from twisted.internet.defer import gatherResults

    async def dialogue() -> None:
        port, script, source = await served({}, "access", [])
        await gatherResults([source.get(f"connect:h{number}") for number in range(50)])  # type: ignore[misc]
        assert len(script.seen) == 50
        assert script.connections <= 8
        for number in range(5):
            await source.get(f"connect:h{number}")  # type: ignore[misc]
        assert script.connections <= 8
        source.stop()
        await port.stopListening()

    reactor_run(dialogue())


def test_unix_socket(reactor_run: Callable[..., Any], tmp_path: Any) -> None:
    async def dialogue() -> None:
        from twisted.internet import reactor

        path = str(tmp_path / "map")
        port = await UNIXServerEndpoint(reactor, path).listen(Scripted({b"8:access x,": [b"4:OK y,"]}))
        server = parse_host(path)
        assert server is not None
        source = SocketMap("access", server, Journal([].append), reactor)
        assert await source.get("x") == "y"  # type: ignore[misc]
        source.stop()
        await port.stopListening()

    reactor_run(dialogue())


def test_key_with_control_characters_is_not_asked() -> None:
    server = parse_host("127.0.0.1:1")
    assert server is not None
    source = SocketMap("access", server, Journal([].append), Clock(), lambda reactor, host: None)  # type: ignore[arg-type, return-value]
    assert source.get("connect:a\r\nb") is None
    assert source.get("connect:" + "a" * 2000) is None


@pytest.mark.parametrize(
    ("octets", "found"),
    [
        (b"3:abc,", (b"abc", 6)),
        (b"3:abc,x", (b"abc", 6)),
        (b"0:,", (b"", 3)),
        (b"3:ab", Framing.INCOMPLETE),
        (b"3:abc", Framing.INCOMPLETE),
        (b"", Framing.INCOMPLETE),
        (b"12", Framing.INCOMPLETE),
        (b"3:abcd", Framing.WRONG),
        (b"03:abc,", Framing.WRONG),
        (b"00", Framing.WRONG),
        (b"1234567", Framing.WRONG),
        (b"100001:", Framing.WRONG),
        (b"-1:", Framing.WRONG),
        (b"x", Framing.WRONG),
    ],
)
def test_netstrings(octets: bytes, found: object) -> None:
    assert read_netstring(octets) == found


@given(st.binary(max_size=200))
def test_netstring_reads_back(content: bytes) -> None:
    assert read_netstring(netstring(content) + b"rest") == (content, len(netstring(content)))


@given(st.binary(max_size=60))
def test_no_octets_raise(octets: bytes) -> None:
    read_netstring(octets)
    interpret(octets)
