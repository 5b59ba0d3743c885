"""Who the node is once it serves: user, group, working directory, and the files that it must own.

Ports below 1024 are bound as root; after that nothing needs root any more. Started as another user, the identity stays as
it is and only the working directory changes. Source: spec chapter operations, 6.4.
"""

from __future__ import annotations

import ctypes
import errno
import grp
import os
import pwd
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import attrs

from smtpf.journal.message import err
from smtpf.process.ending import INIT_ERROR, CannotStart
from smtpf.settings.process_options import RUN_GROUP, RUN_JAILED, RUN_USER, RUN_WORK_DIR

if TYPE_CHECKING:
    from smtpf.journal.journal import Journal
    from smtpf.settings.store import Settings

FILE_MODE = 0o660
UMASK = 0o007
PR_SET_NO_NEW_PRIVS = 38
"""Number of the Linux prctl after which no program started from here gains rights (setuid bits are ignored)."""


NO_USER = err(
    727,
    'user "%s" not found',
    "run-user names no account of this machine, or one with root's rights, so the node does not start. Create the user or name another.",
    fields=("user",),
)
NO_GROUP = err(
    728,
    'group "%s" not found',
    "run-group names no group of this machine. The node does not start; create the group or name another.",
    fields=("group",),
)
CHOWN_FAILED = err(
    729,
    'chown("%s", "%s", "%s") error: %s (%d)',
    "A file that the node must write could not be given to run-user and run-group.",
    fields=("path", "user", "group", "error", "errno"),
)
CHMOD_FAILED = err(
    730,
    'chmod("%s", %o) error: %s (%d)',
    "The access rights of a file that the node must write could not be set.",
    fields=("path", "mode", "error", "errno"),
)


@attrs.frozen
class Identity:
    """Whom to become. ``uid`` None: stay who we are (not started as root)."""

    user: str
    group: str
    uid: int | None
    gid: int | None


def look_up(settings: Settings, journal: Journal, is_root: bool, *, lenient: bool = False) -> Identity:
    """Whom to become. Raises CannotStart (#727, #728); with ``lenient`` a name that does not exist changes nothing."""
    user, group = settings[RUN_USER], settings[RUN_GROUP]
    if not is_root:
        return Identity(user, group, None, None)
    account = _user(user)
    members = _group(group)
    if account is None or (account.pw_uid == 0 and user != "root"):
        journal.write(NO_USER, user)
    elif members is None and user != "root":
        journal.write(NO_GROUP, group)
    else:
        return Identity(user, group, account.pw_uid, members.gr_gid if members else account.pw_gid)
    if not lenient:
        raise CannotStart
    return Identity(user, group, None, None)


def give_files(identity: Identity, journal: Journal, files: Iterable[str], companions: Iterable[str] = ()) -> None:
    """Owner and mode of ``files`` that exist; raises CannotStart (#729, #730). What fails on ``companions`` is ignored."""
    if identity.uid is None:
        return
    for path in files:
        _give(identity, journal, path)
    for path in companions:
        try:
            os.chown(path, identity.uid, identity.gid or 0, follow_symlinks=False)
            os.chmod(path, FILE_MODE)
        except OSError:
            pass


def become(settings: Settings, identity: Identity, journal: Journal) -> None:
    """Change to the working directory or jail, and become ``identity`` for good. Raises CannotStart (#537)."""
    folder = settings[RUN_WORK_DIR]
    try:
        if settings[RUN_JAILED] and os.geteuid() == 0:
            _jail(folder)
        else:
            os.chdir(folder)
        if identity.uid is not None:
            _drop_rights(identity)
    except OSError as error:
        journal.write(INIT_ERROR, __name__, sys._getframe().f_lineno, folder, error.strerror, error.errno or errno.EPERM)
        raise CannotStart from error


def _user(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _group(name: str) -> grp.struct_group | None:
    try:
        return grp.getgrnam(name)
    except KeyError:
        return None


def _give(identity: Identity, journal: Journal, path: str) -> None:
    assert identity.uid is not None
    try:
        os.chown(path, identity.uid, identity.gid or 0, follow_symlinks=False)
    except FileNotFoundError:
        return
    except OSError as error:
        journal.write(CHOWN_FAILED, path, identity.user, identity.group, error.strerror, error.errno)
        raise CannotStart from error
    try:
        os.chmod(path, FILE_MODE)
    except OSError as error:
        journal.write(CHMOD_FAILED, path, FILE_MODE, error.strerror, error.errno)
        raise CannotStart from error


def _jail(folder: str) -> None:
    os.chroot(folder)
    os.chdir("/")


def _drop_rights(identity: Identity) -> None:
    assert identity.uid is not None
    gid = identity.gid or 0
    if identity.uid != 0:
        os.setgid(gid)
        os.initgroups(identity.user, gid)
        os.setuid(identity.uid)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
