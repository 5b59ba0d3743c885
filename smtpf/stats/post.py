"""Posting all counters to a web server at each save, for those who collect them elsewhere.

A post is never waited for, never overlaps the one before, and when it fails one line in the log is all that happens.
Source: spec chapter operations, 3.7.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from urllib.parse import urlsplit

from twisted.internet import defer
from twisted.internet.interfaces import IConsumer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseNeverReceived
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from smtpf.journal.journal import Journal
from smtpf.journal.message import err
from smtpf.settings.option import Text
from smtpf.settings.store import Settings
from smtpf.waiting import in_background

TIMEOUT = 30.0
"""Seconds for a whole post."""

LONGEST_HEAD = 1024
"""Octets of the request line and header fields."""

LONGEST_ANSWER = 65_536
"""Octets of the answer's body that are read and thrown away."""

STATS_HTTP_POST = Text(
    "stats-http-post",
    "",
    "URL, http or https, to which all counters are posted as a form at each save. The certificate of an https server is verified.",
    choices='URL; "" disables',
    area="stats",
    since="later",
)
STATS_HTTP_USER = Text(
    "stats-http-user",
    "",
    "User name for the URL of `stats-http-post` (HTTP Basic). Empty: no credentials are sent.",
    choices="name",
    area="stats",
    since="later",
)
STATS_HTTP_PASS = Text(
    "stats-http-pass",
    "",
    "Password for the URL of `stats-http-post`.",
    choices="password",
    secret=True,
    area="stats",
    since="later",
)
HEAD_OVERFLOW = err(
    878,
    "stats-http-post request buffer overflow",
    "The URL and credentials for posting the statistics make a request head of more than 1024 octets. "
    "Nothing is posted until `stats-http-post` is changed.",
    since="later",
)
POST_ERROR = err(
    879,
    "stats-http-post error: %s",
    "The statistics could not be posted: what the server answered, or why it could not be reached. The next save tries again.",
    fields=("reason",),
    since="later",
)


@implementer(IBodyProducer)
class _Form:
    """A body whose length is not told beforehand, so that it is sent in chunks."""

    length = UNKNOWN_LENGTH

    def __init__(self, body: bytes) -> None:
        self._body = body

    def startProducing(self, consumer: IConsumer) -> defer.Deferred[None]:
        consumer.write(self._body)
        return defer.succeed(None)

    def pauseProducing(self) -> None: ...

    def resumeProducing(self) -> None: ...

    def stopProducing(self) -> None: ...


class _Discard(Protocol):
    """Reads an answer's body to its end, or to the bound, and keeps nothing."""

    def __init__(self) -> None:
        self.done: defer.Deferred[None] = defer.Deferred(self._give_up)
        """Fires at the end of the body. Cancelling it closes the connection."""
        self._octets = 0

    def dataReceived(self, data: bytes) -> None:
        self._octets += len(data)
        if self._octets > LONGEST_ANSWER:
            self._give_up()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.done.called:
            self.done.callback(None)

    def _give_up(self, done: defer.Deferred[None] | None = None) -> None:
        if self.transport is not None:
            self.transport.loseConnection()


class Poster:
    """Posts a form to the URL of ``stats-http-post``."""

    def __init__(
        self, clock: IReactorTime, agent: IAgent, journal: Journal, settings: Callable[[], Settings], form: Callable[[], bytes]
    ) -> None:
        """``agent``: a ``twisted.web.client.Agent``, whose default policy verifies certificates. ``form`` makes the body."""
        self._clock = clock
        self._agent = agent
        self._journal = journal
        self._settings = settings
        self._form = form
        self._busy = False
        self._refused = ""
        """The URL that was too long, until another takes its place."""

    def __call__(self) -> None:
        """Start a post, unless none is wanted or one is still under way."""
        settings = self._settings()
        url = settings[STATS_HTTP_POST]
        if self._busy or url == self._refused or urlsplit(url).scheme.lower() not in ("http", "https"):
            return
        headers = Headers({b"Content-Type": [b"application/x-www-form-urlencoded"], b"User-Agent": [b"smtpf"]})
        user = settings[STATS_HTTP_USER]
        if user:
            credentials = f"{user}:{settings[STATS_HTTP_PASS]}".encode()
            headers.addRawHeader(b"Authorization", b"Basic " + b64encode(credentials))
        if _head_length(url, headers) > LONGEST_HEAD:
            self._journal.write(HEAD_OVERFLOW)
            self._refused = url
            return
        self._refused = ""
        self._busy = True
        in_background(self._post(url, headers), self._journal.failure)

    async def _post(self, url: str, headers: Headers) -> None:
        try:
            whole = defer.ensureDeferred(self._exchange(url, headers))
            whole.addTimeout(TIMEOUT, self._clock, _too_late)
            answer = await whole
            if answer:
                self._journal.write(POST_ERROR, answer)
        except Exception as reason:
            self._journal.write(POST_ERROR, _told(reason))
        finally:
            self._busy = False

    async def _exchange(self, url: str, headers: Headers) -> str:
        """Empty when the server took the form, else its status code and what it says."""
        response: IResponse = await self._agent.request(b"POST", url.encode("ascii"), headers, _Form(self._form()))
        discard = _Discard()
        response.deliverBody(discard)
        await discard.done
        if 200 <= response.code < 300:
            return ""
        return f"{response.code} {response.phrase.decode('ascii', 'replace')}".rstrip()


def _head_length(url: str, headers: Headers) -> int:
    fields = sum(len(name) + len(value) + 4 for name, values in headers.getAllRawHeaders() for value in values)
    return len(f"POST {url} HTTP/1.1\r\n\r\n".encode()) + fields


def _told(reason: Exception) -> str:
    if isinstance(reason, ResponseNeverReceived) and reason.reasons:
        return str(reason.reasons[0].getErrorMessage())
    return str(reason) or type(reason).__name__


def _too_late(result: object, seconds: float) -> str:
    # A cancelled request fails in several ways, according to how far it had come; all of them mean this.
    return f"no answer within {seconds:.0f} seconds"
