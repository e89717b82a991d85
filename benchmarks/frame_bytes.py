"""What a round costs besides the codec's payloads: bytes of each message on a device's link, from frames. Prints JSON.

    python benchmarks/frame_bytes.py

Names and values are those of a device of the quickstart in round 20. `frame` is the MessagePack without the codec's payload,
`mqtt` the rest of the PUBLISH packet (MQTT 5; updates with a topic alias) and its PUBACK in the other direction.
"""

from __future__ import annotations

import json
from pathlib import Path

from edgemw.core.bundle import read_bundle
from edgemw.core.encoded import Section
from edgemw.core.plan import as_carried
from edgemw.transport.traffic import publish_packet_bytes
from edgemw.wire import publication, topics
from edgemw.wire.chunks import blob_of
from edgemw.wire.messages import Ack, Difference, Frame, Message, Outcome, ReleaseManifest, Update, pack_difference

BUNDLE = Path(__file__).resolve().parents[1] / "examples" / "quickstart" / "digits.edge"
BOOT, PUBACK_BYTES, ALIAS_BYTES, PAYLOAD = 1_790_000_000, 4, 3, bytes(500)  # the payload is subtracted; its length costs 3 bytes
NET, DEVICE, FOG, TASK = "quickstart", "device-0", "fog-0", "digits"
SUMS = {
    "test.accuracy": (31.0, 36.0), "train_loss": (151.23, 180.0), "train_s": (0.0123, 1.0),
    "uplink": (721.0, 1.0), "downlink": (1_034.0, 1.0),
}  # fmt: skip


def messages(theta: bytes) -> dict[str, tuple[str, str, Message]]:
    """By name: who says it, where, and what."""
    blob, before = blob_of(theta), blob_of(PAYLOAD).brief
    difference = pack_difference(Difference(blob.label, (before,), PAYLOAD))
    update = Update(BOOT, "lattice", len(theta) // 4, (Section(20, 180, 1, 0.12345, PAYLOAD),), as_carried(SUMS), 20)
    release = ReleaseManifest(
        BOOT, 21, blob.label, blob, True, "lattice", {"kappa": 6.0}, 0.01171875, None, 4, whole=False, difference=difference
    )
    ack = Ack(BOOT, 20, (Outcome(BOOT, 19, True, 20, ""),))
    return {
        "update": (DEVICE, topics.build(NET, FOG, "update", node=DEVICE, task=TASK), update),
        "release": (FOG, topics.build(NET, FOG, "release", task=TASK), release),
        "ack with outcome": (FOG, topics.build(NET, FOG, "reply", node=DEVICE, task=TASK), ack),
    }


def cost(name: str, node: str, topic: str, message: Message) -> dict[str, int]:
    """Bytes of one message besides the codec's payload."""
    frame_bytes = len(publication.write(topic, Frame(TASK, node, BOOT, 20, message)))
    aliased = name == "update"
    written, properties_bytes = ("", 1 + ALIAS_BYTES) if aliased else (topic, 1)
    packet_bytes = publish_packet_bytes(written, frame_bytes, qos=1, properties_bytes=properties_bytes)
    held = len(PAYLOAD) if name in ("update", "release") else 0
    return {"frame": frame_bytes - held, "mqtt": packet_bytes - frame_bytes, "puback": PUBACK_BYTES}


def main() -> None:
    data = BUNDLE.read_bytes()
    costs = {name: cost(name, *said) for name, said in messages(read_bundle(data).theta0.astype("<f4").tobytes()).items()}
    total = sum(sum(parts.values()) for parts in costs.values())
    print(json.dumps({"round": costs, "bytes_per_round": total, "bundle_bytes_once": len(data)}, indent=1))


if __name__ == "__main__":
    main()
