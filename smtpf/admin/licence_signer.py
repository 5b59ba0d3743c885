"""``smtpf sign-licence KEY FIELDS``: make a licence key file from its fields and an Ed25519 private key.

For those who hand keys out; no node needs it. Source: spec chapter operations, 7 (the key generator's #412).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from smtpf.admin.licence import SIGNATURE, Refusal, parse_key, signed_text
from smtpf.journal.journal import Journal
from smtpf.journal.message import err

LOAD_ERROR = err(
    412,
    "%s load error: %s (%d)",
    "The program that makes licence keys cannot read the named file: the private key, or the fields of the key to be made.",
    fields=("file", "error", "errno"),
)
USAGE = "usage: smtpf sign-licence PRIVATE-KEY.pem FIELDS > lickey.txt\n"


def main(words: Sequence[str], out: TextIO | None = None, errors: TextIO | None = None) -> int:
    """Write the signed key to ``out``. 0 done, 1 not possible, 64 not understood."""
    out, errors = out or sys.stdout, errors or sys.stderr
    told = errors
    if len(words) != 2:
        told.write(USAGE)
        return 64
    journal = Journal(lambda entry: print(entry, file=told))
    path = words[0]
    try:
        private = load_pem_private_key(Path(path).read_bytes(), None)
        if not isinstance(private, Ed25519PrivateKey):
            raise ValueError("not an Ed25519 key")
        path = words[1]
        key = parse_key(Path(path).read_text("utf-8"))
    except (OSError, ValueError, TypeError) as error:
        journal.write(LOAD_ERROR, path, getattr(error, "strerror", None) or error, getattr(error, "errno", None) or 0)
        return 1
    if isinstance(key, Refusal):
        journal.write(key.message, *key.args)
        return 1
    fields = {name: value for name, value in key.fields.items() if name != SIGNATURE}
    public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
    out.write(f"# lickey-pubkey={public}\n")
    for name, value in fields.items():
        out.write(f"{name}={value}\n")
    out.write(f"{SIGNATURE}={private.sign(signed_text(fields)).hex()}\n")
    return 0
