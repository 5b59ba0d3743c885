"""EMEW: marks by the published vectors, and whole sessions."""

from __future__ import annotations

import hashlib

import pytest

from smtpf.filters.emew import EMEW_DSN_POLICY, EMEW_FAIL, EMEW_PASS, EMEW_SECRET, EMEW_TTL, EMEW_TTL_OVER
from smtpf.filters.emew_id import Result, marked, moment_of, plain_id, secrets_of, stamp, validate
from test.support.talk import BEGINNING, Talk, codes

MADE = 1_700_000_000
"""2023-11-14 22:13:20 UTC."""
IDENTITY = "orig123@host.example"
SENDER = "bob@example.org"
V1 = "EMEW-zADMDKbd6634c64f18afbf2a605bd8e7d3d4dd-orig123@host.example"
V2 = "EMEW,zADMDKff83d1f71844799789c3b1a43ada422c,bob%example.org,orig123@host.example"
V3 = "EMEW3|ba0ff6451f1e0bd8420de6cf5c16aeaczADMDK03bob|example.org|orig123@host.example"
V3_LATER = "EMEW3|bf6f288b964eb9f3209c753433c05bc72AL8mI03bob|example.org|orig123@host.example"
V4 = marked(IDENTITY, SENDER, "topsecret", MADE)
ALL = frozenset("1234")


def test_time_stamp():
    assert stamp(MADE) == "zADMDK"
    assert moment_of("zADMDK", MADE + 60) == MADE
    assert moment_of("zADMDK", 1_790_000_000) == MADE
    assert moment_of("zCDMDK", MADE) is None
    assert moment_of(stamp(1_790_000_000), 1_790_000_000) == 1_790_000_000


def test_mark_names_sender_and_id():
    assert V4[:6] == "EMEW4|"
    assert V4[38:] == "zADMDK03bob|example.org|orig123@host.example"
    assert V4[6:38] not in (V3[6:38], hashlib.md5(b"").hexdigest())


@pytest.mark.parametrize("sender", ["", "postmaster", "b b@x.org", "bob@x|y.org", "a" * 256 + "@x.org"])
def test_senders_that_cannot_be_marked(sender):
    assert marked(IDENTITY, sender, "topsecret", MADE) == ""


def test_line_that_would_be_too_long_is_not_made():
    assert marked("x" * 950, SENDER, "topsecret", MADE) == ""


def of(reactor_run, value, *, secret="topsecret", accepted=ALL, ttl=604800, now=MADE + 60):
    async def secrets_for(sender):
        assert sender in ("", SENDER, "bob|b@example.org", "ob@example.org")
        return secrets_of(secret)

    return reactor_run(validate(value, accepted, secrets_for, ttl, now))


@pytest.mark.parametrize("value", [V1, V2, V3, V3_LATER, V4, f"<{V4}>", f" <{V4}> (was)"])
def test_good_marks(reactor_run, value):
    assert of(reactor_run, value, ttl=0) is Result.PASS


@pytest.mark.parametrize(
    ("value", "result"),
    [
        (V4.replace("orig123", "orig124"), Result.FAIL),
        (V4.replace("bob|example", "ob|example").replace("03ob", "02ob"), Result.FAIL),
        (V4[:6] + "0" * 32 + V4[38:], Result.FAIL),
        (V4.replace("zADMDK03", "zADMDKff"), Result.FAIL),
        (V4.replace("zADMDK03", "zADMDK04"), Result.FAIL),
        ("EMEW4|", Result.FAIL),
        ("EMEW4|short", Result.FAIL),
        ("EMEW3|" + "f" * 32 + "zADMDK03bob", Result.FAIL),
        ("EMEW,zADMDK", Result.FAIL),
        ("EMEW5|whatever", Result.NONE),
        ("m1@x.org", Result.NONE),
        ("", Result.NONE),
    ],
)
def test_bad_marks(reactor_run, value, result):
    assert of(reactor_run, value) is result


