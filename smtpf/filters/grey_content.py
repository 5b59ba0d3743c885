"""grey-content: the attempt that comes back after grey-listing must bring the message that was refused, and not another.

Works behind ``grey``, which lets messages through DATA for this. A digest of the text is kept beside the attempt when its
message has come in; after the waiting time only that text passes. Judged with the last chunk of the body, so that no
scanner runs for a message that is refused anyway. Source: spec chapter filters-content, 18.
"""

from __future__ import annotations

import hashlib
import os
import re
from typing import TYPE_CHECKING

import attrs

from smtpf.cache.records import Record
from smtpf.cache.store import Cache
from smtpf.filters.grey import GREY_CONTENT, GREY_CONTINUE, GREY_TEMP_FAIL_TTL, PASSED, WAITING, Delay, Grey
from smtpf.filters.grey_key import GreyKey
from smtpf.filters.mime_pass import listen, walked
from smtpf.journal.message import info
from smtpf.message.mime import Part, PartListener
from smtpf.message.spool import CREATE_ERROR, MODE, SAVE_DIR
from smtpf.pipeline import Filter, MaybeVerdict, Verdict, tempfail
from smtpf.reply import Reply
from smtpf.settings.option import Flag
from smtpf.smtp.session import MsgFlag, Session, Transaction
from smtpf.stats.counter import Counter, Group

if TYPE_CHECKING:
    from smtpf.message.spool import InThread

GREY_CONTENT_SAVE = Flag(
    "grey-content-save",
    False,
    "Keep the text that grey-content compares, as a file in save-dir, to find out why a message differs from its first attempt.",
    area="grey",
)

MISMATCH = info(
    393,
    "grey-content message mismatch",
    "A grey-listed sender came back with another message than the one that was refused. It is asked to come back once more.",
)
LISTED = info(
    394,
    "grey-content listed {%s} for %ld seconds",
    "A first attempt was read to its end, its text noted, and the message refused for now.",
    fields=("key", "seconds"),
)
REPLACED = info(
    964,
    "grey content hash replaced msg-id=%s key={%s} value={%s} hash=%s",
    "A sender rewrote its message before it came back; from now on the new text counts as the first one.",
    fields=("message_id", "key", "value", "hash"),
    since="later",
)

ANOTHER_MESSAGE = Reply(553, "450 4.4.5 try again later", meaning="grey-content: this is not the message that was refused before.")

GREY_CONTENT_HIT = Counter("grey-content", Group.MSG, "Messages refused for now by grey-content.")
GREY_HASH_MISMATCH = Counter("grey-hash-mismatch", Group.MSG, "Retries that brought another message.", since="later")
GREY_HASH_REPLACED = Counter("grey-hash-replaced", Group.MSG, "Retries whose message its sender had rewritten.", since="later")

DIGEST = 32
"""Hexadecimal digits of a digest."""
MAX_KEPT = 1 << 20
"""Octets of text kept by grey-content-save."""

MAX_MESSAGE_ID = 200
"""Characters of a Message-ID in a key."""

_WHITE = b" \t\n\v\f\r"
_INVISIBLE = re.compile(rb"\xe2\x80[\x8b\x8c\x8d]|\xe2\x81\xa0|\xef\xbb\xbf")
"""Zero-width characters in UTF-8: U+200B to U+200D, U+2060 and U+FEFF."""
_UNFINISHED = re.compile(rb"(?:\xe2[\x80\x81]?|\xef\xbb?|<)\Z")
_LEFT_OUT = frozenset({"application/ms-tnef"})


class TextDigest(PartListener):
    """A digest of what a message says, the same however it comes in pieces."""

    def __init__(self, keep: bool = False) -> None:
        self._hash = hashlib.sha256()
        self._carry = b""
        self._in_markup = False
        self._keep = keep
        self.kept = bytearray()

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()[:DIGEST]

    def decoded(self, part: Part, octets: bytes) -> None:
        if part.multipart or part.content_type in _LEFT_OUT:
            return
        data = self._carry + octets.translate(None, _WHITE)
        unfinished = _UNFINISHED.search(data)
        self._carry = unfinished[0] if unfinished else b""
        self._take(part, data[: len(data) - len(self._carry)])

    def end(self, part: Part) -> None:
        carry, self._carry = self._carry, b""
        self._take(part, carry)
        self._in_markup = False

    def _take(self, part: Part, data: bytes) -> None:
        if part.content_type == "text/html":
            data = self._without_markup(data)
        data = _INVISIBLE.sub(b"", data)
        self._hash.update(data)
        if self._keep and len(self.kept) < MAX_KEPT:
            self.kept += data

    def _without_markup(self, data: bytes) -> bytes:
        """Without comments and declarations: from ``<!`` to the next ``>``."""
        said = []
        at = 0
        while at < len(data):
            if self._in_markup:
                end = data.find(b">", at)
                if end < 0:
                    break
                self._in_markup = False
                at = end + 1
            else:
                begin = data.find(b"<!", at)
                said.append(data[at:begin] if begin >= 0 else data[at:])
                if begin < 0:
                    break
                self._in_markup = True
                at = begin + 2
        return b"".join(said)


