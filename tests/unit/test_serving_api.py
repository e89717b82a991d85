"""The Open Inference Protocol, version 2, as a function of requests."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemw import __version__
from edgemw.core.bundle import Bundle, read_bundle
from edgemw.serving.api import Api
from edgemw.serving.session import open_inference
from edgemw.serving.slot import Served, Slot

DIGITS = Path(__file__).parents[2] / "examples" / "quickstart" / "digits.edge"


def _slots() -> dict[str, Slot]:
    bundle = read_bundle(DIGITS.read_bytes())
    slots = {"digits": Slot(), "empty": Slot()}
    session = open_inference(bundle.infer, bundle.theta0, size=bundle.manifest.size)
    slots["digits"].install(Served(session.run, "digits", 12, bundle.manifest))
    return slots


SLOTS = _slots()
API = Api(SLOTS, max_body_bytes=100_000)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return read_bundle(DIGITS.read_bytes())


def call(method: str, path: str, body: object = b"", api: Api = API) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    status, content_type, answer = api.handle(method, path, data)
    assert content_type == "application/json"
    document = json.loads(answer)
    assert (status < 400) == ("error" not in document)
    return status, document


def tensor(**changes: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "x", "shape": [1, 64], "datatype": "FP32", "data": [0.5] * 64} | changes]}


def infer(body: object) -> tuple[int, Any]:
    return call("POST", "/v2/models/digits/infer", body)


def test_the_server_describes_itself() -> None:
    assert call("GET", "/v2") == (200, {"name": "edgemw", "version": __version__, "extensions": []})
    assert call("GET", "/v2/health/live") == (200, {"live": True})


def test_it_is_ready_when_every_model_is() -> None:
    assert call("GET", "/v2/health/ready")[0] == 503
    assert call("GET", "/v2/health/ready", api=Api({}))[0] == 503
    assert call("GET", "/v2/health/ready", api=Api({"digits": SLOTS["digits"]})) == (200, {"ready": True})


@pytest.mark.parametrize("model", ["digits", "digits/versions/12"])
def test_a_model_describes_itself(model: str) -> None:
    assert call("GET", f"/v2/models/{model}/ready") == (200, {"name": "digits", "ready": True})
    status, document = call("GET", f"/v2/models/{model}")
    assert status == 200
    assert document == {
        "name": "digits",
        "versions": ["12"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 64]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 10]}],
        "parameters": {"classes": 10},
    }


@pytest.mark.parametrize("nested", [False, True])
def test_inference_gives_what_the_model_gives(bundle: Bundle, nested: bool) -> None:
    x = np.random.default_rng(0).random((3, 64), np.float32)
    data = x.tolist() if nested else x.ravel().tolist()
    status, answer = infer({"id": "a-1", "outputs": [{"name": "y"}]} | tensor(shape=[3, 64], data=data))
    assert status == 200
    output = answer.pop("outputs")[0]
    assert answer == {"id": "a-1", "model_name": "digits", "model_version": "12"}
    expected = open_inference(bundle.infer, bundle.theta0, size=bundle.manifest.size).run(x)
    assert (output["name"], output["datatype"], output["shape"]) == ("y", "FP32", [3, 10])
    np.testing.assert_array_equal(np.array(output["data"], np.float32).reshape(3, 10), expected)


@pytest.mark.parametrize("datatype", ["FP64", "INT64", "UINT8"])
def test_other_numbers_are_converted(datatype: str) -> None:
    assert infer(tensor(datatype=datatype, data=[1] * 64))[0] == 200


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "not JSON"),
        (b"[" * 90_000, "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        ([], "not a JSON object"),
        ({}, "give one tensor"),
        ({"inputs": [1, 2]}, "give one tensor"),
        ({"inputs": [1]}, "not a JSON object"),
        (tensor(name="input"), "only input is 'x'"),
        (tensor(datatype="BYTES"), "the model takes FP32"),
        (tensor(datatype=["FP32"]), "the model takes FP32"),
        (tensor(shape="1"), "shape is not a JSON array"),
        (tensor(shape=[1, 63]), r"the model takes \[-1, 64\]"),
        (tensor(shape=[-1, 64]), "not negative"),
        (tensor(shape=[True, 64]), "whole numbers"),
        (tensor(shape=[64]), "the model takes"),
        (tensor(shape=[2, 64]), "needs another number"),
        (tensor(shape=[10**30, 64]), "needs another number"),
        (tensor(data=None), "data is not a JSON array"),
        (tensor(data=["a"] * 64), "not a number"),
        (tensor(data=[10**30] * 64), "not a number"),
        (tensor(data=[[0.5], [0.5, 0.5]]), "not an array"),
        (tensor(data=[float("nan")] * 64), "NaN or infinite"),
        (tensor(data=[1e300] * 64), "NaN or infinite"),
        (tensor(shape=[0, 64], data=[]), "without samples"),
        (tensor() | {"id": 5}, "id is a text"),
        (tensor() | {"id": "a" * 300}, "id is a text"),
        (tensor() | {"outputs": [{"name": "z"}]}, "only output is 'y'"),
        (tensor() | {"outputs": "y"}, "outputs is not a JSON array"),
        (tensor() | {"parameters": {"binary_data_output": True}}, "binary"),
        (tensor(parameters={"binary_data_size": 256}), "binary"),
    ],
)
def test_a_request_that_does_not_fit_is_refused_with_the_reason(body: object, text: str) -> None:
    status, document = infer(body)
    assert status == 400
    assert re.search(text, document["error"]), document


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v2/models", 404),
        ("GET", "/v2/models/unknown", 404),
        ("GET", "/v2/models/digits/config", 404),
        ("GET", "/v2/models/digits/versions", 404),
        ("GET", "/v2/models/digits/versions/11", 404),
        ("GET", "/v2/models/digits/infer", 405),
        ("POST", "/v2/models/digits", 405),
        ("PUT", "/v2", 405),
        ("GET", "/v2/models/empty", 503),
        ("GET", "/v2/models/empty/ready", 503),
        ("POST", "/v2/models/empty/infer", 503),
    ],
)
def test_paths_and_methods_that_do_not_fit(method: str, path: str, status: int) -> None:
    assert call(method, path)[0] == status


def test_a_request_beyond_the_bound_is_refused() -> None:
    assert infer(b" " * 100_001)[0] == 413


def test_outputs_that_are_not_finite_are_an_error_of_the_server(bundle: Bundle) -> None:
    slot = Slot()
    slot.install(Served(lambda x: np.full((len(x), 10), np.inf, np.float32), "digits", 1, bundle.manifest))
    status, document = call("POST", "/v2/models/digits/infer", tensor(), api=Api({"digits": slot}))
    assert status == 500
    assert "release 1" in document["error"]


def test_a_pinned_version_answers_though_another_release_takes_its_place_meanwhile(bundle: Bundle) -> None:
    def constant(release: int) -> Served:
        return Served(lambda x: np.full((len(x), 10), release, np.float32), "digits", release, bundle.manifest)

    class Busy(Slot):
        """The next release comes right after each look."""

        @property
        def current(self) -> Served | None:
            seen = super().current
            assert seen is not None
            self.install(constant(seen.release + 1))
            return seen

    slot = Busy()
    slot.install(constant(3))
    status, document = call("POST", "/v2/models/digits/versions/3/infer", tensor(), api=Api({"digits": slot}))
    assert (status, document["model_version"], set(document["outputs"][0]["data"])) == (200, "3", {3.0})


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["inputs", "name", "shape", "datatype", "data", "id", "outputs", "parameters"]), inner)
    ),
    max_leaves=12,
)


@settings(max_examples=50)
@given(_JSON)
def test_whatever_is_sent_is_answered(document: object) -> None:
    assert infer(document)[0] == 400


@settings(max_examples=50)
@given(st.sampled_from(["name", "shape", "datatype", "data", "parameters"]), _JSON)
def test_whatever_stands_in_a_tensor_is_answered(place: str, value: object) -> None:
    assert infer(tensor(**{place: value}))[0] == (200 if place == "parameters" else 400)
