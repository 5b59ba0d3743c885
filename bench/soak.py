"""``python -m bench.soak``: thousands of messages through a node to a next hop that refuses, drops and stalls at random.

Everything that was answered 250 must lie at the next hop, octet for octet below our header fields, and once. A message that
lies there and was not answered 250 is explained or counted against the node: the next hop may take a message and drop the
connection instead of saying so, and then the node cannot know. The sender here tries again what was refused or lost, as real
ones do, under a new name for each attempt.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import random
import sys
import time
from collections import Counter
from collections.abc import Callable

import attrs

from bench.cases import scratch
from bench.client import Outcome, transact
from bench.node import PLAIN, Node
from bench.processes import HOST

MESSAGES = 20_000
AT_ONCE = 20
ATTEMPTS = 8
"""Tries of one message before it is given up."""
LARGEST = 2_000_000
"""Octets of the largest messages."""
STALL = (0.5, 4.0)
"""Seconds for which the next hop stalls; the longer ones exceed what the node waits for."""
OPTIONS = (*PLAIN, "smtp-command-timeout=2", "smtp-dot-timeout=2", "smtp-connect-timeout=5", 'smtp-report-header=""')
"""The report header stands below the client's own fields, so it is left out; Received stands above them."""
MARK = b"X-Soak: "
LINE_LIMIT = 4_000_000


@attrs.define
class Chances:
    """How often the next hop misbehaves, out of 1000 at each point."""

    refuse: int = 15
    drop: int = 8
    stall: int = 2


