"""Certificates for a test: an authority, a server on this machine, and nodes whose common names are their ids."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

BOTH_SIDES = "subjectAltName=DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n"


def openssl(directory: Path, *arguments: str) -> None:
    """Run openssl in a folder."""
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True, timeout=30)


def make_certificate(directory: Path, name: str, subject: str, signer: str | None, extension: str) -> None:
    """A key and a certificate on the P-256 curve, valid for a day."""
    openssl(directory, "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{name}.key")
    request = ["req", "-new", "-key", f"{name}.key", "-subj", f"/CN={subject}"]
    if signer is None:
        openssl(directory, *request, "-x509", "-days", "1", "-out", f"{name}.crt")
        return
    (directory / f"{name}.ext").write_text(extension)
    openssl(directory, *request, "-out", f"{name}.csr")
    sign = ["x509", "-req", "-in", f"{name}.csr", "-CA", f"{signer}.crt", "-CAkey", f"{signer}.key", "-CAcreateserial"]
    openssl(directory, *sign, "-days", "1", "-extfile", f"{name}.ext", "-out", f"{name}.crt")


def make_certificates(directory: Path, nodes: Iterable[str]) -> None:
    """`ca`, `server` for localhost, and one for each node."""
    make_certificate(directory, "ca", "test authority", None, "")
    make_certificate(directory, "server", "localhost", "ca", "subjectAltName=DNS:localhost\n")
    for node in nodes:
        make_certificate(directory, node, node, "ca", "extendedKeyUsage=clientAuth\n")
