"""Yesterday's frames are still today's: bytes that were written once are written and read the same for ever.

A new kind adds an entry to tests/golden/frames.json. From edgemw 1.0 on an entry never changes while the version of the wire is
the same; before it, EDGEMW_GOLDEN=write writes them again: read the difference.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from edgemw.core.encoded import Section
from edgemw.core.plan import Plan
from edgemw.wire.messages import (
    KINDS,
    Ack,
    Blob,
    Chunk,
    Difference,
    Frame,
    Grant,
    Group,
    MaskKeys,
    Member,
    Message,
    NoGroup,
    Offer,
    Outcome,
    Presence,
    ReleaseManifest,
    Revealed,
    RoundReport,
    Shares,
    Status,
    StatusRequest,
    TaskManifest,
    Telemetry,
    Unmask,
    Update,
    pack,
    pack_difference,
    unpack,
)

RECORD = Path(__file__).parents[1] / "golden" / "frames.json"
GOLDEN: list[dict[str, Any]] = json.loads(RECORD.read_text())
SHA = bytes(range(32))
BLOB = Blob(SHA, 240_001, 120_000)
RELEASE = ReleaseManifest(
    run=5,
    number=13,
    bundle=SHA[::-1][:16],
    theta=BLOB,
    train=True,
    codec="lattice",
    parameters={"coder": "range"},
    step=0.015625,
    plan=Plan("sgd", 0.05, 0.9, 0.0, 0.0, 2, 0, 32, 1.0, "head.* *.norm.*", "embed.weight", "out.*", 7),
    max_staleness=4,
)
BOUNDED = replace(RELEASE, plan=Plan("sgd", 0.05, update_clip=0.5, update_noise=2.0))
LANES = bytes.fromhex("0000003f000000000200000008001000 02ff0000")
MESSAGES: tuple[Message, ...] = (
    Presence("online", "device", "fog-7"),
    Update(
        run=5,
        codec="lattice",
        size=66_058,
        sections=(
            Section(11, 240, 3, 0.125, bytes.fromhex("0000803c0300000049a0")),
            Section(12, 1 << 40, 1, 2.5, b"", bytes.fromhex("0300000000000100be004000c0")),
        ),
        tally={"test.accuracy": (57.0, 60.0), "uplink": (1800.0, 1.0)},
        report_on=12,
    ),
    Update(run=5, codec="dense", size=1, sections=()),
    Offer(BLOB),
    Grant(SHA, b"\x05"),
    Chunk(SHA, 2, b"\x00\xff"),
    Ack(1_790_000_000, 41),
    Ack(1_790_000_000, 43, (Outcome(1_790_000_000, 42, True, 13, ""),)),
    Outcome(1_790_000_000, 41, True, 13, ""),
    Outcome(1_790_000_000, 42, False, 13, "stale: trained from release 2, now 13"),
    TaskManifest(BLOB),
    RELEASE,
    StatusRequest(),
    Status("fog", "", "collecting", "the deadline closed the last window without device-3", {"release": 13, "codec": "lattice"}),
    RoundReport(13, False, {"accuracy": 0.95, "children": 16, "measured": 12}, ("device-3",)),
    replace(
        RELEASE,
        number=14,
        plan=None,
        whole=False,
        difference=pack_difference(Difference(BLOB.label, (BLOB.brief,), bytes.fromhex("0000803c0300000049a0"))),
    ),
    Telemetry("hall-3", 15.0, "battery", "192.0.2.7:9108", {"energy": 1234.5, "power": 2.25, "cores": 4.0, "communicate": 0.125}),
    BOUNDED,
    replace(RELEASE, codec="lanes", parameters={"blocks": 5}, threshold=67),
    Update(5, "lanes", 8, (Section(13, 240, 1, 0.0, LANES),), {}, 13, SHA[:16], SHA[:24]),
    MaskKeys(5, 13, SHA, SHA[::-1]),
    Group(5, 13, 2, tuple(Member(f"device-{n}", SHA, SHA[::-1]) for n in range(3))),
    Shares(5, 13, SHA[:16], (bytes(82), b"", bytes(82))),
    Unmask(5, 13, SHA[:16], b"\x05"),
    Revealed(5, 13, SHA[:16], (bytes(33), bytes(33))),
    NoGroup(5, 13, "its shares came too late"),
)
TASKLESS = Presence | Telemetry
FRAMES = [Frame("" if isinstance(m, TASKLESS) else "spoken-digits", "fog-7", 1_790_000_000, n, m) for n, m in enumerate(MESSAGES)]


def plain(value: Any) -> Any:
    """A frame as JSON holds it: bytes as hex, tuples as lists."""
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return value


def test_there_is_a_record_of_every_frame() -> None:
    if os.environ.get("EDGEMW_GOLDEN") == "write":
        entries = [{"kind": type(f.message).__name__, "hex": pack(f).hex(), "frame": plain(asdict(f))} for f in FRAMES]
        RECORD.write_text("[\n" + ",\n".join(map(json.dumps, entries)) + "\n]\n")
    assert len(json.loads(RECORD.read_text())) == len(FRAMES)


@pytest.mark.parametrize("index", range(len(FRAMES)))
def test_the_bytes_and_the_value_are_those_of_the_record(index: int) -> None:
    frame, entry = FRAMES[index], GOLDEN[index]
    data = bytes.fromhex(entry["hex"])
    assert entry["kind"] == type(frame.message).__name__
    assert pack(frame) == data
    assert unpack(data) == frame
    assert plain(asdict(unpack(data))) == entry["frame"]


def test_there_is_a_record_of_every_kind() -> None:
    assert {entry["kind"] for entry in GOLDEN} == {kind.name for kind in KINDS}
    assert len(GOLDEN) == len(FRAMES)
