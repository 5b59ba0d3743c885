"""The one pass through the MIME structure of a message, for all filters that look inside.

A filter that wants to see parts calls ``listen`` at the headers stage. The pass stands in the content stage in front of those
filters and behind the access gate: white-listed messages, and messages nobody listens to, are not taken apart at all. It is
driven by chunks of the body as they come, and ends with the chunk that ends the message. Source: spec chapter
filters-content, 1.1 and 10.
"""

from __future__ import annotations

from smtpf.message.mime import MimeWalker, Note, PartListener
from smtpf.pipeline import Filter
from smtpf.smtp.session import Session, Transaction


class _Pass:
    """The pass through one message."""

    __slots__ = ("finished", "walker")

    def __init__(self) -> None:
        self.walker: MimeWalker | None = None
        self.finished = False


def listen(transaction: Transaction, listener: PartListener) -> None:
    """Let ``listener`` hear of the parts of this message. At the headers stage."""
    own = transaction.own(_Pass)
    if own.walker is None:
        own.walker = MimeWalker()
    own.walker.add(listener)


def walked(transaction: Transaction) -> bool:
    """The whole message has been walked: nothing more will be heard."""
    return transaction.own(_Pass).finished


def notes(transaction: Transaction) -> set[Note]:
    """Why programs could read the message differently, as far as it has been walked."""
    walker = transaction.own(_Pass).walker
    return set() if walker is None else walker.notes


class MimePass(Filter):
    """Drives the walker of each message that somebody listens to."""

    def content(self, session: Session, transaction: Transaction, chunk: bytes) -> None:
        own = transaction.owned(_Pass)
        if own is None or own.walker is None or own.finished:
            return
        walker = own.walker
        if not walker.started:
            walker.start(transaction.original_headers)
        if chunk:
            walker.feed(chunk)
        if transaction.complete:
            own.finished = True
            walker.finish()
