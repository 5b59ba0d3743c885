"""The RFC 7208 conformance suite (release 2014.04; its licence stands beside it), every case through our look-ups.

``rfc7208-tests.json`` is the published YAML file in another notation.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from smtpf import waiting
from smtpf.dns.answer import Mx, Record, Status, Target, Txt
from smtpf.dns.spf import Spf, SpfOutcome
from smtpf.dns.wire import plain_name
from test.support.zones import ZoneResolver

SCENARIOS = json.loads(Path(__file__).with_name("rfc7208-tests.json").read_text())
CASES = [(name, case, scenario["zonedata"]) for scenario in SCENARIOS for name, case in scenario["tests"].items()]


class SuiteResolver(ZoneResolver):
    """A zone resolver filled from a scenario's zone data, by the rules of the suite's schema."""

    def __init__(self, zones: dict[str, list[Any]]) -> None:
        super().__init__()
        for name, entries in zones.items():
            self._entries(plain_name(name), entries)

    def _entries(self, name: str, entries: list[Any]) -> None:
        has_txt = any(isinstance(entry, dict) and "TXT" in entry for entry in entries)
        for entry in entries:
            if entry == "TIMEOUT":
                self.faults[name, "*"] = Status.TIMEOUT
                continue
            for rtype, data in entry.items():
                kind = "TXT" if rtype == "SPF" and not has_txt else rtype
                if kind == "SPF" or data == "NONE":
                    continue
                if data == "TIMEOUT":
                    self.faults[name, kind] = Status.TIMEOUT
                else:
                    self.records.setdefault((name, kind), []).append(_record(kind, data))
        labels = name.split(".")
        self._names.update(".".join(labels[at:]) for at in range(len(labels)))

    def _answer(self, asked: str, rtype: str) -> Any:
        if (asked, rtype) in self.records and (asked, "*") in self.faults:
            self.faults[asked, rtype] = Status.OK
        if self.faults.get((asked, rtype)) is Status.OK:
            everything, self.faults = self.faults, {}
            try:
                return super()._answer(asked, rtype)
            finally:
                self.faults = everything
        return super()._answer(asked, rtype)


def _record(kind: str, data: Any) -> Record:
    if kind in ("A", "AAAA"):
        return str(data).lower()
    if kind == "MX":
        return Mx(int(data[0]), plain_name(data[1]))
    if kind in ("PTR", "CNAME", "NS"):
        return Target(plain_name(data))
    strings = data if isinstance(data, list) else [data]
    return Txt(b"".join(string.encode("utf-8") for string in strings))


@pytest.mark.parametrize(("case", "zones"), [pytest.param(case, zones, id=name) for name, case, zones in CASES])
def test_conformance(case: dict[str, Any], zones: dict[str, list[Any]]) -> None:
    checker = Spf(SuiteResolver(zones), lambda work: pytest.fail("no record here is long enough for a thread"))
    outcomes: list[SpfOutcome] = []
    waiting.run(
        checker.check_sender(case["host"], case["helo"], case["mailfrom"]), outcomes.append, lambda failure: failure.raiseException()
    )
    expected = case["result"] if isinstance(case["result"], list) else [case["result"]]
    assert outcomes[0].result.lower() in expected
    if case.get("explanation") and outcomes[0].result == "Fail":
        wanted = "" if case["explanation"] == "DEFAULT" else case["explanation"]
        assert outcomes[0].explanation == wanted
