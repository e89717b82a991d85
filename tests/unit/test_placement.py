"""Whose prediction is the answer: the own where it is sure, else another's, if it comes in time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgemw.app.elsewhere import MOST_ASKED, AskedNode
from edgemw.core.bundle import Spec, read_bundle
from edgemw.learning.oracle import Array
from edgemw.serving.api import Answer, Api
from edgemw.serving.placement import Placement, Rule
from edgemw.serving.requests import Requests
from edgemw.serving.rpc import Rpc
from edgemw.serving.slot import Outputs, Served, Slot
from edgemw.serving.turns import Turns
from edgemw.transport.link import Reply
from tests.support.answers import answered
from tests.unit.test_serving_api import tensor

MANIFEST = read_bundle((Path(__file__).parents[2] / "examples" / "quickstart" / "digits.edge").read_bytes()).manifest
SURE, UNSURE = 9.0, 0.1


def slots_of(release: int, logit: float) -> Mapping[str, Slot]:
    """A model that always says class 3, and how sure it is."""

    def predict(x: Array) -> Outputs:
        outputs = np.zeros((len(x), 10), np.float32)
        outputs[:, 3] = logit
        return outputs

    slot = Slot()
    slot.install(Served(predict, "digits", release, MANIFEST))
    return {"digits": slot, "empty": Slot()}


class Pair:
    """A device that may ask a fog node, with what passes between them held until `pass_on`."""

    def __init__(self, logit: float, *, below: float = 0.6, deadline_s: float = 5.0, fog: Api | None = None) -> None:
        self.asked = AskedNode("net", "fog-0", "device-0")
        self.asked.connected(self._send, 5)
        self.placement = Placement(Rule(below, deadline_s), self.asked)
        self.requests = Requests(Api(slots_of(7, logit)), Turns(), self.placement)
        self.fog = fog or Api(slots_of(90, SURE))
        self.questions: list[tuple[str, bytes, str]] = []
        self.answers: list[Answer] = []
        self.answered = asyncio.Event()

    def _send(self, topic: str, payload: bytes, reply: Reply) -> None:
        self.questions.append((topic, payload, reply.topic))

    def ask(self, question: object, task: str = "digits") -> None:
        body = question if isinstance(question, bytes) else json.dumps(question).encode()
        self.requests.take("POST", f"/v2/models/{task}/infer", body, None, self._hear)

    def _hear(self, answer: Answer) -> None:
        self.answers.append(answer)
        if answer.final:
            self.answered.set()

    def pass_on(self) -> None:
        rpc = Rpc(lambda *request: fogs.take(*request), "net", "fog-0")
        fogs = Requests(self.fog, Turns())
        questions, self.questions = self.questions, []
        for topic, payload, response_topic in questions:
            rpc.answer(topic, payload, response_topic, self._heard)

    def _heard(self, topic: str, payload: bytes) -> None:
        assert self.asked.hear(topic, payload)

    @property
    def documents(self) -> list[dict[str, Any]]:
        return [json.loads(answer.body) for answer in self.answers]

    @property
    def decisions(self) -> dict[str, int]:
        return dict(self.placement.decisions)


def scenario(test: Callable[[], Any]) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(test())

    run.__name__ = test.__name__
    return run


@scenario
async def test_a_sure_prediction_is_the_answer() -> None:
    pair = Pair(SURE)
    pair.ask(tensor())
    assert pair.questions == []
    assert pair.documents[0]["model_version"] == "7"
    assert pair.decisions == {"own": 1}


@scenario
async def test_one_that_is_not_sure_is_asked_of_the_other_which_says_who_it_is() -> None:
    pair = Pair(UNSURE)
    pair.ask(tensor() | {"id": "a"})
    assert pair.answers == []
    pair.pass_on()
    [document] = pair.documents
    assert (document["id"], document["model_version"], document["parameters"]) == ("a", "90", {"node": "fog-0"})
    assert pair.decisions == {"other": 1}


@scenario
async def test_the_least_sure_of_a_batch_decides() -> None:
    def predict(x: Array) -> Outputs:
        outputs = np.zeros((len(x), 10), np.float32)
        outputs[:-1, 3] = SURE
        return outputs

    pair = Pair(SURE)
    slot = Slot()
    slot.install(Served(predict, "digits", 7, MANIFEST))
    pair.requests = Requests(Api({"digits": slot}), Turns(), pair.placement)
    pair.ask(tensor(shape=[2, 64], data=[0.5] * 128))
    assert len(pair.questions) == 1


@scenario
async def test_who_asks_for_both_has_the_own_at_once_and_the_better_one_later() -> None:
    pair = Pair(UNSURE)
    pair.ask(tensor() | {"parameters": {"early": True}})
    assert [answer.final for answer in pair.answers] == [False]
    assert pair.documents[0]["model_version"] == "7"
    assert pair.documents[0]["parameters"] == {"final": False}
    pair.pass_on()
    assert [answer.final for answer in pair.answers] == [False, True]
    assert pair.documents[1]["model_version"] == "90"


@scenario
async def test_where_the_other_is_late_the_own_is_the_answer_and_what_comes_later_is_nobodys() -> None:
    pair = Pair(UNSURE, deadline_s=0.01)
    pair.ask(tensor())
    await asyncio.wait_for(pair.answered.wait(), 5)
    assert pair.documents[0]["model_version"] == "7"
    pair.pass_on()
    assert len(pair.answers) == 1
    assert pair.decisions == {"late": 1}


@scenario
async def test_no_longer_is_waited_than_the_client_does() -> None:
    pair = Pair(UNSURE, deadline_s=60)
    pair.ask(tensor() | {"parameters": {"timeout": 10_000}})
    await asyncio.wait_for(pair.answered.wait(), 5)
    assert pair.decisions == {"late": 1}
    pair.ask(tensor() | {"parameters": {"timeout": 1}})
    assert pair.decisions == {"late": 1, "own": 1}


@scenario
async def test_where_the_other_refuses_the_own_is_the_answer() -> None:
    pair = Pair(UNSURE, fog=Api({}))
    pair.ask(tensor())
    pair.pass_on()
    assert pair.documents[0]["model_version"] == "7"
    assert pair.decisions == {"refused": 1}


@scenario
async def test_a_classification_that_is_not_to_be_had_is_refused_and_not_an_accident() -> None:
    pair = Pair(SURE, below=0.0)
    manifest = replace(MANIFEST, output=Spec((2, 5), "float32"))
    slot = Slot()
    slot.install(Served(lambda x: np.zeros((len(x), 2, 5), np.float32), "digits", 7, manifest))
    pair.requests = Requests(Api({"digits": slot}), Turns(), pair.placement)
    pair.ask(tensor() | {"outputs": [{"name": "y", "parameters": {"classification": 1}}]})
    assert [answer.status for answer in pair.answers] == [400]


@pytest.mark.parametrize("task", ["empty", "nowhere"])
def test_without_a_release_the_other_is_asked(task: str) -> None:
    async def test() -> None:
        pair = Pair(SURE, below=0.0)
        pair.fog = Api({task: slots_of(90, SURE)["digits"]})
        pair.ask(tensor(), task)
        pair.pass_on()
        assert pair.documents[0]["model_version"] == "90"
        pair.ask(tensor(shape=[1, 3]), task)  # a request that nobody can answer
        pair.pass_on()
        assert pair.answers[1].status == 400
        assert "fog-0" in pair.documents[1]["error"]

    asyncio.run(test())


@scenario
async def test_where_nobody_can_answer_that_is_said() -> None:
    pair = Pair(SURE)
    pair.asked.disconnected()
    pair.ask(tensor(), "empty")
    assert pair.answers[0].status == 503
    assert pair.decisions == {"none": 1}
    assert pair.requests.refused == {503: 1}


@scenario
async def test_not_more_than_some_are_asked_at_a_time() -> None:
    pair = Pair(UNSURE)
    for _ in range(MOST_ASKED + 3):
        pair.ask(tensor())
    assert len(pair.questions) == MOST_ASKED
    assert pair.decisions == {"late": 3}
    pair.pass_on()
    assert len(pair.answers) == MOST_ASKED + 3


@scenario
async def test_a_broker_without_response_topics_is_not_asked_over() -> None:
    pair = Pair(UNSURE)
    pair.asked.connected(pair._send, 4)
    pair.ask(tensor())
    assert pair.questions == []
    assert pair.documents[0]["model_version"] == "7"


@scenario
async def test_binary_outputs_of_the_other_arrive_whole() -> None:
    pair = Pair(UNSURE)
    x = np.ones((1, 64), "<f4")
    described = {"name": "x", "shape": [1, 64], "datatype": "FP32", "parameters": {"binary_data_size": x.nbytes}}
    text = json.dumps({"inputs": [described], "parameters": {"binary_data_output": True}}).encode()
    pair.requests.take("POST", "/v2/models/digits/infer", text + x.tobytes(), len(text), pair._hear)
    pair.pass_on()
    [answer] = pair.answers
    assert answer.json_bytes is not None
    assert json.loads(answer.body[: answer.json_bytes])["parameters"] == {"node": "fog-0"}
    assert np.frombuffer(answer.body[answer.json_bytes :], "<f4")[3] == SURE


NO_STATUS = (b'"y"', b"1e999", b"Infinity", b"100", b"204", b"-7", b"true", b"600")
NO_ANSWERS = [
    *(b"", b"{", b"[]", b"{}", b'{"outputs": {}}', b'{"outputs": [NaN]}', b'{"outputs": [1e999]}', b"\xff", b"[" * 9999),
    *(b'{"error": "x", "status": %b}' % status for status in NO_STATUS),
]


@pytest.mark.parametrize("payload", [b'{"error": "x"}', *NO_ANSWERS])
def test_what_is_no_answer_does_no_harm(payload: bytes) -> None:
    async def test() -> None:
        pair = Pair(UNSURE)
        pair.ask(tensor())
        [(_, _, response_topic)] = pair.questions
        for topic in ("em1/net/fog-0/pa/device-0/other", "em1/net/fog-1/pa/device-0/x", "nothing", response_topic):
            pair.asked.hear(topic, payload)
        assert pair.documents[0]["model_version"] == "7"
        assert pair.decisions == {"late": 1}
        pair.ask(tensor(), "empty")
        [*_, (_, _, response_topic)] = pair.questions
        pair.asked.hear(response_topic, payload)
        assert pair.answers[1].status == 503
        assert pair.decisions == {"late": 1, "none": 1}

    asyncio.run(test())


@scenario
async def test_a_question_to_a_release_is_answered_by_that_one() -> None:
    pair = Pair(UNSURE)
    body = json.dumps(tensor()).encode()
    pair.requests.take("POST", "/v2/models/digits/versions/7/infer", body, None, pair._hear)
    assert pair.questions == []
    assert pair.documents[0]["model_version"] == "7"


@scenario
async def test_an_early_answer_is_never_an_error() -> None:
    pair = Pair(UNSURE)
    slot = Slot()
    slot.install(Served(lambda x: np.full((len(x), 10), np.nan, np.float32), "digits", 7, MANIFEST))
    pair.requests = Requests(Api({"digits": slot}), Turns(), pair.placement)
    pair.ask(tensor() | {"parameters": {"early": True}})
    assert pair.answers == []
    pair.pass_on()
    assert [answer.status for answer in pair.answers] == [200]
    assert pair.requests.refused == {}


@pytest.mark.parametrize("parameters", [{"early": 1}, {"timeout": -1}, {"timeout": 1.5}, {"timeout": "x"}, {"timeout": 10**15}])
def test_what_cannot_be_meant_is_refused(parameters: dict[str, object]) -> None:
    body = json.dumps(tensor() | {"parameters": parameters}).encode()
    assert answered(Api(slots_of(7, SURE)), "POST", "/v2/models/digits/infer", body).status == 400
