"""A promise of privacy in a net of processes: what `edgemw status` and /metrics say of it, before and after a kill."""

from __future__ import annotations

import re

import pytest

from edgemw.core.accountant import epsilon_of
from tests.system.fleet import BUNDLE, Fleet, edgemw, fact

ROUNDS = 3


@pytest.mark.parametrize("mode", ["central", "local"])
def test_epsilon_is_shown_and_outlives_the_top(fleet: Fleet, mode: str) -> None:
    task, privacy = {"bundle": str(BUNDLE), "rounds": ROUNDS}, {"mode": mode, "clip": 0.3, "noise": 4.0}
    fleet.fog("top", task=task, plan={"steps": 2}, privacy=privacy, telemetry={"http": "127.0.0.1:0"})
    fleet.fog("fog-0", "top")
    for name in ("device-0", "device-1"):
        fleet.device(name, "fog-0", privacy={"least_noise": 4.0 if mode == "local" else 0.0})
    fleet.device("device-2", "fog-0", privacy={"least_noise": 4.5})
    fleet.start("top", "fog-0", "device-0", "device-1", "device-2")
    states = fleet.until(lambda s: "top" in s and s["top"].status.state == "finished")
    expected = epsilon_of([(4.0 if mode == "central" else 2.0, ROUNDS)], 1e-5)
    assert fact(states["top"], "epsilon") == pytest.approx(expected, abs=1e-5)
    assert fact(states["top"], "updates_counted") == fact(states["top"], "weight_counted") == 2 * ROUNDS
    assert ("metric" in states["top"].status.facts) == (mode == "central")  # whoever insists on noise sends no measure
    asked = "noise 4" if mode == "local" else "noise 0"
    assert f"asks for {asked}; this device insists on privacy.least_noise = 4.5" in states["device-2"].status.reason
    assert fact(states["device-2"], "updates_sent") == 0
    words = f"epsilon {expected:.3g} at delta 1e-05 after {ROUNDS} releases, {mode}"
    printed = edgemw("status", "--broker", fleet.url, "--net", fleet.net).stdout
    assert words in next(line for line in printed.splitlines() if line.startswith("top "))
    shown = re.search(r"^edgemw_privacy_epsilon\{.*\} (\S+)$", fleet.get("top", "telemetry", "/metrics"), re.MULTILINE)
    assert shown is not None
    assert float(shown[1]) == pytest.approx(expected, abs=1e-5)
    metrics = fleet.get("device-0", "telemetry", "/metrics")
    assert "edgemw_learning_updates_total" in metrics
    assert "edgemw_learning_loss" not in metrics  # of training samples

    fleet.kill("top")
    fleet.start("top")
    states = fleet.until(lambda s: "top" in s and s["top"].status.state == "finished" and "epsilon" in s["top"].status.facts)
    assert fact(states["top"], "epsilon") == pytest.approx(expected, abs=1e-5)

    fleet.kill("top")
    fleet.fog("top", task=task, plan={"steps": 2}, privacy=privacy | {"noise": 5.0})  # for another bundle
    fleet.start("top")
    assert fleet.wait("top") == 3
    fleet.said("top", "a new bundle begins one as [privacy] says")

    fleet.fog("top", task=task, plan={"steps": 2})  # a promise that is not kept any more
    fleet.start("top")
    assert fleet.wait("top") == 3
    fleet.said("top", f"has begun with mode {mode}, clip 0.3, noise 4")


def test_noise_for_single_samples_is_enough_only_where_a_device_says_so(fleet: Fleet) -> None:
    """A whole net that learns sums over samples; a device that insists on noise for all of its samples takes no part."""
    task = {"bundle": str(BUNDLE), "rounds": 2}
    fleet.fog("top", task=task, privacy={"mode": "local", "unit": "sample", "clip": 0.3, "noise": 4.0})
    fleet.device("device-0", "top", privacy={"least_noise": 4.0, "unit": "sample"})
    fleet.device("device-1", "top", privacy={"least_noise": 4.0})
    fleet.start("top", "device-0", "device-1")
    states = fleet.until(lambda s: "top" in s and s["top"].status.state == "finished")
    assert fact(states["top"], "epsilon") == pytest.approx(epsilon_of([(4.0, 2)], 1e-5), abs=1e-5)
    assert str(states["top"].status.facts["privacy"]).endswith("after 2 releases, local, of single samples")
    assert (fact(states["device-0"], "updates_sent"), fact(states["device-1"], "updates_sent")) == (2, 0)
    reason = states["device-1"].status.reason
    assert "asks for noise 4 for single samples; this device insists on privacy.least_noise = 4 for all of its samples" in reason


def test_a_file_that_breaks_its_promise_is_refused_where_it_is_checked(fleet: Fleet) -> None:
    path = fleet.fog("top", privacy={"mode": "central"}, codec={"use": "topk"})
    done = edgemw("check", str(path))
    assert done.returncode == 3
    assert "codec.use: privacy counts in integers, and topk has none: use lattice" in done.stderr
    path = fleet.fog("top", task={"bundle": str(BUNDLE)}, privacy={"mode": "central", "noise": 1.0, "epsilon": 2.0})
    done = edgemw("check", str(path))
    assert (done.returncode, "one release costs 4.38" in done.stderr) == (3, True), done.stderr
