"""Nets in memory with a device that lies: who is named, what the books say of what was not believed, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgemw.app.settings import Deployment, FogFile, Window
from edgemw.cli.oddities import robust_oddities
from edgemw.core.bundle import Vector
from edgemw.core.config.loader import load
from edgemw.core.errors import ConfigError
from edgemw.fog.audit import audit
from edgemw.fog.privacy import Privacy, Promise
from edgemw.fog.protection import LEFT_OUT
from edgemw.fog.release import TopOptions
from edgemw.fog.server import ServerOptions
from edgemw.fog.window import WindowOptions
from edgemw.learning.trainer import Trained
from edgemw.robust.options import RobustOptions
from edgemw.simulation.books import books_of
from tests.support.world import World

SIZE, ROUNDS = 200, 8
LIAR, DEVICES = "device-5", [f"device-{n}" for n in range(6)]
Lie = Callable[[Trained], Trained]


def honest(trained: Trained) -> Trained:
    return trained


def shouting(trained: Trained) -> Trained:
    return replace(trained, delta=-10 * trained.delta)


def heavy(trained: Trained) -> Trained:
    return replace(trained, delta=-trained.delta, weight=1 << 30)


def net(use: str, lie: Lie, *, codec: str = "lattice", privacy: Privacy | None = None, at_top: bool = False) -> World:
    """Six devices, of which one lies, under a fog node; everybody goes half the way to ones."""

    def learn(name: str, release: int, theta: Vector) -> Trained:
        noise = np.random.default_rng([int(name[-1]), release]).normal(0, 0.02, theta.size)
        trained = Trained((0.5 * (1 - theta) + noise).astype(np.float32), 10, 1.0, 5)
        return lie(trained) if name == LIAR else trained

    world = World(learn, size=SIZE)
    robust = RobustOptions(use)
    window = WindowOptions(deadline_s=10.0, children=len(DEVICES), robust=robust)
    top = window if at_top else WindowOptions(deadline_s=20.0, children=1)
    world.top("top", TopOptions(top, ServerOptions(), {}, rounds=ROUNDS, codec=codec, kappa=2.0, privacy=privacy))
    if not at_top:
        world.fog("fog-0", "top", window)
    for name in DEVICES:
        world.device(name, "top" if at_top else "fog-0")
    return world


def off(world: World) -> float:
    """How far the last release is from ones."""
    released = world.disks["top"].released
    assert released is not None
    return float(np.abs(released.theta - 1).mean())


def balanced(world: World) -> None:
    (found,) = audit(books_of(world))
    assert not found.faults
    for name in ("top", "fog-0"):
        if name in world.machines:
            facts = world.machines[name].facts(world.now)
            assert (facts["updates_unaccounted"], facts["weight_unaccounted"], facts["mass_imbalance"]) == (0, 0, 0.0)


@pytest.mark.parametrize("at_top", [False, True], ids=["fog", "top"])
@pytest.mark.parametrize("lie", [shouting, heavy])
@pytest.mark.parametrize("use", ["norm", "krum"])
def test_a_liar_is_named_the_others_learn_and_the_books_balance(use: str, lie: Lie, at_top: bool) -> None:
    alone = net("", lie, at_top=at_top)
    alone.run(600)
    assert off(alone) > 0.5
    world = net(use, lie, at_top=at_top)
    world.run(45)
    balanced(world)
    world.run(600)
    balanced(world)
    assert off(world) < 0.2
    name = "top" if at_top else "fog-0"
    assert f"bounded the updates of {LIAR} in" in world.machines[name].reason(world.now)
    facts = world.machines[name].facts(world.now)
    assert int(facts["children_bounded"]) >= ROUNDS - 1
    assert facts["suspects"] == 1
    assert any(fact.name == "window_bounded" for node, fact in world.facts if node == name)


def test_what_was_claimed_and_not_believed_stands_in_the_books() -> None:
    world = net("norm", heavy)
    world.run(600)
    (found,) = audit(books_of(world))
    (row,) = [row for row in found.rows if row.node == "fog-0"]
    assert row.bounded.weight > ROUNDS / 2 * (1 << 29)
    assert row.counted.weight < ROUNDS * len(DEVICES) * 20
    released = world.disks["top"].released
    assert released is not None
    assert released.totals.weight == row.counted.weight


def test_who_is_left_out_gets_its_update_back() -> None:
    world = net("krum", shouting)
    world.run(600)
    settled = [one for update, one in world.disks["fog-0"].settled.items() if update.node == LIAR]
    assert settled
    assert {one.reason for one in settled if not one.counted} == {LEFT_OUT}


@pytest.mark.parametrize("use", ["norm", "median", "trimmed"])
def test_where_nobody_lies_dense_windows_learn_as_well(use: str) -> None:
    world = net(use, honest, codec="dense")
    world.run(600)
    balanced(world)
    assert off(world) < 0.05


def test_a_window_of_another_codec_is_given_back_and_said_so() -> None:
    world = net("median", honest)
    world.run(60)
    reason = world.machines["fog-0"].reason(world.now)
    assert "window.robust: updates of codec lattice are zero at most places" in reason


def test_a_fog_node_does_not_bound_what_central_privacy_is_promised_of() -> None:
    world = net("norm", honest, privacy=Privacy(Promise("central", 1.0, 2.0), 1e-5))
    world.run(60)
    assert "privacy.mode = central" in world.machines["fog-0"].reason(world.now)


LANES = ["codec.use=lanes", "codec.parameters={ members = 30, bits = 8 }"]
DEPLOYMENT = """
name = "t"
[tiers.top]
role = "fog"
[tiers.fog]
role = "fog"
parent = "top"
count = 3
[tiers.device]
role = "device"
parent = "fog"
count = 30
data = [{path = "x.npz"}]
"""


@pytest.mark.parametrize(
    ("overrides", "key", "says"),
    [
        (["window.robust=median"], "tiers.top.window.robust", "norm or krum, or codec dense"),
        (["window.robust=trimmed", "codec.use=dense"], "tiers.top.window.robust", "5 children"),
        (["window.robust=krum"], "tiers.top.window.robust", "give another robust to this tier"),
        (
            ["window.robust=norm", "codec.use=lanes", "codec.parameters={ members = 30, bits = 8 }"],
            "tiers.top.window.robust",
            "masked",
        ),
        (["window.robust=norm", "codec.use=qsgd"], "tiers.top.window.robust", "use codec lattice or dense"),
        (["window.robust=norm", "window.k=2"], "window.robust", "3 children or more"),
        (["window.robust_bound=3"], "window.robust_bound", "nothing to bound"),
        (["window.robust=norm", "window.robust_share=0.1"], "window.robust_share", "krum and trimmed"),
        (["window.robust=norm", "privacy.mode=central"], "tiers.top.window.robust", "privacy.mode = central"),
    ],
)
def test_what_does_not_go_together_is_refused_with_its_key(overrides: list[str], key: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        load(Deployment, DEPLOYMENT, "edgemw.toml", overrides=overrides, cwd=Path.cwd(), env={})
    assert caught.value.key == key


def test_norm_goes_with_all_tiers_and_with_local_privacy() -> None:
    overrides = ["window.robust=norm", "privacy.mode=local"]
    loaded = load(Deployment, DEPLOYMENT, "edgemw.toml", overrides=overrides, cwd=Path.cwd(), env={})
    assert {tier.window.robust for tier in loaded.value.tiers.values() if tier.role == "fog"} == {"norm"}


def test_the_file_of_a_top_is_refused_too() -> None:
    text = 'net = "t"\n[node]\nid = "top"\n[window]\nrobust = "norm"\n[privacy]\nmode = "central"\n[task]\nbundle = "x.edge"\n'
    with pytest.raises(ConfigError) as caught:
        load(FogFile, text, "top.toml", cwd=Path.cwd(), env={})
    assert caught.value.key == "window.robust"


@pytest.mark.parametrize("use", ["norm", "krum"])
def test_a_window_of_too_few_to_compare_is_given_back_and_the_model_stays_as_it_was(use: str) -> None:
    world = net(use, shouting)
    for name in DEVICES[:-1]:
        world.kill(name)  # the liar is alone
    world.run(600)
    released = world.disks["top"].released
    assert released is not None
    assert released.totals.updates == 0
    assert "1 children are too few to tell who lies, 3 are not" in world.machines["fog-0"].reason(world.now)


@pytest.mark.parametrize(
    ("use", "quorum", "says"),
    [
        ("krum", 2, "closes with 2 is given back: krum takes 3 or more"),
        ("krum", 4, "closes with 4 is not protected by krum"),
        ("krum", 5, ""),
        ("median", 2, "closes with 2 is given back"),
        ("median", 3, ""),
        ("norm", 1, ""),
    ],
)
def test_check_warns_of_deadlines_that_leave_too_few_to_compare(use: str, quorum: int, says: str) -> None:
    window = Window(robust=use, quorum=quorum)  # type: ignore[arg-type]  # one of the names
    found = [*robust_oddities("tiers.fog", window, 10)]
    assert [line.startswith("tiers.fog.window.quorum: ") for line in found] == [True] * bool(says)
    assert says in "".join(found)
