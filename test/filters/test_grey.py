"""Grey-listing in whole sessions, and its key by the published examples."""

from __future__ import annotations

import pytest

from smtpf.dns.domains import Domains
from smtpf.filters.grey import GREY_CONTINUE, GREY_KEY, GREY_REJECT, GREY_REPORT_HEADER, GREY_TEMP_FAIL_PERIOD, GREY_TEMPFAIL, Grey
from smtpf.filters.grey_key import chosen, host_elements, make_key
from smtpf.smtp.session import ClientFlag, Session, SpfResult, Transaction
from test.support.sending import mail_path
from test.support.talk import Talk, codes

ROUTE = "route:hill.org\tFORWARD: 192.0.2.1\n"
ZONE = """
142.69.2.81.in-addr.arpa PTR out3.pool1.kestrel.net
out3.pool1.kestrel.net A 81.2.69.142
143.69.2.81.in-addr.arpa PTR out4.pool1.kestrel.net
out4.pool1.kestrel.net A 81.2.69.143
"""
DOMAINS = Domains()


def session_of(address: str, name: str = "", flags: tuple[ClientFlag, ...] = (), helo: str = "") -> Session:
    made = Session("SID", address, None, None, None, 0.0)  # type: ignore[arg-type]
    made.name, made.helo = name, helo
    made.flags.update(flags)
    return made


def transaction_of(sender: str = "fred@example.com", spf: SpfResult = SpfResult.NONE) -> Transaction:
    made = Transaction("TID", mail_path(sender))
    made.spf_mail = spf
    return made


@pytest.mark.parametrize(
    ("name", "ptr", "ptrn"),
    [
        ("out3.pool1.example.com", "pool1.example.com", "out#.pool#.example.com"),
        ("mail.example.com", "example.com", "mail.example.com"),
        ("example.com", "example.com", "example.com"),
        ("pcspecialist.co.uk", "pcspecialist.co.uk", "pcspecialist.co.uk"),
        ("mx12.pcspecialist.co.uk", "pcspecialist.co.uk", "mx#.pcspecialist.co.uk"),
        ("mx1.3com.com", "3com.com", "mx#.3com.com"),
    ],
)
def test_name_elements(name, ptr, ptrn):
    session = session_of("192.0.2.9", name)
    assert make_key(("ptr",), DOMAINS, session, None, None).full == f"grey:{ptr}"
    assert make_key(("ptrn",), DOMAINS, session, None, None).full == f"grey:{ptrn}"


@pytest.mark.parametrize(
    ("address", "name", "flags", "spf"),
    [
        ("203.0.113.77", "pool113-77.isp.example.net", (ClientFlag.IP_IN_PTR,), SpfResult.NONE),
        ("192.0.2.9", "", (ClientFlag.NO_PTR,), SpfResult.NONE),
        ("192.0.2.9", "mail.example.com", (ClientFlag.FORGED,), SpfResult.PASS),
        ("192.0.2.9", "mail.example.com", (ClientFlag.PTR_MULTIDOMAIN,), SpfResult.NONE),
        ("192.0.2.9", "mx.example.com", (ClientFlag.NO_PTR,), SpfResult.NONE),
        ("192.0.2.9", "mail.example.com", (), SpfResult.SOFTFAIL),
        ("192.0.2.9", "mail.example.com", (), SpfResult.FAIL),
    ],
)
def test_address_stands_for_a_name_that_proves_nothing(address, name, flags, spf):
    assert make_key(("ptr",), DOMAINS, session_of(address, name, flags), transaction_of(spf=spf), None).full == f"grey:{address}"


def test_name_taken_from_helo_counts_when_it_leads_back_to_the_client():
    session = session_of("192.0.2.9", "mx.example.com", (ClientFlag.NO_PTR, ClientFlag.HELO_HOST))
    assert make_key(("ptrn",), DOMAINS, session, None, None).full == "grey:mx.example.com"


