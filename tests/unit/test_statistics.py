"""Running statistics on their way: up as float16 that adds exactly, down as they are, and never past what devices measured."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from sklearn.datasets import load_digits

from edgemw.compression import side
from edgemw.compression.lattice import Lattice
from edgemw.compression.merge import fold, merge
from edgemw.compression.residual import Contribution, encode_update, give_back
from edgemw.compression.table import CODECS, codec_named
from edgemw.core.bundle import Bundle, Manifest, Slot, Spec, Vector
from edgemw.core.encoded import Encoded, Section
from edgemw.core.errors import CodecError, WireError
from edgemw.core.ids import UpdateId
from edgemw.core.plan import Plan
from edgemw.core.ranges import Ranges, cut, ranges_of
from edgemw.fog.events import Released
from edgemw.fog.release import TopOptions
from edgemw.fog.server import ServerOptions, mean_statistics
from edgemw.fog.window import WindowOptions
from edgemw.learning.dataset import Samples
from edgemw.learning.oracle import Array, Step
from edgemw.learning.trainer import Trained, train
from edgemw.wire import topics
from edgemw.wire.messages import Frame, Update
from edgemw.wire.traffic import Arrived
from tests.support.world import NET, TASK, Learn, World, toy_bundle

PIXELS, CLASSES, EPSILON = 64, 10, np.float32(1e-5)
LAYOUT = (
    Slot("norm.mean", (PIXELS,), 0, trainable=False),
    Slot("norm.var", (PIXELS,), PIXELS, trainable=False),
    Slot("out.weight", (PIXELS, CLASSES), 2 * PIXELS),
    Slot("out.bias", (CLASSES,), (2 + CLASSES) * PIXELS),
)
SIZE = (2 + CLASSES) * PIXELS + CLASSES
NEAREST = Lattice(rounding="nearest")
FOGS, DEVICES = ("fog-0", "fog-1"), [f"device-{n}" for n in range(6)]


class Normalised:
    """Softmax regression on raw digits behind a batch normalisation; a third of its pixels hardly ever change."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest

    def loss_and_grad(self, theta: Vector, x: Array, y: Array, seed: int) -> Step:
        mean, var = x.mean(axis=0), x.var(axis=0)
        inputs = (x - mean) / np.sqrt(var + EPSILON)
        p = softmax(inputs @ theta[2 * PIXELS : -CLASSES].reshape(PIXELS, CLASSES) + theta[-CLASSES:])
        loss = float(-np.log(p[np.arange(len(y)), y] + 1e-12).mean())
        p[np.arange(len(y)), y] -= 1
        grad = np.concatenate([np.zeros(2 * PIXELS), (inputs.T @ p / len(y)).reshape(-1), p.mean(axis=0)])
        running = theta[: 2 * PIXELS] + np.float32(0.1) * (np.concatenate([mean, var]) - theta[: 2 * PIXELS])
        return Step(loss, grad.astype(np.float32), running.astype(np.float32))

    def predictor(self, theta: Vector) -> object:
        raise NotImplementedError


def softmax(z: Array) -> Array:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def accuracy(theta: Vector, samples: Samples) -> float:
    inputs = (samples.x - theta[:PIXELS]) / np.sqrt(theta[PIXELS : 2 * PIXELS] + EPSILON)
    scores = inputs @ theta[2 * PIXELS : -CLASSES].reshape(PIXELS, CLASSES) + theta[-CLASSES:]
    return float((scores.argmax(axis=1) == samples.y).mean())


def normalised_bundle() -> Bundle:
    theta0 = np.zeros(SIZE, np.float32)
    theta0[PIXELS : 2 * PIXELS] = 1
    toy = toy_bundle(SIZE)
    return replace(toy, manifest=replace(toy.manifest, layout=LAYOUT, input=Spec((PIXELS,), "float32")), theta0=theta0)


