"""The addresses of the machine."""

from __future__ import annotations

from pathlib import Path

from smtpf.process.own_addresses import own_addresses

TABLE = """\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 127.0.0.0/8 2 0 2
        |-- 127.0.0.0
           /8 host LOCAL
        |-- 127.0.0.1
           /32 host LOCAL
        |-- 127.255.255.255
           /32 link BROADCAST
     +-- 192.0.2.0/24 2 0 2
        |-- 192.0.2.7
           /32 host LOCAL
        |-- 192.0.2.255
           /32 link BROADCAST
"""


def test_addresses_stand_in_the_kernels_tables_loopback_last(tmp_path: Path) -> None:
    (tmp_path / "four").write_text(TABLE)
    (tmp_path / "six").write_text("00000000000000000000000000000001 01 80 10 80 lo\n20010db8000000000000000000000007 02 40 00 80 eth0\n")
    found = own_addresses("x", str(tmp_path / "four"), str(tmp_path / "six"))
    assert found == ("192.0.2.7", "127.0.0.1", "2001:db8::7", "::1")
    assert own_addresses("x", str(tmp_path / "four"), str(tmp_path / "none")) == ("192.0.2.7", "127.0.0.1")


def test_without_tables_the_host_name_tells(tmp_path: Path) -> None:
    assert own_addresses("localhost", str(tmp_path / "none"))[-1] == "::1"
