"""Frames that were damaged at random, to every decoder: each takes them or refuses them in its own words, and nothing grows.

    python -m tests.system.fuzz_frames [--frames 10000000] [--seed 0] [--processes 2] [--only wire,lattice]
    python -m tests.system.fuzz_frames --only lattice --input HEX        once more what was found

Damage knows what it damages: places of MessagePack get values of other types and sizes, lengths lie, parts of one frame stand in
another; and bits flip, bytes come and go. A decoder may raise the one error that its documentation names; what it takes must be
said again as it was, and added to others. Anything else is a bug, and ends with exit code 1 and the bytes that do it.

Memory is the resident set of each process when a tenth of its frames is done, and at the end.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty
from typing import Any

import msgpack
import numpy as np
import psutil

from edgemw.compression import modulo, side
from edgemw.compression.codec import Codec, codec_at, is_shifting
from edgemw.compression.coders import Coders, fastest
from edgemw.compression.difference import advance
from edgemw.compression.golomb_numpy import NumpyGolomb
from edgemw.compression.lattice import Lattice
from edgemw.compression.rangecoder_python import PythonRangeCoder
from edgemw.compression.table import codec_named
from edgemw.core.bundle import Bundle, read_bundle, theta_bytes
from edgemw.core.encoded import Section
from edgemw.core.errors import BundleError, WireError
from edgemw.core.ids import Place
from edgemw.core.plan import Plan
from edgemw.device.cycle import Cycle
from edgemw.device.events import Left, TaskOpened
from edgemw.fog.events import BundleGiven, FogMemory
from edgemw.fog.release import TopOptions
from edgemw.fog.server import ServerOptions
from edgemw.fog.top import Top
from edgemw.fog.window import WindowOptions
from edgemw.simulation.toy import TASK, toy_bundle
from edgemw.telemetry.fleet import Fleet
from edgemw.transport.packets import Incoming as Packets
from edgemw.transport.packets import Malformed, publish_of, publish_packet
from edgemw.transport.properties import PublishProperties
from edgemw.wire import publication, topics
from edgemw.wire.chunks import blob_of, cut
from edgemw.wire.following import Following
from edgemw.wire.incoming import Incoming
from edgemw.wire.messages import (
    Chunk,
    Difference,
    Frame,
    Message,
    Presence,
    ReleaseManifest,
    TaskManifest,
    Telemetry,
    Update,
    pack,
    pack_difference,
    unpack,
    unpack_difference,
)
from edgemw.wire.traffic import Arrived
from tests.support.signing import Office

GOLDEN = Path(__file__).parents[1] / "golden" / "frames.json"
SIZE = 96  # parameters of the vectors in payloads
FROM_PARENT = topics.parse("em1/net/fog-7/dn/device-3/toy")
MOST_GROWTH_BYTES = 24 << 20
MOST_BYTES = 4096  # of a damaged frame
SAY_S = 5.0
ODD_BYTES = (
    0,
    1,
    0x7F,
    0x80,
    0x90,
    0x9F,
    0xA0,
    0xBF,
    0xC0,
    0xC1,
    0xC4,
    0xC6,
    0xCB,
    0xCC,
    0xCF,
    0xD3,
    0xD9,
    0xDC,
    0xDD,
    0xDF,
    0xFF,
)
ODD_WORDS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7F800000, 0x7FC00000, 0xFF7FFFFF)
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 127, 128, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1, -(2**63)),
    *(0.0, -0.0, 1e-45, 1e38, 1e300, -1e308, float("nan"), float("inf"), float("-inf"), 0.1),
    *("", "all", "a", "fog-7", "A", "a/b", "+", "#", "\0", "é" * 90, "x" * 300, "lattice", "dense", "train_loss"),
    *(b"", b"\0", bytes(15), bytes(16), bytes(32), bytes(33), b"\xff" * 200),
    *([], [[]], [0] * 20, [None], {}, {"": 0}, {"a": [1, 2]}, {"a": "b" * 300}, {str(n): n for n in range(70)}),
)


@dataclass(frozen=True, slots=True)
class Target:
    """One decoder.

    Attributes:
        name: to ask for it.
        seeds: sound inputs.
        feed: takes an input; raises what it may, or what it must not.
        allowed: the errors that its documentation names.
        share: how often it is fed, against the others.
    """

    name: str
    seeds: tuple[bytes, ...]
    feed: Callable[[bytes], None]
    allowed: tuple[type[Exception], ...] = (WireError,)
    share: int = 1


@dataclass(frozen=True, slots=True)
class Bug:
    """What a decoder raised that it must not."""

    target: str
    data: bytes
    error: str

    def __str__(self) -> str:
        return f"{self.target}: {self.error}\n    --only {self.target} --input {self.data.hex()}"


@dataclass(frozen=True, slots=True)
class Done:
    """What one process has done; memory in bytes of its resident set."""

    frames: int
    taken: int
    begun_bytes: int
    ended_bytes: int
    bugs: tuple[Bug, ...]

    @property
    def growth_bytes(self) -> int:
        """Since a tenth was done."""
        return self.ended_bytes - self.begun_bytes


# ------------------------------------------------------------------------------------------------------------ the damage


def damaged(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """A sound input with something wrong, now and then nothing."""
    data = rng.choice(seeds)
    chance = rng.random()
    if chance < 0.02:
        return rng.randbytes(rng.randrange(64))
    if chance < 0.35 and (altered := _another_value(rng, data)) is not None:
        data = altered
        if chance < 0.3:
            return data[:MOST_BYTES]
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        data = rng.choice(_DAMAGES)(rng, data, seeds)
    return data[:MOST_BYTES]


def _another_value(rng: random.Random, data: bytes) -> bytes | None:
    """MessagePack with an odd value in one of its places, or a place more or less; None of other bytes."""
    try:
        document = msgpack.unpackb(data, strict_map_key=False)
    except (ValueError, msgpack.UnpackException):
        return None
    if not isinstance(document, list) or not document:
        return None
    place, depth = document, 0
    while True:
        key = rng.randrange(len(place))
        inner = place[key]
        if isinstance(inner, list) and inner and rng.random() < 0.8 and depth < 8:
            place, depth = inner, depth + 1
            continue
        break
    what = rng.random()
    if what < 0.7:
        place[key] = rng.choice(ODD_VALUES)
    elif what < 0.8:
        del place[key]
    elif what < 0.9:
        place.insert(key, rng.choice(ODD_VALUES))
    elif isinstance(place[key], bytes):
        place[key] = rng.choice(_DAMAGES)(rng, place[key], (place[key],))
    else:
        place[key], place[-1] = place[-1], place[key]
    try:
        packed: bytes = msgpack.packb(document)
    except (OverflowError, ValueError):
        return None
    return packed


def _flip(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    if not data:
        return b"\0"
    changed = bytearray(data)
    changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _odd_byte(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + bytes((rng.choice(ODD_BYTES),)) + data[at + rng.randrange(2) :]


def _odd_word(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(data) + 1)
    width, order = rng.choice((2, 4)), rng.choice(("little", "big"))
    word = rng.choice(ODD_WORDS) & ((1 << 8 * width) - 1)
    return data[:at] + word.to_bytes(width, order) + data[at + width :]  # type: ignore[arg-type]


def _cut(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _leave_out(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + data[at + rng.randrange(1, 9) :]


def _twice(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + data[at : at + rng.randrange(1, 40)] * rng.randrange(2, 4) + data[at:]


def _splice(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    other = rng.choice(seeds)
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def _noise(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(data) + 1)
    drawn = rng.randbytes(rng.randrange(1, 9))
    return data[:at] + drawn + data[at + len(drawn) :]


_DAMAGES = (_flip, _flip, _odd_byte, _odd_word, _cut, _leave_out, _twice, _splice, _noise)


# ----------------------------------------------------------------------------------------------------------- the targets


def targets() -> list[Target]:
    """Every decoder, with sound inputs."""
    frames = _frames()
    packed = tuple(pack(frame) for frame in frames)
    return [
        Target("wire", packed, _wire, share=24),
        _publications(frames),
        Target("topics", _topics(), _topic, share=2),
        Target("difference", tuple(map(pack_difference, _differences())), _difference, share=3),
        *_codecs(),
        *_coders(),
        _side(),
        _gossip(),
        _advance(),
        _following(),
        *_packets(),
        _chunks(),
        _fleet(frames),
        _bundle(),
        _credential(),
        _top(),
        _device(),
    ]


def _frames() -> list[Frame]:
    """Those that are golden, one of every kind and more, and some that hold more."""
    frames = [unpack(bytes.fromhex(row["hex"]), said=("digits", "device-3")) for row in json.loads(GOLDEN.read_text())]
    payload = Lattice().encode(_vector(0), 0.25)
    section = Section(3, 10, 1, 0.5, payload, side.encode(_vector(1)[:8].astype(np.float64)))
    update = Update(7, "lattice", SIZE, (section, replace(section, base=4)), {"test.accuracy": (3.0, 4.0), "own": (0.5, 1.0)}, 4)
    blob = blob_of(theta_bytes(_vector(0)))
    plan = Plan("adam", 0.01, personal="head.*", rare="b", update_clip=0.5, update_noise=2.0)
    release = ReleaseManifest(7, 4, bytes(16), blob, True, "lattice", {"kappa": 16.0, "coder": "range"}, 0.25, plan, 4)
    packed = pack_difference(_differences()[0])
    more: list[Message] = [update, release, replace(release, whole=False, difference=packed)]
    more.append(replace(release, packed=(blob_of(packed),)))
    return [*frames, *(Frame("digits", "device-3", 1790000000, 5, message) for message in more)]


def _differences() -> list[Difference]:
    payload = Lattice(rounding="nearest").encode(_vector(2), 0.125)
    return [
        Difference(bytes(16), (), payload),
        Difference(b"\1" * 16, (blob_of(payload).brief,), payload, side.encode(_vector(1)[:8].astype(np.float64))),
    ]


def _vector(seed: int, size: int = SIZE) -> Any:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(size) * (rng.random(size) < 0.4)).astype(np.float32)


def _wire(data: bytes) -> None:
    frame = unpack(data)
    again = unpack(pack(frame))
    assert again == frame, f"said again as {again}"


def _publications(frames: list[Frame]) -> Target:
    """Frames on their topics: the topic, a line break, the payload."""
    values = {"node": "device-3", "task": "digits", "fog": "fog-7", "asker": "ops", "digest": "ab" * 16, "index": "0"}
    values |= {"transfer": "cd" * 16}
    seeds = []
    for channel in topics.CHANNELS:
        topic = topics.build("net", "fog-7", channel.name, **{place: values[place] for place in channel.places})
        for frame in frames:
            if type(frame.message).__name__ in channel.carries:
                writer = topics.writer(topics.parse(topic)) or frame.node
                about = "digits" if "task" in channel.places else frame.task
                seeds.append(topic.encode() + b"\n" + publication.write(topic, replace(frame, node=writer, task=about)))

    def feed(data: bytes) -> None:
        head, _, payload = data.partition(b"\n")
        publication.read(topics.parse(head.decode(errors="replace")), payload)

    return Target("publication", tuple(seeds), feed, share=8)


def _topics() -> tuple[bytes, ...]:
    values = {"node": "device-3", "task": "digits", "fog": "fog-7", "asker": "ops", "digest": "ab" * 16, "index": "0"}
    values |= {"transfer": "cd" * 16}
    return tuple(
        topics.build("net", "fog-7", channel.name, **{place: values[place] for place in channel.places}).encode()
        for channel in topics.CHANNELS
    )


def _topic(data: bytes) -> None:
    text = data.decode(errors="surrogateescape")
    topic = topics.parse(text)
    assert topics.build(topic.net, topic.domain, topic.channel, **topic.values) == text, "built again as another topic"


def _difference(data: bytes) -> None:
    difference = unpack_difference(data)
    assert unpack_difference(pack_difference(difference)) == difference, "said again as another one"


def _codecs() -> Iterator[Target]:
    """Every codec, and lattice in both coders and both implementations of each."""
    slow = Coders(NumpyGolomb(), PythonRangeCoder())
    named: dict[str, Codec] = {
        "lattice": Lattice(),
        "lattice-golomb": Lattice("golomb", "nearest", "dyadic"),
        "lattice-python": Lattice().using(slow),
        "lattice-golomb-numpy": Lattice("golomb").using(slow),
        "lanes": codec_at(codec_named("lanes"), 3),
        "dense": codec_named("dense"),
        "dense-float16": codec_named("dense", dtype="float16"),
        "topk": codec_named("topk", k=0.1),
        "qsgd": codec_named("qsgd"),
        "signsgd": codec_named("signsgd"),
        "powersgd": codec_named("powersgd", rank=1),
    }
    for name, codec in named.items():
        yield _codec(name, codec, share=1 if "python" in name or "numpy" in name else 4)


def _codec(name: str, codec: Codec, share: int) -> Target:
    step = 0.25 if codec.stepped else 0.0
    seeds = tuple(codec.encode(_vector(seed), each) for seed in range(4) for each in {step, step / 2})
    seeds += (codec.encode(np.zeros(SIZE, np.float32), step), codec.merge(seeds[:1] * 3, SIZE))

    def feed(data: bytes) -> None:
        told = codec.check(data, SIZE)
        decoded = codec.decode(data, SIZE)
        assert decoded.shape == (SIZE,), f"decoded {decoded.shape}"
        assert np.isfinite(decoded).all(), "decoded what is not finite"
        alone = codec.merge([data], SIZE)
        assert codec.merging != "exact" or alone == data, "a payload alone changed"
        if told == codec.check(seeds[0], SIZE):
            codec.check(codec.merge([data, seeds[0]], SIZE), SIZE)
        if is_shifting(codec):
            codec.measure(data, SIZE)
            codec.check(codec.shifted(data, 2), SIZE)
        if isinstance(codec, Lattice):
            codec.mass(data, SIZE)
            codec.energy(data, SIZE)
            assert not codec.decode(codec.merge([data, codec.negative(data, SIZE)], SIZE), SIZE).any(), "it does not cancel"
            codec.split(data, 3, SIZE)

    return Target(name, seeds, feed, share=share)


def _coders() -> Iterator[Target]:
    """Both implementations of an entropy coder read the same, or refuse the same."""
    for ranged in (False, True):
        slow, fast = (Coders(NumpyGolomb(), PythonRangeCoder()).one(ranged=ranged), fastest().one(ranged=ranged))
        codec = Lattice("range" if ranged else "golomb")
        seeds = tuple(codec.encode(_vector(seed), 0.25)[4:] for seed in range(6))

        def feed(data: bytes, slow: Any = slow, fast: Any = fast) -> None:
            if len(data) < 4:
                return
            count = int.from_bytes(data[:4], "little") & 0x7FFFFFFF
            found: list[tuple[list[int], list[int]] | None] = []
            for coder in (slow, fast):
                try:
                    places, symbols = coder.unpack(memoryview(data)[4:], count, SIZE)
                    found.append((places.tolist(), symbols.tolist()))
                except WireError:
                    found.append(None)
            assert found[0] == found[1], f"read as {found[0]} and as {found[1]}"

        yield Target("range-both" if ranged else "golomb-both", seeds, feed, share=1)


def _side() -> Target:
    rng = np.random.default_rng(5)
    seeds = tuple(side.encode(rng.standard_normal(40) * scale) for scale in (0.0, 1e-6, 1.0, 1e5))
    seeds += (side.merge([*seeds[1:]], 40),)

    def feed(data: bytes) -> None:
        values = side.decode(data, 40)
        side.check(data, 40)
        assert np.isfinite(values).all(), "not finite"
        side.check(side.merge([data, seeds[2]], 40), 40)

    return Target("side", seeds, feed, share=4)


def _gossip() -> Target:
    own = _vector(9)
    seeds = tuple(modulo.encode(own + 0.01 * _vector(seed), 0.02, bits, seed) for seed in range(4) for bits in (4, 8))
    return Target("gossip", seeds, lambda data: _finite(modulo.mix(own, [modulo.decode(data, own)])), share=2)


def _finite(vector: Any) -> None:
    assert np.isfinite(vector).all(), "not finite"


def _advance() -> Target:
    theta, statistics = theta_bytes(_vector(0)), side.encode(np.zeros(0))
    seeds = tuple(Lattice(rounding="nearest").encode(_vector(seed), 0.25) for seed in range(4))
    return Target("advance", seeds, lambda data: _finite(np.frombuffer(advance(theta, data, statistics), "<f4")), share=2)


def _following() -> Target:
    """Releases as they come to a device that knows the one before."""
    theta = theta_bytes(_vector(0))
    payload = Lattice(rounding="nearest").encode(_vector(2), 0.125)
    after = advance(theta, payload)
    difference = Difference(blob_of(theta).label, (), payload)
    release = ReleaseManifest(
        7, 1, bytes(16), blob_of(after), True, "lattice", {}, 0.25, None, 4, False, pack_difference(difference)
    )
    far = Difference(b"\2" * 16, (blob_of(payload).brief,), payload)
    seeds = [pack(Frame("digits", "fog-7", 1, 0, each)) for each in (release, replace(release, difference=pack_difference(far)))]

    def feed(data: bytes) -> None:
        manifest = unpack(data).message
        if isinstance(manifest, ReleaseManifest):
            following = Following(advance)
            following.know(theta)
            following.hear(manifest.run, 1)
            following.want(manifest)

    return Target("following", tuple(seeds), feed, share=3)


def _packets() -> Iterator[Target]:
    """Bytes of a connection in either version of MQTT: packets, in two pieces."""
    frame, properties = _wire_bytes(), PublishProperties(60, 3).pack()
    for level, beside in ((4, b""), (5, properties)):
        seeds = (
            publish_packet("em1/net/fog-7/up/device-3/digits", frame, retain=False, properties=beside),
            publish_packet("em1/net/fog-7/st/device-3", frame * 3, retain=True, properties=beside),
            b"\x32%c\x00\x03a/b\x00\x07%babc" % (10 + len(beside), beside),
            b"\x40\x02\x00\x01",
            b"\xd0\x00",
        )

        def feed(data: bytes, level: int = level) -> None:
            incoming = Packets(1 << 16)
            for piece in (data[: len(data) // 2], data[len(data) // 2 :]):
                incoming.feed(piece)
                while (packet := incoming.next()) is not None:
                    publish_of(packet, level)

        yield Target(f"packets-{level}", seeds, feed, (Malformed,), share=2)


def _wire_bytes() -> bytes:
    return pack(Frame("digits", "device-3", 1, 2, Presence("online", "device", "fog-7")))


def _chunks() -> Target:
    """Chunks of updates that were offered, from one sender."""
    data = bytes(range(256)) * 12
    blob = blob_of(data, 1024)
    seeds = tuple(pack(Frame("digits", "device-3", 1, 2, cut(data, blob, index))) for index in range(blob.chunks))
    topic = topics.parse("em1/net/fog-7/up/device-3/digits")
    incoming = Incoming(1 << 20)

    def feed(sent: bytes) -> None:
        message = unpack(sent).message
        incoming.offer("device-3", topic, blob)
        if isinstance(message, Chunk):
            whole = incoming.add("device-3", message)
            assert whole is None or whole[1] == data, "put together as something else"
        assert incoming.held_bytes <= len(data), "held more than was offered"

    return Target("chunks", seeds, feed, share=4)


def _fleet(frames: list[Frame]) -> Target:
    """What nodes tell of themselves, told again to Prometheus."""
    seeds = tuple(pack(frame) for frame in frames if isinstance(frame.message, Telemetry | Presence))
    fleet, now = Fleet(16), [0.0]

    def feed(data: bytes) -> None:
        frame = unpack(data)
        now[0] += 0.1
        fleet.take(frame, now[0], now[0])
        if int(10 * now[0]) % 64 == 0:
            "".join(fleet.text(now[0])).encode()
            json.loads(fleet.targets())

    return Target("fleet", seeds, feed, share=3)


def _bundle() -> Target:
    """Archives; not often, each takes a hundred times as long as a frame."""
    small = toy_bundle(8)
    seeds = (small.to_bytes(), replace(small, train=None, manifest=replace(small.manifest, python="a:b")).to_bytes())

    def feed(data: bytes) -> None:
        read_bundle(data)

    return Target("bundle", seeds, feed, (BundleError,), share=1)


def _credential() -> Target:
    """Certificates that nodes show."""
    bureau = Office()
    senders, der = bureau.senders(), bureau.der("device-3")

    def feed(data: bytes) -> None:
        assert senders.learn("device-3", data) != "" or data == der, "a damaged certificate is believed"

    return Target("credential", (der,), feed, share=2)


def _sound(bundle: Bundle, number: int = 0) -> list[Frame]:
    """Updates that a top of this bundle takes in its release 0."""
    payload = Lattice(kappa=16.0).encode(_vector(3, bundle.manifest.size), 0.0)
    section = Section(0, 10, 1, 1.5, payload)
    update = Update(1, "lattice", bundle.manifest.size, (section,), {"test.mse": (3.0, 4.0), "uplink": (100.0, 1.0)}, 0)
    return [Frame(TASK, f"device-{n}", 1, number, update) for n in range(3)]


class _Machine:
    """A role that is made anew now and then, so that what it keeps by right does not look like growth."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make, self._fed = make, 0
        self._machine = make()

    def feed(self, data: bytes) -> None:
        frame = unpack(data)
        self._fed += 1
        if self._fed % 200 == 0:
            self._machine = self._make()
        self._machine.handle(Arrived(FROM_PARENT, frame), float(self._fed))
        self._machine.facts(float(self._fed))
        self._machine.reason(float(self._fed))


