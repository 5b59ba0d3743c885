"""A whole node as a process: what a service manager, a second instance and the log see of its start and its end."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from test.support.installation import PATIENCE, Installation, free_port, wait_until


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    made = Installation(tmp_path)
    yield made
    for process in made.started:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=PATIENCE)


def test_foreground_node_starts_serves_and_ends_in_order(installation: Installation) -> None:
    process = installation.start()
    installation.wait_for_log("#599 ready")
    assert installation.pid_file.read_text() == f"{process.pid}\n"
    with socket.create_connection(("127.0.0.1", installation.port), timeout=PATIENCE) as client:
        assert client.recv(1000).startswith(b"220 ")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    numbers = [line.split()[0] for line in installation.logged()]
    wanted = ["#604", "#605", "#606", "#595", "#557", "#599", "#722", "#723", "#732"]
    assert [number for number in numbers if number in wanted] == wanted
    assert not installation.pid_file.exists()
    assert not (installation.folder / "twistd.pid").exists()


def test_background_node_leaves_its_parent_and_obeys_quit(installation: Installation) -> None:
    parent = installation.start(twistd=())
    assert parent.wait(PATIENCE) == 0
    installation.wait_for_log("#599 ready")
    pid = int(installation.pid_file.read_text())
    assert pid != parent.pid
    assert os.getsid(pid) == pid
    quitting = installation.start("+quit")
    assert quitting.wait(PATIENCE) == 0, quitting.communicate()
    installation.wait_for_log("#732 terminated")
    wait_until(lambda: not installation.pid_file.exists())


def test_second_instance_is_refused_and_restart_takes_over(installation: Installation) -> None:
    first = installation.start()
    installation.wait_for_log("#599 ready")
    other = free_port()
    assert installation.start(f"interfaces=127.0.0.1:{other}").wait(PATIENCE) == 1
    assert any(line.startswith(f'#905 lock "{installation.pid_file}" failed: ') for line in installation.logged())
    assert first.poll() is None
    second = installation.start("+restart")
    assert first.wait(PATIENCE) == 0
    wait_until(lambda: sum(line == "#599 ready" for line in installation.logged()) == 2)
    assert f"#970 previous instance pid={first.pid}" in installation.logged()
    second.send_signal(signal.SIGINT)
    assert second.wait(PATIENCE) == 0


def test_taken_port_ends_the_start_with_812(installation: Installation) -> None:
    with socket.create_server(("127.0.0.1", installation.port)):
        assert installation.start().wait(PATIENCE) == 1
    assert [line.split()[0] for line in installation.logged()][-3:] == ["#596", "#597", "#812"]


@pytest.mark.parametrize(
    ("words", "number"),
    [
        (["run-pid-file=/nonexistent/pid"], "#598 "),
        (["cache-unicast-domain=a.example", "cache-unicast-hosts=192.0.2.1", "cache-secret=sixteen octets.."], "#174 "),
        (["verbose=" + "info," * 1000], "#795 "),
        (["cache-sync-mode=sometimes"], "#173 "),
        (["siq-score-tag=200"], "#610 "),
        (["stats-map=sql!/nonexistent/stats"], "#714 "),
    ],
)
def test_node_that_cannot_start_tells_why_once_and_nothing_else(installation: Installation, words: list[str], number: str) -> None:
    node = installation.start("verbose=-info,-warn", *words)
    assert node.wait(PATIENCE) == 1
    errors = [
        line for line in installation.logged() if not line.startswith(("#60", "#595", "#557", "#715", "#716", "#722", "#723", "#732"))
    ]
    assert [line[:5] for line in errors] == [number]


def test_service_manager_hears_ready_and_stopping(installation: Installation) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(PATIENCE)
        manager.bind(str(installation.folder / "notify"))
        process = installation.start(environment={"NOTIFY_SOCKET": str(installation.folder / "notify")})
        assert manager.recv(100) == b"READY=1"
        process.send_signal(signal.SIGQUIT)
        assert manager.recv(100) == b"STOPPING=1"
        assert process.wait(PATIENCE) == 0
    assert "#722 signal 3, slow quit cn=0" in installation.logged()


def test_hup_leaves_the_node_running(installation: Installation) -> None:
    process = installation.start()
    installation.wait_for_log("#599 ready")
    process.send_signal(signal.SIGHUP)
    installation.wait_for_log("#724 signal 1 received, cn=0")
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0
