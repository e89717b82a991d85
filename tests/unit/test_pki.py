"""The small authority: what it signs, what it keeps, and what it refuses."""

from __future__ import annotations

import datetime
import json
import os
import stat
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID as Use
from hypothesis import given
from hypothesis import strategies as st

from edgemw.app.identities import certificate_problem
from edgemw.app.places import identity_settings
from edgemw.cli.main import main
from edgemw.core.errors import ConfigError
from edgemw.pki import authority
from edgemw.pki.issued import Index, Issued, index_bytes, read_index

NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
DAY = datetime.timedelta(days=1)


@pytest.fixture
def pki(tmp_path: Path) -> Path:
    authority.init(tmp_path / "pki", None, NOW)
    return tmp_path / "pki"


def issue(pki: Path, *names: str, days: int = 365, renew: bool = False, now: datetime.datetime = NOW) -> None:
    with authority.opened(pki, None) as signer:
        signer.issue_nodes(names, now, days, renew=renew)


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def common_name(made: x509.Certificate) -> list[str]:
    return [str(attribute.value) for attribute in made.subject]


def key_of(path: Path) -> object:
    return serialization.load_pem_private_key(path.read_bytes(), None)


def revoked(pki: Path) -> set[int]:
    made = x509.load_pem_x509_crl((pki / "crl.pem").read_bytes())
    assert made.is_signature_valid(certificate(pki / "ca.pem").public_key())  # type: ignore[arg-type]  # it is a P-256 key
    return {entry.serial_number for entry in made}


def modes(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): oct(stat.S_IMODE(p.stat().st_mode)) for p in (folder, *folder.rglob("*"))}


# ------------------------------------------------------------------------------------------------------ what is signed


