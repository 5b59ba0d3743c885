"""The cases: each runs directly from source to sink and through the node in turns, so that both meet the same machine."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Protocol

import attrs

from bench import idle, latency
from bench.meter import Meter, Turns
from bench.names import name_server
from bench.network import ADDRESSES, inside
from bench.node import FULL, LIMITS, Node
from bench.peers import PEERS
from bench.postfix_tools import Load, Sink
from bench.processes import HOST, Child, more_descriptors
from bench.report import Row, tell

RATE = 100.0
"""Transactions a second of the latency case."""
SECONDS = 4.0
"""How long each of its rounds lasts."""
WARM_UP = Load(2000, 5000, 20)
"""What a node gets until it has all its processes."""
WARM_UPS = 30
WARM = 200
"""Messages before anything is measured."""


ONE_PROCESS = 19_000
"""Sessions from which on one process, as smtp-sink is, has too few descriptors."""


@attrs.frozen
class Bench:
    """What the command line asks for."""

    rounds: int
    scale: float
    idle: int
    peers: tuple[str, ...]


class Relay(Protocol):
    """Something that stands between source and sink."""

    port: int
    child: Child


@attrs.frozen
class Place:
    """Where mail can be sent to."""

    name: str
    port: int
    child: Child | None = None
    """The process that is accounted; None for the sink."""
    meter: Meter | None = None


@attrs.frozen
class Case:
    title: str
    measure: Callable[[Bench], list[Row]]


@contextmanager
def scratch() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="smtpf-bench"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def places(bench: Bench, *, busy: bool) -> Iterator[list[Place]]:
    """The sink itself, the node, and the peers asked for, all running. A ``busy`` node has all the processes that it will have."""
    with scratch() as folder, name_server(folder, 0) as names:
        sink = Sink(folder)
        stops: list[Callable[[], None]] = [sink.stop]
        try:
            node = Node(folder / "node", sink.port, options(names), LIMITS)
            stops.append(node.stop)
            if busy:
                _warm(node)
            found = [Place("direct", sink.port), Place("smtpf", node.port, node.child, node.meter)]
            for name in bench.peers:
                peer = PEERS[name](folder / name, sink.port)
                stops.append(peer.stop)
                found.append(Place(name, peer.port, peer.child))
            yield found
        finally:
            for stop in reversed(stops):
                stop()


def options(names: int) -> tuple[str, ...]:
    """Those of the cases; ``names`` is the port of the name server."""
    return (*FULL, f"dns-servers={HOST}:{names}")


def _warm(node: Node) -> None:
    """Send until the node has as many processes as it will have."""
    wanted = len(os.sched_getaffinity(0))
    for _ in range(WARM_UPS):
        WARM_UP.send(node.port)
        if wanted == 1 or node.workers >= wanted:
            return
    raise RuntimeError(f"the node has {node.workers} workers")


@attrs.define
class _Round:
    """One round at one place."""

    rate: float
    cpu: float
    turns: Turns | None


def _once(place: Place, load: Load) -> _Round:
    if place.meter is not None:
        place.meter.clear()
    before = place.child.cpu() if place.child is not None else 0.0
    taken = load.send(place.port)
    spent = place.child.cpu() - before if place.child is not None else 0.0
    return _Round(load.messages / taken, spent / load.messages, place.meter.read() if place.meter is not None else None)


def throughput(letter: str, load: Load) -> Callable[[Bench], list[Row]]:
    """A case of messages a second."""

    def measure(bench: Bench) -> list[Row]:
        scaled = attrs.evolve(load, messages=max(load.sessions, int(load.messages * bench.scale)))
        with places(bench, busy=True) as found:
            rounds: dict[str, list[_Round]] = {place.name: [] for place in found}
            for place in found:
                attrs.evolve(scaled, messages=min(WARM, scaled.messages)).send(place.port)
            for _ in range(bench.rounds):
                for place in found:
                    rounds[place.name].append(_once(place, scaled))
                tell("  " + ", ".join(f"{name} {made[-1].rate:.0f}/s" for name, made in rounds.items()))
        direct = rounds["direct"]
        return [
            Row(letter, CASES[letter].title, name, _figures(made, direct, load.octets))
            for name, made in rounds.items()
            if made is not direct
        ]

    return measure


def _figures(made: list[_Round], direct: list[_Round], octets: int) -> dict[str, float]:
    """Medians over the rounds."""
    rate, plain = median(each.rate for each in made), median(each.rate for each in direct)
    figures = {
        "messages_per_second": rate, "direct_messages_per_second": plain, "percent_of_direct": 100 * rate / plain,
        "megabytes_per_second": rate * octets / 1e6, "cpu_ms_per_message": median(each.cpu for each in made),
        "least_cpu_ms_per_message": min(each.cpu for each in made),
    }  # fmt: skip
    turns = [each.turns for each in made if each.turns is not None]
    if turns:
        figures["longest_turn_ms"] = median(each.longest for each in turns)
        figures["longest_turn_cpu_ms"] = median(each.longest_cpu for each in turns)
    return figures


def measure_latency(bench: Bench) -> list[Row]:
    seconds = max(0.5, SECONDS * bench.scale)
    with places(bench, busy=False) as found:
        rounds: dict[str, list[latency.Latency]] = {place.name: [] for place in found}
        cpu: dict[str, list[float]] = {place.name: [0.0] for place in found}
        turns: list[Turns] = []
        for place in found:
            latency.measure(place.port, RATE, 0.5)
        for _ in range(bench.rounds):
            for place in found:
                if place.meter is not None:
                    place.meter.clear()
                before = place.child.cpu() if place.child is not None else 0.0
                rounds[place.name].append(latency.measure(place.port, RATE, seconds))
                if place.child is not None:
                    cpu[place.name].append((place.child.cpu() - before) / (RATE * seconds))
                if place.meter is not None:
                    turns.append(place.meter.read())
            tell("  " + ", ".join(f"{name} {made[-1].median:.2f} ms" for name, made in rounds.items()))
    plain = rounds.pop("direct")
    rows = []
    for name, made in rounds.items():
        figures = {
            "median_ms": median(each.median for each in made), "p99_ms": median(each.p99 for each in made),
            "direct_median_ms": median(each.median for each in plain), "direct_p99_ms": median(each.p99 for each in plain),
            "times_direct": median(each.median for each in made) / median(each.median for each in plain),
            "cpu_ms_per_message": median(cpu[name][1:]), "failed": sum(each.failed for each in made),
        }  # fmt: skip
        if name == "smtpf":
            figures["longest_turn_ms"] = median(each.longest for each in turns)
            figures["longest_turn_cpu_ms"] = median(each.longest_cpu for each in turns)
        rows.append(Row("e", CASES["e"].title, name, figures))
    return rows


def measure_idle(bench: Bench) -> list[Row]:
    """Once, with processes of their own: memory does not vary between rounds, and is not given back after one."""
    addresses = ADDRESSES if inside() else ADDRESSES[:1]
    more_descriptors(bench.idle // len(addresses) + 2000)
    with scratch() as folder, name_server(folder, 0) as names:
        sink = Sink(folder, most=bench.idle + 1000)
        try:
            node = Node(folder / "node", sink.port, options(names), LIMITS, descriptors=10 * bench.idle + 10_000)
            try:
                _warm(node)
                node.meter.clear()
                through = idle.octets_per_session(addresses, node.port, bench.idle, node.child.resident)
                turns = node.meter.read()
                tell(f"  smtpf {through / 1000:.1f} kB")
            finally:
                node.stop()
            direct = idle.octets_per_session(addresses, sink.port, bench.idle, sink.child.resident) if bench.idle < ONE_PROCESS else 0.0
        finally:
            sink.stop()
    figures = {
        "sessions": bench.idle, "kilobytes_per_session": through / 1000, "direct_kilobytes_per_session": direct / 1000,
        "longest_turn_ms": turns.longest, "longest_turn_cpu_ms": turns.longest_cpu,
    }  # fmt: skip
    return [Row("d", CASES["d"].title, "smtpf", figures)]


ONE = "5 kB, one message a connection, 20 sessions"
KEPT = "5 kB, many messages a connection, 20 sessions"
LARGE = "1 MiB, 10 sessions"

CASES: dict[str, Case] = {
    "a": Case(ONE, throughput("a", Load(4000, 5000, 20))),
    "b": Case(KEPT, throughput("b", Load(8000, 5000, 20, keep=True))),
    "c": Case(LARGE, throughput("c", Load(200, 1 << 20, 10))),
    "d": Case("idle sessions after EHLO", measure_idle),
    "e": Case("one transaction of 5 kB at 100 a second", measure_latency),
}
