"""One connection between two nodes: who is there, then records both ways until it ends.

Reads in the order in which things happen: proof of membership, Hello, live changes, pings. What the records mean and
which connections are wanted is decided by the :class:`Host` behind it. Source: spec chapter operations, 2.10.
"""

# The AMP classes of Twisted carry no types.
# mypy: disable-error-code="no-untyped-call, misc, untyped-decorator, union-attr, override"

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

import attrs
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.protocols import amp
from twisted.python.failure import Failure
from zope.interface import implementer

from smtpf.cache.amp_commands import (
    PROTOCOL_VERSION,
    Add,
    Auth,
    BadVersion,
    Busy,
    ClockSkew,
    DuplicateNode,
    Hello,
    NotAuthorised,
    Ping,
    Put,
    Status,
    Sync,
    box_of,
    received_from,
)
from smtpf.cache.conflict import Ruling
from smtpf.cache.outbox import Item, Outbox
from smtpf.cache.records import decoded, encoded
from smtpf.cache.replica import PAGE_OCTETS, PAGE_RECORDS, Applied, Page, Received, size_of
from smtpf.cache.signing import NONCE, Forged, Seal
from smtpf.cache.store import CacheError

HELLO_SECONDS = 10.0
"""Within which Hello must be through after connecting."""
CALL_SECONDS = 30.0
"""Within which every call must be answered."""
PING_SECONDS = 30.0
BUSY_SECONDS = 1.0
BUSY_TRIES = 5
UNANSWERED = 4
"""Put and Add calls that may wait for their answers."""
BACKLOG_HIGH, BACKLOG_LOW = 2000, 500
"""Records received and not yet applied at which reading stops, and goes on."""
RECORDS_A_SECOND, RECORDS_AT_ONCE = 2000.0, 4000.0
"""Records a peer may send in the long run, and in one burst."""
LARGEST_BOX = 1024 * 1024
LARGEST_STRANGER = 4096
"""Octets without a complete box, from a member and from somebody who has proved nothing yet."""


@attrs.frozen
class Greeting:
    """What Hello says."""

    version: int
    node: str
    name: str
    epoch: int
    clock: int
    last: int
    have_epoch: int = 0
    have: int = 0

    def box(self) -> dict[str, Any]:
        fields = attrs.asdict(self)
        fields["node"] = bytes.fromhex(self.node)
        fields["name"] = self.name.encode("utf-8", "replace")[:255]
        return fields


def greeting_from(box: dict[str, Any]) -> Greeting:
    """Raises BadVersion for a node id of another form."""
    if len(box["node"]) != 16:
        raise BadVersion("node id")
    name = box["name"][:255].decode("utf-8", "replace")
    numbers = {field: box[field] for field in ("version", "epoch", "clock", "last", "have_epoch", "have")}
    return Greeting(node=box["node"].hex(), name=name, **numbers)


REFUSALS = (BadVersion, DuplicateNode, ClockSkew, NotAuthorised)


class Host(Protocol):
    """What a link asks of the cluster."""

    def greeting(self, node: str) -> Greeting:
        """Our Hello to ``node`` (empty: not known yet)."""

    def judge(self, link: Link, greeting: Greeting) -> None:
        """Raises one of ``REFUSALS`` when the link is not wanted."""

    def up(self, link: Link) -> None: ...

    def greeted_again(self, link: Link) -> None:
        """The other end asks for a resync."""

    def down(self, link: Link, reason: str) -> None: ...

    def rejected(self, link: Link, reason: str) -> None: ...

    def received(self, link: Link, records: Sequence[Received]) -> Deferred[list[Applied]]: ...

    def add(self, key: str, delta: int, e: int, origin: str) -> Deferred[tuple[int, bool]]: ...

    def page(self, link: Link, since: int, limit: int) -> Deferred[Page]: ...

    def overflow(self, link: Link) -> None: ...

    def answered(self, link: Link, sent: int, corrected: int) -> None: ...

    def heard(self, link: Link) -> None: ...

    def said(self) -> None: ...

    def status(self, link: Link, notes: dict[str, str]) -> None: ...

    def round_trip(self, link: Link, seconds: float) -> None: ...

    def failed(self, failure: Failure) -> None: ...


@implementer(IPushProducer)
class _Flow:
    """Hears from the transport whether its write buffer has room."""

    def __init__(self, link: Link) -> None:
        self.paused = False
        self._link = link

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False
        self._link.pump()

    def stopProducing(self) -> None:
        self.paused = True


