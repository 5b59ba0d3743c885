"""``python -m bench.crash [--rounds 200]``: the node, its next hop and the network between them die at each step around DATA and the dot.

Each round sends one message. At its step the node or the next hop is killed (SIGKILL), or the network is cut: with a reset, or by
silence. Client and next hop keep books. The client tries again, with the same message, until it hears 250; the next hop has a
message in its journal before it says 250. The verdict:

- a message that was answered 250 lies at the next hop, octet for octet;
- a message lies there twice only where SMTP cannot avoid it (RFC 5321 4.2.5, RFC 1047): the dot had reached the next hop in an
  attempt that got no 250, and the next hop's 250 had not reached a node that lived to pass it on. Those are counted by step.
"""

from __future__ import annotations

import argparse
import asyncio
import getpass
import grp
import hashlib
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import attrs

from bench.crash_hop import MARK
from bench.processes import HOST, Child, answers, free_port, wait_until

ROUNDS = 200
ATTEMPTS = 30
"""Tries of one message before it counts as never delivered."""
REPLY_SECONDS = 60.0
DOMAIN = "crash.example"
ROOT = Path(__file__).parent.parent

VICTIMS = ("node", "next hop", "network reset", "network silent")
STEPS = (
    "client connected",
    "client heard MAIL",
    "client heard RCPT",
    "client heard 354",
    "client sent half",
    "client sent all but the dot",
    "client sent the dot",
    "DATA goes to the next hop",
    "354 comes from the next hop",
    "half of the message at the next hop",
    "the dot goes to the next hop",
    "the dot is with the next hop",
    "250 comes from the next hop",
    "250 is with the node",
    "client heard 250",
)
"""In the order of time. At a step of the next hop's side the octets are held by the network until the deed is done: then they go on
when the node was killed, and are lost with the connection else."""
CASES = tuple((step, victim) for step in STEPS for victim in VICTIMS)

_OPTIONS = """\
interfaces={host}:{port}
interface-name=node.{domain}
-daemon
+lenient
run-user={user}
run-group={group}
run-work-dir="{folder}"
run-pid-file="{folder}/smtpf.pid"
access-map="file!{folder}/access.cf"
route-map="file!{folder}/route.cf"
cache-path="{folder}/cache.sq3"
stats-map="file!{folder}/stats"
save-dir="{folder}/save"
log-target="file!{log}"
rate-throttle=0
smtp-drop-after=0
smtp-command-timeout=2
smtp-dot-timeout=2
smtp-connect-timeout=2
smtp-report-header=""
-grey-list
-rfc2606-special-domains
-reject-unknown-tld
-spf-received-headers
"""


class Crashing:
    """A process that is killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.starts = 0
        self.child: Child | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def words(self) -> list[str]:
        raise NotImplementedError

    def ready(self) -> bool:
        return answers(self.port)

    def start(self) -> None:
        """Start it unless it runs. Raises RuntimeError with its last words."""
        if self.child is not None:
            return
        self.starts += 1
        child = self.child = Child(self.words(), self.folder, self.folder / "output")

        def up() -> bool:
            if child.process.poll() is not None:
                raise RuntimeError(f"{type(self).__name__} ended: {self.last_words()}")
            return self.ready()

        try:
            wait_until(up, "start")
        except TimeoutError:
            self.kill()
            raise RuntimeError(f"{type(self).__name__} does not start: {self.last_words()}") from None

    def last_words(self) -> str:
        """What it wrote before it failed."""
        files = sorted(self.folder.glob("log.*"), key=lambda file: file.stat().st_mtime)[-1:]
        return "\n".join(file.read_text(errors="replace")[-2000:] for file in (*files, self.folder / "output"))

    def kill(self) -> None:
        child, self.child = self.child, None
        if child is not None:
            child.process.send_signal(signal.SIGKILL)
            child.process.wait()


class Node(Crashing):
    """smtpf, with one next hop. Each start has a log of its own."""

    def __init__(self, folder: Path, hop: int) -> None:
        super().__init__(folder)
        (folder / "save").mkdir()
        (folder / "access.cf").write_text("")
        (folder / "route.cf").write_text(f"route:{DOMAIN}\tFORWARD: {HOST}:{hop}\n")

    @property
    def log(self) -> Path:
        return self.folder / f"log.{self.starts}"

    def words(self) -> list[str]:
        group = grp.getgrgid(os.getgid()).gr_name
        text = _OPTIONS.format(
            host=HOST, port=self.port, domain=DOMAIN, folder=self.folder, log=self.log, user=getpass.getuser(), group=group
        )
        (self.folder / "smtpf.cf").write_text(text)
        paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        twistd = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
        return ["env", f"PYTHONPATH={paths}", *twistd, "-n", "--pidfile=", "smtpf", f"file={self.folder}/smtpf.cf"]

    def ready(self) -> bool:
        return self.log.exists() and "#599 " in self.log.read_text(errors="replace")

    def said(self, number: str) -> int:
        """How often message ``#NNN`` stands in all logs."""
        return sum(file.read_text(errors="replace").count(f" {number} ") for file in self.folder.glob("log.*"))


