"""What a plan may say: the same for an author, for a bundle from a stranger, for a configuration file and on the wire."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemw.app.settings import FogFile
from edgemw.core.config.loader import load
from edgemw.core.config.schema import schema_keys
from edgemw.core.errors import ConfigError, WireError
from edgemw.core.plan import LIMITS, MAX_PATTERNS, OF_THE_RUN, OPTIMIZERS, PATTERNS, Plan, check_plan
from edgemw.learning.optimiser import OPTIMISERS
from edgemw.wire.messages import KINDS, PARTS, Blob, Frame, ReleaseManifest, pack, unpack

RELEASE = ReleaseManifest(1, 2, bytes(16), Blob(bytes(32), 4, 1024), True, "lattice", {}, 0.5, Plan(), 4)
NUMBERS = sorted(Plan.__dataclass_fields__.keys() - {"optimizer", *PATTERNS, *OF_THE_RUN})
EDGES = st.sampled_from([edge + by for edge in (0, 1, 1 << 64, *(most for _, most in LIMITS.values())) for by in (-1, 0, 1)])
VALUES = EDGES | st.integers(-(2**70), 2**70) | st.floats() | st.booleans() | st.text(max_size=3) | st.none()


def accepted(**values: object) -> bool:
    try:
        check_plan(values, "training")
    except ConfigError:
        return False
    return True


def travels(release: ReleaseManifest) -> bool:
    """Whether a release can be written, and its readers take it."""
    try:
        unpack(pack(Frame("t", "top", 1, 0, release)))
    except (WireError, OverflowError):
        return False
    return True


@settings(max_examples=1000)
@given(st.sampled_from(NUMBERS), VALUES)
def test_a_number_is_accepted_exactly_where_a_release_can_say_it(name: str, value: Any) -> None:
    assert accepted(**{name: value}) == travels(replace(RELEASE, plan=replace(Plan(), **{name: value})))


@given(st.sampled_from(PATTERNS), st.text(max_size=5) | st.sampled_from(["x" * MAX_PATTERNS, "x" * (MAX_PATTERNS + 1)]))
def test_patterns_are_accepted_exactly_where_a_release_says_them_unchanged(name: str, value: str) -> None:
    plans = {"personal": Plan(personal=value), "frozen": Plan(frozen=value), "rare": Plan(rare=value)}
    release = replace(RELEASE, plan=plans[name])
    assert accepted(**{name: value}) == (unpack(pack(Frame("t", "top", 1, 0, release))).message == release)


@pytest.mark.parametrize("name", OF_THE_RUN)
def test_a_bundle_says_nothing_that_the_top_keeps_account_of(name: str) -> None:
    said: dict[str, Any] = {name: type(getattr(Plan(), name))(1)}
    assert not accepted(**said)
    assert travels(replace(RELEASE, plan=replace(Plan(), **said)))


@pytest.mark.parametrize("value", [["head.*"], 1, None])
def test_patterns_are_text(value: object) -> None:
    assert not accepted(personal=value)


@pytest.mark.parametrize("value", ["sgdd", "", "SGD", 1, None, ["sgd"]])
def test_an_optimizer_is_one_that_devices_have(value: object) -> None:
    assert set(OPTIMIZERS) == set(OPTIMISERS)
    assert accepted(optimizer="adam")
    assert not accepted(optimizer=value)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"lrr": 0.1}, r"training.lrr: unknown key \(did you mean 'lr'\?\)"),
        ({"batchsize": 8}, r"did you mean 'batch_size'\?"),
        ({"lr": -0.1}, "training.lr: expected a finite number that is not negative, found -0.1"),
        ({"lr": "fast"}, 'not negative, found "fast"'),
        ({"epochs": 1.0}, "training.epochs: expected a whole number from 0 to 1000000, found 1.0"),
        ({"batch_size": 0}, "a whole number from 1 to 1000000, found 0"),
        ({"steps": True}, "a whole number from 0 to 1000000000, found true"),
        ({"optimizer": "rmsprop"}, 'training.optimizer: expected "sgd" or "adam", found "rmsprop"'),
    ],
)
def test_a_refusal_names_the_key_and_what_it_may_be(values: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check_plan(values, "training")


@pytest.mark.parametrize("values", [{"lr": list(range(10_000))}, {"k" * 100_000: 1}, {"lr": "x" * 100_000}])
def test_a_refusal_is_short_whatever_a_stranger_wrote(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError) as caught:
        check_plan(values, "training")
    assert len(str(caught.value)) < 250


def test_the_default_plan_is_one() -> None:
    assert accepted(**{name: value for name, value in dataclasses.asdict(Plan()).items() if name not in OF_THE_RUN})


def places(name: str) -> dict[str, Any]:
    records = {part.cls.__name__: part for part in (*PARTS, *(kind.body for kind in KINDS))}
    return {place: field.schema for place, field in records[name].places.items()}


def test_the_limits_are_those_of_the_wire() -> None:
    wire = {name: (schema["minimum"], schema["maximum"]) for name, schema in places("Plan").items() if "maximum" in schema}
    assert wire == {**LIMITS, "by_sample": (0, 1)}


def test_no_file_makes_a_release_that_the_wire_cannot_say() -> None:
    """Every number of [plan], and max_staleness, has the wire's own maximum, or none where the wire has none."""
    options = {key.path: key.option for key in schema_keys(FogFile)}
    for name in NUMBERS:
        assert options[f"plan.{name}"].max == places("Plan")[name].get("maximum")
    assert options["window.max_staleness"].max == places("ReleaseManifest")["max_staleness"]["maximum"]


@pytest.mark.parametrize(
    ("key", "most"),
    [("plan.epochs", 10**6), ("plan.steps", 10**9), ("plan.batch_size", 10**6), ("window.max_staleness", 1 << 20)],
)
def test_a_file_that_asks_for_more_is_refused_at_its_line(key: str, most: int) -> None:
    section, _, name = key.partition(".")
    text = 'net = "n"\nnode.id = "top"\n[{}]\n{} = {}\n'
    load(FogFile, text.format(section, name, most), "fog.toml", cwd=Path("/"))
    with pytest.raises(ConfigError, match=f"fog.toml:4: {key}: must be at most {most}, found {most + 1}"):
        load(FogFile, text.format(section, name, most + 1), "fog.toml", cwd=Path("/"))
