"""Administration commands on the SMTP port, as a client sees them."""

from __future__ import annotations

import re

import pytest
from twisted.internet.defer import fail

from smtpf.admin.commands import ADMIN_COMMANDS_GIVEN, without_secrets
from smtpf.cache.activity import Row
from smtpf.cache.store import CacheError
from smtpf.settings.language import Loaded, Problem
from smtpf.smtp import options as opt
from smtpf.smtp.session import State
from test.support.administered import Administered
from test.support.talk import codes

VERBS = ["CONN", "CACHE", "INFO", "KILL x", "LKEY", "OPTN", "STAT", "VERB"]
TIME = r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d [+-]\d{4}"
RECORD = re.compile(
    rf'211 2\.0\.0 k="(.*)" d="(.*)" h=(\d+) c=0x([0-9a-f]+) \({TIME}\) t=0x([0-9a-f]+) \({TIME}\) e=0x([0-9a-f]+) \({TIME}\)'
)


@pytest.mark.parametrize("verb", VERBS)
def test_others_are_refused_and_nothing_is_counted(verb: str) -> None:
    talk = Administered()
    stranger = talk.greeted()
    assert codes(stranger.say(verb)) == ["500 #248" if verb in ("STAT", "CACHE") else "503 #251"]
    assert talk.counted(ADMIN_COMMANDS_GIVEN) == 0 and talk.logged(1120) == []


@pytest.mark.parametrize("verb", VERBS)
def test_in_a_transaction_everybody_hears_out_of_sequence(verb: str) -> None:
    talk = Administered()
    client = talk.operator()
    client.say("EHLO localhost")
    assert client.say("MAIL FROM:<a@example.org>")[0].startswith("250")
    assert codes(client.say(verb)) == ["503 #251"]


@pytest.mark.parametrize("greeting", ["", "HELO localhost", "EHLO localhost"])
@pytest.mark.parametrize("verb", VERBS)
def test_this_machine_may_use_each_command_before_mail_in_any_case(verb: str, greeting: str) -> None:
    talk = Administered()
    client = talk.operator()
    if greeting:
        client.say(greeting)
    answer = client.say(verb.lower())
    assert answer[-1][:3] in ("214", "504"), answer
    assert talk.counted(ADMIN_COMMANDS_GIVEN) == 1
    assert talk.logged(1120) == [f"admin {verb.lower()}"]


def test_loopback_client_at_another_address_of_ours_has_no_rights() -> None:
    talk = Administered()
    client = talk.connect("127.0.0.1", at="192.0.2.25")
    assert codes(client.say("OPTN")) == ["503 #251"]


def test_xclient_neither_gives_nor_keeps_rights() -> None:
    talk = Administered({opt.SMTP_XCLIENT_ENABLE: "+", opt.SMTP_XCLIENT_FROM: "192.0.2.7"})
    claiming = talk.greeted()
    claiming.say("XCLIENT ADDR=127.0.0.1")
    talk.net.pass_time(1)
    assert codes(claiming.say("STAT"))[-1] == "500 #248"
    client = talk.operator()
    client.say("XCLIENT ADDR=192.0.2.9 NAME=x.example.org")
    talk.net.pass_time(1)
    assert codes(client.say("OPTN"))[-1] == "503 #251"


@pytest.mark.parametrize("who", ["socket", "none"])
def test_option_takes_the_smtp_port_out_and_help_follows(who: str) -> None:
    talk = Administered({"admin-commands": who})
    client = talk.operator()
    assert codes(client.say("OPTN")) == ["503 #251"]
    assert codes(client.say("STAT")) == ["500 #248"]
    assert not any("OPTN" in line for line in client.say("HELP"))
    assert any("CACHE CONN INFO KILL LKEY OPTN STAT VERB XCLIENT" in line for line in Administered().operator().say("HELP"))


def test_conn_lists_every_session_with_state_client_age_silence_and_octets() -> None:
    talk = Administered()
    other = talk.greeted(name="mail.example.net")
    talk.net.pass_time(12)
    client = talk.operator()
    head, first, second, end = client.say("CONN")
    assert re.fullmatch(r"214-2\.0\.0 th=\d+ cn=2 cs=1", head)
    assert re.fullmatch(r"214-2\.0\.0 \S{18} EHLO  ?\[192\.0\.2\.7\] 12 1[12] 23", first), first
    assert re.fullmatch(r"214-2\.0\.0 \S{18} CONN localhost\.localhost \[127\.0\.0\.1\] 0 0 6", second)
    assert re.fullmatch(r"214 2\.0\.0 end #548 \S{18}", end)
    assert not other.gone


