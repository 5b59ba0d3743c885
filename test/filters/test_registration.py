"""The order of the counters."""

from __future__ import annotations

from types import ModuleType

from smtpf.filters.registration import counters_in_order
from smtpf.settings.catalogue import instances
from smtpf.stats.counter import Counter, Group
from smtpf.stats.tables import order


def _names(group: Group) -> list[str]:
    return [counter.name for counter in order(counters_in_order()) if counter.group is group]


def test_all_counters_are_there_once() -> None:
    found = counters_in_order()
    assert len(set(found)) == len(found)
    assert set(found) == set(instances(Counter))


def test_core_counters_come_before_those_of_filters() -> None:
    connect, message = _names(Group.CONNECT), _names(Group.MSG)
    assert connect[0] == "CLIENTS"
    assert max(map(connect.index, ("dropped", "clean-quit", "server-io-error"))) < min(map(connect.index, ("dns-bl", "client-ip-in-ptr")))
    assert message[0] == "MESSAGES"
    assert message.index("msg-accept") < message.index("dupmsg-hit")


def test_filters_follow_as_they_run() -> None:
    message = _names(Group.MSG)
    assert message.index("dupmsg-hit") < message.index("spamd-reject")


def test_those_of_third_parties_come_last() -> None:
    other = ModuleType("other_filter")
    counter = Counter("of-others", Group.MSG, "Counted by somebody else.")
    vars(other)["COUNTED"] = counter
    assert counters_in_order([other])[-1] is counter
