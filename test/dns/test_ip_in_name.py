"""The IP-in-name heuristic against every worked example of the specification."""

from __future__ import annotations

import pytest

from smtpf.dns.ip_in_name import ip_in_name

EXAMPLES = """
192.0.2.9 adsl-192-0-2-9.isp.example 11
192.0.2.9 192-0-2-9.dyn.isp.example 11
192.0.2.9 9.2.0.192.isp.example 11
203.0.113.77 cb00714d.isp.example 1
203.0.113.77 p-cb-00-71-4d.isp.example 1
203.0.113.77 host-714d.pool.example 1
203.0.113.77 3405803853.dial.example 2
203.0.113.77 dsl29005.isp.example 2
203.0.113.77 ppp203000113077.isp.example 2
203.0.113.77 cable203-0-113-77.isp.example 11
203.0.113.77 77-113-0-203.rev.example 11
203.0.113.77 77.red-203-0-113.isp.example 11
203.0.113.77 pool113-77.isp.example 11
203.0.113.77 x203x0x113x77.isp.example 9
203.0.113.77 o31300070515.isp.example 3
203.0.113.77 a-313-000.isp.example 3
203.0.113.77 4d.customer.example 5
203.0.113.77 4d1.customer.example 0
203.0.113.77 77.customer.example 6
203.0.113.77 077a.customer.example 6
203.0.113.77 user-077.customer.example 7
203.0.113.77 user-77.customer.example 8
203.0.113.77 user_77.customer.example 0
203.0.113.77 user.77.customer.example 0
203.0.113.77 user77.customer.example 0
203.0.113.77 113net77.customer.example 9
203.0.113.77 77net113.customer.example 6
203.0.113.77 smtp-out-113.customer.example 0
203.0.113.77 mail.customer.example 0
198.51.100.5 51-100.example.net 11
198.51.100.5 100051198.example.net 2
198.51.100.5 05.example.net 5
198.51.100.5 5.example.net 6
198.51.100.5 mx05.example.net 0
198.51.100.5 25605.example.net 2
203.0.113.25 mail-25.example.net 8
192.0.2.1 ns2.mail1.example.net 9
192.0.11.1 mail11.example.net 9
192.0.1.1 mail1.example.net 0
192.0.2.190 be.example.net 5
192.0.2.190 bean.example.net 0
10.0.0.1 host-10-0-0-1.example.net 1
0.128.7.9 mail128.example.net 0
83.30.186.214 cek214.neoplus.adsl.tpnet.pl 0
193.190.238.226 smtp-out.west-vlaanderen.be 0
"""


@pytest.mark.parametrize(("address", "name", "rule"), [line.split() for line in EXAMPLES.split("\n") if line])
def test_rule_of_each_worked_example(address: str, name: str, rule: str) -> None:
    assert ip_in_name(name, address) == int(rule)


@pytest.mark.parametrize("name", ["c0000207.isp.net", "host-2-7.isp.net", "7.pool.isp.net", "192-0-2-7.dsl.isp.net"])
def test_generated_names_of_the_session_chapter_match(name: str) -> None:
    assert ip_in_name(name, "192.0.2.7")


@pytest.mark.parametrize("name", ["mail.example.org", "mx1.example.org", "", "x"])
def test_ordinary_names_do_not_match(name: str) -> None:
    assert ip_in_name(name, "192.0.2.7") == 0


@pytest.mark.parametrize(
    ("name", "hit"),
    [
        ("host-0211-22ff-fe33-4455.isp.example", True),
        ("021122fffe334455.isp.example", True),
        ("554433efff221120.isp.example", True),
        ("5.5.4.4.3.3.e.f.f.f.2.2.1.1.2.0.isp.example", True),
        ("211-22ff-fe33-4455.isp.example", True),
        ("2001-db8--211-22ff-fe33-4455.isp.example", True),
        ("fe334455.isp.example", False),
        ("mail.isp.example", False),
    ],
)
def test_ipv6_needs_its_lower_half_in_the_name(name: str, hit: bool) -> None:
    assert (ip_in_name(name, "2001:db8::211:22ff:fe33:4455") != 0) is hit


def test_short_ipv6_groups_prove_nothing() -> None:
    assert ip_in_name("1.mail.example", "2001:db8::1") == 0


def test_mapped_address_is_judged_as_ipv4() -> None:
    assert ip_in_name("cb00714d.isp.example", "::ffff:203.0.113.77") == 1
