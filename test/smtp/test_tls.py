"""TLS on both legs, with certificates made by openssl and real handshakes on loopback."""

from __future__ import annotations

import os
import shutil

import pytest
from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ClientFactory, Factory, Protocol

from smtpf.journal.journal import Journal
from smtpf.settings.store import Settings
from smtpf.smtp.client import FailureKind, HopFailure
from smtpf.smtp.forward import TlsPolicy
from smtpf.smtp.tls import (
    TLS_CERT_CHAIN_FILE,
    TLS_SERVER_CERT,
    TLS_SERVER_KEY,
    TLS_SERVER_KEY_PASS,
    TlsContexts,
    TlsFacts,
    TlsFilesError,
    facts,
)
from test.support.certificates import Authority
from test.support.scripted_hop import ScriptedHop
from test.support.sending import Desk, hop_host, mail_path

ANN = mail_path("ann@example.com")
EHLO = b"250-hop\r\n250 STARTTLS\r\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


def settings_for(certificate="", key="", **more):
    return Settings.of(
        {TLS_SERVER_CERT: str(certificate), TLS_SERVER_KEY: str(key)} | {NAMES[name]: str(text) for name, text in more.items()}
    )


NAMES = {"chain": TLS_CERT_CHAIN_FILE, "phrase": TLS_SERVER_KEY_PASS}


def contexts(entries=None, *given, **named):
    return TlsContexts(settings_for(*given, **named), Journal((entries if entries is not None else []).append))


class Both:
    """One handshake: what either side knows of it."""

    def __init__(self, reactor_run, server, client):
        self.run, self.server, self.client = reactor_run, server, client

    def shake(self):
        done = Deferred()
        server_context, client_context = self.server, self.client

        class Server(Protocol):
            def connectionMade(self):
                self.transport.startTLS(server_context)

            def dataReceived(self, data):
                done.callback(facts(self.transport))
                self.transport.loseConnection()

        class Client(Protocol):
            def connectionMade(self):
                self.transport.startTLS(client_context)
                self.transport.write(b"x")

        async def work():
            listening = Factory.forProtocol(Server)
            listening.noisy = False
            port = reactor.listenTCP(0, listening, interface="127.0.0.1")
            calling = ClientFactory.forProtocol(Client)
            calling.noisy = False
            reactor.connectTCP("127.0.0.1", port.getHost().port, calling)
            result = await done
            await port.stopListening()
            return result

        return self.run(work())


class WithCertificate:
    def __init__(self, certificate, key):
        self.context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        self.context.use_certificate_file(str(certificate))
        self.context.use_privatekey_file(str(key))

    def clientConnectionForTLS(self, protocol):
        return SSL.Connection(self.context, None)


def with_certificate(*given):
    from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
    from zope.interface import directlyProvides

    made = WithCertificate(*given)
    directlyProvides(made, IOpenSSLClientConnectionCreator)
    return made


def test_nothing_is_offered_without_certificate_and_key(authority):
    assert not contexts().offered
    certificate, key = authority.issue("half.test")
    assert not contexts(None, certificate).offered
    assert contexts(None, certificate, key).offered


def test_facts_without_client_certificate(reactor_run, authority):
    ours = contexts(None, *authority.issue("mx.test"))
    known = Both(reactor_run, ours.server(), ours.client("mx.test")).shake()
    assert (known.version, known.valid, known.subject, known.names) == ("TLSv1.3", "NONE", "", ())
    assert known.bits in (128, 256)
    assert known.text == f"TLSv1.3 cipher={known.cipher} bits={known.bits}/{known.bits} valid=NONE"


def test_facts_of_a_valid_client_certificate(reactor_run, authority):
    ours = contexts(None, *authority.issue("mx2.test"), chain=authority.certificate)
    client = with_certificate(*authority.issue("client.test", alternatives=("Other.test",)))
    known = Both(reactor_run, ours.server(), client).shake()
    assert (known.valid, known.names) == ("PASS", ("client.test", "other.test"))
    assert "CN=client.test" in known.subject
    assert "CN=Test Authority" in known.issuer
    assert known.matches("CN=client.test")
    assert known.matches("OTHER.test")
    assert not known.matches("third.test")


