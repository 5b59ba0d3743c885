"""What answers clients: maps, resolver, TLS, forwarder, filters and the engine, on top of settings, journal, statistics and cache.

A node of one process has it once; with ``workers`` each worker process has its own. Source: spec chapter operations, 6.2, steps
12 to 15.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from smtpf.dns.domains import Domains
from smtpf.dns.resolver import Resolver
from smtpf.filters import order
from smtpf.filters.building import Materials, filters_of
from smtpf.filters.click import Click
from smtpf.filters.dns_list import ClientLists
from smtpf.filters.extension import extensions
from smtpf.filters.grey import Grey
from smtpf.journal.stream import FileTarget
from smtpf.maps.access import ACCESS_MAP
from smtpf.maps.opening import Workshop, open_access_map, open_route_map
from smtpf.maps.routes import ROUTE_MAP
from smtpf.maps.source import MapError
from smtpf.pipeline import Filter, Pipeline, settled
from smtpf.process.ending import FAILED, INIT_ERROR
from smtpf.smtp.auth_proxy import AuthProxy
from smtpf.smtp.call_ahead import CallAhead
from smtpf.smtp.dsn import DsnSender
from smtpf.smtp.engine import Engine
from smtpf.smtp.etrn import QueueRequest
from smtpf.smtp.forward import Forwarder
from smtpf.smtp.identifiers import SessionIds
from smtpf.smtp.submit import Submitter
from smtpf.smtp.texts import read_texts
from smtpf.smtp.tls import TlsContexts, TlsFilesError

if TYPE_CHECKING:
    from smtpf.admin.configuration import Configuration
    from smtpf.cache.store import Cache
    from smtpf.filters.counting import Tallies
    from smtpf.journal.journal import Journal
    from smtpf.maps.access import AccessMap
    from smtpf.maps.routes import RouteMap
    from smtpf.settings.store import Settings, SettingsHolder
    from smtpf.stats.routes import RouteCounts
    from smtpf.stats.tables import Statistics


class StartRefused(Exception):
    """The node must not start, and ends with this exit status; why has been logged."""

    def __init__(self, status: int = FAILED) -> None:
        super().__init__(status)
        self.status = status


class Serving:
    """Open the maps, then the rest; ``close`` undoes both, in the reverse order."""

    access_map: AccessMap
    route_map: RouteMap
    engine: Engine
    resolver: Resolver

    def __init__(
        self,
        settings: SettingsHolder,
        journal: Journal,
        target: Any,
        reactor: Any,
        stats: Statistics,
        route_counts: RouteCounts,
        in_thread: Callable[..., Deferred[Any]],
        *,
        host_name: str,
        descriptors: int,
    ) -> None:
        """``target`` is what the journal writes to; ``descriptors`` the limit that the guard at accept goes by."""
        self._settings = settings
        self._journal = journal
        self._target = target
        self._reactor = reactor
        self._stats = stats
        self._route_counts = route_counts
        self._in_thread = in_thread
        self._host_name = host_name
        self._descriptors = descriptors
        self._stopping: list[Callable[[], Any]] = []
        self.filters: list[Filter] = []

    async def open_maps(self) -> None:
        """Read access map and route map. Raises StartRefused."""
        settings = self._settings.current
        workshop = Workshop(self._journal, self._reactor, self._in_thread)
        self.access_map = _usable(open_access_map(settings[ACCESS_MAP], workshop))
        route_map = await open_route_map(settings[ROUTE_MAP], workshop, self._stats)
        if isinstance(route_map, MapError) and not settings[ROUTE_MAP].strip():
            self._journal.write(INIT_ERROR, "node", 0, "route-map", route_map.reason, 0)
        self.route_map = _usable(route_map)

    async def open(self, cache: Cache, tallies: Tallies) -> Engine:
        """Everything else, with filters that are ready; ``tallies`` are what limits count with.

        Raises StartRefused, ``FilterNotReady``, ``SaveDirMissing``.
        """
        settings, journal, reactor = self._settings.current, self._journal, self._reactor
        resolver = self.resolver = Resolver.from_settings(reactor, settings)
        self._stopping.append(resolver.stop)
        rng = random.SystemRandom()
        tls = self._tls = self._open_tls(settings)
        domains = self._domains = Domains.from_settings(settings)
        forwarder = Forwarder(reactor, resolver, rng, tls)
        self._stopping.append(forwarder.close)
        routes = self.route_map
        submitter = Submitter(routes, forwarder)
        materials = Materials(
            settings=self._settings, journal=journal, stats=self._stats, reactor=reactor, rng=rng, in_thread=self._in_thread,
            access=self.access_map, routes=routes, resolver=resolver, domains=domains, cache=cache, now=time.time, tallies=tallies,
            submitter=submitter, host_name=self._host_name,
        )  # fmt: skip
        self.filters = filters_of(materials)
        further = [factory.filter(materials) for factory in extensions()]
        for each in (*self.filters, *further):
            each.configure(settings)
            await settled(each.start())
        self.filters += further
        grey = next(each for each in self.filters if isinstance(each, Grey))
        click = next(each for each in self.filters if isinstance(each, Click))
        lists = next(each for each in self.filters if isinstance(each, ClientLists))
        self.engine = Engine(
            reactor=reactor, settings=self._settings, journal=journal, stats=self._stats, rng=rng, now=time.time,
            pipeline=Pipeline(order.bind(self.filters, further)), routes=routes, resolver=resolver, domains=domains, forwarder=forwarder,
            ids=SessionIds(os.getpid()), call_ahead=CallAhead(forwarder, cache), dsn=DsnSender(submitter, resolver, journal, time.time),
            auth_proxy=AuthProxy(routes, forwarder), queue_request=QueueRequest(routes, forwarder), tls=tls, in_thread=self._in_thread,
            route_counts=self._route_counts, passed_grey_list=grey.has_passed, look_ahead=lists.begin, addition=click.addition,
            host_name=self._host_name, descriptor_limit=self._descriptors, texts=read_texts(settings, journal),
        )  # fmt: skip
        return self.engine

    def start(self) -> None:
        """Watch the maps for changes."""
        for each in (self.access_map, self.route_map):
            each.start()
            self._stopping.append(each.stop)

    def follow(self, configuration: Configuration) -> None:
        """Let everything hear of new options, and be read again at a reload."""
        configuration.follow(self.resolver.configure, *(each.configure for each in self.filters))
        engine, domains = self.engine, self._domains

        def texts() -> None:
            engine.texts = read_texts(self._settings.current, self._journal, engine.texts)

        async def suffixes() -> None:
            domains.adopt(await self._in_thread(Domains.from_settings, self._settings.current))

        def log() -> None:
            error = self._target.reopen() if isinstance(self._target, FileTarget) else None
            if error is not None:
                raise error

        configuration.on_reload("log", log)
        configuration.on_reload("access-map", self.access_map.reload)
        configuration.on_reload("route-map", self.route_map.reload)
        configuration.on_reload("tls-server-cert", lambda: self._tls.renew(self._reactor))
        configuration.on_reload("welcome and reject file", texts)
        configuration.on_reload("tld files", suffixes)

    async def stop_filters(self) -> None:
        """The filters end first: they may still count, and use the cache."""
        for each in self.filters:
            await settled(each.stop())

    async def close(self) -> None:
        """End the rest."""
        for stop in reversed(self._stopping):
            waiting = stop()
            if waiting is not None:
                await waiting

    def _open_tls(self, settings: Settings) -> TlsContexts:
        try:
            tls = TlsContexts(settings, self._journal)
        except TlsFilesError as problem:
            self._journal.write(INIT_ERROR, "tls", 0, "tls", str(problem), 0)
            raise StartRefused from problem
        tls.start(self._reactor)
        self._stopping.append(tls.stop)
        return tls


def _usable(opened: Any) -> Any:
    """The map, unless opening it failed."""
    if isinstance(opened, MapError):
        raise StartRefused
    return opened
