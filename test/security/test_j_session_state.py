"""Row J: nothing is left over after a refusal, RSET, a greeting or a message.

Hypothesis draws sessions of commands, refusals of the filters and of the next hop, and compares every reply, the state
and what is delivered with a model of a few lines.
"""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from smtpf.filters import order
from smtpf.pipeline import Code, Filter, Pipeline, Verdict
from smtpf.reply import Reply
from smtpf.smtp.session import Recipient, Session, Transaction
from test.support.talk import Talk, codes

ROUTE = "route:example.com FORWARD: 192.0.2.1\nroute:example.net FORWARD: 192.0.2.2\n"
REFUSALS = {Code.REJECT: Reply(991, "550 5.7.1 no"), Code.TEMPFAIL: Reply(992, "450 4.7.1 later")}
ANSWER = {Code.REJECT: "550 #991", Code.TEMPFAIL: "450 #992"}
WORDS = ("", "reject", "tempfail", "delayed", "delayed-session")
RECIPIENTS = ("a@example.com", "b@example.com", "c@example.net", "refused@example.com", "filtered@example.com", "x@elsewhere.org", "<>")


class Whims(Filter):
    """Refuses what the test wants refused: by the sender's local part, and one recipient always."""

    def mail(self, session: Session, transaction: Transaction) -> Verdict | None:
        return _verdict(transaction.sender.mailbox)

    def rcpt(self, session: Session, transaction: Transaction, recipient: Recipient) -> Verdict | None:
        return _verdict("reject") if recipient.path.mailbox == "filtered" else None

    def data(self, session: Session, transaction: Transaction) -> Verdict | None:
        return _verdict(transaction.sender.mailbox.removeprefix("data-")) if transaction.sender.mailbox.startswith("data-") else None

    def dot(self, session: Session, transaction: Transaction) -> Verdict | None:
        return _verdict(transaction.sender.mailbox.removeprefix("dot-")) if transaction.sender.mailbox.startswith("dot-") else None


def _verdict(word: str) -> Verdict | None:
    if word.startswith("delayed"):
        return Verdict(Code.REJECT, REFUSALS[Code.REJECT], delay=True, whole_session=word.endswith("session"))
    code = {"reject": Code.REJECT, "tempfail": Code.TEMPFAIL}.get(word)
    return None if code is None else Verdict(code, REFUSALS[code])


