"""A node before the real clamd and the real spamd, each with its own configuration, rules and folder."""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import smtplib
import socket
import socketserver
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from email import message_from_bytes
from email.message import EmailMessage
from pathlib import Path

import pytest

from test.support.node_process import NodeProcess, free_port, wait_until

EICAR = "X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-" + "STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
"""The agreed test string (eicar.org), in two parts so that this file is no finding of its own."""
GTUBE = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-" + "ANTI-UBE-TEST-EMAIL*C.34X"
"""What SpamAssassin always calls spam."""

needs_clamd = pytest.mark.skipif(shutil.which("clamd") is None, reason="clamd is not installed")
needs_spamd = pytest.mark.skipif(shutil.which("spamd") is None, reason="spamd is not installed")


class Sink:
    """A next hop that takes everything; ``messages`` are what it got."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        sink = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                self.wfile.write(b"220 sink\r\n")
                for line in self.rfile:
                    verb = line[:4].upper()
                    if verb == b"DATA":
                        self.wfile.write(b"354 go\r\n")
                        lines = []
                        for part in self.rfile:
                            if part == b".\r\n":
                                break
                            lines.append(part)
                        sink.messages.append(b"".join(lines))
                    self.wfile.write(b"250 ok\r\n")
                    if verb == b"QUIT":
                        return

        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Daemon:
    """A daemon in the foreground, until the test is over."""

    def __init__(self, *command: str) -> None:
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def wait_for(self, ready: Callable[[], bool]) -> None:
        def look() -> bool:
            if self.process.poll() is not None:
                raise AssertionError(self.process.communicate()[0].decode())
            return ready()

        wait_until(look, 90)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()


def answers(port: int, question: bytes) -> bool:
    """Whether a daemon says PONG."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as asking:
            asking.sendall(question)
            return b"PONG" in asking.recv(100)
    except OSError:
        return False


@pytest.fixture(scope="module")
def clamd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """Port and Unix socket of a clamd that knows one virus, and takes streams of up to one megabyte."""
    folder = tmp_path_factory.mktemp("clamd")
    database = folder / "database"
    database.mkdir()
    # A hash of the whole file, and a body signature for the string wherever it stands (type 0: any file).
    (database / "test.hdb").write_text(f"{hashlib.md5(EICAR.encode()).hexdigest()}:{len(EICAR)}:Eicar-Test-File\n")
    (database / "test.ndb").write_text(f"Eicar-Test-Signature:0:*:{EICAR.encode().hex()}\n")
    port, path = free_port(), folder / "clamd.sock"
    (folder / "clamd.conf").write_text(
        f"DatabaseDirectory {database}\nTCPSocket {port}\nTCPAddr 127.0.0.1\nLocalSocket {path}\nLocalSocketMode 666\n"
        f"Foreground yes\nStreamMaxLength 1M\nUser {pwd.getpwuid(os.geteuid()).pw_name}\nTemporaryDirectory {folder}\nSelfCheck 0\n"
    )
    daemon = Daemon("clamd", "-c", str(folder / "clamd.conf"))
    daemon.wait_for(lambda: answers(port, b"zPING\0"))
    yield port, path
    daemon.stop()


@pytest.fixture(scope="module")
def spamd() -> Iterator[int]:
    """Port of a spamd with a few local rules and no network tests."""
    with tempfile.TemporaryDirectory(prefix="smtpf-spamd-") as name:
        # spamd gives up root's rights before it reads its rules, and pytest's own folders are root's alone.
        folder = Path(name)
        folder.chmod(0o755)
        daemon, port = begin_spamd(folder)
        yield port
        daemon.stop()


def begin_spamd(folder: Path) -> tuple[Daemon, int]:
    rules, site = folder / "rules", folder / "site"
    rules.mkdir()
    site.mkdir()
    (rules / "10_test.cf").write_text(
        "util_rb_tld com example\nrequired_score 5\nuse_bayes 0\nskip_rbl_checks 1\n"
        r"body GTUBE /XJS\*C4JDBQADN1\.NSBN3\*2IDNEN\*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL\*C\.34X/" + "\n"
        "clear_report_template\nreport Points of each rule:\nreport _SUMMARY_\n"
        "score GTUBE 1000\ndescribe GTUBE Test string\n"
        "header SEVEN Subject =~ /seven/\nscore SEVEN 7\ndescribe SEVEN Subject says seven\n"
        "header PATH Return-Path =~ /z.out\\.example/\nscore PATH 1.5\ndescribe PATH Return-Path is there\n"
    )
    (site / "init.pre").write_text("loadplugin Mail::SpamAssassin::Plugin::Check\n")
    port = free_port()
    daemon = Daemon(
        "spamd", "-L", "-i", "127.0.0.1", "-p", str(port), "-C", str(rules), f"--siteconfigpath={site}", "-x", "-m", "2",
        "--min-children=1",
        "-s", "stderr", "-H", str(folder), f"--pidfile={folder}/pid",
    )  # fmt: skip
    daemon.wait_for(lambda: answers(port, b"PING SPAMC/1.2\r\n\r\n"))
    return daemon, port


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Callable[[str], tuple[NodeProcess, Sink]]]:
    """``node(options)``: a running node and the next hop of example.com."""
    begun: list[NodeProcess | Sink] = []

    def start(options: str) -> tuple[NodeProcess, Sink]:
        sink = Sink()
        begun.append(sink)
        checks = "-rfc2606-special-domains\n-reject-unknown-tld\n-mail-require-mx\ngrey-key=\nspf-mail-policy=\ndns-servers=127.0.0.1:1\n"
        process = NodeProcess(tmp_path / "node", route=f"route:example.com FORWARD: 127.0.0.1:{sink.port}\n", options=f"{checks}{options}")
        begun.append(process)
        return process.start(), sink

    yield start
    for each in reversed(begun):
        each.stop()


