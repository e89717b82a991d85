"""A device's books: what it trained is in its updates or in its residual, and where it is not, that shows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgemw.device.balance import Balance
from edgemw.fog.release import TopOptions
from edgemw.fog.server import ServerOptions
from edgemw.fog.window import WindowOptions
from tests.support.world import World
from tests.unit.test_roles import Learner


def world(rounding: str = "nearest") -> World:
    made = World(Learner())
    made.top("top", TopOptions(WindowOptions(children=1), ServerOptions(), {}, rounds=8, parameters={"rounding": rounding}))
    made.device("device-0", "top")
    return made


def imbalance(made: World) -> float:
    found = made.machines["device-0"].facts(made.now)["mass_imbalance"]
    assert isinstance(found, float)
    return found


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_a_run_is_balanced_over_restarts(rounding: str) -> None:
    made = world(rounding)
    for _ in range(3):
        made.settle()
        made.kill("device-0")
        made.start("device-0")
    made.run(300)
    assert made.disks["device-0"].memory.balance.moved > 100
    assert imbalance(made) < 1e-6


def test_a_residual_that_was_lost_shows_and_is_not_forgotten() -> None:
    made = world()
    made.holding["device-0"] = []
    made.settle()
    made.finish("device-0")
    made.settle()
    made.kill("device-0")
    disk = made.disks["device-0"]
    assert disk.memory.residual is not None
    disk.memory = replace(disk.memory, residual=np.zeros_like(disk.memory.residual))
    made.start("device-0")
    made.finish("device-0")
    del made.holding["device-0"]
    made.run(300)
    assert imbalance(made) > 1e-3


def test_what_came_back_twice_shows() -> None:
    delta, nothing = np.array([1.0, -3.0, 0.5], np.float32), np.zeros(3, np.float32)
    sent = Balance().after_training(2, delta, 2 * delta, nothing)
    assert sent == Balance(-3.0, 9.0, -3.0, 0.0)
    back = sent.after_return(2 * delta, 2 * delta)
    assert back.worst == 0
    assert back.after_return(2 * delta, 2 * delta).worst == pytest.approx(1 / 3)
