"""Sender Policy Framework (RFC 7208): may this client use this HELO name or sender domain?

The evaluation is pyspf's; its look-ups come from the node's own resolver. pyspf wants its answers at once, so it runs on
what is known, stops at the first question whose answer is not, and runs again when the answer has come. A run takes a
fraction of a millisecond; with records long enough to take more it happens in a thread. Nothing ever blocks, and one
deadline holds for everything. Source: spec chapter filters-envelope, 10.3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs
import spf
from twisted.internet.defer import Deferred

from smtpf.dns.answer import Answer, Mx, Status, Target, Txt
from smtpf.dns.domains import is_address
from smtpf.dns.wire import plain_name

if TYPE_CHECKING:
    from smtpf.dns.resolver import Resolver

MAX_QUESTIONS = 150
"""DNS questions of one evaluation; the limits of RFC 7208 4.6.4 allow fewer."""
LONG_TEXT = 2000
"""Octets of TXT records from which on pyspf runs in a thread."""
MAX_TEXT = 32_000
"""Octets of TXT records of one evaluation; more is a permanent error."""

PASS, FAIL, SOFTFAIL, NEUTRAL, NONE = "Pass", "Fail", "SoftFail", "Neutral", "None"
TEMPERROR, PERMERROR = "TempError", "PermError"
_RESULTS = {word.lower(): word for word in (PASS, FAIL, SOFTFAIL, NEUTRAL, NONE, TEMPERROR, PERMERROR)}

TOO_MANY_LOOKUPS = "too many DNS lookups"
INVALID_SYNTAX = "invalid syntax"
SEVERAL_RECORDS = "more than one SPF record"
CIRCULAR = "circular reference"
ADDRESS_LITERAL = "IP address literal"

InThread = Callable[[Callable[[], Any]], "Deferred[Any]"]
"""Runs a function in a worker thread, such as a partial of ``deferToThreadPool``."""


@attrs.frozen
class SpfOutcome:
    """The result of one check."""

    result: str
    """``Pass``, ``Fail``, ``SoftFail``, ``Neutral``, ``None``, ``TempError`` or ``PermError``."""
    problem: str = ""
    """Why there was an error or nothing to check; empty otherwise."""
    mechanism: str = ""
    """The directive that matched, such as ``-all``."""
    explanation: str = ""
    """The domain owner's words for a Fail (``exp=``); a stranger's text."""


class Spf:
    """Checks identities against the records of their domains."""

    def __init__(self, resolver: Resolver, in_thread: InThread, receiver: str = "unknown") -> None:
        """``receiver`` is this host's name, for the ``r`` macro."""
        self._resolver = resolver
        self._in_thread = in_thread
        self._receiver = receiver

    async def check_helo(
        self, address: str, helo: str, *, record: str = "", skip_errors: bool = False, timeout: float | None = None
    ) -> SpfOutcome:
        """The HELO identity (RFC 7208 2.3). Parameters as for ``check_sender``."""
        if is_address(helo):
            return SpfOutcome(NONE, ADDRESS_LITERAL)
        return await self._check(address, f"postmaster@{plain_name(helo)}", helo, record, skip_errors, timeout)

    async def check_sender(
        self, address: str, helo: str, sender: str, *, record: str = "", skip_errors: bool = False, timeout: float | None = None
    ) -> SpfOutcome:
        """The MAIL identity (RFC 7208 2.4); an empty ``sender`` stands for postmaster at the HELO name.

        ``record`` is evaluated in place of the domain's own when given. ``skip_errors``: a mechanism whose look-up fails
        does not match, in place of ending the check with TempError; TempError is then the result of a final ``all``.
        ``timeout`` seconds (default and most: ``dns-max-timeout``) bound the whole check.
        """
        if not sender:
            return await self.check_helo(address, helo, record=record, skip_errors=skip_errors, timeout=timeout)
        local, _, domain = sender.rpartition("@")
        if is_address(domain):
            return SpfOutcome(NONE, ADDRESS_LITERAL)
        return await self._check(address, f"{local or 'postmaster'}@{plain_name(domain)}", helo, record, skip_errors, timeout)

    async def _check(self, address: str, sender: str, helo: str, record: str, skip_errors: bool, timeout: float | None) -> SpfOutcome:
        if "." not in sender.rpartition("@")[2]:
            return SpfOutcome(NONE)  # not a multi-label domain name: RFC 7208 4.3
        resolver = self._resolver
        limit = resolver.timeout if timeout is None else min(timeout, resolver.timeout)
        deadline = resolver.seconds() + limit
        known = _Known()

        def run(fetch: Callable[[str, str], Answer | None]) -> SpfOutcome | _Question:
            return _run(address, sender, helo, self._receiver, record, skip_errors, known, fetch)

        while True:
            if known.text_octets > MAX_TEXT or len(known.answers) > MAX_QUESTIONS:
                return SpfOutcome(PERMERROR, TOO_MANY_LOOKUPS)
            if known.text_octets > LONG_TEXT:
                outcome = await self._in_thread(lambda: run(_nothing_at_once))
            else:
                outcome = run(self._at_once)
            if isinstance(outcome, SpfOutcome):
                return outcome
            left = deadline - resolver.seconds()
            if left <= 0:
                return SpfOutcome(TEMPERROR, Status.TIMEOUT.value)
            known.keep(outcome.key, await resolver.lookup(outcome.name, outcome.rtype, left))

    def _at_once(self, name: str, rtype: str) -> Answer | None:
        """The answer if the resolver has it in its cache. The query is under way otherwise, and will be shared."""
        answer = self._resolver.query(name, rtype)
        return answer if isinstance(answer, Answer) else None


