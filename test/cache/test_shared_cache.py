"""The cache on a real redis-server: the same rules as the file's, and what happens when the server goes away at each step."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
from twisted.internet.defer import Deferred, ensureDeferred, maybeDeferred
from twisted.internet.task import deferLater

from smtpf.cache import resp, server
from smtpf.cache.opening import CACHE_PATH, OPEN_ERROR, CacheOpenError
from smtpf.cache.peers import CACHE_HOSTS, CACHE_MULTICAST_IP, CACHE_UNICAST_DOMAIN, CACHE_UNICAST_HOSTS
from smtpf.cache.records import Record
from smtpf.cache.server import AWAY, UP
from smtpf.cache.shared import MEMORY_SECONDS, NO_CLUSTER, SharedCache, node_cache_from
from smtpf.cache.store import DELETE_ERROR, GET_ERROR, PUT_ERROR, CacheError, FileCache
from smtpf.journal.journal import Entry, Journal
from smtpf.settings.store import Settings
from test.support.certificates import Authority
from test.support.node_process import free_port
from test.support.redis_server import PROGRAM, RedisServer

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="neither valkey-server nor redis-server is installed")

NOW = 1_000_000


class Desk:
    """One node's cache, its log and its clock."""

    def __init__(self, path: str, **options: str) -> None:
        self.lines: list[Entry] = []
        self.journal = Journal(self.lines.append, now=lambda: 0.0, pid=1)
        self.time = float(NOW)
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.cache = node_cache_from(
            Settings.of({CACHE_PATH: path}), self.journal, reactor, rng=Random(1), now=lambda: self.time
        )  # fmt: skip
        assert isinstance(self.cache, SharedCache)

    def numbers(self) -> list[int]:
        return [entry.message.number for entry in self.lines]

    async def until(self, true: Callable[[], bool]) -> None:
        """Turn the reactor until ``true()``."""
        while not true():
            await deferLater(self.reactor, 0.01)

    async def settled(self) -> None:
        """Until all that was put has been answered."""
        await self.until(lambda: not self.cache._pending)

    async def get(self, key: str) -> Record | None:
        return await self.cache.fetch(key, "sid")


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    made = RedisServer(tmp_path).start()
    yield made
    made.kill()


@pytest.fixture
def together(redis: RedisServer, reactor_run: Any) -> Iterator[Callable[..., Any]]:
    """``together(work, nodes=1)``: run ``work(*desks)`` with that many nodes on one server."""

    def run(work: Callable[..., Any], nodes: int = 1, path: str = "") -> Any:
        async def all_of_it() -> Any:
            desks = [Desk(path or f"redis://127.0.0.1:{redis.port}/3") for _ in range(nodes)]
            for desk in desks:
                await desk.cache.start()
            try:
                return await work(*desks)
            finally:
                for desk in desks:
                    await desk.cache.stop()

        return reactor_run(all_of_it())

    yield run


def fields(redis: RedisServer, key: str, db: int = 3) -> tuple[str, ...] | None:
    with socket.create_connection(("127.0.0.1", redis.port)) as client:
        client.sendall(f"SELECT {db}\r\nHMGET smtpf:{key} d h c t e\r\nTTL smtpf:{key}\r\nQUIT\r\n".encode())
        lines = client.makefile("rb").read().decode().split("\r\n")
    if "$-1" in lines:
        return None
    return (*lines[3:13:2], lines[12][1:])


def test_put_and_touch_keep_the_rules_of_the_file(redis: RedisServer, together: Any) -> None:
    async def work(desk: Desk) -> None:
        desk.cache.put("rcpt:a@b.c", "2")
        await desk.settled()
        assert fields(redis, "rcpt:a@b.c") == ("2", "1", "1000000", "1000000", "1604800", "604800")
        desk.time += 500
        found = await desk.get("rcpt:a@b.c")
        assert found is not None
        desk.cache.touch(found)
        await desk.settled()
        assert fields(redis, "rcpt:a@b.c") == ("2", "2", "1000000", "1000500", "1605300", "604800")
        desk.cache.put("sav:x@y.z", "4")
        await desk.settled()
        assert fields(redis, "sav:x@y.z") == ("4", "1", "1000500", "1000500", "1007700", "7200")

    together(work)


def test_a_record_is_gone_in_the_second_it_ends_and_is_then_made_anew(redis: RedisServer, together: Any) -> None:
    async def work(desk: Desk) -> None:
        desk.cache.put("a:b", "2", expires=NOW + 100)
        await desk.settled()
        desk.time += 100
        assert await desk.get("a:b") is None
        desk.cache.put("a:b", "5", ttl=10)
        await desk.settled()
        assert fields(redis, "a:b") == ("5", "1", "1000100", "1000100", "1000110", "10")
        desk.cache.put("a:b", "5", ttl=0)
        await desk.settled()
        assert fields(redis, "a:b") is None

    together(work)