def test_kill_tells_both_sides_and_ends_the_session_like_an_io_error() -> None:
    talk = Administered()
    victim = talk.greeted()
    (sid,) = talk.engine.conversations
    client = talk.operator()
    (answer,) = client.say(f"KILL {sid}")
    assert answer.startswith(f"214 2.0.0 killing session {sid} #324 ")
    (said,) = victim.take()
    assert said == f"550 5.0.0 session {sid} killed #325 {sid}"
    talk.net.pass_time(1.1)
    assert victim.gone and sid not in talk.engine.conversations
    (end,) = talk.logged(721)
    assert "io_error" in end


def test_kill_of_a_message_under_way_delivers_nothing() -> None:
    talk = Administered(route="route:example.com\tFORWARD: 192.0.2.80:25\n")
    hop = talk.hop("192.0.2.80")
    victim = talk.greeted()
    victim.say("MAIL FROM:<a@example.org>")
    victim.say("RCPT TO:<b@example.com>")
    victim.say("DATA")
    victim.send(b"Subject: x\r\n\r\n")
    (sid,) = talk.engine.conversations
    talk.operator().say(f"KILL {sid}")
    victim.send(b"text\r\n.\r\n")
    talk.net.pass_time(1.1)
    assert victim.gone and hop.contents == [] and "QUIT" not in hop.verbs


def test_kill_oneself_works() -> None:
    talk = Administered()
    client = talk.operator()
    (sid,) = talk.engine.conversations
    assert codes(client.say(f"KILL {sid}")) == ["214 #324", "550 #325"]
    talk.net.pass_time(1.1)
    assert client.gone


def test_kill_without_and_with_an_unknown_id() -> None:
    talk = Administered()
    client = talk.operator()
    assert client.say("KILL")[0].startswith("501 5.5.2 KILL missing argument #249 ")
    assert client.say("KILL nobody")[0].startswith("504 5.5.4 session nobody not found #326 ")


def test_optn_lists_every_option_with_secrets_hidden() -> None:
    talk = Administered({"cache-secret": "swordfish swordfish"})
    lines = talk.operator().say("OPTN")
    assert codes(lines) == ["214 #548"]
    assert '214-2.0.0 cache-secret="***"' in lines and "214-2.0.0 -smtp-slow-reply" in lines
    assert not any("+help" in line or "-help" in line for line in lines)


def test_optn_changes_new_sessions_and_the_one_that_asked_but_no_other() -> None:
    talk = Administered({opt.SMTP_XCLIENT_ENABLE: "-"})
    before = talk.greeted()
    client = talk.operator()
    assert codes(client.say("OPTN smtp-drop-after=77 +smtp-xclient-enable")) == ["214 #548"]
    after = talk.greeted("192.0.2.8")
    first, asking, last = (each.session for each in talk.engine.conversations.values())
    assert (first.settings[opt.SMTP_DROP_AFTER], asking.settings[opt.SMTP_DROP_AFTER], last.settings[opt.SMTP_DROP_AFTER]) == (0, 77, 77)
    assert codes(client.say("XCLIENT")) == ["501 #249"]
    assert not before.gone and not after.gone


@pytest.mark.parametrize(
    ("argument", "reply"),
    [
        ("route-map", "501 5.5.4 route-map requires restart #323 "),
        ("cache-path=/x", "501 5.5.4 cache-path requires restart #323 "),
        ("+smtp-slow-reply -DAEMON", "501 5.5.4 daemon requires restart #323 "),
        ("no-such-option=1", "504 5.5.4 option no-such-option unknown #1121 "),
        ("+smtp-slow-reply smtp-drop-after=few", "501 5.5.4 option smtp-drop-after invalid value #1122 "),
    ],
)
def test_optn_refuses_all_words_for_one_that_is_wrong(argument: str, reply: str) -> None:
    talk = Administered()
    assert talk.operator().say(f"OPTN {argument}")[0].startswith(reply)
    assert talk.settings.current[opt.SMTP_SLOW_REPLY] is False


def test_optn_keeps_everything_when_a_part_of_the_node_fails_with_it() -> None:
    talk = Administered()
    followed: list[int] = []

    def follow(settings: object) -> None:
        followed.append(talk.settings.current[opt.SMTP_DROP_AFTER])
        if talk.settings.current[opt.SMTP_DROP_AFTER] == 13:
            raise RuntimeError("unlucky")

    talk.configuration.follow(follow)
    client = talk.operator()
    assert codes(client.say("OPTN smtp-drop-after=13")) == ["501 #1122"]
    assert talk.settings.current[opt.SMTP_DROP_AFTER] == 0 and followed == [13, 0]
    assert codes(client.say("OPTN smtp-drop-after=12")) == ["214 #548"]


