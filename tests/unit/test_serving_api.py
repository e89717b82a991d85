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
from edgemw.serving.api import Answer, Api
from edgemw.serving.session import open_inference
from edgemw.serving.slot import Served, Slot
from tests.support.answers import answered

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
    status, content_type, answer, json_bytes, final = answered(api, method, path, data)
    assert (content_type, json_bytes, final) == ("application/json", None, True)
    document = json.loads(answer)
    assert (status < 400) == ("error" not in document)
    return status, document


def tensor(**changes: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "x", "shape": [1, 64], "datatype": "FP32", "data": [0.5] * 64} | changes]}


def infer(body: object) -> tuple[int, Any]:
    return call("POST", "/v2/models/digits/infer", body)


def test_the_server_describes_itself() -> None:
    extensions = ["binary_tensor_data", "classification", "model_configuration", "model_repository", "statistics"]
    assert call("GET", "/v2") == (200, {"name": "edgemw", "version": __version__, "extensions": extensions})
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
        "parameters": {"classes": 10, "precision": "float32"},
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
        (tensor(data=["a" * 2000] + [0] * 20_000), "not a number"),  # numpy would take 160 MB for it
        (tensor(data=[[0.5] * 63 + [None]]), "not a number"),
        (tensor(data=[10**30] * 64), "not a number"),
        (tensor(data=[[0.5], [0.5, 0.5]]), "not an array"),
        (tensor(data=[float("nan")] * 64), "NaN or infinite"),
        (tensor(data=[1e300] * 64), "NaN or infinite"),
        (tensor(shape=[0, 64], data=[]), "without samples"),
        (tensor() | {"id": 5}, "id is a text"),
        (tensor() | {"id": "a" * 300}, "id is a text"),
        (tensor() | {"outputs": [{"name": "z"}]}, "only output is 'y'"),
        (tensor() | {"outputs": "y"}, "outputs is not a JSON array"),
        (tensor(parameters={"binary_data_size": 256}), "give one"),
        (
            {"inputs": [{k: v for k, v in tensor(parameters={"binary_data_size": 256})["inputs"][0].items() if k != "data"}]},
            "0 bytes",
        ),
        (tensor() | {"outputs": [{"name": "y", "parameters": {"classification": -1}}]}, "a number of classes"),
        (tensor() | {"outputs": [{"name": "y", "parameters": {"classification": True}}]}, "a number of classes"),
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
        ("GET", "/v2/models/digits/weights", 404),
        ("GET", "/v2/repository/index", 405),
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


# -- tensors as bytes


def with_bytes(x: np.ndarray[Any, Any], datatype: str) -> tuple[dict[str, Any], bytes]:
    """A request whose input follows the JSON."""
    data = x.tobytes()
    head = {"name": "x", "shape": list(x.shape), "datatype": datatype, "parameters": {"binary_data_size": len(data)}}
    return {"inputs": [head]}, data


def send(document: dict[str, Any], behind: bytes) -> Answer:
    text = json.dumps(document).encode()
    return answered(API, "POST", "/v2/models/digits/infer", text + behind, len(text))


def received(answer: Answer) -> tuple[dict[str, Any], bytes]:
    assert answer.status == 200, answer.body
    assert answer.content_type == ("application/json" if answer.json_bytes is None else "application/octet-stream")
    return json.loads(answer.body[: answer.json_bytes]), answer.body[answer.json_bytes :] if answer.json_bytes else b""


@pytest.mark.parametrize(
    ("datatype", "dtype"),
    [
        ("FP32", "<f4"),
        ("FP64", "<f8"),
        ("FP16", "<f2"),
        ("INT8", "i1"),
        ("UINT8", "u1"),
        ("INT64", "<i8"),
        ("UINT16", "<u2"),
        ("BOOL", "?"),
    ],
)
@pytest.mark.parametrize(
    "asked", [{"parameters": {"binary_data_output": True}}, {"outputs": [{"name": "y", "parameters": {"binary_data": True}}]}]
)
def test_bytes_in_and_out_say_what_numbers_say(bundle: Bundle, datatype: str, dtype: str, asked: dict[str, Any]) -> None:
    x = np.random.default_rng(3).integers(0, 2, (2, 64)).astype(dtype)
    document, data = with_bytes(x, datatype)
    said, behind = received(send(document | asked | {"id": "b"}, data))
    expected = open_inference(bundle.infer, bundle.theta0, size=bundle.manifest.size).run(x.astype(np.float32))
    output = {"name": "y", "datatype": "FP32", "shape": [2, 10], "parameters": {"binary_data_size": 80}}
    assert said == {"id": "b", "model_name": "digits", "model_version": "12", "outputs": [output]}
    np.testing.assert_array_equal(np.frombuffer(behind, "<f4").reshape(2, 10), expected)
    as_numbers, nothing = received(send(document, data))
    assert nothing == b""
    np.testing.assert_array_equal(np.array(as_numbers["outputs"][0]["data"], np.float32).reshape(2, 10), expected)


