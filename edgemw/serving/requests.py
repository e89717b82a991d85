"""The way of a request through a server: read, computed in its turn, placed, answered.

api.py --Question--> turns.py --Computed--> placement.py --Answer--> reply
  |---------------------------- Answer -----------------------------> reply
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from edgemw.serving.api import Answer, Api, Question
from edgemw.serving.placement import Placement, Reply
from edgemw.serving.turns import Computed, GiveUp, Turns

Handle = Callable[[str, str, bytes, int | None, Reply], GiveUp | None]
"""Method, path without query, body, how much of it is JSON where tensors follow, and who is told the answer.

Where that takes its time it returns what is called when nobody waits for the answer any more."""


class Requests:
    """See the module; `take` is a `Handle`. All of it is called in one loop.

    Attributes:
        refused: requests, by status.
        placement: None where all predictions are made here.
    """

    def __init__(self, api: Api, turns: Turns, placement: Placement | None = None) -> None:
        self._api, self._turns, self.placement = api, turns, placement
        self.refused: Counter[int] = Counter()

    def take(self, method: str, path: str, body: bytes, json_bytes: int | None, reply: Reply) -> GiveUp | None:
        """Answer a request: at once, or when its turn comes, or when another server has been heard."""
        read, answer = self._api.read(method, path, body, json_bytes), self._counting(reply)
        if isinstance(read, Answer):
            answer(read)
        elif isinstance(read, Question):
            return self._compute(read, answer)
        elif self.placement is not None:
            self.placement.unready(read, body, answer)
        else:
            answer(read.answer)
        return None

    def _compute(self, question: Question, reply: Reply) -> GiveUp | None:
        loop = asyncio.get_running_loop()
        began = loop.time()

        def computed(result: Computed | Answer) -> None:
            if isinstance(result, Answer):
                reply(result)
            elif self.placement is None:
                reply(question.answer(result.outputs, result.release))
            else:
                self.placement.computed(question, result, loop.time() - began, reply)

        return self._turns.compute(question, computed)

    def _counting(self, reply: Reply) -> Reply:
        def answer(answer: Answer) -> None:
            if answer.final and answer.status >= 400:
                self.refused[answer.status] += 1
            reply(answer)

        return answer