def test_octets_that_are_no_text_come_back_as_they_were(together: Any) -> None:
    async def work(desk: Desk) -> None:
        key, value = "click:\udcff\x00\r\n", "2 \udc80\r\n$5"
        desk.cache.put(key, value)
        await desk.settled()
        desk.cache.forget()
        found = await desk.get(key)
        assert found is not None and found.value == value

    together(work)


def test_another_node_sees_a_record_at_once_and_a_change_of_it_soon(together: Any) -> None:
    async def work(one: Desk, two: Desk) -> None:
        one.cache.put("grey:192.0.2.1", "4", ttl=90000)
        await one.settled()
        found = await two.get("grey:192.0.2.1")
        assert found is not None and (found.value, found.c) == ("4", NOW)
        one.time = two.time = NOW + 1
        one.cache.put("grey:192.0.2.1", "0")
        await one.settled()
        seen = await two.get("grey:192.0.2.1")
        assert seen is not None and seen.value == "4"
        two.time += MEMORY_SECONDS
        seen = await two.get("grey:192.0.2.1")
        assert seen is not None and (seen.value, seen.h, seen.c) == ("0", 2, NOW)

    together(work, nodes=2)


def test_counters_of_all_nodes_are_one(redis: RedisServer, together: Any) -> None:
    async def work(one: Desk, two: Desk) -> None:
        counts = [await maybeDeferred(desk.cache.increment, "msg-limit:192.0.2.1", 60) for desk in (one, two, one, two)]
        assert counts == [1, 2, 3, 4]
        one.time += 59
        assert await maybeDeferred(one.cache.increment, "msg-limit:192.0.2.1", 60, 3) == 7
        assert fields(redis, "msg-limit:192.0.2.1") == ("7", "5", "1000000", "1000059", "1000060", "1")
        one.time += 1
        assert await maybeDeferred(one.cache.increment, "msg-limit:192.0.2.1", 60) == 1
        assert fields(redis, "msg-limit:192.0.2.1") == ("1", "1", "1000060", "1000060", "1000120", "60")

    together(work, nodes=2)


def test_operator_reads_writes_and_removes(redis: RedisServer, together: Any) -> None:
    async def work(desk: Desk) -> None:
        made = await desk.cache.write("sav:a@b.c", "5")
        assert (made.value, made.e) == ("5", NOW + 604800)
        assert (await desk.cache.read("sav:a@b.c")) == made
        assert (await desk.cache.remove("sav:a@b.c")) == made
        assert await desk.cache.remove("sav:a@b.c") is None
        assert await desk.cache.read("sav:a@b.c") is None
        desk.cache.put("sav:a@b.c", "2")
        desk.cache.delete("sav:a@b.c")
        assert desk.cache.get("sav:a@b.c") is None
        await desk.settled()
        assert fields(redis, "sav:a@b.c") is None
        assert (await desk.cache.expire(), await desk.cache.count_ended("grey", "4", NOW)) == (0, 0)

    together(work)


def test_many_requests_at_once_get_each_its_own_answer(together: Any) -> None:
    async def work(desk: Desk) -> None:
        for number in range(1000):
            desk.cache.put(f"k:{number}", str(number), ttl=100)
        await desk.settled()
        desk.cache.forget()
        asked = [(number, ensureDeferred(desk.get(f"k:{number}"))) for number in range(1000)]
        for number, answer in asked:
            found = await answer
            assert found is not None and found.value == str(number)

    together(work)


def test_unix_socket_with_database(redis: RedisServer, together: Any) -> None:
    async def work(desk: Desk) -> None:
        desk.cache.put("a:b", "2", ttl=60)
        await desk.settled()
        assert fields(redis, "a:b", db=5) == ("2", "1", "1000000", "1000000", "1000060", "60")

    together(work, path=f"unix://{redis.path}?db=5")


def test_key_of_somebody_else_is_an_error_and_no_record(redis: RedisServer, together: Any) -> None:
    async def work(desk: Desk) -> None:
        redis.say("SET", "smtpf:a:b", "string")
        redis.say("HSET", "smtpf:c:d", "d", "2", "h", "many")
        assert await desk.get("a:b") is None
        assert desk.cache.failing
        assert await desk.get("c:d") is None
        desk.cache.put("a:b", "2")
        await desk.settled()
        assert desk.numbers() == [UP.number, GET_ERROR.number, GET_ERROR.number, PUT_ERROR.number]

    together(work, path=f"redis://127.0.0.1:{redis.port}")


