"""The comparison of codecs: what is asked for, what is held out, which setting is recommended, what is written."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgemw.bench.bounds import entropy_bits, index_set_bits
from edgemw.bench.choice import affordable, cheapest, frontier, rising
from edgemw.bench.experiment import VALIDATION, Experiment, Request, prepare
from edgemw.bench.picture import draw, least_bytes
from edgemw.bench.report import FILE, Comparison
from edgemw.bench.results import Level, Outcome, Stop, Trial
from edgemw.bench.runner import Progress, compare
from edgemw.bench.sampling import Sample
from edgemw.bench.settings import DEFAULTS, REFERENCE, parse_setting
from edgemw.core.errors import ConfigError, DataError
from edgemw.simulation.learner import ALWAYS, Participation

BUNDLE = Path(__file__).parents[2] / "examples" / "quickstart" / "digits.edge"
CONFIG = BUNDLE.parent / "edgemw.toml"


def request(*settings: str, **more: object) -> Request:
    asked = Request(settings=tuple(map(parse_setting, settings)), seeds=1, task=BUNDLE, data="digits", rounds=2)
    return replace(asked, **more)  # type: ignore[arg-type]  # fields of Request


def outcome(setting: str, device_bytes: float, *validations: float, test: float = 0.5) -> Outcome:
    """A setting whose every seed takes eleven releases and is as good as its last from the tenth on."""
    trials = []
    for seed, value in enumerate(validations):
        path = tuple(Stop(n, device_bytes * (n + 1) / 11, value if n >= 5 else value / 2, test) for n in range(11))
        sample = Sample(2.0, 0.5, 1.0, 0.9, 0.1, 0.2, 0.3, 4)
        levels = (Level(4.0, 1.0, 8e3, 4e3), Level(2.0, 1.0, 4e3, 4e3))
        trials.append(Trial(seed, path, levels, sample, conserved=True, wall_s=1.0, training_s=0.5))
    return Outcome(setting, tuple(trials))


# --------------------------------------------------------------------------------------------------------------- settings


def test_a_setting_is_a_codec_with_what_differs() -> None:
    assert parse_setting("topk:k=0.02:kappa=3:release=dense:release_kappa=1").overrides == (
        "codec.use=topk",
        "codec.parameters={}",
        "codec.budget_round=",
        "codec.budget_run=",
        "release.budget_round=",
        "release.budget_run=",
        "codec.parameters.k=0.02",
        "codec.kappa=3",
        "release.use=dense",
        "release.kappa=1",
    )


@pytest.mark.parametrize("text", ["topk:0.02", "topk:k=", "topk:=1", "topk:"])
def test_a_setting_that_is_written_otherwise_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="write NAME:KEY=VALUE"):
        parse_setting(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("topk:k=2", "--codecs: 'topk:k=2': .*k = 2 is not a share"),
        ("topk:q=2", "--codecs: .*no parameter 'q'"),
        ("zip", "--codecs: .*no codec 'zip'; known: lattice"),
        ("lattice:kappa=-1", "--codecs: 'lattice:kappa=-1'"),
        ("dense:release=zip", "--codecs: 'dense:release=zip'"),
    ],
)
def test_a_setting_that_no_codec_takes_is_refused_by_its_name(text: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        prepare(request(text), {})


def test_every_default_can_be_run() -> None:
    made = prepare(replace(request(), settings=DEFAULTS), {})
    assert list(made.options) == [setting.text for setting in DEFAULTS]
    assert made.options["topk:k=0.01"].parameters == {"k": 0.01}
    assert made.options[REFERENCE.text].release_codec == "dense"


# ------------------------------------------------------------------------------------------------------------- experiment


def test_the_reference_comes_first_and_once() -> None:
    assert list(prepare(request("lattice"), {}).options) == [REFERENCE.text, "lattice"]
    assert list(prepare(request("lattice", REFERENCE.text), {}).options) == [REFERENCE.text, "lattice"]


def test_a_deployment_gives_what_flags_do_not_say() -> None:
    made = prepare(request("lattice", config=CONFIG, task=None, data=None, rounds=0, overrides=("plan.lr=0.05",)), {})
    assert made.rounds == 60
    assert made.tree.levels[0] == ("fog-0", "fog-1")
    assert len(made.tree.devices) == 8
    assert (made.dataset.partition, made.dataset.alpha) == ("dirichlet", 0.3)
    assert {options.plan["lr"] for options in made.options.values()} == {0.05}


@pytest.mark.parametrize(
    "more",
    [
        '[codec]\nbudget_round = "1.5kB"\n',
        '[release]\nbudget_run = "60kB"\n',
        '[codec]\nparameters = { steps = "dyadic" }\n[window]\nbudget = "2kB"\n',
    ],
)
def test_a_deployment_with_budgets_can_be_compared(more: str, tmp_path: Path) -> None:
    """What a setting does not say of its codec is not taken from the file; of releases it is, where it can be kept."""
    path = tmp_path / "edgemw.toml"
    tiers = '[tiers.top]\nrole = "fog"\n[tiers.fog]\nrole = "fog"\nparent = "top"\ncount = 2\n'
    tiers += '[tiers.device]\nrole = "device"\nparent = "fog"\ncount = 4\n'
    head = f'schema = 1\nname = "n"\n[data]\nsource = "digits"\n[task]\nbundle = "{BUNDLE}"\nrounds = 2\n'
    path.write_text(head + more + tiers)
    settings = ("lattice", "topk:k=0.01", "lattice:budget_round=600:release_budget_round=2kB")
    made = prepare(request(*settings, config=path, task=None, data=None), {})
    assert {name: options.budget.round_bytes for name, options in made.options.items()} == {
        REFERENCE.text: 0,
        "lattice": 0,
        "topk:k=0.01": 0,
        settings[-1]: 600,
    }
    assert made.options[settings[-1]].release_budget.round_bytes == 2000
    assert made.options["lattice"].release_budget.given == ("release" in more)


def test_a_codec_beside_the_settings_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^codec.budget_round: belongs to a setting here"):
        prepare(request("lattice", overrides=("codec.budget_round=600",)), {})


def test_without_fogs_devices_stand_under_the_top() -> None:
    assert prepare(request("lattice", devices=3, fogs=0), {}).tree.levels == (("device-0", "device-1", "device-2"),)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (request(data=None), "--data: is missing: give samples, an .npz file or 'digits'"),
        (request(data="none.npz"), "none.npz"),
        (request(fogs=9), "--fogs: 9 fog nodes for 8 devices"),
        (request(config=CONFIG, task=None, overrides=("task.rounds=0",), rounds=0), "--rounds: is missing"),
    ],
)
def test_what_cannot_be_run_is_refused(asked: Request, reason: str) -> None:
    with pytest.raises((ConfigError, DataError), match=reason):
        prepare(asked, {}).shares(0)


def rows(experiment: Experiment, seed: int) -> list[tuple[bytes, ...]]:
    """Every sample of every device, by what it is for: training, validation, test."""
    shares, refused, _ = experiment.shares(seed)
    assert not refused
    held = [(share.train, share.held[VALIDATION], share.held[""]) for share in shares.values()]
    return [tuple(sorted(x.tobytes() for samples in part for x in samples.x)) for part in zip(*held, strict=True)]


def test_validation_samples_are_held_out_of_the_training_samples_alone() -> None:
    experiment = prepare(request("lattice"), {})
    train, validation, test = rows(experiment, 0)
    assert len(train) + len(validation) + len(test) == 1797
    assert len(test) == 359
    assert len(validation) == pytest.approx(0.2 * (1797 - 359), abs=4)
    assert not set(validation) & set(test)
    assert not set(validation) & set(train)
    assert rows(experiment, 0) == [train, validation, test]
    assert rows(experiment, 1)[1] != validation


def test_clients_of_a_file_stay_together(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    client = np.repeat([3, 5, 9], 40)
    x = np.repeat(client / 10, 64).reshape(-1, 64).astype(np.float32)
    np.savez(tmp_path / "mine.npz", x=x, y=rng.integers(0, 10, 120), client=client)
    experiment = prepare(request("lattice", data=str(tmp_path / "mine.npz"), devices=3, fogs=0), {})
    shares, _, how = experiment.shares(0)
    assert "3 clients" in how
    assert [len(np.unique(share.train.x)) for share in shares.values()] == [1, 1, 1]
    mixed = prepare(request("lattice", data=str(tmp_path / "mine.npz"), devices=3, fogs=0, partition="iid"), {})
    assert all(len(np.unique(share.train.x)) == 3 for share in mixed.shares(0)[0].values())


def test_runs_are_compared_on_the_same_samples_and_reproduced() -> None:
    experiment, heard, notes = prepare(request("lattice:rounding=nearest:kappa=2"), {}), list[Progress](), list[str]()
    found = compare(experiment, 1, heard.append, notes.append)
    again = compare(experiment, 1, lambda at: None, lambda text: None)
    assert [each.setting for each in found] == [REFERENCE.text, "lattice:rounding=nearest:kappa=2"]
    for one, other in zip(found, again, strict=True):
        assert one.trials[0].path == other.trials[0].path
        assert one.trials[0].levels == other.trials[0].levels
        assert one.conserved
    dense, lattice = (each.levels[-1] for each in found)
    assert dense.up_bits == pytest.approx(32, abs=0.01)
    assert dense.down_bits == 32
    assert lattice.up_bits < 4
    left_out = [each.sample.left_out for each in found if each.sample is not None and each.sample.left_out is not None]
    assert left_out[0] == 0
    assert 0 < left_out[1] < 1
    assert found[0].trials[0].path[0] != found[0].trials[0].path[-1]
    assert len([at for at in heard if at.done]) == 2
    assert [at.release for at in heard if at.setting == REFERENCE.text and not at.done] == [0, 1, 2]
    assert len(notes) == 1
    assert lattice.up_bytes + lattice.down_bytes == pytest.approx(found[1].device_bytes, rel=0.01)


def test_who_sits_a_round_out_sends_no_vector_and_holds_nobody_up() -> None:
    experiment, notes = prepare(request("lattice", participation=0.5, rounds=4), {}), list[str]()
    found = compare(experiment, 2, lambda at: None, notes.append)
    whole = compare(prepare(request("lattice", rounds=4), {}), 2, lambda at: None, lambda text: None)
    for some, everybody in zip(found, whole, strict=True):
        assert some.conserved
        assert some.trials[0].path[0].test == everybody.trials[0].path[0].test
        assert 0.2 < some.levels[-1].up_bytes / everybody.levels[-1].up_bytes < 0.8
    assert len(notes) == 1, "that somebody sits out is nothing to complain of"
    assert Comparison.of(experiment, found, "").document()["participation"] == 0.5


def test_participation_is_by_chance_and_the_same_whenever_it_is_asked() -> None:
    chance = Participation(0.3, seed=1)
    trains = [chance.of(f"device-{number}", release) for number in range(40) for release in range(50)]
    assert 0.25 < sum(trains) / len(trains) < 0.35
    assert trains == [Participation(0.3, seed=1).of(f"device-{number}", release) for number in range(40) for release in range(50)]
    assert trains != [Participation(0.3, seed=2).of(f"device-{number}", release) for number in range(40) for release in range(50)]
    assert all(ALWAYS.of("device-0", release) for release in range(100))


@pytest.mark.parametrize("runs", [1, 3])
def test_an_interrupt_leaves_the_seeds_that_are_whole(runs: int) -> None:
    experiment, done, notes = prepare(request("lattice:kappa=2"), {}), list[Progress](), list[str]()

    def listen(at: Progress) -> None:
        done.extend([at] if at.done else [])
        if len(done) == runs:
            raise KeyboardInterrupt

    if runs == 1:
        with pytest.raises(KeyboardInterrupt):
            compare(experiment, 3, listen, notes.append)
        return
    found = compare(experiment, 3, listen, notes.append)
    assert [[trial.seed for trial in each.trials] for each in found] == [[0], [0]]
    assert notes[-1] == "interrupted: 1 of 3 seeds are whole"


# ------------------------------------------------------------------------------------------------------------------ bounds


def test_bounds_are_those_of_the_literature() -> None:
    assert index_set_bits(10, 1000) == pytest.approx(0.0808, abs=1e-4)
    assert index_set_bits(0, 1000) == 0
    assert index_set_bits(500, 1000) is None
    coin = np.array([1.0, -1.0] * 50, np.float32)
    assert entropy_bits(coin) == pytest.approx(1.0)
    assert entropy_bits(np.zeros(100, np.float32)) == 0
    assert entropy_bits(np.arange(100, dtype=np.float32)) is None


def test_updates_at_their_entropy_move_fewer_bytes() -> None:
    dense, lattice = outcome("dense", 1e6, 0.9), outcome("lattice", 1e5, 0.9)
    comparison = Comparison("toy", "accuracy", 4000, (2, 8), "", 10, (dense, lattice))
    updates_bytes = 2.0 * 4000 * 10 / 8
    assert least_bytes(comparison, lattice) == pytest.approx((1e5 - updates_bytes / 2, 1e5 - 0.75 * updates_bytes))


# ------------------------------------------------------------------------------------------------------------------ choice


def test_the_cheapest_setting_within_half_a_point_is_taken() -> None:
    found = [
        outcome("dense", 1e6, 0.93, 0.91),
        outcome("good", 2e5, 0.92, 0.912),
        outcome("better", 3e5, 0.95, 0.95),
        outcome("cheap", 1e5, 0.91, 0.90),
    ]
    choice = cheapest(found, "accuracy")
    assert (choice.setting, choice.device_bytes) == ("good", 2e5)
    assert "5.0 times fewer bytes" in choice.why
    assert frontier(found, "accuracy") == {"good", "better", "cheap"}


def test_test_samples_decide_nothing() -> None:
    found = [outcome("dense", 1e6, 0.9), outcome("a", 2e5, 0.9, test=0.1), outcome("b", 3e5, 0.9, test=0.9)]
    assert cheapest(found, "accuracy").setting == "a"
    assert affordable(found, "accuracy", 5e5) == replace(
        cheapest(found, "accuracy"), why="the best on validation samples within 500000 bytes per device, after 10 of 10 rounds"
    )


def test_where_nothing_is_as_good_the_reference_is_taken() -> None:
    choice = cheapest([outcome("dense", 1e6, 0.9), outcome("a", 2e5, 0.8)], "accuracy")
    assert choice.setting == "dense"
    assert choice.why.startswith("no cheaper setting")


def test_an_error_is_better_when_it_is_smaller() -> None:
    found = [outcome("dense", 1e6, 2.0), outcome("worse", 1e5, 2.02), outcome("as good", 2e5, 2.005)]
    assert cheapest(found, "mse").setting == "as good"
    assert frontier(found, "mse") == {"dense", "worse", "as good"}


def test_what_was_not_measured_is_never_taken() -> None:
    found = [outcome("dense", 1e6, 0.9), outcome("broken", 1e3, math.nan)]
    assert cheapest(found, "accuracy").setting == "dense"
    assert affordable([outcome("broken", 1e3, math.nan), found[0]], "accuracy", 1e6) is not None


def test_a_budget_may_end_a_run_early() -> None:
    found = [outcome("dense", 1e6, 0.9), outcome("lattice", 2e5, 0.92)]
    choice = affordable(found, "accuracy", 1e5)
    assert choice is not None
    assert (choice.setting, choice.stops) == ("lattice", 5)
    assert choice.device_bytes == pytest.approx(2e5 * 5 / 11)
    assert "after 4 of 10 rounds" in choice.why
    assert affordable(found, "accuracy", 1e3) is None


def test_a_run_that_was_still_learning_is_told_apart() -> None:
    steady = outcome("dense", 1e6, 0.9)
    assert not rising(steady, "accuracy")
    path = tuple(replace(stop, validation=0.1 * stop.release) for stop in steady.trials[0].path)
    climbing = Outcome("dense", (replace(steady.trials[0], path=path),))
    assert rising(climbing, "accuracy")
    assert not rising(climbing, "mse")


# ------------------------------------------------------------------------------------------------------------------ report


def comparison(**more: object) -> Comparison:
    outcomes = (outcome("dense:release=dense", 1e6, 0.93, 0.91), outcome("lattice", 2e5, 0.92, math.nan))
    made = Comparison("toy", "accuracy", 4000, (2, 8), "dealt out", 10, outcomes)
    return replace(made, **more)  # type: ignore[arg-type]  # fields of Comparison


def test_the_document_is_json_and_says_everything(tmp_path: Path) -> None:
    made = comparison()
    document = json.loads((made.write(tmp_path)).read_text())
    assert (tmp_path / FILE).exists()
    assert document == json.loads(json.dumps(made.document()))
    assert document["recommendation"]["setting"] == "dense:release=dense"
    dense, lattice = document["settings"]
    assert dense["validation"] == {"mean": pytest.approx(0.92), "spread": pytest.approx(0.01414, abs=1e-4), "seeds": [0.93, 0.91]}
    assert lattice["validation"]["mean"] is None
    assert lattice["levels"][0]["nodes"] == 2
    assert (dense["up_bits"], dense["fog_bits"], dense["down_bits"]) == (2.0, [4.0], 1.0)


def test_the_table_marks_the_recommended_setting() -> None:
    lines = comparison().screen([]).splitlines()
    assert lines[2].startswith("* dense:release=dense")
    assert lines[2].endswith("<- take this")
    assert "1.0 MB" in lines[2]
    assert "2.000" in lines[2]
    assert "0.9200 +-0.0141" in lines[2]
    assert not lines[3].endswith("<- take this")


def test_a_budget_that_is_too_small_says_what_would_do() -> None:
    screen = comparison(budget_bytes=1000).screen([])
    assert "nothing stays within 1.0 kB: getting the task and answering once takes 18.2 kB" in screen
    assert comparison(budget_bytes=1000).document()["recommendation"] is None


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    path = draw(comparison(), tmp_path)
    assert path is not None
    assert path.read_bytes().startswith(b"\x89PNG")