def test_bytes_may_stand_anywhere_behind_the_json(bundle: Bundle) -> None:
    x = np.random.default_rng(5).random((1, 64), np.float32)
    document, data = with_bytes(x, "FP32")
    expected = open_inference(bundle.infer, bundle.theta0, size=bundle.manifest.size).run(x)
    for spaces in range(8):
        text = json.dumps(document).encode() + b" " * spaces
        answer = answered(API, "POST", "/v2/models/digits/infer", text + data, len(text))
        said = np.array(json.loads(answer.body)["outputs"][0]["data"], np.float32)
        np.testing.assert_array_equal(said.reshape(1, 10), expected)


def test_one_output_may_ask_otherwise_than_the_request() -> None:
    document, data = with_bytes(np.zeros((1, 64), np.float32), "FP32")
    asked = {"parameters": {"binary_data_output": True}, "outputs": [{"name": "y", "parameters": {"binary_data": False}}]}
    assert received(send(document | asked, data))[1] == b""


@pytest.mark.parametrize("binary", [False, True])
def test_the_best_classes_are_said_with_their_scores(bundle: Bundle, binary: bool) -> None:
    x = np.random.default_rng(4).random((2, 64), np.float32)
    document, data = with_bytes(x, "FP32")
    asked = {"outputs": [{"name": "y", "parameters": {"classification": 3, "binary_data": binary}}]}
    said, behind = received(send(document | asked, data))
    output = said["outputs"][0]
    assert (output["datatype"], output["shape"]) == ("BYTES", [2, 3])
    texts = output.get("data", [])
    while behind:
        length = int.from_bytes(behind[:4], "little")
        texts.append(behind[4 : 4 + length].decode())
        behind = behind[4 + length :]
    scores = open_inference(bundle.infer, bundle.theta0, size=bundle.manifest.size).run(x)
    best = np.argsort(-scores, axis=1)[:, :3]
    assert texts == [f"{scores[row, column]:f}:{column}" for row in range(2) for column in best[row]]


@pytest.mark.parametrize(
    ("changes", "behind", "text"),
    [
        ({}, b"", "0 bytes follow"),
        ({}, bytes(255), "255 bytes follow"),
        ({}, bytes(257), "257 bytes follow"),
        ({"parameters": {"binary_data_size": "256"}}, bytes(256), "256 bytes follow"),
        ({"parameters": {"binary_data_size": 255}}, bytes(255), "no whole number"),
        ({"parameters": {}}, bytes(256), "says nothing of them"),
        ({"shape": [2, 64]}, bytes(256), "needs another number"),
        ({"datatype": "BYTES"}, bytes(256), "datatype is one of"),
        ({}, b"\xff" * 256, "NaN or infinite"),
    ],
)
def test_bytes_that_do_not_fit_are_refused_with_the_reason(changes: dict[str, Any], behind: bytes, text: str) -> None:
    document, _ = with_bytes(np.zeros((1, 64), np.float32), "FP32")
    document["inputs"][0] |= changes
    answer = send(document, behind)
    assert answer.status == 400
    assert text in json.loads(answer.body)["error"]


@pytest.mark.parametrize("json_bytes", [-1, 0, 5, 10**9])
def test_a_length_of_the_json_that_cannot_be_is_refused(json_bytes: int) -> None:
    answer = answered(API, "POST", "/v2/models/digits/infer", json.dumps(tensor()).encode(), json_bytes)
    assert answer.status == 400


@settings(max_examples=50)
@given(st.binary(max_size=300), st.integers(0, 300))
def test_whatever_bytes_are_sent_are_answered(data: bytes, json_bytes: int) -> None:
    assert answered(API, "POST", "/v2/models/digits/infer", data, json_bytes).status == 400