def test_a_node_is_given_its_own_files_and_nothing_else(pki: Path) -> None:
    issue(pki, "device-0")
    node = pki / "nodes/device-0"
    assert sorted(path.name for path in node.iterdir()) == ["ca.pem", "cert.pem", "key.pem", "sign.key", "sign.pem"]
    assert (node / "ca.pem").read_bytes() == (pki / "ca.pem").read_bytes()
    tls, sign = certificate(node / "cert.pem"), certificate(node / "sign.pem")
    ca = certificate(pki / "ca.pem")
    for made, key, use in ((tls, node / "key.pem", Use.CLIENT_AUTH), (sign, node / "sign.key", Use.CODE_SIGNING)):
        made.verify_directly_issued_by(ca)
        assert common_name(made) == ["device-0"]
        assert key_of(key).public_key() == made.public_key()  # type: ignore[attr-defined]
        assert list(made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [use]
        usage = made.extensions.get_extension_for_class(x509.KeyUsage)
        assert usage.critical
        assert usage.value.digital_signature
        assert not usage.value.key_cert_sign
        assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        assert made.not_valid_after_utc == NOW + 365 * DAY
    assert isinstance(key_of(node / "key.pem"), ec.EllipticCurvePrivateKey)
    assert isinstance(key_of(node / "sign.key"), ed25519.Ed25519PrivateKey)
    assert sign.extensions.get_extension_for_class(x509.ExtendedKeyUsage).critical


def test_the_authority_may_sign_nodes_and_no_further_authorities(pki: Path) -> None:
    ca = certificate(pki / "ca.pem")
    limits = ca.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (limits.critical, limits.value.ca, limits.value.path_length) == (True, True, 0)
    assert ca.not_valid_after_utc == NOW + 3650 * DAY
    assert isinstance(ca.public_key(), ec.EllipticCurvePublicKey)


def test_a_broker_is_known_by_names_and_addresses(pki: Path) -> None:
    with authority.opened(pki, None) as signer:
        signer.issue_broker(["mqtt.example", "192.0.2.1", "::1"], NOW, 10)
    made = certificate(pki / "broker/cert.pem")
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["mqtt.example"]
    assert names.get_values_for_type(x509.IPAddress) == [ip_address("192.0.2.1"), ip_address("::1")]
    assert list(made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [Use.SERVER_AUTH]
    assert sorted(path.name for path in (pki / "broker").iterdir()) == ["ca.pem", "cert.pem", "key.pem"]


@pytest.mark.parametrize(
    ("name", "purpose", "good"), [("cert", "sslclient", True), ("sign", "sslclient", False), ("cert", "sslserver", False)]
)
def test_openssl_takes_each_certificate_for_its_own_purpose_only(pki: Path, name: str, purpose: str, good: bool) -> None:
    issue(pki, "device-0")
    files = ("-CAfile", pki / "ca.pem", "-CRLfile", pki / "crl.pem", pki / f"nodes/device-0/{name}.pem")
    command = ["openssl", "verify", "-x509_strict", "-crl_check", "-purpose", purpose, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode == 0) == good, done.stderr
    assert good or "purpose" in done.stderr


def test_nothing_outlives_its_authority(tmp_path: Path) -> None:
    authority.init(tmp_path / "pki", None, NOW, days=30)
    issue(tmp_path / "pki", "device-0")
    assert certificate(tmp_path / "pki/nodes/device-0/cert.pem").not_valid_after_utc == NOW + 30 * DAY


def test_others_on_this_machine_read_no_key(pki: Path) -> None:
    old = os.umask(0)
    try:
        issue(pki, "device-0")
    finally:
        os.umask(old)
    found = modes(pki)
    secret = {"ca.key", "issued.json", "nodes/device-0/key.pem", "nodes/device-0/sign.key"}
    assert {name for name in found if name.endswith((".key", "key.pem", "issued.json"))} == secret
    assert {found[name] for name in secret} == {"0o600"}
    assert found["."] == found["nodes/device-0"] == "0o700"
    assert not list(pki.rglob("*.new"))


# ---------------------------------------------------------------------------------------------------- renew and revoke


def test_keys_are_replaced_only_where_that_is_said(pki: Path) -> None:
    issue(pki, "device-0")
    before = {path.name: path.read_bytes() for path in (pki / "nodes/device-0").iterdir()}
    with pytest.raises(ConfigError, match=r"device-0 has keys, until .*: --renew makes others"):
        issue(pki, "device-1", "device-0")
    assert not (pki / "nodes/device-1").exists()
    assert {path.name: path.read_bytes() for path in (pki / "nodes/device-0").iterdir()} == before
    issue(pki, "device-0", renew=True)
    after = {path.name: path.read_bytes() for path in (pki / "nodes/device-0").iterdir()}
    assert [name for name in before if before[name] == after[name]] == ["ca.pem"]


def test_who_is_revoked_is_so_with_all_that_was_ever_handed_out(pki: Path) -> None:
    issue(pki, "device-0", "device-1")
    old = {certificate(pki / f"nodes/device-0/{name}.pem").serial_number for name in ("cert", "sign")}
    issue(pki, "device-0", renew=True)
    new = {certificate(pki / f"nodes/device-0/{name}.pem").serial_number for name in ("cert", "sign")}
    assert revoked(pki) == set()
    with authority.opened(pki, None) as signer:
        signer.revoke(["device-0"], NOW)
    assert revoked(pki) == old | new
    with pytest.raises(ConfigError, match="device-0 is revoked: --renew lets it in again"):
        issue(pki, "device-0")
    issue(pki, "device-0", renew=True)
    assert revoked(pki) == old | new
    with authority.opened(pki, None) as signer:
        signer.revoke(["device-0", "device-1"], NOW)
    assert len(revoked(pki)) == 8


def test_lists_are_numbered_and_hold_as_long_as_the_authority(pki: Path) -> None:
    issue(pki, "a", "b")
    numbers = []
    for name in ("a", "b"):
        with authority.opened(pki, None) as signer:
            signer.revoke([name], NOW)
        made = x509.load_pem_x509_crl((pki / "crl.pem").read_bytes())
        numbers.append(made.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number)
        assert made.next_update_utc == certificate(pki / "ca.pem").not_valid_after_utc
    assert numbers == [2, 3]


def test_what_has_ended_is_forgotten_when_something_is_issued(pki: Path) -> None:
    issue(pki, "old", days=1)
    with authority.opened(pki, None) as signer:
        signer.revoke(["old"], NOW)
    issue(pki, "new", now=NOW + 2 * DAY)
    assert {each.name for each in read_index(pki / "issued.json").certificates} == {"new"}


def test_who_has_nothing_cannot_be_revoked_and_then_nobody_is(pki: Path) -> None:
    issue(pki, "device-0")
    with authority.opened(pki, None) as signer:
        with pytest.raises(ConfigError, match=r"nothing was issued to 'device-00'.*did you mean 'device-0'"):
            signer.revoke(["device-0", "device-00"], NOW)
        signer.revoke(["device-0"], NOW)
        with pytest.raises(ConfigError, match="has no certificate that holds"):
            signer.revoke(["device-0"], NOW)


# ------------------------------------------------------------------------------------------------------- what is refused


def test_an_authority_is_not_made_twice(pki: Path) -> None:
    before = (pki / "ca.key").read_bytes()
    with pytest.raises(ConfigError, match="there is an authority already"):
        authority.init(pki, None, NOW)
    (pki / "issued.json").unlink()
    with pytest.raises(ConfigError, match="there is a part of an authority"):
        authority.init(pki, None, NOW)
    assert (pki / "ca.key").read_bytes() == before


def test_names_may_stand_behind_flags(pki: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "issue", pki, "--days", "9", "a", "b")[0] == 0
    assert run(capsys, "issue", pki, "--renew", "b")[0] == 0
    assert [each.name for each in read_index(pki / "issued.json").certificates] == ["a", "a", "b", "b", "b", "b"]
    with pytest.raises(SystemExit):
        main(["pki", "issue", str(pki), "--renwe", "b"])
    with pytest.raises(SystemExit):
        main(["pki", "list", str(pki), "b"])
    assert run(capsys, "issue", pki, "--broker", "--host", "::1", "--host", "192.0.2.1")[0] == 0


def test_two_commands_at_once_do_not_lose_what_either_issued(pki: Path) -> None:
    with (
        authority.opened(pki, None),
        pytest.raises(Exception, match="another `edgemw pki` is at work here"),
        authority.opened(pki, None),
    ):
        pass


def test_a_passphrase_is_needed_where_one_was_given(tmp_path: Path) -> None:
    closed, open_ = tmp_path / "closed", tmp_path / "open"
    authority.init(closed, "right", NOW)
    authority.init(open_, None, NOW)
    for folder, passphrase, says in (
        (closed, None, "--passphrase-file or --passphrase-env"),
        (closed, "wrong", "the passphrase is wrong"),
        (open_, "right", "is not closed with a passphrase"),
    ):
        with pytest.raises(ConfigError, match=says), authority.opened(folder, passphrase):
            pass
    with authority.opened(closed, "right") as signer:
        signer.issue_nodes(["device-0"], NOW, 1)
    assert b"ENCRYPTED" in (closed / "ca.key").read_bytes()
    assert b"ENCRYPTED" not in (closed / "nodes/device-0/key.pem").read_bytes()


@pytest.mark.parametrize(
    ("name", "damage", "says"),
    [
        ("issued.json", b"{", "is not the list of what was issued"),
        ("issued.json", b'{"format": 2, "lists": 0, "certificates": []}', "format 2"),
        ("issued.json", b'{"format": 1, "lists": 0, "certificates": [{"kind": "x"}]}', "kind 'x'"),
        ("ca.key", b"nothing", "is not the key of an authority"),
        ("ca.pem", b"nothing", "is not a certificate"),
    ],
)
def test_damaged_files_are_refused_by_name(pki: Path, name: str, damage: bytes, says: str) -> None:
    (pki / name).write_bytes(damage)
    with pytest.raises(ConfigError, match=says) as refused, authority.opened(pki, None):
        pass
    assert refused.value.file == str(pki / name)


@pytest.mark.parametrize(
    ("name", "says"), [("issued.json", "edgemw pki init"), ("ca.key", "kept elsewhere"), ("ca.pem", "cannot be read")]
)
def test_missing_files_are_refused_by_name(pki: Path, name: str, says: str) -> None:
    (pki / name).unlink()
    with pytest.raises(ConfigError, match=says), authority.opened(pki, None):
        pass


def test_the_key_of_another_authority_is_refused(pki: Path, tmp_path: Path) -> None:
    authority.init(tmp_path / "other", None, NOW)
    (pki / "ca.key").write_bytes((tmp_path / "other/ca.key").read_bytes())
    with pytest.raises(ConfigError, match=r"is not the key of ca.pem beside it"), authority.opened(pki, None):
        pass


@given(
    st.lists(
        st.builds(
            Issued,
            name=st.from_regex(r"[a-z0-9-]{1,40}", fullmatch=True),
            kind=st.sampled_from(["node", "sign", "broker"]),
            serial=st.integers(0, 1 << 160),
            until=st.datetimes(timezones=st.just(datetime.UTC)),
            revoked=st.none() | st.datetimes(timezones=st.just(datetime.UTC)),
            hosts=st.lists(st.text(max_size=20), max_size=3).map(tuple),
        ),
        max_size=5,
    ).map(tuple),
    st.integers(0, 1 << 30),
    st.sampled_from(["", "top"]),
)
def test_the_index_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, rows: tuple[Issued, ...], lists: int, top: str
) -> None:
    path = tmp_path_factory.mktemp("index") / "issued.json"
    path.write_bytes(index_bytes(Index(rows, lists, top)))
    assert read_index(path) == Index(rows, lists, top)


# -------------------------------------------------------------------------------------------------------- command line


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main(["pki", *map(str, words)])
    said = capsys.readouterr()
    return code, said.out, said.err


DEPLOYMENT = """schema = 1
name = "n"
[data]
source = "digits"
[tiers.top]
role = "fog"
[tiers.device]
role = "device"
parent = "top"
count = 2
"""


def test_one_command_makes_everything_of_a_deployment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, pki = tmp_path / "edgemw.toml", tmp_path / "pki"
    file.write_text(DEPLOYMENT)
    code, out, _ = run(capsys, "init", pki, "--for", file, "--host", "localhost", "--asker", "kiosk", "--json")
    names = ["top", "device-0", "device-1", "kiosk", "author", "monitor"]
    assert (code, json.loads(out)) == (0, {"folder": str(pki), "issued": names, "broker": ["localhost"]})
    assert sorted(path.name for path in (pki / "nodes").iterdir()) == sorted(names)
    code, out, _ = run(capsys, "issue", pki, "--for", file, "--set", "tiers.device.count=3", "--asker", "kiosk", "--json")
    assert json.loads(out) == {
        "folder": str(pki),
        "issued": ["device-2"],
        "kept": names,
        "revoked": [],
        "stale": [],
        "broker": [],
    }


def test_who_is_revoked_is_let_in_again_by_name_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, pki = tmp_path / "edgemw.toml", tmp_path / "pki"
    file.write_text(DEPLOYMENT)
    run(capsys, "init", pki, "--for", file)
    assert run(capsys, "revoke", pki, "device-1")[0] == 0
    more = ("issue", pki, "--for", file, "--set", "tiers.device.count=3")
    code, out, _ = run(capsys, *more)
    assert (code, out.splitlines()[0]) == (0, f"device-2: {pki}/nodes/device-2")
    assert f"revoked, and left so: device-1 (name one to let it in again: edgemw pki issue {pki} NAME --renew)" in out
    old = revoked(pki)
    key = (pki / "nodes/device-1/key.pem").read_bytes()
    code, out, _ = run(capsys, *more, "--renew", "--json")
    said = json.loads(out)
    assert (code, said["revoked"], said["kept"]) == (0, ["device-1"], [])
    assert sorted(said["issued"]) == ["author", "device-0", "device-2", "monitor", "top"]
    assert (pki / "nodes/device-1/key.pem").read_bytes() == key
    code, _, err = run(capsys, "issue", pki, "device-1", "--for", file)  # by its name, but its keys are not to be replaced
    assert (code, "device-1 is revoked: --renew lets it in again" in err) == (3, True)
    assert json.loads(run(capsys, "issue", pki, "device-1", "--renew", "--json")[1])["issued"] == ["device-1"]
    assert (pki / "nodes/device-1/key.pem").read_bytes() != key
    assert revoked(pki) == old


def test_a_folder_of_a_node_has_all_that_its_file_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, pki = tmp_path / "edgemw.toml", tmp_path / "pki"
    file.write_text(DEPLOYMENT)
    run(capsys, "init", pki)
    assert "no release.pem, for nobody has said who the top is: add --for FILE" in run(capsys, "issue", pki, "device-8")[1]
    code, out, _ = run(capsys, "issue", pki, "--for", file)
    assert (code, "new crl.pem or release.pem in nodes/, copy again: device-8\n" in out) == (0, True)
    assert "release.pem" not in run(capsys, "issue", pki, "device-9")[1]  # the top is known from then on

    def same(name: str, of: Path, *nodes: str) -> None:
        for node in nodes:
            assert (pki / "nodes" / node / name).read_bytes() == of.read_bytes(), node

    below, everybody = ("device-0", "device-1", "device-8", "device-9"), ("top", "author", "device-0", "device-8", "device-9")
    same("release.pem", pki / "nodes/top/sign.pem", *below)
    same("release.pem", pki / "nodes/author/sign.pem", "top")
    same("crl.pem", pki / "crl.pem", *everybody)
    before = (pki / "crl.pem").read_bytes()
    out = run(capsys, "revoke", pki, "device-1")[1]
    assert f"copy crl.pem of {pki}/nodes/NAME again to fog nodes" in out
    assert (pki / "crl.pem").read_bytes() != before
    same("crl.pem", pki / "crl.pem", *everybody)
    assert json.loads(run(capsys, "issue", pki, "top", "--renew", "--json")[1])["stale"] == [
        *("author", "device-0", "device-1", "device-8", "device-9", "monitor")
    ]
    same("release.pem", pki / "nodes/top/sign.pem", *below)


def test_what_up_says_with_pki_names_files_of_the_nodes_folder_only(tmp_path: Path) -> None:
    for setting in identity_settings(tmp_path / "pki"):
        assert f"{tmp_path}/pki/nodes/{{node}}/" in setting
        assert setting.count(str(tmp_path)) == 1


def test_the_list_says_what_ends_and_what_was_revoked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pki = tmp_path / "pki"
    run(capsys, "init", pki)
    run(capsys, "issue", pki, "good", "gone", "again")
    assert run(capsys, "list", pki)[0] == 0
    run(capsys, "revoke", pki, "gone")
    run(capsys, "issue", pki, "again", "--renew")
    assert run(capsys, "list", pki)[0] == 0
    run(capsys, "issue", pki, "soon", "--days", "5")
    code, out, _ = run(capsys, "list", pki, "--json")
    states = {(row["name"], row["kind"], row["state"]) for row in json.loads(out)["certificates"]}
    assert code == 1
    for kind in ("node", "sign"):
        assert {state for name, k, state in states if name == "again" and k == kind} == {"replaced", "good"}
        assert {(name, state) for name, k, state in states if k == kind and name != "again"} == {
            ("good", "good"),
            ("gone", "revoked"),
            ("soon", "ends soon"),
        }


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("issue", "PKI"), "say whose"),
        (("issue", "PKI", "../x"), "'../x' must be 1 to 40"),
        (("issue", "PKI", "all"), "must not be 'all'"),
        (("issue", "PKI", "A"), "'A' must be 1 to 40"),
        (("issue", "PKI", "device-0", "--days", "0"), "--days"),
        (("issue", "PKI", "--broker"), "--host"),
        (("issue", "PKI", "device-0", "--host", "x"), "--broker"),
        (("issue", "PKI", "--broker", "--host", "a b"), "neither a name nor an address"),
        (("issue", "PKI", "--broker", "--host", "x\ny"), "neither a name nor an address"),
        (("issue", "PKI", "--broker", "--host", "localhost:8883"), "without scheme and port"),
        (("issue", "PKI", "--broker", "--host", "fe80::1%eth0"), "neither a name nor an address"),
        (("revoke", "PKI", "nobody"), "nothing was issued to 'nobody'"),
        (("issue", "PKI/none", "device-0"), "edgemw pki init"),
        (("list", "PKI/none"), "edgemw pki init"),
        (("issue", "PKI", "device-0", "--passphrase-env", "EDGEMW_SECRET_NOWHERE"), "is not set"),
        (("issue", "PKI", "device-0", "--passphrase-env", "A", "--passphrase-file", "b"), "not both"),
        (("init", "PKI"), "already"),
    ],
)
def test_refusals_have_code_3_and_one_line(
    pki: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], says: str
) -> None:
    code, out, err = run(capsys, *(word.replace("PKI", str(pki)) for word in words))
    assert (code, out, err.count("\n")) == (3, "", 1), err
    assert says in err
    assert not (pki / "nodes").exists()


