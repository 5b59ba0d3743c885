"""A node in memory with its administration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import maybeDeferred

from smtpf.admin.commands import Administration
from smtpf.admin.configuration import Configuration
from smtpf.cache.activity import Row
from smtpf.settings.catalogue import instances
from smtpf.settings.language import Loaded
from smtpf.settings.option import Option
from smtpf.settings.store import Settings
from test.support.talk import Client, Talk


class Administered(Talk):
    """``rows`` is what the cluster tells; ``read`` gives what a reload reads."""

    def __init__(self, options: Mapping[Any, str] | None = None, **named: Any) -> None:
        super().__init__(options, **named)
        self.settings.replace(Settings(instances(Option), {o: self.settings.current.text(o) for o in self.settings.current.options}))
        self.rows: list[Row] = []
        self.read: Callable[[], Loaded] = lambda: Loaded(self.settings.current, (), ())
        self.licence_fields: tuple[tuple[str, str], ...] = ()
        self.configuration = Configuration(self.settings, self.journal, maybeDeferred, lambda: self.read())
        self.administration = Administration(
            self.engine,
            self.configuration,
            self.cache,
            version="3.0",
            accepted_now=lambda: self.reception.accepted_now,
            active=lambda: self.rows,
            licence=self._fields,
            build=lambda: {
                "SMTPF_NAME": "smtpf",
                "PLATFORM": "a very long name of a platform that has to be continued on another line of it",
            },
        )
        self.engine.administration = self.administration.for_smtp()

    async def _fields(self) -> tuple[tuple[str, str], ...]:
        return self.licence_fields

    def operator(self) -> Client:
        """A client on this machine."""
        return self.connect("127.0.0.1", at="127.0.0.1")
