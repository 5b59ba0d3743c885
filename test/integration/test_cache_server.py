"""Whole nodes on a real redis-server: they share what they know, and mail goes on when it is killed between any two commands."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from test.support.node_process import PATIENCE, NodeProcess, free_port, wait_until
from test.support.redis_server import PROGRAM, RedisServer
from test.support.sink import Sink

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="neither valkey-server nor redis-server is installed")

CLIENT = "192.0.2.10"


class Client:
    """A client from elsewhere, by XCLIENT."""

    def __init__(self, node: NodeProcess) -> None:
        self.socket = socket.create_connection(("127.0.0.1", node.port), timeout=PATIENCE)
        self.lines = self.socket.makefile("rb")
        self.hear()

    def hear(self) -> str:
        while True:
            line = self.lines.readline().decode()
            if line[3:4] != "-":
                return line

    def say(self, line: str) -> str:
        self.socket.sendall(line.encode() + b"\r\n")
        return self.hear()

    def close(self) -> None:
        self.lines.close()
        self.socket.close()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    made = RedisServer(tmp_path).start()
    yield made
    made.kill()


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as made:
        yield made


def node(folder: Path, sink: Sink, redis: RedisServer, options: str = "") -> NodeProcess:
    access = "xclient:127.0.0.1\tOK\nMsg-Limit-From:limited@there.example\t3/1h\n"
    return NodeProcess(
        folder, route=f"route:here.example\tFORWARD: 127.0.0.1:{sink.port}\n", access=access,
        options=f'cache-path="redis://127.0.0.1:{redis.port}/2"\ncache-gc-interval=10\nstats-map="file!{folder}/stats"\n'
        f"grey-temp-fail-period=0\n-rfc2606-special-domains\n-reject-unknown-tld\n-mail-require-mx\ndns-servers=127.0.0.1:{free_port()}\n{options}",
    )  # fmt: skip


def send(client: Client, sender: str = "someone@there.example") -> str:
    """The answer that ended it."""
    for line in ("RSET", f"MAIL FROM:<{sender}>", "RCPT TO:<ann@here.example>", "DATA"):
        answer = client.say(line)
        if answer[0] not in "23":
            return answer
    return client.say("Subject: x\r\n\r\ntext\r\n.")


STEPS = (
    f"XCLIENT ADDR={CLIENT} NAME=client.there.example", "EHLO client.there.example", "MAIL FROM:<someone@there.example>",
    "RCPT TO:<ann@here.example>", "DATA", "Subject: x\r\n\r\ntext\r\n.",
)  # fmt: skip


def test_mail_goes_on_wherever_the_server_is_killed(tmp_path: Path, redis: RedisServer, sink: Sink) -> None:
    running = node(tmp_path / "node", sink, redis).start()
    try:
        for killed_before, _ in enumerate(STEPS):
            client = Client(running)
            for number, line in enumerate(STEPS):
                if number == killed_before:
                    redis.kill()
                answer = client.say(line)
                assert answer[0] in "23", (killed_before, line, answer)
            client.close()
            ups = len(running.logged("#1115"))
            redis.start()
            wait_until(lambda ups=ups: len(running.logged("#1115")) > ups)  # type: ignore[misc]
        assert len(sink.contents) == len(STEPS)
        assert running.logged("#1116") and not running.logged("#539")
        redis.kill()
        wait_until(lambda: len(running.logged("#1116")) == len(STEPS) + 1)
        running.stop()
        assert running.process is not None and running.process.returncode == 0
        assert (tmp_path / "node" / "stats").exists()
    finally:
        running.stop()


def test_limit_holds_for_all_nodes_together(tmp_path: Path, redis: RedisServer, sink: Sink) -> None:
    nodes = [node(tmp_path / f"node{number}", sink, redis).start() for number in range(2)]
    try:
        clients = [Client(each) for each in nodes]
        for client in clients:
            client.say("EHLO client.there.example")
        answers = [send(clients[number % 2], "limited@there.example")[:3] for number in range(5)]
        assert answers[:3] == ["250"] * 3 and all(answer[0] == "4" for answer in answers[3:])
        for client in clients:
            client.close()
        assert redis.say("INFO", "keyspace")
    finally:
        for each in nodes:
            each.stop()


def test_cluster_options_beside_a_server_end_the_start(tmp_path: Path, redis: RedisServer, sink: Sink) -> None:
    made = node(tmp_path / "node", sink, redis, f"cache-unicast-hosts=127.0.0.1:{free_port()}\ncache-secret=0123456789abcdef\n")
    with pytest.raises(AssertionError):
        made.start()
    assert made.logged("#1114") and made.process is not None and made.process.returncode == 1
