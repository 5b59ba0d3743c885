"""F, L2: a next hop, or somebody on the way to it, is ahead of us with replies. Nothing it says early is believed."""

from __future__ import annotations

import pytest
from twisted.internet import reactor

from smtpf.pipeline import Code
from smtpf.smtp import options
from smtpf.smtp.forward import SMTP_DOT_TIMEOUT, combine
from test.support.scripted_hop import DEFAULTS, ScriptedHop
from test.support.sending import TID, Desk, hop_host, mail_path

ANN = mail_path("ann@example.com")
STEPS = ["GREETING", "EHLO", "MAIL", "RCPT", "DATA"]


async def whole_conversation(desk, port, folder):
    """One message to the hop on ``port``; the verdict, None when no connection came about."""
    transaction = desk.transaction()
    desk.fill(transaction, b"A: b\r\n", b"hello\r\n", folder)
    connection = desk.connection(transaction, [hop_host(port)])
    try:
        opened = await connection.open(ANN)
        if opened is not None:
            return opened
        refused = await connection.rcpt(ANN)
        if refused is not None:
            return refused
        return combine(await desk.forwarder.deliver(desk.session, transaction, [connection]), TID)
    finally:
        connection.close()


@pytest.mark.parametrize("verb", [*STEPS, "CONTENT"])
@pytest.mark.parametrize("extra", [b"250 2.0.0 queued\r\n", b"354 go on\r\n250 2.0.0 queued\r\n", b"250-", b"2", b"\n", b"554 x\r\n"])
def test_replies_in_the_same_segment(reactor_run, tmp_path, verb, extra):
    desk = Desk(reactor, {SMTP_DOT_TIMEOUT: "2", options.SMTP_COMMAND_TIMEOUT: "2"})
    hop = ScriptedHop({verb: DEFAULTS[verb] + extra})
    result = reactor_run(whole_conversation(desk, hop.listen(reactor), tmp_path))
    reactor_run(hop.stop())
    assert getattr(result, "code", None) in (Code.TEMPFAIL, 0)
    if verb != "CONTENT":
        assert hop.contents == []


@pytest.mark.parametrize("verb", STEPS)
def test_all_replies_at_once(reactor_run, tmp_path, verb):
    """The hop answers everything to come at ``verb`` and then never again."""
    rest = b"".join(DEFAULTS[step] for step in [*STEPS, "CONTENT"][STEPS.index(verb) :])
    script = dict.fromkeys([*STEPS, "CONTENT"][STEPS.index(verb) + 1 :])
    desk = Desk(reactor, {SMTP_DOT_TIMEOUT: "1", options.SMTP_COMMAND_TIMEOUT: "1"})
    hop = ScriptedHop({**script, verb: rest})
    result = reactor_run(whole_conversation(desk, hop.listen(reactor), tmp_path))
    reactor_run(hop.stop())
    assert getattr(result, "code", None) in (Code.TEMPFAIL, 0)
    assert hop.contents == []
