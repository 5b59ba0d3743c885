"""What look-ups cost: ``python -m bench.dns``.

First speed: 5 kB messages of clients from outside (by XCLIENT), each on its own connection, with ten lists of clients, SPF and the
tests of the sender's exchanges on and answers in the cache, next to the same with all that off. Then latency: a name server that
takes 200 ms for each answer, and 200 clients it has never heard of: how long each waits for its banner, and how long the reactor
did not look at its sockets.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from statistics import median

import attrs

from bench.cases import scratch
from bench.client import PATIENCE, Foreigner, filling, send_or_fail
from bench.meter import Turns
from bench.names import LISTS, name_server
from bench.node import PLAIN, Node
from bench.postfix_tools import Sink
from bench.processes import HOST
from bench.report import tell

CLIENTS = 100
"""Different clients of the speed part."""
DELAY = 200
"""Milliseconds that the slow name server takes."""
NO_HOLD = "greetpause:\t0\n"
"""Else a client from outside is kept waiting for its banner to see whether it talks early."""
LOOK_UPS = (
    "spf-mail-policy=fail-reject",
    "spf-helo-policy=fail-reject",
    "+spf-received-spf-headers",
    "+mail-require-mx",
    f"dns-bl={LISTS}",
)


def client(place: int) -> Foreigner:
    """A client from outside whose name the DNS has to tell."""
    return Foreigner(f"81.{2 + place // 65536}.{place // 256 % 256}.{place % 256}")


# Speed


@attrs.frozen
class Speed:
    rate: float
    """Messages a second."""
    cpu: float
    """Milliseconds of the node for one message."""


def measure_speed(messages: int, rounds: int) -> dict[str, Speed]:
    with scratch() as folder:
        sink = Sink(folder)
        try:
            with name_server(folder, 0) as port:
                servers = f"dns-servers={HOST}:{port}"
                nodes = {
                    "off": Node(folder / "off", sink.port, (*PLAIN, servers), NO_HOLD),
                    "on": Node(folder / "on", sink.port, (*PLAIN, servers, *LOOK_UPS), NO_HOLD),
                }
                try:
                    return asyncio.run(_compare(nodes, messages, rounds))
                finally:
                    for node in nodes.values():
                        node.stop()
        finally:
            sink.stop()


async def _compare(nodes: dict[str, Node], messages: int, rounds: int) -> dict[str, Speed]:
    for node in nodes.values():
        await _send(node, CLIENTS * 3)
    made: dict[str, list[Speed]] = {name: [] for name in nodes}
    for _ in range(rounds):
        for name, node in nodes.items():
            before, begun = node.child.cpu(), time.perf_counter()
            await _send(node, messages)
            taken = time.perf_counter() - begun
            made[name].append(Speed(messages / taken, (node.child.cpu() - before) / messages))
    return {name: Speed(median(each.rate for each in speeds), median(each.cpu for each in speeds)) for name, speeds in made.items()}


async def _send(node: Node, messages: int) -> None:
    await send_or_fail(node.port, messages, filling(5000), lambda place: client(place % CLIENTS))


# Latency


@attrs.frozen
class Waits:
    """Milliseconds from XCLIENT to the banner, shortest first, and the turns of the reactor meanwhile."""

    waits: tuple[float, ...]
    turns: Turns


def measure_waits(sessions: int, spread: float) -> Waits:
    """``sessions`` clients begin within ``spread`` seconds."""
    with scratch() as folder:
        sink = Sink(folder)
        try:
            with name_server(folder, DELAY) as port:
                node = Node(folder / "node", sink.port, (*PLAIN, f"dns-servers={HOST}:{port}", *LOOK_UPS), NO_HOLD)
                try:
                    asyncio.run(_crowd(node, 20, 0.1, 10_000))
                    time.sleep(1.0)
                    return asyncio.run(_crowd(node, sessions, spread, 0))
                finally:
                    node.stop()
        finally:
            sink.stop()


async def _crowd(node: Node, sessions: int, spread: float, first: int) -> Waits:
    streams = [await asyncio.open_connection(HOST, node.port) for _ in range(sessions)]
    for reader, _ in streams:
        await _banner(reader)
    node.meter.clear()

    async def one(place: int) -> float:
        reader, writer = streams[place]
        await asyncio.sleep(spread * place / sessions)
        begun = time.perf_counter()
        writer.write(client(first + place).command)
        await _banner(reader)
        return (time.perf_counter() - begun) * 1000

    waits = await asyncio.wait_for(asyncio.gather(*(one(place) for place in range(sessions))), PATIENCE)
    turns = node.meter.read()
    for _, writer in streams:
        writer.close()
    return Waits(tuple(sorted(waits)), turns)


async def _banner(reader: asyncio.StreamReader) -> None:
    line = await reader.readline()
    while line[3:4] == b"-":
        line = await reader.readline()
    if not line.startswith(b"220"):
        raise RuntimeError(f"a client was greeted {line!r}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.dns", description="Measure what DNS look-ups cost a node of this checkout.")
    parser.add_argument("--messages", type=int, default=1000, help="messages of each round of the speed part (1000; 0 leaves it out)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, alternating between with and without look-ups (3)")
    parser.add_argument("--sessions", type=int, default=200, help="clients of the latency part (200; 0 leaves it out)")
    parser.add_argument("--spread", type=float, nargs="*", default=[0.5, 0.0], help="seconds within which they all begin (0.5 and 0)")
    given = parser.parse_args()
    if given.messages:
        speeds = measure_speed(given.messages, given.rounds)
        for name, speed in speeds.items():
            tell(f"look-ups {name}: {speed.rate:.0f} messages/s, {speed.cpu:.2f} ms of the processor each")
        tell(f"with look-ups: {100 * speeds['on'].rate / speeds['off'].rate:.0f} % of the messages")
    for spread in given.spread if given.sessions else ():
        found = measure_waits(given.sessions, spread)
        waits, turns = found.waits, found.turns
        tell(f"{given.sessions} clients within {spread} s, {DELAY} ms an answer:")
        tell(f"  banner after {median(waits):.0f} ms (median), {waits[-1]:.0f} ms (last)")
        tell(f"  longest turn {turns.longest:.0f} ms, {turns.longest_cpu:.0f} ms of the processor")
    return 0


if __name__ == "__main__":
    sys.exit(main())
