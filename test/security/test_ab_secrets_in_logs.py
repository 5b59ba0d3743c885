"""Row AB: credentials appear in no log line, at any verbosity, text or structured, whatever the client does with them."""

from __future__ import annotations

import base64
import json

import pytest

from smtpf.journal.message import Message
from smtpf.journal.verbose import Verbose
from smtpf.settings.catalogue import instances
from test.support.talk import Client, Talk

USER, PASSWORD = "joe@example.org", "s3cr3t-Pa55word"
PLAIN = base64.b64encode(f"\0{USER}\0{PASSWORD}".encode()).decode()
USER_64, PASSWORD_64 = (base64.b64encode(each.encode()).decode() for each in (USER, PASSWORD))
SECRETS = (PASSWORD, PLAIN, PASSWORD_64, PASSWORD_64.rstrip("="), PLAIN.rstrip("="))


def node(**options: str) -> Talk:
    words = sorted({message.word for message in instances(Message)})
    settings = {"smtp-auth-enable": "+", "smtp-auth-tls": "-", **{name.replace("_", "-"): value for name, value in options.items()}}
    talk = Talk(settings, route="route:local FORWARD: 127.0.0.1:26\nroute:example.org FORWARD: 127.0.0.1:26\n")
    talk.journal.verbose.reset(",".join(f"{word}" for word in words))
    talk.hop("127.0.0.1", 26)
    return talk


def check(talk: Talk) -> None:
    assert talk.entries
    for entry in talk.entries:
        text = (entry.text + json.dumps(entry.fields, default=str) + repr(entry.args)).lower()
        for secret in SECRETS:
            assert secret.lower() not in text, entry.text
    for conversation in talk.engine.conversations.values():
        for verdict in conversation.session.decisions:
            assert PASSWORD not in repr(verdict)


DIALOGUES = {
    "plain": [f"AUTH PLAIN {PLAIN}"],
    "plain challenged": ["AUTH PLAIN", PLAIN],
    "login": ["AUTH LOGIN", USER_64, PASSWORD_64],
    "login initial": [f"AUTH LOGIN {USER_64}", PASSWORD_64],
    "unknown mechanism": [f"AUTH CRAM-MD5 {PLAIN}", PASSWORD_64],
    "password as a command": [PASSWORD_64, PASSWORD, PLAIN],
    "after a cancelled dialogue": ["AUTH LOGIN", "*", PASSWORD_64],
    "not base64": [f"AUTH PLAIN {PASSWORD}!", "AUTH LOGIN", PASSWORD, f"{PASSWORD}!"],
    "twice": [f"AUTH PLAIN {PLAIN}", f"AUTH PLAIN {PLAIN}"],
}


@pytest.mark.parametrize("name", DIALOGUES)
@pytest.mark.parametrize("answer", [b"235 ok\r\n", b"535 5.7.8 no\r\n", b"\0close"])
def test_credentials_are_not_logged(name: str, answer: bytes) -> None:
    talk = node()
    talk.hop("127.0.0.1", 26, AUTH=answer)
    client = talk.greeted(name="client.example.edu")
    for line in DIALOGUES[name]:
        client.say(line)
    client.say("QUIT")
    check(talk)


@pytest.mark.parametrize("name", DIALOGUES)
@pytest.mark.parametrize("early", ["before the banner", "with EHLO", "in one packet"])
@pytest.mark.parametrize("delay", ["-", "+"])
def test_credentials_sent_too_early_are_not_logged(name: str, early: str, delay: str) -> None:
    talk = node(rfc2920_pipelining="-", smtp_delay_checks=delay)
    lines = "".join(f"{line}\r\n" for line in DIALOGUES[name]).encode()
    ehlo = b"EHLO client.example.edu\r\n"
    if early == "before the banner":
        client: Client = talk.connect(first=ehlo + lines)
    elif early == "with EHLO":
        client = talk.connect()
        client.send(ehlo + lines)
    else:
        client = talk.greeted(name="client.example.edu")
        client.send(lines)
    client.say("QUIT")
    assert talk.logged(540) or (len(lines.split(b"\n")) == 2 and early == "in one packet") or name == "twice"
    check(talk)


def test_every_verbose_word_is_on() -> None:
    talk = node()
    assert isinstance(talk.journal.verbose, Verbose)
    assert all(talk.journal.enabled(message) for message in instances(Message) if message.at_least <= 1)
