"""Clients that people use: swaks, curl and openssl, talking to a node in front of smtp-sink."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from test.support.certificates import Authority
from test.support.node_process import NodeProcess, free_port, wait_until


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A next hop that keeps each message in a file of the folder."""
    port, folder = free_port(), tmp_path / "sink"
    folder.mkdir()
    command = ["smtp-sink", "-u", "root", "-d", f"{folder}/%H%M%S.", f"127.0.0.1:{port}", "10"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield port, folder
    process.kill()
    process.communicate()


@pytest.fixture
def node(tmp_path: Path, sink: tuple[int, Path]) -> Iterator[NodeProcess]:
    certificate, key = Authority(tmp_path).issue("mx.example.com")
    made = NodeProcess(
        tmp_path / "node",
        route=f"route:127.0.0.1 FORWARD: 127.0.0.1:{sink[0]}; RELAY\n",
        options=f'tls-server-cert="{certificate}"\ntls-server-key="{key}"\n+smtp-auth-enable',
    ).start()
    yield made
    made.stop()


def run(*command: str, text: str = "") -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr


def test_swaks_sends_inside_tls(node: NodeProcess, sink: tuple[int, Path]) -> None:
    said = run(
        "swaks", "--server", "127.0.0.1", "--port", str(node.port), "--tls", "--from", "joe@example.org", "--to", "ann@example.com",
        "--header", "Subject: inside",
    )  # fmt: skip
    assert "~> QUIT" in said
    assert "#554" in said
    wait_until(lambda: len(list(sink[1].iterdir())) == 1)
    kept = next(sink[1].iterdir()).read_text()
    assert "with ESMTPS (TLSv1." in kept
    assert "Subject: inside" in kept
    assert len(node.logged("#1023")) == 1


def test_curl_sends_a_file(node: NodeProcess, sink: tuple[int, Path], tmp_path: Path) -> None:
    letter = tmp_path / "letter"
    letter.write_text("Subject: by curl\r\n\r\n.dot\r\nA line.\r\n")
    run(
        "curl", "-sS", f"smtp://127.0.0.1:{node.port}/client.example.org", "--mail-from", "joe@example.org", "--mail-rcpt",
        "ann@example.com", "--upload-file", str(letter),
    )  # fmt: skip
    assert "accepted #554" in node.logged("#720")[0]
    wait_until(lambda: len(list(sink[1].iterdir())) == 1)
    assert "\n.dot\n" in next(sink[1].iterdir()).read_text()


def test_openssl_finds_tls_1_3_and_no_older_than_1_2(node: NodeProcess) -> None:
    address = ("-connect", f"127.0.0.1:{node.port}", "-starttls", "smtp", "-name", "client.example.org")
    said = run("openssl", "s_client", *address, "-crlf", "-nocommands", "-ign_eof", text="EHLO client.example.org\nQUIT\n")
    assert "TLSv1.3" in said
    assert "250-AUTH PLAIN LOGIN" in said
    assert "closing connection #247" in said
    assert "Cipher is (NONE)" in run("openssl", "s_client", *address, "-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0")


def test_a_command_in_the_clear_behind_starttls_is_never_carried_out(node: NodeProcess) -> None:
    with socket.create_connection(("127.0.0.1", node.port), timeout=20) as client:
        heard = client.recv(1000)
        client.sendall(b"EHLO client.example.org\r\n")
        while b"250 HELP" not in heard:
            heard += client.recv(4096)
        client.sendall(b"STARTTLS\r\nMAIL FROM:<evil@example.org>\r\n")
        answer = b""
        while piece := client.recv(4096):
            answer += piece
    assert answer.startswith(b"550 5.3.3 pipelining not allowed #643")
    wait_until(lambda: node.logged("#721") != [])
    assert node.logged("#717") == []
