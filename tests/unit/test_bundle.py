"""The `.edge` file: what is written can be read, and what was not written so is refused with a reason."""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edgemw.core.bundle
from edgemw.core.bundle import MAX_MANIFEST_BYTES, Bundle, Manifest, Slot, Spec, read_bundle
from edgemw.core.errors import BundleError
from edgemw.core.initial import Draw, Recipe

LAYOUT = (Slot("weight", (2, 3), 0), Slot("scale", (), 6), Slot("mean", (3,), 7, trainable=False))
MANIFEST = Manifest(
    "t", LAYOUT, Spec((3,), "float32"), Spec((), "int64"), Spec((2,), "float32"), "cross_entropy", ("accuracy",), {"lr": 0.1}
)
BUNDLE = Bundle(MANIFEST, b"infer", b"train", np.arange(10, dtype=np.float32))
DATA = BUNDLE.to_bytes()
Edit = Callable[[dict[str, Any]], object]


def rewritten(edit: Edit, parts: dict[str, bytes] | None = None) -> bytes:
    """The bundle with its manifest edited, and other parts in place of its own."""
    with zipfile.ZipFile(io.BytesIO(DATA)) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()} | (parts or {})
    document = json.loads(contents["manifest.json"])
    edit(document)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in (contents | {"manifest.json": json.dumps(document).encode()}).items():
            archive.writestr(name, data)
    return buffer.getvalue()


def test_a_bundle_comes_back() -> None:
    read = read_bundle(DATA)
    assert read.manifest == MANIFEST
    assert (read.infer, read.train) == (b"infer", b"train")
    np.testing.assert_array_equal(read.theta0, BUNDLE.theta0)
    assert read.theta0.flags.writeable
    assert (read.manifest.size, read.manifest.buffers) == (10, (LAYOUT[2],))


def test_a_bundle_without_training_graph_comes_back() -> None:
    read = read_bundle(replace(BUNDLE, train=None, manifest=replace(MANIFEST, python="pkg.mod:task")).to_bytes())
    assert (read.train, read.manifest.python) == (None, "pkg.mod:task")


def test_equal_bundles_give_equal_bytes() -> None:
    assert read_bundle(DATA).to_bytes() == DATA
    other = replace(MANIFEST, training={"lr": 0.1})
    assert replace(BUNDLE, manifest=other, theta0=BUNDLE.theta0.copy()).to_bytes() == DATA
    assert replace(BUNDLE, infer=b"other").to_bytes() != DATA


SEEDED = replace(BUNDLE, recipe=Recipe(5, (Draw("uniform", 0.5), None, Draw("constant", 1.0)))).reseeded(6)


def test_a_bundle_with_a_recipe_comes_back_and_carries_only_what_is_not_drawn() -> None:
    data = SEEDED.to_bytes()
    read = read_bundle(data)
    assert (read.recipe, read.to_bytes()) == (SEEDED.recipe, data)
    np.testing.assert_array_equal(read.theta0, SEEDED.theta0)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.read("theta0") == SEEDED.theta0[6:7].tobytes()
    drawn = replace(SEEDED, recipe=Recipe(5, (Draw("uniform", 0.5), Draw("constant", 0.0), Draw("constant", 1.0)))).reseeded(5)
    with zipfile.ZipFile(io.BytesIO(drawn.to_bytes())) as archive:
        assert "theta0" not in archive.namelist()
    np.testing.assert_array_equal(read_bundle(drawn.to_bytes()).theta0, drawn.theta0)


def test_a_recipe_that_makes_something_else_is_refused_by_the_writer_and_by_the_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BundleError, match="not what its recipe makes"):
        replace(SEEDED, theta0=BUNDLE.theta0).to_bytes()
    with pytest.raises(BundleError, match="--initial seeded"):
        BUNDLE.reseeded(1)
    with zipfile.ZipFile(io.BytesIO(SEEDED.to_bytes())) as archive:
        initial = json.loads(archive.read("manifest.json"))["initial"]
    part = {"theta0": SEEDED.theta0[6:7].tobytes()}
    digest = hashlib.sha256(part["theta0"]).hexdigest()

    def edit(**changes: object) -> Edit:
        return lambda document: document.update(initial=initial | changes) or document["parts"].update(theta0=digest)

    read_bundle(rewritten(edit(), part))
    for changes, words in (({"seed": 7}, "sha256"), ({"sha256": None}, "sha256"), ({"draws": [None] * 3}, "needs 40")):
        with pytest.raises(BundleError, match=words):
            read_bundle(rewritten(edit(**changes), part))
    monkeypatch.setattr(edgemw.core.bundle, "MAX_PART_BYTES", 39)
    with pytest.raises(BundleError, match="at most 39"):  # a few bytes must not ask for any amount of memory
        read_bundle(rewritten(edit(), part | {"infer.onnx": b"infer"}))


