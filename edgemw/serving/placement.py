"""Where a prediction is made: here, or at another server, whose model is larger.

    own outputs, sure enough      answered at once
    own outputs, not sure         the other is asked; what it says in time is the answer, else the own outputs are
    no release here yet           the other is asked; where it is silent the request is refused as it would be

*Sure* is a classifier's probability of its class, the least of a batch. Whoever asks for an *early* answer (`"parameters":
{"early": true}`) gets the own outputs at once, with `"parameters": {"final": false}`, and the final answer after it. A final
answer that was asked for elsewhere says by whom it was given: `"parameters": {"node": ...}`.

The request goes on as it came, so the other server's model has to take the same input.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from edgemw.serving.api import Answer, Question, Unready
from edgemw.serving.decision import class_of
from edgemw.serving.turns import Computed

Reply = Callable[[Answer], None]
"""Told an answer, in the loop; the last is final."""


class Elsewhere(Protocol):
    """Another server.

    Attributes:
        node: its name.
    """

    node: str

    def ask(self, task: str, body: bytes, timeout_s: float, heard: Callable[[Answer | None], None]) -> None:
        """Have it answer a request; `heard` is told once, in the loop: its answer, or None where none came in time."""
        ...


@dataclass(frozen=True, slots=True)
class Rule:
    """When another server is asked.

    Attributes:
        below: the probability under which own outputs are not sure; 0 is never, unless there are none.
        deadline_s: for its answer.
    """

    below: float
    deadline_s: float


class Placement:
    """See the module.

    Attributes:
        decisions: requests by what became of them: "own" (sure), "other" (the other answered), "late" (it did not in time, own
            outputs were the answer), "refused" (it refused; likewise, where there are own ones), "none" (nobody could answer).
    """

    def __init__(self, rule: Rule, elsewhere: Elsewhere) -> None:
        self._rule, self._elsewhere = rule, elsewhere
        self.decisions: Counter[str] = Counter()

    def computed(self, question: Question, own: Computed, waited_s: float, reply: Reply) -> None:
        """Answer a request for which there are own outputs.

        Args:
            question: the request.
            own: the outputs.
            waited_s: how long that took: what it costs of the time that an answer is worth waiting for.
            reply: told the answers.
        """
        left_s = self._rule.deadline_s if question.timeout_s is None else question.timeout_s - waited_s
        if question.named or left_s <= 0 or self._is_sure(question, own):
            self.decisions["own"] += 1
            reply(question.answer(own.outputs, own.release))
            return
        if question.early and (early := question.answer(own.outputs, own.release, final=False)).status < 400:
            reply(early._replace(final=False))

        def heard(answer: Answer | None) -> None:
            if answer is not None and answer.status < 400:
                self.decisions["other"] += 1
                reply(answer)
            else:
                self.decisions["late" if answer is None else "refused"] += 1
                reply(question.answer(own.outputs, own.release))

        self._elsewhere.ask(question.served.task, question.body, min(left_s, self._rule.deadline_s), heard)

    def unready(self, request: Unready, body: bytes, reply: Reply) -> None:
        """Answer a request for which there is no release here."""

        def heard(answer: Answer | None) -> None:
            self.decisions["none" if answer is None else "other" if answer.status < 400 else "refused"] += 1
            reply(request.answer if answer is None else answer)

        self._elsewhere.ask(request.task, body, self._rule.deadline_s, heard)

    def _is_sure(self, question: Question, own: Computed) -> bool:
        classes = question.served.manifest.classes
        if classes is None or own.outputs[0].size not in (1, classes):
            return True
        return all(class_of(row)[1] >= self._rule.below for row in own.outputs)
