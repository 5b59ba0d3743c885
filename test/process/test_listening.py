"""Option ``interfaces``, binding, socket activation, accepting, and the pauses of accepting."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock

from smtpf.journal.journal import Journal
from smtpf.process import listening as module
from smtpf.process.ending import CannotStart
from smtpf.process.interfaces import Interface, interface_name, parse_interface
from smtpf.process.listening import LOOK, PAUSE, Acceptor, Bound, Listening, passed_sockets, service_manager
from smtpf.process.steering import Steering
from smtpf.settings.process_options import INTERFACE_NAME, INTERFACES, SERVER_MAX_THREADS, TEST_MODE
from smtpf.settings.store import Settings


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("192.0.2.1", "192.0.2.1", 25),
        ("192.0.2.1:25", "192.0.2.1", 25),
        ("[192.0.2.1]:2525", "192.0.2.1", 2525),
        ("[2001:db8::1]:25", "2001:db8::1", 25),
        ("[2001:db8::1]", "2001:db8::1", 25),
        ("2001:db8::1", "2001:db8::1", 25),
        ("mx.example.net:2525", "mx.example.net", 2525),
        ("[::0]:25", "::0", 25),
        ("0.0.0.0:0", "0.0.0.0", 0),
    ],
)
def test_interface_is_an_address_or_name_with_an_optional_port(text: str, host: str, port: int) -> None:
    assert parse_interface(text) == Interface(text, host, port)


@pytest.mark.parametrize("text", ["", ":25", "[]:25", "192.0.2.1:", "192.0.2.1:65536", "192.0.2.1:smtp", "[192.0.2.1]25", "a:b:c", "1:²"])
def test_other_texts_are_no_interface(text: str) -> None:
    assert parse_interface(text) is None


@pytest.mark.parametrize(
    ("given", "address", "reverse", "name"),
    [
        ("", "192.0.2.1", "mx.example.net", "mx.example.net"),
        ("", "192.0.2.1", "", "gate.example.net"),
        ("", "0.0.0.0", "never.example.net", "gate.example.net"),
        ("", "::", "never.example.net", "gate.example.net"),
        ("mail.example.net", "192.0.2.1", "mx.example.net", "mail.example.net"),
        ("", "fe80::1%lo", "link.example.net", "link.example.net"),
    ],
)
def test_interface_name_is_that_of_the_bound_address(given: str, address: str, reverse: str, name: str) -> None:
    assert interface_name(given, address, "gate.example.net", lambda asked: reverse) == name


class Pool:
    """A pool of four idle threads."""

    min = 0
    max = 10

    def __init__(self) -> None:
        self.threads = [None] * 4
        self.waiters = [None] * 4

    def adjustPoolsize(self, maxthreads: int) -> None:
        self.threads = self.threads[:maxthreads]
        self.max = maxthreads


class Reactor(Clock):
    """Reads when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.reading: list[Any] = []
        self.pool = Pool()

    def addReader(self, reader: Any) -> None:
        if isinstance(reader, Acceptor) and reader not in self.reading:
            self.reading.append(reader)

    def removeReader(self, reader: Any) -> None:
        if reader in self.reading:
            self.reading.remove(reader)

    removeWriter = removeReader

    def getThreadPool(self) -> Pool:
        return self.pool


class Place:
    """Listening on loopback, with what it logged."""

    def __init__(self, texts: dict[Any, str], sessions: Callable[[], int] = lambda: 0, steering: Steering | None = None) -> None:
        self.log: list[str] = []
        self.reactor = Reactor()
        self.accepted: list[Any] = []
        self.listening = Listening(
            Settings.of(texts),
            Journal(lambda entry: self.log.append(entry.text)),
            self.reactor,
            "gate.example.net",
            sessions,
            lambda address: "",
            steering,
        )

    def factory(self, bound: Bound) -> Factory:
        place = self

        class Greeter(Protocol):
            def connectionMade(self) -> None:
                place.accepted.append(self.transport)

        return Factory.forProtocol(Greeter)

    def connect(self) -> socket.socket:
        return socket.create_connection(self.listening.bound[0].sockets[0].getsockname()[:2], timeout=5)


@pytest.fixture
def place() -> Iterator[Place]:
    made = Place({INTERFACES: "127.0.0.1:0"})
    made.listening.bind()
    made.listening.start(made.factory)
    yield made
    made.listening.stop()


