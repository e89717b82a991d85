"""Whole training runs in one process: releases are those of production, nothing is lost, bytes are what the wire carries."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from edgemw.compression.lattice import Lattice
from edgemw.core.bundle import Vector
from edgemw.core.encoded import Section
from edgemw.core.errors import ConfigError
from edgemw.core.ids import Place
from edgemw.device.events import SaveRound, Work, Worked
from edgemw.fog.release import TopOptions
from edgemw.fog.server import ServerOptions
from edgemw.fog.window import WindowOptions
from edgemw.learning.trainer import Trained
from edgemw.robust.options import RobustOptions
from edgemw.simulation.carrier import NET, Carrier
from edgemw.simulation.packets import PUBACK_BYTES, added_bytes
from edgemw.simulation.rounds import Round, Run, Watch, run_rounds
from edgemw.simulation.traffic import Flow
from edgemw.simulation.tree import Tree
from edgemw.transport.traffic import publish_packet_bytes
from edgemw.transport.uploading import Uploading
from edgemw.wire import publication, topics
from edgemw.wire.chunks import bitmap
from edgemw.wire.messages import Frame, Grant, Offer, ReleaseManifest, Update
from edgemw.wire.traffic import Upload
from tests.support.world import World, toy_bundle

DEVICES = [f"device-{n}" for n in range(4)]
PARENTS = {"fog-0": "top", "fog-1": "top", **{device: f"fog-{n % 2}" for n, device in enumerate(DEVICES)}}
SIZE = 64


def learn(node: str, release: int, theta: Vector, seed: int = 0) -> Trained:
    rng = np.random.default_rng([int(node[-1]), release, seed])
    return Trained(rng.normal(0, 0.1, theta.size).astype(np.float32), 10 + int(node[-1]), 1.0, 5)


def do(node: str, work: Work) -> Worked:
    tally = {"test.mse": (float(np.square(work.theta).sum()), 1.0)}
    trained = learn(node, work.release.number, work.theta, work.seed % 1000) if work.train else None
    return Worked(work.release.number, trained, tally)


def options(rounds: int = 6, codec: str = "lattice", **more: object) -> TopOptions:
    made = TopOptions(WindowOptions(), ServerOptions(), {}, rounds=rounds, codec=codec, kappa=2.0)
    return replace(made, **more)  # type: ignore[arg-type]  # fields of TopOptions


def run(tree: Tree | None = None, *, size: int = SIZE, seed: int = 0, watch: Watch | None = None, **more: object) -> Run:
    return run_rounds(tree or Tree(PARENTS), toy_bundle(size).to_bytes(), options(**more), do, seed=seed, watch=watch)  # type: ignore[arg-type]  # as above


@pytest.mark.parametrize("codec", ["lattice", "dense", "topk", "qsgd", "signsgd", "powersgd"])
def test_a_run_comes_to_its_end_and_counts_what_was_sent(codec: str) -> None:
    done = run(codec=codec)
    assert done.accounts.conserved
    assert done.accounts.updates_counted == 6 * len(DEVICES)
    assert done.accounts.weight_counted == 6 * sum(10 + n for n in range(4))
    assert [each.release for each in done.rounds] == [*range(7)]
    assert done.reasons == {}


def test_what_a_robust_window_does_not_believe_is_in_the_accounts() -> None:
    def claims(node: str, work: Work) -> Worked:
        worked = do(node, work)
        boasts = node == "device-3" and worked.trained is not None
        return replace(worked, trained=replace(worked.trained, weight=10_000)) if boasts and worked.trained else worked

    flat, window = Tree(dict.fromkeys(DEVICES, "top")), WindowOptions(robust=RobustOptions("norm"))
    done = run_rounds(flat, toy_bundle(SIZE).to_bytes(), options(window=window), claims)
    assert done.accounts.weight_bounded > 6 * 9_900
    assert done.accounts.conserved
    assert not replace(done.accounts, weight_bounded=0).conserved


def test_an_account_that_misses_an_update_is_not_conserved() -> None:
    accounts = run().accounts
    assert not replace(accounts, updates_counted=accounts.updates_counted - 1).conserved
    assert not replace(accounts, weight_returned=1).conserved


def test_the_releases_are_those_of_the_other_world() -> None:
    """The world of the role tests starts, saves and routes on its own; both drive the same machines."""
    world = World(learn)
    world.top("top", options())
    for fog in ("fog-0", "fog-1"):
        world.fog(fog, "top", WindowOptions(children=2))
    for node in DEVICES:
        world.device(node, PARENTS[node])
    world.run(300)
    released = world.disks["top"].released
    assert released is not None

    def plain(node: str, work: Work) -> Worked:
        trained = learn(node, work.release.number, work.theta) if work.train else None
        return Worked(work.release.number, trained, {})

    done = run_rounds(Tree(PARENTS), toy_bundle().to_bytes(), options(), plain)
    assert done.theta.tobytes() == released.theta.tobytes()
    assert np.abs(done.theta).max() > 0


def test_the_same_seed_carries_the_same_bytes_and_another_does_not() -> None:
    once, again, other = run(), run(), run(seed=1)
    assert once.theta.tobytes() == again.theta.tobytes()
    assert (once.rounds, once.links, once.accounts) == (again.rounds, again.links, again.accounts)
    assert once.theta.tobytes() != other.theta.tobytes()


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_a_tree_of_any_depth_learns_the_same(depth: int) -> None:
    chain = [f"fog-{n}" for n in range(depth)]
    parents = dict(zip(chain, ["top", *chain], strict=False))
    tree = Tree(parents | dict.fromkeys(DEVICES, chain[-1] if chain else "top"))
    assert len(tree.levels) == depth + 1
    done = run(tree)
    assert done.accounts.conserved
    assert done.theta.tobytes() == run(Tree(dict.fromkeys(DEVICES, "top"))).theta.tobytes()  # integers add in any grouping


def test_a_device_that_cannot_train_holds_nobody_up() -> None:
    def one_without(node: str, work: Work) -> Worked:
        return Worked(work.release.number, None, {}, "no samples") if node == "device-0" else do(node, work)

    done = run_rounds(Tree(PARENTS), toy_bundle().to_bytes(), options(), one_without)
    assert done.accounts.conserved
    assert done.accounts.updates_sent == 6 * 3
    assert done.reasons == {"device-0": "no samples"}


def test_rounds_tell_metrics_and_what_had_crossed_every_link() -> None:
    seen: list[Round] = []
    done = run(watch=Watch(on_round=seen.append))
    assert tuple(seen) == done.rounds
    assert done.rounds[0].metrics["mse"] == 0.0
    assert done.rounds[3].metrics["measured"] == 3
    sums = [each.links["device-0"].wire_bytes for each in done.rounds]
    assert sums == sorted(set(sums))
    assert sums[-1] <= done.links["device-0"].wire_bytes
    assert done.rounds[0].links["device-0"].up.vectors == 1
    assert done.rounds[3].links["device-0"].up.vectors == 4


def test_a_watch_sees_every_update_with_its_release() -> None:
    seen: list[tuple[str, int]] = []

    def look(node: str, saved: SaveRound, release: ReleaseManifest) -> None:
        update = saved.frame.message
        assert isinstance(update, Update)
        seen.extend((node, release.number) for section in update.sections if section.base == release.number)

    run(rounds=3, watch=Watch(on_update=look))
    assert sorted(seen) == sorted((device, number) for device in DEVICES for number in range(3))


def test_a_run_without_an_end_is_refused() -> None:
    with pytest.raises(ValueError, match="no end"):
        run(rounds=0)


# ------------------------------------------------------------------------------------------------------------------ bytes


@pytest.mark.parametrize("payload_bytes", [0, 1, 90, 100, 127, 128, 16_300, 16_383, 16_384, 2_097_151, 3_000_000])
def test_what_mqtt_adds_is_what_the_transport_counts(payload_bytes: int) -> None:
    topic = topics.build(NET, "fog-0", "update", node="device-0", task="toy")
    packet_bytes = publish_packet_bytes(topic, payload_bytes, qos=1, properties_bytes=0)
    assert payload_bytes + added_bytes(topic, payload_bytes) == packet_bytes


def test_the_largest_packet_is_that_of_the_standard() -> None:
    added_bytes("t", 268_435_455 - 5)
    with pytest.raises(ValueError, match="do not fit an MQTT packet"):
        added_bytes("t", 268_435_455 - 4)


def test_dense_updates_cost_four_bytes_for_a_parameter_and_five_for_each() -> None:
    done = run(codec="dense", release_codec="dense")
    for node, traffic in done.links.items():
        assert traffic.up.vectors == 6, node
        assert traffic.up.codec_bytes == 6 * (4 * SIZE + 5)
        assert traffic.down.vectors == 6
        assert traffic.down.bits_per_parameter(SIZE) == 32.0


@pytest.mark.parametrize("release_codec", ["lattice", "dense"])
@pytest.mark.parametrize("devices", [1, 12])
def test_the_link_above_a_fog_node_carries_one_copy_of_a_release(release_codec: str, devices: int) -> None:
    """However many devices are below, and of the bundle too: as many bytes as go down to one device, but for packet headers."""
    tree = Tree({"fog-0": "top", **{f"device-{n % 10}{n}": "fog-0" for n in range(devices)}})
    links = run(tree, size=4096, release_codec=release_codec).links
    long, short = links["fog-0"].down, [links[device].down for device in links if device != "fog-0"]
    assert len(short) == devices
    assert long.vectors == 6
    assert all((link.vectors, link.codec_bytes) == (6, long.codec_bytes) for link in short)
    assert long.frame_bytes == pytest.approx(short[0].frame_bytes, rel=0.02)


def test_a_merged_update_costs_more_bits_than_one_of_a_device() -> None:
    done = run(size=4096, rounds=8)
    device, fog = done.links["device-0"].up, done.links["fog-0"].up
    assert 0 < device.bits_per_parameter(4096) < fog.bits_per_parameter(4096) < 2 * device.bits_per_parameter(4096)
    assert device.codec_bytes < device.frame_bytes < device.wire_bytes


def test_powersgd_is_decoded_in_the_first_round_only() -> None:
    """From then on everybody has what the last release changed, and projects on that: factors add at fog nodes."""
    done = run(size=4096, rounds=8, codec="powersgd", parameters={"columns": 64})
    sent = [each.links["fog-0"].up.codec_bytes for each in done.rounds]
    assert sent[0] == 4 * 4096 + 5
    assert {after - before for before, after in pairwise(sent[:-1])} == {7 + 9 + 2 * 64 * (2 + 8)}
    assert done.accounts.conserved


def test_a_device_that_begins_again_takes_a_basis_of_its_own_for_one_update() -> None:
    world, forms = World(learn), dict[tuple[str, int, int], int]()

    def look(reader: str, frame: Frame) -> int:
        if isinstance(frame.message, Update) and frame.node in DEVICES:
            forms.update({(frame.node, frame.boot, each.base): each.payload[0] for each in frame.message.sections})
        return 1

    world.copies = look
    world.top("top", options(rounds=12, codec="powersgd", parameters={"columns": 8}))
    world.holding["device-0"] = []
    for node in DEVICES:
        world.device(node, "top")
    for turn in range(14):  # 12 rounds, a round begun twice, and the last release
        world.run(1)
        if turn == 5:
            world.kill("device-0")
            world.start("device-0")
            world.run(1)
        world.finish("device-0")
    world.run(1)
    assert world.machines["top"].state == "finished"
    lives = sorted({boot for node, boot, _ in forms if node == "device-0"})
    for life in lives:
        told = [form for (node, boot, _), form in sorted(forms.items()) if (node, boot) == ("device-0", life)]
        assert told == [1, *[2] * (len(told) - 1)]
        assert len(told) > 1
    assert len(lives) == 2
    assert [form for (node, _, _), form in sorted(forms.items()) if node == "device-1"] == [1, *[2] * 11]


def test_a_publication_is_acknowledged_on_its_way_back() -> None:
    carrier = Carrier(Tree({"device-0": "top"}), 2048, lambda node, event: None)
    frame = Frame("toy", "device-0", 1, 0, Update(1, "lattice", SIZE, (), {}, 0))
    topic = topics.build(NET, "top", "update", node="device-0", task="toy")
    carrier.upload("device-0", Upload(topic, frame))
    size = len(publication.write(topic, frame))
    traffic = carrier.traffic()["device-0"]
    assert traffic.up == Flow(size, added_bytes(topic, size), 0, 0, 1)
    assert traffic.down == Flow(0, PUBACK_BYTES, 0, 0, 0)


def test_a_large_update_costs_what_the_channel_sends_for_it() -> None:
    """The real uploading code offers and cuts the same frame; the carrier counts its packets and acknowledgements."""
    place, chunk_bytes = Place(NET, "device-0", "top", 1), 2048
    payload = Lattice().encode(np.linspace(-100, 100, 9000, dtype=np.float32), 1.0)
    frame = Frame("toy", place.node, 1, 7, Update(1, "lattice", 9000, (Section(0, 10, 1, 1.0, payload),), {}, 0))
    topic = topics.build(NET, place.parent, "update", node=place.node, task="toy")
    sent: list[tuple[str, bytes]] = []

    async def publish(text: str, data: bytes) -> None:
        sent.append((text, data))

    async def upload() -> int:
        uploading = Uploading(place, chunk_bytes, publish)
        await uploading.upload(topic, frame)
        offer = publication.read(topics.parse(sent[0][0]), sent[0][1]).message
        assert isinstance(offer, Offer)
        grant = Grant(offer.blob.digest, bitmap([*range(offer.blob.chunks)], offer.blob.chunks))
        reply = topics.build(NET, place.parent, "reply", node=place.node, task="toy")
        offered = uploading.granted(topics.parse(reply), grant)
        assert offered is not None
        await uploading.send(offered, grant)
        granted = len(publication.write(reply, Frame("toy", place.parent, 1, 7, grant)))
        return publish_packet_bytes(reply, granted, qos=1, properties_bytes=0)

    grant_bytes = asyncio.run(upload())
    packets = sum(publish_packet_bytes(text, len(data), qos=1, properties_bytes=0) for text, data in sent)
    given: list[tuple[str, object]] = []
    carrier = Carrier(Tree({"device-0": "top"}), chunk_bytes, lambda node, event: given.append((node, event)))
    carrier.upload("device-0", Upload(topic, frame))
    traffic = carrier.traffic()["device-0"]
    assert len(sent) > 3
    assert traffic.up == Flow(sum(len(data) for _, data in sent), traffic.up.mqtt_bytes, len(payload), 1, len(sent))
    assert traffic.up.wire_bytes == packets + PUBACK_BYTES
    assert traffic.down.wire_bytes == grant_bytes + PUBACK_BYTES * len(sent)
    assert [node for node, _ in given] == ["top"]


# ------------------------------------------------------------------------------------------------------------------- tree


def test_levels_of_a_tree() -> None:
    tree = Tree({"d-0": "f-0", "f-0": "m-0", "m-0": "top", "d-1": "top"})
    assert (tree.top, tree.devices, tree.fogs) == ("top", ("d-0", "d-1"), ("m-0", "f-0"))
    assert tree.levels == (("m-0",), ("f-0",), ("d-0", "d-1"))


@pytest.mark.parametrize(
    ("parents", "reason"),
    [
        ({}, "one top, not 0"),
        ({"a": "x", "b": "y"}, "one top, not 2: x, y"),
        ({"a": "b", "b": "a"}, "one top, not 0: its nodes go in a circle"),
        ({"a": "top", "b": "c", "c": "b"}, "b is not below top: its parents go in a circle"),
    ],
)
def test_what_is_not_one_tree_is_refused(parents: dict[str, str], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        Tree(parents)
