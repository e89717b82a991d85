"""[security] in files: what does not go together is refused with its key, and every node of a deployment has paths of its own."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edgemw.app.deployment import expand, load_deployment
from edgemw.app.places import for_node
from edgemw.app.revocations import Revocations
from edgemw.app.sections import Security
from edgemw.app.settings import DeviceFile, FogFile
from edgemw.app.signing import check_signing
from edgemw.app.trust import Role, check_trust, credential_of, role_of, trust_of
from edgemw.cli.main import main
from edgemw.core.config.loader import load
from edgemw.core.config.secret import Secret
from edgemw.core.errors import ConfigError
from edgemw.wire.signed import ANYBODY
from tests.support.signing import Office

NODES = ("top", "fog-0", "fog-1", "device-0", "device-1", "device-2")
DEPLOYMENT = """\
name = "net"
[data]
source = "digits"
[security]
key = { file = "pki/nodes/{node}/sign.key" }
certificate = "pki/nodes/{node}/sign.pem"
ca = "pki/ca.pem"
[tiers.top]
role = "fog"
security = { evidence = "1MiB" }
[tiers.fog]
role = "fog"
parent = "top"
count = 2
security = { release_key = ["pki/nodes/top/sign.pem"] }
[tiers.device]
role = "device"
parent = "fog"
count = 3
security = { release_key = ["pki/nodes/top/sign.pem"] }
"""


@pytest.fixture(scope="module")
def office() -> Office:
    return Office()


@pytest.fixture
def folder(tmp_path: Path, office: Office) -> Path:
    """A deployment file with the keys of its nodes."""
    office.write(tmp_path / "pki", NODES)
    (tmp_path / "edgemw.toml").write_text(DEPLOYMENT)
    return tmp_path


def edited(folder: Path, old: str, new: str) -> Path:
    assert old in DEPLOYMENT
    path = folder / "edgemw.toml"
    path.write_text(DEPLOYMENT.replace(old, new))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        check_signing(load_deployment(path, None, {}), {})
    return f"{caught.value.key}: {caught.value.reason}"


def security(folder: Path, node: str, **changes: Any) -> Security:
    own = folder / "pki/nodes" / node
    pki = folder / "pki"
    full = Security(
        key=Secret(file=str(own / "sign.key"), beside=str(folder)),
        certificate=own / "sign.pem",
        ca=pki / "ca.pem",
        crl=pki / "crl.pem",
        release_key=(pki / "nodes/top/sign.pem",),
    )
    return replace(full, **changes)


def test_without_a_section_nobody_is_asked_for_anything() -> None:
    assert trust_of(Security(), "device-0", "device", {}) is ANYBODY
    assert credential_of(Security()) == b""


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('key = { file = "sign.key" }', "security.key"),
        ('certificate = "sign.pem"', "security.certificate"),
        ('crl = "crl.pem"', "security.crl"),
        ('evidence = "1MiB"', "security.evidence"),
        ('key = "-----BEGIN PRIVATE KEY-----"', "security.key"),
    ],
)
def test_half_of_what_is_needed_is_refused(text: str, key: str) -> None:
    whole = f'net = "net"\n[node]\nid = "fog-0"\nparent = "top"\n[security]\n{text}\n'
    with pytest.raises(ConfigError) as caught:
        load(FogFile, whole, "fog.toml", cwd=Path("/"))
    assert caught.value.key == key
    assert caught.value.line is not None
    assert "BEGIN" not in str(caught.value)


def test_every_node_of_a_deployment_gets_paths_of_its_own_and_its_file_says_the_same(folder: Path) -> None:
    settings = load_deployment(folder / "edgemw.toml", None, {})
    assert check_signing(settings, {}) == ()
    data = {f"device-{n}": folder / "data.npz" for n in range(3)}
    for spec in expand(settings, "mqtt://127.0.0.1:1883", folder / "out", data):
        said = spec.settings.security
        assert said.certificate == folder / "pki/nodes" / spec.id / "sign.pem"
        again = load(type(spec.settings), spec.text, str(spec.path), cwd=Path("/")).value
        assert isinstance(again, DeviceFile | FogFile)
        assert again.security == said
        trust = trust_of(again.security, spec.id, role_of(again), {})
        assert trust.signer is not None
        assert (trust.senders is None) == (spec.role == "device")
        assert trust.releases is not None  # the top asks its own key of proposals


def test_names_are_put_into_secrets_paths_and_lists(folder: Path) -> None:
    named = for_node(
        Security(key=Secret(file="a/{node}"), certificate=Path("/{node}/b"), release_key=(Path("/{node}/c"),)), "n-1"
    )
    assert named == Security(key=Secret(file="a/n-1"), certificate=Path("/n-1/b"), release_key=(Path("/n-1/c"),))


def test_signatures_that_nobody_makes_are_refused(folder: Path) -> None:
    keys = 'key = { file = "pki/nodes/{node}/sign.key" }\ncertificate = "pki/nodes/{node}/sign.pem"\n'
    assert "nobody signs releases: give tiers.top.security.key" in refusal(edited(folder, keys, ""))
    only_top = edited(folder, keys, "").read_text().replace("[tiers.top]\n", '[tiers.top]\n').replace(
        'security = { evidence = "1MiB" }', 'security = { key = { file = "k" }, certificate = "c" }'
    )  # fmt: skip
    (folder / "edgemw.toml").write_text(only_top)
    assert refusal(folder / "edgemw.toml").startswith("tiers.fog.security.key: top takes only updates that are signed")


def test_release_keys_without_that_of_the_top_are_refused(folder: Path) -> None:
    path = edited(
        folder,
        'count = 3\nsecurity = { release_key = ["pki/nodes/top/',
        'count = 3\nsecurity = { release_key = ["pki/nodes/fog-0/',
    )
    assert refusal(path) == "tiers.device.security.release_key: none of these keys is that of top, which signs the releases"


def test_release_keys_in_the_folder_of_each_node_are_those_of_that_node(folder: Path) -> None:
    text = DEPLOYMENT.replace("pki/nodes/top/sign.pem", "pki/nodes/{node}/release.pem")
    (folder / "edgemw.toml").write_text(text)
    nodes = folder / "pki/nodes"
    for node in NODES:
        (nodes / node / "release.pem").write_bytes((nodes / ("fog-1" if node == "top" else "top") / "sign.pem").read_bytes())
    assert check_signing(load_deployment(folder / "edgemw.toml", None, {}), {}) == ()
    (nodes / "device-2/release.pem").write_bytes((nodes / "device-1/sign.pem").read_bytes())
    assert refusal(folder / "edgemw.toml").startswith("tiers.device.security.release_key: none of these keys is that of top")


def test_a_node_of_a_tier_whose_files_are_wrong_is_named(folder: Path) -> None:
    (folder / "pki/nodes/device-2/sign.pem").write_bytes((folder / "pki/nodes/device-1/sign.pem").read_bytes())
    assert refusal(folder / "edgemw.toml").startswith("tiers.device.security.certificate: device-2: ")
    (folder / "pki/nodes/device-1/sign.key").chmod(0o644)
    (folder / "pki/nodes/device-2/sign.pem").unlink()
    problems = check_signing(load_deployment(folder / "edgemw.toml", None, {}), {})
    assert [problem.partition(":")[0] for problem in problems] == ["tiers.device.security.key"]


@pytest.mark.parametrize(
    ("name", "content", "key", "about"),
    [
        ("nodes/device-0/sign.key", b"junk", "security.key", "not a private key"),
        ("nodes/device-0/sign.key", b"", "security.key", "empty"),
        ("nodes/device-0/sign.pem", b"junk", "security.certificate", "not a certificate"),
        ("nodes/top/sign.pem", b"junk", "security.release_key", "neither a public key"),
        ("ca.pem", b"junk", "security.ca", "not a certificate"),
        ("crl.pem", b"junk", "security.crl", "not a certificate revocation list"),
    ],
)
def test_files_that_are_something_else_are_refused_with_their_key(
    folder: Path, name: str, content: bytes, key: str, about: str
) -> None:
    (folder / "pki" / name).write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        check_trust(security(folder, "device-0"), "device-0", "fog", {})
    assert (caught.value.key, about in caught.value.reason) == (key, True)


def test_certificates_of_others_are_refused(folder: Path, office: Office) -> None:
    with pytest.raises(ConfigError, match="is of device-0, not of device-1"):
        check_trust(security(folder, "device-0"), "device-1", "device", {})
    with pytest.raises(ConfigError, match=r"is not of the key in security\.key"):
        check_trust(security(folder, "device-0", certificate=folder / "pki/nodes/device-1/sign.pem"), "device-0", "device", {})
    Office().write(folder / "other", ["device-0"])
    with pytest.raises(ConfigError, match="authority"):
        check_trust(security(folder, "device-0", ca=folder / "other/ca.pem", crl=None), "device-0", "device", {})
    with pytest.raises(ConfigError, match="not a list of the authority"):
        check_trust(security(folder, "device-0", crl=folder / "other/crl.pem"), "device-0", "device", {})
    with pytest.raises(ConfigError, match="not the certificate of an authority"):
        check_trust(security(folder, "device-0", ca=folder / "pki/nodes/top/sign.pem", crl=None), "device-0", "device", {})


def test_files_that_are_not_here_are_a_warning_of_check_and_an_error_of_a_node(folder: Path) -> None:
    there = security(folder, "device-0", ca=folder / "nowhere.pem")
    assert check_trust(there, "device-0", "device", {}) == (f"security.ca: there is no file {folder / 'nowhere.pem'}",)
    with pytest.raises(ConfigError, match=r"nowhere\.pem: No such file"):
        trust_of(there, "device-0", "device", {})


def test_check_says_the_line_of_a_key_that_does_not_fit(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pki = folder / "pki"
    text = f"""net = "net"
