"""Proof that a box comes from a member of the cluster, where no certificates are used.

Keys come from ``cache-secret`` and both ends' nonces, one for each direction; every box carries a number and a
keyed digest, so nothing can be forged, repeated, left out or sent back. Source: spec chapter operations, 2.10.3.
"""

from __future__ import annotations

import hashlib
import hmac

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from twisted.protocols.amp import AmpBox

NONCE = 32
"""Octets of a nonce."""
SHORTEST_SECRET = 16
"""Octets that ``cache-secret`` must have before nodes may talk."""
NUMBER, DIGEST = b"_q", b"_m"


class Forged(Exception):
    """A box whose number or digest is not what it must be."""


def key_for(secret: bytes, client_nonce: bytes, server_nonce: bytes, direction: bytes) -> bytes:
    """Key of one direction, ``c2s`` or ``s2c`` (RFC 5869)."""
    return HKDF(SHA256(), 32, salt=client_nonce + server_nonce, info=b"smtpf amp 1 " + direction).derive(secret)


class Seal:
    """Both directions of one connection."""

    def __init__(self, secret: bytes, client_nonce: bytes, server_nonce: bytes, *, is_client: bool) -> None:
        to_server = key_for(secret, client_nonce, server_nonce, b"c2s")
        to_client = key_for(secret, client_nonce, server_nonce, b"s2c")
        self._out, self._in = (to_server, to_client) if is_client else (to_client, to_server)
        self._sent = 0
        self._heard = 0

    def close(self, box: AmpBox) -> AmpBox:
        """``box`` with its number and digest."""
        self._sent += 1
        sealed = AmpBox(box)
        sealed[NUMBER] = b"%d" % self._sent
        sealed[DIGEST] = _digest(self._out, sealed)
        return sealed

    def open(self, box: AmpBox) -> AmpBox:
        """``box`` without them. Raises Forged."""
        opened = AmpBox(box)
        digest = opened.pop(DIGEST, b"")
        if not hmac.compare_digest(digest, _digest(self._in, opened)):
            raise Forged("wrong digest")
        if opened.pop(NUMBER, b"") != b"%d" % (self._heard + 1):
            raise Forged("wrong sequence number")
        self._heard += 1
        return opened


def _digest(key: bytes, box: AmpBox) -> bytes:
    return hmac.digest(key, box.serialize(), hashlib.sha256)
