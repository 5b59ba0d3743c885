"""The words nodes say to each other: AMP commands, their arguments and errors, and records as sub-boxes.

Wire format only; what a command does is in ``link.py``. Source: spec chapter operations, 2.10.4.
"""

# The AMP classes of Twisted carry no types.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from typing import Any

from twisted.protocols import amp

from smtpf.cache.records import MAX_KEY, MAX_VALUE, Record, decoded, encoded
from smtpf.cache.replica import Received

PROTOCOL_VERSION = 1
LARGEST = 2**63 - 1
"""Largest number a record may carry: what SQLite keeps."""


class BadVersion(Exception):
    """The other node speaks another version of the protocol."""


class DuplicateNode(Exception):
    """Another node with this id is connected."""


class ClockSkew(Exception):
    """The clocks of the two nodes differ by more than ``cluster-max-skew``."""


class NotAuthorised(Exception):
    """The node is not a member of this cluster, or there are too many."""


class Busy(Exception):
    """The cache file is locked or its queue full; try again in a second."""


_RECORD: list[tuple[bytes, amp.Argument]] = [
    (b"k", amp.String()),
    (b"v", amp.String()),
    (b"h", amp.Integer()),
    (b"c", amp.Integer()),
    (b"t", amp.Integer()),
    (b"e", amp.Integer()),
    (b"o", amp.String()),
    (b"x", amp.Boolean()),
    (b"f", amp.Boolean()),
]

_RESULT: list[tuple[bytes, amp.Argument]] = [
    (b"i", amp.Integer()),
    (b"s", amp.String()),
    (b"k", amp.String(optional=True)),
    (b"v", amp.String(optional=True)),
    (b"h", amp.Integer(optional=True)),
    (b"c", amp.Integer(optional=True)),
    (b"t", amp.Integer(optional=True)),
    (b"e", amp.Integer(optional=True)),
    (b"o", amp.String(optional=True)),
    (b"x", amp.Boolean(optional=True)),
    (b"f", amp.Boolean(optional=True)),
]

_GREETING: list[tuple[bytes, amp.Argument]] = [
    (b"version", amp.Integer()),
    (b"node", amp.String()),
    (b"name", amp.String()),
    (b"epoch", amp.Integer()),
    (b"clock", amp.Integer()),
    (b"last", amp.Integer()),
    (b"have_epoch", amp.Integer()),
    (b"have", amp.Integer()),
]

_BUSY: dict[type[Exception], bytes] = {Busy: b"BUSY"}


class Auth(amp.Command):
    """Both ends' nonces, before anything else, where no certificates are used."""

    arguments = [(b"nonce", amp.String())]
    response = [(b"nonce", amp.String())]


class Hello(amp.Command):
    """Who each end is, what time it has, and how far its changes have come. Said again to ask for a resync."""

    arguments = _GREETING
    response = _GREETING
    errors = {
        BadVersion: b"BAD_VERSION",
        DuplicateNode: b"DUPLICATE_NODE",
        ClockSkew: b"CLOCK_SKEW",
        NotAuthorised: b"NOT_AUTHORISED",
    }


class Put(amp.Command):
    """Changed records."""

    arguments = [(b"records", amp.AmpList(_RECORD))]
    response = [(b"results", amp.AmpList(_RESULT))]
    errors = _BUSY


class Add(amp.Command):
    """A counter moved."""

    arguments = [
        (b"k", amp.String()),
        (b"delta", amp.Integer()),
        (b"e", amp.Integer()),
        (b"o", amp.String()),
        (b"seq", amp.Integer()),
    ]
    response = [(b"v", amp.Integer()), (b"s", amp.String())]
    errors = _BUSY


class Sync(amp.Command):
    """A page of the changes after number ``since``."""

    arguments = [(b"epoch", amp.Integer()), (b"since", amp.Integer()), (b"limit", amp.Integer())]
    response = [
        (b"epoch", amp.Integer()),
        (b"records", amp.AmpList(_RECORD)),
        (b"next", amp.Integer()),
        (b"more", amp.Boolean()),
    ]
    errors = _BUSY


class Status(amp.Command):
    """How busy the sender is, for the table of CACHE ACTIVE."""

    arguments = [
        (b"la", amp.Unicode()),
        (b"ut", amp.Integer()),
        (b"tc", amp.Integer()),
        (b"arv", amp.Unicode()),
        (b"of", amp.Unicode()),
        (b"cap", amp.Integer()),
    ]
    requiresAnswer = False


class Ping(amp.Command):
    """Are you there; ``t`` comes back."""

    arguments = [(b"t", amp.Integer())]
    response = [(b"t", amp.Integer())]


def box_of(record: Record, forced: bool = False) -> dict[str, Any]:
    """``record`` as the values of a sub-box."""
    return {
        "k": encoded(record.key),
        "v": encoded(record.value),
        "h": record.h,
        "c": record.c,
        "t": record.t,
        "e": record.e,
        "o": bytes.fromhex(record.o) if len(record.o) == 32 else b"",
        "x": record.x,
        "f": forced,
    }


def received_from(box: dict[str, Any]) -> Received | None:
    """The record of a sub-box; None when a part of it is missing or outside the limits."""
    key, value, writer = box["k"], box["v"], box["o"]
    numbers = [box[name] for name in ("h", "c", "t", "e")]
    if key is None or value is None or any(number is None or not 0 <= number <= LARGEST for number in numbers):
        return None
    if not 0 < len(key) <= MAX_KEY or len(value) > MAX_VALUE or len(writer or b"") not in (0, 16):
        return None
    h, c, t, e = numbers
    return Received(Record(decoded(key), decoded(value), h, c, t, e, (writer or b"").hex(), bool(box["x"])), bool(box["f"]))