@attrs.frozen
class _Question:
    """What pyspf wants to know before it can go on."""

    name: str
    rtype: str

    @property
    def key(self) -> tuple[str, str]:
        return self.name, self.rtype


class _Known:
    """The answers that one check has had so far."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], Answer] = {}
        self.text_octets = 0

    def keep(self, question: tuple[str, str], answer: Answer) -> None:
        if question not in self.answers:
            self.answers[question] = answer
            self.text_octets += sum(len(text) for text in answer.texts)


class _Unknown(BaseException):
    """pyspf asks what is not known yet. Not an Exception, so that none of its handlers takes it for a failure."""


def _nothing_at_once(name: str, rtype: str) -> None:
    return None


class _Evaluation(spf.query):  # type: ignore[misc]
    """pyspf with its look-ups replaced."""

    def __init__(self, known: _Known, fetch: Callable[[str, str], Answer | None], skip_errors: bool, **given: Any) -> None:
        self._known = known
        self._fetch = fetch
        self._skip_errors = skip_errors
        self.skipped = ""
        self.wanted: tuple[str, str] | None = None
        super().__init__(strict=True, **given)
        self.set_default_explanation("")

    def dns(self, name: str, qtype: str, cnames: Any = None, ignore_void: bool = False) -> list[Any]:
        """Records as pyspf likes them; an empty list when there are none. Raises ``spf.TempError`` for a failed look-up."""
        question = (plain_name(str(name)), qtype)
        if self.wanted is not None:
            raise _Unknown  # a bare handler has swallowed the first one
        answer = self._known.answers.get(question) or self._fetch(*question)
        if answer is None:
            self.wanted = question
            raise _Unknown
        self._known.keep(question, answer)
        if self._fetch is not _nothing_at_once:
            self._look_ahead(question, answer)
        if answer.failed:
            return self._failed(answer, qtype, ignore_void)
        if not answer.records and not ignore_void:
            self.void_lookups += 1
            if self.void_lookups > spf.MAX_VOID_LOOKUPS:
                raise spf.PermError(TOO_MANY_LOOKUPS)
        return [_for_pyspf(record) for record in answer.records]

    def _look_ahead(self, question: tuple[str, str], answer: Answer) -> None:
        """On the reactor's thread: leave long texts to a worker, and ask for the addresses of all hosts named at the same time."""
        if self._known.text_octets > LONG_TEXT:
            self.wanted = question
            raise _Unknown
        if question[1] in ("MX", "PTR") and len(answer.records) <= spf.MAX_MX:
            for record in answer.records:
                host = record.host if isinstance(record, Mx) else record.name if isinstance(record, Target) else ""
                if host and (host, self.A) not in self._known.answers:
                    self._fetch(host, self.A)

    def _failed(self, answer: Answer, qtype: str, ignore_void: bool) -> list[Any]:
        if not self._skip_errors or ignore_void or self.lookups == 0:
            raise spf.TempError(answer.rcode_text)
        self.skipped = answer.rcode_text
        return [(b"v=spf1 ?all",)] if qtype == "TXT" else []

    def validated_ptrs(self) -> list[str]:
        """Confirmed names of the client; failures only make the list shorter (RFC 7208 5.5)."""
        try:
            names = self.dns_ptr(self.i)[: spf.MAX_PTR]
        except spf.TempError:
            return []
        confirmed = []
        for name in names:
            try:
                if self.cidrmatch(self.dns_a(name, self.A), self.cidrmax):
                    confirmed.append(name)
            except spf.TempError:
                continue
        return confirmed


def _for_pyspf(record: Any) -> Any:
    if isinstance(record, Mx):
        return record.preference, record.host
    if isinstance(record, Target):
        return record.name
    if isinstance(record, Txt):
        return (record.data,)
    return record


def _run(
    address: str,
    sender: str,
    helo: str,
    receiver: str,
    record: str,
    skip_errors: bool,
    known: _Known,
    fetch: Callable[[str, str], Answer | None],
) -> SpfOutcome | _Question:
    """One run of pyspf over what is known."""
    evaluation = _Evaluation(known, fetch, skip_errors, i=address, s=sender, h=helo, receiver=receiver)
    try:
        word, _, text = evaluation.check(record or None)
    except _Unknown:
        pass
    except Exception:  # pyspf raises what it stumbles on in a stranger's record
        if evaluation.wanted is None:
            return SpfOutcome(PERMERROR, INVALID_SYNTAX)
    if evaluation.wanted is not None:
        return _Question(*evaluation.wanted)
    result = _RESULTS.get(word, PERMERROR)
    mechanism = evaluation.mechanism or ""
    if evaluation.skipped and result != PASS and mechanism.lower().endswith("all"):
        return SpfOutcome(TEMPERROR, evaluation.skipped, mechanism)
    if result in (TEMPERROR, PERMERROR):
        return SpfOutcome(result, _problem(result, str(getattr(evaluation, "prob", ""))), mechanism)
    return SpfOutcome(result, "", mechanism, str(text) if result == FAIL else "")


def _problem(result: str, text: str) -> str:
    if result == TEMPERROR:
        return text
    if text == TOO_MANY_LOOKUPS or text.startswith(("Too many DNS", "More than")):
        return TOO_MANY_LOOKUPS
    if "recursion" in text:
        return CIRCULAR
    if text.startswith("Two or more"):
        return SEVERAL_RECORDS
    return INVALID_SYNTAX