def send(port: int, *, text: str = "One line.\n", subject: str = "hello", attachment: bytes = b"") -> str:
    """Send a message; the reply to its dot as ``CODE text``."""
    message = EmailMessage()
    message["Subject"] = subject
    message["From"] = "z@out.example"
    message.set_content(text)
    if attachment:
        message.add_attachment(attachment, maintype="application", subtype="octet-stream", filename="x.bin")
    with smtplib.SMTP("127.0.0.1", port, local_hostname="client.out.example", timeout=60) as client:
        client.ehlo()
        client.mail("z@out.example")
        client.rcpt("al@example.com")
        code, said = client.data(message.as_bytes())
    return f"{code} {said.decode()}"


Start = Callable[[str], tuple[NodeProcess, Sink]]


@needs_clamd
@pytest.mark.parametrize("how", ["tcp", "unix", "scan"])
def test_clamd_finds_the_test_virus_and_nothing_else(how: str, clamd: tuple[int, Path], node: Start) -> None:
    port, path = clamd
    socket_text = {"tcp": f"127.0.0.1:{port}", "unix": str(path), "scan": f"SCAN:{path}"}[how]
    process, sink = node(f'clamd-socket="{socket_text}"')
    clean = send(process.port)
    assert clean.startswith("250 ") and "#554" in clean
    found = send(process.port, attachment=EICAR.encode())
    assert found.startswith("550 5.7.1 message ") and " is INFECTED with Eicar-Test-" in found and "#208" in found
    assert len(sink.messages) == 1
    assert len(process.logged("#207")) == 1
    assert send(process.port, text=".\n..\nx\n" * 20000).startswith("250 ")


@needs_clamd
def test_a_message_longer_than_clamd_takes_is_cut_or_passes_with_a_warning(clamd: tuple[int, Path], node: Start) -> None:
    process, sink = node(f"clamd-socket=127.0.0.1:{clamd[0]}\nverbose=warn,info")
    assert send(process.port, text=("x" * 70 + "\n") * 30000).startswith("250 ")
    assert process.logged("#202")[0].endswith("clamd-max-size=10240000 reached")
    assert len(sink.messages) == 1


@needs_clamd
def test_max_size_keeps_within_what_clamd_takes(clamd: tuple[int, Path], node: Start) -> None:
    process, _ = node(f"clamd-socket=127.0.0.1:{clamd[0]}\nclamd-max-size=100\nverbose=warn,info")
    assert send(process.port, text=("x" * 70 + "\n") * 30000).startswith("250 ")
    assert process.logged("#202")[0].endswith("clamd-max-size=102400 reached")


@needs_spamd
def test_spamd_scores_tags_and_refuses(spamd: int, node: Start) -> None:
    process, sink = node(f"spamd-socket=127.0.0.1:{spamd}")
    assert send(process.port).startswith("250 ")
    assert send(process.port, subject="seven").startswith("250 ")
    refused = send(process.port, text=GTUBE + "\n")
    assert refused.startswith("550 5.7.1 message ") and "junk mail score 1001.50/5.00 #693" in refused
    plain, tagged = (message_from_bytes(message) for message in sink.messages)
    assert (plain["X-Spam-Flag"], plain["X-Spam-Status"], plain["X-Spam-Level"]) == ("NO", "NO, score=1.50 required=5.00", "x")
    assert (tagged["X-Spam-Flag"], tagged["X-Spam-Status"]) == ("YES", "YES, score=8.50 required=5.00")
    assert tagged["Subject"] == "[SPAM] seven" and tagged["Precedence"] == "bulk"
    assert len(process.logged("#692")) == 3


@needs_spamd
@pytest.mark.parametrize("stream", ["none", "reject"])
def test_spamd_reports_and_takes_large_and_cut_messages(stream: str, spamd: int, node: Start) -> None:
    process, sink = node(
        f"spamd-socket=127.0.0.1:{spamd}\nspamd-command=REPORT\nspamd-max-size=50\nspamd-stream={stream}\nverbose=warn,info"
    )
    assert send(process.port, text=".stuffed\n" + ("x" * 70 + "\n") * 6000).startswith("250 ")
    report = message_from_bytes(sink.messages[0])["X-Spam-Report"]
    assert report.startswith("score=1.50 required=5.00") and "Return-Path is there" in report
    assert process.logged("#684" if stream == "none" else "#656")[0].endswith("spamd-max-size=51200 reached")


@needs_spamd
def test_spamd_as_a_stream_refuses_too(spamd: int, node: Start) -> None:
    process, sink = node(f"spamd-socket=127.0.0.1:{spamd}\nspamd-stream=reject")
    refused = send(process.port, text=GTUBE + "\n")
    assert refused.startswith("550 5.7.1 message ") and "#666" in refused
    assert sink.messages == []
