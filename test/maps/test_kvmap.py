"""The tool that compiles, dumps and checks maps."""

from __future__ import annotations

import io
import sqlite3
from pathlib import Path

import pytest

from smtpf.maps.kvmap import main


def run(argv: list[str], text: bytes = b"") -> tuple[int, bytes, list[str]]:
    out, errors = io.BytesIO(), io.StringIO()
    status = main(argv, io.BytesIO(text), out, errors)
    return status, out.getvalue(), errors.getvalue().splitlines()


def rows(path: Path) -> dict[str, str]:
    connection = sqlite3.connect(path)
    found = dict(connection.execute("SELECT k, v FROM kvm").fetchall())
    connection.close()
    return found


@pytest.mark.parametrize(
    ("row", "flags", "text", "expected", "messages"),
    [
        ("K1", ["-l"], b"# note\n\nConnect:10 OK\n", {"connect:10": "OK"}, []),
        ("K2", ["-l"], b'from:x\t\tREJECT:"Go  Away"\n', {"from:x": 'REJECT:"Go  Away"'}, []),
        ("K3", ["-l"], b"emew:example.com\n", {}, ['kvmap: warning at 1: key "emew:example.com" has no value, skipping']),
        ("K4", ["-l", "-b"], b"emew:example.com\n", {"emew:example.com": ""}, []),
        (
            "K5",
            ["-l"],
            b"emew:example.com \n",
            {"emew:example.com": ""},
            ['kvmap: warning at 1: key "emew:example.com" has an empty value'],
        ),
        ("K6", ["-l"], b"a:x 1\na:x 2\n", {"a:x": "2"}, ['kvmap: warning at 2: key "a:x" replaces that of line 1']),
        ("K9", ["-l", "-U"], b"a:X Yes", {"a:x": "YES"}, []),
        ("-u -L", ["-uL"], b"a:X Yes", {"A:X": "yes"}, []),
        ("blank", ["-l"], b" a:x 1\na:y 2", {"a:y": "2"}, ["kvmap: warning at 1: line begins with a blank, ignored"]),
        ("ipv6", ["-nl"], b"connect:2001:0DB8:0:0 OK", {"connect:2001:db8:0:0": "OK"}, []),
    ],
)
def test_worked_compilation(tmp_path: Path, row: str, flags: list[str], text: bytes, expected: dict[str, str], messages: list[str]) -> None:
    path = tmp_path / "access.sq3"
    assert run([*flags, f"access!sql!{path}"], text) == (0, b"", messages)
    assert rows(path) == expected
    assert list(tmp_path.iterdir()) == [path]


def test_second_run_replaces_or_adds(tmp_path: Path) -> None:
    path = tmp_path / "a.sq3"
    run(["-l", f"access!sql!{path}"], b"a:x 1")
    run(["-l", f"access!sql!{path}"], b"a:y 2")
    assert rows(path) == {"a:y": "2"}
    run(["-la", f"access!sql!{path}"], b"a:x 1")
    assert rows(path) == {"a:x": "1", "a:y": "2"}


def test_dump_gives_what_was_compiled(tmp_path: Path) -> None:
    path = tmp_path / "a.sq3"
    run(["-l", f"access!sql!{path}"], b"Connect:10 OK\na:\xff \xfe\n")
    assert run(["-d", f"access!sql!{path}"]) == (0, b"a:\xff\t\xfe\nconnect:10\tOK\n", [])


def test_dump_of_a_text_map(tmp_path: Path) -> None:
    (tmp_path / "route.cf").write_text("b:x 1\na:x 2\nb:x 3\n")
    assert run(["-d", f"route!text!{tmp_path / 'route.cf'}"])[1] == b"a:x\t2\nb:x\t3\n"


def test_mode_of_the_old_database_is_kept_and_its_readers_go_on(tmp_path: Path) -> None:
    path = tmp_path / "a.sq3"
    run([f"access!sql!{path}"], b"a:x 1")
    assert path.stat().st_mode & 0o777 == 0o660
    path.chmod(0o640)
    reader = sqlite3.connect(path)
    run([f"access!sql!{path}"], b"a:x 2")
    assert path.stat().st_mode & 0o777 == 0o640
    assert reader.execute("SELECT v FROM kvm").fetchall() == [("1",)]
    reader.close()
    assert rows(path) == {"a:x": "2"}


@pytest.mark.parametrize("argument", ["access", "access!/x", "!sql!/x"])
def test_argument_that_is_no_map(argument: str) -> None:
    assert run([argument]) == (1, b"", ["invalid map argument"])


