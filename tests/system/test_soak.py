"""A net under kill -9 and bad links at random: 0 lost, 0 counted twice, and as good as an undisturbed run.

`make soak` kills 200 times; without options it is a short version with a fixed seed.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from tests.system import soak
from tests.system.soak import CALM_ROUNDS, run_to_the_end

BROKERS = {"keeps its state": ["autosave_interval 2"], "forgets everything": ["persistence false"]}
"""What a broker has after kill -9: what it saved some time ago, or nothing."""


@pytest.mark.timeout(0)  # every step has a deadline of its own; how many there are is an option
def test_kills_cuts_and_slow_links_lose_nothing_and_cost_no_accuracy(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    kills, seed = pytestconfig.getoption("--kills"), pytestconfig.getoption("--storm")
    rounds = CALM_ROUNDS + 20 + kills
    broker = list(BROKERS)[seed % len(BROKERS)]
    begun = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - begun:6.1f} s  {text}", flush=True)

    say(f"{kills} kills in {rounds} rounds, seed {seed}, a broker that {broker}")
    say(f"once more: python -m pytest tests/system/test_soak.py --kills {kills} --storm {seed} -s")
    calm = asyncio.run(run_to_the_end(tmp_path / "calm", rounds, say))
    say(f"undisturbed: accuracy {calm.accuracy:.4f}, {calm.wall_s:.0f} s")
    ended = asyncio.run(run_to_the_end(tmp_path / "storm", rounds, say, seed=seed, kills=kills, broker_lines=BROKERS[broker]))
    assert ended.storm is not None
    killed, faults = ended.storm.killed, ended.storm.faults
    say(f"disturbed: accuracy {ended.accuracy:.4f} after {ended.rounds} rounds, {ended.wall_s:.0f} s")
    say(f"killed {dict(killed)}; links {dict(faults)}")
    say(ended.audit)
    assert killed.total() == kills
    for run in (calm, ended):
        assert run.release == run.rounds
        (found,) = run.tasks
        assert found["faults"] == []
        assert {row["node"] for row in found["rows"]} == set(soak.PARENTS)
        assert all(row["waiting"] == {"updates": 0, "weight": 0} for row in found["rows"])
    assert ended.accuracy > calm.accuracy - 0.01


def test_a_seed_says_what_happens_in_a_storm() -> None:
    drawn = soak.strikes(7, 200)
    assert drawn == soak.strikes(7, 200)
    assert drawn != soak.strikes(8, 200)
    assert sum(strike.kills for strike in drawn) == 200
    assert {strike.victim for strike in drawn} == {*soak.PARENTS, soak.BROKER}
