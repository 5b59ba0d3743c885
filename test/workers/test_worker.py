"""A worker, as far as it needs no process."""

from __future__ import annotations

import socket
from types import SimpleNamespace

from twisted.internet.task import Clock

from smtpf.workers.worker import WorkerProcess


def test_a_worker_that_is_to_accept_nothing_more_tells_that_sessions_may_have_ended() -> None:
    """One that ended a moment before was still counted by the coordinator, which would wait for it."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, far:
        worker = WorkerProcess(Clock(), far)
        said: list[str] = []
        worker.channel = SimpleNamespace(tell=said.append)  # type: ignore[assignment]
        worker._close()
        worker._close()
    assert said == ["ended"]
