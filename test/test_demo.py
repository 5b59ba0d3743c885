"""The demonstration, from the command to the message in the Maildir."""

from __future__ import annotations

import mailbox
import signal
import smtplib
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from smtpf.demo import prepare

PATIENCE = 30
"""Seconds that a start or an end may take."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        port: int = chosen.getsockname()[1]
        return port


class Demo:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port, self.hop_port = free_port(), free_port()
        self.lines: list[str] = []
        command = [sys.executable, "-m", "smtpf.console", "demo", f"--work={folder}", f"--port={self.port}", f"--hop-port={self.hop_port}"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def read_until(self, text: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if text in line:
                return
        raise AssertionError("".join(self.lines))


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    running = Demo(tmp_path / "demo")
    yield running
    running.process.kill()
    running.process.wait(PATIENCE)


def test_message_to_the_demonstration_ends_in_its_maildir(demo: Demo) -> None:
    demo.read_until("#599 ready")
    assert any(f"smtp://127.0.0.1:{demo.port}" in line for line in demo.lines)
    with smtplib.SMTP("127.0.0.1", demo.port, timeout=PATIENCE) as client:
        client.sendmail("you@demo.example", ["me@demo.example"], "Subject: hello\r\n\r\nIt works.\r\n")
        with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
            client.sendmail("you@demo.example", ["nobody@demo.example"], "Subject: hello\r\n\r\nNever.\r\n")
    assert refused.value.recipients["nobody@demo.example"][0] == 550
    demo.read_until("arrived: from <you@demo.example> to <me@demo.example>")
    (kept,) = mailbox.Maildir(str(demo.folder / "Maildir"))
    assert kept["Subject"] == "hello"
    assert kept.get_payload() == "It works.\n"
    demo.process.send_signal(signal.SIGINT)
    demo.read_until("#732 terminated")
    assert demo.process.wait(PATIENCE) == 0
    assert not (demo.folder / "smtpf.pid").exists()


def test_taken_port_of_the_next_hop_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = [sys.executable, "-m", "smtpf.console", "demo", f"--work={tmp_path}", f"--hop-port={taken.getsockname()[1]}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("smtpf demo: Couldn't listen on 127.0.0.1:")


def test_files_that_were_edited_are_kept(tmp_path: Path) -> None:
    prepare(tmp_path, 2525, 2526)
    (tmp_path / "access.cf").write_text("mine")
    prepare(tmp_path, 2525, 2526)
    assert (tmp_path / "access.cf").read_text() == "mine"
    assert "interfaces=127.0.0.1:2525" in (tmp_path / "smtpf.cf").read_text()
