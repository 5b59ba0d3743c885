"""The resolver against a real name server (NSD), and the tests' in-memory resolver held to the same answers."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from smtpf.dns.answer import Answer, Status
from smtpf.dns.resolver import Resolver
from test.support.zones import ZoneResolver

pytestmark = pytest.mark.skipif(shutil.which("nsd") is None, reason="nsd is not installed")

RECORDS = """
example.org SOA ns.example.org root.example.org
example.org NS ns.example.org
ns.example.org A 127.0.0.1
example.org MX 10 Mail.example.org
example.org MX 20 mail2.example.org
mail.example.org A 192.0.2.7
mail.example.org AAAA 2001:db8::7
alias.example.org CNAME mail.example.org
second.example.org CNAME alias.example.org
gone.example.org CNAME nowhere.example.org
loop.example.org CNAME pool.example.org
pool.example.org CNAME loop.example.org
null.example.org MX 0 .
odd.example.org PTR we\\000ird.example.org
deep.er.example.org A 192.0.2.8
example.org TXT v=spf1 mx -all
"""
QUESTIONS = [
    ("Mail.Example.Org.", "A"),
    ("mail.example.org", "AAAA"),
    ("mail.example.org", "TXT"),
    ("example.org", "MX"),
    ("example.org", "TXT"),
    ("example.org", "SOA"),
    ("example.org", "NS"),
    ("second.example.org", "A"),
    ("second.example.org", "MX"),
    ("gone.example.org", "A"),
    ("loop.example.org", "A"),
    ("null.example.org", "MX"),
    ("odd.example.org", "PTR"),
    ("er.example.org", "A"),
    ("missing.example.org", "A"),
    ("alias.example.org", "CNAME"),
    ("elsewhere.net", "A"),
]


def zone_line(line: str) -> str:
    name, rtype, data = line.split(None, 2)
    if rtype == "TXT":
        data = f'"{data}"'
    elif rtype == "SOA":
        data = " ".join(word + "." for word in data.split()) + " 1 3600 900 604800 60"
    elif rtype in ("MX", "CNAME", "NS", "PTR"):
        data = data.rstrip(".") + "."
        data = "0 ." if data == "0 ." else data
    return f"{name}. 300 IN {rtype} {data}\n"


@pytest.fixture(scope="module")
def port(tmp_path_factory: Any) -> Iterator[int]:
    folder: Path = tmp_path_factory.mktemp("nsd")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    big = "".join(f"big.example.org. 300 IN A 192.0.2.{n}\n" for n in range(150))
    (folder / "zone").write_text("".join(zone_line(line) for line in RECORDS.strip().splitlines()) + big)
    (folder / "nsd.conf").write_text(
        f'server:\n  ip-address: 127.0.0.1@{number}\n  username: ""\n  zonesdir: "{folder}"\n  database: ""\n  pidfile: ""\n'
        f'  xfrdfile: ""\n  zonelistfile: "{folder}/zones"\n  xfrdir: "{folder}"\n  rrl-ratelimit: 0\n  server-count: 1\n'
        f'remote-control:\n  control-enable: no\nzone:\n  name: "example.org"\n  zonefile: "{folder}/zone"\n'
    )
    with (folder / "log").open("wb") as log:
        daemon = subprocess.Popen(["nsd", "-d", "-c", str(folder / "nsd.conf")], stdout=log, stderr=log)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and daemon.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", number)) == 0:
                break
    else:
        pytest.fail((folder / "log").read_text())
    yield number
    daemon.terminate()
    daemon.wait(10)


@pytest.fixture
def resolver(port: int) -> Iterator[Resolver]:
    from twisted.internet import reactor

    resolver = Resolver(reactor, [("127.0.0.1", port)], timeout=10)
    yield resolver
    resolver.stop()


@pytest.mark.parametrize(("name", "rtype"), QUESTIONS)
def test_real_server_and_fake_agree(resolver: Resolver, reactor_run: Any, name: str, rtype: str) -> None:
    real = reactor_run(resolver.lookup(name, rtype))
    fake = ZoneResolver(RECORDS + "elsewhere.net * REFUSED").query(name, rtype)
    assert isinstance(fake, Answer)
    assert (real.name, real.status, real.chain) == (fake.name, fake.status, fake.chain)
    assert sorted(real.records, key=repr) == sorted(fake.records, key=repr)
    assert (real.authority is None) == (fake.authority is None) or real.status is Status.NODATA


def test_large_answer_comes_by_tcp(resolver: Resolver, reactor_run: Any) -> None:
    assert len(reactor_run(resolver.lookup("big.example.org", "A")).addresses) == 150


def test_negative_answer_is_kept_for_the_soa_minimum(resolver: Resolver, reactor_run: Any) -> None:
    assert reactor_run(resolver.lookup("missing.example.org", "A")).ttl == 60
    assert isinstance(resolver.query("missing.example.org", "A"), Answer)
