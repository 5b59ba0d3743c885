"""The licence key: its checks in their order, the messages, and what stays off without a key."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.internet.defer import ensureDeferred, maybeDeferred

from smtpf.admin.licence import LICKEY_FILE, LICKEY_PUBKEY, Licence
from smtpf.admin.licence_signer import main as sign
from smtpf.journal.journal import Entry, Journal
from smtpf.maps.routes import RouteMap
from smtpf.maps.source import FixedSource, table_of
from smtpf.settings.option import Flag
from smtpf.settings.store import Settings

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC).timestamp()
FIELDS = {
    "client-name": '"Example Ltd"',
    "client-mail": "postmaster@example.com",
    "generated-by": "tests",
    "keycode": "k",
    "core-per-ip-list": "4/192.0.2.1, 0/192.0.2.2",
    "date-issued": "2026-01-01",
    "date-expires": "2027-01-01",
    "process-name": "smtpf",
    "process-version": "3",
    "platform": "Linux",
    "max-domains": "2",
    "comment": "~anything",
}
ROUTES = "route:a.example\nroute:b.example\n"


class Shop:
    """Makes keys and checks them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.private = folder / "private.pem"
        self.key = Ed25519PrivateKey.generate()
        self.private.write_bytes(self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        self.file = folder / "lickey.txt"
        self.now = NOW
        self.entries: list[Entry] = []
        self.journal = Journal(self.entries.append)

    def issue(self, change: Callable[[str], str] = lambda text: text, **fields: str | None) -> None:
        """Sign a key; then ``change`` its text."""
        wanted = {**FIELDS, **{name.replace("_", "-"): value for name, value in fields.items()}}
        draft = self.folder / "fields.txt"
        draft.write_text("# a licence\n" + "".join(f"{name}={value}\n" for name, value in wanted.items() if value is not None))
        out = io.StringIO()
        assert sign([str(self.private), str(draft)], out, io.StringIO()) == 0
        self.public = out.getvalue().splitlines()[0].partition("=")[2]
        self.file.write_text(change(out.getvalue()))

    def licence(self, addresses: tuple[str, ...] = ("192.0.2.1",), routes: int = 2, **options: str) -> Licence:
        settings = Settings.of({LICKEY_FILE: str(self.file), LICKEY_PUBKEY: self.public})
        view = table_of([(f"route:{number}.example", "FORWARD: 192.0.2.9") for number in range(routes)])
        return Licence(
            settings, self.journal, maybeDeferred, version="3.0.1", now=lambda: self.now, addresses=addresses,
            routes=RouteMap(FixedSource(view), self.journal),
        )  # fmt: skip

    def check(self, **named: Any) -> tuple[bool, list[str]]:
        outcome = result(ensureDeferred(self.licence(**named).check()))
        told, self.entries[:] = [str(entry) for entry in self.entries], []
        return outcome, told


def result(deferred: Any) -> Any:
    outcome: list[Any] = []
    deferred.addBoth(outcome.append)
    return outcome[0]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def test_good_key_is_good_for_an_address_of_the_machine(shop: Shop) -> None:
    shop.issue()
    assert shop.check(addresses=("198.51.100.1", "192.0.2.1")) == (
        True,
        ["#406 not licensed for IP [198.51.100.1]", "#408 found valid licensed IP [192.0.2.1]"],
    )


WRONG: list[tuple[dict[str, str | None], str]] = [
    ({"client_mail": None}, "#396 license key client-mail must be set"),
    ({"keycode": ""}, "#396 license key keycode must be set"),
    ({"process_name": "milter"}, "#402 license key not for smtpf/3.0.1"),
    ({"process_version": "4.0"}, "#402 license key not for smtpf/3.0.1"),
    ({"platform": "OpenBSD"}, "#403 license key not for Linux"),
    ({"date_issued": "2026-06-16"}, "#397 license key date-issued is in the future, please check your system clock"),
    ({"date_expires": "Mon, 15 Jun 2026 11:59:59 +0000"}, "#398 license key has expired"),
    ({"date_expires": "soon"}, "#399 license key date-expires error: not a date (22)"),
    ({"core_per_ip_list": "4/192.0.2"}, "#404 invalid license key IP address [192.0.2]"),
    ({"core_per_ip_list": "192.0.2.1"}, "#405 lickey syntax error: 192.0.2.1"),
    ({"core_per_ip_list": "0/192.0.2.1"}, "#406 not licensed for IP [192.0.2.1]"),
    ({"max_domains": "1"}, "#411 route-map entries=2 exceeds license key max-domains=1"),
    ({"max_domains": "many"}, "#399 license key max-domains error: not a number (22)"),
]


@pytest.mark.parametrize(("fields", "told"), WRONG)
def test_each_fault_has_its_message(shop: Shop, fields: dict[str, str | None], told: str) -> None:
    shop.issue(**fields)
    good, lines = shop.check()
    assert not good and lines[-1] == told


@pytest.mark.parametrize(
    "fields",
    [
        {"process_version": "2.1"},
        {"max_domains": "2"},
        {"max_domains": ""},
        {"date_expires": ""},
        {"platform": "?OpenBSD"},
        {"core_per_ip_list": "1/127.0.0.1"},
        {"core_per_ip_list": "1/0.0.0.0", "hw_vendor": "somebody else"},
        {"core_per_ip_list": "1/192.0.2.1"},
    ],
)
def test_what_a_key_may_say(shop: Shop, fields: dict[str, str]) -> None:
    shop.issue(**fields)
    assert shop.check() == (True, ["#408 found valid licensed IP [192.0.2.1]"])


def test_signature_covers_all_fields_but_those_marked_with_a_tilde(shop: Shop) -> None:
    shop.issue(lambda text: text.replace("~anything", "~something else"))
    assert shop.check()[0]
    shop.issue(lambda text: text.replace("max-domains=2", "max-domains=2000"))
    assert shop.check() == (False, ["#401 license key invalid"])
    shop.issue()
    shop.public = "00" * 32
    assert shop.check() == (False, ["#401 license key invalid"])


def test_file_that_cannot_be_read_or_understood(shop: Shop) -> None:
    shop.issue(lambda text: text + "stray words\n")
    assert shop.check() == (False, ["#405 lickey syntax error: stray words"])
    shop.file.unlink()
    assert shop.check() == (False, [f'#409 license key "{shop.file}" load error: No such file or directory (2)'])
    shop.file.write_bytes(b"#" * 70_000)
    assert shop.check() == (False, [f'#409 license key "{shop.file}" load error: file too large (27)'])


def test_without_a_key_file_nothing_is_checked_and_nothing_forbidden(shop: Shop) -> None:
    lint = Flag("lint", False, "x")
    settings = Settings.of({lint: "+"})
    licence = Licence(
        settings, shop.journal, maybeDeferred, version="3", now=lambda: NOW, addresses=(), routes=RouteMap(FixedSource(), shop.journal)
    )  # fmt: skip
    assert result(ensureDeferred(licence.check())) is True
    licence.daily()
    assert licence.permitted(settings) is settings and shop.entries == []


def test_lint_needs_a_key_that_allows_it(shop: Shop) -> None:
    lint = Flag("lint", False, "x")
    wanted = Settings.of({lint: "+"})
    shop.issue()
    licence = shop.licence()
    result(ensureDeferred(licence.check()))
    assert licence.permitted(wanted)[lint] is False
    assert str(shop.entries[-1]) == "#813 lint option requires special license key"
    assert licence.permitted(Settings.of({lint: "-"}))[lint] is False
    shop.issue(lint="1")
    result(ensureDeferred(licence.check()))
    assert licence.permitted(wanted) is wanted


def test_running_node_warns_on_the_last_day_and_tells_once_a_day_that_the_key_has_ended(shop: Shop) -> None:
    shop.issue(date_expires="2026-06-17")
    licence = shop.licence()
    result(ensureDeferred(licence.check()))
    shop.entries.clear()
    licence.daily()
    assert shop.entries == []
    shop.now = datetime(2026, 6, 16, 0, 0, 1, tzinfo=UTC).timestamp()
    licence.daily()
    assert [str(each) for each in shop.entries] == ["#395 smtpf-3.0.1 license key expires in less than 1 day"]
    shop.entries.clear()
    for hours in (24, 25, 47, 49):
        shop.now = datetime(2026, 6, 16, tzinfo=UTC).timestamp() + hours * 3600
        licence.daily()
    assert [str(each) for each in shop.entries] == ["#398 license key has expired"] * 2


def test_lkey_checks_again_shows_the_fields_and_stops_nothing(shop: Shop) -> None:
    shop.issue()
    licence = shop.licence()
    assert ("client-name", "Example Ltd") in result(ensureDeferred(licence.fields()))
    shop.now = datetime(2028, 1, 1, tzinfo=UTC).timestamp()
    assert ("client-name", "Example Ltd") in result(ensureDeferred(licence.fields()))
    assert str(shop.entries[-1]) == "#398 license key has expired"


def test_signer_tells_what_it_cannot_read(shop: Shop, tmp_path: Path) -> None:
    errors = io.StringIO()
    assert sign([str(tmp_path / "none"), "x"], io.StringIO(), errors) == 1
    assert f"#412 {tmp_path}/none load error: No such file or directory (2)" in errors.getvalue()
    assert sign([str(shop.private), str(tmp_path / "none")], io.StringIO(), errors) == 1
    assert sign([], io.StringIO(), errors) == 64
