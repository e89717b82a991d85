"""What signatures cost: time of a signature and of its check beside encoding and merging, and bytes on the wire. Prints JSON.

    python benchmarks/signing.py [--sizes N ...] [--repeats N] [--text]

For each number of parameters P one device encodes a delta (Laplace, lattice, a step of 16 root mean squares) and signs its frame,
and a fog node checks and merges 16 of them. Microseconds are medians of processor time of one thread; what is
compared takes turns.

    encode     the codec of a device, float32[P] to bytes
    sign       the frame packed, hashed and signed
    verify     the same at the fog node; the certificate is known
    merge      what one of 16 updates costs in a merge
    learn      a certificate that is shown for the first time
    release    signing, and checking, a release

`bytes` are what the wire carries more: in every update, in every release, in a bundle's manifest and in a presence (once for a
connection, and in its will). `update` and `share` are the frame of the update without a signature, and what 66 bytes are of it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

from edgemw.compression.lattice import Lattice
from edgemw.compression.merge import merge
from edgemw.core.encoded import Section
from edgemw.core.ids import Place
from edgemw.trust.credentials import Authority, Credentials, der_of
from edgemw.trust.keys import Key, KeyRing
from edgemw.wire.accepting import Accepting
from edgemw.wire.chunks import blob_of
from edgemw.wire.messages import Frame, Presence, ReleaseManifest, TaskManifest, Update, encoded_of, pack
from edgemw.wire.signed import frame_text, signed_bundle, signed_frame, signed_release

NET, TASK, FOG, BOOT = "net", "digits", "fog-0", 1_790_000_000
CHILDREN, KAPPA = 16, 16.0


def certified(nodes: list[str]) -> tuple[Authority, dict[str, Key], dict[str, bytes]]:
    """An authority, and keys and certificates of nodes."""
    own, keys, ders, now = ec.generate_private_key(ec.SECP256R1()), {}, {}, datetime.now(UTC)

    def certificate(name: str, public: CertificatePublicKeyTypes, *, ca: bool) -> x509.Certificate:
        subject, issuer = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each)]) for each in (name, "authority"))
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=365))
        return builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True).sign(own, SHA256())

    for node in nodes:
        key = Ed25519PrivateKey.generate()
        keys[node], ders[node] = Key(key), der_of(certificate(node, key.public_key(), ca=False))
    return Authority(certificate("authority", own.public_key(), ca=True)), keys, ders


def medians(works: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Microseconds of processor time for each; they take turns."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            started = time.thread_time_ns()
            work()
            taken[name].append((time.thread_time_ns() - started) / 1000)
    return {name: round(statistics.median(values), 1) for name, values in taken.items()}


def measured(size: int, repeats: int) -> dict[str, object]:
    """The figures for one number of parameters."""
    rng, codec = np.random.default_rng(size), Lattice()
    nodes = [f"device-{number}" for number in range(CHILDREN)]
    authority, keys, ders = certified(nodes)
    senders = Credentials(authority, time.time)
    deltas = [rng.laplace(0, 0.01, size).astype(np.float32) for _ in nodes]
    step = float(KAPPA * np.sqrt(np.mean(np.square(deltas[0]))))

    def frame(node: str, delta: np.ndarray[tuple[int], np.dtype[np.float32]]) -> Frame:
        section = Section(20, 180, 1, 0.125, codec.encode(delta, step))
        return Frame(TASK, node, BOOT, 20, Update(BOOT, "lattice", size, (section,), {"uplink": (721.0, 1.0)}, 20))

    plain = [frame(node, delta) for node, delta in zip(nodes, deltas, strict=True)]
    signed = [signed_frame(keys[each.node], NET, FOG, each) for each in plain]
    for node in nodes:
        assert senders.learn(node, ders[node]) == ""
    first, key = signed[0], keys[nodes[0]]
    assert senders.refusal(first.node, frame_text(NET, FOG, first), first.signature) == ""
    parts = [encoded_of(each) for each in plain]
    release = ReleaseManifest(BOOT, 21, bytes(16), blob_of(bytes(4 * size)), True, "lattice", {}, step, None, 4)
    out = signed_release(key, NET, TASK, release)
    accepting = Accepting(Place(NET, nodes[0], FOG, 1), TASK, KeyRing((key.public,)))
    micros = medians(
        {
            "encode": lambda: codec.encode(deltas[0], step),
            "sign": lambda: signed_frame(key, NET, FOG, plain[0]),
            "verify": lambda: senders.refusal(first.node, frame_text(NET, FOG, first), first.signature),
            "merge": lambda: merge(codec, parts),
            "learn": lambda: Credentials(authority, time.time).learn(nodes[0], ders[nodes[0]]),
            "sign a release": lambda: signed_release(key, NET, TASK, release),
            "verify a release": lambda: accepting.release(out),
        },
        repeats,
    )
    micros["merge"] = round(micros["merge"] / CHILDREN, 1)
    blob = blob_of(b"bundle")
    more = {
        "update": len(pack(first)) - len(pack(plain[0])),
        "release": len(pack(Frame(TASK, FOG, BOOT, 0, out))) - len(pack(Frame(TASK, FOG, BOOT, 0, release))),
        "bundle": len(pack(Frame(TASK, FOG, BOOT, 0, signed_bundle(key, NET, TASK, blob, BOOT))))
        - len(pack(Frame(TASK, FOG, BOOT, 0, TaskManifest(blob)))),
        "presence": len(pack(Frame("", nodes[0], BOOT, 0, Presence("online", "device", FOG, ders[nodes[0]]))))
        - len(pack(Frame("", nodes[0], BOOT, 0, Presence("online", "device", FOG)))),
    }
    update_bytes = len(pack(plain[0]))
    return {"size": size, "us": micros, "bytes": more, "update": update_bytes, "share": round(more["update"] / update_bytes, 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 66_058, 1_000_000], help="parameters P")
    parser.add_argument("--repeats", type=int, default=101, help="turns of each (default 101)")
    parser.add_argument("--text", action="store_true", help="a table instead of JSON")
    options = parser.parse_args()
    rows = [measured(size, options.repeats) for size in options.sizes]
    machine = {"machine": platform.machine(), "cpus": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}
    if not options.text:
        print(json.dumps({**machine, "rows": rows}, indent=1))
        return
    print(machine)
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