@pytest.mark.parametrize(
    ("words", "client", "sender", "key", "host"),
    [
        ("ptr,mail,rcpt", "out3.pool1.example.com", "fred@example.com",
         "grey:pool1.example.com,fred@example.com,john@receiver.example", "grey:pool1.example.com"),
        ("ptr,mail,rcpt", "", "", "grey:192.0.2.9,@,john@receiver.example", "grey:192.0.2.9"),
        ("mail,ip", "", "fred@example.com", "grey:192.0.2.9,fred@example.com", "grey:192.0.2.9"),
        ("ip,ptr,mail", "mail.example.com", "fred@example.com", "grey:192.0.2.9,example.com,fred@example.com", "grey:192.0.2.9"),
        ("helos,ptr,mail", "mail.example.com", "f@x.org", "grey:example.com,pool.example.net,f@x.org", "grey:example.com,pool.example.net"),
        ("ptr", "mail.example.com", "f@x.org", "grey:example.com", ""),
        ("mail,rcpt", "mail.example.com", "Fred+list@X.org", "grey:fred@x.org,john@receiver.example", ""),
        ("helo,mail", "", "f@x.org", "grey:out1.pool.example.net,f@x.org", ""),
        ("p0f,mail", "", "f@x.org", "grey:(unknown),f@x.org", ""),
    ],
)  # fmt: skip
def test_whole_keys(words, client, sender, key, host):
    session = session_of("192.0.2.9", client, (ClientFlag.NO_PTR,) if not client else (), helo="out1.pool.example.net")
    made = make_key(chosen(tuple(words.split(","))), DOMAINS, session, transaction_of(sender), mail_path("John+x@receiver.example"))
    assert (made.full, made.host, made.truncated) == (key, host, False)


def test_words_are_put_in_order_and_taken_out_by_sign():
    assert chosen(("rcpt", "+MAIL", "ptr", "-rcpt", "!ptr", "nonsense", "ip")) == ("ip", "mail")
    assert host_elements(("mail", "rcpt")) == 0


def test_ipv6_clients_are_known_by_their_network():
    assert make_key(("ip",), DOMAINS, session_of("2001:db8:1:2:3:4:5:6"), None, None).full == "grey:2001:db8:1:2::/64"


def test_long_keys_stay_different():
    long = "a" * 400
    keys = [make_key(("mail",), DOMAINS, session_of("192.0.2.9"), transaction_of(f"{long}{end}@x.org"), None) for end in "bc"]
    assert all(key.truncated and len(key.full) == 383 for key in keys)
    assert keys[0].full[:351] == keys[1].full[:351]
    assert keys[0].full != keys[1].full


class Here:
    """A node that grey-lists, and its clients."""

    def __init__(self, options=None, access=""):
        self.talk = Talk({GREY_KEY: "ptr,mail,rcpt", **(options or {})}, access=access, route=ROUTE, zone=ZONE)
        self.hop = self.talk.hop("192.0.2.1")

    def attempt(self, address="81.2.69.142", sender="fred@example.com", *recipients):
        client = self.talk.greeted(address)
        client.say(f"MAIL FROM:<{sender}>")
        for recipient in recipients or ("john@hill.org",):
            client.say(f"RCPT TO:<{recipient}>")
        self.client = client
        return codes(client.message())

    def wait(self, seconds):
        self.talk.net.pass_time(seconds)

    def record(self, key):
        found = self.talk.cache.get(key)
        return found.value if found is not None else None


def test_time_line_of_the_manual():
    here = Here()
    full = "grey:pool1.kestrel.net,fred@example.com,john@hill.org"
    assert here.attempt() == ["451 #552"]
    assert here.client.gone
    assert here.talk.logged(387) == [f"grey listed {{{full}}} for 600 seconds"]
    assert here.record(full) == "4"
    assert here.hop.contents == []
    here.wait(300)
    assert here.attempt("81.2.69.143") == ["451 #552"]
    assert "300 seconds" in here.talk.logged(387)[1] or "299 seconds" in here.talk.logged(387)[1]
    here.wait(350)
    assert here.attempt("81.2.69.143") == ["250 #554"]
    assert here.record("grey:pool1.kestrel.net") == "0"
    assert b"X-Grey-Report: age=65" in here.hop.contents[0]
    assert f"key={full} at=".encode() in here.hop.contents[0].replace(b"\r\n ", b" ")
    here.wait(50)
    assert here.attempt("81.2.69.142", "anyone@else.org", "john@hill.org") == ["250 #554"]
    assert b"X-Grey-Report" not in here.hop.contents[1]
    assert (here.talk.counted(GREY_TEMPFAIL), here.talk.counted(GREY_CONTINUE)) == (2, 2)


