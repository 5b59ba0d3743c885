"""A node to measure: its configuration in a folder of its own, its process, and what /proc and the meter say of it."""

from __future__ import annotations

import getpass
import grp
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.meter import Meter
from bench.network import everywhere
from bench.postfix_tools import DOMAIN
from bench.processes import HOST, Child, free_port, wait_until

ENTRIES = 500
"""Entries of the access map that concern nobody, and domains of the route map that nobody writes to."""

ALONE = "workers=1"
"""A single process, whatever it has to do."""

FULL = (
    "-rfc2606-special-domains",
    "-reject-unknown-tld",
    "-mail-require-mx",
    "-spf-received-spf-headers",
    'spf-mail-policy=""',
)
"""What a node is to do without when there is no DNS. Options that a version does not have are passed over (+lenient)."""

PLAIN = (*FULL, 'grey-key=""', ALONE)
"""What measurements without filters switch off."""

LIMITS = "rate-connect:127\t100000\nconcurrent-connect:127\t10000\n"
"""Entries of the access map that limit clients, too high to be met."""

_UNKNOWN = re.compile(r'#1130 option "([^"]+)" unknown')

_OPTIONS = """\
interfaces={listen}:{port}
interface-name=node.{domain}
-daemon
+lenient
run-user={user}
run-group={group}
run-work-dir="{folder}"
run-pid-file="{folder}/smtpf.pid"
run-open-file-limit=200000
access-map="file!{folder}/access.cf"
route-map="file!{folder}/route.cf"
cache-path="{folder}/cache.sq3"
stats-map="file!{folder}/stats"
save-dir="{folder}/save"
trap-dir="{folder}/trap"
log-target="file!{folder}/log"
rate-throttle=0
smtp-drop-after=0
server-max-threads=0
smtp-server-queue=1024
"""


class Node:
    """One process of smtpf with ``hop`` (a port) as its only next hop."""

    def __init__(self, folder: Path, hop: int, options: Sequence[str] = PLAIN, access: str = "", descriptors: int = 0) -> None:
        """``descriptors``: believed by the node's guard instead of the limit of the process; 0 leaves that to the node."""
        self.port = free_port()
        self.folder = folder
        self.log = folder / "log"
        for name in ("save", "trap"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        values = {
            "listen": everywhere(), "port": self.port, "domain": DOMAIN, "user": getpass.getuser(),
            "group": grp.getgrgid(os.getgid()).gr_name,
            "folder": folder,
        }  # fmt: skip
        (folder / "smtpf.cf").write_text(_OPTIONS.format(**values) + "".join(f"{option}\n" for option in options))
        (folder / "access.cf").write_text(access + "".join(f"from:user{place}@d{place}.example\tREJECT\n" for place in range(ENTRIES)))
        others = "".join(f"route:d{place}.example\tFORWARD: {HOST}:{hop}\n" for place in range(ENTRIES))
        (folder / "route.cf").write_text(f"route:{DOMAIN}\tFORWARD: {HOST}:{hop}\n{others}")
        self.meter = Meter(folder / "meter")
        words = [
            sys.executable,
            "-m",
            "bench.meter",
            str(self.meter.file),
            str(descriptors),
            "-n",
            "--pidfile=",
            "smtpf",
            f"file={folder}/smtpf.cf",
        ]
        root = Path(__file__).parent.parent
        paths = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(root))))
        self.child = Child(["env", f"PYTHONPATH={paths}", *words], folder, folder / "output")
        try:
            wait_until(self._ready, "the node does not start")
        except TimeoutError:
            self.child.stop()
            raise RuntimeError(self._said()) from None

    def _ready(self) -> bool:
        if self.child.process.poll() is not None:
            raise RuntimeError(f"the node ended: {self._said()}")
        return self.log.exists() and "#599 " in self.log.read_text(errors="replace")

    def _said(self) -> str:
        return "\n".join(file.read_text(errors="replace")[-2000:] for file in (self.log, self.folder / "output") if file.exists())

    @property
    def workers(self) -> int:
        """Workers that have been ready."""
        return self.log.read_text(errors="replace").count(" #1137 ")

    def unknown_options(self) -> tuple[str, ...]:
        """Options that the node passed over."""
        return tuple(sorted(set(_UNKNOWN.findall(self.log.read_text(errors="replace")))))

    def stop(self) -> None:
        self.child.stop()
