"""The attribute ``TLS:`` of the route map."""

from __future__ import annotations

import pytest

from smtpf.maps.check import check_map
from smtpf.maps.routes import parse_attributes


@pytest.mark.parametrize(
    ("value", "demand"),
    [
        ("FORWARD: a.example b.example; TLS: REQUIRE", "require"),
        ("TLS:VERIFY;FORWARD: a.example", "verify"),
        ("FORWARD: a.example", ""),
        ("FORWARD: a.example; TLS: verify", ""),
    ],
)
def test_every_host_of_the_entry_carries_what_it_demands(value: str, demand: str) -> None:
    assert {host.tls for host in parse_attributes(value).forward} == {demand}


def test_the_check_names_a_word_that_is_none(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "route.cf"
    path.write_text("route:example.com FORWARD: a.example; TLS: REQIRE\nroute:example.org FORWARD: a.example; TLS: VERIFY\n")
    assert check_map(f"file!{path}", "route") == [f'{path}:1: unknown word for TLS: "REQIRE", did you mean "REQUIRE"?']