class Digits:
    """Trains devices on their digits: two classes are most of what a device sees."""

    def __init__(self, bundle: Bundle, shift: float = 0.0, seed: int = 0) -> None:
        self.seed = seed
        x, y = load_digits(return_X_y=True)
        x, order = x.astype(np.float32) + np.float32(shift), np.random.default_rng(0).permutation(len(y))
        self.test = Samples(x[order[:400]], y[order[:400]])
        rest = order[400:]
        favourite = (y[rest] % len(DEVICES)) == np.arange(len(rest)) % len(DEVICES)
        self.parts = [
            Samples(x[rows], y[rows])
            for number in range(len(DEVICES))
            for rows in [
                rest[(favourite & (y[rest] % len(DEVICES) == number)) | (~favourite & (np.arange(len(rest)) % 6 == number))]
            ]
        ]
        self.oracle = Normalised(bundle.manifest)
        self.plan = Plan(lr=0.1, epochs=1, batch_size=32)

    def __call__(self, node: str, release: int, theta: Vector) -> Trained:
        seed = 1000 * self.seed + release
        return train(self.oracle, theta, self.parts[int(node[-1])], self.plan, seed, lambda: False)  # type: ignore[arg-type]


def net(learner: Learn, bundle: Bundle, rounds: int, **more: object) -> World:
    world = World(learner, bundle=bundle, size=bundle.manifest.size)
    k = int(str(more.pop("k", 0)))
    window = WindowOptions(k, deadline_s=20.0, children=len(FOGS))
    server = ServerOptions(str(more.pop("optimizer", "average")), lr=0.1 if more.pop("slow", False) else 1.0)
    world.top("top", TopOptions(window, server, {}, rounds=rounds, **more))  # type: ignore[arg-type]
    for fog in FOGS:
        world.fog(fog, "top", WindowOptions(k, deadline_s=10.0, children=3))
    for number, device in enumerate(DEVICES):
        world.device(device, FOGS[number % 2])
    return world


def released(world: World) -> Released:
    found = world.disks["top"].released
    assert found is not None
    return found


@pytest.mark.parametrize("shift", [0.0, 3000.0])
def test_a_normalised_net_learns_nearly_as_well_as_with_float32(shift: float) -> None:
    """Also on raw values whose squares leave the range of float16. The mean of three runs: one alone varies by 0.7 point."""
    bundle = normalised_bundle()
    found = {"dense": 0.0, "lattice": 0.0}
    for codec, seed in itertools.product(found, range(3)):
        learner = Digits(bundle, shift, seed)
        world = net(learner, bundle, 30, codec=codec, release_codec=codec)
        world.run(200)
        assert released(world).manifest.number == 30
        theta = released(world).theta
        assert (theta[PIXELS : 2 * PIXELS] >= 0).all()
        found[codec] += accuracy(theta, learner.test) / 3
    assert found["dense"] > 0.85
    assert found["lattice"] > found["dense"] - 0.03


def test_devices_end_with_the_bits_of_the_top() -> None:
    bundle = normalised_bundle()
    world = net(Digits(bundle), bundle, 6)
    world.run(200)
    assert released(world).manifest.difference
    for device in DEVICES:
        assert world.served[device].tobytes() == released(world).theta.tobytes()


class Drift:
    """Every device finds the statistics of its own, and no gradient."""

    def __call__(self, node: str, release: int, theta: Vector) -> Trained:
        number = int(node[-1])
        delta = np.zeros(SIZE, np.float32)
        delta[:PIXELS] = np.float32(1e3 * number) - theta[:PIXELS]
        delta[PIXELS : 2 * PIXELS] = -theta[PIXELS : 2 * PIXELS]
        return Trained(delta, 7 + 13 * number, 1.0, 1)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("optimizer", ["average", "momentum", "adam"])
def test_statistics_are_the_weighted_mean_whatever_codec_and_server(codec: str, optimizer: str) -> None:
    world = net(Drift(), normalised_bundle(), 5, codec=codec, optimizer=optimizer, slow=True)
    world.run(200)
    theta, weights = released(world).theta, np.array([7 + 13 * n for n in range(6)])
    expected = float((weights * 1e3 * np.arange(6)).sum() / weights.sum())
    np.testing.assert_allclose(theta[:PIXELS], expected, rtol=1e-3)
    assert (theta[PIXELS : 2 * PIXELS] >= 0).all()  # a variance that vanished did not go past 0
    assert (theta[PIXELS : 2 * PIXELS] < 1e-6).all()


