"""How the cost of a message grows: ``python -m bench.growth``.

With sessions at the same time, with recipients, with its size, and with the number of DNS lists that are asked about its client. Processor
time of the node for one message, and messages a second. What the size of the cache costs is measured by ``bench.cache_size``.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Iterator
from statistics import median

import attrs

from bench.cases import WARM, scratch
from bench.client import AT_ONCE, filling, send_or_fail
from bench.dns import NO_HOLD, client
from bench.names import name_server
from bench.node import PLAIN, Node
from bench.postfix_tools import Load, Sink
from bench.processes import HOST

CLIENTS = 100
"""Different clients, so that most look-ups are answered from memory."""


@attrs.frozen
class Step:
    """One row."""

    name: str
    load: Load


def steps() -> Iterator[Step]:
    for sessions in (1, 20, 100, 500):
        yield Step(f"{sessions} sessions", Load(1500, 5000, sessions))
    for recipients in (1, 10, 50):
        yield Step(f"{recipients} recipients", Load(1500 // recipients, 5000, AT_ONCE, recipients=recipients))
    for octets in (1000, 10_000, 100_000, 1_000_000, 10_000_000):
        yield Step(f"{octets:,} octets", Load(max(20, min(1500, 100_000_000 // octets)), octets, min(AT_ONCE, 10)))


def measure(rounds: int) -> None:
    with scratch() as folder:
        sink = Sink(folder)
        try:
            node = Node(folder / "node", sink.port)
            try:
                Load(WARM, 5000, AT_ONCE).send(node.port)
                for step in steps():
                    cpu, rates = [], []
                    for _ in range(rounds):
                        before = node.child.cpu()
                        taken = step.load.send(node.port)
                        cpu.append((node.child.cpu() - before) / step.load.messages)
                        rates.append(step.load.messages / taken)
                    _tell(step.name, median(cpu), median(rates))
            finally:
                node.stop()
        finally:
            sink.stop()


def measure_lists(rounds: int, messages: int) -> None:
    with scratch() as folder:
        sink = Sink(folder)
        try:
            with name_server(folder, 0) as port:
                for count in (0, 1, 5, 10, 20):
                    lists = ";".join(f"list{place}.lists.example" for place in range(count))
                    options = (*PLAIN, f"dns-servers={HOST}:{port}", *((f"dns-bl={lists}",) if lists else ()))
                    node = Node(folder / f"node{count}", sink.port, options, NO_HOLD)
                    try:
                        _tell(f"{count} DNS lists", *asyncio.run(_from_outside(node, rounds, messages)))
                    finally:
                        node.stop()
        finally:
            sink.stop()


async def _from_outside(node: Node, rounds: int, messages: int) -> tuple[float, float]:
    content = filling(5000)

    def send(count: int) -> Awaitable[None]:
        return send_or_fail(node.port, count, content, lambda place: client(place % CLIENTS))

    await send(3 * CLIENTS)
    cpu, rates = [], []
    for _ in range(rounds):
        before, begun = node.child.cpu(), time.perf_counter()
        await send(messages)
        rates.append(messages / (time.perf_counter() - begun))
        cpu.append((node.child.cpu() - before) / messages)
    return median(cpu), median(rates)


def _tell(name: str, cpu: float, rate: float) -> None:
    print(f"| {name} | {cpu:.2f} | {rate:.0f} |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description="Measure how the cost of a message grows.")
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    print("| | CPU ms a message | messages/s |\n|---|---:|---:|", flush=True)
    measure(rounds)
    measure_lists(rounds, 600)
    return 0


if __name__ == "__main__":
    sys.exit(main())