def _top() -> Target:
    """The node that makes releases, and a window that closes again and again."""
    bundle = toy_bundle(SIZE)

    def make() -> Top:
        options = TopOptions(WindowOptions(2, 5.0, 1, 4, 0), ServerOptions(), {}, chunk_bytes=1024)
        top = Top(Place("net", "top", "", 1), TASK, options, FogMemory(), 0.0)
        top.handle(BundleGiven(bundle.to_bytes()), 0.0)
        return top

    birth = Frame(TASK, "device-0", 1, 0, Presence("online", "device", "top"))
    return Target("top", tuple(map(pack, [*_sound(bundle), birth])), _Machine(make).feed, share=1)


def _device() -> Target:
    """A device that follows releases."""
    bundle = toy_bundle(SIZE)
    blob = blob_of(bundle.to_bytes())
    release = ReleaseManifest(7, 0, blob.label, blob_of(theta_bytes(bundle.theta0)), True, "lattice", {}, 0.25, None, 4)

    def make() -> Cycle:
        cycle = Cycle(Place("net", "device-3", "fog-7", 1), TASK, Left(), 0.0)
        for message in (unpack(_task_frame(blob)).message, release):
            cycle.handle(Arrived(FROM_PARENT, Frame(TASK, "fog-7", 1, 0, message)), 0.0)
        cycle.handle(TaskOpened(blob.digest, bundle.manifest, memoryview(theta_bytes(bundle.theta0))), 0.0)
        return cycle

    seeds = [pack(Frame(TASK, "fog-7", 1, 0, replace(release, number=number))) for number in range(3)]
    answers = [pack(replace(frame, task=TASK, node="fog-7")) for frame in _frames()]
    return Target("device", (*seeds, _task_frame(blob), *answers), _Machine(make).feed, share=2)


