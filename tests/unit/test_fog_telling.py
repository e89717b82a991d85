"""Outcomes that ride on acknowledgements: said once, in time, and to the right child."""

from __future__ import annotations

import math

from edgemw.core.ids import UpdateId
from edgemw.fog.events import Settled
from edgemw.fog.telling import HOLD_S, Telling
from edgemw.wire.answers import Answers
from edgemw.wire.messages import MAX_OUTCOMES, Ack, Frame, Outcome, Update
from edgemw.wire.pending import Pending
from edgemw.wire.traffic import Send
from tests.support.world import World
from tests.unit.test_roles import Learner, tree

COUNTED = Settled(True, 3, "")
REPLY = "em1/net/fog/dn/device-0/toy"


def update(seq: int, node: str = "device-0") -> UpdateId:
    return UpdateId(node, 1, seq)


def outcome(seq: int) -> Outcome:
    return Outcome(1, seq, True, 3, "")


def test_an_ack_takes_along_what_waits_for_its_child_and_only_once() -> None:
    telling = Telling()
    telling.hold(update(1), COUNTED, 0.0)
    telling.hold(update(2), COUNTED, 1.0)
    telling.hold(update(1, "device-1"), COUNTED, 1.0)
    assert telling.with_ack("device-0") == (outcome(1), outcome(2))
    assert telling.with_ack("device-0") == ()
    assert telling.overdue(math.inf) == [("device-1", outcome(1))]
    assert telling.due is None


def test_what_finds_no_ack_is_said_alone_before_its_child_asks() -> None:
    telling, pending = Telling(), Pending()
    telling.hold(update(1), COUNTED, 10.0)
    telling.hold(update(2), COUNTED, 20.0)
    assert telling.due == 10.0 + HOLD_S
    assert telling.overdue(9.0 + HOLD_S) == []
    assert telling.overdue(10.0 + HOLD_S) == [("device-0", outcome(1)), ("device-0", outcome(2))]
    frame = Frame("toy", "device-0", 1, 1, Update(1, "lattice", 10, ()))
    pending.add(frame, 0.0)
    pending.acknowledge(frame.id, 0.0)
    pending.heard(1, 0, 0.0)
    asked_at = pending.next_due()
    assert asked_at is not None
    assert asked_at > HOLD_S


def test_more_than_an_ack_may_hold_waits_for_the_next_one() -> None:
    telling = Telling()
    for seq in range(MAX_OUTCOMES + 2):
        telling.hold(update(seq), COUNTED, 0.0)
    assert len(telling.with_ack("device-0")) == MAX_OUTCOMES
    assert telling.due == HOLD_S
    assert telling.with_ack("device-0") == (outcome(MAX_OUTCOMES), outcome(MAX_OUTCOMES + 1))
    assert telling.due is None


def test_an_offer_of_an_update_whose_outcome_rode_on_another_ack_gets_the_outcome() -> None:
    answers = Answers()
    answers.remember(Send(REPLY, Frame("toy", "fog", 1, 0, Ack(1, 1))))
    answers.remember(Send(REPLY, Frame("toy", "fog", 1, 0, Ack(1, 2, (outcome(1),)))))
    again = answers.about(Frame("toy", "device-0", 1, 1, outcome(1)))
    assert again is not None
    assert again.frame.message == outcome(1)


def test_while_a_run_goes_on_every_round_is_one_answer_to_a_child() -> None:
    world: World = tree(Learner(), rounds=6, children=2)
    answers: list[Ack | Outcome] = []

    def watch(target: str, frame: Frame) -> bool:
        if target == "device-0" and isinstance(frame.message, Ack | Outcome):
            answers.append(frame.message)
        return False

    world.loses = watch
    world.run(300)
    acks = [answer for answer in answers if isinstance(answer, Ack)]
    assert len(acks) == 7  # six of training, one of the last measurement
    assert sum(len(ack.outcomes) for ack in acks) >= 4
    told = {one.seq for answer in answers for one in (answer.outcomes if isinstance(answer, Ack) else (answer,))}
    assert told == set(range(7))
    assert world.disks["device-0"].outbox == {}
