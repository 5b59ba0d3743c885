"""A running node as its postmaster handles it: control socket, tools, reload, and the web server for those who watch it."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from test.support.installation import PATIENCE, ROOT, Installation, free_port, wait_until


class Kept(Installation):
    """With control socket and web server."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.control = folder / "control"
        self.web = free_port()
        self.add(f'control-socket="{self.control}"', f"metrics-listen={self.web}", "stats-map=sql!" + str(folder / "stats.sq3"))

    def add(self, *lines: str) -> None:
        self.file.write_text(self.file.read_text() + "".join(f"{line}\n" for line in lines))

    def tool(self, *words: str, text: str = "", status: int = 0) -> str:
        command = [sys.executable, "-m", "smtpf.console", words[0], f"--file={self.file}", *words[1:]]
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT)
        assert done.returncode == status, (done.stdout, done.stderr)
        return done.stdout + done.stderr

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.web}{path}", timeout=PATIENCE) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    made = Kept(tmp_path)
    yield made
    for process in made.started:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=PATIENCE)


def ready(kept: Kept, *words: str) -> subprocess.Popen[str]:
    process = kept.start(*words)
    kept.wait_for_log("#599 ready")
    return process


def lines_of(file: object, end: str = " ") -> list[str]:
    lines = []
    while True:
        line = file.readline().decode().rstrip("\r\n")  # type: ignore[attr-defined]
        lines.append(line)
        if line[3:4] != "-":
            return lines


def test_control_socket_speaks_without_banner_tests_and_ends_with_quit(kept: Kept) -> None:
    process = ready(kept)
    assert stat.S_IMODE(os.stat(kept.control).st_mode) == 0o660
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE)
        client.connect(str(kept.control))
        client.sendall(b"conn\r\nBOGUS\r\nKILL\r\nKILL x\nhelp\nMAIL FROM:<a@b.example>\nQUIT\nCONN\n")
        with client.makefile("rb") as file:
            assert lines_of(file)[0].startswith("220 ")
            assert lines_of(file)[0].startswith("214-2.0.0 th=")
            assert lines_of(file)[0].startswith("500 5.5.1 BOGUS command unknown #248 ")
            assert lines_of(file)[0].startswith("501 5.5.2 KILL missing argument #249 ")
            assert lines_of(file)[0].startswith("504 5.5.4 session x not found #326 ")
            assert "CACHE CONN HELP INFO KILL LKEY OPTN QUIT RELOAD STAT VERB" in lines_of(file)[1]
            assert lines_of(file)[0].startswith("500 5.5.1 MAIL command unknown #248 ")
            assert lines_of(file)[0].startswith("221 2.0.0 ")
            assert file.readline() == b""
    kept.wait_for_log("#1120 admin KILL x")
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0
    assert not kept.control.exists()


def test_socket_of_a_dead_node_is_replaced_and_one_in_use_refused(kept: Kept) -> None:
    process = ready(kept)
    process.kill()
    process.wait(PATIENCE)
    assert kept.control.exists()
    kept.start()
    wait_until(lambda: kept.logged().count("#599 ready") == 2)
    other = kept.start(f"interfaces=127.0.0.1:{free_port()}", f"run-pid-file={kept.folder}/other.pid", f"metrics-listen={free_port()}")
    assert other.wait(PATIENCE) == 1
    assert any(line.startswith("#537 init error node(0) control-socket: ") for line in kept.logged())


def test_tools_ask_and_change_a_running_node(kept: Kept) -> None:
    ready(kept)
    assert kept.tool("stat", "R").startswith("smtpf/")
    counters = json.loads(kept.tool("stat", "--json"))["counters"]
    assert counters["admin-commands"]["runtime"]["value"] == 2
    assert json.loads(kept.tool("stat", "--json", "H"))["counters"]["admin-commands"]["value"] == 3
    with socket.create_connection(("127.0.0.1", kept.port), timeout=PATIENCE) as client:
        client.recv(100)
        (session,) = json.loads(kept.tool("conn", "--json"))["sessions"]
        assert (session["state"], session["client"], session["address"]) == ("CONN", "localhost.localhost", "127.0.0.1")
        assert "killing session" in kept.tool("kill", session["id"])
        assert b" killed #325 " in client.recv(1000)
    assert "not found" in kept.tool("kill", "nobody", status=1)
    kept.tool("option", "smtp-drop-after=7", "+smtp-slow-reply", "smtp-reject-file=", status=1)
    kept.tool("option", "smtp-drop-after=7", "+smtp-slow-reply")
    found = json.loads(kept.tool("option", "--json"))
    assert found["smtp-drop-after"] == "7" and found["smtp-slow-reply"] is True and found["control-socket"] == str(kept.control)
    assert json.loads(kept.tool("verbose", "--json", "cache=2"))["words"]["cache"] == 2
    assert json.loads(kept.tool("info", "--json"))["SMTPF_NAME"] == "smtpf"
    assert kept.tool("lkey").startswith("end #548")
    assert kept.tool("stat", "--bogus", status=64).startswith("usage: smtpf stat")
    assert "No such file" in kept.tool("stat", f"--socket={kept.folder}/none", status=1)