[node]
id = "device-0"
parent = "fog-0"
[security]
key = {{ file = "{pki}/nodes/device-0/sign.key" }}
certificate = "{pki}/nodes/device-1/sign.pem"
"""
    path = folder / "device.toml"
    path.write_text(text)
    assert main(["check", str(path), "--kind", "device", "--json"]) == 3
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["key"], error["line"]) == ("security.certificate", 7)
    path.write_text(text.replace("device-1/sign.pem", "device-0/sign.pem"))
    assert main(["check", str(path), "--kind", "device", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert not [warning for warning in document["warnings"] if "security" in warning]
    assert document["facts"]["signatures"] == "signs"
    assert main(["check", str(folder / "edgemw.toml"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["facts"]["signatures"] == "signs, takes only signed updates"


def test_a_list_that_changes_holds_without_a_restart(folder: Path) -> None:
    bureau = Office(at=datetime.now(UTC))
    own = folder / "own"
    bureau.write(own, ["fog-0", "device-0"])
    trust = trust_of(Security(ca=own / "ca.pem", crl=own / "crl.pem"), "fog-0", "fog", {})
    senders = trust.senders
    assert senders is not None
    assert trust.revoke is not None
    revocations = Revocations(own / "crl.pem", trust.revoke)
    assert senders.learn("device-0", bureau.der("device-0")) == ""
    for content in (b"a list that is being written", Office().revoked().public_bytes(Encoding.PEM)):
        (own / "crl.pem").write_bytes(content)
        revocations.look()
        assert senders.learn("device-0", bureau.der("device-0")) == ""
    (own / "crl.pem").unlink()
    revocations.look()
    bureau.revoke("device-0")
    bureau.write(own, [])
    assert senders.learn("device-0", bureau.der("device-0")) == ""
    revocations.look()
    assert "revoked" in senders.learn("device-0", bureau.der("device-0"))


@pytest.mark.parametrize(
    ("node", "role", "keys"), [("device-0", "device", ("top",)), ("fog-0", "fog", ("top",)), ("top", "top", ("author", "top"))]
)
def test_what_a_revoked_release_key_signs_is_taken_no_longer(folder: Path, node: str, role: Role, keys: tuple[str, ...]) -> None:
    bureau = Office(at=datetime.now(UTC))
    pki = folder / "pki"
    bureau.write(pki, [node, *keys])
    release_key = tuple(pki / "nodes" / key / "sign.pem" for key in keys if key != node)  # a top always believes its own
    said = security(folder, node, release_key=release_key)
    trust = trust_of(said, node, role, {})
    assert trust.releases is not None
    assert trust.revoke is not None
    revocations = Revocations(pki / "crl.pem", trust.revoke)
    for key in keys:
        signature = bureau.keys[key].sign(b"text")
        assert trust.releases.signed(b"text", signature)
        bureau.revoke(key)
        bureau.write(pki, [])
        revocations.look()
        assert not trust.releases.signed(b"text", signature)
        again = trust_of(said, node, role, {}).releases
        assert again is not None
        assert not again.signed(b"text", signature)
    assert check_trust(said, node, role, {}) == tuple(
        f"security.release_key: {path} is revoked, and nothing that it signs is taken" for path in release_key
    )


def test_a_release_key_that_is_no_certificate_of_the_authority_is_not_on_its_list(folder: Path) -> None:
    bureau, other = Office(at=datetime.now(UTC)), Office("another", at=datetime.now(UTC))
    pki = folder / "pki"
    bureau.write(pki, ["device-0", "top"])
    other.write(folder / "other", ["top"])
    bare = other.keys["top"].public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / "bare.pem").write_bytes(bare)
    bureau.revoke("top")
    bureau.write(pki, [])
    for path in (folder / "bare.pem", folder / "other/nodes/top/sign.pem"):
        said = security(folder, "device-0", release_key=(path,))
        releases = trust_of(said, "device-0", "device", {}).releases
        assert releases is not None
        assert releases.signed(b"text", other.keys["top"].sign(b"text"))
        assert check_trust(said, "device-0", "device", {}) == ()
