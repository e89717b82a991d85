"""docker/certificates.sh: what it makes once it leaves alone, and what it must not touch it refuses."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.compose import certificates, document


def contents(folder: Path) -> dict[str, bytes]:
    """Every file that a container is given, but for the list of revoked certificates."""
    paths = [
        folder / "ca.crt",
        folder / "server.crt",
        folder / "server.key",
        folder / "grafana-password",
        *folder.glob("nodes/*"),
    ]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def openssl(*words: str | Path) -> str:
    return subprocess.run(["openssl", *map(str, words)], capture_output=True, text=True, check=True, timeout=30).stdout


def test_it_makes_every_secret_of_the_compose_file_and_a_second_time_nothing(tmp_path: Path) -> None:
    said = certificates(tmp_path)
    assert "made an authority" in said
    for secret in document()["secrets"].values():
        assert (tmp_path / secret["file"].removeprefix("secrets/")).is_file(), secret
    before = contents(tmp_path)
    assert "made" not in certificates(tmp_path)
    assert contents(tmp_path) == before


def test_others_on_this_machine_reach_no_key(tmp_path: Path) -> None:
    certificates(tmp_path, "device-0")
    assert tmp_path.stat().st_mode & 0o077 == 0
    assert (tmp_path / "ca.key").stat().st_mode & 0o077 == 0
    assert sorted(path.name for path in (tmp_path / "nodes").iterdir()) == ["device-0.pem"]


def test_a_certificate_says_whose_it_is_and_is_of_the_authority(tmp_path: Path) -> None:
    certificates(tmp_path, "device-0", BROKER="DNS:mqtt.example,IP:192.0.2.1")
    node = tmp_path / "nodes/device-0.pem"
    assert "CN = device-0" in openssl("x509", "-in", node, "-noout", "-subject", "-nameopt", "oneline")
    assert openssl("verify", "-CAfile", tmp_path / "ca.crt", "-purpose", "sslclient", node).endswith("OK\n")
    openssl("verify", "-CAfile", tmp_path / "ca.crt", "-purpose", "sslserver", tmp_path / "server.crt")
    certificates(tmp_path, "device-1")  # which does not know the broker's names
    names = openssl("x509", "-in", tmp_path / "server.crt", "-noout", "-ext", "subjectAltName")
    assert "DNS:broker, DNS:localhost, IP Address:127.0.0.1, DNS:mqtt.example, IP Address:192.0.2.1" in names


def test_a_revoked_node_is_on_the_list_and_stays_there(tmp_path: Path) -> None:
    certificates(tmp_path, "device-0", "device-1")
    certificates(tmp_path, REVOKE="device-0")
    certificates(tmp_path, "device-0", "device-1")
    serial = openssl("x509", "-in", tmp_path / "nodes/device-0.pem", "-noout", "-serial").strip().removeprefix("serial=")
    revoked = openssl("crl", "-in", tmp_path / "crl.pem", "-noout", "-text")
    assert revoked.count("Serial Number:") == 1
    assert serial in revoked


def test_a_revoked_node_gets_no_other_certificate_by_itself(tmp_path: Path) -> None:
    certificates(tmp_path, "device-0", "device-1")
    certificates(tmp_path, REVOKE="device-0")
    assert "revoked device-0" in certificates(tmp_path, REVOKE="device-0")
    for node in ("device-0", "device-1"):
        (tmp_path / f"nodes/{node}.pem").unlink()  # as if it had ended
    said = certificates(tmp_path, "device-0", "device-1")
    assert "device-0 is revoked" in said
    assert "made a certificate of device-1" in said
    assert not (tmp_path / "nodes/device-0.pem").exists()
    (tmp_path / "nodes.revoked").write_text("")
    assert "made a certificate of device-0" in certificates(tmp_path, "device-0")
    openssl(
        "verify", "-crl_check", "-CAfile", tmp_path / "ca.crt", "-CRLfile", tmp_path / "crl.pem", tmp_path / "nodes/device-0.pem"
    )


@pytest.mark.parametrize("name", ["../x", "A", "a b", ""])
def test_a_name_that_is_no_node_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        certificates(tmp_path, name)
    assert refused.value.returncode == 2
    assert "is not the name of a node" in refused.value.stderr
    assert list((tmp_path / "nodes").iterdir()) == []


def test_who_is_not_there_cannot_be_revoked(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        certificates(tmp_path, REVOKE="nobody")
    assert refused.value.returncode == 2
    assert "there is no" in refused.value.stderr