# The server goes away


def test_server_away_at_start_lets_the_node_start_and_is_found_later(redis: RedisServer, reactor_run: Any) -> None:
    redis.kill()

    async def work() -> None:
        desk = Desk(f"redis://127.0.0.1:{redis.port}")
        await desk.cache.start()
        assert desk.cache.get("a:b", "sid") is not None
        assert await desk.get("a:b") is None
        assert desk.cache.failing
        desk.cache.put("a:b", "2")
        assert desk.cache.increment("msg-limit:x", 60) is not None
        desk.cache.delete("a:b")
        with pytest.raises(CacheError):
            await desk.cache.read("a:b")
        assert desk.numbers()[0] == AWAY.number
        assert sorted(set(desk.numbers()[1:])) == [GET_ERROR.number, PUT_ERROR.number, DELETE_ERROR.number]
        redis.start()
        await desk.until(lambda: UP.number in desk.numbers())
        desk.cache.put("a:b", "2", ttl=60)
        await desk.settled()
        found = await desk.get("a:b")
        assert found is not None
        assert desk.numbers().count(AWAY.number) == 1
        await desk.cache.stop()

    reactor_run(work())


@pytest.mark.parametrize("step", ["idle", "get", "put", "increment", "read"])
def test_server_killed_at_each_step_is_an_error_and_comes_back(redis: RedisServer, together: Any, step: str) -> None:
    async def work(desk: Desk) -> None:
        desk.cache.put("kept:a", "2", ttl=600)
        await desk.settled()
        desk.cache.forget()
        # Stopped first, so that the request is surely under way when the server dies.
        redis.freeze()
        waiting: Deferred[Any] | None = None
        if step == "get":
            waiting = ensureDeferred(desk.get("kept:a"))
        elif step == "put":
            desk.cache.put("lost:a", "2")
        elif step == "increment":
            waiting = maybeDeferred(desk.cache.increment, "msg-limit:a", 60)
        elif step == "read":
            waiting = desk.cache.read("kept:a")
        redis.kill()
        if step == "read":
            assert waiting is not None
            with pytest.raises(CacheError):
                await waiting
        elif waiting is not None:
            assert await waiting == (1 if step == "increment" else None)
        await desk.until(lambda: AWAY.number in desk.numbers() and not desk.cache._pending)
        expected = {"get": [GET_ERROR.number], "put": [PUT_ERROR.number], "increment": [PUT_ERROR.number]}.get(step, [])
        assert [number for number in desk.numbers() if number not in (UP.number, AWAY.number)] == expected
        assert await desk.get("kept:a") is None
        redis.start()
        await desk.until(lambda: desk.numbers().count(UP.number) == 2)
        found = await desk.get("kept:a")
        assert found is not None and found.value == "2"
        assert desk.numbers().count(AWAY.number) == 1

    together(work)


def test_server_that_hangs_is_given_up_in_time(redis: RedisServer, together: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resp, "ANSWER_SECONDS", 0.3)

    async def work(desk: Desk) -> None:
        redis.freeze()
        begun = desk.reactor.seconds()
        assert await desk.get("a:b") is None
        assert 0.2 < desk.reactor.seconds() - begun < 2
        assert [entry.text for entry in desk.lines if entry.message is AWAY] == [
            f"#1116 cache server redis://127.0.0.1:{redis.port}/3 away: no answer in 0.3 seconds"
        ]
        redis.thaw()
        await desk.until(lambda: desk.numbers().count(UP.number) == 2)

    together(work)


def test_queue_is_bounded(redis: RedisServer, together: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resp, "QUEUE_LIMIT", 10)

    async def work(desk: Desk) -> None:
        redis.freeze()
        for number in range(15):
            desk.cache.put(f"k:{number}", "2")
        assert desk.numbers().count(PUT_ERROR.number) == 5
        redis.thaw()
        await desk.settled()
        assert desk.numbers().count(PUT_ERROR.number) == 5

    together(work)