class SessionMachine(RuleBasedStateMachine):
    """One session; ``state``, ``accepted``, ``delayed`` are the model."""

    @initialize(delay=st.booleans())
    def begin(self, delay: bool) -> None:
        self.talk = Talk({"smtp-delay-checks": "+" if delay else "-", "smtp-helo-schizo": "0"}, route=ROUTE)
        self.talk.engine.pipeline = Pipeline(order.bind(self.talk.filters, [Whims()]))
        script = {"RCPT": lambda line: b"550 5.1.1 no\r\n" if "refused@" in line else b"250 ok\r\n"}
        self.hops = {"example.com": self.talk.hop("192.0.2.1", **script), "example.net": self.talk.hop("192.0.2.2", **script)}
        self.client = self.talk.connect()
        self.delay_checks = delay
        self.state = "CONN"
        self.greeted = ""
        self.sender = ""
        self.accepted: list[str] = []
        self.delayed = ""
        self.delivered = dict.fromkeys(self.hops, 0)
        self.messages = 0

    def say(self, line: str) -> list[str]:
        return codes(self.client.say(line))

    def _end(self) -> None:
        self.accepted = []
        if self.delayed != "session":
            self.delayed = ""

    @rule(verb=st.sampled_from(["EHLO", "HELO"]))
    def greet(self, verb: str) -> None:
        assert self.say(f"{verb} mail.example.org")[-1][:3] == "250"
        self._end()
        self.state = self.greeted = verb

    @rule()
    def rset(self) -> None:
        assert self.say("RSET") == ["250 #547"]
        if self.state != "CONN":
            self._end()
            self.state = self.greeted

    @rule(line=st.sampled_from(["NOOP", "FOO", "RCPT", "MAIL FROM:", "VRFY x", "MAIL FROM:<a b@x.org>"]))
    def nothing_changes(self, line: str) -> None:
        answer = self.say(line)
        if line.startswith("MAIL") and self.state in ("EHLO", "HELO"):
            assert answer in (["501 #249"], ["553 #279"])
            self._end()
        elif line == "NOOP":
            assert answer == ["250 #547"]
        else:
            assert answer[0][0] == "5"

    @rule(where=st.sampled_from(["", "data-", "dot-"]), word=st.sampled_from(WORDS))
    def mail(self, where: str, word: str) -> None:
        if where and word.startswith("delayed"):
            word = "reject"
        mailbox = (where + word) or "joe"
        answer = self.say(f"MAIL FROM:<{mailbox}@example.org>")
        if self.state not in ("EHLO", "HELO"):
            assert answer == ["503 #251"]
            return
        self._end()
        refusal = "" if where else word
        if refusal.startswith("delayed") and self.delay_checks:
            self.delayed = self.delayed or ("session" if refusal.endswith("session") else "transaction")
            refusal = ""
        if refusal:
            assert answer == ["450 #992" if refusal == "tempfail" else "550 #991"]
            self._end()
            return
        assert answer == ["250 #283"]
        self.state, self.sender = "MAIL", mailbox

    @rule(recipient=st.sampled_from(RECIPIENTS))
    def rcpt(self, recipient: str) -> None:
        answer = self.say(f"RCPT TO:<{recipient}>" if recipient != "<>" else "RCPT TO:<>")
        if self.state not in ("MAIL", "RCPT"):
            assert answer == ["503 #251"]
            return
        if recipient == "<>":
            assert answer == ["550 #286"]
        elif recipient.endswith("elsewhere.org"):
            assert answer == ["550 #288"]
        elif recipient.startswith("filtered") or self.delayed:
            assert answer == ["550 #991"]
        elif recipient.startswith("refused"):
            assert answer == ["550 #300"]
        else:
            assert answer == ["250 #297"]
            self.accepted.append(recipient)
            self.state = "RCPT"

    @rule(chunked=st.booleans(), text=st.sampled_from(["S: x\r\n\r\nhi\r\n", "", "QUIT\r\n", "S: x\r\n\r\n..\r\nRSET\r\n"]))
    def message(self, chunked: bool, text: str) -> None:
        chunked = chunked and self.greeted == "EHLO"
        if chunked:
            answer = codes(self.client.send(f"BDAT {len(text)} LAST\r\n{text}".encode()))
        else:
            answer = self.say("DATA")
        if self.state != "RCPT":
            assert answer == ["503 #251"]
            return
        if self.sender.startswith("data-"):
            word = self.sender.removeprefix("data-")
            if word in ("reject", "tempfail"):
                assert answer == ["450 #992" if word == "tempfail" else "550 #991"]
                if chunked:
                    assert self.say("DATA") == ["503 #251"]
                    self.rset()
                return
        if not chunked:
            assert answer == ["354"]
            answer = codes(self.client.send(text.encode() + b".\r\n"))
        self.state = self.greeted
        if self.sender in ("dot-reject", "dot-tempfail"):
            assert answer == ["450 #992" if self.sender.endswith("tempfail") else "550 #991"]
        else:
            assert answer == ["250 #554"]
            for domain in self.delivered:
                self.delivered[domain] += any(each.endswith(domain) for each in self.accepted)
        self.messages += 1
        self._end()

    @precondition(lambda self: self.state == "RCPT" and self.greeted == "EHLO")
    @rule(verb=st.sampled_from(["RSET", "EHLO mail.example.org"]))
    def abandon_chunks(self, verb: str) -> None:
        answer = codes(self.client.send(b"BDAT 12\r\nS: x\r\n\r\nabc\n"))
        if self.sender not in ("data-reject", "data-tempfail"):
            assert answer == ["250 #1152"]
        assert self.say("MAIL FROM:<a@x.org>") == self.say("RCPT TO:<a@x.org>") == ["503 #251"]
        assert self.say(verb)[-1][:3] == "250"
        self.state = self.greeted
        self._end()

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "client"):
            return
        assert not self.client.gone
        (conversation,) = self.talk.engine.conversations.values()
        session = conversation.session
        assert session.state.value == self.state
        assert session.slots.immediate is None
        assert (session.slots.delayed is not None) is bool(self.delayed)
        assert (session.transaction is not None) is (self.state in ("MAIL", "RCPT"))
        if session.transaction is not None:
            assert [each.path.address for each in session.transaction.recipients] == self.accepted
        else:
            assert conversation.forwards == []
            assert conversation.chunking is None
        assert {domain: len(hop.contents) for domain, hop in self.hops.items()} == self.delivered
        assert len(self.talk.logged(720)) == self.messages
        open_hops = sum(len(hop.sessions) - hop.ended for hop in self.hops.values())
        assert open_hops <= (2 if self.state in ("MAIL", "RCPT") else 0)

    def teardown(self) -> None:
        if not hasattr(self, "client"):
            return
        assert self.say("QUIT") == ["221 #247"]
        assert self.client.gone
        assert self.talk.engine.conversations == {}
        assert len(self.talk.logged(721)) == 1
        assert sum(len(hop.sessions) - hop.ended for hop in self.hops.values()) == 0
        assert not [call for call in self.talk.net.getDelayedCalls() if _of_session(call)]


def _of_session(call: Any) -> bool:
    """A timer that should have ended with the session."""
    return "Wire" in repr(call.func)


TestSession = SessionMachine.TestCase
TestSession.settings = settings(max_examples=400, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck))
