"""What every conversation of a node shares: the parts it works with, the table of sessions, the counts of connections.

The composition root fills this in once; nothing here is global.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from smtpf.journal.journal import Journal
from smtpf.maps.routes import RouteMap
from smtpf.message.spool import InThread, Room
from smtpf.pipeline import Pipeline, Verdict
from smtpf.reply import Answer
from smtpf.settings.store import SettingsHolder
from smtpf.smtp.identifiers import SessionIds
from smtpf.stats.routes import RouteCounts
from smtpf.stats.tables import Statistics

if TYPE_CHECKING:
    from smtpf.dns.domains import Domains
    from smtpf.dns.resolver import Resolver
    from smtpf.smtp.auth_proxy import AuthProxy
    from smtpf.smtp.call_ahead import CallAhead
    from smtpf.smtp.conversation import Conversation
    from smtpf.smtp.dsn import DsnSender
    from smtpf.smtp.etrn import QueueRequest
    from smtpf.smtp.forward import Forwarder
    from smtpf.smtp.session import Recipient, Session, Transaction
    from smtpf.smtp.tls import TlsContexts

Command = Callable[["Conversation", str, str], Awaitable[Verdict | Answer | None]]
"""``await command(conversation, argument, line)``: the command's own reply, or None when it has been answered already."""


@attrs.define(eq=False)
class Texts:
    """Lines of the welcome and the reject file; empty without one."""

    welcome: tuple[str, ...] = ()
    reject: tuple[str, ...] = ()


@attrs.define(eq=False, kw_only=True)
class Engine:
    """The parts of a node that its conversations use."""

    reactor: Any
    settings: SettingsHolder
    journal: Journal
    stats: Statistics
    pipeline: Pipeline
    routes: RouteMap
    resolver: Resolver
    domains: Domains
    forwarder: Forwarder
    ids: SessionIds
    rng: random.Random
    in_thread: InThread
    route_counts: RouteCounts
    host_name: str
    """Name of this host, for wildcard interfaces."""
    descriptor_limit: int
    call_ahead: CallAhead | None = None
    dsn: DsnSender | None = None
    auth_proxy: AuthProxy | None = None
    queue_request: QueueRequest | None = None
    tls: TlsContexts | None = None
    passed_grey_list: Callable[[Session], Awaitable[bool]] | None = None
    """Asks whether the client has passed grey-listing before."""
    look_ahead: Callable[[Session, str], Coroutine[Any, Any, None]] | None = None
    """Begins look-ups about the client that can go on while its name is being confirmed."""
    addition: Callable[[Session, Transaction, Recipient | None], str] | None = None
    """Further words for a permanent refusal within a transaction: how the sender can white-list himself."""
    administration: Mapping[str, Command] = attrs.field(factory=dict)
    """Administration commands by verb, handed in from the room above."""
    texts: Texts = attrs.field(factory=Texts)
    now: Callable[[], float]
    """Unix seconds."""
    room: Room = attrs.field(factory=Room)
    """For large messages in memory."""
    conversations: dict[str, Conversation] = attrs.field(factory=dict)
    """Sessions in progress by session id."""
    elsewhere: Callable[[], int] = lambda: 0
    """Sessions of this node in other processes."""

    @property
    def sessions(self) -> int:
        """Sessions of the node now."""
        return len(self.conversations) + self.elsewhere()

    @property
    def workers(self) -> int:
        """Size of the reactor's thread pool, at least 1 (``th=``)."""
        pool = getattr(self.reactor, "threadpool", None)
        return max(1, pool.workers if pool is not None else 1)