@pytest.mark.parametrize("length", range(0, len(DATA), 7))
def test_a_truncated_file_is_refused(length: int) -> None:
    with pytest.raises(BundleError):
        read_bundle(DATA[:length])


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda d: d.update(format=2), "format 2, this edgemw reads format 1"),
        (lambda d: d.pop("format"), "format None"),
        (lambda d: d.pop("parts"), "does not list the parts"),
        (lambda d: d["parts"].update(other="00"), "does not list the parts"),
        (lambda d: d["parts"].pop("theta0"), "theta0 has 0 bytes, the layout needs 40"),
        (lambda d: d["parts"].pop("infer.onnx"), "lacks infer.onnx"),
        (lambda d: d.update(initial={"seed": 1}), "recipe of theta0 is incomplete"),
        (lambda d: d["parts"].pop("train.onnx"), "names no Python task"),
        (lambda d: d["parts"].update({"infer.onnx": "00"}), "damaged or was altered"),
        (lambda d: d.pop("layout"), "incomplete"),
        (lambda d: d.update(name="A task"), "1 to 40"),
        (lambda d: d["input"].update(dtype="float64"), "arrays are one of"),
        (lambda d: d["layout"][1].update(offset=5), "does not start at 6"),
        (lambda d: d["layout"][0].update(shape=[-2, -3]), "does not start at 0"),
        (lambda d: d["layout"][0].update(shape=[2, 4]), "does not start at"),
        (lambda d: d["layout"].pop(), "the layout needs 28"),
        (lambda d: d.update(training=3), "training is not a table"),
        (lambda d: d.update(training={"lr": [1]}), r"training\.lr: expected a finite number that is not negative, found \[1\]"),
        (lambda d: d.update(training={"lr": float("nan")}), r"training\.lr: expected a finite number"),
        (lambda d: d.update(training={"lrr": 0.1}), r"training\.lrr: unknown key \(did you mean 'lr'\?\)"),
        (lambda d: d.update(training={"epochs": 10**7}), r"training\.epochs: expected a whole number from 0 to 1000000"),
        (lambda d: d.update(training={"batch_size": 0}), r"training\.batch_size: expected a whole number from 1"),
        (lambda d: d.update(training={"optimizer": "lion"}), 'training.optimizer: expected "sgd" or "adam"'),
        (lambda d: d.update(classes="many"), "incomplete"),
        (lambda d: d.update(classes=float("inf")), "incomplete"),
        (lambda d: d["layout"][0].update(shape=[2**40, 2**40]), "does not start at"),
        (lambda d: d["layout"][2].update(shape=[2**62, 4]), "the layout needs"),
    ],
)
def test_a_manifest_that_is_wrong_is_refused(edit: Edit, words: str) -> None:
    with pytest.raises(BundleError, match=words):
        read_bundle(rewritten(edit))


def test_a_changed_part_is_refused() -> None:
    with pytest.raises(BundleError, match="damaged or was altered"):
        read_bundle(rewritten(lambda d: None, {"infer.onnx": b"other"}))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(value: float) -> None:
    theta = BUNDLE.theta0.copy()
    theta[3] = value
    with pytest.raises(BundleError, match="NaN or infinite"):
        read_bundle(replace(BUNDLE, theta0=theta).to_bytes())


def test_a_missing_part_is_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("other.json", b"{}")
    with pytest.raises(BundleError, match="lacks manifest"):
        read_bundle(buffer.getvalue())


def test_a_manifest_of_another_shape_is_refused() -> None:
    for text in (b"[]", b"3", b"{", b"\xff\xfe", b"null"):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("manifest.json", text)
        with pytest.raises(BundleError):
            read_bundle(buffer.getvalue())


def test_an_oversize_manifest_is_refused_unread() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", b" " * (MAX_MANIFEST_BYTES + 1))
    with pytest.raises(BundleError, match="at most"):
        read_bundle(buffer.getvalue())


def test_an_oversize_part_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edgemw.core.bundle, "MAX_PART_BYTES", 39)
    with pytest.raises(BundleError, match="theta0 is 40 bytes, at most 39"):
        read_bundle(DATA)


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(BundleError):
        read_bundle(data)


@settings(max_examples=500)
@given(st.lists(st.tuples(st.integers(0, len(DATA) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_flipped_bytes_give_the_same_bundle_or_an_error(flips: list[tuple[int, int]]) -> None:
    damaged = bytearray(DATA)
    for place, value in flips:
        damaged[place] = value
    try:
        read = read_bundle(bytes(damaged))
    except BundleError:
        return
    assert read.to_bytes() == DATA


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=400)
@given(
    st.sampled_from(
        [
            "name",
            "layout",
            "input",
            "target",
            "output",
            "loss",
            "metrics",
            "training",
            "classes",
            "seeded",
            "python",
            "parts",
            "format",
        ]
    ),
    _JSON,
)
def test_any_value_in_the_manifest_gives_a_bundle_or_an_error(key: str, value: object) -> None:
    try:
        read_bundle(rewritten(lambda d: d.update({key: value})))
    except BundleError:
        return