@pytest.mark.parametrize("argument", ["access!sql!/nonexistent/x.sq3", "access!db!/x", "access!socketmap!x", "access!file!/x"])
def test_map_that_cannot_be_opened(argument: str) -> None:
    assert run([argument], b"a:x 1") == (1, b"", [f"{argument} open error"])


def test_dump_of_a_missing_map_makes_no_file(tmp_path: Path) -> None:
    argument = f"access!sql!{tmp_path / 'x.sq3'}"
    assert run(["-d", argument]) == (1, b"", [f"{argument} open error"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("argv", [[], ["-z", "access!sql!/x"], ["access!sql!/x", "more"]])
def test_usage(argv: list[str]) -> None:
    status, _, errors = run(argv)
    assert (status, errors[0][:6]) == (64, "usage:")


ACCESS = """\
conect:10 OK
connect:300.1 OK
Connect:10 OK+VA
from:x.example REJECT:go away
to:a@b.example SAVE:trap
length-to:x.example 10T
emew:x.example
to:y.example
connect:192.0.2.0/24 OK
 x
connect:10 REJECT
body:x.example !a OK
tls-from:x.example VERIFY:x
msg-limit-to:a@ 150/30x
from:10.1:to:a@ OK
"""


def test_check_names_every_fault_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "access.cf"
    path.write_text(ACCESS)
    status, _, errors = run(["--check", "access", str(path)])
    assert status == 1
    assert errors == [
        f"{path}:{line}"
        for line in (
            '1: unknown tag "conect:", did you mean "connect:"?',
            '2: key "connect:300.1": "300.1" is not an address, network or domain',
            '3: unknown word for connect: "OK+VA", did you mean "OK+AV"?',
            '4: "away" behind the default is never read; quote a text that has blanks',
            '5: SAVE: "trap" is not an absolute path',
            '6: "10T" is not a value of length-to:',
            '8: key "to:y.example" has no value and counts as absent',
            '9: key "connect:192.0.2.0/24": "192.0.2.0/24" is not an address, network or domain',
            "10: line begins with a blank and has no key",
            '11: key "connect:10" stands already in line 3; the last one counts',
            '12: pattern delimiter error: "!a OK..."',
            '13: VERIFY: "x" does not begin with CN=',
            '14: "150/30x" is not a value of msg-limit-to:',
            '15: key "from:10.1:to:a@": "10.1" is neither domain nor mailbox',
        )
    ]


ROUTE = """\
route:example.com FORWARD: mx.example:x; RELAI
rout:example.com RELAY
route:example.org FORWARD:
route:example.net FORWARD
route:a@b@ RELAY: x
route:bad_/x RELAY
route:empty.example
"""


def test_check_of_a_route_map() -> None:
    status, _, errors = run(["-c", "route!text!/etc/route.cf"], ROUTE.encode())
    assert status == 1
    assert errors == [
        'stdin:1: FORWARD: "mx.example:x" is not a host, host:port, address or socket',
        'stdin:1: unknown attribute "RELAI", did you mean "RELAY"?',
        'stdin:2: unknown tag "rout:", did you mean "route:"?',
        "stdin:3: FORWARD: names no host",
        "stdin:4: FORWARD needs a colon and hosts",
        "stdin:4: no FORWARD, RCPT or RELAY",
        "stdin:5: RELAY takes no hosts",
        'stdin:6: key "route:bad_/x" is neither address, network, domain nor mailbox',
        "stdin:7: no FORWARD, RCPT or RELAY",
    ]


DEFAULTS = b"""\
rate-connect: 5
concurrent-connect: 5
grey-connect:netflix.com 0
connect:gmail.com CONTENT
connect:10 OK
connect:172.16 OK
connect:192.168 OK
connect:2001:db8 OK
connect:::1 OK
connect:[ipv6:2001:db8::1] REJECT
connect:192.0.2:from:example.com NEXT
connect:192.0.2.9:from: REJECT
from::to:ann@example.com REJECT
from:root:to:ann@ OK
from:aol.com /^[a-zA-Z0-9.-]{3,16}@aol.com$/NEXT REJECT:"go away"
body:localhost OK
mimetype-to:ann@ !*!!application/pdf;application/*
null-rate-to: -1
msg-limit-from:x.example -1
msg-limit-from:y.example 10/D
greetpause: 2000
to: SKIP
spamd:ann@example.com ann
helo:[192.0.2.9] REJECT
"""


def test_check_finds_nothing_wrong_with_the_examples() -> None:
    assert run(["-c", "access"], DEFAULTS) == (0, b"", [])
    assert (
        run(["-c", "route"], b"route:127.0.0.1 FORWARD: 127.0.0.1:26; RELAY\nroute:local FORWARD: /run/x\nroute:abuse@ FORWARD: x\n")[0]
        == 0
    )