def test_personal_and_frozen_statistics_are_not_sent() -> None:
    ranges = ranges_of(LAYOUT, Plan(personal="norm.mean", frozen="norm.var"))
    encoded, _ = encode_update(Lattice(), contribution(np.ones(SIZE, np.float32)), np.zeros(SIZE, np.float32), 0.5, ranges=ranges)
    assert encoded.sections[0].side == b""


def test_rare_statistics_wait_and_are_not_added_up() -> None:
    ranges = ranges_of(LAYOUT, Plan(rare="norm.*", rare_every=2))
    residual = np.zeros(SIZE, np.float32)
    one, residual = encode_update(Lattice(), contribution(np.ones(SIZE, np.float32), base=1), residual, 0.5, ranges=ranges)
    two, residual = encode_update(Lattice(), contribution(np.ones(SIZE, np.float32), base=2), residual, 0.5, ranges=ranges)
    assert one.sections[0].side == b""
    assert side.decode(two.sections[0].side, 2 * PIXELS).tolist() == [10.0] * 2 * PIXELS


def test_statistics_stand_for_all_the_weight_of_their_update() -> None:
    owing = replace(contribution(np.ones(SIZE, np.float32)), owed=30)
    encoded, _ = encode_update(Lattice(), owing, np.zeros(SIZE, np.float32), 0.5, ranges=ranges_of(LAYOUT, Plan()))
    assert side.decode(encoded.sections[0].side, 2 * PIXELS).tolist() == [40.0] * 2 * PIXELS


def contribution(delta: Vector, base: int = 1, seq: int = 0) -> Contribution:
    return Contribution(UpdateId("device", 1, seq), base, 10, delta)


def test_the_codec_and_the_residual_hear_nothing_of_statistics() -> None:
    ranges, delta = ranges_of(LAYOUT, Plan()), np.full(SIZE, 0.3, np.float32)
    encoded, residual = encode_update(NEAREST, contribution(delta), np.zeros(SIZE, np.float32), 2.0, ranges=ranges)
    (section,) = encoded.sections
    assert section.energy == pytest.approx(9 * (SIZE - 2 * PIXELS), rel=1e-3)
    for vector in (residual, Lattice().decode(section.payload, SIZE), give_back(Lattice(), encoded, residual)):
        assert not cut(vector, LAYOUT[:2]).any()
        assert cut(vector, LAYOUT[2:]).all()


def test_a_limit_is_for_the_payload_and_the_statistics_together() -> None:
    ranges, residual = ranges_of(LAYOUT, Plan()), np.zeros(SIZE, np.float32)
    delta = np.random.default_rng(3).normal(0, 1, SIZE).astype(np.float32)
    free = encode_update(Lattice(), contribution(delta), residual, 0.5, None, ranges)[0].sections[0]
    held = encode_update(Lattice(), contribution(delta), residual, 0.5, 400, ranges)[0].sections[0]
    assert free.size_bytes > 400 >= held.size_bytes
    assert held.side == free.side
    with pytest.raises(CodecError, match="running statistics take 263 bytes, more than the 200 that may be sent at once"):
        encode_update(Lattice(), contribution(delta), residual, 0.5, 200, ranges)


def test_a_merge_adds_statistics_base_by_base() -> None:
    ranges = Ranges(4, statistics=(Slot("s", (3,), 0, trainable=False),))
    deltas = [np.array([1, n / 3, -n, 0], np.float32) for n in range(4)]
    parts = [
        encode_update(codec_named("dense"), contribution(d, base=n % 2, seq=n), np.zeros(4, np.float32), 0.0, ranges=ranges)[0]
        for n, d in enumerate(deltas)
    ]
    merged = merge(codec_named("dense"), parts)
    for section in merged.sections:
        inside = [part.sections[0].side for part in parts if part.sections[0].base == section.base]
        assert section.side == side.merge(inside, 4)
    assert merge(codec_named("dense"), parts[::-1]) == merged
    past = {0: np.array([1, 2, 3], np.float32), 1: np.array([4, 5, 6], np.float32)}
    expected = sum((past[n % 2] + d[:3] for n, d in enumerate(deltas)), np.zeros(3)) / 4
    np.testing.assert_allclose(mean_statistics(merged, past, 1, "none"), expected, rtol=2e-3)
    assert mean_statistics(merged, past, 1, "sqrt")[1] > expected[1]  # the late ones weigh less
    unknown = past[1] + (deltas[1][:3] + deltas[3][:3]) / 4
    np.testing.assert_allclose(mean_statistics(merged, {1: past[1]}, 1, "none"), unknown, rtol=2e-3)


