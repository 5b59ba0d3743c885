"""What groups of filters cost: the same clients from outside (by XCLIENT) with one group on after the other.

Options that this version does not have are passed over and told, so that the table is the same in every version.
"""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from collections.abc import Awaitable
from statistics import median

import attrs

from bench.cases import scratch
from bench.client import AT_ONCE, Foreigner, filling, send_all, transact
from bench.nameserver import NothingThere
from bench.node import PLAIN, Node
from bench.postfix_tools import Sink
from bench.report import FilterRow, tell

CLIENT = Foreigner("192.0.2.25", "mail.elsewhere.example")
NO_HOLD = f"greetpause:{CLIENT.address}\t0\n"
"""Else a client from outside is kept waiting for its banner to see whether it talks early."""
ACCESS = "connect:192.0.2.26\tREJECT\nhelo:other.elsewhere.example\tREJECT\nto:nobody@bench.example\tREJECT\n"
_GREY = ("grey-key=ip,mail,rcpt", "grey-temp-fail-period=1")


@attrs.frozen
class Group:
    name: str
    options: tuple[str, ...] = ()
    content: bytes = filling(5000)
    claim: Foreigner | None = CLIENT
    access: str = ""
    twice: bool = False
    """The first attempt is refused; come again after the delay."""


def _parts() -> bytes:
    """A message with an HTML part, URIs and an attachment, about 20 kB."""
    text = b"".join(
        b"See https://www.site%d.example/page?q=%d for more, or write to someone@host%d.example.\r\n" % (n, n, n) for n in range(10)
    )
    html = b"<html><body>" + b"".join(b'<a href="http://shop%d.example/">shop</a>\r\n' % n for n in range(10)) + b"</body></html>\r\n"
    lines = b64encode(bytes(range(256)) * 40)
    attachment = b"\r\n".join(lines[at : at + 76] for at in range(0, len(lines), 76)) + b"\r\n"
    return (
        b"From: <sender@elsewhere.example>\r\nTo: <recipient@bench.example>\r\nSubject: parts\r\nMIME-Version: 1.0\r\n"
        b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\n' + text
        + b"--b\r\nContent-Type: text/html\r\n\r\n" + html
        + b'--b\r\nContent-Type: application/octet-stream; name="a.bin"\r\nContent-Transfer-Encoding: base64\r\n\r\n'
        + attachment + b"--b--\r\n"
    )  # fmt: skip


PARTS = _parts()
GROUPS = (
    Group("localhost, nothing on", claim=None),
    Group("client from outside, nothing on"),
    Group("access map with entries", access=ACCESS),
    Group("DNS: SPF and a list of clients", ("+spf-received-spf-headers", "dns-bl=bl.example")),
    Group("grey-list cache", _GREY, twice=True),
    Group("20 kB of parts, nothing on", content=PARTS),
    Group("20 kB of parts, MIME walk, URIs, attachments", ("uri-bl=uribl.example", "uri-max-test=50", "+deny-content",
          "deny-content-type=application/x-dosexec", "deny-content-name=*.exe"), content=PARTS),
)  # fmt: skip


def measure_filters(rounds: int, scale: float) -> list[FilterRow]:
    """One row for each group."""
    return [_measure(group, rounds, max(AT_ONCE, int(500 * scale))) for group in GROUPS]


def _measure(group: Group, rounds: int, messages: int) -> FilterRow:
    with scratch() as folder:
        sink = Sink(folder)
        try:
            return asyncio.run(_with_names(group, rounds, messages, sink, folder))
        finally:
            sink.stop()


async def _with_names(group, rounds, messages, sink, folder) -> FilterRow:  # type: ignore[no-untyped-def]
    async with NothingThere() as names:
        options = (*PLAIN, f"dns-servers=127.0.0.1:{names.port}", *group.options)
        # The node looks its own things up while it starts, so the name server must be able to answer meanwhile.
        node = await asyncio.to_thread(Node, folder / "node", sink.port, options, NO_HOLD + group.access)
        try:
            if group.twice:
                await transact(node.port, group.content, group.claim)
                await asyncio.sleep(2.0)
            await _send(node, group, AT_ONCE * 3)
            made = []
            refused = 0
            for _ in range(rounds):
                before, begun = node.child.cpu(), time.perf_counter()
                refused += await _send(node, group, messages)
                made.append(((node.child.cpu() - before) / messages, messages / (time.perf_counter() - begun)))
            row = FilterRow(group.name, median(each[0] for each in made), median(each[1] for each in made), refused, node.unknown_options())
            tell(f"  {row.group}: {row.cpu_ms:.2f} ms")
            return row
        finally:
            await asyncio.to_thread(node.stop)


def _send(node: Node, group: Group, messages: int) -> Awaitable[int]:
    return send_all(node.port, messages, group.content, lambda place: group.claim)
