"""Predictions over MQTT, as a function of publications."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemw.serving.api import Api
from edgemw.serving.rpc import Rpc, json_bytes_of
from tests.support.answers import answered
from tests.unit.test_serving_api import SLOTS, tensor

API = Api(SLOTS, max_body_bytes=100_000)
RPC = Rpc(lambda *request: request[-1](answered(API, *request[:-1])), "net", "server")


def said_to(topic: str, question: bytes, response_topic: str = "") -> tuple[str, bytes] | None:
    """Where what is published; None where nothing is."""
    published: list[tuple[str, bytes]] = []
    RPC.answer(topic, question, response_topic, lambda *answer: published.append(answer))
    assert len(published) <= 1
    return published[0] if published else None


X = np.random.default_rng(0).random((2, 64)).astype("<f4")
OWN = "em1/net/server/pa/alice/"


def ask(question: object, task: str = "digits", response_topic: str = "") -> tuple[str, dict[str, Any]]:
    data = question if isinstance(question, bytes) else json.dumps(question).encode()
    answer = said_to(f"em1/net/server/pq/alice/{task}", data, response_topic)
    assert answer is not None
    return answer[0], json.loads(answer[1])


def with_bytes(**more: object) -> bytes:
    described = {"name": "x", "shape": [2, 64], "datatype": "FP32", "parameters": {"binary_data_size": X.nbytes}}
    return json.dumps({"inputs": [described], **more}).encode() + X.tobytes()


def test_a_question_has_the_answer_that_the_http_door_gives() -> None:
    question = tensor() | {"id": "7"}
    topic, document = ask(question)
    assert topic == OWN + "digits"
    assert document == json.loads(answered(API, "POST", "/v2/models/digits/infer", json.dumps(question).encode()).body)
    assert (document["id"], document["model_version"]) == ("7", "12")


def test_no_question_is_one_for_what_the_model_takes() -> None:
    document = ask(b"")[1]
    assert document == json.loads(answered(API, "GET", "/v2/models/digits", b"").body)
    assert document["inputs"][0]["shape"] == [-1, 64]


def test_binary_tensors_stand_behind_the_json_both_ways() -> None:
    answer = said_to("em1/net/server/pq/alice/digits", with_bytes(parameters={"binary_data_output": True}))
    assert answer is not None
    end = json_bytes_of(answer[1])
    assert end is not None
    document = json.loads(answer[1][:end])
    outputs = np.frombuffer(answer[1][end:], "<f4").reshape(document["outputs"][0]["shape"])
    np.testing.assert_array_equal(outputs, SLOTS["digits"].serve(X)[0])
    plain = ask(with_bytes(id="Grüße"))[1]
    np.testing.assert_array_equal(np.array(plain["outputs"][0]["data"], "f4").reshape(2, 10), outputs)
    assert plain["id"] == "Grüße"  # two bytes each, where places in the text and in the bytes must not differ


@pytest.mark.parametrize(
    ("question", "task", "status", "said"),
    [
        (b"{}", "digits", 400, "inputs"),
        (b"no", "digits", 400, "not JSON"),
        (b"[" * 50_000, "digits", 400, "not JSON"),
        (tensor(shape=[1, 3]), "digits", 400, "[-1, 64]"),
        (tensor(data=[float("nan")] * 64), "digits", 400, ""),
        (with_bytes()[:-1], "digits", 400, ""),
        (b'"binary_data_size"', "digits", 400, ""),
        (tensor(), "nix", 404, "served here: digits, empty"),
        (tensor(), "empty", 503, "no release yet"),
        (b" " * 100_001, "digits", 413, "100000"),
        (b'"binary_data_size"' * 300_000, "digits", 413, "4194304"),
    ],
)
def test_what_is_refused_says_why_and_with_the_status_of_http(question: object, task: str, status: int, said: str) -> None:
    topic, document = ask(question, task)
    assert topic == OWN + task
    assert document.keys() == {"error", "status"}
    assert document["status"] == status
    assert said in document["error"]


def test_what_is_refused_is_known_by_the_id_of_its_question() -> None:
    for question in (tensor(shape=[1, 3]) | {"id": "7"}, with_bytes(id="7")[:-1]):
        assert ask(question)[1]["id"] == "7"
    assert ask(tensor() | {"id": "7"}, "empty")[1]["id"] == "7"
    assert ask(tensor() | {"id": "7"}, response_topic="elsewhere")[1]["id"] == "7"
    for useless in (7, "x" * 257, ["7"]):
        assert ask(tensor() | {"id": useless})[1].keys() == {"error", "status"}


def test_a_server_does_not_answer_itself_where_another_one_of_its_name_does() -> None:
    other = Rpc(lambda *request: request[-1](answered(API, *request[:-1])), "net", "server")
    published: list[tuple[str, bytes]] = []
    RPC.answer(RPC.own_question, b"", "", lambda *answer: published.append(answer))
    assert published == []
    other.answer(RPC.own_question, b"", "", lambda *answer: published.append(answer))
    [(topic, payload)] = published
    assert (topic, json.loads(payload)["status"]) == (RPC.own_answer, 404)


def test_an_answer_goes_where_it_is_wanted_below_the_askers_own_topic() -> None:
    assert ask(tensor(), response_topic=OWN + "any/where")[0] == OWN + "any/where"
    elsewhere = ["em1/net/server/pa/bob/x", "em1/net/server/dn/all/digits/release", "x", OWN[:-1], OWN + "+", OWN + "#"]
    for topic in [*elsewhere, OWN + "\0", OWN + "x" * 300]:
        place, document = ask(tensor(), response_topic=topic)
        assert (place, document["status"]) == (OWN + "digits", 400)
        assert f"not under {OWN}" in document["error"]


def test_where_json_ends_is_found_whatever_else_looks_like_it() -> None:
    head = {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP32", "parameters": {"binary_data_size": 4}}]}
    other = {"outputs": [{"name": "y", "parameters": {"binary_data_size": 1}}]} | head
    for document in (head, other, head | {"id": "{"}, head | {"id": '"binary_data_size": 2'}):
        text = json.dumps(document).encode()
        for behind in (b"1234", b"}}}}", b"{}{}", b"ab}c"):
            assert json_bytes_of(text + behind) == len(text)
    alone = json.dumps({"id": "7"} | head).encode()
    assert json_bytes_of(alone) == len(alone)
    assert ask(alone)[1]["id"] == "7"


@pytest.mark.parametrize(
    "topic",
    [
        "em1/net/server/pq/alice",
        "em1/net/other/pq/alice/digits",
        "em1/else/server/pq/alice/digits",
        OWN + "digits",
        "",
        "x/y",
        "em1/net/server/up/alice/digits",
    ],
)
def test_what_asks_nothing_is_not_answered(topic: str) -> None:
    assert said_to(topic, b"{}") is None


@settings(max_examples=300, deadline=None)
@given(
    question=st.binary(max_size=300)
    | st.recursive(
        st.none() | st.integers() | st.floats() | st.text(), lambda part: st.lists(part) | st.dictionaries(st.text(), part)
    ).map(lambda document: json.dumps(document).encode())
    | st.integers(0, 700).map(lambda length: with_bytes()[:length])
    | st.tuples(st.integers(0, 150), st.integers(0, 255)).map(lambda change: _changed(with_bytes(), *change)),
    response_topic=st.text(max_size=40) | st.text(max_size=20).map(lambda text: OWN + text),
)
def test_whatever_is_asked_the_answer_is_json_at_a_topic_of_the_asker(question: bytes, response_topic: str) -> None:
    answer = said_to("em1/net/server/pq/alice/digits", question, response_topic)
    assert answer is not None
    topic, payload = answer
    assert topic.startswith(OWN)
    assert not set(topic) & set("+#\0")
    document = json.loads(payload[: json_bytes_of(payload)])
    assert document.keys() <= {"error", "status", "id"} or "error" not in document
    assert ("error" in document) == ("status" in document) != ("outputs" in document or "inputs" in document)


def _changed(data: bytes, place: int, value: int) -> bytes:
    return data[:place] + bytes([value]) + data[place + 1 :]


def test_a_question_is_read_the_same_after_any_other() -> None:
    one, other = with_bytes(), with_bytes(id="7")
    shifted = one[:-8] + b'{"binary_data_size": 1}'[:8]
    longer = one + bytes(4)
    questions = [
        one,
        one,
        other,
        shifted,
        longer,
        one[:-4],
        json.dumps(tensor()).encode(),
        other,
        b"x" + one[1:],
        one,
        bytes(len(one)),
    ]

    def answer_of(rpc: Rpc, question: bytes) -> list[tuple[str, bytes]]:
        published: list[tuple[str, bytes]] = []
        rpc.answer("em1/net/server/pq/alice/digits", question, "", lambda *answer: published.append(answer))
        return published

    used = Rpc(lambda *request: request[-1](answered(API, *request[:-1])), "net", "server")
    for question in questions:
        fresh = Rpc(lambda *request: request[-1](answered(API, *request[:-1])), "net", "server")
        assert answer_of(used, question) == answer_of(fresh, question)


def test_only_what_a_server_asks_its_own_name_is_taken_for_another_server() -> None:
    other = Rpc(lambda *request: None, "net", "server")
    assert RPC.is_from_another(other.own_question, b"")
    assert not RPC.is_from_another(RPC.own_question, b"")
    assert not RPC.is_from_another(other.own_question, b"{}")
    for task in ("digits", "activity-monitor", "whoami-1", "predictive-maintenance-of-pumps-in-hall"):
        assert not RPC.is_from_another(f"em1/net/server/pq/server/{task}", b"")
    assert not RPC.is_from_another(other.own_question.replace("/pq/server/", "/pq/alice/"), b"")
