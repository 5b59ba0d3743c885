"""``python -m bench.cluster``: three nodes and a network between them that breaks; do all come to the same records?

Tens of thousands of grey-listing records are made by SMTP sessions on all three nodes at once, some of them on two nodes in the
same moment, while an operator puts and removes others by hand. In the middle one node is cut off, and writing goes on there and
here. Every connection between nodes runs through a proxy of ours. When the network is whole again all rows made until then must
soon be the same on all nodes, with the load going on, and at the end all rows.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import socket
import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs

from bench.cases import scratch
from bench.client import Foreigner
from bench.node import PLAIN, Node
from bench.postfix_tools import DOMAIN, Sink
from bench.processes import HOST, wait_until
from smtpf.admin.client import RunningNode

NUMBERS = (2, 3, 4)
"""Last octets of the addresses at which the nodes talk to each other."""
RECORDS = 50_000
SECONDS = 200.0
"""Over which they are written, where the machine can."""
PARTITION = 30.0
WITHIN = 5.0
"""Seconds after healing by which all nodes must have the same rows."""
RECIPIENTS = 25
"""Of one transaction; each makes a record."""
TRANSACTIONS = 20
"""Of one session."""
TWICE = 5
"""Every so many-th transaction goes to two nodes at once."""
OPERATOR_SECONDS = 1.0
PROBE_SECONDS = 0.25
LOOK_SECONDS = 0.002
PATIENCE = 60.0
OPTIONS = (
    *(option for option in PLAIN if not option.startswith("grey-key")),
    "grey-key=mail,rcpt",
    "dns-servers=127.0.0.1:9",
    "dns-max-timeout=1",
    "spf-helo-policy=",
    "smtp-reject-delay=0",
    "+smtp-xclient-enable",
    'cache-secret="a secret of more than sixteen characters"',
    'verbose="info,warn"',
)

_DIFFERENT = (
    "SELECT count(*) FROM {one}.mcc AS one LEFT JOIN {other}.mcc AS other ON one.k = other.k"
    " WHERE one.c <= ? AND (other.k IS NULL OR one.d IS NOT other.d OR one.h IS NOT other.h OR one.c IS NOT other.c"
    " OR one.e IS NOT other.e OR one.x IS NOT other.x)"
)


@attrs.define
class Net:
    """What lies between the nodes. ``cut`` holds pairs of nodes that cannot reach each other."""

    silent: bool
    """A cut is silence; else connections break and new ones are refused."""
    cut: set[frozenset[int]] = attrs.field(factory=set)
    changed: asyncio.Condition = attrs.field(factory=asyncio.Condition)


class Proxy:
    """Where node ``near`` finds node ``far``."""

    def __init__(self, net: Net, near: int, far: int, port: int) -> None:
        self._net = net
        self._ends = frozenset({near, far})
        self._near, self._far = near, far
        self._port = port
        self.address = f"127.0.{10 + near}.{far}"
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, self.address, self._port)

    def close(self) -> None:
        """Break all connections and take no more."""
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()

    async def follow(self) -> None:
        """The net has changed."""
        if self._net.silent:
            return
        if self._ends in self._net.cut:
            self.close()
        elif self._server is None or not self._server.is_serving():
            await self.open()

    async def _whole(self) -> None:
        if self._ends in self._net.cut:
            async with self._net.changed:
                await self._net.changed.wait_for(lambda: self._ends not in self._net.cut)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._whole()
        if writer.is_closing():
            return
        try:
            # A source of its own for each pair: a node takes one connection a second from each address.
            onward_reader, onward = await asyncio.open_connection(
                f"127.0.0.{self._far}", self._port, local_addr=(f"127.0.{20 + self._near}.{self._far}", 0)
            )
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, onward}
        try:
            await asyncio.gather(self._pump(reader, onward), self._pump(onward_reader, writer))
        finally:
            self._writers -= {writer, onward}
            writer.close()
            onward.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while octets := await reader.read(65536):
                await self._whole()
                writer.write(octets)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.transport.abort()


class Refused(Exception):
    """A node said something else than expected."""


class Talk:
    """One SMTP session with a node."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def begin(cls, port: int, claim: Foreigner) -> Talk:
        talk = cls(*await asyncio.open_connection(HOST, port))
        await talk.expect("220")
        for line in (b"EHLO client.elsewhere.example\r\n", claim.command, f"EHLO {claim.name}\r\n".encode()):
            talk._writer.write(line)
            await talk.expect("2")
        return talk

    async def expect(self, code: str) -> None:
        line = await self._reader.readline()
        while line[3:4] == b"-":
            line = await self._reader.readline()
        if not line.decode("ascii", "replace").startswith(code):
            raise Refused(f"{line!r} instead of {code}")

    async def transact(self, sender: str, recipients: Sequence[str]) -> None:
        """Be grey-listed once for each recipient."""
        lines = [f"MAIL FROM:<{sender}>", *(f"RCPT TO:<{recipient}>" for recipient in recipients), "DATA"]
        self._writer.write("".join(f"{line}\r\n" for line in lines).encode())
        for _ in lines[:-1]:
            await self.expect("250")
        await self.expect("451 4.7.0 try again later")
        self._writer.write(b"RSET\r\n")
        await self.expect("250")

    def drop(self) -> None:
        self._writer.close()

    async def end(self) -> None:
        self._writer.write(b"QUIT\r\n")
        await self.expect("221")
        self._writer.close()


