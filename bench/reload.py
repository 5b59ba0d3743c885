"""``python -m bench.reload``: a node under load is told every second to read everything again. Does any client notice?

Options, maps and certificate change before each reload; every third edit is broken, and then the node must tell all that is wrong
with it and go on with what it had. Twenty clients send one message a connection, some of them over TLS, and two others keep one
session, plain and in TLS, through all of it. Half of the reloads are signals, half ``smtpf reload``.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import signal
import ssl
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import attrs

from bench.cases import scratch
from bench.client import filling
from bench.node import PLAIN, Node
from bench.postfix_tools import DOMAIN, SENDER, Sink
from bench.processes import HOST, program
from smtpf.admin.client import RunningNode

SECONDS = 30
SESSIONS = 20
IN_TLS = 5
"""Of those sessions."""
OCTETS = 5000
PATIENCE = 10.0
WELCOME = "welcome"
WRONG = {"smtp-command-timeout": "never", "smtp-drop-after": "often", "grey-key": "colour"}
"""Options, and values that they do not take."""


class Lost(Exception):
    """The node said something unexpected, or nothing any more."""


class Session:
    """One connection, from the greeting to QUIT."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def begin(cls, port: int, secured: bool) -> Session:
        session = cls(*await asyncio.open_connection(HOST, port))
        await session._expect("220")
        await session.say("EHLO client.elsewhere.example", "250")
        if secured:
            await session.say("STARTTLS", "220")
            await session._writer.start_tls(_context(), server_hostname=HOST)
            await session.say("EHLO client.elsewhere.example", "250")
        return session

    @property
    def certificate(self) -> bytes:
        """What the node showed, DER."""
        shown: bytes = self._writer.get_extra_info("ssl_object").getpeercert(True)
        return shown

    async def say(self, line: str, code: str) -> None:
        self._writer.write(f"{line}\r\n".encode())
        await self._expect(code)

    async def send(self, content: bytes) -> None:
        await self.say(f"MAIL FROM:<{SENDER}>", "250")
        await self.say(f"RCPT TO:<recipient@{DOMAIN}>", "250")
        await self.say("DATA", "354")
        self._writer.write(content + b".\r\n")
        await self._expect("250")

    async def end(self) -> None:
        await self.say("QUIT", "221")
        self._writer.close()

    async def _expect(self, code: str) -> None:
        async with asyncio.timeout(PATIENCE):
            line = await self._reader.readline()
            while line[3:4] == b"-":
                line = await self._reader.readline()
        if not line.decode("ascii", "replace").startswith(code):
            raise Lost(f"{line!r} instead of {code}")


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Load:
    """The clients."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._content = filling(OCTETS)
        self.over = False
        self.sent = 0
        self.kept = 0
        """Messages of the two sessions that stay."""
        self.longest = 0.0
        self.failures: Counter[str] = Counter()

    async def one_a_connection(self, secured: bool) -> None:
        while not self.over:
            begun = time.monotonic()
            try:
                session = await Session.begin(self._port, secured)
                await session.send(self._content)
                await session.end()
            except (Lost, OSError, EOFError, TimeoutError) as error:
                self.failures[f"{type(error).__name__}: {error}"] += 1
                await asyncio.sleep(0.1)
            else:
                self.sent += 1
                self.longest = max(self.longest, time.monotonic() - begun)

    async def one_session(self, secured: bool) -> None:
        try:
            session = await Session.begin(self._port, secured)
            while not self.over:
                await session.send(self._content)
                self.kept += 1
                await asyncio.sleep(0.2)
            await session.end()
        except (Lost, OSError, EOFError, TimeoutError) as error:
            self.failures[f"kept session: {type(error).__name__}: {error}"] += 1


@attrs.define
class Place:
    """The files of the node, and what is in force of them."""

    node: Node
    certificates: Sequence[tuple[bytes, bytes, bytes]]
    """PEM of certificate and key, and DER of the certificate."""
    options: str
    """The option file without the option that changes."""
    timeout: int = 300
    blocked: int = 0
    shown: int = 0

    @property
    def control(self) -> Path:
        return self.node.folder / "control"

    def replace(self, name: str, content: bytes) -> None:
        """As an editor does: a new file in the place of the old one."""
        beside = self.node.folder / f"{name}.new"
        beside.write_bytes(content)
        os.replace(beside, self.node.folder / name)

    def good(self, number: int) -> None:
        """Change everything."""
        self.timeout, self.blocked, self.shown = 300 + number, number, number % len(self.certificates)
        self.replace("smtpf.cf", f"{self.options}smtp-command-timeout={self.timeout}\n".encode())
        self.replace("access.cf", f"from:blocked{number}@sender.example\tREJECT\n".encode())
        self.replace(WELCOME, f"Welcome {number}\n".encode())
        self.install()

    def install(self) -> None:
        certificate, key, _ = self.certificates[self.shown]
        self.replace("server.key", key)
        self.replace("server.pem", certificate)

    def broken_options(self) -> tuple[str, ...]:
        self.replace("smtpf.cf", (self.options + "".join(f"{name}={value}\n" for name, value in WRONG.items())).encode())
        return tuple(f"#1134 options not reloaded: *smtpf.cf:*{name}" for name in WRONG)

    def broken_map(self) -> tuple[str, ...]:
        (self.node.folder / "access.cf").unlink()
        return ("#1140 map ",)

    def broken_certificate(self) -> tuple[str, ...]:
        self.replace("server.pem", b"-----BEGIN CERTIFICATE-----\nnothing\n-----END CERTIFICATE-----\n")
        return ("#1171 tls-server-cert=",)

    def broken_text(self) -> tuple[str, ...]:
        (self.node.folder / WELCOME).unlink()
        return ("#1133 file ",)


class Trial:
    """The reloads."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.reloads: dict[str, list[float]] = {"signal": [], "smtpf reload": []}
        """Seconds until the log told the end of each."""
        self.problems: list[str] = []

    async def run(self, seconds: int) -> None:
        breaks = itertools.cycle(
            (self._place.broken_options, self._place.broken_map, self._place.broken_certificate, self._place.broken_text)
        )
        begun = time.monotonic()
        for number in range(1, seconds + 1):
            await asyncio.sleep(begun + number - time.monotonic())
            by_signal = number % 2 == 0
            if number % 3:
                self._place.good(number)
                await self._reload(by_signal, ())
            else:
                await self._reload(by_signal, next(breaks)())
                await self._check(number)
                # Mended as it was, so that the next round begins whole.
                self._place.good(self._place.blocked)
                continue
            await self._check(number)

    async def _reload(self, by_signal: bool, told: Sequence[str]) -> None:
        log = self._place.node.log
        before = log.stat().st_size
        begun = time.monotonic()
        refused = any("#1134" in line for line in told)
        if by_signal:
            os.kill(self._place.node.child.pid, signal.SIGHUP)
            answer = None
        else:
            answer = await asyncio.to_thread(self._command)
        end = ("#1134 ",) if refused else ("#1135 ",)
        lines = await self._logged(before, (*told, *end))
        self.reloads["signal" if by_signal else "smtpf reload"].append(time.monotonic() - begun)
        for wanted in told:
            if not any(_matches(wanted, line) for line in lines):
                self.problems.append(f"a broken edit was not told: {wanted}")
        if answer is not None and (answer.returncode != 0) is not refused:
            self.problems.append(f"smtpf reload ended with {answer.returncode}: {answer.stdout}{answer.stderr}")
        if answer is not None and refused:
            said = answer.stdout + answer.stderr
            if not all(name in said for name in WRONG):
                self.problems.append(f"smtpf reload did not tell all errors: {said}")

    def _command(self) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "smtpf.console", "reload", f"--socket={self._place.control}"]
        return subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)

    async def _logged(self, since: int, wanted: Sequence[str]) -> list[str]:
        until = time.monotonic() + PATIENCE
        while True:
            with self._place.node.log.open("rb") as log:
                log.seek(since)
                lines = log.read().decode("utf-8", "replace").splitlines()
            if all(any(_matches(each, line) for line in lines) for each in wanted) or time.monotonic() > until:
                return lines
            await asyncio.sleep(0.02)

    async def _check(self, number: int) -> None:
        """What should be in force is."""
        place = self._place
        with RunningNode(str(place.control)) as asked:
            reply = await asyncio.to_thread(asked.ask, "OPTN")
        shown = [line for line in reply.lines if "smtp-command-timeout=" in line]
        if not any(str(place.timeout) in line for line in shown):
            self.problems.append(f"reload {number}: {shown} instead of {place.timeout}")
        try:
            session = await Session.begin(place.node.port, True)
            if session.certificate != place.certificates[place.shown][2]:
                self.problems.append(f"reload {number}: another certificate is shown")
            await session.say(f"MAIL FROM:<blocked{place.blocked - 1}@sender.example>", "250")
            await session.say("RSET", "250")
            await session.say(f"MAIL FROM:<blocked{place.blocked}@sender.example>", "5")
        except (Lost, OSError, EOFError, TimeoutError) as error:
            self.problems.append(f"reload {number}: {error}")


