"""A real Postfix behind a node, and a real Postfix in front of one."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from pathlib import Path

import pytest

from test.support.node_process import NodeProcess, wait_until
from test.support.postfix import Postfix

BODY = "A line.\r\n.a dot in front\r\n..two\r\n\r\n" + "long " * 100 + "\r\n"


@pytest.fixture
def behind(tmp_path: Path) -> Iterator[Postfix]:
    """The next hop."""
    postfix = Postfix(tmp_path / "behind", "example.com").start()
    yield postfix
    postfix.stop()


@pytest.fixture
def node(tmp_path: Path, behind: Postfix) -> Iterator[NodeProcess]:
    route = f"route:127.0.0.1 FORWARD: 127.0.0.1:{behind.port}\nroute:example.com FORWARD: 127.0.0.1:{behind.port}\n"
    made = NodeProcess(tmp_path / "node", route=route).start()
    yield made
    made.stop()


def test_postfix_behind_the_node_gets_the_message_as_it_was_sent(node: NodeProcess, behind: Postfix) -> None:
    with smtplib.SMTP("127.0.0.1", node.port, local_hostname="client.example.org") as client:
        client.sendmail("joe@example.org", ["ann@example.com"], f"Subject: hello\r\nMessage-ID: <m1@example.org>\r\n\r\n{BODY}")
    wait_until(lambda: len(behind.delivered()) == 1)
    message = behind.delivered()[0]
    assert str(message.get_payload()).replace("\n", "\r\n") == BODY
    assert any("envelope-from <joe@example.org>" in field for field in message.get_all("Received", []))
    assert message["X-smtpf-Report"].startswith("sid=")
    assert "accepted #554" in node.logged("#720")[0]


def test_the_refusal_of_postfix_is_the_clients_answer(tmp_path: Path) -> None:
    behind = Postfix(
        tmp_path / "behind",
        "example.com",
        more="smtpd_recipient_restrictions = check_recipient_access inline:{nobody@example.com=REJECT}, permit\n",
    )
    behind.start()
    node = NodeProcess(tmp_path / "node", route=f"route:example.com FORWARD: 127.0.0.1:{behind.port}\n", options="+relay-reply").start()
    try:
        with smtplib.SMTP("127.0.0.1", node.port) as client:
            client.ehlo("client.example.org")
            client.mail("joe@example.org")
            code, text = client.rcpt("nobody@example.com")
            assert code == 554
            assert b"#299" in text
            assert client.rcpt("ann@example.com")[0] == 250
    finally:
        node.stop()
        behind.stop()


def test_postfix_in_front_of_the_node_delivers_and_retries(tmp_path: Path, node: NodeProcess, behind: Postfix) -> None:
    front = Postfix(tmp_path / "front", "example.net", relay_port=node.port).start()
    try:
        front.send("joe@example.net", "ann@example.com", f"Subject: from the front\n\n{BODY}".replace("\r\n", "\n"))
        wait_until(lambda: len(behind.delivered()) == 1)
        assert "accepted #554" in front.maillog()
        assert behind.delivered()[0]["Subject"] == "from the front"
    finally:
        front.stop()


def test_mail_waits_at_postfix_while_the_next_hop_is_down(tmp_path: Path, node: NodeProcess, behind: Postfix) -> None:
    front = Postfix(tmp_path / "front", "example.net", relay_port=node.port).start()
    try:
        behind.stop()
        front.send("joe@example.net", "ann@example.com", "Subject: patience\n\nA line.\n")
        wait_until(lambda: "#295" in front.maillog())
        behind.start()
        wait_until(lambda: len(behind.delivered()) == 1)
    finally:
        front.stop()


def test_postfix_behind_the_node_gets_several_messages_over_one_connection(node: NodeProcess, behind: Postfix) -> None:
    for number in range(3):
        with smtplib.SMTP("127.0.0.1", node.port, local_hostname="client.example.org") as client:
            client.sendmail("joe@example.org", ["ann@example.com"], f"Subject: {number}\r\n\r\n{BODY}")
    wait_until(lambda: len(behind.delivered()) == 3)
    assert sorted(message["Subject"] for message in behind.delivered()) == ["0", "1", "2"]
    wait_until(lambda: "disconnect from" in behind.maillog())
    ends = [line for line in behind.maillog().splitlines() if "disconnect from" in line]
    assert len(ends) == 1
    assert "mail=3" in ends[0]
    assert "rset=2" in ends[0]