class Rows:
    """The cache files of all nodes, read while they are in use."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._connection = sqlite3.connect("file:rows?mode=memory", uri=True, isolation_level=None, check_same_thread=False)
        self._names = [f"node{place}" for place in range(len(files))]
        for name, file in zip(self._names, files, strict=True):
            self._connection.execute(f"ATTACH ? AS {name}", (f"file:{file}?mode=ro",))

    def different(self, until: int) -> int:
        """Rows made at or before ``until`` that are not the same on all nodes."""
        pairs = zip(self._names, self._names[1:] + self._names[:1], strict=True)
        return sum(self._connection.execute(_DIFFERENT.format(one=one, other=other), (until,)).fetchone()[0] for one, other in pairs)

    def has(self, place: int, key: str) -> bool:
        words = f"SELECT 1 FROM {self._names[place]}.mcc WHERE k = ?"
        return self._connection.execute(words, (key,)).fetchone() is not None

    def count(self) -> list[int]:
        return [self._connection.execute(f"SELECT count(*) FROM {name}.mcc").fetchone()[0] for name in self._names]


@attrs.frozen
class Batch:
    """One transaction: its records carry its number."""

    number: int
    recipients: int

    @property
    def sender(self) -> str:
        return f"sender{self.number}@elsewhere.example"

    def key(self, place: int) -> str:
        return f"grey:{self.sender},r{place}.{self.number}@{DOMAIN}"

    @property
    def paths(self) -> list[str]:
        return [f"r{place}.{self.number}@{DOMAIN}" for place in range(self.recipients)]


class Trial:
    """One run."""

    def __init__(self, nodes: Sequence[Node], folder: Path, net: Net, proxies: Sequence[Proxy], asked: argparse.Namespace) -> None:
        self._nodes = nodes
        self._net = net
        self._proxies = proxies
        self._asked = asked
        self._random = random.Random(asked.seed)
        self._rows = Rows([node.folder / "cache.sq3" for node in nodes])
        self._probe_rows = Rows([node.folder / "cache.sq3" for node in nodes])
        self._made: list[str] = []
        self._probing = True
        self._done = False
        self.transactions = 0
        self.overrides = 0
        self.lags: list[float] = []
        self.unseen = 0
        self.met_within: float | None = None
        self.healed_within: float | None = None
        self.ended_within: float | None = None

    async def run(self) -> None:
        total = self._asked.records
        sizes = [RECIPIENTS] * (total // RECIPIENTS) + ([total % RECIPIENTS] if total % RECIPIENTS else [])
        queues: list[list[Batch]] = [[] for _ in self._nodes]
        for number, size in enumerate(sizes):
            place = number % len(queues)
            queues[place].append(Batch(number, size))
            if number % TWICE == 0:
                queues[(place + 1 + self._random.randrange(2)) % len(queues)].append(Batch(number, size))
        begun = time.monotonic()
        async with asyncio.TaskGroup() as beside:
            helpers = [beside.create_task(work) for work in (self._operator(), *(self._probe(place) for place in range(len(self._nodes))))]
            async with asyncio.TaskGroup() as group:
                for place, queue in enumerate(queues):
                    group.create_task(self._write(place, queue, begun))
                group.create_task(self._break())
            self._done = True
            self.written = time.monotonic() - begun
            for helper in helpers:
                helper.cancel()
        self.ended_within = await self._equal(int(time.time()) + 60)

    async def _write(self, place: int, queue: Sequence[Batch], begun: float) -> None:
        talk: Talk | None = None
        for count, batch in enumerate(queue):
            # Both nodes of a twin meet by their places in the whole, whatever the length of each queue.
            await asyncio.sleep(begun + batch.number * RECIPIENTS / self._asked.records * self._asked.seconds - time.monotonic())
            if count % TRANSACTIONS == 0:
                if talk is not None:
                    await talk.end()
                address = f"198.51.{100 + place}.{count // TRANSACTIONS % 250 + 1}"
                talk = await Talk.begin(self._nodes[place].port, Foreigner(address, "mail.elsewhere.example"))
            assert talk is not None
            await talk.transact(batch.sender, batch.paths)
            self.transactions += 1
            self._made.append(batch.key(self._random.randrange(batch.recipients)))
        if talk is not None:
            await talk.end()

    async def _break(self) -> None:
        await asyncio.sleep((self._asked.seconds - self._asked.partition) / 2)
        lonely, *others = NUMBERS
        self._probing = False
        await self._set({frozenset({lonely, other}) for other in others})
        await asyncio.sleep(self._asked.partition)
        await self._set(set())
        begun, until = time.monotonic(), int(time.time())
        async with asyncio.TaskGroup() as group:
            group.create_task(self._meet(begun))
            healed = group.create_task(self._equal(until))
        self.healed_within = healed.result()
        self._probing = True

    async def _meet(self, begun: float) -> None:
        while self.met_within is None and time.monotonic() - begun < PATIENCE:
            if await asyncio.to_thread(lambda: all(map(connected, self._nodes))):
                self.met_within = time.monotonic() - begun
            await asyncio.sleep(0.2)

    async def _set(self, cut: set[frozenset[int]]) -> None:
        async with self._net.changed:
            self._net.cut = cut
            self._net.changed.notify_all()
        for proxy in self._proxies:
            await proxy.follow()

    async def _equal(self, until: int) -> float | None:
        """Seconds until all rows made at or before ``until`` (Unix seconds) are the same; None: they do not become so."""
        begun = time.monotonic()
        while time.monotonic() - begun < PATIENCE:
            looked = time.monotonic() - begun
            if not await asyncio.to_thread(self._rows.different, until):
                return looked
            await asyncio.sleep(0.2)
        return None

    async def _operator(self) -> None:
        """Put one record and remove another, on nodes chosen at random; sometimes two put the same at once."""
        while not self._done:
            await asyncio.sleep(OPERATOR_SECONDS)
            if self._made:
                await self._override(self._random.sample(self._made, min(3, len(self._made))))

    async def _override(self, keys: Sequence[str]) -> None:
        one, other = self._random.sample([node.folder / "control" for node in self._nodes], 2)
        with RunningNode(str(one)) as near, RunningNode(str(other)) as far:
            # Values that begin with 4 leave the attempt waiting, should its twin come only now.
            await asyncio.to_thread(near.ask, f"CACHE PUT {keys[0]} 4 by hand")
            await asyncio.to_thread(far.ask, f"CACHE DELETE {keys[-1]}")
            disputed = keys[len(keys) // 2]
            await asyncio.gather(
                *(asyncio.to_thread(node.ask, f"CACHE PUT {disputed} 4 {text}") for node, text in ((near, "a"), (far, "b")))
            )
        self.overrides += 4

    async def _probe(self, place: int) -> None:
        """Make a record and look when the others have it."""
        others = [other for other in range(len(self._nodes)) if other != place]
        talk = await Talk.begin(self._nodes[place].port, Foreigner(f"203.0.113.{place + 1}", "probe.elsewhere.example"))
        number = 0
        try:
            while True:
                await asyncio.sleep(PROBE_SECONDS * self._random.uniform(0.5, 1.5))
                if not self._probing:
                    continue
                number += 1
                recipient = f"probe{place}.{number}@{DOMAIN}"
                await talk.transact("probe@elsewhere.example", [recipient])
                await self._seen(f"grey:probe@elsewhere.example,{recipient}", others)
                if number % TRANSACTIONS == 0:
                    await talk.end()
                    talk = await Talk.begin(self._nodes[place].port, Foreigner(f"203.0.113.{place + 1}", "probe.elsewhere.example"))
        except asyncio.CancelledError:
            talk.drop()

    async def _seen(self, key: str, others: Sequence[int]) -> None:
        begun = time.monotonic()
        waiting = list(others)
        while waiting and time.monotonic() - begun < WITHIN:
            for other in list(waiting):
                if self._probe_rows.has(other, key):
                    waiting.remove(other)
                    self.lags.append((time.monotonic() - begun) * 1000)
            await asyncio.sleep(LOOK_SECONDS)
        if waiting and self._probing:
            self.unseen += len(waiting)

    def counts(self) -> list[int]:
        return self._rows.count()


def connected(node: Node) -> bool:
    """All other nodes are connected."""
    log = node.log.read_text(errors="replace")
    return log.count("#1100 ") - log.count("#1101 ") == len(NUMBERS) - 1


def shared_port() -> int:
    """A port that is free at every address of the loopback."""
    with socket.create_server(("", 0)) as chosen:
        port: int = chosen.getsockname()[1]
        return port


async def prove(asked: argparse.Namespace, tell: Callable[[str], object]) -> bool:
    """Run it; whether the nodes passed."""
    net, port = Net(asked.cut == "silent"), shared_port()
    proxies = [Proxy(net, near, far, port) for near in NUMBERS for far in NUMBERS if near != far]
    with scratch() as folder:
        sink = await asyncio.to_thread(Sink, folder)
        nodes: list[Node] = []
        try:
            for proxy in proxies:
                await proxy.open()
            for number in NUMBERS:
                members = ";".join(proxy.address + f":{port}" for proxy in proxies if proxy.address.startswith(f"127.0.{10 + number}."))
                place = folder / f"node{number}"
                options = (
                    *OPTIONS, f"cache-unicast-hosts={members}", f"cache-unicast-port={port}", f"cluster-listen=127.0.0.{number}",
                    f'control-socket="{place}/control"',
                )  # fmt: skip
                nodes.append(await asyncio.to_thread(Node, place, sink.port, options))
            await asyncio.to_thread(wait_until, lambda: all(map(connected, nodes)), "the nodes do not meet")
            before = [node.child.cpu() for node in nodes]
            trial = Trial(nodes, folder, net, proxies, asked)
            await trial.run()
            spent = [node.child.cpu() - first for node, first in zip(nodes, before, strict=True)]
            logs = [node.log.read_text(errors="replace") for node in nodes]
            counts = trial.counts()
        finally:
            for node in nodes:
                await asyncio.to_thread(node.stop)
            for proxy in proxies:
                proxy.close()
            sink.stop()
    return verdict(trial, asked, spent, counts, logs, tell)


def verdict(
    trial: Trial,
    asked: argparse.Namespace,
    spent: Sequence[float],
    counts: Sequence[int],
    logs: Sequence[str],
    tell: Callable[[str], object],
) -> bool:
    lags = sorted(trial.lags)
    tell(f"{asked.records} records in {trial.transactions} transactions and {trial.overrides} changes by hand, in {trial.written:.0f} s")
    tell(f"one node cut off ({asked.cut}) for {asked.partition:.0f} s; rows at the end: {', '.join(map(str, counts))}")
    if lags:
        middle, last = lags[len(lags) // 2], lags[min(len(lags) - 1, len(lags) * 99 // 100)]
        tell(f"replication lag: median {middle:.1f} ms, 99th centile {last:.1f} ms ({len(lags)} probes, {trial.unseen} not seen in time)")
    each = ", ".join(f"{milliseconds / asked.records:.3f}" for milliseconds in spent)
    tell(f"CPU per record: {sum(spent) / asked.records:.3f} ms on all nodes together ({each}), SMTP included")
    tell("connected again after healing: " + ("never" if trial.met_within is None else f"within {trial.met_within:.1f} s"))
    for what, taken in (("after healing", trial.healed_within), ("after the end of the load", trial.ended_within)):
        tell(f"same rows on all nodes {what}: " + ("never" if taken is None else f"within {taken:.1f} s"))
    bugs, full = (sum(log.count(f"#{number} ") for log in logs) for number in (539, 1105))
    tell(f"overflows: {full}; internal errors in the logs: {bugs}")
    times = (trial.healed_within, trial.ended_within)
    good = all(taken is not None and taken <= WITHIN for taken in times) and not bugs and not trial.unseen and len(set(counts)) == 1
    good = good and counts[0] >= asked.records
    tell("PASSED" if good else "FAILED")
    return good


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.cluster", description="Prove that three nodes come to the same records.")
    parser.add_argument("--records", type=int, default=RECORDS, help=f"to write ({RECORDS})")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"over which they are written ({SECONDS:.0f})")
    parser.add_argument("--partition", type=float, default=PARTITION, help=f"seconds for which one node is cut off ({PARTITION:.0f})")
    parser.add_argument("--cut", choices=("silent", "refused"), default="silent", help="how the network breaks (silent)")
    parser.add_argument("--seed", type=int, default=1, help="of what the operator does (1)")
    given = parser.parse_args()

    def tell(text: str) -> None:
        print(text, flush=True)

    return 0 if asyncio.run(prove(given, tell)) else 1


if __name__ == "__main__":
    sys.exit(main())
