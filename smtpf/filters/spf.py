"""SPF: may this client use this HELO name and this sender domain?

The identities are checked at MAIL, so that the lists can rely on the result; a refusal follows at RCPT, where a recipient
can be white-listed in spite of it. The results are written into the message's header. ``smtpf.dns.spf`` evaluates; what
is made of the results stands here. Source: RFC 7208; spec chapter filters-envelope, 10.
"""

from __future__ import annotations

import re

import attrs
from twisted.internet.defer import ensureDeferred

from smtpf.dns.spf import Spf, SpfOutcome
from smtpf.pipeline import SKIP_REMAINDER, Code, Filter, MaybeVerdict, Stage, Verdict, reject
from smtpf.reply import Reply
from smtpf.settings.option import Flag, Text, Words
from smtpf.smtp.session import ClientFlag, MsgFlag, Recipient, Session, SpfResult, Transaction
from smtpf.stats.counter import Counter, Group

POLICY_WORDS = ("softfail-reject", "softfail-tag", "fail-reject", "fail-tag")
SPF_MAIL_POLICY = Words(
    "spf-mail-policy",
    "fail-reject",
    "What follows when the sender's domain says that the client may not use it. Tagging wins over refusing. Empty: no check.",
    choices="|".join(POLICY_WORDS),
    words=POLICY_WORDS,
    area="spf",
)
SPF_HELO_POLICY = Words(
    "spf-helo-policy",
    "",
    "The same for the domain of the HELO name.",
    choices="|".join(POLICY_WORDS),
    words=POLICY_WORDS,
    area="spf",
)
SPF_BEST_GUESS_TXT = Text(
    "spf-best-guess-txt",
    "",
    "An SPF record that is tried when the domain's own does not pass the client, such as v=spf1 a/24 mx/24 ptr.",
    choices='SPF record; "" = none',
    area="spf",
)
SPF_RECEIVED_SPF_HEADERS = Flag(
    "spf-received-spf-headers", True, "Add a Received-SPF header field for the HELO name and one for the sender.", area="spf"
)
SPF_TEMP_ERROR_DNS = Flag(
    "spf-temp-error-dns",
    True,
    "A DNS failure within a record ends the check with TempError. When off, the part of the record that fails is skipped.",
    area="spf",
)

HELO_REFUSED = Reply(
    701,
    "%s HELO %s from %s [%s] SPF result %s; %s",
    meaning="spf-helo-policy: the domain of the HELO name does not allow this client to use it.",
)
SENDER_REFUSED = Reply(
    702,
    "%s sender <%s> via %s (%s [%s]) SPF result %s; %s",
    meaning="spf-mail-policy: the sender's domain does not allow this client to send its mail.",
)
_STATUS = "550 5.7.1"

SPF_PASS = Counter("spf-pass", Group.MAIL, "Identities that passed SPF, counted for each recipient.")
SPF_FAIL = Counter("spf-fail", Group.MAIL, "Identities that failed SPF, counted for each recipient.")
SPF_SOFTFAIL = Counter("spf-softfail", Group.MAIL, "Identities with an SPF SoftFail, counted for each recipient.")

MAX_REMEMBERED = 50
"""Results kept in one session."""
MAX_LINE = 78
"""Characters of a Received-SPF line before it is folded."""

_DOT_ATOM = re.compile(r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~]+(?:\.[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~]+)*")
_COUNTERS = {SpfResult.PASS: SPF_PASS, SpfResult.FAIL: SPF_FAIL, SpfResult.SOFTFAIL: SPF_SOFTFAIL}
_NOTHING = SpfOutcome("None")


class _Remembered(dict[tuple[str, ...], SpfOutcome]):
    """Results of a session: by identity, HELO name and sender."""


@attrs.define
class _Outcomes:
    """Of a transaction."""

    helo: SpfOutcome = _NOTHING
    mail: SpfOutcome = _NOTHING


