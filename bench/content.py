"""What it costs to look into messages: ``python -m bench.content``.

Two nodes side by side, one with MIME walk, links asked about in a list, and attachment rules, the other with its content filters off. Both
get the same messages from clients from outside (by XCLIENT) in turns; the answers of the list come from the node's memory.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from statistics import median

import attrs

from bench.cases import scratch
from bench.client import AT_ONCE, filling, send_or_fail
from bench.filters import CLIENT, NO_HOLD
from bench.nameserver import NothingThere
from bench.node import PLAIN, Node
from bench.postfix_tools import Sink

ON = (
    "uri-bl=uribl.example",
    "uri-max-test=50",
    "+deny-content",
    "deny-content-type=application/x-dosexec",
    "deny-content-name=*.exe",
)
MEBI = 1 << 20


@attrs.frozen
class Kind:
    """One kind of message, and how many of them make a round."""

    name: str
    content: bytes
    messages: int


def _with_links(octets: int, links: int) -> bytes:
    """Plain text with ``links`` links spread over it."""
    lines = filling(octets).splitlines(keepends=True)
    for number in range(links):
        at = 10 + number * max(1, (len(lines) - 20) // links)
        lines[at] = b"See https://www.site%d.example/page?q=%d for more.\r\n" % (number, number)
    return b"".join(lines)


def _with_attachment(octets: int) -> bytes:
    """Text, HTML with ten links, and an attachment that fills the rest."""
    html = b"<html><body>" + b"".join(b'<a href="http://shop%d.example/">shop</a>\r\n' % n for n in range(10)) + b"</body></html>\r\n"
    encoded = b64encode(bytes(range(256)) * (octets * 3 // 4 // 256))
    attachment = b"\r\n".join(encoded[at : at + 76] for at in range(0, len(encoded), 76)) + b"\r\n"
    return (
        b"From: <sender@elsewhere.example>\r\nTo: <recipient@bench.example>\r\nSubject: parts\r\nMIME-Version: 1.0\r\n"
        b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nA short text.\r\n'
        b"--b\r\nContent-Type: text/html\r\n\r\n" + html
        + b'--b\r\nContent-Type: application/pdf; name="report.pdf"\r\nContent-Transfer-Encoding: base64\r\n\r\n'
        + attachment + b"--b--\r\n"
    )  # fmt: skip


def kinds() -> Iterator[Kind]:
    yield Kind("a: 5 kB of text", filling(5000), 1000)
    yield Kind("a: 5 kB of text with 3 links", _with_links(5000, 3), 1000)
    yield Kind("c: 1 MiB of text", filling(MEBI), 60)
    yield Kind("c: 1 MiB of text with 20 links", _with_links(MEBI, 20), 60)
    yield Kind("c: 1 MiB, HTML with 10 links and an attachment", _with_attachment(MEBI), 60)


@attrs.frozen
class Speed:
    rate: float
    """Messages a second."""
    cpu: float
    """Milliseconds of the node for one message."""


async def measure(kind: Kind, nodes: dict[str, Node], rounds: int) -> dict[str, Speed]:
    """Medians over the rounds."""
    made: dict[str, list[Speed]] = {name: [] for name in nodes}
    for node in nodes.values():
        await _send(node, kind, AT_ONCE)
    for _ in range(rounds):
        for name, node in nodes.items():
            before, begun = node.child.cpu(), time.perf_counter()
            await _send(node, kind, kind.messages)
            made[name].append(Speed(kind.messages / (time.perf_counter() - begun), (node.child.cpu() - before) / kind.messages))
    return {name: Speed(median(each.rate for each in speeds), median(each.cpu for each in speeds)) for name, speeds in made.items()}


async def _send(node: Node, kind: Kind, messages: int) -> None:
    await send_or_fail(node.port, messages, kind.content, lambda place: CLIENT)


async def _run(rounds: int) -> None:
    with scratch() as folder:
        sink = Sink(folder)
        nodes: dict[str, Node] = {}
        try:
            async with NothingThere() as names:
                servers = f"dns-servers=127.0.0.1:{names.port}"
                for name, more in {"off": (), "on": ON}.items():
                    nodes[name] = await asyncio.to_thread(Node, folder / name, sink.port, (*PLAIN, servers, *more), NO_HOLD)
                print("| messages | off: messages/s | on | share | off: CPU ms | on |")
                print("|---|---:|---:|---:|---:|---:|")
                for kind in kinds():
                    found = await measure(kind, nodes, rounds)
                    off, on = found["off"], found["on"]
                    share = f"{off.rate:.0f} | {on.rate:.0f} | {100 * on.rate / off.rate:.0f} %"
                    print(f"| {kind.name} | {share} | {off.cpu:.2f} | {on.cpu:.2f} |", flush=True)
        finally:
            for node in nodes.values():
                node.stop()
            sink.stop()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.content", description="Measure what it costs to look into messages.")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each kind, alternating between off and on (3)")
    asyncio.run(_run(parser.parse_args().rounds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