def test_optn_verbose_takes_effect_and_verb_shows_and_changes_it() -> None:
    talk = Administered()
    client = talk.operator()
    client.say("OPTN verbose=info,grey=2")
    lines = client.say("VERB +smtp -uri bogus uri=3 noSuch")
    assert lines[-1] == "214 2.0.0 End."
    flags = " ".join(line.removeprefix("214-2.0.0 ") for line in lines[:-2]).split()
    assert {"+info", "grey=2", "+smtp", "uri=3", "-access"} <= set(flags)
    names = [flag.lstrip("+-").partition("=")[0] for flag in flags]
    assert names == sorted(names) and all(len(line) <= 72 for line in lines)
    assert lines[-2] == "214-2.0.0 unknown: bogus noSuch"
    assert any(line.startswith('214-2.0.0 verbose="') and "uri=3" in line for line in client.say("OPTN"))


def test_stat_prints_three_columns_or_the_one_asked_for() -> None:
    client = Administered().operator()
    lines = client.say("STAT")
    assert lines[0] == "214-2.0.0 smtpf/3.0" and codes(lines) == ["214 #548"]
    assert re.fullmatch(r"214-2\.0\.0 age=\d+ \(\d+ \d\d:\d\d:\d\d\)", lines[2])
    assert lines[3] == "214-2.0.0 active-connections=1"
    (clients,) = [line for line in lines if " CLIENTS=" in line]
    assert re.fullmatch(r"214-2\.0\.0 \d{3} CLIENTS=1 100\.00%; 1 100\.00%; 1 100\.00%", clients)
    for column in ("R", "H", "w"):
        (one,) = [line for line in client.say(f"STAT {column}") if " CLIENTS=" in line]
        assert re.fullmatch(r"214-2\.0\.0 \d{3} CLIENTS=1 100\.00%", one)


def test_info_wraps_long_values_at_72_columns() -> None:
    lines = Administered().operator().say("INFO")
    assert lines[0] == '214-2.0.0 SMTPF_NAME="smtpf"'
    assert lines[1].startswith('214-2.0.0 PLATFORM="a very') and lines[2].startswith("214-2.0.0     ") and lines[2].endswith('"')
    assert all(len(line) <= 72 for line in lines) and codes(lines) == ["214 #548"]


def test_lkey_shows_the_fields() -> None:
    talk = Administered()
    talk.licence_fields = (("client-name", "Example"), ("hash", "00"))
    assert talk.operator().say("LKEY")[:2] == ['214-2.0.0 client-name="Example"', '214-2.0.0 hash="00"']


@pytest.mark.parametrize("argument", ["", " help", " ?"])
def test_cache_explains_itself(argument: str) -> None:
    lines = Administered().operator().say(f"CACHE{argument}")
    assert lines[:4] == ["214-2.0.0 " + text for text in ("CACHE ACTIVE", "CACHE GET key", "CACHE PUT key value", "CACHE DELETE key")]
    assert codes(lines) == ["214 #548"]


def test_cache_put_get_delete_by_the_worked_example() -> None:
    talk = Administered({"cache-accept-ttl": "604800"})
    client = talk.operator()
    (put,) = client.say("CACHE PUT click:192.0.2.7,a@b.example 2")
    found = RECORD.fullmatch(put)
    assert found and found[1] == "click:192.0.2.7,a@b.example" and found[2] == "2" and found[3] == "1"
    assert int(found[6], 16) - int(found[4], 16) == 604800 and found[4] == found[5]
    assert client.say("cache get click:192.0.2.7,a@b.example") == [put]
    talk.net.pass_time(5)
    (again,) = client.say("CACHE P click:192.0.2.7,a@b.example 5 with text")
    second = RECORD.fullmatch(again)
    assert second and second[2] == "5 with text" and second[3] == "2" and second[4] == found[4] and second[5] != found[5]
    assert client.say("CACHE D click:192.0.2.7,a@b.example") == [again]
    assert client.say("CACHE DELETE click:192.0.2.7,a@b.example") == ["210 2.0.0 key not found"]
    assert client.say("CACHE GET nothing") == ["210 2.0.0 key not found"]


def test_cache_put_and_delete_are_forced_on_all_nodes() -> None:
    talk = Administered()
    told: list[bool] = []
    talk.cache.observers.append(lambda changes: told.extend(change.forced for change in changes))
    client = talk.operator()
    client.say("CACHE PUT key 2")
    client.say("CACHE DELETE key")
    client.say("CACHE DELETE key")
    assert told == [True, True, True]


@pytest.mark.parametrize("argument", ["GET", "PUT", "PUT key", "DELETE"])
def test_cache_without_what_it_needs(argument: str) -> None:
    assert Administered().operator().say(f"CACHE {argument}")[0].startswith(f"501 5.5.2 CACHE {argument} missing argument #249 ")


