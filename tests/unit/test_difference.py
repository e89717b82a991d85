"""The step of releases: leftovers are never said all at once, and everything is said in the end."""

from __future__ import annotations

import numpy as np
import pytest

from edgemw.compression.difference import advance, difference
from edgemw.core.bundle import Vector

SIZE = 2000


class Server:
    """A master, and what devices have of it."""

    def __init__(self, kappa: float) -> None:
        self.kappa = kappa
        self.theta = np.zeros(SIZE, np.float32)
        self.master = self.theta.copy()

    def move(self, by: Vector) -> bytes:
        self.master = self.master + by
        payload = difference(self.theta, self.master, by, self.kappa)
        self.theta = np.frombuffer(advance(self.theta.tobytes(), payload), "<f4")
        return payload


def noise(seed: int, scale: float) -> Vector:
    return np.random.default_rng(seed).normal(0, scale, SIZE).astype(np.float32)


def rms(vector: Vector) -> float:
    return float(np.sqrt(np.mean(np.square(vector, dtype=np.float64))))


@pytest.mark.parametrize("kappa", [2.0, 4.0, 16.0, 64.0])
def test_a_tiny_move_does_not_say_all_leftovers_at_once(kappa: float) -> None:
    server = Server(kappa)
    for number in range(20):
        server.move(noise(number, 1.0))
    payload = server.move(noise(99, 1e-6))
    assert 8 * len(payload) / SIZE < 2.5  # bits per parameter: what a step of one root mean square takes


@pytest.mark.parametrize("kappa", [2.0, 4.0, 16.0, 64.0])
def test_a_steady_drift_arrives(kappa: float) -> None:
    server, drift = Server(kappa), noise(2, 1.0)
    for _ in range(300):
        server.move(drift)
    assert rms(server.master - server.theta) <= kappa * rms(drift)


def test_when_the_server_stands_still_devices_come_as_near_as_one_likes() -> None:
    server = Server(16.0)
    for number in range(20):
        server.move(noise(number, 1.0))
    far = rms(server.master - server.theta)
    for _ in range(20):
        server.move(np.zeros(SIZE, np.float32))
    assert rms(server.master - server.theta) < far / 1000
