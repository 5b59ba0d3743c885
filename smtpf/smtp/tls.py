"""TLS on both sides: the certificate that smtpf shows to clients, what it asks of theirs, and how it meets next hops.

A postmaster names certificate and key with the ``tls-`` options; STARTTLS is offered when both are given. Files that
were renewed are taken over without a restart, and a broken renewal leaves the old certificate in use. For the
programmer: ``TlsContexts`` makes the objects that ``startTLS`` wants, ``TlsFacts`` is what is known of a connection
afterwards. TLS 1.2 is the least on either side. Source: RFC 3207, RFC 8996, spec chapter session, 14.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Any

import attrs
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import NameOID
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator
from twisted.internet.ssl import Certificate as PeerAuthority
from twisted.internet.ssl import TLSVersion, optionsForClientTLS, platformTrust, trustRootFromCertificates
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from zope.interface import implementer

from smtpf.journal.journal import Journal
from smtpf.journal.message import err, info
from smtpf.settings.option import Text
from smtpf.settings.store import Settings

TLS_CERT_CHAIN_FILE = Text(
    "tls-cert-chain-file",
    "",
    "PEM file of the certificate authorities that client certificates are checked against. With it (or tls-cert-dir) clients are asked "
    "for a certificate.",
    choices="PEM file", runtime=False, since="later", area="tls",
)  # fmt: skip
TLS_CERT_DIR = Text(
    "tls-cert-dir", "", "Directory of certificate authorities, named by hash as OpenSSL wants it, for the same purpose.",
    choices="directory", runtime=False, since="later", area="tls",
)  # fmt: skip
TLS_SERVER_CERT = Text(
    "tls-server-cert", "", "PEM file of the server's certificate, followed by the intermediate ones. Renewed files are noticed.",
    choices='PEM file; "" = no STARTTLS', runtime=False, since="later", area="tls",
)  # fmt: skip
TLS_SERVER_KEY = Text(
    "tls-server-key",
    "",
    "PEM file of the server's private key.",
    choices='PEM file; "" = no STARTTLS',
    runtime=False,
    since="later",
    area="tls",
)
TLS_SERVER_KEY_PASS = Text(
    "tls-server-key-pass",
    "",
    "Pass phrase of that key.",
    choices='pass phrase; "" = none',
    runtime=False,
    since="later",
    area="tls",
    secret=True,
)
TLS_SERVER_DH = Text(
    "tls-server-dh", "", "PEM file of Diffie-Hellman parameters for old clients that know no elliptic curves.",
    choices='PEM file; "" = none', runtime=False, since="later", area="tls",
)  # fmt: skip

RENEWED = info(
    1170, "tls-server-cert=%s reloaded", "The files of certificate and key had changed, and new connections use what is in them now.",
    fields=("file",), since="later",
)  # fmt: skip
RENEWAL_FAILED = err(
    1171, "tls-server-cert=%s error: %s", "The files of certificate and key had changed and cannot be used. The old ones stay in use.",
    fields=("file", "error"), since="later",
)  # fmt: skip

RENEWAL_INTERVAL = 60.0
"""Seconds between looks at the files."""
MAX_NAMES = 100
"""Names of a client certificate that are kept."""


_NO_RENEGOTIATION = 1 << 30
"""``SSL_OP_NO_RENEGOTIATION``, which pyOpenSSL does not name."""


class TlsFilesError(ValueError):
    """A file of the ``tls-`` options cannot be used. ``str()`` names it and says why, for the operator."""


@attrs.frozen
class TlsFacts:
    """What is known of a TLS connection."""

    version: str
    """Such as ``TLSv1.3``."""
    cipher: str
    bits: int
    valid: str
    """The client's certificate: ``NONE``, ``FAIL`` or ``PASS``."""
    issuer: str = ""
    subject: str = ""
    names: tuple[str, ...] = ()
    """Common name and DNS names of the client's certificate, lower case."""

    @property
    def text(self) -> str:
        """As in the Received field and in #1023."""
        return f"{self.version} cipher={self.cipher} bits={self.bits}/{self.bits} valid={self.valid}"

    def matches(self, wanted: str) -> bool:
        """``wanted`` (``name`` or ``CN=name``, ``*.`` standing for one label or more) is a name of a valid certificate."""
        if self.valid != "PASS":
            return False
        name = wanted.strip().lower().removeprefix("cn=").strip()
        if name.startswith("*."):
            return any(known.endswith(name[1:]) and len(known) > len(name) - 1 for known in self.names)
        return name in self.names