def test_certificate_of_an_unknown_authority_fails_but_the_handshake_goes_on(reactor_run, authority, tmp_path):
    ours = contexts(None, *authority.issue("mx3.test"), chain=authority.certificate)
    known = Both(reactor_run, ours.server(), with_certificate(*Authority(tmp_path).issue("client.test"))).shake()
    assert known.valid == "FAIL"
    assert not known.matches("client.test")


def test_expired_client_certificate_fails(reactor_run, authority):
    ours = contexts(None, *authority.issue("mx4.test"), chain=authority.certificate)
    assert Both(reactor_run, ours.server(), with_certificate(*authority.issue("old.test", days=-1))).shake().valid == "FAIL"


@pytest.mark.parametrize(
    ("names", "wanted", "expected"),
    [(("a.b.test",), "*.b.test", True), (("b.test",), "*.b.test", False), (("x.test",), "CN=X.TEST", True), ((), "", False)],
)
def test_names(names, wanted, expected):
    assert TlsFacts("TLSv1.3", "c", 256, "PASS", "", "", names).matches(wanted) is expected


def test_key_with_pass_phrase(authority):
    certificate, key = authority.issue("locked.test", passphrase="open sesame")
    assert contexts(None, certificate, key, phrase="open sesame").offered
    with pytest.raises(TlsFilesError, match="tls-server-key="):
        contexts(None, certificate, key, phrase="wrong")
    with pytest.raises(TlsFilesError, match="tls-server-key="):
        contexts(None, certificate, key)


def test_unusable_files_are_named(authority, tmp_path):
    certificate, _ = authority.issue("one.test")
    _, other = authority.issue("two.test")
    with pytest.raises(TlsFilesError, match="tls-server-key="):
        contexts(None, certificate, other)
    with pytest.raises(TlsFilesError, match="tls-server-cert="):
        contexts(None, tmp_path / "missing", other)


def test_renewed_certificate_is_taken_over_and_a_broken_one_is_not(reactor_run, authority, tmp_path):
    live, key = tmp_path / "live.pem", tmp_path / "live.key"

    def install(name):
        for source, target in zip(authority.issue(name), (live, key), strict=True):
            shutil.copy(source, target)
            os.utime(target, ns=(1, len(name)))

    install("first.test")
    entries: list = []
    ours = contexts(entries, live, key)
    before = ours.server()
    assert reactor_run(ours.renew(reactor)) is False
    install("second-one.test")
    assert reactor_run(ours.renew(reactor)) is True
    assert ours.server() is not before
    now = ours.server()
    live.write_text("rubbish")
    assert reactor_run(ours.renew(reactor)) is False
    assert reactor_run(ours.renew(reactor)) is False
    assert ours.server() is now
    assert [entry.message.number for entry in entries] == [1170, 1171]


# Towards next hops


def reach(reactor_run, authority, script, policy=TlsPolicy.MAY, certificate="hop.example", name="hop.example", days=30, tls=True):
    """Reach a scripted hop as ``name``; what came of it, the desk and the hop."""
    theirs = contexts(None, *authority.issue(certificate, days=days))
    hop = ScriptedHop(script, theirs.server() if tls else None)
    ours = contexts(None, chain=authority.certificate)
    desk = Desk(reactor, tls=ours, policy=lambda host: policy, zone="hop.example A 127.0.0.1")
    host = hop_host(hop.listen(reactor), name)
    transaction = desk.transaction()
    connection = desk.connection(transaction, [host])
    result = reactor_run(connection.open(ANN))
    secure = connection.protocol is not None and connection.protocol.tls
    connection.close()
    reactor_run(hop.stop())
    return result, secure, hop, desk


