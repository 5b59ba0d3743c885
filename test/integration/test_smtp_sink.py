"""The client side against Postfix's smtp-sink."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest
from twisted.internet import reactor
from twisted.internet.task import deferLater

from smtpf.pipeline import Code
from smtpf.smtp.forward import combine
from test.support.sending import TID, Desk, hop_host, mail_path

SINK = shutil.which("smtp-sink") or shutil.which("smtp-sink", path="/usr/sbin:/usr/lib/postfix/sbin")

pytestmark = pytest.mark.skipif(SINK is None, reason="smtp-sink is not installed")


@pytest.fixture
def mail_folder():
    """Where smtp-sink may write though it is nobody."""
    folder = Path(tempfile.mkdtemp(prefix="sink"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def sink(mail_folder):
    running = []

    def start(*arguments):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        running.append(subprocess.Popen([SINK, "-u", "nobody", "-d", str(mail_folder / "mail."), *arguments, f"127.0.0.1:{port}", "10"]))
        return port

    yield start
    for process in running:
        process.terminate()
        process.wait()


async def send(desk, port, body, folder):
    transaction = desk.transaction()
    desk.fill(transaction, b"Subject: hi\r\n", body, folder)
    connection = desk.connection(transaction, [hop_host(port)])
    opened = await connection.open(mail_path("ann@example.com"))
    for _ in range(100):
        if opened is None or connection.connected:
            break
        await deferLater(reactor, 0.05)
        opened = await connection.open(mail_path("ann@example.com"))
    if opened is not None:
        return opened
    for name in ("ann@example.com", "bob@example.com"):
        refused = await connection.rcpt(mail_path(name))
        if refused is not None:
            return refused
    outcomes = await desk.forwarder.deliver(desk.session, transaction, [connection])
    connection.close()
    return combine(outcomes, TID)


@pytest.mark.parametrize("arguments", [(), ("-e",), ("-8",), ("-p",)])
def test_message_is_taken(reactor_run, sink, mail_folder, tmp_path, arguments):
    port = sink(*arguments)
    verdict = reactor_run(send(Desk(reactor), port, b".dot\r\nline\r\n", tmp_path))
    assert verdict.code is Code.CONTINUE
    (stored,) = mail_folder.glob("mail.*")
    assert stored.read_bytes().endswith(b"Subject: hi\n\n.dot\nline\n\n")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("-f", "rcpt"), Code.REJECT),
        (("-r", "rcpt"), Code.TEMPFAIL),
        (("-f", "data"), Code.REJECT),
        (("-f", "."), Code.REJECT),
        (("-r", "."), Code.TEMPFAIL),
        (("-q", "."), Code.TEMPFAIL),
        (("-q", "data"), Code.TEMPFAIL),
        (("-q", "mail"), Code.TEMPFAIL),
    ],
)
def test_trouble(reactor_run, sink, tmp_path, arguments, code):
    port = sink(*arguments)
    verdict = reactor_run(send(Desk(reactor), port, b"line\r\n", tmp_path))
    assert verdict.code is code


def test_one_connection_carries_several_messages(reactor_run, sink, mail_folder, tmp_path):
    port, desk = sink(), Desk(reactor)
    for number in range(3):
        verdict = reactor_run(send(desk, port, b"message %d\r\n" % number, tmp_path))
        assert verdict.code is Code.CONTINUE
    assert desk.counted("forward-reused") == 2
    bodies = b"".join(path.read_bytes() for path in mail_folder.glob("mail.*"))
    assert all(b"message %d\n" % number in bodies for number in range(3))
    reactor_run(lambda: desk.forwarder.close())


@pytest.mark.parametrize("arguments", [("-q", "rset"), ("-f", "rset"), ("-r", "rset")])
def test_a_sink_that_has_had_enough_at_rset_is_connected_anew(reactor_run, sink, mail_folder, tmp_path, arguments):
    port, desk = sink(*arguments), Desk(reactor)
    for number in range(2):
        assert reactor_run(send(desk, port, b"message %d\r\n" % number, tmp_path)).code is Code.CONTINUE
    assert (desk.counted("forward-reused"), desk.counted("forward-reuse-replaced")) == (0, 1)
    assert desk.numbers == []
    reactor_run(lambda: desk.forwarder.close())