class _ServerConnection(SSL.Connection):
    """Remembers whether the client's certificate chain held."""

    certificate_failed = False


@implementer(IOpenSSLServerConnectionCreator)
class ServerContext:
    """The server side of a handshake. One object serves every connection until the files change."""

    def __init__(self, context: SSL.Context) -> None:
        self._context = context

    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        return _ServerConnection(self._context, None)


@implementer(IOpenSSLClientConnectionCreator)
class OpportunisticClient:
    """The client side of a handshake in which any certificate will do: it hinders listeners, not impostors (RFC 7435)."""

    def __init__(self, context: SSL.Context, name: str) -> None:
        self._context = context
        self._name = name

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        if self._name:
            connection.set_tlsext_host_name(self._name.encode("ascii"))
        return connection


@attrs.frozen
class _Stamp:
    """Size and time of each file when it was read."""

    files: tuple[tuple[str, int, int], ...]

    @classmethod
    def of(cls, paths: tuple[str, ...]) -> _Stamp:
        found = []
        for path in paths:
            try:
                status = os.stat(path)
            except OSError:
                found.append((path, -1, -1))
            else:
                found.append((path, status.st_size, status.st_mtime_ns))
        return cls(tuple(found))


class TlsContexts:
    """Makes TLS contexts as the options say.

    Made at start, where it may block: TlsFilesError when a file cannot be used. ``start`` watches the files, and reads
    them in a thread.
    """

    def __init__(self, settings: Settings, journal: Journal) -> None:
        self._settings = settings
        self._journal = journal
        self._certificate = settings[TLS_SERVER_CERT]
        self._paths = tuple(
            path for path in (self._certificate, settings[TLS_SERVER_KEY], settings[TLS_SERVER_DH], settings[TLS_CERT_CHAIN_FILE]) if path
        )
        self._client_context = _client_context()
        self._watch: LoopingCall | None = None
        self._stamp = _Stamp.of(self._paths)
        self._server = self._load()

    @property
    def offered(self) -> bool:
        """A certificate and its key are configured: STARTTLS can be offered to clients."""
        return self._server is not None

    def server(self) -> ServerContext:
        """For ``startTLS`` towards a client; only when ``offered``."""
        assert self._server is not None
        return self._server

    def client(self, host: str, *, verify: bool = False) -> IOpenSSLClientConnectionCreator:
        """For ``startTLS`` towards next hop ``host`` (name or address, which is also announced by SNI when it is a name).

        ``verify``: the handshake fails unless the certificate is valid for ``host`` under tls-cert-chain-file, or else
        under the system's authorities. A name that no certificate can be for is never verified: TlsFilesError.
        """
        if not verify:
            return OpportunisticClient(self._client_context, "" if not _is_name(host) else host)
        try:
            return optionsForClientTLS(host, trustRoot=self._trust, extraCertificateOptions={"raiseMinimumTo": TLSVersion.TLSv1_2})
        except (ValueError, UnicodeError) as error:
            raise TlsFilesError(f"{host}: {error}") from error

    @cached_property
    def _trust(self) -> Any:
        """The authorities for next hops, read once when first needed."""
        chain = self._settings[TLS_CERT_CHAIN_FILE]
        if not chain:
            return platformTrust()
        try:
            certificates = x509.load_pem_x509_certificates(Path(chain).read_bytes())
        except (OSError, ValueError) as error:
            raise TlsFilesError(f"tls-cert-chain-file={chain}: {error}") from error
        authorities = [PeerAuthority(crypto.X509.from_cryptography(each)) for each in certificates]
        return trustRootFromCertificates(authorities)

    def _load(self) -> ServerContext | None:
        settings = self._settings
        if not (settings[TLS_SERVER_CERT] and settings[TLS_SERVER_KEY]):
            return None
        return ServerContext(_server_context(settings))

    def start(self, reactor: Any) -> None:
        """Look at the files every minute from now on."""
        if self._server is None:
            return
        self._watch = LoopingCall(self.renew, reactor)
        self._watch.clock = reactor
        self._watch.start(RENEWAL_INTERVAL, now=False)

    def stop(self) -> None:
        if self._watch is not None and self._watch.running:
            self._watch.stop()

    async def renew(self, reactor: Any) -> bool:
        """Take over files that have changed; whether it was done. Reads them in a thread of the reactor's pool."""
        return await deferToThreadPool(reactor, reactor.getThreadPool(), self._read_anew) and self._swap()

    def _read_anew(self) -> bool:
        stamp = _Stamp.of(self._paths)
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            self._fresh = self._load()
        except TlsFilesError as error:
            self._problem = str(error)
            self._fresh = None
        return True

    def _swap(self) -> bool:
        if self._fresh is None:
            self._journal.write(RENEWAL_FAILED, self._certificate, self._problem)
            return False
        self._server, self._fresh = self._fresh, None
        self._journal.write(RENEWED, self._certificate)
        return True

    _fresh: ServerContext | None = None
    _problem: str = ""


