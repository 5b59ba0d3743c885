"""Certificates made with openssl, one small authority for each test folder."""

from __future__ import annotations

import subprocess
from pathlib import Path


class Authority:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.certificate = folder / "ca.pem"
        self._openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
            "-subj", "/CN=Test Authority", "-keyout", str(folder / "ca.key"), "-out", str(self.certificate),
        )  # fmt: skip

    def issue(self, name: str, *, days: int = 30, alternatives: tuple[str, ...] = (), passphrase: str = "") -> tuple[Path, Path]:
        """Certificate and key for ``name`` (common name) and ``alternatives`` (DNS names). ``days`` below 0: expired."""
        key, request, certificate, extensions = (self.folder / f"{name}.{ending}" for ending in ("key", "csr", "pem", "ext"))
        self._openssl(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-subj", f"/O=Test/CN={name}", "-keyout", str(key), "-out", str(request),
        )  # fmt: skip
        if passphrase:
            self._openssl("ec", "-aes256", "-passout", f"pass:{passphrase}", "-in", str(key), "-out", str(key) + ".enc")
            key = Path(str(key) + ".enc")
        extensions.write_text("subjectAltName=" + ",".join(f"DNS:{each}" for each in (name, *alternatives)) + "\n")
        self._openssl(
            "x509", "-req", "-in", str(request), "-CA", str(self.certificate), "-CAkey", str(self.folder / "ca.key"), "-CAcreateserial",
            "-days", str(days), "-extfile", str(extensions), "-out", str(certificate),
        )  # fmt: skip
        return certificate, key

    @staticmethod
    def _openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True)