@pytest.mark.parametrize("value", [V1, V2, V3, V4])
def test_age_counts_only_for_real_marks(reactor_run, value):
    assert of(reactor_run, value, now=MADE + 604801) is Result.EXPIRED
    assert of(reactor_run, value, secret="other", now=MADE + 604801) is Result.FAIL


@pytest.mark.parametrize("value", [V1, V2, V3])
def test_versions_that_are_not_accepted_say_nothing(reactor_run, value):
    assert of(reactor_run, value, accepted=frozenset("4")) is Result.NONE


def test_earlier_secrets_still_verify(reactor_run):
    assert of(reactor_run, V4, secret="newer;topsecret") is Result.PASS
    assert secrets_of("a;b") == ("a", "b", "a;b")
    assert secrets_of("seven seas") == ("seven seas",)
    assert secrets_of("") == ()


def test_local_part_with_a_bar(reactor_run):
    assert of(reactor_run, marked(IDENTITY, "bob|b@example.org", "topsecret", MADE)) is Result.PASS


def test_plain_id():
    assert plain_id("<a@b> (comment)") == "a@b"
    assert plain_id("a@b\tx") == "a@b"


ROUTE = "route:hill.org\tFORWARD: 192.0.2.1\nroute:10.20\tRELAY\nroute:127.0.0.1\tFORWARD: 192.0.2.9\n"


class Here:
    def __init__(self, options=None, access=""):
        self.talk = Talk({EMEW_SECRET: "seven seas", EMEW_DSN_POLICY: "reject", **(options or {})}, access=access, route=ROUTE)
        self.inside = self.talk.hop("192.0.2.1")
        self.queue = self.talk.hop("192.0.2.9")

    def send(self, address, sender, recipients, head="", body="text"):
        client = self.talk.greeted(address)
        client.say(f"MAIL FROM:<{sender}>")
        for recipient in recipients.split():
            client.say(f"RCPT TO:<{recipient}>")
        answer = codes(client.message(f"Subject: x\r\n{head}\r\n{body}\r\n"))
        client.say("QUIT")
        return answer

    def out(self, head="Message-ID: <first.1@hill.org>\r\n", sender="bob@hill.org"):
        """Send a message out; the header it left with."""
        assert self.send("10.20.30.40", sender, "ada@kestrel.net", head) == ["250 #554"]
        return self.queue.contents[-1].decode()

    def mark(self):
        return self.out().partition("Message-ID: <")[2].partition(">")[0]

    def bounce(self, quoted, recipients="bob@hill.org"):
        return self.send("81.2.69.10", "", recipients, body=f"It failed.\r\n\r\n{quoted}\r\n")


def test_outgoing_message_is_marked():
    here = Here()
    text = here.out()
    mark = text.partition("Message-ID: <")[2].partition(">")[0]
    assert mark.startswith("EMEW4|")
    assert mark.endswith("03bob|hill.org|first.1@hill.org")
    assert stamp(BEGINNING)[:4] == mark[38:42]
    assert text.count("Message-ID:") == 1
    assert "\r\nReferences: <first.1@hill.org>\r\n" in text
    assert here.talk.logged(720)[0].startswith(f"message <{mark}>")


def test_references_grow_by_a_folded_line():
    text = Here().out("References: <a@b>\r\n <c@d>\r\nMessage-ID: <m@hill.org>\r\n")
    assert "References: <a@b>\r\n <c@d>\r\n <m@hill.org>\r\n" in text


@pytest.mark.parametrize("head", ["", "Message-ID: <EMEW3|x@hill.org>\r\n"])
def test_nothing_to_mark(head):
    text = Here().out(head)
    assert "EMEW4" not in text
    assert "References" not in text


@pytest.mark.parametrize(
    ("secret", "access", "sender", "logged"),
    [
        ("", "", "bob@hill.org", 0),
        ("", "emew:hill.org\tother\n", "bob@hill.org", -1),
        ("", "emew:kestrel.net\tother\n", "bob@hill.org", 1),
        ("seven seas", "", "", 0),
        ("seven seas", "emew:bob@hill.org\t\"\"\n", "bob@hill.org", -1),
    ],
)  # fmt: skip
def test_secret_of_the_sender(secret, access, sender, logged):
    here = Here({EMEW_SECRET: secret}, access)
    text = here.out(sender=sender)
    assert ("EMEW4|" in text) is (logged < 0)
    assert ("References" in text) is (logged < 0)
    assert len(here.talk.logged(346)) == max(logged, 0)


