"""The parts of the cluster one by one, without a network."""

from __future__ import annotations

import itertools
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.protocols.amp import AmpBox

from smtpf.cache import peers, replica
from smtpf.cache.activity import HOSTS, Activity
from smtpf.cache.amp_commands import box_of, received_from
from smtpf.cache.database import Database
from smtpf.cache.dialler import Dialler
from smtpf.cache.discovery import PER_SECOND, Discovery, beacon, read_beacon
from smtpf.cache.outbox import MOST_OCTETS, PUT_RECORDS, Damping, Item, Outbox
from smtpf.cache.peers import Member, PeersError, Plan, plan_of, split_port
from smtpf.cache.records import Record, decoded
from smtpf.cache.replica import PAGE_OCTETS, Received, size_of
from smtpf.cache.signing import Forged, Seal, key_for
from smtpf.journal.journal import Entry, Journal
from smtpf.settings.store import Settings

NOW = 1_000_000
SECRET = b"a secret of some length"
OURS, THEIRS = "11" * 16, "22" * 16


def record(key: str = "k", value: str = "2", **more: Any) -> Record:
    return Record(key, value, **({"h": 1, "c": NOW, "t": NOW, "e": NOW + 1000} | more))


# Signing


def seals() -> tuple[Seal, Seal]:
    return Seal(SECRET, b"c" * 32, b"s" * 32, is_client=True), Seal(SECRET, b"c" * 32, b"s" * 32, is_client=False)


def test_keys_follow_rfc_5869_and_differ_by_direction_and_nonce() -> None:
    import hashlib
    import hmac

    pseudo_random = hmac.digest(b"c" * 32 + b"s" * 32, SECRET, hashlib.sha256)
    assert key_for(SECRET, b"c" * 32, b"s" * 32, b"c2s") == hmac.digest(pseudo_random, b"smtpf amp 1 c2s\x01", hashlib.sha256)
    assert len({key_for(SECRET, c, b"s" * 32, way) for c in (b"c" * 32, b"d" * 32) for way in (b"c2s", b"s2c")}) == 4


def test_sealed_boxes_open_at_the_other_end_in_order() -> None:
    client, server = seals()
    for number in range(1, 4):
        box = AmpBox(_ask=b"%d" % number)
        sealed = client.close(box)
        assert sealed[b"_q"] == b"%d" % number
        assert len(sealed[b"_m"]) == 32
        assert server.open(sealed) == box


@pytest.mark.parametrize("crime", ["changed", "added", "unsigned", "repeated", "skipped", "reflected", "other secret"])
def test_what_is_not_as_it_was_sent_is_found_out(crime: str) -> None:
    client, server = seals()
    first, second = client.close(AmpBox(a=b"1")), client.close(AmpBox(a=b"2"))
    if crime == "changed":
        first[b"a"] = b"9"
    elif crime == "added":
        first[b"b"] = b"1"
    elif crime == "unsigned":
        del first[b"_m"]
    elif crime == "repeated":
        server.open(first)
    elif crime == "skipped":
        first = second
    elif crime == "reflected":
        server = client
    else:
        server = Seal(SECRET + b"x", b"c" * 32, b"s" * 32, is_client=False)
    with pytest.raises(Forged):
        server.open(first)


# Records on the wire


OCTETS = st.binary(min_size=1, max_size=40).map(decoded)
"""Any octets, as the text they are in the program."""


@given(OCTETS, OCTETS, st.integers(0, 2**63 - 1), st.booleans(), st.booleans())
def test_records_survive_the_wire_whatever_octets_they_hold(key: str, value: str, number: int, x: bool, f: bool) -> None:
    sent = Record(key, value, number, number, number, number, OURS, x)
    assert received_from(box_of(sent, f)) == Received(sent, f)


@pytest.mark.parametrize(
    "fault", [{"k": b""}, {"k": b"k" * 1025}, {"v": b"v" * 1025}, {"h": -1}, {"e": 2**63}, {"o": b"short"}, {"c": None}, {"k": None}]
)
def test_records_outside_the_limits_are_refused(fault: dict[str, Any]) -> None:
    assert received_from(box_of(record()) | fault) is None


# Outbox and damping


def test_newer_version_replaces_an_unsent_older_one() -> None:
    outbox = Outbox(10)
    for value in "123":
        outbox.offer(Item(record("a", value)))
    outbox.offer(Item(record("b")))
    assert [item.record.value for item in outbox.take()] == ["3", "2"]
    assert len(outbox) == 0


