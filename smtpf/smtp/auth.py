"""AUTH PLAIN and LOGIN: the dialogue with the client. The credentials are tried by ``auth_proxy`` and never kept or logged.

Source: RFC 4954, RFC 4616; spec chapter session, 3.4.
"""

from __future__ import annotations

import base64
import binascii
import os
from errno import ETIMEDOUT
from typing import TYPE_CHECKING

import attrs

from smtpf.journal.message import Message, err, info
from smtpf.pipeline import Code, Verdict
from smtpf.reply import Answer, Reply
from smtpf.smtp import options as opt
from smtpf.smtp.session import ClientFlag
from smtpf.smtp.wire import Disconnected, TimedOut
from smtpf.stats.counter import Counter, Group

if TYPE_CHECKING:
    from smtpf.smtp.conversation import Conversation

USER_IO = err(257, "client %s [%s] I/O error: %s (%d)", "The client went away when it was asked for its user name.")
USER_OVERFLOW = err(260, "AUTH LOGIN buffer overflow caught", "A user name or password is longer than any can be.")
USER_DECODE = err(261, "login base64 decode error", "The user name is not base64; the client's software is broken.")
PASSWORD_IO = err(262, "client %s [%s] I/O error: %s (%d)", "The client went away when it was asked for its password.")
PASSWORD_DECODE = err(265, "password base64 decode error", "The password is not base64; the client's software is broken.")
PLAIN_OVERFLOW = err(268, "AUTH PLAIN buffer overflow caught", "The credentials are longer than any can be.")
PLAIN_DECODE = err(270, "AUTH base64 decode error", "The credentials are not base64, or lack a part; the client's software is broken.")
QUEUING_ALL = info(
    272, "queuing all messages on %s [%s]", "All mail of this session goes to the host that authenticated it.", fields=("host", "address")
)
AUTHENTICATED_AS = info(
    273, "auth-id=<%s> relay=%d", "The client is authenticated; relay=1 when it might relay anyway.", fields=("auth_id", "relay")
)

NOT_SUPPORTED = Reply(827, "502 5.5.1 AUTH not supported", meaning="smtp-auth-enable is off.")
ENCRYPTION_REQUIRED = Reply(
    1020, "538 5.7.11 Encryption required for requested authentication mechanism", meaning="smtp-auth-tls: AUTH only inside TLS."
)
ALREADY = Reply(267, "503 5.5.1 already authenticated", meaning="A second AUTH in one session.")
CANCELLED_USER = Reply(259, "501 5.5.1 AUTH cancelled", meaning="The client gave up at the user name.")
CANCELLED_PASSWORD = Reply(264, "501 5.5.1 AUTH cancelled", meaning="The client gave up at the password.")
UNKNOWN_MECHANISM = Reply(269, "504 5.5.4 unknown AUTH mechanism", meaning="Only PLAIN and LOGIN are offered.")
AUTHENTICATED = Reply(274, "235 2.0.0 authenticated", meaning="The credentials were accepted.")
FAILED = Reply(275, "535 5.7.0 authentication failed", meaning="The credentials were refused, or nobody could be asked.")
AUTH_PASS = Counter("auth-pass", Group.CONNECT, "AUTH that succeeded.")
AUTH_FAIL = Counter("auth-fail", Group.CONNECT, "AUTH that failed.")

MAX_ATTEMPTS = 3
"""Failures after which no host is asked any more in this session."""
MAX_USER = 512
MAX_PLAIN = 1000
_ASK_USER = Answer(("334 VXNlcm5hbWU6",))
_ASK_PASSWORD = Answer(("334 UGFzc3dvcmQ6",))
_ASK_PLAIN = Answer(("334 ",))


@attrs.frozen
class _Credentials:
    user: str
    password: bytes = attrs.field(repr=False)