def test_incoming_message_is_not_marked():
    here = Here()
    here.send("81.2.69.10", "ada@kestrel.net", "bob@hill.org", "Message-ID: <m@kestrel.net>\r\n")
    assert b"EMEW" not in here.inside.contents[0]


@pytest.mark.parametrize(
    ("head", "passes"),
    [
        ("References: <x@y> <{}>\r\n", 1),
        ("References: <{}> <x@y>\r\n", 0),
        ("In-Reply-To: <x@y> <{}>\r\n", 1),
        ("References: <x@y>\r\nIn-Reply-To: <{}>\r\n", 0),
        ("Subject: none\r\n", 0),
    ],
)
def test_answers(head, passes):
    here = Here()
    assert here.send("81.2.69.10", "ada@kestrel.net", "bob@hill.org", head.format(here.mark())) == ["250 #554"]
    assert here.talk.counted(EMEW_PASS) == passes
    assert ('f="emew_pass"' in here.talk.logged(720)[-1]) is bool(passes)


@pytest.mark.parametrize("quoted", ["Message-ID: <{}>", "message-id:<{}>", "Message-ID:\r\n <{}>", "Message-Id: <x@y>\r\nMessage-ID: <{}>"])
def test_bounce_of_our_mail(quoted):
    here = Here()
    assert here.bounce(quoted.format(here.mark())) == ["250 #554"]
    assert here.talk.counted(EMEW_PASS) == 1


@pytest.mark.parametrize("quoted", ["Message-ID: <x@y>", "nothing", "> Message-ID: <{}>", "Message-ID: <{}x>"])
@pytest.mark.parametrize(("policy", "answer"), [("reject", "550 #358"), ("none", "250 #554")])
def test_bounce_of_other_mail(quoted, policy, answer):
    here = Here({EMEW_DSN_POLICY: policy})
    assert here.bounce(quoted.format(here.mark())) == [answer]
    assert here.talk.counted(EMEW_FAIL) == (1 if policy == "reject" else 0)


@pytest.mark.parametrize(("policy", "answer"), [("reject", "550 #357"), ("none", "250 #554")])
def test_bounce_of_old_mail(policy, answer):
    here = Here({EMEW_TTL: "100", EMEW_DSN_POLICY: policy})
    quoted = f"Message-ID: <{here.mark()}>"
    here.talk.net.pass_time(102)
    assert here.bounce(quoted) == [answer]
    assert here.talk.counted(EMEW_TTL_OVER) == 1


def test_mark_far_down_in_a_bounce_is_found():
    here = Here()
    mark = here.mark()
    assert here.bounce("A line of text.\r\n" * 9000 + f"Message-ID: <{mark}>") == ["250 #554"]
    assert here.bounce("A line of text.\r\n" * 18000 + f"Message-ID: <{mark}>") == ["550 #358"]


def test_bounces_to_postmaster_pass():
    here = Here()
    assert here.bounce("nothing", "postmaster@hill.org") == ["250 #554"]


@pytest.mark.parametrize("access", ["connect:81.2.69.10\tOK\n", "to:bob@hill.org\tOK\n"])
def test_bounce_of_a_white_listed_client_passes(access):
    assert Here(access=access).bounce("nothing") in (["250 #554"], ["550 #358"])


def test_site_without_secret_is_not_concerned():
    here = Here({EMEW_SECRET: ""})
    assert here.bounce("nothing") == ["250 #554"]


def test_recipient_with_an_entry_is_concerned():
    here = Here({EMEW_SECRET: ""}, "emew:bob@hill.org\town\n")
    assert here.bounce("nothing") == ["550 #358"]
    assert here.bounce("nothing", "ann@hill.org") == ["250 #554"]
