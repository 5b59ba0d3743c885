"""A private Postfix in a temporary folder: listens on loopback, delivers to a Maildir, or sends everything to a relay host."""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
from email import message_from_bytes
from email.message import Message
from pathlib import Path

from test.support.node_process import free_port

MASTER = """\
127.0.0.1:{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
showq unix n - n - - showq
"""


class Postfix:
    """One instance. ``domain`` is delivered here; with ``relay_port`` everything else goes to that loopback port."""

    def __init__(self, folder: Path, domain: str, *, relay_port: int | None = None, more: str = "") -> None:
        self.folder = folder
        self.port = free_port()
        self.config = folder / "etc"
        self.mail = folder / "mail"
        owner, group = pwd.getpwnam("postfix"), grp.getgrnam("postdrop")
        for each in (folder, self.config, folder / "queue", folder / "data", self.mail):
            each.mkdir(parents=True, exist_ok=True)
        for path in (folder / "data", self.mail):
            os.chown(path, owner.pw_uid, owner.pw_gid)
        for parent in (folder, *folder.parents):
            if parent.stat().st_uid == os.geteuid() and not parent.stat().st_mode & 0o001:
                parent.chmod(parent.stat().st_mode | 0o011)
        relay = f"relayhost = [127.0.0.1]:{relay_port}\n" if relay_port else ""
        (self.config / "master.cf").write_text(MASTER.format(port=self.port))
        (self.config / "main.cf").write_text(
            f"compatibility_level = 3.6\nqueue_directory = {folder}/queue\ndata_directory = {folder}/data\n"
            f"myhostname = post.{domain}\nmydestination =\ninet_interfaces = 127.0.0.1\ninet_protocols = ipv4\nmynetworks = 127.0.0.0/8\n"
            f"virtual_mailbox_domains = {domain}\nvirtual_mailbox_base = {self.mail}\nvirtual_mailbox_maps = static:box/\n"
            f"virtual_uid_maps = static:{owner.pw_uid}\nvirtual_gid_maps = static:{owner.pw_gid}\nvirtual_minimum_uid = 1\n"
            f"maillog_file = {folder}/maillog\nmaillog_file_prefixes = {folder}\nsmtputf8_enable = yes\n"
            f"smtp_tls_security_level =\nminimal_backoff_time = 2s\nqueue_run_delay = 2s\nalias_maps =\nsetgid_group = {group.gr_name}\n"
            f"{relay}{more}"
        )

    def start(self) -> Postfix:
        self._postfix("start")
        return self

    def stop(self) -> None:
        subprocess.run(["postfix", "-c", str(self.config), "stop"], capture_output=True, timeout=60)

    def _postfix(self, what: str) -> None:
        done = subprocess.run(["postfix", "-c", str(self.config), what], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr + self.maillog()

    def maillog(self) -> str:
        path = self.folder / "maillog"
        return path.read_text() if path.exists() else ""

    def send(self, sender: str, recipient: str, text: str) -> None:
        """Hand a message to this instance as its own sendmail command would."""
        subprocess.run(
            ["sendmail", "-C", str(self.config), "-f", sender, recipient],
            input=text,
            text=True,
            check=True,
            timeout=60,
            capture_output=True,
        )

    def delivered(self) -> list[Message]:
        """The messages in the Maildir."""
        return [message_from_bytes(path.read_bytes()) for path in sorted((self.mail / "box" / "new").glob("*"))]
