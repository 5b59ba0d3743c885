"""OPTN: what is shown, what may change, and that a refused change changes nothing."""

from __future__ import annotations

import pytest

from smtpf.reply import Reply
from smtpf.settings.option import Action, AnyOption, Flag, Level, Number, Text, Words
from smtpf.settings.runtime import INVALID_VALUE, NEEDS_RESTART, UNKNOWN_OPTION, Changed, Refused, change, listing, reloaded
from smtpf.settings.store import Settings

DAEMON = Flag("daemon", True, ".", runtime=False)
DAEMON_NAP = Number("daemon-nap", 3, ".")
ACCESS_MAP = Text("access-map", "sql!/etc/smtpf/access.sq3", ".", runtime=False)
TYPES = Words("deny-content-type", ("application/*executable", "message/partial"), ".", aliases=("deny-type",))
SECRET = Text("emew-secret", "", ".", secret=True)
SOA = Level("uri-valid-soa", "-", ".")
POLICY = Text("clamd-policy", "reject", ".", words=("none", "reject", "discard"))
GONE = Flag("smtp-drop-rset", False, ".", ignored=True, runtime=False)
HELP = Action("help", meaning=".")
OPTIONS: tuple[AnyOption, ...] = (DAEMON, DAEMON_NAP, ACCESS_MAP, TYPES, SECRET, SOA, POLICY, GONE, HELP)


def settings(**texts: str) -> Settings:
    by_name = {option.name.replace("-", "_"): option for option in OPTIONS}
    return Settings(OPTIONS, {by_name[name]: text for name, text in texts.items()})


def test_listing_shows_all_but_actions_and_dropped_options_in_help_order() -> None:
    assert list(listing(settings())) == [
        'access-map="sql!/etc/smtpf/access.sq3"',
        'clamd-policy="reject"',
        "+daemon",
        'daemon-nap="3"',
        'deny-content-type="application/*executable;message/partial"',
        'emew-secret=""',
        "-uri-valid-soa",
    ]


def test_listing_hides_secrets_and_shows_levels() -> None:
    lines = list(listing(settings(emew_secret="tell nobody", uri_valid_soa="2")))
    assert 'emew-secret="***"' in lines
    assert 'uri-valid-soa="2"' in lines


def test_listing_escapes_quotes_backslashes_and_control_characters() -> None:
    line = next(iter(listing(settings(access_map='a"b\\c\r\nd\x00\te'))))
    assert line == 'access-map="a\\"b\\\\c\\r\\nd\\000\\te"'


@pytest.mark.parametrize(
    ("argument", "reply", "name"),
    [
        ("-daemon", NEEDS_RESTART, "daemon"),
        ("daemon", NEEDS_RESTART, "daemon"),
        ("DAEMON=yes", NEEDS_RESTART, "daemon"),
        ("daemon+=1", NEEDS_RESTART, "daemon"),
        ("+daemon=1", NEEDS_RESTART, "daemon"),
        ("daemon-nap=4 access-map=x -daemon", NEEDS_RESTART, "access-map"),
        ("nonesuch=1 +daemon", NEEDS_RESTART, "daemon"),
        ("+help", NEEDS_RESTART, "help"),
        ("daemon-nap=4 nonesuch=1", UNKNOWN_OPTION, "nonesuch"),
        ("nonesuch", UNKNOWN_OPTION, "nonesuch"),
        ("daemon-nap=4 -- clamd-policy=none", UNKNOWN_OPTION, "-"),
        ("daemon-nap=soon", INVALID_VALUE, "daemon-nap"),
        ("daemon-nap=4 clamd-policy=maybe", INVALID_VALUE, "clamd-policy"),
        ("clamd-policy+=none", INVALID_VALUE, "clamd-policy"),
        ("CLAMD-POLICY", INVALID_VALUE, "clamd-policy"),
        ("+deny-type", INVALID_VALUE, "deny-content-type"),
        ("+daemon-nap=4", INVALID_VALUE, "daemon-nap"),
        ("emew-secret='open", INVALID_VALUE, "emew-secret"),
        ("uri-valid-soa=3", INVALID_VALUE, "uri-valid-soa"),
    ],
)
def test_a_refused_change_names_the_option(argument: str, reply: Reply, name: str) -> None:
    assert change(settings(), argument) == Refused(reply, name)


@pytest.mark.parametrize(
    ("argument", "texts"),
    [
        ("daemon-nap=4", {"daemon-nap": "4"}),
        ("  Daemon-Nap=4   clamd-policy=none # a remark", {"daemon-nap": "4", "clamd-policy": "none"}),
        ("deny-type+=x/y", {"deny-content-type": "application/*executable;message/partial;x/y"}),
        ('emew-secret="a \\"b\\" c"', {"emew-secret": 'a "b" c'}),
        ("uri-valid-soa=2 --", {"uri-valid-soa": "2"}),
        ("daemon-nap=3", {}),
        ("+smtp-drop-rset", {}),
        ("", {}),
    ],
)
def test_a_change_gives_new_settings_and_names_what_changed(argument: str, texts: dict[str, str]) -> None:
    old = settings()
    changed = change(old, argument)
    assert isinstance(changed, Changed)
    assert {option.name: changed.settings.text(option) for option in changed.options} == texts
    assert old == settings()


def test_a_flag_can_be_cleared_again() -> None:
    changed = change(settings(uri_valid_soa="2"), "-uri-valid-soa")
    assert isinstance(changed, Changed)
    assert changed.settings[SOA] == 0


def test_an_old_name_is_told_as_a_warning() -> None:
    changed = change(settings(), "deny-type=x/y")
    assert isinstance(changed, Changed)
    assert [str(warning) for warning in changed.warnings] == ['OPTN: warning: "deny-type" is the old name of "deny-content-type"']


def test_reading_the_file_again_keeps_restart_only_options_and_logs_them() -> None:
    current = settings(access_map="sql!/a", daemon_nap="9", help="+")
    logged: list[str] = []
    new = reloaded(current, settings(access_map="sql!/b", clamd_policy="none"), lambda message, name: logged.append(message.format % name))
    assert logged == ["option access-map needs restart"]
    assert new == settings(access_map="sql!/a", clamd_policy="none", help="+")
