"""Releases as differences learn what whole releases learn, for every server step and whatever the updates look like."""

from __future__ import annotations

import numpy as np
import pytest

from edgemw.core.bundle import Vector
from edgemw.fog.release import TopOptions
from edgemw.fog.server import ServerOptions
from edgemw.fog.window import WindowOptions
from edgemw.learning.trainer import Trained
from tests.support.world import World

SIZE, DEVICES, ROUNDS = 3000, 10, 40
OPTIMUM = np.random.default_rng(1).normal(0, 1, SIZE).astype(np.float32)
SCALES = {
    "even": np.ones(SIZE, np.float32),
    "heavy-tailed": np.random.default_rng(2).pareto(1.5, SIZE).astype(np.float32).clip(0.01, 30),
}


class Pull:
    """Every device moves a part of the way to the optimum, with noise."""

    def __init__(self, scale: Vector) -> None:
        self.optimum = OPTIMUM * scale
        self.scale = scale
        self.calls = 0

    def __call__(self, node: str, release: int, theta: Vector) -> Trained:
        rng = np.random.default_rng([int(node.split("-")[1]), self.calls])
        self.calls += 1
        noise = self.scale * rng.normal(0, 1, SIZE).astype(np.float32)
        delta = np.float32(0.2) * (self.optimum - theta + noise)
        return Trained(delta.astype(np.float32), 10, 1.0, 5)


def remaining(server: ServerOptions, release_codec: str, scale: Vector) -> float:
    """The part of the squared distance to the optimum that is left."""
    pull = Pull(scale)
    world = World(pull, size=SIZE)
    window = WindowOptions(deadline_s=20.0, children=DEVICES)
    world.top("top", TopOptions(window, server, {}, rounds=ROUNDS, release_codec=release_codec))
    for number in range(DEVICES):
        world.device(f"device-{number}", "top")
    world.run(100)
    released = world.disks["top"].released
    assert released is not None
    assert released.manifest.number == ROUNDS
    return float(np.mean((released.theta - pull.optimum) ** 2) / np.mean(pull.optimum**2))


@pytest.mark.parametrize(
    "server",
    [ServerOptions(), ServerOptions("momentum", lr=0.6, momentum=0.8), ServerOptions("adam", lr=0.05)],
    ids=lambda server: str(server.optimizer),
)
@pytest.mark.parametrize("shape", SCALES)
def test_differences_come_as_near_to_the_optimum_as_whole_releases(server: ServerOptions, shape: str) -> None:
    whole, differences = (remaining(server, codec, SCALES[shape]) for codec in ("dense", "lattice"))
    assert differences < 1.25 * whole + 0.02