class Hop(Crashing):
    """The next hop, and its journal."""

    @property
    def journal(self) -> Path:
        return self.folder / "journal"

    def words(self) -> list[str]:
        return ["env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "bench.crash_hop", str(self.port), str(self.journal)]

    def taken(self) -> dict[str, list[str]]:
        """Digests by mark."""
        found: dict[str, list[str]] = {}
        if self.journal.exists():
            for line in self.journal.read_text().splitlines():
                mark, digest = line.split(" ")
                found.setdefault(mark, []).append(digest)
        return found


class Trigger:
    """Does the deed of a round, once, at its step."""

    def __init__(self, step: str, victim: str, deed: Callable[[], Awaitable[None]]) -> None:
        self.victim = victim
        self.fired = False
        self._step = step
        self._deed = deed

    async def at(self, step: str) -> bool:
        """Whether the deed was done now."""
        if self.fired or step != self._step:
            return False
        self.fired = True
        await self._deed()
        return True


class Cut(Exception):
    """The network ends this connection."""


class Network:
    """What lies between node and next hop: passes octets on, knows where in the dialogue it is, and can be cut."""

    def __init__(self, hop: int) -> None:
        self._hop = hop
        self._open: set[asyncio.StreamWriter] = set()
        self._mended = asyncio.Event()
        self.trigger: Trigger | None = None
        self.state = "up"
        """``up``, ``reset`` or ``silent``."""
        self.dot_passed = False
        """The next hop was given the end of a message."""
        self.taken_passed = False
        """The node was given the next hop's 250 to it."""

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, HOST, 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def stop(self) -> None:
        self._server.close()
        self._mended.set()
        self._abort()

    def cut(self) -> None:
        """Reset all connections, and each new one."""
        self.state = "reset"
        self._abort()

    def silence(self) -> None:
        """Pass nothing on any more, and tell nobody."""
        self.state = "silent"

    def mend(self) -> None:
        """Away with what was silent; new connections are served. Where the network was whole all goes on."""
        if self.state != "up":
            self._mended.set()
            self._mended = asyncio.Event()
            self._abort()
        self.state = "up"

    def _abort(self) -> None:
        for writer in self._open:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        far: asyncio.StreamWriter | None = None
        try:
            await self._permit()
            far_reader, far = await asyncio.open_connection(HOST, self._hop)
            self._open.add(far)
            line = _Dialogue(self, reader, far, far_reader, writer)
            ways = [asyncio.ensure_future(way) for way in (line.towards_hop(), line.towards_node())]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        except (OSError, Cut):
            pass
        finally:
            for each in (writer, far):
                if each is not None:
                    self._open.discard(each)
                    # What a process had written before it died still arrives; a broken network loses it.
                    if self.state == "up":
                        each.close()
                    else:
                        each.transport.abort()

    async def _permit(self) -> None:
        """Returns when octets may pass, and raises Cut when they never will."""
        if self.state == "silent":
            await self._mended.wait()
            raise Cut
        if self.state == "reset":
            raise Cut

    async def held(self, step: str) -> None:
        """A step of the next hop's side; raises Cut when the octets held are lost with the connection."""
        if self.trigger is not None and await self.trigger.at(step) and self.trigger.victim == "next hop":
            raise Cut
        await self._permit()


class _Dialogue:
    """One connection through the network, read as SMTP."""

    def __init__(
        self,
        network: Network,
        node: asyncio.StreamReader,
        to_hop: asyncio.StreamWriter,
        hop: asyncio.StreamReader,
        to_node: asyncio.StreamWriter,
    ) -> None:
        self._network = network
        self._node, self._to_hop = node, to_hop
        self._hop, self._to_node = hop, to_node
        self._verb = b""
        self._content = False
        """The node sends a message."""

    async def towards_hop(self) -> None:
        tail = b""
        halved = False
        while octets := await self._node.read(65536):
            await self._network.held("")
            if not self._content:
                self._verb = octets[:4].upper()
                tail, halved = b"", False
                if self._verb == b"DATA":
                    await self._network.held("DATA goes to the next hop")
                self._to_hop.write(octets)
                continue
            if not halved:
                halved = True
                half = max(1, min(len(octets) // 2, len(octets) - 10))
                self._to_hop.write(octets[:half])
                tail, octets = (tail + octets[:half])[-5:], octets[half:]
                await self._network.held("half of the message at the next hop")
            ended = (tail + octets).endswith(b"\r\n.\r\n")
            tail = (tail + octets)[-5:]
            if ended:
                self._to_hop.write(octets[:-3])
                await self._network.held("the dot goes to the next hop")
                self._content, self._verb = False, b"."
                self._network.dot_passed = True
                self._to_hop.write(octets[-3:])
                await self._to_hop.drain()
                await self._network.held("the dot is with the next hop")
            else:
                self._to_hop.write(octets)
                await self._to_hop.drain()

    async def towards_node(self) -> None:
        while line := await self._hop.readline():
            await self._network.held("")
            if self._verb == b"DATA" and line.startswith(b"354"):
                await self._network.held("354 comes from the next hop")
                self._content = True
            if self._verb == b"." and line.startswith(b"250"):
                await self._network.held("250 comes from the next hop")
                self._to_node.write(line)
                await self._to_node.drain()
                self._network.taken_passed = True
                await self._network.held("250 is with the node")
            else:
                self._to_node.write(line)


async def attempt(port: int, content: bytes, trigger: Trigger | None) -> int:
    """Send ``content`` (dots stuffed, without the final dot); the code of the reply that ended it, 0 when there was none."""
    writer: asyncio.StreamWriter | None = None

    async def at(step: str) -> None:
        if trigger is not None:
            await trigger.at(step)

    try:
        async with asyncio.timeout(REPLY_SECONDS):
            reader, writer = await asyncio.open_connection(HOST, port)
            code = await _reply(reader)
            await at(STEPS[0])
            for line, wanted, step in (
                (b"EHLO client.elsewhere.example\r\n", 2, ""),
                (b"MAIL FROM:<sender@elsewhere.example>\r\n", 2, STEPS[1]),
                (f"RCPT TO:<recipient@{DOMAIN}>\r\n".encode(), 2, STEPS[2]),
                (b"DATA\r\n", 3, STEPS[3]),
            ):
                writer.write(line)
                code = await _reply(reader)
                if code // 100 != wanted:
                    return code
                await at(step)
            half = len(content) // 2
            writer.write(content[:half])
            await writer.drain()
            await at(STEPS[4])
            writer.write(content[half:])
            await writer.drain()
            await at(STEPS[5])
            writer.write(b".\r\n")
            await writer.drain()
            await at(STEPS[6])
            code = await _reply(reader)
            if code == 250:
                await at(STEPS[14])
            return code
    except (OSError, EOFError, TimeoutError):
        return 0
    finally:
        if writer is not None:
            writer.close()


async def _reply(reader: asyncio.StreamReader) -> int:
    while True:
        line = await reader.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        if line[3:4] != b"-":
            return int(line[:3])


@attrs.frozen
class Round:
    """What became of one message."""

    step: str
    victim: str
    fired: bool
    first: int
    """Code of the first attempt; 0 for none."""
    attempts: int
    answered: bool
    """250 was heard in the end."""
    copies: int
    """At the next hop, in the end."""
    intact: bool
    dot_passed: bool
    """In the first attempt the next hop was given the end of the message."""
    taken_passed: bool
    """In the first attempt the node was given the next hop's 250."""

    @property
    def lost(self) -> bool:
        return self.answered and not self.copies

    @property
    def doubled(self) -> bool:
        return self.copies > 1

    @property
    def explained(self) -> bool:
        """Doubled, and it could not be helped: the next hop had it, and the node did not know or was dead."""
        known = self.taken_passed and self.victim != "node"
        return self.copies == 2 and self.first != 250 and self.dot_passed and not known

    @property
    def good(self) -> bool:
        return self.fired and self.answered and bool(self.copies) and self.intact and (not self.doubled or self.explained)


class Field:
    """Node, network and next hop, over many rounds."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder = folder
        self._rng = random.Random(seed)
        self.hop = Hop(folder / "hop")
        self.network = Network(self.hop.port)

    async def start(self) -> None:
        self.node = Node(self._folder / "node", await self.network.start())
        await self._heal()

    async def stop(self) -> None:
        self.network.stop()
        await asyncio.to_thread(self.node.kill)
        await asyncio.to_thread(self.hop.kill)

    async def _heal(self) -> None:
        self.network.mend()
        await asyncio.to_thread(self.hop.start)
        await asyncio.to_thread(self.node.start)

    async def _harm(self, victim: str) -> None:
        if victim == "node":
            await asyncio.to_thread(self.node.kill)
        elif victim == "next hop":
            await asyncio.to_thread(self.hop.kill)
        elif victim == "network reset":
            self.network.cut()
        else:
            self.network.silence()

    async def round(self, number: int, step: str, victim: str) -> Round:
        mark = f"{number}"
        content = MARK + mark.encode() + b"\r\nFrom: <sender@elsewhere.example>\r\nSubject: crash\r\n\r\n" + self._body()
        digest = hashlib.sha256(content).hexdigest()
        stuffed = content.replace(b"\n.", b"\n..")
        network = self.network
        network.dot_passed = network.taken_passed = False
        trigger = network.trigger = Trigger(step, victim, lambda: self._harm(victim))
        first = code = await attempt(self.node.port, stuffed, trigger)
        attempts = 1
        await self._heal()
        # Only now: what a killed node had written may have gone on after the client heard of its end.
        passed = network.dot_passed, network.taken_passed
        network.trigger = None
        while code != 250 and attempts < ATTEMPTS:
            code = await attempt(self.node.port, stuffed, None)
            attempts += 1
        copies = self.hop.taken().get(mark, [])
        return Round(
            step, victim, trigger.fired, first, attempts, code == 250, len(copies), all(each == digest for each in copies), *passed
        )

    def _body(self) -> bytes:
        """A few kilobytes, or seldom more than the node keeps in memory."""
        size = self._rng.choice((200, 2000, 20_000, 20_000, 400_000))
        line = b".a line with a dot at its beginning and seventy octets altogether, more\r\n"
        return line * max(1, size // len(line))


async def crash(folder: Path, cases: Sequence[tuple[str, str]], seed: int, tell: Callable[[Round], object] = lambda done: None) -> Report:
    """One round for each of ``cases`` (step, victim)."""
    field = Field(folder, seed)
    rounds: list[Round] = []
    begun = time.monotonic()
    try:
        await field.start()
        for number, (step, victim) in enumerate(cases):
            done = await field.round(number, step, victim)
            rounds.append(done)
            tell(done)
    finally:
        await field.stop()
    node = field.node
    return Report(
        tuple(rounds), time.monotonic() - begun, node.starts, field.hop.starts, node.said("#539"), node.said("#1110"),
        len(list((node.folder / "save").iterdir())),
    )  # fmt: skip


@attrs.frozen
class Report:
    rounds: tuple[Round, ...]
    seconds: float
    node_starts: int
    hop_starts: int
    bugs: int
    """Internal errors in the node's logs."""
    corrupt: int
    """Cache files found damaged."""
    files: int
    """Left in save-dir."""

    @property
    def good(self) -> bool:
        return all(each.good for each in self.rounds) and not self.bugs and not self.corrupt

    def text(self) -> str:
        rounds = self.rounds
        later = sum(each.first != 250 and each.answered for each in rounds)
        lines = [
            f"{len(rounds)} rounds in {self.seconds:.0f} s; starts of the node: {self.node_starts}, of the next hop: {self.hop_starts}",
            f"answered 250 at the first attempt: {sum(each.first == 250 for each in rounds)}; "
            f"at a later one: {later}; never: {sum(not each.answered for each in rounds)}",
            f"answered 250 and missing at the next hop: {sum(each.lost for each in rounds)}",
            f"changed on the way, or only in part at the next hop: {sum(not each.intact for each in rounds)}",
            f"doubled: {sum(each.doubled for each in rounds)}, "
            f"of these without excuse: {sum(each.doubled and not each.explained for each in rounds)}",
            f"step not reached: {sum(not each.fired for each in rounds)}; internal errors: {self.bugs}; "
            f"damaged caches: {self.corrupt}; files left in save-dir: {self.files}",
            "",
            f"{'step':38}" + "".join(f"{victim:>17}" for victim in VICTIMS) + "   (doubled / rounds)",
        ]
        done = Counter((each.step, each.victim) for each in rounds)
        doubled = Counter((each.step, each.victim) for each in rounds if each.doubled)
        for step in STEPS:
            lines.append(f"{step:38}" + "".join(f"{f'{doubled[step, victim]} / {done[step, victim]}':>17}" for victim in VICTIMS))
        lines += [f"BAD: {each}" for each in rounds if not each.good]
        return "\n".join([*lines, "", "PASSED" if self.good else "FAILED"])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.crash", description="Prove that no crash loses a message.")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"messages, each with one crash ({ROUNDS})")
    parser.add_argument("--seed", type=int, default=1, help="of the messages' sizes and the order of the cases (1)")
    given = parser.parse_args()
    rng = random.Random(given.seed)
    cases: list[tuple[str, str]] = []
    while len(cases) < given.rounds:
        cases += rng.sample(CASES, len(CASES))
    with tempfile.TemporaryDirectory(prefix="crash") as folder:
        report = asyncio.run(crash(Path(folder), cases[: given.rounds], given.seed, lambda done: print(done, file=sys.stderr, flush=True)))
    print(report.text())
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())
