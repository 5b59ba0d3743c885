"""What follows from a reputation score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from smtpf.filters import siq
from smtpf.filters.siq import Siq
from smtpf.pipeline import FilterNotReady
from smtpf.scanners.siq import TIMED_OUT, Failed, Reputation
from smtpf.settings.runtime import Refused, change
from smtpf.settings.store import Settings
from test.support.talk import Talk, codes


class Servers:
    """In place of the SIQ client: one answer, and what was asked."""

    def __init__(self, answer: Reputation | Failed) -> None:
        self.answer = answer
        self.asked: list[Any] = []

    async def ask(self, servers: Sequence[tuple[str, int]], flags: int, address: str, domain: str) -> Reputation | Failed:
        self.asked.append((list(servers), flags, address, domain))
        return self.answer


def talk(answer: Reputation | Failed, options: dict | None = None) -> tuple[Talk, Servers]:
    made = Talk({siq.SIQ_SERVERS: "127.0.0.1", siq.SIQ_SCORE_REJECT: "10", **(options or {})}, route="route:hill.org FORWARD: 45.76.9.1\n")
    servers = Servers(answer)
    for each in made.filters:
        if isinstance(each, Siq):
            each._client = servers  # type: ignore[assignment]
    return made, servers


def deliver(made: Talk) -> tuple[list[str], str]:
    """The reply to the message, and what the next hop got."""
    hop = made.hop("45.76.9.1")
    client = made.greeted()
    client.say("MAIL FROM:<ada@example.org>")
    client.say("RCPT TO:<bob@hill.org>")
    answer = codes(client.message())
    return answer, hop.contents[0].decode() if hop.contents else ""


def test_low_score_is_refused() -> None:
    made, _ = talk(Reputation(7, ttl=60))
    assert deliver(made)[0] == ["550 #617"]
    assert made.counted(siq.COUNT_REJECT) == 1


def test_middling_score_is_tagged() -> None:
    made, servers = talk(Reputation(42, 1, 2, 3, 90, 60, 'it\'s "so"\x01 so'))
    answer, text = deliver(made)
    assert answer == ["250 #554"]
    assert "Subject: [SPAM] hello\r\n" in text
    assert "SIQ-Report: pass=NO ip=192.0.2.7 dn=example.org hl=0 ml=1 score=42 text='its so so'\r\n" in text
    assert made.logged(615) == ["siq score=42 confidence=90 ttl=60 text='its so so'"]
    assert servers.asked == [([("127.0.0.1", 6262)], 0x40, "192.0.2.7", "example.org")]


def test_answer_comes_from_the_cache_the_second_time_with_all_its_fields() -> None:
    made, servers = talk(Reputation(80, 1, 2, 3, 90, 600, "good"))
    deliver(made)
    _, text = deliver(made)
    assert len(servers.asked) == 1
    assert made.logged(615) == ["siq score=80 confidence=90 ttl=600 text='good'"] * 2
    assert "pass=YES" in text and "Subject: hello" in text
    assert made.counted(siq.QUERY_CACHE) == made.counted(siq.QUERY_MADE) == 1


def test_no_answer_lets_the_message_through() -> None:
    made, _ = talk(Failed(TIMED_OUT))
    answer, text = deliver(made)
    assert answer == ["250 #554"]
    assert "pass=UNKNOWN" in text and "score=-1 text='UNKNOWN'" in text
    assert made.logged(616) == ["SIQ timeout before input from server"]


def test_temporary_score_and_discard() -> None:
    assert deliver(talk(Reputation(-2))[0])[0] == ["451 #552"]
    made, _ = talk(Reputation(20, ttl=60), {siq.SIQ_SCORE_DISCARD: "30"})
    assert deliver(made) == (["250 #554"], "")
    assert made.logged(618) == ["siq-score=20 less than 30, discarding message"]


def test_limit_out_of_range_ends_the_start_and_is_refused_at_run_time() -> None:
    settings = Settings([siq.SIQ_SCORE_TAG], {siq.SIQ_SCORE_DISCARD: "100", siq.SIQ_SCORE_REJECT: "-2"})
    written: list[int] = []

    class Log:
        def write(self, message: Any) -> None:
            written.append(message.number)

    each = Siq(None, None, None, Log())  # type: ignore[arg-type]
    each.configure(settings)
    with pytest.raises(FilterNotReady):
        each.start()
    assert written == [608, 609]
    assert isinstance(change(Settings([siq.SIQ_SCORE_TAG]), "siq-score-tag=100"), Refused)
