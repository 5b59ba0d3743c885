"""Rows E and L1: nothing said in the clear behind STARTTLS is ever carried out, inside TLS or before it.

On real sockets: the same segment, the next segment before the handshake, half a line. Afterwards EHLO, AUTH and the
envelope are forgotten.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from test.support.live import LiveClient, LiveNode

INJECTED = b"MAIL FROM:<evil@example.org>\r\n"


@pytest.mark.parametrize(
    "behind", [INJECTED, b"N", b"\r\n", b"\0", b"EHLO x.example.org\r\nMAIL FROM:<evil@example.org>\r\n", b"\x16\x03\x01"]
)
def test_octets_in_the_same_segment(reactor_run: Callable[..., Any], tmp_path: Path, behind: bytes) -> None:
    async def work() -> None:
        node = LiveNode(tmp_path)
        try:
            client = await LiveClient.connect(node)
            await client.say(b"EHLO mail.example.org")
            client.write(b"STARTTLS\r\n" + behind)
            (answer,) = await client.reply()
            assert answer.startswith("550 5.3.3 pipelining not allowed #643 ")
            await client.ended()
            assert client.heard == b""
            assert len(node.logged(540)) == 1
            assert node.logged(1023) == node.logged(717) == []
        finally:
            await node.stop()

    reactor_run(work())


@pytest.mark.parametrize("behind", [INJECTED, b"N", b"QUIT\r\n"])
def test_octets_in_the_next_segment_before_the_handshake(reactor_run: Callable[..., Any], tmp_path: Path, behind: bytes) -> None:
    async def work() -> None:
        node = LiveNode(tmp_path)
        try:
            client = await LiveClient.connect(node)
            await client.say(b"EHLO mail.example.org")
            assert (await client.say(b"STARTTLS"))[-1].startswith("220")
            client.write(behind + b"x" * 20)
            await client.ended()
            assert b"250 " not in client.heard
            assert len(node.logged(1021)) == 1
            assert node.logged(717) == []
            assert "io_error" in node.logged(721)[0]
        finally:
            await node.stop()

    reactor_run(work())


def test_the_handshake_has_a_timeout(reactor_run: Callable[..., Any], tmp_path: Path) -> None:
    async def work() -> None:
        node = LiveNode(tmp_path, {"smtp-connect-timeout": "1"})
        try:
            client = await LiveClient.connect(node)
            await client.say(b"EHLO mail.example.org")
            await client.say(b"STARTTLS")
            await client.ended()
            assert len(node.logged(1021)) == 1
        finally:
            await node.stop()

    reactor_run(work())


def test_tls_begins_a_session_that_has_forgotten_everything(reactor_run: Callable[..., Any], tmp_path: Path) -> None:
    async def work() -> None:
        node = LiveNode(tmp_path, {"smtp-auth-enable": "+", "smtp-auth-tls": "-"})
        try:
            client = await LiveClient.connect(node)
            lines = await client.say(b"EHLO first.example.org")
            assert "250-STARTTLS" in lines
            assert (await client.say(b"AUTH PLAIN AGpvZQBzZWNyZXQ="))[-1].startswith("235")
            await client.starttls()
            for line, code in ((b"MAIL FROM:<joe@example.org>", "503"), (b"STARTTLS", "503"), (b"AUTH PLAIN AGpvZQBzZWNyZXQ=", "503")):
                assert (await client.say(line))[-1].startswith(code)
            lines = await client.say(b"EHLO other.example.org")
            assert lines[-1] == "250 HELP"
            assert "250-STARTTLS" not in lines
            (conversation,) = node.engine.conversations.values()
            assert not conversation.session.auth
            assert not conversation.session.relay
            assert conversation.queue is None
            assert (await client.say(b"STARTTLS"))[-1].startswith("503")
            for line in (b"MAIL FROM:<joe@example.org>", b"RCPT TO:<ann@example.com>", b"DATA"):
                assert (await client.say(line))[-1][:1] in "23"
            assert (await client.say(b"S: x\r\n\r\nhi\r\n."))[-1].startswith("250")
            assert b" with ESMTPS (TLSv1.3 cipher=" in node.next_hop.contents[0].replace(b"\r\n\t", b" ")
        finally:
            await node.stop()

    reactor_run(work())


def test_starttls_between_envelope_commands_is_out_of_sequence(reactor_run: Callable[..., Any], tmp_path: Path) -> None:
    async def work() -> None:
        node = LiveNode(tmp_path)
        try:
            client = await LiveClient.connect(node)
            await client.say(b"EHLO mail.example.org")
            await client.say(b"MAIL FROM:<joe@example.org>")
            client.write(b"STARTTLS\r\nNOOP\r\n")
            assert (await client.reply())[-1].startswith("503")
            assert (await client.reply())[-1].startswith("250")
        finally:
            await node.stop()

    reactor_run(work())


def test_commands_pipelined_inside_tls_with_the_end_of_the_handshake_are_heard(reactor_run: Callable[..., Any], tmp_path: Path) -> None:
    async def work() -> None:
        node = LiveNode(tmp_path)
        try:
            client = await LiveClient.connect(node)
            await client.say(b"EHLO mail.example.org")
            await client.starttls()
            assert (await client.say(b"EHLO mail.example.org"))[-1] == "250 HELP"
        finally:
            await node.stop()

    reactor_run(work())
