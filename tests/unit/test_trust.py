"""Whose key is whose, and what a signature covers: whatever is altered, meant for others or of others is refused."""

from __future__ import annotations

import base64
import random
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.hazmat.primitives.serialization import PublicFormat as Public
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemw.core.errors import ConfigError, WireError
from edgemw.core.ids import Place
from edgemw.trust.credentials import Authority, Credentials, certificate, proven_by
from edgemw.trust.keys import KeyRing, private_key, public_key
from edgemw.wire.accepting import Accepting
from edgemw.wire.messages import Frame, ReleaseManifest, TaskManifest, Update, pack, unpack
from edgemw.wire.signed import frame_text, proposal_text, signed_bundle, signed_frame, signed_proposal, signed_release
from tests.support.signing import DAY, NOW, Office, office
from tests.unit.test_wire_golden import FRAMES
from tests.unit.test_wire_kinds import frames, patient, releases

UPDATE = next(frame for frame in FRAMES if isinstance(frame.message, Update) and frame.message.sections)
RELEASE = next(frame.message for frame in FRAMES if isinstance(frame.message, ReleaseManifest))
OURS = replace(UPDATE, node="device-0")
PLACE = Place("net", "device-0", "fog-0", 1)


def known(*nodes: str) -> Credentials:
    """A fog node that these have shown their certificates to."""
    senders = office().senders()
    for node in nodes:
        assert senders.learn(node, office().der(node)) == ""
    return senders


def refusal(senders: Credentials, frame: Frame, net: str = "net", domain: str = "fog-0") -> str:
    return senders.refusal(frame.node, frame_text(net, domain, frame), frame.signature)


def signed(frame: Frame, by: str = "") -> Frame:
    office().der(by or frame.node)
    return signed_frame(office().keys[by or frame.node], "net", "fog-0", frame)


# -- frames


def test_a_frame_of_its_sender_is_believed_also_after_its_way_over_the_wire() -> None:
    senders, frame = known("device-0"), signed(OURS)
    assert refusal(senders, frame) == ""
    assert refusal(senders, unpack(pack(frame))) == ""
    assert len(pack(frame)) == len(pack(OURS)) + 66


@patient
@given(frames)
def test_what_is_signed_is_the_same_after_the_wire(frame: Frame) -> None:
    assert frame_text("net", "fog-0", unpack(pack(frame))) == frame_text("net", "fog-0", frame)


@settings(patient, max_examples=300)
@given(st.data())
def test_a_change_of_any_byte_is_noticed(data: st.DataObject) -> None:
    senders, frame = known("device-0"), signed(OURS)
    whole = bytearray(pack(frame))
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= data.draw(st.integers(1, 255))
    try:
        altered = unpack(bytes(whole))
    except WireError:
        return
    # another spelling of the same values is the same frame: what is believed is what was said
    assert altered == frame or refusal(senders, altered) != ""


@pytest.mark.parametrize(
    ("frame", "net", "domain"),
    [
        (signed(OURS), "other", "fog-0"),
        (signed(OURS), "net", "fog-1"),
        (signed(replace(OURS, node="device-1")), "net", "fog-0"),  # nobody knows device-1
        (replace(signed(OURS), task="another"), "net", "fog-0"),
        (replace(signed(OURS), boot=OURS.boot + 1), "net", "fog-0"),
        (replace(signed(OURS), seq=OURS.seq + 1), "net", "fog-0"),
        (signed(OURS, by="device-1"), "net", "fog-0"),
        (replace(signed(replace(OURS, node="device-1")), node="device-0"), "net", "fog-0"),
        (OURS, "net", "fog-0"),
    ],
    ids=["net", "domain", "unknown", "task", "boot", "seq", "key of another", "name of another", "unsigned"],
)
def test_what_is_meant_for_others_or_of_others_is_refused(frame: Frame, net: str, domain: str) -> None:
    assert refusal(known("device-0"), frame, net, domain) != ""


# -- certificates