@attrs.define
class _Seen:
    """What is known of one message."""

    text: TextDigest | None = None
    judged: bool = False


class GreyContent(Filter):
    """Compares retries with first attempts."""

    def __init__(self, grey: Grey, cache: Cache, in_thread: InThread) -> None:
        self._grey = grey
        self._cache = cache
        self._in_thread = in_thread

    def headers(self, session: Session, transaction: Transaction) -> None:
        """Listen, when grey-listing leaves the decision to the content."""
        if not self._grey.elements or not session.settings[GREY_CONTENT]:
            return
        if transaction.own(Delay).keys:
            seen = transaction.own(_Seen)
            seen.text = TextDigest(session.settings[GREY_CONTENT_SAVE])
            listen(transaction, seen.text)

    def content(self, session: Session, transaction: Transaction, chunk: bytes) -> MaybeVerdict:
        return self.dot(session, transaction) if transaction.complete else None

    def dot(self, session: Session, transaction: Transaction) -> MaybeVerdict:
        if not self._grey.elements or not session.settings[GREY_CONTENT]:
            return None
        seen = transaction.own(_Seen)
        if seen.text is None or seen.judged or not walked(transaction):
            return None
        seen.judged = True
        return self._judge(session, transaction, seen.text)

    async def _judge(self, session: Session, transaction: Transaction, text: TextDigest) -> Verdict | None:
        """The first recipient that passes lets the message pass; else the first refusal stands."""
        if text.kept:
            await self._save(session, transaction, bytes(text.kept))
        refusal: Verdict | None = None
        message = f"grey-msgid:{transaction.message_id.rstrip()[:MAX_MESSAGE_ID]}" if transaction.message_id else ""
        rewritten = await self._cache.fetch(message, session.sid) if message else None
        for key in transaction.own(Delay).keys:
            found = await self._grey.look_up(session, key)
            verdict = None if found.unknown else self._compare(session, transaction, key, found.record, text.digest, rewritten)
            if verdict is None:
                session.count(GREY_CONTINUE)
                return None
            refusal = refusal or verdict
        if message and rewritten is None and MsgFlag.GREY_HASH_MISMATCH not in transaction.flags:
            self._cache.put(message, WAITING, session=session.sid)
        if refusal is not None:
            transaction.flags.add(MsgFlag.GREY_CONTENT)
            session.count(GREY_CONTENT_HIT)
        return refusal

    def _compare(
        self, session: Session, transaction: Transaction, key: GreyKey, record: Record | None, digest: str, rewritten: Record | None
    ) -> Verdict | None:
        """What becomes of one attempt; None: it passes."""
        if record is not None and record.code == PASSED:
            self._grey.passed(session, record.key)
            return None
        if record is not None and record.code != WAITING:
            return None
        known = record.value.split()[1:] if record is not None else []
        if not known:
            self._note(session, key, digest, digest)
            known = [digest]
        now = self._cache.now()
        wait = (record.c if record is not None else now) + transaction.own(Delay).period - now
        if wait > 0:
            session.log(LISTED, key.full, wait)
            return self._grey.later(key)
        if digest in known:
            self._grey.passed(session, key.host or key.full)
            return None
        return self._mismatch(session, transaction, key, known, digest, rewritten)

    def _mismatch(
        self, session: Session, transaction: Transaction, key: GreyKey, known: list[str], digest: str, rewritten: Record | None
    ) -> Verdict:
        """Another text has come. A sender may rewrite its message once, if it keeps its Message-ID."""
        verdict = tempfail(ANOTHER_MESSAGE, fact=key.full)
        if rewritten is not None:
            self._cache.delete(rewritten.key, session=session.sid)
            self._note(session, key, digest, digest)
            session.log(REPLACED, transaction.message_id, key.full, f"{WAITING} {' '.join(known)}", digest)
            session.count(GREY_HASH_REPLACED)
            return verdict
        self._note(session, key, known[0], digest)
        session.log(MISMATCH)
        session.count(GREY_HASH_MISMATCH)
        transaction.flags.add(MsgFlag.GREY_HASH_MISMATCH)
        return verdict

    def _note(self, session: Session, key: GreyKey, first: str, last: str) -> None:
        self._cache.put(key.full, f"{WAITING} {first} {last}", session.settings[GREY_TEMP_FAIL_TTL], session=session.sid)

    async def _save(self, session: Session, transaction: Transaction, text: bytes) -> None:
        """Keep the compared text, for grey-content-save."""
        path = os.path.join(session.settings[SAVE_DIR], f"{transaction.tid}.grey")
        problem = await self._in_thread(lambda: _write(path, text))
        if problem is not None:
            session.log(CREATE_ERROR, path, problem.strerror or str(problem), problem.errno or 0)


def _write(path: str, text: bytes) -> OSError | None:
    """In a thread."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, MODE)
        with os.fdopen(handle, "wb") as target:
            target.write(text)
    except OSError as error:
        return error
    return None
