"""The door as clients that exist already use it: NVIDIA's tritonclient, with and without asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as aio
from tritonclient.utils import InferenceServerException

from edgemw.core.bundle import Bundle, read_bundle
from edgemw.serving.api import Api
from edgemw.serving.beside import BesideDoor
from edgemw.serving.requests import Requests
from edgemw.serving.session import open_inference
from edgemw.serving.slot import Served, Slot
from edgemw.serving.turns import Turns

DIGITS = Path(__file__).parents[2] / "examples" / "quickstart" / "digits.edge"


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return read_bundle(DIGITS.read_bytes())


@pytest.fixture(scope="module")
def url(bundle: Bundle) -> Iterator[str]:
    slots = {"digits": Slot()}
    session = open_inference(bundle.infer, bundle.theta0, size=bundle.manifest.size)
    slots["digits"].install(Served(session.run, "digits", 12, bundle.manifest))
    with BesideDoor(Requests(Api(slots), Turns()).take, "127.0.0.1:0") as door:
        yield door.url.removeprefix("http://")


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[Any]:
    with triton.InferenceServerClient(url, concurrency=4) as connected:
        yield connected


def expected(bundle: Bundle, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return open_inference(bundle.infer, bundle.theta0, size=bundle.manifest.size).run(x.astype(np.float32))


def tensors(x: np.ndarray[Any, Any], *, sent: bool = True, back: bool | None = True, best: int = 0) -> dict[str, Any]:
    """Arguments of `infer`; without `back` the client leaves it to the server what outputs there are."""
    tensor = triton.InferInput("x", list(x.shape), {"f4": "FP32", "f8": "FP64", "i8": "INT64"}[x.dtype.str[1:]])
    tensor.set_data_from_numpy(x, binary_data=sent)
    asked = {} if back is None else {"outputs": [triton.InferRequestedOutput("y", binary_data=back, class_count=best)]}
    return {"inputs": [tensor], **asked}


def test_it_asks_how_the_server_is(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits")
    assert client.is_model_ready("digits", "12")
    assert not client.is_model_ready("digits", "11")
    assert not client.is_model_ready("other")


def test_it_asks_what_there_is(client: Any) -> None:
    assert client.get_server_metadata()["name"] == "edgemw"
    metadata = client.get_model_metadata("digits", "12")
    assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 64]}]
    config = client.get_model_config("digits")
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [-1, 64]}]
    assert client.get_model_repository_index()[0]["state"] == "READY"
    assert client.get_inference_statistics("digits")["model_stats"][0]["version"] == "12"
    assert client.get_inference_statistics()["model_stats"][0]["name"] == "digits"


@pytest.mark.parametrize("sent", [True, False])
@pytest.mark.parametrize("back", [True, False, None])
@pytest.mark.parametrize("batch", [1, 7])
def test_it_infers(client: Any, bundle: Bundle, sent: bool, back: bool | None, batch: int) -> None:
    x = np.random.default_rng(batch).random((batch, 64), np.float32)
    result = client.infer("digits", **tensors(x, sent=sent, back=back), request_id="r-1")
    np.testing.assert_array_equal(result.as_numpy("y"), expected(bundle, x))
    answer = result.get_response()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("digits", "12", "r-1")


@pytest.mark.parametrize("dtype", [np.float64, np.int64])
def test_other_numbers_are_converted(client: Any, bundle: Bundle, dtype: type) -> None:
    x: np.ndarray[Any, Any] = np.ones((2, 64), dtype)
    np.testing.assert_array_equal(client.infer("digits", **tensors(x)).as_numpy("y"), expected(bundle, x))


@pytest.mark.parametrize("back", [True, False])
def test_it_asks_for_the_best_classes(client: Any, bundle: Bundle, back: bool) -> None:
    x = np.random.default_rng(1).random((2, 64), np.float32)
    said = client.infer("digits", **tensors(x, back=back, best=2)).as_numpy("y")
    found = [[int((text.decode() if isinstance(text, bytes) else text).split(":")[1]) for text in row] for row in said]
    assert found == np.argsort(-expected(bundle, x), axis=1)[:, :2].tolist()


@pytest.mark.parametrize("how", ["gzip", "deflate"])
def test_it_packs_what_it_sends(client: Any, bundle: Bundle, how: str) -> None:
    x = np.zeros((7, 64), np.float32)
    result = client.infer("digits", **tensors(x), request_compression_algorithm=how, response_compression_algorithm=how)
    np.testing.assert_array_equal(result.as_numpy("y"), expected(bundle, x))


def test_it_reads_why_it_was_refused(client: Any) -> None:
    x = np.zeros((1, 64), np.float32)
    for model, version, sent, reason in (
        ("other", "", x, "no model 'other'"),
        ("digits", "11", x, "no version '11'"),
        ("digits", "", x[:, :63], "the model takes"),
        ("digits", "", np.full((1, 64), np.nan, np.float32), "NaN or infinite"),
    ):
        with pytest.raises(InferenceServerException, match=reason):
            client.infer(model, model_version=version, **tensors(np.ascontiguousarray(sent)))


def test_it_asks_many_times_at_once(client: Any, bundle: Bundle) -> None:
    x = np.random.default_rng(2).random((20, 1, 64), np.float32)
    waiting = [client.async_infer("digits", **tensors(one)) for one in x]
    for one, pending in zip(x, waiting, strict=True):
        np.testing.assert_array_equal(pending.get_result(timeout=10).as_numpy("y"), expected(bundle, one))


def test_it_asks_from_an_event_loop(url: str, bundle: Bundle) -> None:
    x = np.random.default_rng(3).random((8, 1, 64), np.float32)

    async def ask() -> list[Any]:
        async with aio.InferenceServerClient(url) as client:
            assert await client.is_server_ready()
            return list(await asyncio.gather(*(client.infer("digits", **tensors(one)) for one in x)))

    for one, result in zip(x, asyncio.run(ask()), strict=True):
        np.testing.assert_array_equal(result.as_numpy("y"), expected(bundle, one))