def test_a_certificate_of_somebody_else_or_of_another_authority_is_not_believed() -> None:
    senders, other = office().senders(), Office()
    assert "of device-0, not of device-1" in senders.learn("device-1", office().der("device-0"))
    assert "authority" in senders.learn("device-0", other.der("device-0"))
    assert "authority" in senders.learn("device-0", Office("another name").der("device-0"))
    assert "cannot be read" in senders.learn("device-0", b"not a certificate")
    assert "no certificate" in senders.learn("device-0", b"")
    assert "no certificate" in refusal(senders, signed(OURS))


def of_version_7(der: bytes) -> bytes:
    """A certificate that says a version which does not exist."""
    at = der.index(bytes([0xA0, 3, 2, 1, 2])) + 4
    return der[:at] + bytes([7]) + der[at + 1 :]


def test_a_certificate_has_one_form() -> None:
    """The byte before its signature says how many of the last bits are unused: nobody signs that."""
    for number in range(64):  # where the last bit is 0 another form of it can be read
        office = Office()
        der = bytearray(office.der("device-0"))
        at = len(der) - len(office.certificates["device-0"].signature) - 1
        assert office.senders().learn("device-0", bytes(der)) == ""
        der[at] = 1
        assert office.senders().learn("device-0", bytes(der)) != "", number


def test_a_certificate_that_is_damaged_in_any_way_is_refused_in_our_words() -> None:
    der, rng = office().der("device-0"), random.Random(2)
    assert "cannot be read" in office().senders().learn("device-0", of_version_7(der))
    senders = office().senders()
    for _ in range(4000):
        damaged = bytearray(der)
        for _ in range(rng.randint(1, 3)):
            damaged[rng.randrange(len(der))] = rng.randrange(256)
        assert senders.learn("device-0", bytes(damaged)) != "" or bytes(damaged) == der
    proven = proven_by(office().authority())
    assert not proven("device-0", of_version_7(der), b"text", bytes(64))


def test_files_with_a_certificate_of_no_version_are_refused_in_our_words() -> None:
    body = base64.encodebytes(of_version_7(office().der("device-0"))).decode()
    pem = f"-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n".encode()
    with pytest.raises(ConfigError, match="not a certificate in PEM"):
        certificate(pem)
    with pytest.raises(ConfigError, match="neither a public key nor"):
        public_key(pem)


def test_a_certificate_of_another_kind_of_key_is_not_believed() -> None:
    bureau = Office()
    bureau.issue("device-0", curve=True)
    assert "Ed25519" in bureau.senders().learn("device-0", bureau.der("device-0"))


@pytest.mark.parametrize(("since", "until", "about"), [(-2 * DAY, -DAY, "ended at"), (DAY, 2 * DAY, "valid from")])
def test_a_certificate_out_of_its_validity_is_not_believed(since: timedelta, until: timedelta, about: str) -> None:
    bureau = Office()
    bureau.issue("device-0", since=since, until=until)
    assert about in bureau.senders().learn("device-0", bureau.der("device-0"))


def test_a_certificate_ends_although_it_was_shown_while_it_was_valid() -> None:
    now = [NOW.timestamp()]
    senders = Credentials(office().authority(), lambda: now[0])
    assert senders.learn("device-0", office().der("device-0")) == ""
    assert refusal(senders, signed(OURS)) == ""
    now[0] += 2 * DAY.total_seconds()
    assert "ended at" in refusal(senders, signed(OURS))
    assert "ended at" in senders.learn("device-0", office().der("device-0"))


def test_a_revoked_certificate_is_not_believed_from_then_on() -> None:
    bureau = Office()
    authority = bureau.authority()
    senders = Credentials(authority, NOW.timestamp)
    assert senders.learn("device-0", bureau.der("device-0")) == ""
    frame = signed_frame(bureau.keys["device-0"], "net", "fog-0", OURS)
    assert refusal(senders, frame) == ""
    authority.revoke(bureau.revoke("device-0"))
    assert "revoked" in refusal(senders, frame)
    assert "revoked" in senders.learn("device-0", bureau.der("device-0"))
    with pytest.raises(ConfigError, match="not a list of the authority"):
        authority.revoke(Office().revoked())