class Vanishing:
    """A variance that was large is gone on every device; some of them say so late."""

    def __init__(self) -> None:
        self.lowest = np.inf

    def __call__(self, node: str, release: int, theta: Vector) -> Trained:
        variances = theta[PIXELS : 2 * PIXELS]
        self.lowest = min(self.lowest, float(variances.min()))
        target = np.linspace(0.3, 3, PIXELS) if release == 0 else np.full(PIXELS, 1e-7)
        delta = np.zeros(SIZE, np.float32)
        delta[PIXELS : 2 * PIXELS] = target.astype(np.float32) - variances
        return Trained(delta, 7 + 13 * int(node[-1]), 1.0, 1)


@pytest.mark.parametrize("k", [0, 1])
def test_no_variance_passes_below_zero_however_late_the_updates(k: int) -> None:
    """With k = 1 every update makes a release, so that most of them come late."""
    learner = Vanishing()
    world = net(learner, normalised_bundle(), 40, k=k)
    world.run(300)
    stale = [fact.values["staleness"] for name, fact in world.facts if name in FOGS and fact.name == "update_taken"]
    assert (sum(int(one) > 0 for one in stale) > 10) is bool(k)
    assert learner.lowest >= 0
    assert released(world).theta[PIXELS : 2 * PIXELS].max() < 1e-3


def test_folding_late_sections_leaves_their_statistics_out() -> None:
    ranges = Ranges(4, statistics=(Slot("s", (3,), 0, trainable=False),))
    dyadic = Lattice(steps="dyadic")
    parts = [
        encode_update(dyadic, contribution(np.ones(4, np.float32), base, seq=base), np.zeros(4, np.float32), 0.5, ranges=ranges)[
            0
        ]
        for base in (1, 2)
    ]
    (section,) = fold(dyadic, merge(dyadic, parts), 2).sections
    assert section.side == parts[1].sections[0].side
    assert section.weight == 20


def test_parts_with_other_statistics_do_not_merge() -> None:
    payload = codec_named("dense").encode(np.ones(4, np.float32), 0.0)
    parts = [
        Encoded("dense", 4, (Section(1, 1, 1, 0.0, payload, side.encode(np.ones(n))),), frozenset({UpdateId("d", 1, n)}))
        for n in (2, 3)
    ]
    with pytest.raises(WireError):
        merge(codec_named("dense"), parts)


@pytest.mark.parametrize("fog", FOGS)
@pytest.mark.parametrize("beside", [side.encode(np.ones(3)), side.encode(np.ones(2 * PIXELS))[:-1], b"\0" * 20])
def test_an_update_with_other_statistics_is_returned_by_the_first_fog_node(fog: str, beside: bytes) -> None:
    world = net(Drift(), normalised_bundle(), 5)
    for device in DEVICES:
        world.holding[device] = []
    world.run(1)
    section = Section(0, 1, 1, 0.0, Lattice().encode(np.zeros(SIZE, np.float32), 0.0), beside)
    update = Update(released(world).manifest.run, "lattice", SIZE, (section,), {}, 0)
    topic = topics.parse(topics.build(NET, fog, "update", node="stranger", task=TASK))
    world.give(fog, Arrived(topic, Frame(TASK, "stranger", 1, 0, update)))
    world.run(1)
    assert [fact.values["reason"] for name, fact in world.facts if name == fog and fact.name == "update_refused"]
    assert not world.disks[fog].window