class Link(amp.AMP):
    """One end of a connection between nodes."""

    def __init__(
        self,
        host: Host,
        clock: IReactorTime,
        *,
        address: str,
        is_client: bool,
        secret: bytes | None,
        random_bytes: Callable[[int], bytes],
        queue_limit: int,
        dialled: object = None,
    ) -> None:
        """``secret`` None: certificates prove membership. ``dialled`` is kept for the host."""
        super().__init__()
        self.host = host
        self.address = address
        self.is_client = is_client
        self.dialled = dialled
        self.peer: Greeting | None = None
        self.ready = False
        """Hello is through and the link was not refused."""
        self.skew = 0
        self.outbox = Outbox(queue_limit)
        self.needs_sync = False
        self.reason = ""
        """Why this end ended it."""
        self._clock = clock
        self._secret = secret
        self._random = random_bytes
        self._seal: Seal | None = None
        self._next_seal: Seal | None = None
        self._flow = _Flow(self)
        self._unanswered = 0
        self._sequence = 0
        self._highest = 0
        self._retries = 0
        self._retry: IDelayedCall | None = None
        self._timers: list[IDelayedCall] = []
        self._ping: IDelayedCall | None = None
        self._incomplete = 0
        self._backlog = 0
        self._tokens = RECORDS_AT_ONCE
        self._tokens_at = 0.0
        self._throttle: IDelayedCall | None = None
        self._gone = False

    # Connecting and proving membership

    def connectionMade(self) -> None:
        super().connectionMade()
        self._tokens_at = self._clock.seconds()
        self._timers.append(self._clock.callLater(HELLO_SECONDS, self._too_slow))
        if self.is_client:
            self._run(self._introduce())

    async def _introduce(self) -> None:
        if self._secret is not None:
            mine = self._random(NONCE)
            theirs = (await self.call(Auth, nonce=mine))["nonce"]
            if len(theirs) != NONCE:
                self.abort("bad nonce")
                return
            self._seal = Seal(self._secret, mine, theirs, is_client=True)
        await self._greet()

    @Auth.responder
    def _auth(self, nonce: bytes) -> dict[str, Any]:
        if self._secret is None or self._seal is not None or self._next_seal is not None or self.is_client or len(nonce) != NONCE:
            self.refuse("unexpected Auth")
            return {"nonce": b""}
        mine = self._random(NONCE)
        self._next_seal = Seal(self._secret, nonce, mine, is_client=False)
        return {"nonce": mine}

    def dataReceived(self, data: bytes) -> None:
        self._incomplete += len(data)
        super().dataReceived(data)
        if self._incomplete > (LARGEST_BOX if self.ready else LARGEST_STRANGER):
            self.refuse("box too large")

    def ampBoxReceived(self, box: amp.AmpBox) -> None:
        self._incomplete = 0
        if self._gone:
            return
        if self._seal is not None:
            try:
                box = self._seal.open(box)
            except Forged as error:
                self.refuse(str(error))
                return
        command = box.get(amp.COMMAND)
        if command is not None and not self._served(command):
            self.refuse(f"{command[:20]!r} before its time")
            return
        if self.ready:
            self.host.heard(self)
        super().ampBoxReceived(box)

    def _served(self, command: bytes) -> bool:
        if self.ready:
            return command != b"Auth"
        if self._secret is not None and self._seal is None:
            return command == b"Auth"
        return command == b"Hello"

    def sendBox(self, box: amp.AmpBox) -> None:
        if self._gone:
            return
        if self._seal is not None:
            box = self._seal.close(box)
        super().sendBox(box)
        if self._next_seal is not None:
            self._seal, self._next_seal = self._next_seal, None
        if self.ready:
            self.host.said()

    # Hello

    async def _greet(self) -> None:
        node = self.peer.node if self.peer is not None else ""
        try:
            answer = greeting_from(await self.call(Hello, **self.host.greeting(node).box()))
            self.host.judge(self, answer)
        except REFUSALS as error:
            self.refuse(_words(error))
            return
        self._greeted(answer)

    @Hello.responder
    def _hello(self, **box: Any) -> dict[str, Any]:
        try:
            greeting = greeting_from(box)
            if greeting.version != PROTOCOL_VERSION:
                raise BadVersion(f"version {greeting.version}")
            if self.peer is not None and self.peer.node != greeting.node:
                raise NotAuthorised("another node id than before")
            self.host.judge(self, greeting)
        except REFUSALS as error:
            self.host.rejected(self, _words(error))
            self.reason = _words(error)
            self._timers.append(self._clock.callLater(1.0, self.abort, self.reason))
            raise
        # The answer goes out before anything that being up makes us send.
        self._timers.append(self._clock.callLater(0, self._greeted, greeting))
        return self.host.greeting(greeting.node).box()

    def _greeted(self, greeting: Greeting) -> None:
        if self._gone:
            return
        again, self.peer = self.ready, greeting
        if again:
            self.host.greeted_again(self)
            return
        self._cancel_timers()
        self.ready = True
        self.transport.registerProducer(self._flow, True)
        self._ping = self._clock.callLater(PING_SECONDS, self._send_ping)
        self.host.up(self)

    def ask_for_resync(self) -> None:
        """Say Hello again; both ends then read each other's changes from where they stopped."""
        self.needs_sync = False
        self._run(self._greet())

    # Sending changes

    def offer(self, item: Item) -> None:
        """Send ``item`` when it is its turn."""
        if not self.outbox.offer(item):
            self._overflow()
        self.pump()

    def _overflow(self) -> None:
        self.needs_sync = True
        self.host.overflow(self)

    def pump(self) -> None:
        """Send what may be sent now."""
        while (
            self.ready
            and not self._gone
            and len(self.outbox)
            and self._unanswered < UNANSWERED
            and not self._flow.paused
            and not self._retry
        ):
            items = self.outbox.take()
            self._unanswered += 1
            self._run(self._send(items))
        if self.needs_sync and self.ready and not self._gone and not len(self.outbox) and not self._unanswered and not self._retry:
            self.ask_for_resync()

    async def _send(self, items: list[Item]) -> None:
        try:
            if items[0].added:
                await self._send_add(items[0])
            else:
                await self._send_put(items)
            self._retries = 0
        except Busy:
            self._hold_back(items)
        finally:
            self._unanswered -= 1
        self.pump()

    async def _send_put(self, items: list[Item]) -> None:
        answer = await self.call(Put, records=[box_of(item.record, item.forced) for item in items])
        better = [received_from(result) for result in answer["results"] if result["s"] == b"corrected" and result["k"] is not None]
        self.host.answered(self, len(items), len(better))
        wanted = [item for item in better if item is not None]
        if wanted:
            try:
                await self.host.received(self, wanted)
            except CacheError:
                self.needs_sync = True

    async def _send_add(self, item: Item) -> None:
        self._sequence += 1
        record = item.record
        await self.call(Add, k=encoded(record.key), delta=item.added, e=record.e, o=bytes.fromhex(record.o), seq=self._sequence)
        self.host.answered(self, 1, 0)

    def _hold_back(self, items: list[Item]) -> None:
        self._retries += 1
        if self._retries > BUSY_TRIES or not self.outbox.give_back(items):
            self._retries = 0
            self.outbox.dropped += len(items)
            self.outbox.clear()
            self._overflow()
        if self._retry is None:
            self._retry = self._clock.callLater(BUSY_SECONDS, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        self.pump()

    # Serving the other end

    @Put.responder
    def _put(self, records: list[dict[str, Any]]) -> Deferred[dict[str, Any]]:
        return ensureDeferred(self._judged(records))

    async def _judged(self, boxes: list[dict[str, Any]]) -> dict[str, Any]:
        received = [received_from(box) for box in boxes]
        good = [item for item in received if item is not None]
        self._took(len(boxes))
        try:
            applied = iter(await self.host.received(self, good))
        except CacheError as error:
            raise Busy(str(error)) from error
        finally:
            self._applied(len(boxes))
        results, octets = [], 0
        for index, item in enumerate(received):
            result: dict[str, Any] = {"i": index, "s": b"refused"}
            if item is not None:
                outcome = next(applied)
                result["s"] = outcome.ruling.value.encode("ascii")
                if outcome.better is not None:
                    octets += size_of(outcome.better)
                    if octets <= PAGE_OCTETS:
                        result |= box_of(outcome.better, outcome.forced)
                    else:
                        # The answer has no room for it: it travels as a Put of our own.
                        result["s"] = Ruling.IGNORED.value.encode("ascii")
                        self.offer(Item(outcome.better, outcome.forced))
            results.append(result)
        return {"results": results}

    @Add.responder
    def _add(self, k: bytes, delta: int, e: int, o: bytes, seq: int) -> Deferred[dict[str, Any]]:
        return ensureDeferred(self._added(decoded(k), delta, e, o.hex(), seq))

    async def _added(self, key: str, delta: int, e: int, origin: str, seq: int) -> dict[str, Any]:
        if seq <= self._highest:
            return {"v": 0, "s": b"ignored"}
        self._highest = seq
        self._took(1)
        try:
            value, changed = await self.host.add(key, delta, e, origin)
        except CacheError as error:
            raise Busy(str(error)) from error
        finally:
            self._applied(1)
        return {"v": value, "s": b"accepted" if changed else b"ignored"}

    @Sync.responder
    def _sync(self, epoch: int, since: int, limit: int) -> Deferred[dict[str, Any]]:
        return ensureDeferred(self._served_page(since, limit))

    async def _served_page(self, since: int, limit: int) -> dict[str, Any]:
        try:
            page = await self.host.page(self, max(0, since), max(1, min(limit, PAGE_RECORDS)))
        except CacheError as error:
            raise Busy(str(error)) from error
        records = [box_of(record) for record in page.records]
        return {"epoch": page.epoch, "records": records, "next": page.next, "more": page.more}

    @Status.responder
    def _status(self, la: str, ut: int, tc: int, arv: str, of: str, cap: int) -> dict[str, Any]:
        self.host.status(self, {"la": la, "ut": str(ut), "tc": str(tc), "arv": arv, "of": of, "cap": str(cap)})
        return {}

    @Ping.responder
    def _pong(self, t: int) -> dict[str, Any]:
        return {"t": t}

    # Limits on what is received

    def _took(self, records: int) -> None:
        self._backlog += records
        now = self._clock.seconds()
        self._tokens = min(RECORDS_AT_ONCE, self._tokens + (now - self._tokens_at) * RECORDS_A_SECOND) - records
        self._tokens_at = now
        if self._tokens < 0 and self._throttle is None:
            self._throttle = self._clock.callLater(-self._tokens / RECORDS_A_SECOND, self._unthrottled)
            self.transport.pauseProducing()
        elif self._backlog > BACKLOG_HIGH:
            self.transport.pauseProducing()

    def _applied(self, records: int) -> None:
        before = self._backlog
        self._backlog -= records
        if before >= BACKLOG_LOW > self._backlog:
            self._read_on()

    def _unthrottled(self) -> None:
        self._throttle = None
        self._read_on()

    def _read_on(self) -> None:
        if not self._gone and self._throttle is None and self._backlog < BACKLOG_HIGH:
            self.transport.resumeProducing()

    # Being there, and ending

    def _send_ping(self) -> None:
        self._ping = self._clock.callLater(PING_SECONDS, self._send_ping)
        self._run(self._round_trip())

    async def _round_trip(self) -> None:
        sent = self._clock.seconds()
        await self.call(Ping, t=int(sent * 1e9))
        self.host.round_trip(self, self._clock.seconds() - sent)

    def tell(self, **status: Any) -> None:
        """Send Status; no answer is expected."""
        if self.ready and not self._gone:
            self.callRemote(Status, **status)

    def call(self, command: type[amp.Command], **arguments: Any) -> Deferred[dict[str, Any]]:
        """Call the other end. No answer within 30 s ends the connection."""
        answer: Deferred[dict[str, Any]] = self.callRemote(command, **arguments)
        timer = self._clock.callLater(CALL_SECONDS, self.abort, f"no answer to {command.commandName.decode('ascii')}")

        def answered(result: Any) -> Any:
            if timer.active():
                timer.cancel()
            return result

        return answer.addBoth(answered)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        ensureDeferred(work).addErrback(self._work_failed)

    def _work_failed(self, failure: Failure) -> None:
        if self._gone:
            return
        if not isinstance(failure.value, amp.AmpError | ConnectionError | amp.ProtocolSwitched):
            self.host.failed(failure)
        self.abort(failure.getErrorMessage() or failure.type.__name__)

    def _too_slow(self) -> None:
        self.refuse("no Hello in time")

    def refuse(self, reason: str) -> None:
        """End the connection because of what the other end did."""
        if not self._gone:
            self.host.rejected(self, reason)
            self.abort(reason)

    def abort(self, reason: str) -> None:
        """End the connection at once."""
        if not self._gone:
            self.reason = self.reason or reason
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure) -> None:
        self._gone = True
        was_ready, self.ready = self.ready, False
        self._cancel_timers()
        for timer in (self._ping, self._retry, self._throttle):
            if timer is not None and timer.active():
                timer.cancel()
        super().connectionLost(reason)
        self.host.down(self, self.reason or reason.getErrorMessage()) if was_ready else self.host.down(self, "")

    def _cancel_timers(self) -> None:
        for timer in self._timers:
            if timer.active():
                timer.cancel()
        self._timers.clear()


def _words(error: BaseException) -> str:
    text = str(error)
    return f"{type(error).__name__} {text}" if text else type(error).__name__
