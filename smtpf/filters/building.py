"""What filters are made of, and the making of all that come with the product.

The composition root fills ``Materials`` in; a third party's filter gets the same.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs

from smtpf.dns.spf import Spf
from smtpf.filters.access import Access
from smtpf.filters.attachment import Attachment
from smtpf.filters.avastd import Avastd
from smtpf.filters.call_back import CallBack
from smtpf.filters.clamd import Clamd
from smtpf.filters.cli import Cli
from smtpf.filters.click import Click
from smtpf.filters.client_ptr import ClientPtr
from smtpf.filters.concurrent import Concurrent
from smtpf.filters.ctasd import Ctasd
from smtpf.filters.digest import DigestLists
from smtpf.filters.dns_list import ClientLists
from smtpf.filters.dupmsg import DupMsg
from smtpf.filters.emew import Emew
from smtpf.filters.fpscand import Fpscand
from smtpf.filters.grey import Grey
from smtpf.filters.grey_content import GreyContent
from smtpf.filters.header_tests import HeaderTests
from smtpf.filters.helo import Helo
from smtpf.filters.idle_retest import IdleRetest
from smtpf.filters.ixhash import IxHash
from smtpf.filters.lint import Lint
from smtpf.filters.mail_bl import MailBl
from smtpf.filters.mail_strict import MailStrict
from smtpf.filters.mime_pass import MimePass
from smtpf.filters.msg_limit import MsgLimit
from smtpf.filters.mx import Mx
from smtpf.filters.ns import Ns
from smtpf.filters.null_rate import NullRate
from smtpf.filters.one_rcpt_per_null import OneRcptPerNull
from smtpf.filters.p0f import P0f
from smtpf.filters.parameters import Parameters
from smtpf.filters.pause import Pause
from smtpf.filters.rate import Rate
from smtpf.filters.report import Report
from smtpf.filters.savdid import Savdid
from smtpf.filters.save import Save
from smtpf.filters.siq import Siq
from smtpf.filters.size import Size
from smtpf.filters.spamd import Spamd
from smtpf.filters.spf import SpfPolicy
from smtpf.filters.tagging import Tagging
from smtpf.filters.time_limit import TimeLimit
from smtpf.filters.tls_policy import TlsPolicy
from smtpf.filters.uri import UriTests
from smtpf.filters.uri_envelope import UriEnvelope
from smtpf.filters.uri_hosts import HostTests
from smtpf.filters.uri_links import Links
from smtpf.filters.uri_lists import UriLists
from smtpf.pipeline import Filter
from smtpf.scanners.connection import Network
from smtpf.scanners.siq import SiqClient

if TYPE_CHECKING:
    from smtpf.cache.store import Cache
    from smtpf.dns.domains import Domains
    from smtpf.dns.resolver import Resolver
    from smtpf.filters.counting import Tallies
    from smtpf.journal.journal import Journal
    from smtpf.maps.access import AccessMap
    from smtpf.maps.routes import RouteMap
    from smtpf.message.spool import InThread
    from smtpf.settings.store import SettingsHolder
    from smtpf.smtp.submit import Submitter
    from smtpf.stats.tables import Statistics


@attrs.frozen(kw_only=True)
class Materials:
    """The parts of a node that a filter may use."""

    settings: SettingsHolder
    journal: Journal
    stats: Statistics
    reactor: Any
    rng: random.Random
    in_thread: InThread
    access: AccessMap
    routes: RouteMap
    resolver: Resolver
    domains: Domains
    cache: Cache
    now: Callable[[], float]
    """Unix seconds."""
    tallies: Tallies
    """What limits count with."""
    submitter: Submitter | None = None
    """Sends mail of our own; without one no reports go out."""
    host_name: str = "unknown"
    """Name of this host."""


def filters_of(parts: Materials) -> list[Filter]:
    """One instance of each filter of the product."""
    grey = Grey(parts.access, parts.domains, parts.cache)
    network = Network(parts.reactor, parts.resolver)
    uri_lists = UriLists(parts.resolver, parts.domains, parts.access, parts.journal)
    return [
        Access(parts.access, parts.domains),
        ClientLists(parts.resolver, parts.access, parts.routes, parts.journal),
        ClientPtr(),
        Concurrent(parts.access, parts.tallies),
        Helo(parts.resolver, parts.routes),
        IdleRetest(parts.reactor),
        P0f(parts.reactor, parts.rng, parts.journal),
        Pause(parts.access),
        Rate(parts.access, parts.tallies),
        grey,
        Click(parts.cache, parts.domains, parts.now),
        MailStrict(parts.domains),
        MimePass(),
        Attachment(parts.access, parts.in_thread, parts.now),
        UriTests(uri_lists, HostTests(parts.resolver, parts.domains), Links(parts.reactor, parts.resolver)),
        UriEnvelope(uri_lists),
        MailBl(parts.resolver, parts.domains, parts.journal),
        MsgLimit(parts.access, parts.cache, parts.journal, parts.submitter, parts.now),
        Mx(parts.resolver, parts.routes),
        Ns(parts.resolver, parts.domains, parts.routes),
        NullRate(parts.access, parts.tallies),
        OneRcptPerNull(),
        Parameters(),
        CallBack(parts.reactor, parts.resolver, parts.cache, parts.rng, uri_lists),
        GreyContent(grey, parts.cache, parts.in_thread),
        Emew(parts.access, parts.now),
        DupMsg(parts.cache),
        HeaderTests(),
        IxHash(parts.resolver, parts.journal),
        DigestLists(parts.resolver, parts.journal),
        Lint(parts.submitter, parts.journal, parts.now),
        Report(),
        Save(parts.journal, parts.in_thread),
        Siq(SiqClient(parts.reactor, parts.rng), parts.cache, parts.resolver, parts.journal),
        Size(parts.access),
        SpfPolicy(Spf(parts.resolver, parts.in_thread, parts.host_name)),
        Tagging(),
        TimeLimit(parts.now),
        TlsPolicy(parts.access),
        Clamd(network, parts.journal),
        Ctasd(network, parts.journal),
        Avastd(network, parts.journal),
        Fpscand(network, parts.journal),
        Savdid(network, parts.journal),
        Cli(parts.reactor, parts.journal),
        Spamd(network, parts.access),
    ]