async def auth(talk: Conversation, argument: str, line: str) -> Verdict | Answer | None:
    """AUTH: one attempt."""
    session, settings = talk.session, talk.session.settings
    proxy = talk.engine.auth_proxy
    if not settings[opt.SMTP_AUTH_ENABLE] or proxy is None:
        return Verdict(Code.CONTINUE, NOT_SUPPORTED)
    if settings[opt.SMTP_AUTH_TLS] and session.tls is None:
        return Verdict(Code.CONTINUE, ENCRYPTION_REQUIRED)
    if session.auth:
        return Verdict(Code.CONTINUE, ALREADY)
    mechanism, _, initial = argument.partition(" ")
    if talk.auth_failures >= MAX_ATTEMPTS:
        return _failed(talk)
    match mechanism.upper():
        case "PLAIN":
            given = await _plain(talk, initial.strip())
        case "LOGIN":
            given = await _login(talk, initial.strip())
        case _:
            return Verdict(Code.CONTINUE, UNKNOWN_MECHANISM)
    if isinstance(given, Verdict):
        return given
    outcome = await proxy.authenticate(session, given.user, given.password)
    if not outcome.accepted:
        return _failed(talk)
    if outcome.kept is not None:
        talk.queue = outcome.kept
        session.log(QUEUING_ALL, outcome.kept.host_text, outcome.kept.address)
    session.log(AUTHENTICATED_AS, given.user, int(session.relay))
    session.auth_id = given.user
    talk.relay_by_auth = not session.relay
    session.flags.update((ClientFlag.RELAY, ClientFlag.AUTH))
    session.count(AUTH_PASS)
    return Verdict(Code.CONTINUE, AUTHENTICATED)


def _failed(talk: Conversation, message: Message | None = None) -> Verdict:
    if message is not None:
        talk.session.log(message)
    talk.auth_failures += 1
    talk.session.count(AUTH_FAIL)
    return Verdict(Code.REJECT, FAILED)


async def _plain(talk: Conversation, initial: str) -> _Credentials | Verdict:
    """``[authorize-id] NUL authenticate-id NUL password`` (RFC 4616 2); the authorize-id is not looked at."""
    text = initial or await _challenge(talk, _ASK_PLAIN, USER_IO)
    if text == "*":
        return _cancelled(talk, CANCELLED_USER)
    if len(text) > MAX_PLAIN:
        return _failed(talk, PLAIN_OVERFLOW)
    octets = _decoded(text)
    parts = octets.split(b"\0") if octets is not None else []
    if len(parts) != 3 or not parts[1]:
        return _failed(talk, PLAIN_DECODE)
    return _Credentials(parts[1].decode("utf-8", "surrogateescape"), parts[2])


async def _login(talk: Conversation, initial: str) -> _Credentials | Verdict:
    text = initial or await _challenge(talk, _ASK_USER, USER_IO)
    if text == "*":
        return _cancelled(talk, CANCELLED_USER)
    user = _decoded(text)
    if user is None:
        return _failed(talk, USER_DECODE)
    if len(user) > MAX_USER:
        return _failed(talk, USER_OVERFLOW)
    text = await _challenge(talk, _ASK_PASSWORD, PASSWORD_IO)
    if text == "*":
        return _cancelled(talk, CANCELLED_PASSWORD)
    password = _decoded(text)
    if password is None:
        return _failed(talk, PASSWORD_DECODE)
    if len(password) > MAX_USER:
        return _failed(talk, USER_OVERFLOW)
    if b"\0" in user or b"\0" in password:
        return _failed(talk, USER_DECODE)
    return _Credentials(user.decode("utf-8", "surrogateescape"), password)


def _cancelled(talk: Conversation, reply: Reply) -> Verdict:
    talk.auth_failures += 1
    talk.session.count(AUTH_FAIL)
    return Verdict(Code.CONTINUE, reply)


async def _challenge(talk: Conversation, question: Answer, lost: Message) -> str:
    """Ask, and read the client's line. A client that goes now is logged with ``lost``."""
    session = talk.session
    await talk.write(question)
    try:
        line = await talk.wire.line(talk.command_timeout())
    except TimedOut:
        session.log(lost, session.name, session.address, os.strerror(ETIMEDOUT), ETIMEDOUT)
        raise
    except Disconnected as gone:
        session.log(lost, session.name, session.address, str(gone), gone.errno)
        raise
    session.octets += len(line)
    return line.decode("ascii", "replace").strip()


def _decoded(text: str) -> bytes | None:
    """The octets of base64 ``text``; ``=`` is the empty string (RFC 4954 4)."""
    if text == "=":
        return b""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