def test_an_older_certificate_does_not_take_the_place_of_a_newer_one() -> None:
    bureau = Office()
    bureau.issue("device-0", since=-2 * DAY)
    old = bureau.der("device-0")
    bureau.issue("device-0")
    senders = bureau.senders()
    assert senders.learn("device-0", bureau.der("device-0")) == ""
    assert senders.learn("device-0", old) == ""  # it is valid, and changes nothing
    assert refusal(senders, signed_frame(bureau.keys["device-0"], "net", "fog-0", OURS)) == ""


def test_a_certificate_of_tls_is_refused_and_displaces_nothing() -> None:
    bureau = Office()
    bureau.issue("device-0", since=-2 * DAY, uses=(ExtendedKeyUsageOID.CODE_SIGNING,))
    key, signing = bureau.keys["device-0"], bureau.der("device-0")
    bureau.issue("device-0", uses=(ExtendedKeyUsageOID.CLIENT_AUTH,))
    senders = bureau.senders()
    assert senders.learn("device-0", signing) == ""
    assert "not for signatures" in senders.learn("device-0", bureau.der("device-0"))
    assert refusal(senders, signed_frame(key, "net", "fog-0", OURS)) == ""


def test_other_certificates_that_a_node_has_had_do_not_displace_the_one_that_it_signs_with() -> None:
    bureau = Office()
    shown = []
    for days in range(9, 0, -1):
        bureau.issue("device-0", since=-days * DAY)
        shown.append((bureau.keys["device-0"], bureau.der("device-0")))
    senders, (key, der) = bureau.senders(), shown[0]
    frame = signed_frame(key, "net", "fog-0", OURS)
    assert senders.learn("device-0", der) == ""
    for _, other in shown[1:]:
        assert senders.learn("device-0", other) == ""
        assert senders.credential("device-0") == der
    assert refusal(senders, frame) == ""
    newer, its_der = shown[-1]
    assert refusal(senders, signed_frame(newer, "net", "fog-0", OURS)) == ""
    assert senders.credential("device-0") == its_der
    assert refusal(senders, frame) == ""  # both count
    assert refusal(senders, signed_frame(shown[1][0], "net", "fog-0", OURS)) != ""  # of so many not all are kept


def test_a_certificate_of_a_node_is_no_authority() -> None:
    office().der("device-0")
    with pytest.raises(ConfigError, match="authority"):
        Authority(office().certificates["device-0"])


# -- releases and bundles


def accepting(newest: tuple[int, int] = (-1, -1)) -> Accepting:
    office().der("top")
    return Accepting(PLACE, "digits", KeyRing((office().keys["top"].public,)), newest)


def released(manifest: ReleaseManifest = RELEASE, by: str = "top", task: str = "digits") -> ReleaseManifest:
    office().der(by)
    return signed_release(office().keys[by], "net", task, manifest)


@patient
@given(releases)
def test_a_release_is_taken_however_it_is_had(manifest: ReleaseManifest) -> None:
    signed_ = released(manifest)
    for way in (signed_, replace(signed_, whole=True, difference=b"", packed=()), replace(signed_, whole=True)):
        assert accepting().release(way) == ""


@settings(patient, max_examples=300)
@given(st.data())
def test_whatever_else_is_altered_in_a_release_is_noticed(data: st.DataObject) -> None:
    frame = Frame("digits", "fog-0", 1, 0, released())
    whole = bytearray(pack(frame))
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= data.draw(st.integers(1, 255))
    try:
        altered = unpack(bytes(whole)).message
    except WireError:
        return
    if isinstance(altered, ReleaseManifest):
        had = replace(altered, whole=RELEASE.whole, difference=RELEASE.difference, packed=RELEASE.packed)
        assert had == frame.message or accepting().release(altered) != ""


