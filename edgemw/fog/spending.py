"""What a window and a release cost a device, in bytes of its own link.

A device counts the MQTT PUBLISH packets that it sends: its updates with their headers and topics, sent again where that was
needed, its presence and its answers. It says so with its next update, as the sum `uplink`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from edgemw.compression.codec import Codec
from edgemw.compression.lattice import Lattice
from edgemw.core.encoded import Section
from edgemw.core.ids import Place
from edgemw.core.plan import Tally
from edgemw.fog.rate import Budget, Rate, Seen
from edgemw.wire import topics
from edgemw.wire.chunks import CHUNK_BYTES
from edgemw.wire.fields import LABEL_BYTES
from edgemw.wire.messages import Blob, Difference, Frame, ReleaseManifest, Update, pack, pack_difference
from edgemw.wire.publication import write

_PACKET_BYTES = 13  # of a PUBLISH besides topic and payload: header, lengths, identifier, MQTT 5 with an expiry


def seen_of(frames: Sequence[Frame], tally: Tally, codec: Codec, place: Place) -> Seen:
    """What the updates of a closed window cost one device.

    Args:
        frames: all updates of the window.
        tally: their sums.
        codec: of the release.
        place: of the node whose children sent them.
    """
    sent = sent_of(tally)
    updates = [(frame, frame.message) for frame in frames if isinstance(frame.message, Update) and frame.message.sections]
    count = sum(section.count for _, update in updates for section in update.sections)
    if not (count and codec.stepped):
        return Seen(sent)
    blank = _blank_bytes(codec, updates[0][1].size)
    sections = [section for _, update in updates for section in update.sections]
    payload = sum(max(0, len(section.payload) - blank) for section in sections)
    empty = sum(_packet_bytes(place, frame, _emptied(update)) for frame, update in updates) / len(updates) + blank
    return Seen(sent, payload / count, empty)


def sent_of(tally: Tally) -> float | None:
    """What one device has sent since its last report; None where nobody said."""
    total, reports = tally.get("uplink", (0.0, 0.0))
    return max(0.0, total) / reports if reports > 0 else None


def empty_update_bytes(task: str, metrics: Sequence[str], codec: Codec, size: int) -> float:
    """About what an update without symbols costs a device, before anything has run."""
    names = (*(f"test.{name}" for name in metrics), "train_loss", "train_s", "uplink", "downlink")
    section = Section(100, 1000, 1, 1.5, b"")
    update = Update(1 << 31, codec.name, size, (section,), dict.fromkeys(names, (0.5, 1.5)), 100)
    frame = Frame(task, "device-00", 1 << 31, 100, update)
    return _packet_bytes(Place("net", "fog-00", "", 1 << 31), frame, update) + _blank_bytes(codec, size)


def announced_bytes(manifest: ReleaseManifest) -> int:
    """What a release costs a device that has the one before: its manifest, and the difference where it stands apart.

    Task, sender and topic are left out.
    """
    apart = sum(blob.size for blob in manifest.packed) if not manifest.difference else 0
    if manifest.number and not (manifest.difference or manifest.packed):
        apart = manifest.theta.size
    return len(pack(Frame("", "", 0, 0, manifest))) + apart


def shortage(budget: Budget, seen: Seen) -> str:
    """Why a budget cannot be met; empty when it can."""
    if not budget.given or seen.empty_bytes < budget.mean_bytes:
        return ""
    return f"the budget of {budget.mean_bytes:.0f} B a round is less than an update without symbols: {seen.empty_bytes:.0f} B"


def empty_release_bytes(codec: Codec, parameters: Mapping[str, int | float | str], size: int) -> int:
    """About what a release in which nothing moves costs a device."""
    difference = pack_difference(Difference(bytes(LABEL_BYTES), (), Lattice().encode(np.zeros(1, np.float32), 0.0), b""))
    theta = Blob(bytes(2 * LABEL_BYTES), 4 * size, CHUNK_BYTES)
    places = (1 << 31, 100, bytes(LABEL_BYTES), theta, True, codec.name, dict(parameters), 1.5, None, 4)
    return announced_bytes(ReleaseManifest(*places, whole=False, difference=difference))


def spending_facts(rate: Rate) -> dict[str, int | float | str]:
    """What a device has spent, and on which multiplier it is."""
    kappa: dict[str, int | float | str] = {"kappa": rate.kappa} if rate.kappa > 0 else {}
    return kappa | {"spent_bytes": round(rate.sent_bytes), "release_spent_bytes": round(rate.got_bytes)}


def _blank_bytes(codec: Codec, size: int) -> int:
    return len(codec.encode(np.zeros(size, np.float32), 0.0))


def _emptied(update: Update) -> Update:
    return replace(update, sections=tuple(replace(section, payload=b"") for section in update.sections))


def _packet_bytes(place: Place, frame: Frame, update: Update) -> int:
    topic = topics.build(place.net, place.node, "update", node=frame.node, task=frame.task)
    return _PACKET_BYTES + len(topic) + len(write(topic, replace(frame, message=update)))
