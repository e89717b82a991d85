"""Budgets from the file to real bytes: what is refused, what a restarted top remembers, and that they are met."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgemw.app.settings import Deployment, FogFile
from edgemw.app.wiring import fog_options
from edgemw.bench.experiment import Experiment, Request, prepare
from edgemw.bench.settings import parse_setting
from edgemw.cli.check import check
from edgemw.compression.difference import advance, difference_within
from edgemw.compression.lattice import Lattice
from edgemw.core.bundle import Vector
from edgemw.core.config.loader import load
from edgemw.core.errors import ConfigError
from edgemw.core.ids import Place
from edgemw.fog.agent import FogRole
from edgemw.fog.events import SaveBundle
from edgemw.fog.rate import Budget, Rate
from edgemw.fog.release import TopOptions
from edgemw.fog.server import ServerOptions
from edgemw.fog.spending import announced_bytes, empty_update_bytes
from edgemw.fog.top import Top
from edgemw.fog.window import WindowOptions
from edgemw.learning.trainer import Trained
from edgemw.simulation.learner import Learner
from edgemw.simulation.rounds import Run, Watch, run_rounds
from edgemw.storage.database import Database
from edgemw.wire.messages import Frame, ReleaseManifest, Update
from tests.support.world import TASK, World

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart"
LATTICE = "lattice:kappa=12"
SIZE, ROUNDS = 3000, 40
TOP = 'net = "n"\n[node]\nid = "top"\n'


# ----------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[codec]\nbudget_round = "1kB"\nbudget_run = "60kB"', "codec.budget_run: is given beside budget_round"),
        ('[codec]\nuse = "dense"\nbudget_round = "1kB"', "codec.budget_round: dense has no step"),
        ('[codec]\nuse = "topk"\nbudget_run = "60kB"', "codec.budget_run: topk has no step"),
        ('[task]\nrounds = 0\n[codec]\nbudget_run = "60kB"', "codec.budget_run: needs task.rounds"),
        ('[codec]\nbudget_round = "0B"', "codec.budget_round: must be at least"),
        ('[release]\nbudget_round = "1kB"\nbudget_run = "60kB"', "release.budget_run: is given beside budget_round"),
        ('[release]\nuse = "dense"\nbudget_round = "1kB"', "release.budget_round: dense is always as large"),
        ('[task]\nrounds = 0\n[release]\nbudget_run = "60kB"', "release.budget_run: needs task.rounds"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(FogFile, f"{TOP}{text}\n", "fog.toml", cwd=Path("/home/me"))
    assert words in str(refused.value)


def test_a_deployment_is_refused_for_the_same() -> None:
    text = (QUICKSTART / "edgemw.toml").read_text().replace("rounds = 60", "rounds = 0") + '\n[codec]\nbudget_run = "60kB"\n'
    with pytest.raises(ConfigError, match=r"codec\.budget_run: needs task\.rounds"):
        load(Deployment, text, "edgemw.toml", cwd=Path("/home/me"))


def test_budgets_reach_the_top() -> None:
    text = f'{TOP}[task]\nrounds = 40\n[codec]\nbudget_round = "1.5kB"\n[release]\nbudget_run = "80kB"\n'
    options = fog_options(load(FogFile, text, "fog.toml", cwd=Path("/home/me")).value)
    assert isinstance(options, TopOptions)
    assert options.budget == Budget(round_bytes=1500, rounds=40)
    assert options.release_budget == Budget(run_bytes=80_000, rounds=40)


@pytest.mark.parametrize(
    ("budget", "short"), [('budget_round="150B"', True), ('budget_run="9kB"', True), ('budget_round="2kB"', False)]
)
def test_check_says_what_no_update_fits(budget: str, short: bool) -> None:
    report = check(QUICKSTART / "edgemw.toml", None, [f"codec.{budget}"], {})
    assert any("an update without symbols is about" in warning for warning in report.warnings) is short
    assert "budget" in dict(report.facts)["codec"]


@pytest.mark.parametrize(
    ("budget", "short"), [("budget_round=50", True), ('budget_run="5kB"', True), ("budget_round=400", False)]
)
def test_check_says_what_no_release_fits(budget: str, short: bool) -> None:
    report = check(QUICKSTART / "edgemw.toml", None, [f"release.{budget}"], {})
    assert any("a release in which nothing moves is about" in warning for warning in report.warnings) is short


# ----------------------------------------------------------------------------------------------------------------- roles


class Pull:
    """Every device moves a part of the way to one optimum, with noise."""

    def __init__(self) -> None:
        self.optimum = np.random.default_rng(1).normal(0, 1, SIZE).astype(np.float32)
        self.calls = 0

    def __call__(self, node: str, release: int, theta: Vector) -> Trained:
        self.calls += 1
        noise = np.random.default_rng([int(node[-1]), release]).normal(0, 1, SIZE).astype(np.float32)
        return Trained((np.float32(0.2) * (self.optimum - theta + noise)).astype(np.float32), 10, 1.0, 5)


def world(budget: Budget, release_budget: Budget | None = None, rounds: int = ROUNDS) -> World:
    net = World(Pull(), size=SIZE)
    options = TopOptions(WindowOptions(deadline_s=20.0, children=4), ServerOptions(), {}, rounds=rounds, kappa=4.0)
    net.top("top", replace(options, budget=budget, release_budget=release_budget or Budget()))
    for number in range(4):
        net.device(f"device-{number}", "top")
    return net


def rate(net: World) -> Rate:
    released = net.disks["top"].released
    assert released is not None
    return released.rate


def test_a_restarted_top_goes_on_where_it_was() -> None:
    net = world(Budget(round_bytes=500, rounds=ROUNDS))
    net.loses = lambda name, frame: name == "top" and isinstance(frame.message, Update) and frame.message.report_on == 9
    net.run(1)
    before = rate(net)
    assert before.step > 0
    assert before.moves
    net.kill("top")
    net.start("top")
    net.settle()
    assert rate(net) == before
    assert net.machines["top"].facts(net.now)["kappa"] == before.kappa
    net.loses = lambda name, frame: False
    net.run(200)
    assert net.machines["top"].state == "finished"
    assert rate(net).sent_bytes > before.sent_bytes


def test_what_was_spent_is_in_the_facts_of_every_round() -> None:
    net = world(Budget(round_bytes=500, rounds=6), rounds=6)
    net.run(100)
    rounds = [fact.values for _, fact in net.facts if fact.name == "round"]
    assert [values["spent_bytes"] for values in rounds] == [10 * (number + 1) for number in range(7)]  # as this world reports
    assert all(float(values["kappa"]) > 0 for values in rounds[1:])
    assert rounds[-1]["release_spent_bytes"] == rate(net).got_bytes


def test_a_budget_that_no_update_fits_is_the_reason() -> None:
    net = world(Budget(round_bytes=50, rounds=ROUNDS))
    net.run(1)
    assert "the budget of 50 B a round is less than an update without symbols" in net.machines["top"].reason(net.now)
    net = world(Budget(round_bytes=5000, rounds=ROUNDS))
    net.run(1)
    assert net.machines["top"].reason(net.now) == ""


def test_without_a_budget_kappa_decides() -> None:
    net = world(Budget(), rounds=3)
    net.run(100)
    assert rate(net).step == net.disks["top"].released.manifest.step  # type: ignore[union-attr]  # `rate` has looked
    assert rate(net).kappa >= 4.0


@pytest.mark.parametrize("round_bytes", [600, 1000])
def test_releases_meet_their_budget(round_bytes: int) -> None:
    net = world(Budget(), Budget(round_bytes=round_bytes, rounds=ROUNDS))
    manifests: dict[int, ReleaseManifest] = {}

    def look(name: str, frame: Frame) -> bool:
        if isinstance(frame.message, ReleaseManifest):
            manifests[frame.message.number] = frame.message
        return False

    net.loses = look
    net.run(200)
    assert sorted(manifests) == [*range(ROUNDS + 1)]
    sent = sum(announced_bytes(manifest) for manifest in manifests.values() if manifest.number)
    assert sent == rate(net).got_bytes
    assert sent == pytest.approx(round_bytes * ROUNDS, rel=0.05)


def test_a_difference_within_a_limit_is_the_finest_that_fits() -> None:
    rng = np.random.default_rng(2)
    base, master = rng.normal(0, 1, (2, SIZE)).astype(np.float32)
    errors = []
    for limit in (-5.0, 100.0, 400.0, 1000.0, 1e6):
        payload = difference_within(base, master, limit)
        assert len(payload) <= max(limit, 8)
        reached = np.frombuffer(advance(base.tobytes(), payload), np.float32)
        errors.append(float(np.square(master - reached).mean()))
    assert errors == sorted(errors, reverse=True)
    assert errors[0] == float(np.square(master - base).mean())
    assert errors[-1] < 0.05 * errors[0]


def test_a_rate_comes_back_from_the_disk(tmp_path: Path) -> None:
    net = world(Budget(round_bytes=500, rounds=3), rounds=3)
    net.run(100)
    released = net.disks["top"].released
    assert released is not None
    db = Database(tmp_path)
    role = FogRole(Place("net", "top", "", 2), db, net.options["top"], lambda task, fact: None)
    role.act([(TASK, SaveBundle(released.manifest.bundle, net.bundle.to_bytes(), released))])
    db.close()
    db = Database(tmp_path)
    top = FogRole(Place("net", "top", "", 3), db, net.options["top"], lambda task, fact: None).machine(TASK, 0.0)
    db.close()
    assert isinstance(top, Top)
    facts = top.facts(0.0)
    assert (facts["kappa"], facts["spent_bytes"]) == (released.rate.kappa, round(released.rate.sent_bytes))


# ------------------------------------------------------------------------------------------------------------ real bytes


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    request = Request(settings=(parse_setting(LATTICE),), task=QUICKSTART / "digits.edge", data="digits", rounds=ROUNDS)
    return prepare(replace(request, overrides=("data.partition=dirichlet", "data.alpha=0.3")), {})


def digits(experiment: Experiment, budget: Budget) -> Run:
    shares, refused, _ = experiment.shares(0)
    options = replace(experiment.options[LATTICE], budget=budget, rounds=budget.rounds)
    return run_rounds(experiment.tree, experiment.data, options, Learner(experiment.oracle, shares, refused), watch=Watch())


@pytest.mark.parametrize("round_bytes", [400, 1000, 5000])
def test_a_budget_is_met_on_the_wire(experiment: Experiment, round_bytes: int) -> None:
    """All that a device's link carried upwards, on handwritten digits, below two fog nodes."""
    run = digits(experiment, Budget(run_bytes=round_bytes * ROUNDS, rounds=ROUNDS))
    devices = experiment.tree.devices
    sent = sum(run.links[device].up.wire_bytes for device in devices) / len(devices)
    assert sent == pytest.approx(round_bytes * ROUNDS, rel=0.05)
    assert run.reasons == {}


def test_what_a_message_without_symbols_costs_is_known_before(experiment: Experiment) -> None:
    run = digits(experiment, Budget(run_bytes=5, rounds=5))
    manifest = experiment.bundle.manifest
    guess = empty_update_bytes(manifest.name, manifest.metrics, Lattice(), manifest.size)
    sent = np.mean([run.links[device].up.wire_bytes for device in experiment.tree.devices])
    assert sent / 6 == pytest.approx(guess, rel=0.2)