def facts(transport: Any) -> TlsFacts:
    """What is known of the TLS connection on ``transport`` once its handshake is over."""
    connection = transport.getHandle()
    certificate = connection.get_peer_certificate()
    version, cipher, bits = connection.get_protocol_version_name(), connection.get_cipher_name() or "", connection.get_cipher_bits() or 0
    if certificate is None:
        return TlsFacts(version, cipher, bits, "NONE")
    valid = "FAIL" if getattr(connection, "certificate_failed", True) else "PASS"
    try:
        plain = certificate.to_cryptography()
        return TlsFacts(version, cipher, bits, valid, _dn(plain.issuer), _dn(plain.subject), _names(plain))
    except ValueError:
        return TlsFacts(version, cipher, bits, "FAIL")


def _server_context(settings: Settings) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    _common(context)
    context.set_options(SSL.OP_CIPHER_SERVER_PREFERENCE | SSL.OP_SINGLE_DH_USE | SSL.OP_SINGLE_ECDH_USE)
    context.set_session_id(b"smtpf")
    with _blame(TLS_SERVER_CERT, settings):
        context.use_certificate_chain_file(settings[TLS_SERVER_CERT])
    with _blame(TLS_SERVER_KEY, settings):
        context.use_privatekey(_key(Path(settings[TLS_SERVER_KEY]), settings[TLS_SERVER_KEY_PASS]))
        context.check_privatekey()
    if settings[TLS_SERVER_DH]:
        with _blame(TLS_SERVER_DH, settings):
            context.load_tmp_dh(settings[TLS_SERVER_DH])
    chain, directory = settings[TLS_CERT_CHAIN_FILE], settings[TLS_CERT_DIR]
    if chain or directory:
        with _blame(TLS_CERT_CHAIN_FILE if chain else TLS_CERT_DIR, settings):
            context.load_verify_locations(chain or None, directory or None)
            if chain:
                context.load_client_ca(chain.encode())
        context.set_verify(SSL.VERIFY_PEER, _note)
    return context


def _key(path: Path, phrase: str) -> Any:
    """The private key; the pass phrase of a key that has none is not needed."""
    octets = path.read_bytes()
    try:
        key = load_pem_private_key(octets, phrase.encode() or None)
    except TypeError as error:
        if not phrase:
            raise ValueError("the key needs tls-server-key-pass") from error
        key = load_pem_private_key(octets, None)
    return key


def _client_context() -> SSL.Context:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    _common(context)
    context.set_verify(SSL.VERIFY_NONE)
    return context


def _common(context: SSL.Context) -> None:
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(SSL.OP_NO_COMPRESSION | _NO_RENEGOTIATION)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)


def _note(connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, good: int) -> bool:
    """Remember that a certificate failed, and go on: what follows from it is decided at RCPT."""
    if not good and isinstance(connection, _ServerConnection):
        connection.certificate_failed = True
    return True


class _blame:
    """Turn an error of OpenSSL into one that names the option."""

    def __init__(self, option: Text, settings: Settings) -> None:
        self._label = f"{option.name}={settings[option]}"

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, SSL.Error | OSError | ValueError):
            raise TlsFilesError(f"{self._label}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    detail = error.args[0] if error.args else None
    if isinstance(detail, list) and detail:
        return str(detail[-1][-1]) or "unusable"
    return str(error) or "unusable"


def _is_name(host: str) -> bool:
    return bool(host) and host.isascii() and not host.startswith("[") and ":" not in host and not host.replace(".", "").isdigit()


def _dn(name: x509.Name) -> str:
    return name.rfc4514_string()


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    names = [str(attribute.value) for attribute in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names += extension.value.get_values_for_type(x509.DNSName)
    except (x509.ExtensionNotFound, ValueError):
        pass
    return tuple(dict.fromkeys(name.lower() for name in names[:MAX_NAMES]))