def test_what_was_answered_is_counted() -> None:
    slots = _slots()
    api = Api(slots)
    for _ in range(3):
        assert call("POST", "/v2/models/digits/infer", tensor(shape=[2, 64], data=[0.0] * 128), api)[0] == 200
    (stats,) = call("GET", "/v2/models/digits/stats", api=api)[1]["model_stats"]
    assert (stats["version"], stats["inference_count"], stats["execution_count"]) == ("12", 6, 3)
    assert stats["inference_stats"]["success"]["ns"] == int(1e9 * slots["digits"].seconds) > 0
    assert call("GET", "/v2/models/stats", api=api)[1]["model_stats"] == [stats]
    index = [
        {"name": "digits", "version": "12", "state": "READY", "reason": ""},
        {"name": "empty", "state": "UNAVAILABLE", "reason": "no release yet"},
    ]
    assert json.loads(answered(api, "POST", "/v2/repository/index", b"").body) == index


def test_a_request_beyond_the_bound_is_refused() -> None:
    assert infer(b" " * 100_001)[0] == 413


def test_outputs_that_are_not_finite_are_an_error_of_the_server(bundle: Bundle) -> None:
    slot = Slot()
    slot.install(Served(lambda x: np.full((len(x), 10), np.inf, np.float32), "digits", 1, bundle.manifest))
    status, document = call("POST", "/v2/models/digits/infer", tensor(), api=Api({"digits": slot}))
    assert status == 500
    assert "release 1" in document["error"]


def constant(release: int, bundle: Bundle) -> Served:
    return Served(lambda x: np.full((len(x), 10), release, np.float32), "digits", release, bundle.manifest)


def test_a_pinned_version_answers_though_another_release_takes_its_place_meanwhile(bundle: Bundle) -> None:
    class Busy(Slot):
        """The next release comes right after each look."""

        @property
        def current(self) -> Served | None:
            seen = super().current
            assert seen is not None
            self.install(constant(seen.release + 1, bundle))
            return seen

    slot = Busy()
    slot.install(constant(3, bundle))
    status, document = call("POST", "/v2/models/digits/versions/3/infer", tensor(), api=Api({"digits": slot}))
    assert (status, document["model_version"], set(document["outputs"][0]["data"])) == (200, "3", {3.0})


def test_a_canary_can_be_asked_by_its_number_and_is_said_to_be_there(bundle: Bundle) -> None:
    slot = Slot()
    slot.install(constant(3, bundle))
    slot.try_out(constant(4, bundle), 0.1)
    api = Api({"digits": slot})
    assert call("GET", "/v2/models/digits", api=api)[1]["versions"] == ["3", "4"]
    assert call("GET", "/v2/models/digits/versions/4", api=api)[1]["versions"] == ["4"]
    status, document = call("GET", "/v2/models/digits/versions/9", api=api)
    assert (status, document["error"]) == (404, "model 'digits' has no version '9': releases 3 and 4 answer")


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
    fine = place == "parameters" and not (isinstance(value, dict) and "binary_data_size" in value)
    assert infer(tensor(**{place: value}))[0] == (200 if fine else 400)


def test_requests_that_begin_alike_do_not_meet() -> None:
    """JSON that was read is kept, and so is JSON that was written."""
    x = np.random.default_rng(3).random((3, 64)).astype("<f4")
    described = {"name": "x", "shape": [1, 64], "datatype": "FP32", "parameters": {"binary_data_size": 256}}
    for binary in (True, False, True):
        text = json.dumps({"inputs": [described], "parameters": {"binary_data_output": binary}}).encode()
        for row in (0, 1, 2, 0):
            answer = answered(API, "POST", "/v2/models/digits/infer", text + x[row].tobytes(), len(text))
            expected = SLOTS["digits"].serve(x[row : row + 1])[0]
            document = json.loads(answer.body[: answer.json_bytes])
            [output] = document["outputs"]
            assert (document["model_version"], output["shape"]) == ("12", [1, 10])
            assert (answer.json_bytes is not None) == binary
            data = np.frombuffer(answer.body[answer.json_bytes :], "<f4") if binary else np.array(output["data"], "<f4")
            np.testing.assert_array_equal(data.reshape(1, 10), expected)