class Hop:
    """The next hop: keeps a digest of every message it took, and whether it could say so."""

    def __init__(self, chances: Chances, rng: random.Random) -> None:
        self._chances = chances
        self._rng = rng
        self.kept: dict[bytes, list[tuple[str, bool]]] = {}
        """By mark: digest, and whether 250 was said in time."""
        self.did: Counter[str] = Counter()

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, HOST, 0, limit=LINE_LIMIT, backlog=1024)
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
        if not await self._say(writer, b"220 hop.example ESMTP", "banner"):
            return
        while line := await reader.readline():
            verb = line[:4].upper()
            if verb == b"EHLO":
                going_on = await self._say(writer, b"250-hop.example\r\n250 8BITMIME", "EHLO")
            elif verb == b"DATA":
                if not await self._say(writer, b"354 go on", "DATA"):
                    return
                going_on = await self._message(reader, writer)
            elif verb == b"QUIT":
                writer.write(b"221 bye\r\n")
                return
            else:
                going_on = await self._say(writer, b"250 fine", verb.decode("ascii", "replace"))
            if not going_on:
                return

    async def _message(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        lines: list[bytes] = []
        while (line := await reader.readline()) != b".\r\n":
            if not line.endswith(b"\n"):
                raise EOFError
            lines.append(line[1:] if line.startswith(b".") else line)
        content = b"".join(lines)
        at = content.find(MARK)
        mark = content[at + len(MARK) : content.find(b"\r\n", at)]
        what = self._drawn()
        if what == "refuse":
            return await self._refused(writer, "the dot")
        record = (hashlib.sha256(content[at:]).hexdigest(), what == "")
        self.kept.setdefault(mark, []).append(record)
        if what == "drop":
            self.did["took a message and dropped the connection"] += 1
            return False
        if what == "stall":
            self.did["took a message and stalled"] += 1
            await asyncio.sleep(self._rng.uniform(*STALL))
        writer.write(b"250 taken\r\n")
        await writer.drain()
        return True

    async def _say(self, writer: asyncio.StreamWriter, reply: bytes, at: str) -> bool:
        """Answer, or misbehave. False when the connection is over."""
        what = self._drawn()
        if what == "refuse" and at != "banner":
            return await self._refused(writer, at)
        if what == "drop":
            self.did[f"dropped the connection at {at}"] += 1
            return False
        if what == "stall":
            self.did[f"stalled at {at}"] += 1
            await asyncio.sleep(self._rng.uniform(*STALL))
        writer.write(reply + b"\r\n")
        await writer.drain()
        return True

    async def _refused(self, writer: asyncio.StreamWriter, at: str) -> bool:
        self.did[f"refused at {at}"] += 1
        writer.write(b"451 4.3.0 not now\r\n" if self._rng.random() < 0.7 else b"550 5.3.0 never\r\n")
        await writer.drain()
        return True

    def _drawn(self) -> str:
        drawn, chances = self._rng.randrange(1000), self._chances
        for name, chance in (("refuse", chances.refuse), ("drop", chances.drop), ("stall", chances.stall)):
            if drawn < chance:
                return name
            drawn -= chance
        return ""


@attrs.define
class Tally:
    """What became of the messages on the sender's side."""

    accepted: dict[bytes, str] = attrs.field(factory=dict)
    """Marks of attempts that were answered 250, and the digest of what was sent."""
    sent: dict[bytes, str] = attrs.field(factory=dict)
    attempts: int = 0
    given_up: int = 0
    octets: int = 0
    replies: Counter[int] = attrs.field(factory=Counter)


class Source:
    """The sending side."""

    def __init__(self, port: int, messages: int, rng: random.Random) -> None:
        self._port = port
        self._rng = rng
        self._left = iter(range(messages))
        self.tally = Tally()
        self._filling = rng.randbytes(LARGEST)

    async def run(self) -> None:
        await asyncio.gather(*(self._one_after_the_other() for _ in range(AT_ONCE)))

    async def _one_after_the_other(self) -> None:
        for number in self._left:
            body = self._body()
            for attempt in range(ATTEMPTS):
                outcome = await self._attempt(number, attempt, body)
                if outcome.code == 250:
                    break
            else:
                self.tally.given_up += 1

    async def _attempt(self, number: int, attempt: int, body: bytes) -> Outcome:
        tally = self.tally
        mark = b"%d-%d" % (number, attempt)
        content = MARK + mark + b"\r\nFrom: <sender@elsewhere.example>\r\nSubject: soak\r\n\r\n" + body
        digest = hashlib.sha256(content).hexdigest()
        tally.sent[mark] = digest
        tally.attempts += 1
        tally.octets += len(content)
        outcome = await transact(self._port, content.replace(b"\n.", b"\n.."))
        tally.replies[outcome.code] += 1
        if outcome.code == 250:
            tally.accepted[mark] = digest
        return outcome

    def _body(self) -> bytes:
        """A few kilobytes mostly, seldom up to 2 MB: lines of any octets but NUL, CR and LF, many beginning with dots."""
        rng = self._rng
        drawn = rng.random()
        least, most = (0, 8000) if drawn < 0.95 else (8000, 200_000) if drawn < 0.995 else (200_000, LARGEST)
        size = rng.randrange(least, most)
        at = rng.randrange(0, LARGEST - size + 1)
        octets = self._filling[at : at + size].translate(None, b"\0\r\n")
        # A next hop in Python reads line by line: millions of them would make it slow, and the node right to give it up.
        length = max(rng.randrange(1, 900), size // 5000)
        lines = [octets[place : place + length] for place in range(0, len(octets), length)]
        return b"".join((b"." if rng.random() < 0.05 else b"") + line + b"\r\n" for line in lines)


@attrs.frozen
class Verdict:
    """The two books compared."""

    lost: list[bytes]
    changed: list[bytes]
    twice: list[bytes]
    unexplained: list[bytes]
    """At the next hop, which said 250 in time, and refused or lost towards the sender."""
    explained: int
    """At the next hop, which did not say so in time, and so refused towards the sender."""

    @property
    def good(self) -> bool:
        return not (self.lost or self.changed or self.twice or self.unexplained)


def compare(tally: Tally, hop: Hop) -> Verdict:
    changed = [mark for mark, copies in hop.kept.items() if any(digest != tally.sent.get(mark) for digest, _ in copies)]
    others = [(mark, copies) for mark, copies in hop.kept.items() if mark not in tally.accepted]
    unexplained = [mark for mark, copies in others if any(said for _, said in copies)]
    return Verdict(
        lost=[mark for mark in tally.accepted if mark not in hop.kept],
        changed=changed,
        twice=[mark for mark, copies in hop.kept.items() if len(copies) > 1],
        unexplained=unexplained,
        explained=len(others) - len(unexplained),
    )


async def soak(messages: int, seed: int, chances: Chances, tell: Callable[[str], object]) -> bool:
    """Run it; whether the node passed."""
    hop = Hop(chances, random.Random(seed))
    port = await hop.start()
    with scratch() as folder:
        node = await asyncio.to_thread(Node, folder / "node", port, OPTIONS)
        try:
            source = Source(node.port, messages, random.Random(seed + 1))
            begun, before, first = time.monotonic(), node.child.cpu(), node.child.resident()
            await source.run()
            taken, spent, grown = time.monotonic() - begun, node.child.cpu() - before, node.child.resident() - first
            left = sorted(file.name for file in (folder / "node" / "save").iterdir())
            bugs = node.log.read_text(errors="replace").count(" #539 ")
        finally:
            await asyncio.to_thread(node.stop)
            hop.stop()
    tally = source.tally
    verdict = compare(tally, hop)
    tell(f"{messages} messages, {tally.attempts} attempts, {tally.octets / 1e6:.0f} MB in {taken:.0f} s (seed {seed})")
    tell(f"answered 250: {len(tally.accepted)}; given up after {ATTEMPTS} attempts: {tally.given_up}; replies: {dict(tally.replies)}")
    tell("the next hop " + "; ".join(f"{what}: {count}" for what, count in sorted(hop.did.items())))
    tell(f"CPU {spent / max(1, tally.attempts):.2f} ms an attempt; resident memory grew by {grown / 1e6:.1f} MB")
    tell(f"lost: {len(verdict.lost)}; changed: {len(verdict.changed)}; the same attempt twice: {len(verdict.twice)}")
    silent = f"{verdict.explained} because the next hop was silent or gone"
    tell(f"delivered but not answered 250: {silent}, {len(verdict.unexplained)} without reason")
    tell(f"files left in save-dir: {len(left)}; internal errors in the log: {bugs}")
    for name in ("lost", "changed", "twice", "unexplained"):
        marks = getattr(verdict, name)
        if marks:
            tell(f"  {name}: {', '.join(mark.decode('ascii', 'replace') for mark in marks[:10])}")
    good = verdict.good and not left and not bugs
    tell("PASSED" if good else "FAILED")
    return good


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description="Prove that no message is lost, changed or doubled.")
    parser.add_argument("--messages", type=int, default=MESSAGES, help=f"messages to send ({MESSAGES})")
    parser.add_argument("--seed", type=int, default=1, help="of what is sent and of how the next hop misbehaves (1)")
    given = parser.parse_args()

    def tell(text: str) -> None:
        print(text, flush=True)

    return 0 if asyncio.run(soak(given.messages, given.seed, Chances(), tell)) else 1


if __name__ == "__main__":
    sys.exit(main())