def test_movements_of_one_counter_add_up_and_travel_alone() -> None:
    outbox = Outbox(10)
    outbox.offer(Item(record("a")))
    outbox.offer(Item(record("msg-limit:x", "1"), added=1))
    outbox.offer(Item(record("msg-limit:x", "2"), added=1))
    outbox.offer(Item(record("b")))
    assert [[(item.record.key, item.added) for item in outbox.take()] for _ in range(3)] == [[("a", 0)], [("msg-limit:x", 2)], [("b", 0)]]


def test_counter_of_a_new_window_travels_as_a_record() -> None:
    outbox = Outbox(10)
    outbox.offer(Item(record("msg-limit:x", "9"), added=1))
    outbox.offer(Item(record("msg-limit:x", "1", e=NOW + 5000), added=1))
    assert [(item.record.value, item.added) for item in outbox.take()] == [("1", 0)]


def test_one_put_holds_at_most_64_records_and_48_kib() -> None:
    outbox = Outbox(1000)
    for number in range(100):
        outbox.offer(Item(record(f"k{number}")))
    assert [len(outbox.take()), len(outbox.take())] == [PUT_RECORDS, 36]
    for number in range(100):
        outbox.offer(Item(record(f"k{number}", "v" * 1024)))
    taken = outbox.take()
    assert sum(size_of(item.record) for item in taken) <= PAGE_OCTETS
    assert len(taken) > 30


def test_overflow_by_count_or_octets_empties_the_queue() -> None:
    outbox = Outbox(5)
    assert [outbox.offer(Item(record(f"k{number}"))) for number in range(6)] == [True] * 5 + [False]
    assert (len(outbox), outbox.dropped) == (0, 6)
    outbox = Outbox(10**6)
    most = MOST_OCTETS // size_of(record("12345", "v" * 1024))
    assert all(outbox.offer(Item(record(f"{number:05}", "v" * 1024))) for number in range(most))
    assert not outbox.offer(Item(record("99999", "v" * 1024)))


def test_unanswered_records_go_back_to_the_front_unless_there_is_a_newer_one() -> None:
    outbox = Outbox(10)
    for key in "abc":
        outbox.offer(Item(record(key, "1")))
    taken = outbox.take()
    outbox.offer(Item(record("b", "2")))
    assert outbox.give_back(taken)
    assert [(item.record.key, item.record.value) for item in outbox.take()] == [("a", "1"), ("c", "1"), ("b", "2")]


@pytest.mark.parametrize(
    ("seconds", "value", "moved", "sent"),
    [(10, "2", 50, False), (10, "2", 200, True), (10, "5", 50, True), (60, "2", 50, True), (10, "2", -50, True)],
)
def test_touches_that_change_little_stay_at_home_for_a_minute(seconds: int, value: str, moved: int, sent: bool) -> None:
    damping = Damping()
    assert damping.worth_sending(record(), 0.0)
    assert damping.worth_sending(record(value=value, e=NOW + 1000 + moved), seconds) is sent


def test_removals_are_always_told_and_memory_of_touches_is_bounded() -> None:
    damping = Damping(keys=2)
    assert damping.worth_sending(record("a"), 0.0)
    assert damping.worth_sending(record("a", "", x=True), 1.0)
    assert damping.worth_sending(record("a"), 2.0)
    for key in "bcd":
        damping.worth_sending(record(key), 3.0)
    assert len(damping._last) == 2


# The cache file


@pytest.fixture
def database(tmp_path: Path) -> Any:
    made = Database(str(tmp_path / "c.sq3"))
    made.open()
    yield made
    made.close()


def test_pages_are_in_order_skip_the_callers_own_and_go_on_where_they_ended(database: Database) -> None:
    for number in range(600):
        database.write(record(f"k{number:03}", o=THEIRS if number % 2 else OURS))
    database.write(record("old", e=NOW))
    database.write(record("gone", "", x=True))
    seen: list[str] = []
    since, more = 0, True
    while more:
        page = replica.page(database, since, 256, THEIRS, NOW)
        assert page.epoch == database.epoch
        seen += [item.key for item in page.records]
        since, more = page.next, page.more
    assert seen == [f"k{number:03}" for number in range(0, 600, 2)] + ["gone"]
    assert since == database.last


def test_pages_of_large_records_stay_below_48_kib(database: Database) -> None:
    for number in range(200):
        database.write(record(f"k{number:03}", "v" * 1024))
    page = replica.page(database, 0, 256, THEIRS, NOW)
    assert page.more
    assert sum(size_of(item) for item in page.records) <= PAGE_OCTETS
    assert page.next == len(page.records)


