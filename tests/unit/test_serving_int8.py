"""Releases with an int8 graph in a store, and who serves them."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from edgemw import Predictor
from edgemw.cli.main import main
from edgemw.core.bundle import Bundle, Vector, read_bundle
from edgemw.serving.api import Api
from edgemw.serving.keeper import Keeper
from edgemw.serving.quantise import quantised
from edgemw.serving.session import open_graph, open_inference
from edgemw.serving.store import META, QUANTISED, ReleaseStore, StoredRelease
from tests.support.answers import answered

DIGITS = Path(__file__).parents[2] / "examples" / "quickstart" / "digits.edge"
X = np.random.default_rng(0).random((64, 64), np.float32)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return read_bundle(DIGITS.read_bytes())


@pytest.fixture(scope="module")
def theta(bundle: Bundle) -> Vector:
    return np.random.default_rng(1).normal(0, 0.1, bundle.manifest.size).astype(np.float32)


@pytest.fixture(scope="module")
def graph(bundle: Bundle, theta: Vector) -> bytes:
    return quantised(bundle, theta, X)


@pytest.fixture
def store(tmp_path: Path, bundle: Bundle, theta: Vector, graph: bytes) -> ReleaseStore:
    store = ReleaseStore(tmp_path, 3)
    store.save("digits", bundle, 1, 4, theta, graph)
    return store


def newest(folder: Path) -> Path:
    return max((folder / "digits" / "releases").iterdir())


def latest(store: ReleaseStore) -> StoredRelease:
    release = store.latest("digits")
    assert release is not None
    return release


def served(folder: Path) -> tuple[Keeper, str]:
    """A server of the store, and what the model says of itself."""
    keeper = Keeper(ReleaseStore(folder, 1))
    assert keeper.look()
    answer = answered(Api(keeper.slots), "GET", "/v2/models/digits", b"")
    return keeper, json.loads(answer.body)["parameters"]["precision"]


def test_an_int8_graph_comes_back_with_its_release(store: ReleaseStore, tmp_path: Path, theta: Vector, graph: bytes) -> None:
    release = latest(ReleaseStore(tmp_path, 3))
    np.testing.assert_array_equal(release.theta, theta)
    assert (release.quantised, release.damage) == (graph, "")


def test_a_release_without_one_is_as_it_ever_was(tmp_path: Path, bundle: Bundle, theta: Vector) -> None:
    store = ReleaseStore(tmp_path, 3)
    store.save("digits", bundle, 1, 4, theta)
    assert sorted(path.name for path in newest(tmp_path).iterdir()) == ["meta.json", "theta.f32"]
    assert sorted(json.loads((newest(tmp_path) / META).read_text())) == ["bundle", "number", "run", "sha256"]
    assert (latest(store).quantised, latest(store).damage) == (b"", "")
    assert served(tmp_path)[1] == Predictor(tmp_path).precision == "float32"


def test_the_same_release_is_kept_once_and_again_where_its_graph_is_another(
    store: ReleaseStore, tmp_path: Path, bundle: Bundle, theta: Vector, graph: bytes
) -> None:
    places = []
    for again in (graph, b"", graph, graph):
        ReleaseStore(tmp_path, 3).save("digits", bundle, 1, 4, theta, again)
        places.append(latest(store).place)
        assert latest(store).quantised == again
    assert places == [1, 2, 3, 3]


def test_whoever_serves_takes_the_int8_graph(store: ReleaseStore, tmp_path: Path, graph: bytes) -> None:
    expected = open_graph(graph).run(X)
    keeper, precision = served(tmp_path)
    predictor = Predictor(tmp_path)
    assert precision == predictor.precision == "int8"
    np.testing.assert_array_equal(keeper.slots["digits"].serve(X)[0], expected)
    np.testing.assert_array_equal(predictor.predict(X), expected)


def spoil(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"?")


@pytest.mark.parametrize("damage", [Path.unlink, spoil], ids=["missing", "spoilt"])
def test_a_damaged_int8_graph_leaves_float32(
    damage: object,
    store: ReleaseStore,
    tmp_path: Path,
    bundle: Bundle,
    theta: Vector,
    graph: bytes,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert callable(damage)
    damage(newest(tmp_path) / QUANTISED)
    with caplog.at_level(logging.WARNING):
        keeper, precision = served(tmp_path)
    assert precision == Predictor(tmp_path).precision == "float32"
    assert keeper.refused == {}
    assert "served as float32" in caplog.text
    expected = open_inference(bundle.infer, theta, size=bundle.manifest.size).run(X)
    np.testing.assert_array_equal(keeper.slots["digits"].serve(X)[0], expected)
    assert main(["model", "list", str(tmp_path)]) == 0
    assert "not int8: " in capsys.readouterr().out
    store.save("digits", bundle, 1, 4, theta, graph)  # as the device does when it starts again
    assert keeper.look()
    assert (latest(store).place, latest(store).quantised) == (2, graph)


def test_an_int8_graph_that_cannot_be_opened_leaves_float32(
    tmp_path: Path, bundle: Bundle, theta: Vector, caplog: pytest.LogCaptureFixture
) -> None:
    ReleaseStore(tmp_path, 3).save("digits", bundle, 1, 4, theta, b"no graph")
    with caplog.at_level(logging.WARNING):
        assert served(tmp_path)[1] == "float32"
    assert [record.getMessage().partition(": [")[0] for record in caplog.records] == [
        "served as float32: ONNX Runtime cannot open the graph"
    ]


def test_a_list_of_releases_says_what_each_is_served_as(
    store: ReleaseStore, tmp_path: Path, bundle: Bundle, theta: Vector, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (5, 6):
        store.save("digits", bundle, 1, number, theta)
    spoil(newest(tmp_path) / "theta.f32")
    assert main(["model", "list", str(tmp_path), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["digits"]
    assert [(each["number"], each["precision"], each["damage"]) for each in listed] == [
        (4, "int8", ""),
        (5, "float32", ""),
        (6, "", ""),
    ]
    assert main(["model", "list", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["task", "release", "run", "saved", "bytes", "precision"]
    assert [line.split()[6] for line in lines[1:]] == ["?", "float32", "int8"]
