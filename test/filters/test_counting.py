"""What limits count with: exact windows, and tables that stay bounded."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from smtpf.filters.counting import MinuteWindows, SessionsPresent, client_key


class Moment:
    def __init__(self, at: float) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.9", "192.0.2.9", True),
        ("192.0.2.9", "192.0.2.10", False),
        ("192.0.2.9", "::ffff:192.0.2.9", True),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("0.0.0.5", "0:0:0:5::1", False),
    ],
)
def test_ipv4_is_counted_by_address_and_ipv6_by_its_network(one: str, other: str, same: bool) -> None:
    assert (client_key(ip_address(one)) == client_key(ip_address(other))) is same


def test_a_window_sums_the_current_bucket_and_the_nine_before_it() -> None:
    now = Moment(600.0)
    windows = MinuteWindows(now)
    assert windows.add("a") == 1
    now.at = 605.9
    assert windows.add("a") == 2
    now.at = 659.9
    assert windows.add("a") == 3
    now.at = 660.0
    assert windows.add("a") == 2
    now.at = 714.0
    assert windows.add("a") == 2
    now.at = 3000.0
    assert windows.add("a") == 1


def test_keys_are_counted_apart() -> None:
    windows = MinuteWindows(Moment(600.0))
    assert [windows.add(key) for key in ("a", "b", "a", 7, 7)] == [1, 1, 2, 1, 2]


def test_idle_keys_are_forgotten() -> None:
    now = Moment(600.0)
    windows = MinuteWindows(now)
    for key in range(100):
        windows.add(key)
    now.at = 657.0
    windows.add(0)
    now.at = 660.0
    windows.add("new")
    assert len(windows) == 2


def test_a_full_table_forgets_the_key_longest_unused() -> None:
    windows = MinuteWindows(Moment(600.0), most=2)
    windows.add("a")
    windows.add("b")
    windows.add("a")
    windows.add("c")
    assert len(windows) == 2
    assert windows.add("a") == 3
    assert windows.add("b") == 1


def test_a_clock_set_back_does_not_lose_count() -> None:
    now = Moment(6000.0)
    windows = MinuteWindows(now)
    windows.add("a")
    now.at = 5000.0
    assert windows.add("a") == 2


def test_presence_is_forgotten_at_zero() -> None:
    present = SessionsPresent()
    assert present.enter("a") == 1
    assert present.enter("a") == 2
    present.leave("a")
    assert present.enter("a") == 2
    present.leave("a")
    present.leave("a")
    present.leave("a")
    assert len(present) == 0