def test_another_sender_of_the_host_starts_anew_until_the_host_is_known():
    here = Here()
    here.attempt()
    here.wait(650)
    assert here.attempt("81.2.69.142", "other@example.com") == ["451 #552"]


def test_one_passing_recipient_passes_the_message():
    here = Here({GREY_KEY: "mail,rcpt"})
    assert here.attempt("81.2.69.142", "fred@example.com", "john@hill.org") == ["451 #552"]
    assert not here.client.gone
    here.wait(601)
    assert here.attempt("81.2.69.142", "fred@example.com", "ann@hill.org", "john@hill.org") == ["250 #554"]
    assert here.record("grey:fred@example.com,ann@hill.org") == "4"


@pytest.mark.parametrize(
    ("option", "access", "period"),
    [
        ("600", "", 600),
        ("600", "grey-connect:81.2.69\t1200\n", 1200),
        ("600", "grey-connect:81.2.69\t1200\ngrey-to:a@hill.org\t300\n", 300),
        ("600", "grey-to:a@hill.org\t900\n", 600),
        ("600", "grey-connect:81.2.69\t60\ngrey-to:a@hill.org\t0\n", 0),
        ("600", "grey-connect:81.2.69\tSKIP\n", 600),
        ("0", "", 0),
    ],
)
def test_period(option, access, period):
    here = Here({GREY_TEMP_FAIL_PERIOD: option}, access)
    answer = here.attempt("81.2.69.142", "fred@example.com", "a@hill.org", "b@hill.org")
    if period:
        assert answer == ["451 #552"]
        assert here.talk.logged(387)[0].endswith(f" for {period} seconds")
    else:
        assert answer == ["250 #554"]


@pytest.mark.parametrize("entry", ["connect:81.2.69.142\tOK\n", "connect:81.2.69.142\tCONTENT\n", "from:fred@example.com\tOK\n"])
def test_known_clients_and_senders_are_not_delayed(entry):
    assert Here(access=entry).attempt() == ["250 #554"]


def test_relays_are_not_delayed():
    here = Here()
    assert here.attempt("127.0.0.1") == ["250 #554"]


def test_strange_record_lets_the_message_pass():
    here = Here()
    here.talk.cache.put("grey:pool1.kestrel.net", "5")
    assert here.attempt() == ["250 #554"]
    assert here.talk.logged(937) == ["WARNING grey list {grey:pool1.kestrel.net} rc=5 unexpected, check cache"]
    assert here.talk.counted(GREY_REJECT) == 1


def test_header_can_be_switched_off():
    here = Here({GREY_REPORT_HEADER: ""})
    here.attempt()
    here.wait(601)
    here.attempt()
    assert b"X-Grey-Report" not in here.hop.contents[0]


def test_long_addresses_are_logged_and_still_delayed():
    here = Here({GREY_KEY: "helo,ptr,mail,rcpt"})
    assert here.attempt("81.2.69.142", f"{'a' * 200}@{'b' * 60}.{'c' * 60}.example.com", f"{'d' * 60}@hill.org") == ["451 #552"]
    assert len(here.talk.logged(383)) == 1


def test_nobody_is_delayed_while_the_cache_cannot_be_written():
    here = Here()
    here.talk.cache._write_failed = True
    here.talk.cache.stop()
    assert here.attempt() == ["250 #554"]


def test_client_that_has_passed_is_known_when_it_connects(reactor_run):
    here = Here()
    grey = next(each for each in here.talk.filters if isinstance(each, Grey))
    session = session_of("81.2.69.142", "out3.pool1.kestrel.net")
    assert reactor_run(grey.has_passed(session)) is False
    here.attempt()
    here.wait(601)
    here.attempt()
    assert reactor_run(grey.has_passed(session)) is True
    assert reactor_run(grey.has_passed(session_of("81.2.70.1", "x.other.net"))) is False