def test_releases_of_others_for_others_and_unsigned_are_refused() -> None:
    assert "not signed by a key" in accepting().release(released(by="fog-0"))
    assert "not signed by a key" in accepting().release(released(task="another"))
    assert "asks for it" in accepting().release(RELEASE)


def test_an_older_release_is_refused_and_a_newer_run_begins_anew() -> None:
    gate = accepting()
    for run, number in ((5, 3), (5, 4), (5, 4)):
        assert gate.release(released(replace(RELEASE, run=run, number=number))) == ""
    assert "older than release 4 of run 5" in gate.release(released(replace(RELEASE, run=5, number=3)))
    assert gate.release(released(replace(RELEASE, run=6, number=0))) == ""
    assert "older" in gate.release(released(replace(RELEASE, run=5, number=9)))
    assert "older" in accepting((5, 4)).release(released(replace(RELEASE, run=5, number=3)))  # in another life


def test_a_bundle_is_taken_where_it_is_signed_for_a_run_that_is_not_over() -> None:
    gate = accepting((5, 4))
    key, blob = office().keys["top"], RELEASE.theta
    assert gate.bundle(signed_bundle(key, "net", "digits", blob, 5)) == ""
    assert gate.bundle(signed_bundle(key, "net", "digits", blob, 6)) == ""
    assert "older than run 5" in gate.bundle(signed_bundle(key, "net", "digits", blob, 4))
    assert "not signed by a key" in gate.bundle(replace(signed_bundle(key, "net", "digits", blob, 4), run=5))
    assert "not signed by a key" in gate.bundle(replace(signed_bundle(key, "net", "digits", blob, 5), blob=replace(blob, size=7)))
    other_chunks = replace(blob, chunk_size=blob.chunk_size // 2)
    assert "not signed by a key" in gate.bundle(replace(signed_bundle(key, "net", "digits", blob, 5), blob=other_chunks))
    ring, proposal = KeyRing((key.public,)), signed_proposal(key, "net", "digits", blob)
    assert ring.signed(proposal_text("net", "digits", blob), proposal.signature)
    assert not ring.signed(proposal_text("net", "digits", other_chunks), proposal.signature)
    assert "asks for it" in gate.bundle(TaskManifest(blob))
    assert "asks for it" in gate.bundle(signed_proposal(key, "net", "digits", blob))


def test_without_keys_everything_is_taken() -> None:
    gate = Accepting(PLACE, "digits", None)
    assert gate.release(RELEASE) == gate.release(replace(RELEASE, number=0)) == gate.bundle(TaskManifest(RELEASE.theta)) == ""


# -- keys


def test_only_ed25519_keys_in_pem_are_read() -> None:
    office().der("top")
    key = office().keys["top"]
    curve = ec.generate_private_key(ec.SECP256R1())
    pem, pkcs8 = Encoding.PEM, PrivateFormat.PKCS8
    assert private_key(key.private.private_bytes(pem, pkcs8, NoEncryption())).public == key.public
    assert public_key(key.public.public_bytes(pem, Public.SubjectPublicKeyInfo)) == key.public
    assert public_key(office().certificates["top"].public_bytes(pem)) == key.public
    for bad in (b"", b"junk", key.private.private_bytes(pem, pkcs8, BestAvailableEncryption(b"x"))):
        with pytest.raises(ConfigError, match="without a passphrase"):
            private_key(bad)
    with pytest.raises(ConfigError, match="Ed25519"):
        private_key(curve.private_bytes(pem, pkcs8, NoEncryption()))
    with pytest.raises(ConfigError, match="Ed25519"):
        public_key(curve.public_key().public_bytes(pem, Public.SubjectPublicKeyInfo))
    with pytest.raises(ConfigError, match="Ed25519"):
        public_key(office().certificate.public_bytes(pem))
    for bad in (b"", b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"):
        with pytest.raises(ConfigError, match="neither a public key nor"):
            public_key(bad)