def test_cache_shows_what_is_not_printable_as_hexadecimal() -> None:
    talk = Administered()
    talk.cache.put("key", "1\x00\xe9\x7f")
    (line,) = talk.operator().say("CACHE GET key")
    assert 'd="1\\x00\\xc3\\xa9\\x7f"' in line


def test_cache_that_is_broken_says_so() -> None:
    talk = Administered()
    talk.cache.in_thread = lambda work, **named: fail(CacheError("disk I/O error"))  # type: ignore[method-assign]
    client = talk.operator()
    assert client.say("CACHE GET key") == ["510 5.0.0 GET error"]
    assert client.say("CACHE PUT key 2") == ["510 5.0.0 PUT error"]
    assert client.say("CACHE DELETE key") == ["510 5.0.0 DELETE error"]


def test_cache_active_lists_the_nodes_in_lines_of_bounded_length() -> None:
    talk = Administered()
    client = talk.operator()
    assert client.say("CACHE ACTIVE") == ["211 2.0.0 end"]
    talk.rows = [Row("192.0.2.2", 3, 7, 9, ("node=ab", "la=1,2,3")), Row("192.0.2.3", 0, 0, 0, ("x" * 600,))]
    first, second, end = client.say("CACHE A")
    assert first == "211-2.0.0 ip=192.0.2.2 age=3 ppm=7 max-ppm=9 node=ab la=1,2,3"
    assert len(second) == 510 and end == "211 2.0.0 end"


@pytest.mark.parametrize(
    ("line", "logged"),
    [
        ("OPTN cache-secret=swordfish +lint", "OPTN cache-secret=*** +lint"),
        ("optn Stats-HTTP-Pass+=x", "optn Stats-HTTP-Pass+=***"),
        ('OPTN cache-secret="two words" verbose=info', "OPTN cache-secret=*** verbose=info"),
        ("OPTN cache-secret = swordfish", "OPTN cache-secret *** ***"),
        ("OPTN", "OPTN"),
        ("CACHE GET secret=1", "CACHE GET secret=1"),
    ],
)
def test_log_line_hides_secrets(line: str, logged: str) -> None:
    assert "swordfish" not in without_secrets(line) and "words" not in without_secrets(line).replace("verbose", "")
    assert without_secrets(line) == logged


def test_sink_knows_no_administration() -> None:
    talk = Administered()
    client = talk.operator()
    next(iter(talk.engine.conversations.values())).session.state = State.SINK
    assert codes(client.say("STAT")) == ["421 #966"]


def test_reload_takes_run_time_options_and_names_those_that_need_a_restart() -> None:
    talk = Administered()
    session = talk.greeted()
    old = talk.settings.current
    by_name = {option.name: option for option in old.options}
    fresh = old.evolve({opt.SMTP_DROP_AFTER: "9", by_name["interfaces"]: "192.0.2.1:25"})
    talk.read = lambda: Loaded(fresh, (), ())
    outcome = _run(talk)
    assert (outcome.changed, outcome.restart, outcome.problems) == (("smtp-drop-after",), ("interfaces",), ())
    assert talk.logged(1132) == ["option interfaces needs restart"] and talk.logged(1135) == ["reloaded, options changed=1"]
    assert talk.settings.current[by_name["interfaces"]] == old[by_name["interfaces"]]
    (running,) = talk.engine.conversations.values()
    assert running.session.settings[opt.SMTP_DROP_AFTER] == 0 and not session.gone


def test_reload_with_an_error_changes_nothing_and_tells() -> None:
    talk = Administered()
    old = talk.settings.current
    talk.read = lambda: Loaded(old.evolve({opt.SMTP_DROP_AFTER: "9"}), (Problem("smtpf.cf", 7, "no such option"),), ())
    outcome = _run(talk)
    assert outcome.problems == ("smtpf.cf:7: error: no such option",)
    assert talk.settings.current is old and talk.logged(1134) == ["options not reloaded: smtpf.cf:7: error: no such option"]
    assert talk.logged(1135) == []


def test_one_file_that_cannot_be_read_again_stops_no_other() -> None:
    talk = Administered()
    read: list[str] = []

    def broken() -> None:
        raise OSError(13, "Permission denied")

    talk.configuration.on_reload("tld files", broken)
    talk.configuration.on_reload("log", lambda: read.append("log"))
    assert _run(talk).problems == ()
    assert talk.logged(1136) == ["tld files not reloaded: Permission denied (13)"] and read == ["log"]


def _run(talk: Administered):  # type: ignore[no-untyped-def]
    from twisted.internet.defer import ensureDeferred

    outcome: list[object] = []
    ensureDeferred(talk.configuration.reload()).addBoth(outcome.append)
    talk.net.pump()
    return outcome[0]
