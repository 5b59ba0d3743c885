"""An in-memory resolver made of text records, with the interface of the real one.

A line is ``name TYPE data``: data as in a zone file, but without quotes, and names without final dot. Instead of a record
a line may say what goes wrong: ``name TYPE SERVFAIL``, ``REFUSED``, ``NOTIMP``, ``NXDOMAIN``, ``NODATA`` or ``TIMEOUT``;
TYPE may be ``*`` for all types. ``name TYPE DELAY 2.5`` answers 2.5 seconds after
it was first asked for by the clock given, at once from then on.
A name that no line mentions, and that has no names below it, does not exist.
"""

from __future__ import annotations

import errno
import ipaddress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from smtpf.dns.answer import Answer, Mx, Record, Soa, Status, Target, Txt, timed_out
from smtpf.dns.hosts import HostsFile
from smtpf.dns.resolver import Resolver
from smtpf.dns.wire import MAX_CHAIN, plain_name, wire_name

FAULTS = {
    "SERVFAIL": Status.SERVFAIL,
    "REFUSED": Status.REFUSED,
    "NOTIMP": Status.NOTIMP,
    "FORMERR": Status.FORMERR,
    "NXDOMAIN": Status.NXDOMAIN,
    "NODATA": Status.NODATA,
    "TIMEOUT": Status.TIMEOUT,
}


class ZoneResolver(Resolver):
    """Answers from ``records``. Without a clock every answer is immediate; with one, DELAY lines wait."""

    def __init__(self, records: str = "", clock: Clock | None = None, timeout: float = 45.0) -> None:
        self._clock = clock
        super().__init__(clock or Clock(), (), timeout=timeout, hosts=HostsFile("/nonexistent"))
        self.asked: list[tuple[str, str]] = []
        """Every query made, in order."""
        self.records: dict[tuple[str, str], list[Record]] = {}
        self.faults: dict[tuple[str, str], Status] = {}
        self.delays: dict[tuple[str, str], float] = {}
        self._names: set[str] = set()
        self._ready: dict[tuple[str, str], float] = {}
        self.add(records)

    def add(self, records: str) -> None:
        """More lines."""
        for line in records.splitlines():
            line = line.strip()
            if line and not line.startswith((";", "#")):
                self._add(*line.split(None, 2))

    def _add(self, name: str, rtype: str, data: str) -> None:
        name = plain_name(name)
        rtype = rtype.upper()
        word, _, rest = data.partition(" ")
        if word == "DELAY":
            self.delays[name, rtype] = float(rest)
        elif data in FAULTS:
            self.faults[name, rtype] = FAULTS[data]
        else:
            self.records.setdefault((name, rtype), []).append(_record(name, rtype, data))
            labels = name.split(".")
            self._names.update(".".join(labels[at:]) for at in range(len(labels)))

    def query(self, name: str, rtype: str, timeout: float | None = None) -> Answer | Deferred[Answer]:
        name = plain_name(name)
        self.asked.append((name, rtype))
        if wire_name(name) is None:
            return Answer(name, rtype, Status.NXDOMAIN)
        limit = min(timeout if timeout is not None else self.timeout, self.timeout)
        delay = self.delays.get((name, rtype), self.delays.get((name, "*")))
        answer = self._answer(name, rtype)
        if self._clock is None:
            return timed_out(name, rtype) if delay is not None and delay > limit else answer
        if answer.no_answer:
            delay = limit + 1
        if delay is None:
            return answer
        now = self._clock.seconds()
        delay = self._ready.setdefault((name, rtype), now + delay) - now
        if delay <= 0:
            return answer
        later: Deferred[Answer] = Deferred()
        outcome = answer if delay <= limit else timed_out(name, rtype)
        self._clock.callLater(min(delay, limit), lambda: later.called or later.callback(outcome))
        return later

    def _answer(self, asked: str, rtype: str) -> Answer:
        chain: list[Target] = []
        name = asked
        while True:
            fault = self.faults.get((name, rtype), self.faults.get((name, "*")))
            if fault is Status.TIMEOUT:
                return timed_out(asked, rtype, errno.ETIMEDOUT)
            if fault is not None:
                return Answer(asked, rtype, fault, (), tuple(chain))
            records = self.records.get((name, rtype))
            if records:
                return Answer(asked, rtype, Status.OK, tuple(records), tuple(chain), None, 300)
            alias: Any = self.records.get((name, "CNAME"), [None])[0]
            if alias is None or rtype == "CNAME":
                status = Status.NODATA if name in self._names else Status.NXDOMAIN
                return Answer(asked, rtype, status, (), tuple(chain), self._authority(name), 60)
            if len(chain) >= MAX_CHAIN or alias.name in (asked, *(target.name for target in chain)):
                return Answer(asked, rtype, Status.NODATA, (), tuple(chain))
            chain.append(alias)
            name = alias.name

    def _authority(self, name: str) -> Soa | None:
        labels = name.split(".")
        for at in range(len(labels)):
            for record in self.records.get((".".join(labels[at:]), "SOA"), ()):
                assert isinstance(record, Soa)
                return record
        return None


def _record(owner: str, rtype: str, data: str) -> Record:
    if rtype in ("A", "AAAA"):
        return str(ipaddress.ip_address(data))
    if rtype == "MX":
        preference, host = data.split()
        return Mx(int(preference), plain_name(host), host.rstrip(".") + ".")
    if rtype in ("PTR", "NS", "CNAME"):
        return Target(plain_name(data), data.rstrip(".") + ".")
    if rtype == "TXT":
        return Txt(data.encode("latin-1"))
    if rtype == "SOA":
        words = [*data.split(), "1", "3600", "900", "604800", "60"]
        return Soa(owner, plain_name(words[0]), plain_name(words[1]), *(int(word) for word in words[2:7]))
    raise ValueError(rtype)