def test_each_interface_is_told_ready_and_bound_v6_only() -> None:
    place = Place({INTERFACES: "[::1]:0;127.0.0.1:0"})
    place.listening.bind()
    assert place.log == ["#595 interface=[::1]:0 ready", "#595 interface=127.0.0.1:0 ready"]
    v6, v4 = place.listening.bound
    assert v6.sockets[0].getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1
    assert (v4.text, v4.name) == ("127.0.0.1:0", "gate.example.net")
    place.listening.stop()


def test_default_pair_of_wildcards_binds_side_by_side() -> None:
    first = Place({INTERFACES: "[::0]:0"})
    first.listening.bind()
    port = first.listening.bound[0].sockets[0].getsockname()[1]
    second = Place({INTERFACES: f"0.0.0.0:{port}", INTERFACE_NAME: "mail.example.net"})
    second.listening.bind()
    assert second.log == [f"#595 interface=0.0.0.0:{port} ready"]
    assert second.listening.bound[0].name == "mail.example.net"
    first.listening.stop()
    second.listening.stop()


def test_interface_that_fails_is_disabled_and_the_next_one_taken(place: Place) -> None:
    taken = place.listening.bound[0].sockets[0].getsockname()[1]
    other = Place({INTERFACES: f"127.0.0.1:{taken};nonsense:;127.0.0.1:0"})
    other.listening.bind()
    busy, invalid = errno.EADDRINUSE, errno.EINVAL
    assert other.log == [
        f"#596 interface=127.0.0.1:{taken} error: {os.strerror(busy)} ({busy})",
        f"#597 interface=127.0.0.1:{taken} disabled",
        f"#596 interface=nonsense: error: {os.strerror(invalid)} ({invalid})",
        "#597 interface=nonsense: disabled",
        "#595 interface=127.0.0.1:0 ready",
    ]
    other.listening.stop()


def test_no_interface_left_ends_the_start() -> None:
    place = Place({INTERFACES: "192.0.2.1:0, nonsense:"})
    with pytest.raises(CannotStart):
        place.listening.bind()
    assert place.log[-1] == '#812 no matching interfaces="192.0.2.1:0, nonsense:"'


def test_connections_are_accepted_with_their_peer(place: Place) -> None:
    client = place.connect()
    place.reactor.reading[0].doRead()
    (transport,) = place.accepted
    assert (transport.getPeer().host, transport.getPeer().port) == client.getsockname()
    assert transport.getHost().port == place.listening.bound[0].sockets[0].getsockname()[1]
    transport.abortConnection()
    client.close()


def test_replies_do_not_wait_for_acknowledgements_and_dead_clients_are_noticed(place: Place) -> None:
    client = place.connect()
    place.reactor.reading[0].doRead()
    (transport,) = place.accepted
    assert transport.getTcpNoDelay()
    assert transport.getTcpKeepAlive()
    transport.abortConnection()
    client.close()


class Exhausted:
    """A listening socket in a process without descriptors."""

    def __init__(self, number: int) -> None:
        self.number = number

    def accept(self) -> Any:
        raise OSError(self.number, os.strerror(self.number))

    def fileno(self) -> int:
        return -1


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_shortage_is_told_once_and_accepting_pauses(place: Place, number: int) -> None:
    place.log.clear()
    acceptor = place.reactor.reading[0]
    acceptor._socket = Exhausted(number)
    acceptor.doRead()
    acceptor.doRead()
    assert place.log == [f"#602 socket accept: {os.strerror(number)} ({number}); th=4 cn=0", "#603 terminating excess thread th=3 cn=0"]
    assert place.reactor.reading == []
    place.reactor.advance(PAUSE)
    assert place.reactor.reading == [acceptor]
    acceptor.doRead()
    assert len(place.log) == 4


def test_ended_session_ends_the_pause_early(place: Place) -> None:
    acceptor = place.reactor.reading[0]
    acceptor._socket = Exhausted(errno.EMFILE)
    acceptor.doRead()
    place.listening.session_ended()
    assert place.reactor.reading == [acceptor]
    assert not place.reactor.getDelayedCalls()


def test_client_that_left_before_accept_is_no_shortage(place: Place) -> None:
    place.log.clear()
    acceptor = place.reactor.reading[0]
    acceptor._socket = Exhausted(errno.ECONNABORTED)
    acceptor.doRead()
    assert place.log == []
    assert place.reactor.reading == [acceptor]