def test_attempts_come_ever_more_seldom() -> None:
    from twisted.internet.defer import fail
    from twisted.internet.error import ConnectionRefusedError
    from twisted.internet.task import Clock

    clock, attempts = Clock(), []

    class Nowhere:
        def connect(self, factory: Any) -> Any:
            attempts.append(clock.seconds())
            return fail(ConnectionRefusedError())

    lines: list[Entry] = []
    made = server.Server(clock, Journal(lines.append), Nowhere(), ((b"PING",),), "redis://x", Random(1))
    ensureDeferred(made.start())
    for _ in range(1200):
        clock.advance(0.1)
    pauses = [after - before for before, after in pairwise(attempts)]
    assert 8 <= len(attempts) <= 16
    assert 0.2 <= pauses[0] <= 0.4 and all(0.8 * 15 <= pause <= 1.2 * 15 + 0.1 for pause in pauses[7:])
    assert [entry.message for entry in lines] == [AWAY]
    ensureDeferred(made.stop())
    assert clock.getDelayedCalls() == []


# Passwords, TLS, options


def test_password_and_user_come_from_a_file(tmp_path: Path, reactor_run: Any) -> None:
    redis = RedisServer(tmp_path, "--requirepass", "open sesame").start()
    secret = tmp_path / "secret"
    secret.write_text("open sesame\n")

    async def work() -> None:
        desk = Desk(f"valkey://default@127.0.0.1:{redis.port}?password-file={secret}")
        await desk.cache.start()
        desk.cache.put("a:b", "2")
        await desk.settled()
        assert desk.numbers() == [UP.number]
        await desk.cache.stop()
        refused = Desk(f"redis://127.0.0.1:{redis.port}")
        await refused.cache.start()
        assert refused.numbers() == [AWAY.number]
        assert "NOAUTH" in refused.lines[0].text
        await refused.cache.stop()
        assert all("sesame" not in entry.text for entry in desk.lines + refused.lines)

    try:
        reactor_run(work())
    finally:
        redis.kill()


def test_tls_with_an_authority_of_ones_own(tmp_path: Path, reactor_run: Any) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("localhost")
    port = free_port()
    redis = RedisServer(
        tmp_path, "--tls-port", str(port), "--tls-cert-file", str(certificate), "--tls-key-file", str(key),
        "--tls-ca-cert-file", str(authority.certificate), "--tls-auth-clients", "no",
    ).start()  # fmt: skip

    async def work() -> None:
        desk = Desk(f"rediss://localhost:{port}?ca={authority.certificate}")
        await desk.cache.start()
        desk.cache.put("a:b", "2", ttl=60)
        await desk.settled()
        assert desk.numbers() == [UP.number]
        assert redis.row("a:b")["d"] == "2"
        await desk.cache.stop()
        stranger = Desk(f"rediss://localhost:{port}")
        await stranger.cache.start()
        assert stranger.numbers() == [AWAY.number]
        await stranger.cache.stop()

    try:
        reactor_run(work())
    finally:
        redis.kill()


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("redis://", "the host is missing"),
        ("redis://:hush@host/0", "a password is no part of cache-path; name its file by ?password-file="),
        ("redis://host:port", "no server address"),
        ("redis://host/first", "the database is no number"),
        ("redis://host?timeout=3", "timeout is not known here"),
        ("unix://", "unix:// takes an absolute path and no host"),
        ("unix://host/path", "unix:// takes an absolute path and no host"),
        ("redis://host?password-file=/no/such", "No such file or directory"),
        ("rediss://host?ca=/dev/null", "no certificate in the file"),
    ],
)
def test_unusable_address_ends_the_start_and_shows_no_secret(path: str, reason: str) -> None:
    from twisted.internet import reactor

    lines: list[Entry] = []
    with pytest.raises(CacheOpenError):
        node_cache_from(Settings.of({CACHE_PATH: path}), Journal(lines.append), reactor)
    assert [entry.message for entry in lines] == [OPEN_ERROR]
    assert reason in lines[0].text and "hush" not in lines[0].text


@pytest.mark.parametrize(
    ("option", "value"),
    [(CACHE_MULTICAST_IP, "232.1.1.1"), (CACHE_UNICAST_DOMAIN, "mx.example"), (CACHE_UNICAST_HOSTS, "a;b"), (CACHE_HOSTS, "a")],
)
def test_cluster_options_beside_a_server_end_the_start(option: Any, value: str) -> None:
    lines: list[Entry] = []
    with pytest.raises(CacheOpenError):
        node_cache_from(Settings.of({CACHE_PATH: "redis://host", option: value}), Journal(lines.append), None)
    assert [entry.text for entry in lines] == [
        f"#{NO_CLUSTER.number} cache-path=redis://host is shared by its server, but {option.name} is set"
    ]


def test_a_file_is_still_a_file(tmp_path: Path) -> None:
    from twisted.internet import reactor

    made = node_cache_from(Settings.of({CACHE_PATH: str(tmp_path / "c.sq3")}), Journal([].append), reactor)
    assert isinstance(made, FileCache)
