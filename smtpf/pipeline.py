"""Stages, verdicts, the base class of all filters, and the machine that runs a stage.

A stage is a point of the SMTP conversation where an ordered list of tests runs (``filters/order.py`` holds the
lists). A test returns nothing (go on), a Verdict, or something that can be awaited for either. How verdicts combine,
what is delayed and what ends a stage is decided here, and never inside a filter. Source: spec chapter session, 4.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from enum import Enum, IntEnum
from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.defer import succeed

from smtpf.reply import Reply

if TYPE_CHECKING:
    from smtpf.settings.store import Settings
    from smtpf.smtp.session import Recipient, Session, Transaction


class Stage(Enum):
    ACCEPT = "accept"
    CONNECT = "connect"
    IDLE = "idle"
    HELO = "helo"
    MAIL = "mail"
    ADDRESS = "address"
    RCPT = "rcpt"
    DATA = "data"
    HEADERS = "headers"
    CONTENT = "content"
    DOT = "dot"
    RSET = "rset"
    CLOSE = "close"

    # Thirteen look-ups a message: that of Enum is written in Python.
    __hash__ = object.__hash__


class Code(IntEnum):
    """Verdicts by number; cache values and the exit status of external programs use the digit."""

    CONTINUE = 0
    TAG = 1
    ACCEPT = 2
    GREY = 3
    TEMPFAIL = 4
    REJECT = 5
    DISCARD = 6
    DROP = 7
    SKIP_NEXT = 8
    SKIP_REMAINDER = 9
    UNKNOWN = 10


NEGATIVE = frozenset({Code.TEMPFAIL, Code.REJECT, Code.DROP})
ENDING = frozenset({Code.ACCEPT, Code.GREY, Code.TEMPFAIL, Code.REJECT, Code.DISCARD, Code.DROP})


@attrs.frozen
class Verdict:
    """A decision as a value: what, by whom, where, because of which fact, and the reply it leads to."""

    code: Code
    reply: Reply | None = None
    args: tuple[Any, ...] = ()
    delay: bool = False
    """A policy verdict (as opposed to syntax or protocol): ``smtp-delay-checks`` may postpone it to RCPT."""
    whole_session: bool = False
    """It concerns the whole connection and is not forgotten with the transaction."""
    fact: str = ""
    """What it rests on: a map key, a DNS answer, a scanner's reply, a cache record."""
    filter: str = ""
    stage: Stage | None = None

    @property
    def negative(self) -> bool:
        return self.code in NEGATIVE


CONTINUE = Verdict(Code.CONTINUE)
ACCEPT = Verdict(Code.ACCEPT)
SKIP_NEXT = Verdict(Code.SKIP_NEXT)
SKIP_REMAINDER = Verdict(Code.SKIP_REMAINDER)
DISCARD = Verdict(Code.DISCARD)


def accept(fact: str = "") -> Verdict:
    """White-listed: the rest of this stage is skipped."""
    return Verdict(Code.ACCEPT, fact=fact)


def grey(fact: str = "") -> Verdict:
    """White-listed up to, not including, content."""
    return Verdict(Code.GREY, fact=fact)


def discard(fact: str = "") -> Verdict:
    """Pretend to accept, deliver nothing."""
    return Verdict(Code.DISCARD, fact=fact)


def tempfail(reply: Reply, *args: Any, delay: bool = False, whole_session: bool = False, fact: str = "") -> Verdict:
    return Verdict(Code.TEMPFAIL, reply, args, delay, whole_session, fact)


def reject(reply: Reply, *args: Any, delay: bool = False, whole_session: bool = False, fact: str = "") -> Verdict:
    return Verdict(Code.REJECT, reply, args, delay, whole_session, fact)


def drop(reply: Reply, *args: Any, delay: bool = False, whole_session: bool = False, fact: str = "") -> Verdict:
    return Verdict(Code.DROP, reply, args, delay, whole_session, fact)


class FilterNotReady(Exception):
    """Raised by ``Filter.start``: the node must not start, and why has been logged."""


MaybeVerdict = Verdict | None | Awaitable[Verdict | None]
"""What a test may return. Return a coroutine or Deferred only when something must really be waited for."""


