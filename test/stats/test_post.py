"""Posting the counters to a real web server on loopback."""

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.web.client import Agent
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from smtpf.journal.journal import Journal
from smtpf.settings.store import Settings
from smtpf.stats.post import STATS_HTTP_PASS, STATS_HTTP_POST, STATS_HTTP_USER, Poster


class Collector(Resource):
    isLeaf = True

    def __init__(self):
        super().__init__()
        self.code = 200
        self.seen = []

    def render_POST(self, request):
        headers = {name.lower(): values for name, values in request.requestHeaders.getAllRawHeaders()}
        self.seen.append((request.uri, headers, request.content.read()))
        request.setResponseCode(self.code)
        return b"x" * 200_000


class Never:
    def __init__(self):
        self.requests = 0

    def request(self, *args):
        self.requests += 1
        return Deferred(lambda deferred: deferred.errback(ConnectionError("cancelled")))


def poster(texts, lines, agent, clock=reactor):
    holder = {"settings": Settings.of(texts)}
    made = Poster(clock, agent, Journal(lambda entry: lines.append(entry.text)), lambda: holder["settings"], lambda: b"smtpf=3&age=1")
    return made, holder


async def until(condition):
    for _ in range(400):
        if condition():
            return
        await deferLater(reactor, 0.01)
    raise AssertionError("did not happen")


def post(texts, reactor_run, code=200):
    collector, lines = Collector(), []
    collector.code = code

    async def work():
        port = reactor.listenTCP(0, Site(collector), interface="127.0.0.1")
        url = f"http://127.0.0.1:{port.getHost().port}/in?node=a"
        start, _ = poster({STATS_HTTP_POST: url, **texts}, lines, Agent(reactor))
        start()
        assert start._busy
        await until(lambda: not start._busy)
        await port.stopListening()

    reactor_run(work())
    return collector.seen, lines


def test_counters_are_posted_in_chunks_as_a_form(reactor_run):
    seen, lines = post({}, reactor_run)
    ((uri, headers, body),) = seen
    assert (uri, body, lines) == (b"/in?node=a", b"smtpf=3&age=1", [])
    assert headers[b"content-type"] == [b"application/x-www-form-urlencoded"]
    assert headers[b"transfer-encoding"] == [b"chunked"]
    assert b"authorization" not in headers


def test_credentials_are_sent_when_a_user_is_set(reactor_run):
    seen, _ = post({STATS_HTTP_USER: "Aladdin", STATS_HTTP_PASS: "open sesame"}, reactor_run)
    assert seen[0][1][b"authorization"] == [b"Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="]


def test_refusal_is_logged_from_the_status_code_on(reactor_run):
    _, lines = post({}, reactor_run, code=403)
    assert lines == ["#879 stats-http-post error: 403 Forbidden"]


def test_server_that_is_not_there_is_logged(reactor_run):
    lines = []

    async def work():
        port = reactor.listenTCP(0, Site(Resource()), interface="127.0.0.1")
        number = port.getHost().port
        await port.stopListening()
        start, _ = poster({STATS_HTTP_POST: f"http://127.0.0.1:{number}/"}, lines, Agent(reactor))
        start()
        await until(lambda: not start._busy)

    reactor_run(work())
    assert len(lines) == 1 and lines[0].startswith("#879 stats-http-post error: Connection was refused")


def test_silent_server_is_given_up_after_30_seconds_and_posts_never_overlap():
    clock, agent, lines = Clock(), Never(), []
    start, _ = poster({STATS_HTTP_POST: "http://collector.example/"}, lines, agent, clock)
    start()
    clock.advance(29)
    start()
    assert agent.requests == 1 and lines == []
    clock.advance(1)
    assert lines == ["#879 stats-http-post error: no answer within 30 seconds"]
    start()
    assert agent.requests == 2


@pytest.mark.parametrize("url", ["", "ftp://collector.example/", "collector.example"])
def test_other_urls_are_ignored(url):
    agent, lines = Never(), []
    start, _ = poster({STATS_HTTP_POST: url}, lines, agent, Clock())
    start()
    assert agent.requests == 0 and lines == []


def test_overlong_head_is_told_once_and_posting_stops_until_the_url_changes():
    agent, lines = Never(), []
    start, holder = poster({STATS_HTTP_POST: "http://collector.example/" + "x" * 1024}, lines, agent, Clock())
    start()
    start()
    assert lines == ["#878 stats-http-post request buffer overflow"] and agent.requests == 0
    holder["settings"] = Settings.of({STATS_HTTP_POST: "http://collector.example/"})
    start()
    assert agent.requests == 1


def test_password_is_secret():
    assert STATS_HTTP_PASS.secret


def test_server_that_never_ends_its_answer_is_given_up_and_its_connection_closed(reactor_run):
    lines, clock, gone = [], Clock(), []

    class Endless(Resource):
        isLeaf = True

        def render_POST(self, request):
            request.notifyFinish().addErrback(gone.append)
            request.write(b"more")
            self.seen = True
            return NOT_DONE_YET

    endless = Endless()
    endless.seen = False

    async def work():
        port = reactor.listenTCP(0, Site(endless), interface="127.0.0.1")
        start, _ = poster({STATS_HTTP_POST: f"http://127.0.0.1:{port.getHost().port}/"}, lines, Agent(reactor), clock)
        start()
        await until(lambda: endless.seen)
        await deferLater(reactor, 0.05)
        clock.advance(30)
        await until(lambda: not start._busy and gone)
        await port.stopListening()

    reactor_run(work())
    assert lines == ["#879 stats-http-post error: no answer within 30 seconds"]