@pytest.mark.parametrize("texts", [{SERVER_MAX_THREADS: "1"}, {TEST_MODE: "+"}])
def test_clients_beyond_the_most_sessions_wait_in_the_queue(texts: dict[Any, str]) -> None:
    running: list[Any] = []
    place = Place({INTERFACES: "127.0.0.1:0", **texts}, lambda: len(running))
    place.listening.bind()
    place.listening.start(place.factory)
    acceptor = place.reactor.reading[0]
    clients = [place.connect()]
    acceptor.doRead()
    running.append(place.accepted[0])
    clients.append(place.connect())
    acceptor.doRead()
    assert (len(place.accepted), place.reactor.reading) == (1, [])
    running.clear()
    place.listening.session_ended()
    place.reactor.reading[0].doRead()
    assert len(place.accepted) == 2
    for transport in place.accepted:
        transport.abortConnection()
    for client in clients:
        client.close()
    place.listening.stop()


def test_sockets_of_a_service_manager_replace_the_option(monkeypatch: pytest.MonkeyPatch) -> None:
    inherited = socket.create_server(("127.0.0.1", 0))
    port = inherited.getsockname()[1]
    descriptor = inherited.detach()
    monkeypatch.setattr(module, "FIRST_PASSED", descriptor)
    environment = {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid()), "LISTEN_FDNAMES": "smtp", "PATH": "/bin"}
    place = Place({INTERFACES: "192.0.2.1:25"})
    place.listening.bind(environment)
    assert place.log == [f"#595 interface=127.0.0.1:{port} ready"]
    assert environment == {"PATH": "/bin"}
    place.listening.stop()


def test_sockets_meant_for_another_process_are_not_taken() -> None:
    assert passed_sockets({"LISTEN_FDS": "1", "LISTEN_PID": "1"}) == []


def test_what_twisted_has_taken_out_of_the_environment_is_known(tmp_path: Path) -> None:
    started_with = tmp_path / "environ"
    started_with.write_bytes(b"PATH=/bin\0LISTEN_FDS=2\0LISTEN_PID=17\0")
    assert service_manager({"PATH": "/usr/bin"}, started_with) == {"LISTEN_FDS": "2", "LISTEN_PID": "17"}
    assert service_manager({"LISTEN_FDS": "1"}, started_with) == {"LISTEN_FDS": "1", "LISTEN_PID": "17"}
    assert service_manager({"PATH": "/usr/bin"}, tmp_path / "missing") == {}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel steers clients on Linux only")
class TestSeveralProcesses:
    """Listening for two processes, of which this is the first to be there."""

    @pytest.fixture
    def shared(self) -> Iterator[Place]:
        made = Place({INTERFACES: "127.0.0.1:0"}, steering=Steering(2))
        made.listening.bind()
        made.listening.start(made.factory)
        yield made
        made.listening.stop()

    def test_it_reads_for_all_until_it_leaves_clients_to_others(self, shared: Place) -> None:
        sockets = [each.fileno() for each in shared.listening.bound[0].sockets]
        assert len(sockets) == 4
        assert {each.fileno() for each in shared.reactor.reading} == set(sockets)
        shared.listening.leave((1, 2, 3))
        assert [each.fileno() for each in shared.reactor.reading] == [sockets[0]]
        shared.listening.hold(1)
        assert shared.reactor.reading == []
        shared.listening.stand_in({1})
        assert shared.reactor.reading == []
        shared.reactor.advance(1)
        assert {each.fileno() for each in shared.reactor.reading} == set(sockets[:2])

    def test_what_it_has_left_it_does_not_take_up_after_a_pause(self, shared: Place) -> None:
        shared.listening.leave((0, 2, 3))
        shared.listening.hold(1)
        shared.reactor.advance(1)
        assert [each.fileno() for each in shared.reactor.reading] == [shared.listening.bound[0].sockets[1].fileno()]

    def test_its_end_closes_all_and_is_told_once(self, shared: Place) -> None:
        told: list[int] = []
        shared.listening.closing = lambda: told.append(1)
        sockets = shared.listening.bound[0].sockets
        shared.listening.stop()
        shared.listening.stop()
        assert [each.fileno() for each in sockets] == [-1, -1, -1, -1]
        assert told == [1]

    def test_a_full_node_looks_again_because_sessions_end_in_other_processes(self) -> None:
        sessions = [1]
        place = Place({INTERFACES: "127.0.0.1:0", SERVER_MAX_THREADS: "1"}, lambda: sessions[0], steering=Steering(2))
        place.listening.bind()
        place.listening.start(place.factory)
        reading = list(place.reactor.reading)
        reading[0].doRead()
        assert place.reactor.reading == []
        sessions[0] = 0
        place.reactor.advance(LOOK)
        assert place.reactor.reading == reading
        place.listening.stop()