def test_applying_twice_changes_nothing(database: Database) -> None:
    first = replica.apply(database, [Received(record("a", o=THEIRS))], NOW)
    again = replica.apply(database, [Received(record("a", o=THEIRS))], NOW)
    assert [outcome.ruling.value for outcome in first + again] == ["accepted", "ignored"]
    assert database.last == 1


@pytest.mark.parametrize(
    ("local", "e", "outcome"),
    [
        (None, NOW + 60, (2, True)),
        (("5", NOW + 60), NOW + 60, (7, True)),
        (("5", NOW + 60), NOW + 65, (7, True)),
        (("5", NOW + 60), NOW + 66, (2, True)),
        (("5", NOW + 60), NOW + 50, (5, False)),
        (("5", NOW - 1), NOW + 60, (2, True)),
        (None, NOW, (0, False)),
    ],
)
def test_movement_of_a_counter_counts_within_its_window(database: Database, local: Any, e: int, outcome: tuple[int, bool]) -> None:
    if local is not None:
        database.write(record("msg-limit:x", local[0], e=local[1]))
    value, row = replica.add(database, "msg-limit:x", 2, e, THEIRS, NOW)
    assert (value, row is not None) == outcome


def test_position_of_a_peer_is_kept_and_forgotten_after_a_day_alone(database: Database) -> None:
    replica.remember(database, THEIRS, "b.example", replica.Position(7, 42), NOW)
    assert replica.position(database, THEIRS) == replica.Position(7, 42)
    replica.seen(database, [THEIRS], NOW + 5)
    assert replica.last_contact(database) == NOW + 5
    database.write(record("old", t=NOW))
    database.write(record("new", t=NOW + 6))
    assert replica.forget_until(database, NOW + 5) == 1
    assert database.read("new") is not None
    assert replica.position(database, THEIRS) == replica.Position(0, 0)


# Members


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("a.example", ("a.example", 6921)),
        ("A.example:7000", ("a.example", 7000)),
        ("192.0.2.1:7000", ("192.0.2.1", 7000)),
        ("2001:db8::1", ("2001:db8::1", 6921)),
        ("[2001:db8::1]", ("2001:db8::1", 6921)),
        ("[2001:db8::1]:7000", ("2001:db8::1", 7000)),
        ("a.example:0", None),
        ("a.example:x", None),
        ("a.example:", None),
        ("[2001:db8::1", None),
        ("[a.example]:1", None),
        (":7000", None),
        ("a b", None),
        ("::zz::", None),
    ],
)
def test_hosts_with_and_without_port(text: str, outcome: tuple[str, int] | None) -> None:
    if outcome is None:
        with pytest.raises(ValueError):
            split_port(text, 6921)
    else:
        assert split_port(text, 6921) == outcome


@pytest.mark.parametrize(
    ("texts", "plan"),
    [
        ({}, Plan()),
        ({peers.CACHE_UNICAST_HOSTS: "a;b,c:1 d"}, Plan(hosts=(("a", 6921), ("b", 6921), ("c", 1), ("d", 6921)))),
        ({peers.CACHE_MULTICAST_IP: "232.0.0.1"}, Plan(group=("232.0.0.1", 6920))),
        ({peers.CACHE_MULTICAST_IP: "232.0.0.1:7"}, Plan(group=("232.0.0.1", 7))),
        ({peers.CACHE_MULTICAST_IP: "[ff12::1]:7"}, Plan(group=("ff12::1", 7))),
        ({peers.CACHE_HOSTS: "232.0.0.1 a b:8"}, Plan(hosts=(("a", 6920), ("b", 8)), group=("232.0.0.1", 6920), port=6920)),
        ({peers.CACHE_HOSTS: "a", peers.CACHE_PORT: "9"}, Plan(hosts=(("a", 9),), port=9)),
        ({peers.CACHE_UNICAST_DOMAIN: "Nodes.Example."}, Plan(domain="nodes.example")),
    ],
)
def test_options_name_the_cluster(texts: dict[Any, str], plan: Plan) -> None:
    lines: list[Entry] = []
    assert plan_of(Settings.of(texts), Journal(lines.append)) == plan
    assert lines == []


def test_domain_and_hosts_exclude_each_other_through_the_later_name_too() -> None:
    lines: list[Entry] = []
    with pytest.raises(PeersError):
        plan_of(Settings.of({peers.CACHE_HOSTS: "a", peers.CACHE_UNICAST_DOMAIN: "x"}), Journal(lines.append))
    assert [entry.message.number for entry in lines] == [174]


# Announcements