def _task_frame(blob: Any) -> bytes:
    return pack(Frame(TASK, "fog-7", 1, 0, TaskManifest(blob)))


# -------------------------------------------------------------------------------------------------------------- the runs


def fuzz(
    chosen: Sequence[Target], frames: int, seed: int, most_bugs: int = 3, say: Callable[[int], None] = lambda done: None
) -> Done:
    """Feed damaged frames; ends early with `most_bugs` different bugs. `say` is told how many are done, every 1000."""
    rng, process = random.Random(seed), psutil.Process()
    turns = [target for target in chosen for _ in range(target.share)]
    rng.shuffle(turns)
    bugs: dict[tuple[str, str], Bug] = {}
    done = taken = begun_bytes = 0
    while done < frames and len(bugs) < most_bugs:
        target = turns[done % len(turns)]
        data = damaged(rng, target.seeds)
        done += 1
        try:
            target.feed(data)
            taken += 1
        except target.allowed:
            pass
        except Exception as error:
            bugs.setdefault((target.name, _where(error)), Bug(target.name, data, f"{error!r:.300} at {_where(error)}"))
        if done == max(1, frames // 10):
            begun_bytes = process.memory_info().rss
        if done % 1000 == 0:
            say(done)
    ended_bytes = process.memory_info().rss
    return Done(done, taken, begun_bytes or ended_bytes, ended_bytes, tuple(bugs.values()))


def _where(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(last.filename).name}:{last.lineno}"


def _process(number: int, names: Sequence[str], frames: int, seed: int, said: Any) -> None:
    told = [time.monotonic()]

    def say(done: int) -> None:
        if time.monotonic() - told[0] >= SAY_S:
            told[0] = time.monotonic()
            said.put((number, done, psutil.Process().memory_info().rss))

    said.put((number, fuzz(_chosen(names), frames, seed + number, say=say)))


def _chosen(names: Sequence[str]) -> list[Target]:
    known = targets()
    return [target for target in known if not names or target.name in names]


def run(frames: int, seed: int, processes: int, names: Sequence[str] = ()) -> tuple[list[Done], float]:
    """Feed so many frames in several processes; prints how it goes. Returns what each has done, and the seconds."""
    context = multiprocessing.get_context("spawn")  # memory is of the decoders, not of who has started them
    said = context.Queue()
    shares = [frames // processes + (number < frames % processes) for number in range(processes)]
    workers = [
        context.Process(target=_process, args=(number, tuple(names), share, seed * 1000, said), daemon=True)
        for number, share in enumerate(shares)
    ]
    begun = time.monotonic()
    for worker in workers:
        worker.start()
    ended: dict[int, Done] = {}
    at: dict[int, tuple[int, int]] = {}
    while len(ended) < processes:
        try:
            number, *more = said.get(timeout=SAY_S)
        except Empty:
            dead = [worker.exitcode for number, worker in enumerate(workers) if number not in ended and not worker.is_alive()]
            if dead:  # a signal: a compiled decoder has crashed
                raise SystemExit(f"a process died with exit code {dead[0]}") from None
            continue
        if isinstance(more[0], Done):
            ended[number] = more[0]
            continue
        at[number] = more[0], more[1]
        if number == 0:
            wall_s, done = time.monotonic() - begun, sum(count for count, _ in at.values())
            held = " + ".join(f"{rss / 2**20:.0f}" for _, rss in at.values())
            print(f"{wall_s:7.0f} s  {done:>10} frames  {done / wall_s:8.0f} per second  {held} MiB", flush=True)
    return [ended[number] for number in sorted(ended)], time.monotonic() - begun


def main() -> int:
    """Run what is asked for; 1 where a bug was found or memory has grown."""
    arguments = _arguments()
    names = [name for name in arguments.only.split(",") if name]
    if arguments.input is not None:
        for target in _chosen(names):
            try:
                target.feed(bytes.fromhex(arguments.input))
                print(f"{target.name}: taken")
            except target.allowed as error:
                print(f"{target.name}: refused: {error}")
        return 0
    done, wall_s = run(arguments.frames, arguments.seed, arguments.processes, names)
    frames = sum(each.frames for each in done)
    growth = ", ".join(f"{each.growth_bytes / 2**20:+.1f}" for each in done)
    print(f"{frames} frames in {wall_s:.0f} s: {frames / wall_s:.0f} per second; {sum(each.taken for each in done)} taken")
    print(f"memory since a tenth was done: {growth} MiB")
    bugs = {bug.error: bug for each in done for bug in each.bugs}
    for bug in bugs.values():
        print(f"BUG {bug}")
    return 1 if bugs or any(each.growth_bytes > MOST_GROWTH_BYTES for each in done) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Damaged frames to every decoder.")
    parser.add_argument("--frames", type=int, default=10_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", default="", help="names of decoders, with commas between")
    parser.add_argument("--input", help="these bytes as hex, once, to the decoders of --only")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
