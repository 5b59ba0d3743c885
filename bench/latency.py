"""How long one transaction takes while a steady, small load runs: from connecting to the reply to the message."""

from __future__ import annotations

import asyncio

import attrs

from bench.client import Outcome, filling, transact


@attrs.frozen
class Latency:
    """Milliseconds."""

    median: float
    p99: float
    failed: int
    count: int


def measure(port: int, rate: float, seconds: float, octets: int = 5000) -> Latency:
    """Begin ``rate`` transactions a second for ``seconds``, whether or not earlier ones have ended."""
    return summed(asyncio.run(_paced(port, rate, seconds, filling(octets))))


async def _paced(port: int, rate: float, seconds: float, content: bytes) -> list[Outcome]:
    loop = asyncio.get_running_loop()
    begun = loop.time()
    running = []
    for place in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, begun + place / rate - loop.time()))
        running.append(asyncio.ensure_future(transact(port, content)))
    return list(await asyncio.gather(*running))


def summed(outcomes: list[Outcome]) -> Latency:
    times = sorted(outcome.seconds * 1000 for outcome in outcomes if outcome.code == 250)
    if not times:
        raise RuntimeError("no transaction succeeded")
    return Latency(times[len(times) // 2], times[min(len(times) - 1, len(times) * 99 // 100)], len(outcomes) - len(times), len(outcomes))
