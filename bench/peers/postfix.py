"""Postfix's smtpd as a before-queue proxy (``smtpd_proxy_filter``): the same job in C, with a process for each session."""

from __future__ import annotations

import os
from pathlib import Path

from bench.network import everywhere, inside
from bench.processes import HOST, Child, Missing, answers, free_port, program, wait_until

PROCESSES = 100
_MAIN = """\
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
command_directory = {commands}
daemon_directory = {daemons}
mail_owner = postfix
setgid_group = postdrop
inet_interfaces = {interfaces}
inet_protocols = ipv4
myhostname = proxy.bench.example
mydestination =
relay_domains = bench.example
mynetworks =
smtpd_relay_restrictions = permit_auth_destination, reject
smtpd_peername_lookup = no
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
message_size_limit = 0
alias_maps =
alias_database =
maillog_file = {folder}/log/maillog
maillog_file_prefixes = {folder}
"""
_MASTER = """\
{listen}:{port} inet n - n - {processes} smtpd -o smtpd_proxy_filter=127.0.0.1:{hop} -o smtpd_proxy_options=
cleanup unix n - n - 0 cleanup
rewrite unix - - n - - trivial-rewrite
anvil unix - - n - 1 anvil
proxymap unix - - n - - proxymap
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
"""


class PostfixProxy:
    """One instance in a folder of its own."""

    def __init__(self, folder: Path, hop: int) -> None:
        if os.geteuid():
            raise Missing("Postfix starts as root only")
        self.port = free_port()
        configuration = folder / "etc"
        for name in ("etc", "queue/pid", "data", "log"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        master = program("master")
        values = {
            "interfaces": "all" if inside() else HOST, "folder": folder, "commands": Path(program("postfix")).parent,
            "daemons": Path(master).parent,
        }  # fmt: skip
        (configuration / "main.cf").write_text(_MAIN.format(**values))
        (configuration / "master.cf").write_text(_MASTER.format(listen=everywhere(), port=self.port, hop=hop, processes=PROCESSES))
        for folder_of_queue in ("public", "private", "maildrop", "incoming", "active", "deferred", "defer", "bounce", "corrupt", "hold"):
            made = folder / "queue" / folder_of_queue
            made.mkdir()
            _own(made)
        _own(folder / "data")
        self.child = Child([master, "-d", "-c", str(configuration)], folder, folder / "output")
        try:
            wait_until(lambda: answers(self.port), "Postfix does not answer", 10)
        except TimeoutError:
            self.stop()
            raise Missing("Postfix does not start: " + (folder / "output").read_text(errors="replace")[-500:]) from None

    def stop(self) -> None:
        self.child.stop()


def _own(folder: Path) -> None:
    from pwd import getpwnam

    os.chown(folder, getpwnam("postfix").pw_uid, 0)