OFFER = {"EHLO": EHLO, "STARTTLS": b"220 go\r\n"}


def test_tls_is_used_where_it_is_offered_whatever_the_certificate(reactor_run, authority):
    result, secure, hop, _ = reach(reactor_run, authority, OFFER, certificate="other.example", days=-1)
    assert (result, secure) == (None, True)
    assert hop.lines[:4] == ["EHLO mx.test", "STARTTLS", "EHLO mx.test", "MAIL FROM:<joe@example.org>"]


def test_refused_starttls_goes_on_in_the_clear(reactor_run, authority):
    result, secure, hop, _ = reach(reactor_run, authority, {"EHLO": EHLO, "STARTTLS": b"454 not now\r\n"})
    assert (result, secure) == (None, False)
    assert hop.lines[2] == "MAIL FROM:<joe@example.org>"


def test_broken_handshake_is_tried_again_in_the_clear(reactor_run, authority):
    result, secure, hop, _ = reach(reactor_run, authority, {"EHLO": EHLO, "STARTTLS": b"220 go\r\n", "\x16\x03\x01": b"\0"}, tls=False)
    assert secure is False
    assert result is None
    assert len(hop.sessions) == 2
    assert hop.sessions[1].lines[:2] == ["EHLO mx.test", "MAIL FROM:<joe@example.org>"]


@pytest.mark.parametrize("reply", [b"220 go\r\n250 injected\r\n", b"220 go\r\n2", b"220 go\r\n\x16"])
def test_reply_injected_behind_starttls_ends_everything(reactor_run, authority, reply):
    result, secure, hop, desk = reach(reactor_run, authority, {"EHLO": EHLO, "STARTTLS": reply})
    assert secure is False
    assert not any(line.startswith("MAIL") for line in hop.lines)
    assert desk.numbers == [486]
    assert len(hop.sessions) == 1
    assert result.args[0] == "451 4.4.2 "


@pytest.mark.parametrize(
    ("policy", "script", "certificate", "days"),
    [
        (TlsPolicy.REQUIRE, {}, "hop.example", 30),
        (TlsPolicy.REQUIRE, {"EHLO": EHLO, "STARTTLS": b"454 no\r\n"}, "hop.example", 30),
        (TlsPolicy.VERIFY, {}, "hop.example", 30),
        (TlsPolicy.VERIFY, OFFER, "wrong.example", 30),
        (TlsPolicy.VERIFY, OFFER, "hop.example", -1),
    ],
)
def test_nothing_in_the_clear_where_tls_is_wanted(reactor_run, authority, policy, script, certificate, days):
    result, secure, hop, _ = reach(reactor_run, authority, script, policy, certificate, days=days)
    assert isinstance(result, HopFailure)
    assert result.kind is FailureKind.TLS
    assert secure is False
    assert not any(line.startswith("MAIL") for line in hop.lines)


@pytest.mark.parametrize("policy", [TlsPolicy.REQUIRE, TlsPolicy.VERIFY])
def test_good_certificate_satisfies(reactor_run, authority, policy):
    result, secure, _, _ = reach(reactor_run, authority, OFFER, policy)
    assert (result, secure) == (None, True)


def test_authority_of_a_stranger_does_not_satisfy(reactor_run, authority, tmp_path):
    result, _, _, _ = reach(reactor_run, authority, OFFER, TlsPolicy.REQUIRE)
    assert result is None
    theirs = TlsContexts(settings_for(*Authority(tmp_path).issue("hop.example")), Journal([].append))
    hop = ScriptedHop(OFFER, theirs.server())
    desk = Desk(
        reactor, tls=contexts(None, chain=authority.certificate), policy=lambda host: TlsPolicy.VERIFY, zone="hop.example A 127.0.0.1"
    )
    connection = desk.connection(desk.transaction(), [hop_host(hop.listen(reactor), "hop.example")])
    assert isinstance(reactor_run(connection.open(ANN)), HopFailure)
    reactor_run(hop.stop())