def test_announcement_is_read_by_who_has_the_secret() -> None:
    said = beacon(OURS, "a b\x00.example", 6921, NOW, SECRET)
    assert said.startswith(f"SMTPF1 {OURS} ab.example 6921 {NOW} ".encode())
    heard = read_beacon(said, SECRET, NOW + 60, 60, THEIRS)
    assert heard is not None
    assert (heard.node, heard.name, heard.port) == (OURS, "ab.example", 6921)


@pytest.mark.parametrize("crime", ["own", "early", "late", "secret", "changed", "short", "long", "empty", "binary"])
def test_other_announcements_are_dropped(crime: str) -> None:
    said, secret, now, own = beacon(OURS, "a", 6921, NOW, SECRET), SECRET, NOW, THEIRS
    if crime == "own":
        own = OURS
    elif crime == "early":
        now = NOW - 61
    elif crime == "late":
        now = NOW + 61
    elif crime == "secret":
        secret = b"another secret, also long"
    else:
        said = {
            "changed": said.replace(b"6921", b"6922"),
            "short": said[:-1],
            "long": said + b" " * 500,
            "empty": b"",
            "binary": b"\xff \xff",
        }[crime]
    assert read_beacon(said, secret, now, 60, own) is None


def test_a_flood_of_announcements_is_dropped_unread() -> None:
    clock = Clock()
    read: list[bytes] = []
    discovery = Discovery(clock, ("232.0.0.1", 1), 1, lambda: b"", lambda datagram: read.append(datagram), lambda heard, source: None)
    for _ in range(50):
        discovery.datagramReceived(b"x", ("192.0.2.1", 1))
    discovery.datagramReceived(b"x", ("192.0.2.2", 1))
    assert len(read) == PER_SECOND + 1
    clock.advance(1)
    discovery.datagramReceived(b"x", ("192.0.2.1", 1))
    assert len(read) == PER_SECOND + 2


# Dialling and the table


def test_pauses_double_to_a_minute_and_begin_anew_after_success() -> None:
    clock = Clock()
    attempts: list[float] = []

    async def connect(dialler: Dialler) -> None:
        attempts.append(clock.seconds())
        raise OSError

    dialler = Dialler(Member("a", "192.0.2.1", 1), clock, Random(1), connect, lambda dialler: True)
    dialler.start()
    clock.pump([0.1] * 3000)
    pauses = [after - before for before, after in itertools.pairwise(attempts)]
    for pause, wanted in zip(pauses, [1, 2, 4, 8, 16, 32, 60, 60], strict=False):
        assert wanted * 0.8 - 0.2 <= pause <= wanted * 1.2 + 0.2
    dialler.up(THEIRS)
    dialler.wake()
    count = len(attempts)
    clock.pump([0.1] * 13)
    assert len(attempts) == count + 1
    dialler.stop()
    clock.advance(1000)
    assert len(attempts) == count + 1


def test_pauses_stay_short_in_the_first_minute_after_a_connection_was_lost() -> None:
    clock = Clock()
    attempts: list[float] = []

    async def connect(dialler: Dialler) -> None:
        attempts.append(clock.seconds())
        if len(attempts) > 1:
            raise OSError

    dialler = Dialler(Member("a", "192.0.2.1", 1), clock, Random(1), connect, lambda dialler: True)
    dialler.start()
    dialler.up(THEIRS)
    dialler.retry()
    clock.pump([0.1] * 3000)
    pauses = [after - before for before, after in itertools.pairwise(attempts)]
    assert all(pause <= 1.3 for pause, begun in zip(pauses, attempts, strict=False) if begun < 55)
    assert len([begun for begun in attempts if begun < 60]) > 40
    assert max(pauses[-2:]) >= 48
    dialler.stop()


def test_a_host_that_was_noted_and_never_heard_has_a_sensible_age() -> None:
    activity = Activity()
    activity.note("192.0.2.1", 1_000_000.0, node="n")
    (row,) = activity.rows(1_000_060.0)
    assert 60 <= row.age <= 66


def test_table_counts_boxes_a_minute_and_is_bounded() -> None:
    activity = Activity()
    for second in range(120):
        activity.count("192.0.2.1", float(second), 2)
    activity.note("192.0.2.1", 120.0, node="n", q="0")
    (row,) = activity.rows(119.0)
    assert str(row) == "ip=192.0.2.1 age=0 ppm=120 max-ppm=120 node=n q=0"
    (row,) = activity.rows(300.0)
    assert (row.age, row.ppm, row.max_ppm) == (181, 0, 120)
    for number in range(HOSTS + 10):
        activity.count(f"2001:db8::{number:x}", 300.0)
    assert len(activity.rows(300.0)) == HOSTS