def test_without_control_socket_the_tools_take_the_smtp_port(kept: Kept) -> None:
    kept.add('control-socket=""')
    ready(kept)
    assert kept.tool("stat").startswith("smtpf/")
    assert kept.tool("reload").startswith("the node has been told")
    kept.wait_for_log("#1135 reloaded, options changed=0")


CACHE_DIALOGUE = """\
# a comment
GET grey:192.0.2.1
PUT grey:192.0.2.1 0 or so
put grey:192.0.2.1 4
g grey:192.0.2.1
frobnicate
PUT alone
REMOVE grey:192.0.2.1
DELETE grey:192.0.2.1
quit
GET never
"""


def told_lines(text: str) -> list[str]:
    return [line.rpartition(" created=0x")[0] or line for line in text.splitlines()]


CACHE_ANSWERS = [
    'key="grey:192.0.2.1" not found',
    'new key="grey:192.0.2.1" value="0 or so" hits=1',
    'old key="grey:192.0.2.1" value="0 or so" hits=1',
    'new key="grey:192.0.2.1" value="4" hits=2',
    'old key="grey:192.0.2.1" value="4" hits=2',
    "input error",
    "input error",
    'old key="grey:192.0.2.1" value="4" hits=2',
    'deleted key="grey:192.0.2.1"',
    'key="grey:192.0.2.1" not found',
]


def test_cache_tool_speaks_as_ever_with_a_node_and_with_a_file(kept: Kept) -> None:
    process = ready(kept)
    online = kept.tool("cache", text=CACHE_DIALOGUE, status=1)
    assert told_lines(online) == CACHE_ANSWERS
    kept.tool("cache", "put", "click:192.0.2.9,a@b.example", "2")
    assert json.loads(kept.tool("cache", "--json", "get", "click:192.0.2.9,a@b.example"))["hits"] == 1
    assert kept.tool("cache", "active") == ""
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0
    file = f"--offline={kept.folder}/cache.sq3"
    offline = kept.tool("cache", file, text=CACHE_DIALOGUE, status=1)
    assert told_lines(offline) == CACHE_ANSWERS
    dumped = kept.tool("cache", file, "--dump")
    assert dumped.startswith("click:192.0.2.9,a@b.example\t2\t1\t") and dumped.count("\n") == 1
    other = f"--offline={kept.folder}/other.sq3"
    kept.tool("cache", other, "--load", text=dumped + "tab\\x09key\t\\x5cvalue\t3\t1\t2\t4102444800\n")
    again = kept.tool("cache", other, "--dump")
    assert dumped in again and "tab\\x09key\t\\x5cvalue\t3\t1\t2\t4102444800\n" in again
    assert "line 1" in kept.tool("cache", other, "--load", text="nonsense\n", status=1)
    assert "usage" in kept.tool("cache", "--dump", status=64)
    assert kept.tool("cache", file, "--ttl=60", "put", "k", "v").startswith('new key="k" value="v" hits=1')


