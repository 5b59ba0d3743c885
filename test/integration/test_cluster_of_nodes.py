"""Three whole nodes, each a process with a cache of its own: what one learns the others know, through crashes too."""

from __future__ import annotations

import signal
import socket
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from smtpf.admin.client import NotReached, Reply, RunningNode
from test.support.installation import PATIENCE, Installation, free_port, wait_until

SECRET = "a secret of more than sixteen characters"
CLIENT = "198.51.100.7"
KEY = f"grey:{CLIENT},a@sender.example,b@ours.example"


class Sink(socketserver.StreamRequestHandler):
    """A next hop that takes everything."""

    def handle(self) -> None:
        self.wfile.write(b"220 sink\r\n")
        data = False
        for line in self.rfile:
            if data and line != b".\r\n":
                continue
            verb = line[:4].upper()
            answer = b"354 go\r\n" if verb == b"DATA" else b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n"
            data = verb == b"DATA"
            self.wfile.write(answer)
            if verb == b"QUIT":
                return


class Member(Installation):
    """One node of the cluster."""

    def __init__(self, folder: Path, number: int, cluster_port: int, hop: int) -> None:
        folder.mkdir()
        super().__init__(folder)
        self.control = str(folder / "control")
        (folder / "route.cf").write_text(f"route:127.0.0.1\tRELAY\nroute:ours.example\tFORWARD: 127.0.0.1:{hop}\n")
        members = ";".join(f"127.0.0.{each}:{cluster_port}" for each in (2, 3, 4))
        self.file.write_text(
            self.file.read_text() + f'control-socket="{self.control}"\ncache-unicast-hosts="{members}"\ncache-unicast-port={cluster_port}\n'
            f'cluster-listen=127.0.0.{number}\ncache-secret="{SECRET}"\ndns-servers=127.0.0.1:9\ndns-max-timeout=1\n'
            "+smtp-xclient-enable\ngrey-key=ip,mail,rcpt\ngrey-temp-fail-period=1\n-mail-require-mx\nspf-mail-policy=\nspf-helo-policy=\n"
            '-rfc2606-special-domains\n-reject-unknown-tld\nsmtp-drop-after=0\nverbose="info,warn,grey"\n'
        )
        self.process: subprocess.Popen[str] | None = None

    def run(self) -> None:
        self.process = self.start()

    def end(self, signum: int = signal.SIGTERM) -> None:
        assert self.process is not None
        self.process.send_signal(signum)
        self.process.wait(PATIENCE)

    def ask(self, line: str) -> Reply | None:
        try:
            with RunningNode(self.control) as node:
                return node.ask(line)
        except NotReached:
            return None

    def record(self, key: str) -> str:
        """What CACHE GET shows; empty when the node is not there."""
        reply = self.ask(f"CACHE GET {key}")
        return reply.lines[-1] if reply is not None else ""

    @property
    def peers(self) -> int:
        """Other nodes that are connected."""
        reply = self.ask("CACHE ACTIVE")
        return sum("node=" in line for line in reply.lines) if reply is not None else 0

    def send(self, sender: str = "a@sender.example") -> str:
        """Send a message as ``CLIENT``; the first refusal, or the reply to its dot."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as client, client.makefile("rb") as file:

            def heard() -> str:
                while True:
                    line = file.readline().decode()
                    if line[3:4] != "-":
                        return line

            heard()
            said = ""
            for line in (
                f"XCLIENT ADDR={CLIENT} NAME=mail.sender.example", "EHLO mail.sender.example", f"MAIL FROM:<{sender}>",
                "RCPT TO:<b@ours.example>", "DATA", "Subject: x\r\n\r\ntext\r\n.",
            ):  # fmt: skip
                client.sendall(line.encode() + b"\r\n")
                said = heard()
                if said[0] in "45":
                    return said
            return said


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[list[Member]]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Sink) as hop:
        hop.daemon_threads = True
        threading.Thread(target=hop.serve_forever, daemon=True).start()
        port = free_port()
        members = [Member(tmp_path / f"node{number}", number, port, hop.server_address[1]) for number in (2, 3, 4)]
        for each in members:
            each.run()
        yield members
        for each in members:
            for process in each.started:
                if process.poll() is None:
                    process.kill()
                process.communicate(timeout=PATIENCE)
        hop.shutdown()


def alike(members: list[Member], key: str) -> bool:
    """All nodes show the same living record."""
    shown = {each.record(key) for each in members}
    return len(shown) == 1 and shown.pop().startswith('k="')


def test_what_one_node_grey_lists_another_lets_in_and_a_killed_one_learns_it_when_it_is_back(cluster: list[Member]) -> None:
    first, second, third = cluster
    wait_until(lambda: [each.peers for each in cluster] == [2, 2, 2])

    assert first.send().startswith("451 4.7.0 try again later #552 ")
    wait_until(lambda: alike(cluster, KEY))
    wait_until(lambda: second.send().startswith("250 2.0.0 "))
    wait_until(lambda: alike(cluster, f"grey:{CLIENT}"))
    assert third.send("somebody.else@sender.example").startswith("250 2.0.0 ")

    third.ask("CACHE PUT known-to-third 2")
    wait_until(lambda: alike(cluster, "known-to-third"))
    third.end(signal.SIGKILL)
    wait_until(lambda: (first.peers, second.peers) == (1, 1) or any("#1101 " in line for line in first.logged()))
    first.ask("CACHE PUT made-while-away 5 gone")
    second.ask("CACHE PUT changed-twice 2")
    wait_until(lambda: alike([first, second], "changed-twice"))
    first.ask("CACHE PUT changed-twice 4")
    first.ask("CACHE DELETE known-to-third")
    wait_until(lambda: alike([first, second], "changed-twice"))

    third.run()
    wait_until(lambda: all(alike(cluster, key) for key in ("made-while-away", "changed-twice", f"grey:{CLIENT}")))
    wait_until(lambda: all(each.record("known-to-third") == "key not found" for each in cluster))
    assert any(line.startswith("#1104 cluster sync from ") for line in third.logged())
    for each in cluster:
        each.end()
        assert each.process is not None and each.process.returncode == 0
        assert not any(line.startswith("#539") for line in each.logged())
