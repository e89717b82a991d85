"""What is said of certificates that cannot be used."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from edgemw.cli.main import main
from edgemw.core.errors import LinkError
from edgemw.transport.refusal import from_exception
from edgemw.transport.settings import TlsSettings
from edgemw.transport.tls import tls_context


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pki = tmp_path_factory.mktemp("pki") / "pki"
    assert main(["pki", "init", str(pki)]) == 0
    assert main(["pki", "issue", str(pki), "a", "b"]) == 0
    return pki / "nodes"


@pytest.mark.parametrize(
    ("cert", "key", "what", "where"),
    [
        ("a/cert.pem", "b/key.pem", "do not belong together", "b/key.pem"),
        ("a/cert.pem", "c/key.pem", "cannot be read (No such file", "c/key.pem"),
        ("a/key.pem", "a/key.pem", "cannot be loaded", "a/key.pem"),
    ],
)
def test_files_that_cannot_be_used_are_named(nodes: Path, cert: str, key: str, what: str, where: str) -> None:
    tls_context(TlsSettings(nodes / "a/ca.pem", nodes / "a/cert.pem", nodes / "a/key.pem"))
    with pytest.raises(LinkError) as caught:
        tls_context(TlsSettings(nodes / "a/ca.pem", nodes / cert, nodes / key))
    assert what in caught.value.what
    assert str(nodes / where) in str(caught.value.where)
    assert ("ca.pem" in str(caught.value.where)) == ("No such" not in what)


def test_files_of_another_user_are_named_and_end_in_no_traceback(
    nodes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(nodes / "a/ca.pem"))

    monkeypatch.setattr("edgemw.transport.tls.ssl.create_default_context", denied)
    monkeypatch.setattr("edgemw.transport.tls.os.access", lambda path, _: "key" in str(path))
    with pytest.raises(LinkError) as caught:
        tls_context(TlsSettings(nodes / "a/ca.pem", nodes / "a/cert.pem", nodes / "a/key.pem"))
    assert str(caught.value.where) == f"{nodes / 'a/ca.pem'}, {nodes / 'a/cert.pem'}"
    assert "may this user read them" in str(caught.value)
    capsys.readouterr()
    monkeypatch.setattr("edgemw.pki.authority.init", denied)
    assert main(["pki", "init", str(nodes / "a")]) == 1
    assert capsys.readouterr().err == f"edgemw: {nodes / 'a/ca.pem'}: Permission denied: run it as the user that owns it\n"


def test_a_certificate_that_the_broker_calls_revoked_is_not_one_of_an_unknown_authority() -> None:
    error = ssl.SSLError(1, "alert certificate revoked")
    error.reason = "SSL/TLS_ALERT_CERTIFICATE_REVOKED"  # as OpenSSL gives it
    assert "this certificate is revoked" in from_exception(error, "mqtts://localhost:8883").what