def test_a_passphrase_comes_from_a_file_or_the_environment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pass").write_text("right\n")
    monkeypatch.setenv("EDGEMW_SECRET_CA", "right")
    assert run(capsys, "init", tmp_path / "pki", "--passphrase-file", tmp_path / "pass")[0] == 0
    assert run(capsys, "issue", tmp_path / "pki", "device-0", "--passphrase-env", "EDGEMW_SECRET_CA")[0] == 0
    monkeypatch.setenv("EDGEMW_SECRET_CA", "wrong")
    code, _, err = run(capsys, "issue", tmp_path / "pki", "device-1", "--passphrase-env", "EDGEMW_SECRET_CA")
    assert (code, "wrong" in err) == (3, True)


def test_a_certificate_of_another_node_or_of_another_time_is_warned_of(pki: Path, capsys: pytest.CaptureFixture[str]) -> None:
    issue(pki, "device-0", "device-1")

    def said(whose: str, node: str) -> list[str]:
        folder, path = pki / "nodes" / whose, pki / "device.toml"
        tls = f'ca = "{folder}/ca.pem"\ncert = "{folder}/cert.pem"\nkey = "{folder}/key.pem"\n'
        broker = f'[broker]\nurl = "mqtts://localhost:8883"\n[broker.tls]\n{tls}'
        path.write_text(f'net = "n"\n{broker}[node]\nid = "{node}"\nparent = "top"\n')
        assert main(["check", str(path)]) == 0
        return [line for line in capsys.readouterr().err.splitlines() if "tls.cert" in line]

    assert said("device-0", "device-0") == []
    (line,) = said("device-1", "device-0")
    assert "is of 'device-1', not of 'device-0'" in line
    cert = pki / "nodes" / "device-0" / "cert.pem"
    assert certificate_problem(cert, "device-0", NOW + DAY) == ""
    assert "is valid from" in certificate_problem(cert, "device-0", NOW + 400 * DAY)
    assert certificate_problem(pki / "ca.key", "device-0", NOW) == ""  # none at all is for whoever loads it


def test_without_cryptography_it_says_what_to_install(tmp_path: Path) -> None:
    code = "import sys; sys.modules['cryptography'] = None; from edgemw.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "pki", "init", str(tmp_path / "pki")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert "needs cryptography: pip install 'edgemw[security]'" in done.stderr
    assert not (tmp_path / "pki").exists()