def test_reload_reads_options_maps_and_texts_and_keeps_all_of_the_options_on_an_error(kept: Kept) -> None:
    welcome = kept.folder / "welcome"
    welcome.write_text("first welcome\n")
    kept.add(f'smtp-welcome-file="{welcome}"', "smtp-drop-after=5")
    process = ready(kept, "smtp-command-timeout=77")
    kept.add("smtp-drop-after=6", 'save-dir="/elsewhere"')
    welcome.unlink()
    kept.log.rename(kept.folder / "log.1")
    process.send_signal(signal.SIGHUP)
    kept.wait_for_log("#1135 reloaded, options changed=")
    logged = kept.logged()
    assert any(line.startswith(f'#1133 file "{welcome}" load error: ') for line in logged)
    found = json.loads(kept.tool("option", "--json"))
    assert found["smtp-drop-after"] == "6" and found["smtp-command-timeout"] == "77"
    kept.add("smtp-drop-after=few", "interfaces=127.0.0.1:1")
    assert 'smtp-drop-after" takes a number' in kept.tool("reload", status=1)
    kept.wait_for_log(f"#1134 options not reloaded: {kept.file}:")
    assert json.loads(kept.tool("option", "--json"))["smtp-drop-after"] == "6"
    kept.file.write_text(kept.file.read_text().replace("smtp-drop-after=few", "smtp-drop-after=8"))
    told = json.loads(kept.tool("reload", "--json"))
    assert told == {"changed": ["smtp-drop-after"], "restart": ["interfaces"]}
    kept.wait_for_log("#1132 option interfaces needs restart")
    (kept.folder / "access.cf").write_text("connect:127.0.0.1\tREJECT\n")
    kept.tool("reload")
    with socket.create_connection(("127.0.0.1", kept.port), timeout=PATIENCE) as client:
        assert client.recv(1000).startswith(b"550 ")


def test_web_server_tells_health_readiness_and_metrics_and_nothing_else(kept: Kept) -> None:
    process = ready(kept)
    assert kept.get("/healthz") == (200, "ok\n")
    assert kept.get("/readyz") == (200, "ready\n")
    status, text = kept.get("/metrics")
    assert status == 200 and text.endswith("# EOF\n") and "\nsmtpf_ready 1\n" in text and "\nsmtpf_clients_total 0\n" in text
    assert kept.get("/")[0] == 404
    with socket.create_connection(("127.0.0.1", kept.web), timeout=PATIENCE) as client:
        client.sendall(b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n" + b"x" * 1000)
        assert client.recv(1000)[:15] in (b"", b"HTTP/1.1 405 Me")
    with socket.create_connection(("127.0.0.1", kept.port), timeout=PATIENCE) as client:
        client.recv(100)
        process.send_signal(signal.SIGQUIT)
        wait_until(lambda: kept.get("/readyz") == (503, "stopping\n"))
        assert kept.get("/healthz")[0] == 200
    assert process.wait(PATIENCE) == 0


def test_statistics_are_posted_when_the_node_ends_its_sweep(kept: Kept) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE)
        process = kept.start(f"stats-http-post=http://127.0.0.1:{server.getsockname()[1]}/in", "stats-http-user=u", "stats-http-pass=p")
        connection, _ = server.accept()
        with connection:
            connection.settimeout(PATIENCE)
            heard = b""
            while not heard.endswith(b"0\r\n\r\n"):
                heard += connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert heard.startswith(b"POST /in HTTP/1.1\r\n") and b"Authorization: Basic dTpw" in heard and b"&CLIENTS=0%20" in heard
    kept.wait_for_log("#599 ready")
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0


def test_cluster_that_cannot_be_as_configured_ends_the_start(kept: Kept) -> None:
    assert kept.start("cache-unicast-hosts=192.0.2.1", "cache-secret=short").wait(PATIENCE) == 1
    assert "#1113 cache-secret too short for clustering" in kept.logged()
    assert "#599 ready" not in kept.logged()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_node_that_has_become_another_user_owns_its_files_and_can_open_its_log_again(kept: Kept) -> None:
    for folder in (kept.folder, *kept.folder.parents[:2]):
        folder.chmod(0o777)
    kept.add("run-user=nobody", "run-group=nogroup", "run-work-dir=/tmp")
    ready(kept)
    owned = (kept.folder / "cache.sq3", kept.folder / "stats.sq3", kept.pid_file, kept.control, kept.log)
    assert {path.owner() for path in owned} == {"nobody"} and {stat.S_IMODE(path.stat().st_mode) for path in owned} == {0o660}
    kept.log.rename(kept.folder / "log.1")
    kept.tool("reload")
    kept.wait_for_log("#1135 reloaded, options changed=0")


def test_licence_key_is_looked_at_only_when_one_is_named(kept: Kept) -> None:
    assert kept.start("+test-lickey", twistd=()).wait(PATIENCE) == 0
    assert kept.start("lickey-file=/nonexistent").wait(PATIENCE) == 3
    assert '#409 license key "/nonexistent" load error: No such file or directory (2)' in kept.logged()
    assert "#599 ready" not in kept.logged()
