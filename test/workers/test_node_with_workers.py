"""A node of several processes, from outside: who answers whom, what happens when a worker dies, what reaches all of them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import smtplib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from smtpf.process.steering import Steering
from smtpf.workers.options import usable_cores
from test.support.node_process import PATIENCE, ROOT, NodeProcess, wait_until

INSIDE = "SMTPF_TEST_PRIVATE_NETWORK"
"""Set in the environment of tests that run in a network of their own, where all of 10.9.8.0/24 is this machine."""


QUIET = "grey-key=\n-mail-require-mx\nspf-mail-policy=\n-rfc2606-special-domains"
"""Options that let unknown clients in without a DNS."""
OTHER = 2
"""A client of the worker that does not answer client 1."""


def place_of(number: int, places: int = 2) -> int:
    """The place of the worker that is to answer client ``number``, which is at 127.0.0.``number``."""
    return (number - 1) % places


def dial(node: Node, number: int = 1) -> tuple[socket.socket, bytes]:
    """A connection of client ``number`` with its worker, which is whoever answers first as long as there are none, and the banner."""
    while True:
        made = socket.create_connection(("127.0.0.1", node.port), PATIENCE, (f"127.0.0.{number}", 0))
        banner = made.recv(1000)
        if not banner:
            made.close()
            raise ConnectionResetError
        pids = dict(node.workers())
        if not pids or banner.split()[-1].decode()[6:11] == f"{pids[place_of(number, node.places) + 1] % 100000:05d}":
            return made, banner
        # Any worker may answer a client of this machine. This session has ended when the connection is closed.
        made.sendall(b"QUIT\r\n")
        while made.recv(1000):
            pass
        made.close()


class Client(smtplib.SMTP):
    """Client ``number``."""

    def __init__(self, node: Node, number: int) -> None:
        super().__init__(timeout=PATIENCE)
        self.sock, _ = dial(node, number)


class Hop:
    """A next hop that takes everything and remembers the subjects, in threads of this process."""

    def __init__(self) -> None:
        self.subjects: list[str] = []
        self._server = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            self._talk(connection)
        except OSError:
            # The node's process was killed.
            return

    def _talk(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            connection.sendall(b"220 hop\r\n")
            for line in lines:
                verb = line[:4].upper()
                if verb == b"DATA":
                    connection.sendall(b"354 go\r\n")
                    for content in lines:
                        if content.startswith(b"Subject: "):
                            subject = content[9:].strip().decode()
                        if content == b".\r\n":
                            break
                    self.subjects.append(subject)
                connection.sendall(b"250-hop\r\n250 PIPELINING\r\n" if verb == b"EHLO" else b"250 ok\r\n")
                if verb == b"QUIT":
                    return

    def close(self) -> None:
        # Lets the thread leave accept(). A signal to all threads, as seteuid sends, would let it go on at whoever has the number by then.
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()


@pytest.fixture
def hop() -> Iterator[Hop]:
    made = Hop()
    yield made
    made.close()


class Node(NodeProcess):
    places = 2

    def __init__(self, folder: Path, hop: Hop, options: str = "", access: str = "", route: str = "") -> None:
        route = f"{route}route:example.com FORWARD: 127.0.0.1:{hop.port}\nroute:127.0.0.1 FORWARD: 127.0.0.1:{hop.port}; RELAY\n"
        options = f"workers=2\nforward-reuse-idle=1\ndns-max-timeout=1\ndns-servers=127.0.0.1:9\n{options}"
        super().__init__(folder, route=route, access=access, options=options)

    def client(self, number: int = 1) -> Client:
        return Client(self, number)

    def workers(self) -> list[tuple[int, int]]:
        """Number and process id of each worker ever ready, in order."""
        found = [re.search(r" worker (\d+) ready pid=(\d+)", line) for line in self.logged("#1137")]
        return [(int(each[1]), int(each[2])) for each in found if each]

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)


@pytest.fixture
def node(tmp_path: Path, hop: Hop) -> Iterator[Node]:
    made = Node(tmp_path / "node", hop)
    made.start()
    yield made
    made.stop()


def session_of(client: smtplib.SMTP) -> str:
    """The session id, which ends each reply."""
    return client.docmd("NOOP")[1].decode().split()[-1]


def stat(node: Node, *names: str) -> list[int]:
    with node.client() as client:
        lines = client.docmd("STAT", "R")[1].decode().splitlines()
    values = dict(line.split(" ")[-2].split("=") for line in lines if "%" in line)
    return [int(values[name]) for name in names]


def send(node: Node, number: int, subject: str) -> None:
    with node.client(number) as client:
        client.sendmail("joe@example.org", ["ann@example.com"], f"Subject: {subject}\r\n\r\nhello\r\n")


def test_each_client_has_one_worker_and_all_workers_have_clients(node: Node) -> None:
    owners: dict[int, set[str]] = {}
    for _ in range(2):
        for number in range(1, 9):
            with node.client(number) as client:
                owners.setdefault(number, set()).add(session_of(client)[6:11])
    assert all(len(pids) == 1 for pids in owners.values())
    assert {pid for pids in owners.values() for pid in pids} == {f"{pid % 100000:05d}" for _, pid in node.workers()}
    assert len(node.workers()) == 2


def test_statistics_count_all_workers(node: Node, hop: Hop) -> None:
    for number in range(1, 9):
        send(node, number, str(number))
    assert stat(node, "MESSAGES", "msg-accept") == [8, 8]
    assert sorted(hop.subjects) == [str(number) for number in range(1, 9)]


def test_commands_reach_all_workers(node: Node) -> None:
    clients = [node.client(number) for number in range(1, 9)]
    sids = [session_of(client) for client in clients]
    code, text = clients[0].docmd("CONN")
    listed = text.decode()
    assert code == 214
    assert all(sid in listed for sid in sids)
    assert " cn=8 " in listed.splitlines()[0]
    code, text = clients[0].docmd("KILL", sids[7])
    assert (code, b"#324" in text) == (214, True)
    assert clients[7].getreply()[0] == 550
    assert clients[0].docmd("KILL", "2ALCop039310000100")[0] == 504
    assert clients[1].docmd("OPTN", "-smtp-enable-esmtp")[0] == 214
    assert b" ESMTP " not in banner(node, 1) + banner(node, OTHER)
    assert clients[0].docmd("CACHE", "PUT dumb:a 2")[0] == 211
    assert b'd="2"' in clients[6].docmd("CACHE", "GET dumb:a")[1]
    assert clients[2].docmd("KILL", sids[2])[0] == 214
    assert clients[2].getreply()[0] == 550
    for client in clients:
        client.close()


def test_a_worker_killed_under_load_is_replaced_and_nothing_accepted_is_lost(node: Node, hop: Hop) -> None:
    accepted: list[str] = []
    stop = threading.Event()

    def sending(number: int) -> None:
        count = 0
        while not stop.is_set():
            count += 1
            subject = f"{number}-{count}"
            try:
                send(node, number, subject)
            except (OSError, smtplib.SMTPException):
                continue
            accepted.append(subject)

    senders = [threading.Thread(target=sending, args=(number,), daemon=True) for number in range(1, 9)]
    for sender in senders:
        sender.start()
    wait_until(lambda: len(accepted) > 40)
    victim, pid = node.workers()[0]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(node.workers()) == 3)
    before = len(accepted)
    wait_until(lambda: len(accepted) > before + 40)
    stop.set()
    for sender in senders:
        sender.join()
    assert set(accepted) <= set(hop.subjects)
    (ended,) = node.logged("#1138")
    assert f"worker {victim} pid={pid} ended: signal 9; cn=" in ended
    number, replacement = node.workers()[2]
    assert number == victim
    assert replacement != pid
    for number in range(1, 9):
        send(node, number, f"after-{number}")
    assert {f"after-{number}" for number in range(1, 9)} <= set(hop.subjects)
    wait_until(lambda: b" cn=1 " in _conn(node))


def _conn(node: Node) -> bytes:
    with node.client() as client:
        return client.docmd("CONN")[1]


def test_clients_of_this_machine_are_answered_while_a_worker_hangs(node: Node) -> None:
    pid = dict(node.workers())[1]
    os.kill(pid, signal.SIGSTOP)
    try:
        for _ in range(10):
            assert banner(node, OTHER).startswith(b"220 ")
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel steers clients on Linux only")
def test_workers_accept_their_clients_themselves(node: Node) -> None:
    node.signal(signal.SIGSTOP)
    try:
        assert banner(node, 1).startswith(b"220 ")
        assert banner(node, OTHER).startswith(b"220 ")
    finally:
        node.signal(signal.SIGCONT)


def test_passed_sockets_are_shared_out(tmp_path: Path, hop: Hop) -> None:
    node = Node(tmp_path / "node", hop, options="interface-name=activated.example")
    with socket.create_server(("127.0.0.1", node.port), backlog=50) as listener:
        node.start(passed=listener)
    try:
        assert {_owner(node, 1), _owner(node, OTHER)} == {f"{pid % 100000:05d}" for _, pid in node.workers()}
        assert b"220 activated.example " in banner(node, 1)
    finally:
        node.stop()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel steers clients on Linux only")
def test_clients_of_this_machine_meet_any_worker(node: Node) -> None:
    owners = set()
    for _ in range(40):
        with smtplib.SMTP("127.0.0.1", node.port, timeout=PATIENCE) as client:
            owners.add(session_of(client)[6:11])
    assert owners == {f"{pid % 100000:05d}" for _, pid in node.workers()}


def spoken_for(node: Node, number: int, address: str) -> tuple[Client, int]:
    """The session of a front end that names the client at ``address``, and what that one hears first."""
    client = node.client(number)
    return client, client.docmd("XCLIENT", f"ADDR={address} NAME=client.example.com")[0]


def test_limits_on_clients_behind_a_front_end_are_exact(tmp_path: Path, hop: Hop) -> None:
    quiet = f"{QUIET}\nrate-421-delay=0\nconcurrent-421-delay=0\n-client-ptr-required\nsmtp-drop-after=0"
    limits = "rate-connect:192.0.2.7 5\nconcurrent-connect:192.0.2.8 3\nnull-rate-to:ann@example.com 3\n"
    node = Node(tmp_path / "node", hop, access=limits, options=quiet)
    node.start()
    try:
        heard = []
        for number in range(1, 9):
            client, code = spoken_for(node, number, "192.0.2.7")
            heard.append(code)
            client.close()
        assert heard == [220] * 5 + [421] * 3
        held = [spoken_for(node, number, "192.0.2.8") for number in range(1, 5)]
        assert [code for _, code in held] == [220] * 3 + [421]
        owner = session_of(held[0][0])[6:11]
        held[1][0].quit()
        wait_until(lambda: sum("i=192.0.2.8 " in line for line in node.logged("#721")) == 2)
        held.append(spoken_for(node, 3, "192.0.2.8"))
        assert held[-1][1] == 220
        # With a worker go all whom it has counted: of 192.0.2.8 nobody is left.
        os.kill(next(pid for _, pid in node.workers() if f"{pid % 100000:05d}" == owner), signal.SIGKILL)
        wait_until(lambda: len(node.workers()) == 3)
        held += [spoken_for(node, number, "192.0.2.8") for number in (1, 2, 2, 2)]
        assert [code for _, code in held[-4:]] == [220, 220, 220, 421]
        outcomes = []
        for number in range(1, 6):
            with node.client(number) as client:
                client.docmd("XCLIENT", "ADDR=192.0.2.9 NAME=client.example.com")
                client.ehlo()
                client.mail("")
                client.rcpt("ann@example.com")
                try:
                    outcomes.append(client.data("Subject: x\r\n\r\nhello\r\n")[0])
                except smtplib.SMTPDataError as refused:
                    outcomes.append(refused.smtp_code)
        assert outcomes == [250] * 3 + [550] * 2
        for client, _ in held:
            client.close()
    finally:
        node.stop()


def test_limits_on_clients_behind_a_load_balancer_are_exact(tmp_path: Path, hop: Hop) -> None:
    options = f"{QUIET}\nrate-421-delay=0\n-client-ptr-required\nrate-throttle=0\nproxy-protocol-from=127.0.0.0/8"
    node = Node(tmp_path / "node", hop, access="rate-connect:192.0.2.7 15\n", options=options)
    node.start()
    try:
        balancer = [socket.create_connection(("127.0.0.1", node.port), PATIENCE) for _ in range(20)]
        for connection in balancer:
            connection.sendall(b"PROXY TCP4 192.0.2.7 127.0.0.1 4000 25\r\n")
        assert sorted(connection.recv(1000)[:3] for connection in balancer) == [b"220"] * 15 + [b"421"] * 5
        for connection in balancer:
            connection.close()
        assert len({line.split("smtpf[")[1].split("]")[0] for line in node.logged("#637")}) == 2
    finally:
        node.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a socket of another user")
def test_clients_are_handed_over_where_they_cannot_be_steered(tmp_path: Path, hop: Hop) -> None:
    node = Node(tmp_path / "node", hop)
    os.seteuid(65534)
    try:
        listener = socket.create_server(("127.0.0.1", node.port), backlog=50)
    finally:
        os.seteuid(0)
    with listener:
        node.start(passed=listener)
    try:
        owners: dict[str, set[int]] = {}
        for number in (*range(1, 9), *range(1, 9)):
            with node.client(number) as client:
                owners.setdefault(session_of(client)[6:11], set()).add(place_of(number))
        assert len(owners) == 2
        assert all(len(places) == 1 for places in owners.values())
        send(node, 1, "handed over")
        assert hop.subjects == ["handed over"]
        clients = [node.client(number) for number in (1, OTHER)]
        assert b" cn=2 " in clients[0].docmd("CONN")[1]
        for client in clients:
            client.quit()
        wait_until(lambda: b" cn=1 " in _conn(node))
        victim = dict(node.workers())[1]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: len(node.workers()) == 3)
        for number in (1, OTHER):
            send(node, number, f"after {number}")
        node.signal(signal.SIGQUIT)
        assert node.process is not None
        assert node.process.wait(PATIENCE) == 0
    finally:
        node.stop()


@pytest.mark.skipif(usable_cores() < 2, reason="on a single core there is a single process")
def test_a_single_process_that_is_busy_starts_workers_and_loses_nobody(tmp_path: Path, hop: Hop) -> None:
    node = Node(tmp_path / "node", hop, options=f"workers=0\nsmtp-drop-after=0\nstats-map=sql!{tmp_path}/stats.sq3")
    node.places = usable_cores()
    node.start()
    try:
        early = node.client(1)
        coordinator = session_of(early)[6:11]
        send(node, 1, "alone")
        assert node.workers() == []
        stop = threading.Event()
        busy = threading.Thread(target=_keep_busy, args=(node, stop), daemon=True)
        busy.start()
        wait_until(lambda: len(node.workers()) == usable_cores())
        stop.set()
        busy.join()
        wait_until(lambda: _owner(node, 1) != coordinator)
        late = [node.client(number) for number in range(1, usable_cores() + 1)]
        assert {session_of(client)[6:11] for client in late} == {f"{pid % 100000:05d}" for _, pid in node.workers()}
        listed = early.docmd("CONN")[1].decode()
        assert all(session_of(client) in listed for client in (early, *late))
        early.sendmail("joe@example.org", ["ann@example.com"], "Subject: early\r\n\r\nhello\r\n")
        late[0].sendmail("joe@example.org", ["ann@example.com"], "Subject: late\r\n\r\nhello\r\n")
        assert sorted(hop.subjects) == ["alone", "early", "late"]
        assert stat(node, "MESSAGES") == [3]
        assert late[0].docmd("KILL", session_of(early))[0] == 214
        assert early.getreply()[0] == 550
        node.signal(signal.SIGTERM)
        assert [client.getreply()[0] for client in late] == [421] * len(late)
        assert node.process is not None
        assert node.process.wait(PATIENCE) == 0
    finally:
        node.stop()


def _keep_busy(node: Node, stop: threading.Event) -> None:
    """Let the node answer commands as fast as it can."""
    commands = b"NOOP\r\n" * 500
    with socket.create_connection(("127.0.0.1", node.port), timeout=PATIENCE) as client, client.makefile("rb") as replies:
        replies.readline()
        client.sendall(b"EHLO busy.example\r\n")
        while replies.readline()[3:4] == b"-":
            pass
        while not stop.is_set():
            client.sendall(commands)
            for _ in range(500):
                replies.readline()


def _owner(node: Node, number: int) -> str:
    """The process id, as in session ids, of the process that answers 127.0.0.``number``."""
    with node.client(number) as client:
        return session_of(client)[6:11]


def test_reload_reaches_all_workers(node: Node) -> None:
    assert b" ESMTP " in banner(node, 1)
    with node.file.open("a") as file:
        file.write("-smtp-enable-esmtp\n")
    pids = node.workers()
    node.log.rename(node.log.with_suffix(".1"))
    node.workers = lambda: pids  # type: ignore[method-assign]
    node.signal(signal.SIGHUP)
    wait_until(lambda: node.logged("#1135") != [])
    assert b" ESMTP " not in banner(node, 1) + banner(node, OTHER)
    wait_until(lambda: len({line.split("smtpf[")[1].split("]")[0] for line in node.logged("#721")}) == 2)


def banner(node: Node, number: int) -> bytes:
    """What a client at 127.0.0.``number`` hears first."""
    client, greeting = dial(node, number)
    client.close()
    return greeting


def test_slow_quit_waits_for_the_sessions_of_all_workers(node: Node, hop: Hop) -> None:
    clients = [node.client(1), node.client(OTHER)]
    assert len({session_of(client)[6:11] for client in clients}) == 2
    node.signal(signal.SIGQUIT)
    wait_until(lambda: node.logged("#722") != [])
    assert " cn=2" in node.logged("#722")[0]
    for number, client in enumerate(clients):
        client.sendmail("joe@example.org", ["ann@example.com"], f"Subject: last {number}\r\n\r\nhello\r\n")
        client.quit()
    assert node.process is not None
    assert node.process.wait(PATIENCE) == 0
    assert sorted(hop.subjects) == ["last 0", "last 1"]


def test_the_end_tells_clients_of_all_workers_and_saves_their_counts(tmp_path: Path, hop: Hop) -> None:
    node = Node(tmp_path / "node", hop, options=f"stats-map=sql!{tmp_path}/stats.sq3")
    node.start()
    for number in range(1, 9):
        send(node, number, str(number))
    clients = [node.client(1), node.client(OTHER)]
    node.signal(signal.SIGTERM)
    assert [client.getreply()[0] for client in clients] == [421, 421]
    assert node.process is not None
    assert node.process.wait(PATIENCE) == 0
    node.log.unlink()
    again = Node(tmp_path / "node", hop, options=f"stats-map=sql!{tmp_path}/stats.sq3")
    again.start()
    try:
        with again.client() as client:
            lines = client.docmd("STAT", "H")[1].decode().splitlines()
        assert any(" MESSAGES=8 " in line for line in lines)
    finally:
        again.stop()


def test_workers_end_when_the_coordinator_is_killed(node: Node) -> None:
    client = node.client(1)
    node.signal(signal.SIGKILL)
    assert client.getreply()[0] == 421
    wait_until(lambda: not any(_lives(pid) for _, pid in node.workers()))


def test_signals_to_the_whole_group_are_the_coordinators_business(node: Node) -> None:
    for _, pid in node.workers():
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            os.kill(pid, number)
    with node.client(1) as one, node.client(OTHER) as two:
        assert one.noop()[0] == two.noop()[0] == 250
    assert len(node.workers()) == 2


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def test_a_worker_that_cannot_start_ends_the_start(tmp_path: Path, hop: Hop) -> None:
    node = Node(tmp_path / "node", hop)
    broken = tmp_path / "broken" / "smtpf_broken.py"
    broken.parent.mkdir()
    broken.write_text("import os, sys\nif sys.argv[0] == '-m': os._exit(7)\n")
    (broken.parent / "sitecustomize.py").write_text("import smtpf_broken\n")
    environment = {**os.environ, "PYTHONPATH": f"{broken.parent}{os.pathsep}{ROOT}"}
    command = [str(Path(sys.executable).parent / "twistd"), "-n", "--pidfile=", "smtpf", f"file={node.file}", "-daemon"]
    done = subprocess.run(command, cwd=node.folder, env=environment, capture_output=True, timeout=PATIENCE)
    assert done.returncode == 1
    assert "exit status 7" in node.logged("#1138")[0]
    assert node.logged("#599") == []


@pytest.mark.skipif(INSIDE in os.environ, reason="this test starts the others")
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("ip"), reason="needs a private network")
def test_limits_on_clients_are_exact() -> None:
    """Clients of this machine have no limits, so these need addresses that are not loopback ones."""
    network = "ip link set lo up && ip addr add 10.9.8.0/24 dev lo"
    inner = f"{network} && exec {sys.executable} -m pytest -q -p no:cacheprovider {__file__} -k private"
    done = subprocess.run(
        ["unshare", "-n", "sh", "-c", inner], env={**os.environ, INSIDE: "1"}, capture_output=True, text=True, timeout=300, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr


def attempt(node: Node, number: int) -> bytes:
    with socket.create_connection(("10.9.8.200", node.port), timeout=PATIENCE, source_address=(f"10.9.8.{number}", 0)) as client:
        return client.recv(1000)


@pytest.mark.skipif(INSIDE not in os.environ, reason="needs a private network")
def test_private_connection_rate_of_each_client(tmp_path: Path, hop: Hop) -> None:
    node = Node(tmp_path / "node", hop, options="rate-421-delay=0\n-client-ptr-required", access="rate-connect:10.9.8 5\n")
    node.file.write_text(node.file.read_text().replace(f'"127.0.0.1:{node.port}"', f'"0.0.0.0:{node.port}"'))
    node.start()
    try:
        answers: dict[int, list[bytes]] = {number: [] for number in range(1, 9)}

        def knock(number: int) -> None:
            for _ in range(8):
                answers[number].append(attempt(node, number)[:3])

        knocking = [threading.Thread(target=knock, args=(number,), daemon=True) for number in answers]
        for each in knocking:
            each.start()
        for each in knocking:
            each.join()
        assert {tuple(each) for each in answers.values()} == {(b"220",) * 5 + (b"421",) * 3}
        assert len({line.split("smtpf[")[1].split("]")[0] for line in node.logged("#637")}) == 2
    finally:
        node.stop()


@pytest.mark.skipif(INSIDE not in os.environ, reason="needs a private network")
def test_private_clients_of_a_dead_worker_wait_for_the_one_in_its_place(tmp_path: Path, hop: Hop) -> None:
    node = Node(tmp_path / "node", hop, options="-client-ptr-required")
    node.file.write_text(node.file.read_text().replace(f'"127.0.0.1:{node.port}"', f'"0.0.0.0:{node.port}"'))
    node.start()
    try:
        there, elsewhere = (next(n for n in range(1, 200) if Steering(2).place_of(f"10.9.8.{n}", 0) == place) for place in (0, 1))
        pid = dict(node.workers())[1]
        os.kill(pid, signal.SIGSTOP)
        with socket.create_connection(("10.9.8.200", node.port), PATIENCE, (f"10.9.8.{there}", 0)) as waiting:
            assert attempt(node, elsewhere).startswith(b"220")
            os.kill(pid, signal.SIGKILL)
            assert waiting.recv(1000).startswith(b"220")
    finally:
        node.stop()


@pytest.mark.skipif(INSIDE not in os.environ, reason="needs a private network")
def test_private_message_limit_over_all_clients(tmp_path: Path, hop: Hop) -> None:
    node = Node(tmp_path / "node", hop, access="msg-limit-to:ann@example.com 5/1h\n", options=QUIET)
    node.file.write_text(node.file.read_text().replace(f'"127.0.0.1:{node.port}"', f'"0.0.0.0:{node.port}"'))
    node.start()
    try:
        outcomes = []
        for number in range(1, 11):
            with smtplib.SMTP("10.9.8.200", node.port, "client.example", PATIENCE, (f"10.9.8.{number}", 0)) as client:
                client.ehlo()
                client.mail("joe@example.org")
                outcomes.append(client.rcpt("ann@example.com"))
                if outcomes[-1][0] == 250:
                    outcomes[-1] = client.data("Subject: x\r\n\r\nhello\r\n")
        assert [code for code, _ in outcomes].count(250) == 5, outcomes
    finally:
        node.stop()