class Filter:
    """Base class of every filter. Override only the stages the filter takes part in.

    A filter never writes to the socket, never formats a reply by hand, and never reaches into another filter. State of
    one session is kept with ``session.own(StateClass)``, of one transaction with ``transaction.own(StateClass)``.
    A test that answers at once is a plain method; one that waits returns a coroutine.
    ``filters/order.py`` may name further methods of the same signature for a stage in which a filter takes part twice.
    """

    @property
    def name(self) -> str:
        """Short name in decisions and logs: the module's."""
        return type(self).__module__.rpartition(".")[2]

    def configure(self, settings: Settings) -> None:
        """Derive values from options: at start, and whenever options changed. Must not block."""

    def start(self) -> Awaitable[None] | None:
        """Before the node accepts connections. An exception ends the start."""
        return None

    def stop(self) -> Awaitable[None] | None:
        """After the last session ended."""
        return None

    def accept(self, session: Session) -> MaybeVerdict:
        """The connection has been accepted; only its address is known. Also the place to start look-ups early."""
        return None

    def connect(self, session: Session) -> MaybeVerdict:
        """Before the banner; address, reverse name and class are known."""
        return None

    def idle(self, session: Session) -> MaybeVerdict:
        """At NOOP, HELP, MAIL, an unknown command or a missing argument."""
        return None

    def helo(self, session: Session) -> MaybeVerdict:
        """``session.helo`` has been set."""
        return None

    def mail(self, session: Session, transaction: Transaction) -> MaybeVerdict:
        """``transaction.sender`` and its parameters are known."""
        return None

    def address(self, session: Session, transaction: Transaction, recipient: Recipient) -> MaybeVerdict:
        """``recipient`` is parsed and not yet routed: the place to rewrite its address."""
        return None

    def rcpt(self, session: Session, transaction: Transaction, recipient: Recipient) -> MaybeVerdict:
        """``recipient`` is parsed and routed, not yet among ``transaction.recipients``."""
        return None

    def data(self, session: Session, transaction: Transaction) -> MaybeVerdict:
        """DATA was said; 354 has not been."""
        return None

    def headers(self, session: Session, transaction: Transaction) -> MaybeVerdict:
        """The whole header section has arrived; ``transaction.headers`` may be edited."""
        return None

    def content(self, session: Session, transaction: Transaction, chunk: bytes) -> MaybeVerdict:
        """A piece of the body as it will be relayed (CRLF line ends, dots unstuffed), in order. Whole lines."""
        return None

    def dot(self, session: Session, transaction: Transaction) -> MaybeVerdict:
        """The final dot has come; nothing final has been told to a next hop."""
        return None

    def rset(self, session: Session, transaction: Transaction) -> MaybeVerdict:
        """The transaction is over, whatever came of it."""
        return None

    def close(self, session: Session) -> MaybeVerdict:
        """The session is over."""
        return None


Test = Callable[..., MaybeVerdict]
"""A bound method of a Filter."""


class Pipeline:
    """Runs the tests of a stage in order. The only place that combines verdicts (spec chapter session, 4.1)."""

    def __init__(self, order: Mapping[Stage, Iterable[Test]]) -> None:
        self._tests: dict[Stage, tuple[Test, ...]] = {stage: tuple(order.get(stage, ())) for stage in Stage}

    async def run(self, stage: Stage, session: Session, *args: Any) -> Verdict:
        """The stage's verdict.

        ACCEPT, GREY, DISCARD and immediate refusals end the stage. A delayed refusal ends it too: with
        ``smtp-delay-checks`` it is put aside in the session's delayed slot and the stage's verdict is CONTINUE.
        For a message that is to be tagged instead the stage goes on behind it.
        A refusal's reply is in the session's reply slots when this returns.
        """
        skip = False
        for test in self._tests[stage]:
            if skip:
                skip = False
                continue
            answer = test(session, *args)
            if answer is None:
                continue
            if not isinstance(answer, Verdict):
                answer = await answer
                if answer is None:
                    continue
            code = answer.code
            if code is Code.CONTINUE:
                continue
            if code is Code.SKIP_NEXT:
                skip = True
                continue
            if code is Code.SKIP_REMAINDER:
                return CONTINUE
            verdict = attrs.evolve(answer, stage=stage, filter=_filter_name(test))
            session.decisions.append(verdict)
            if code in ENDING:
                if verdict.reply is None:
                    return verdict
                taken = session.slots.take(verdict)
                if taken.code is Code.CONTINUE and session.slots.tagged:
                    continue
                return taken
        return CONTINUE


def _filter_name(test: Test) -> str:
    owner = getattr(test, "__self__", None)
    return owner.name if isinstance(owner, Filter) else getattr(test, "__name__", "")


async def settled(work: Awaitable[None] | None) -> None:
    """Await what ``Filter.start`` or ``stop`` returned, if anything."""
    if work is not None:
        await work
    else:
        await succeed(None)
