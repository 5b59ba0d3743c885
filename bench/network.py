"""Clients at several addresses of one machine: a private network with nothing in it but a loopback interface that has more of them.

``smtp-source`` cannot be told its own address, but who connects to 127.0.0.2 comes from there when that is an address of its own. Needs
root, ``unshare`` and ``ip``; without them all clients come from 127.0.0.1.
"""

from __future__ import annotations

import os
import shutil
import sys

from bench.processes import HOST

ADDRESSES = tuple(f"127.0.0.{last}" for last in range(1, 5))
"""Of clients. The first is where they all come from outside of the private network."""
_INSIDE = "SMTPF_BENCH_NETWORK"


def inside() -> bool:
    """All of ADDRESSES are there."""
    return _INSIDE in os.environ


def everywhere() -> str:
    """The address at which servers listen: any of this machine within the private network, which nobody else can reach."""
    return "0.0.0.0" if inside() else HOST


def enter(module: str) -> None:
    """Run ``python -m module`` with these arguments in the private network instead of this process, where that can be done."""
    unshare, ip = shutil.which("unshare"), shutil.which("ip")
    if inside() or os.geteuid() or unshare is None or ip is None:
        return
    steps = [f"{ip} link set lo up", *(f"{ip} addr add {address}/32 dev lo" for address in ADDRESSES[1:]), 'exec "$@"']
    words = [unshare, "-n", "sh", "-c", " && ".join(steps), "sh", sys.executable, "-m", module, *sys.argv[1:]]
    sys.stdout.flush()
    os.execve(unshare, words, {**os.environ, _INSIDE: "1"})