def _matches(wanted: str, line: str) -> bool:
    """``wanted`` may leave something out at each ``*``."""
    at = 0
    for part in wanted.split("*"):
        found = line.find(part.strip(), at)
        if found < 0:
            return False
        at = found + len(part)
    return True


def issued(folder: Path, name: str) -> tuple[bytes, bytes, bytes]:
    """A certificate of its own for ``name``."""
    key, certificate = folder / f"{name}.key", folder / f"{name}.pem"
    words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj", f"/CN={name}"]
    subprocess.run([program("openssl"), *words, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    pem = certificate.read_bytes()
    return pem, key.read_bytes(), ssl.PEM_cert_to_DER_cert(pem.decode())


async def prove(seconds: int, tell: Callable[[str], object]) -> bool:
    """Run it; whether the node passed."""
    with scratch() as folder:
        certificates = [issued(folder, name) for name in ("one.example", "two.example")]
        sink = await asyncio.to_thread(Sink, folder)
        there = folder / "node"
        there.mkdir()
        for name, octets in zip(("server.pem", "server.key", "-"), certificates[0], strict=True):
            if name != "-":
                (there / name).write_bytes(octets)
        (there / WELCOME).write_text("Welcome\n")
        options = (
            *PLAIN, f'control-socket="{there}/control"', f'tls-server-cert="{there}/server.pem"', f'tls-server-key="{there}/server.key"',
            f'smtp-welcome-file="{there}/{WELCOME}"',
        )  # fmt: skip
        node = await asyncio.to_thread(Node, there, sink.port, options)
        try:
            # A lenient node would let most errors pass.
            place = Place(node, certificates, (there / "smtpf.cf").read_text().replace("+lenient\n", ""))
            load, trial = Load(node.port), Trial(place)
            clients = [load.one_a_connection(number < IN_TLS) for number in range(SESSIONS)]
            async with asyncio.TaskGroup() as group:
                for client in (*clients, load.one_session(False), load.one_session(True)):
                    group.create_task(client)
                begun = time.monotonic()
                await trial.run(seconds)
                load.over = True
            taken = time.monotonic() - begun
            bugs = node.log.read_text(errors="replace").count("#539 ")
        finally:
            await asyncio.to_thread(node.stop)
            sink.stop()
    tell(f"{load.sent} messages, one a connection, in {taken:.0f} s; the longest took {load.longest * 1000:.0f} ms")
    tell(f"{load.kept} messages in two sessions that stayed open throughout")
    for way, times in trial.reloads.items():
        if times:
            tell(f"{len(times)} reloads by {way}: median {median(times) * 1000:.0f} ms, longest {max(times) * 1000:.0f} ms")
    tell("a third of the edits were broken")
    for what, count in load.failures.most_common(10):
        tell(f"  {count} clients met {what}")
    for problem in trial.problems[:10]:
        tell(f"  {problem}")
    tell(f"failed messages: {sum(load.failures.values())}; wrong after a reload: {len(trial.problems)}; internal errors in the log: {bugs}")
    good = not load.failures and not trial.problems and not bugs and load.sent > 0
    tell("PASSED" if good else "FAILED")
    return good


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.reload", description="Prove that no client notices a reload.")
    parser.add_argument("--seconds", type=int, default=SECONDS, help=f"to go on, with a reload in each ({SECONDS})")
    given = parser.parse_args()

    def tell(text: str) -> None:
        print(text, flush=True)

    return 0 if asyncio.run(prove(given.seconds, tell)) else 1


if __name__ == "__main__":
    sys.exit(main())