class SpfPolicy(Filter):
    """Evaluates at MAIL, decides at RCPT, reports in the header."""

    def __init__(self, spf: Spf) -> None:
        self._spf = spf

    # MAIL

    def mail(self, session: Session, transaction: Transaction) -> MaybeVerdict:
        """Only evaluates."""
        if session.usual_suspect:
            return None
        settings = session.settings
        helo, mail = settings[SPF_HELO_POLICY], settings[SPF_MAIL_POLICY]
        if not helo and not mail:
            return None
        return self._evaluate(session, transaction, helo=bool(helo), mail=bool(mail))

    async def _evaluate(self, session: Session, transaction: Transaction, *, helo: bool, mail: bool) -> None:
        outcomes = transaction.own(_Outcomes)
        of_helo = ensureDeferred(self._check(session, None)) if helo and mail else None
        if mail:
            outcomes.mail = await self._check(session, transaction.sender.address)
            transaction.spf_mail = SpfResult(outcomes.mail.result)
        if helo:
            outcomes.helo = await (of_helo if of_helo is not None else self._check(session, None))
            transaction.spf_helo = SpfResult(outcomes.helo.result)

    async def _check(self, session: Session, sender: str | None) -> SpfOutcome:
        """The result for ``sender``, or for the HELO name when that is None; then by the best guess."""
        remembered = session.own(_Remembered)
        key = (session.helo,) if sender is None else (session.helo, sender)
        known = remembered.get(key)
        if known is not None:
            return known
        settings = session.settings
        outcome = await self._ask(session, sender, "")
        guess = settings[SPF_BEST_GUESS_TXT]
        if guess and outcome.result != SpfResult.PASS.value:
            guessed = await self._ask(session, sender, guess)
            if guessed.result == SpfResult.PASS.value:
                outcome = guessed
        if len(remembered) < MAX_REMEMBERED and outcome.result != SpfResult.TEMPERROR.value:
            remembered[key] = outcome
        return outcome

    async def _ask(self, session: Session, sender: str | None, record: str) -> SpfOutcome:
        skip = not session.settings[SPF_TEMP_ERROR_DNS]
        if sender is None:
            return await self._spf.check_helo(session.address, session.helo, record=record, skip_errors=skip)
        return await self._spf.check_sender(session.address, session.helo, sender, record=record, skip_errors=skip)

    # RCPT

    def rcpt(self, session: Session, transaction: Transaction, recipient: Recipient) -> Verdict | None:
        """What the policies make of the results."""
        helo, mail = transaction.spf_helo, transaction.spf_mail
        if session.usual_suspect or session.auth or ClientFlag.SECOND_MX in session.flags:
            return None
        settings, client = session.settings, (session.name, session.address)
        outcomes = transaction.own(_Outcomes)
        if settings[SPF_HELO_POLICY]:
            _count(session, helo)
            if helo is SpfResult.PASS and transaction.sender.is_null:
                return None
            refusal = reject(HELO_REFUSED, _STATUS, session.helo, *client, helo.value, outcomes.helo.problem, delay=True)
            verdict = _verdict(session, transaction, settings[SPF_HELO_POLICY], helo, refusal)
            if verdict is not None:
                return verdict
        if settings[SPF_MAIL_POLICY]:
            _count(session, mail)
            identity = (transaction.sender.address, session.helo)
            refusal = reject(SENDER_REFUSED, _STATUS, *identity, *client, mail.value, outcomes.mail.problem, delay=True)
            return _verdict(session, transaction, settings[SPF_MAIL_POLICY], mail, refusal)
        return None

    # Headers

    def headers(self, session: Session, transaction: Transaction) -> None:
        """Two Received-SPF fields right behind the Received field, which everybody behind us expects at the top."""
        if session.usual_suspect or not session.settings[SPF_RECEIVED_SPF_HEADERS]:
            return
        assert transaction.headers is not None
        outcomes = transaction.own(_Outcomes)
        common = [("helo", session.helo), ("client-ip", session.address), ("receiver", session.interface_name)]
        sender = ("envelope-from", f"<{transaction.sender.address}>")
        transaction.headers.put_second("Received-SPF", received_spf(outcomes.mail, "mailfrom", [sender, *common]))
        transaction.headers.put_second("Received-SPF", received_spf(outcomes.helo, "helo", common))


def _count(session: Session, result: SpfResult) -> None:
    counter = _COUNTERS.get(result)
    if counter is not None:
        session.count(counter)


def _verdict(session: Session, transaction: Transaction, policy: tuple[str, ...], result: SpfResult, refusal: Verdict) -> Verdict | None:
    """``refusal``, its remembrance for a tag, or None, as the words of ``policy`` say of ``result``."""
    if result not in (SpfResult.FAIL, SpfResult.SOFTFAIL):
        return None
    folded = {word.lower() for word in policy}
    word = result.value.lower()
    if f"{word}-tag" in folded:
        if session.slots.delayed is not None:
            return None
        transaction.flags.add(MsgFlag.TAG)
        transaction.list_state = Code.ACCEPT
        session.slots.put_aside(attrs.evolve(refusal, filter="spf", stage=Stage.RCPT))
        return SKIP_REMAINDER
    return refusal if f"{word}-reject" in folded else None


def received_spf(outcome: SpfOutcome, identity: str, pairs: list[tuple[str, str]]) -> str:
    """The value of a Received-SPF field, folded (RFC 7208 9.1)."""
    given = [("problem", outcome.problem)] if outcome.problem else []
    words = [outcome.result, *(f"{key}={_quoted(value)}" for key, value in (*given, ("identity", identity), *pairs))]
    lines, used = [words[0]], len("Received-SPF: ") + len(words[0])
    for word in words[1:]:
        if used + 3 + len(word) > MAX_LINE:
            lines.append(f";\r\n\t{word}")
            used = 8 + len(word)
        else:
            lines.append(f"; {word}")
            used += 2 + len(word)
    return "".join(lines)


def _quoted(value: str) -> str:
    """A value as a dot-atom, else as a quoted string."""
    if _DOT_ATOM.fullmatch(value):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
