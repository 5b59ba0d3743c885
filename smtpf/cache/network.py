"""How connections between nodes are made: plain TCP, or TLS where both ends show certificates.

Source: spec chapter operations, 2.10.1 and 2.10.2.
"""

# pyOpenSSL's objects carry few types.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Collection
from typing import TYPE_CHECKING, Any, Protocol

from cryptography import x509
from OpenSSL import crypto
from twisted.internet.endpoints import SSL4ClientEndpoint, SSL4ServerEndpoint, TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IProtocol, IProtocolFactory
from twisted.internet.ssl import Certificate, CertificateOptions, PrivateCertificate, TLSVersion, trustRootFromCertificates

from smtpf.journal.message import err
from smtpf.settings.option import Text

if TYPE_CHECKING:
    from smtpf.journal.journal import Journal
    from smtpf.settings.store import Settings

CONNECT_SECONDS = 10
BACKLOG = 64

CLUSTER_TLS_CERT = Text(
    "cluster-tls-cert",
    "",
    "Certificate, in PEM, which this node shows to the others. Its alternative names must hold the name or address they know it by.",
    choices="file path",
    runtime=False,
    since="modern",
    area="cache",
)
CLUSTER_TLS_KEY = Text(
    "cluster-tls-key",
    "",
    "Private key of cluster-tls-cert, in PEM.",
    choices="file path",
    runtime=False,
    since="modern",
    area="cache",
)
CLUSTER_TLS_CA = Text(
    "cluster-tls-ca",
    "",
    "Certificates, in PEM, of the authority that signed those of all nodes."
    " With all three options set, nodes talk TLS; with none, cache-secret proves them.",
    choices="file path",
    runtime=False,
    since="modern",
    area="cache",
)
CLUSTER_LISTEN = Text(
    "cluster-listen",
    "",
    "Address on which this node is reached by the others; empty: all of them.",
    choices="IP",
    runtime=False,
    since="modern",
    area="cache",
)

TLS_INCOMPLETE = err(
    1112,
    "cluster-tls options incomplete",
    "Set cluster-tls-cert, cluster-tls-key and cluster-tls-ca, or none of them. The node does not start.",
    since="modern",
)


class NetworkError(Exception):
    """The options make no usable network; the reason has been logged."""


class Network(Protocol):
    """Where links come from."""

    tls: bool

    def listen(self, port: int, factory: IProtocolFactory) -> Awaitable[Any]:
        """Listen; the result has ``stopListening`` and ``getHost``. Raises CannotListenError."""

    def dial(self, address: str, port: int, factory: IProtocolFactory) -> Awaitable[IProtocol]:
        """Connect. Raises what the reactor raises."""


class TcpNetwork:
    """The network of a running node."""

    def __init__(self, reactor: Any, bind: str, options: CertificateOptions | None) -> None:
        self.tls = options is not None
        self._reactor = reactor
        self._bind = bind
        self._options = options

    async def listen(self, port: int, factory: IProtocolFactory) -> Any:
        if self._bind:
            return await self._listen(port, factory, self._bind)
        try:
            return await self._listen(port, factory, "::")
        except CannotListenError as error:
            # A machine without IPv6 cannot listen on both families at once.
            if getattr(error.socketError, "errno", 0) not in (97, 99):
                raise
            return await self._listen(port, factory, "")

    async def _listen(self, port: int, factory: IProtocolFactory, interface: str) -> Any:
        if self._options is None:
            return await TCP4ServerEndpoint(self._reactor, port, BACKLOG, interface).listen(factory)
        return await SSL4ServerEndpoint(self._reactor, port, self._options, BACKLOG, interface).listen(factory)

    async def dial(self, address: str, port: int, factory: IProtocolFactory) -> IProtocol:
        bind = (self._bind, 0) if self._bind and (":" in self._bind) == (":" in address) else None
        if self._options is None:
            plain: IProtocol = await TCP4ClientEndpoint(self._reactor, address, port, CONNECT_SECONDS, bind).connect(factory)
            return plain
        secured: IProtocol = await SSL4ClientEndpoint(self._reactor, address, port, self._options, CONNECT_SECONDS, bind).connect(factory)
        return secured


def network_of(settings: Settings, journal: Journal, reactor: Any) -> TcpNetwork:
    """The network that ``settings`` describe. Raises NetworkError (#1112, logged), OSError, ValueError or OpenSSL's error for bad files."""
    files = [settings[option] for option in (CLUSTER_TLS_CERT, CLUSTER_TLS_KEY, CLUSTER_TLS_CA)]
    if any(files) and not all(files):
        journal.write(TLS_INCOMPLETE)
        raise NetworkError("cluster-tls options incomplete")
    options = _options(*files) if all(files) else None
    return TcpNetwork(reactor, settings[CLUSTER_LISTEN], options)


def _options(cert: str, key: str, authority: str) -> CertificateOptions:
    with open(cert, "rb") as cert_file, open(key, "rb") as key_file, open(authority, "rb") as authority_file:
        own = PrivateCertificate.loadPEM(key_file.read() + b"\n" + cert_file.read())
        trusted = [Certificate(crypto.X509.from_cryptography(found)) for found in x509.load_pem_x509_certificates(authority_file.read())]
    return CertificateOptions(
        privateKey=own.privateKey.original,
        certificate=own.original,
        trustRoot=trustRootFromCertificates(trusted),
        raiseMinimumTo=TLSVersion.TLSv1_2,
    )


def shows_one_of(transport: Any, names: Collection[str]) -> bool:
    """Whether the certificate shown on ``transport`` has one of ``names`` (host names, addresses) as alternative name."""
    shown = transport.getPeerCertificate()
    if shown is None:
        return False
    try:
        found = shown.to_cryptography().extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return False
    alternatives = {name.rstrip(".").lower() for name in found.get_values_for_type(x509.DNSName)}
    alternatives |= {str(address) for address in found.get_values_for_type(x509.IPAddress)}
    return any(_plain(name) in alternatives for name in names)


def _plain(name: str) -> str:
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name.rstrip(".").lower()
