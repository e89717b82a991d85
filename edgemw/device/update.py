"""What a device says of its training, and what it remembers of it. Values in, values out.

trained -> update + memory ; memory + what was returned -> memory
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from edgemw.compression.bounded import Bound, Noise, encode_bounded, encode_summed
from edgemw.compression.codec import Codec, Past, is_guided
from edgemw.compression.residual import Contribution, encode_update, give_back
from edgemw.compression.table import codec_named
from edgemw.core.bundle import Vector
from edgemw.core.errors import CodecError, TooLargeError, WireError
from edgemw.core.events import Fact
from edgemw.core.ids import UpdateId
from edgemw.core.noise import Integers
from edgemw.core.plan import Tally
from edgemw.core.ranges import Ranges
from edgemw.device.events import Memory, Work, Worked
from edgemw.device.personal import booked, learned
from edgemw.wire.messages import Frame, ReleaseManifest, Update, encoded_of

REFUSED = "refused"
TRAFFIC = ("uplink", "downlink")
MEASURED = "test."  # what starts the names of measures

Room = Callable[[Codec, Update], int | None]
"""The largest payload for the missing section of an answer; None is no limit."""


@dataclass(frozen=True, slots=True)
class Made:
    """An update, the memory that goes with it, and what happened.

    Attributes:
        update, memory, facts: see above.
        reason: why the update is without what was trained; empty where it has it, or nothing was trained.
        too_large: the reason will be the same as long as codec and limits are.
    """

    update: Update
    memory: Memory
    facts: tuple[Fact, ...] = ()
    reason: str = ""
    too_large: bool = False


def asks_for_past(manifest: ReleaseManifest) -> bool:
    """Whether the codec of a release encodes along what the release changed. An unknown one is refused where it is used."""
    try:
        return is_guided(codec_named(manifest.codec, **manifest.parameters))
    except (CodecError, WireError):
        return False


def is_bounded(manifest: ReleaseManifest) -> bool:
    """Whether the updates against a release have a bound."""
    return manifest.plan is not None and manifest.plan.update_clip > 0


def make_update(
    event: Worked, work: Work, ranges: Ranges, past: Past | None, memory: Memory, update_id: UpdateId, room: Room, noise: Noise
) -> Made:
    """The answer to a release: measures, and what was trained if anything was.

    Args:
        event: what the work gave.
        work: what was asked for.
        ranges: how to encode the result.
        past: of the release, for a codec that asks for it.
        memory: before.
        update_id: of the update.
        room: what the link has left for it.
        noise: of this device, where the plan asks for some.
    """
    manifest, size = work.release, work.theta.size
    tally = _unsaid(_refused(event), event.number, memory)
    if is_bounded(manifest):
        tally = _telling_nothing(tally, ranges)
    memory = replace(memory, measured_on=event.number)
    empty = Update(memory.run, manifest.codec, size, (), tally, event.number)
    if event.trained is None:
        if not event.reason:
            return Made(empty, memory)
        return Made(empty, replace(memory, trained_on=event.number), _refusal(event.reason), event.reason)
    residual = memory.residual if memory.residual is not None else np.zeros(size, np.float32)
    trained = event.trained
    contribution = Contribution(update_id, event.number, trained.weight, trained.delta, memory.weight_owed, past)
    memory = replace(memory, trained_on=event.number)
    if is_bounded(manifest):
        return _bounded(empty, contribution, trained.sums, work, ranges, memory, room, noise)
    try:
        codec = codec_named(manifest.codec, **manifest.parameters)
        encoded, left = encode_update(codec, contribution, residual, manifest.step, room(codec, empty), ranges)
    except (CodecError, WireError) as error:
        too_large = isinstance(error, TooLargeError)
        if too_large:
            memory = _unsent(memory, contribution, residual, ranges)
        refused = replace(empty, tally=tally | {REFUSED: (1.0, 1.0)})
        return Made(refused, memory, _refusal(str(error)), str(error), too_large)
    said = give_back(codec, encoded, np.zeros(size, np.float32), ranges)
    weight, delta = (
        (contribution.weight, booked(contribution, residual, ranges)) if codec.feedback else (1, said + left - residual)
    )
    memory = replace(
        memory,
        residual=left if codec.feedback or left.any() else None,
        balance=memory.balance.after_training(weight, delta, said, left),
        updates_sent=memory.updates_sent + 1,
        weight_sent=memory.weight_sent + encoded.weight,
        weight_owed=0,
        personal=learned(work.theta, event.trained.delta, ranges.personal),
    )
    values: dict[str, int | float | str] = {"release": event.number, "loss": event.trained.loss}
    values |= {"bytes": encoded.sections[0].size_bytes, "codec": manifest.codec}
    return Made(replace(empty, sections=encoded.sections), memory, (Fact("trained", values),))


def kept_back(event: Worked, work: Work, ranges: Ranges, memory: Memory, update_id: UpdateId, reason: str) -> Made:
    """The answer to a release where what was trained may not be sent: it waits for the next update.

    Where updates have a bound, nothing waits: it would be more than a bound on the next one allows.

    Args:
        event: what the work gave; something was trained.
        work: what was asked for.
        ranges: what is kept from the codec.
        memory: before.
        update_id: of the answer.
        reason: why.
    """
    trained, manifest, size = event.trained, work.release, work.theta.size
    assert trained is not None
    tally = _unsaid(event.tally, event.number, memory)
    tally = (_telling_nothing(tally, ranges) if is_bounded(manifest) else tally) | {REFUSED: (1.0, 1.0)}
    answer = Update(memory.run, manifest.codec, size, (), tally, event.number)
    memory = replace(memory, measured_on=event.number, trained_on=event.number)
    if not is_bounded(manifest):
        residual = memory.residual if memory.residual is not None else np.zeros(size, np.float32)
        contribution = Contribution(update_id, event.number, trained.weight, trained.delta, memory.weight_owed)
        memory = _unsent(memory, contribution, residual, ranges)
    memory = replace(memory, personal=learned(work.theta, trained.delta, ranges.personal))
    return Made(answer, memory, _refusal(reason), reason)


def _bounded(
    empty: Update,
    contribution: Contribution,
    sums: Integers | None,
    work: Work,
    ranges: Ranges,
    memory: Memory,
    room: Room,
    noise: Noise,
) -> Made:
    """The answer of a device whose updates have a bound: each says what was trained from one release, and nothing of before.

    What waited in the residual, as after a return or under another plan, is written off, with its weight: a bound on this update
    would be none on what it says of all those before.
    """
    manifest, size = work.release, work.theta.size
    assert manifest.plan is not None
    left = memory.residual if memory.residual is not None else np.zeros(size, np.float32)
    try:
        codec = codec_named(manifest.codec, **manifest.parameters)
        plan = manifest.plan
        bound = Bound(plan.update_clip, plan.update_noise, bool(plan.by_sample))
        if sums is None:
            encoded = encode_bounded(codec, contribution, bound, manifest.step, noise, ranges, room(codec, empty))
        else:
            encoded = encode_summed(codec, contribution, sums, bound, manifest.step, noise, ranges, room(codec, empty))
    except (CodecError, WireError) as error:
        refused = replace(empty, tally=empty.tally | {REFUSED: (1.0, 1.0)})
        return Made(refused, memory, _refusal(str(error)), str(error), isinstance(error, TooLargeError))
    said = give_back(codec, encoded, np.zeros(size, np.float32))
    memory = replace(
        memory,
        residual=None,
        balance=memory.balance.after_training(1, said - left, said, np.zeros_like(said)),
        updates_sent=memory.updates_sent + 1,
        weight_sent=memory.weight_sent + encoded.weight,
        weight_owed=0,
        personal=learned(work.theta, contribution.delta, ranges.personal),
    )
    values: dict[str, int | float | str] = {"release": manifest.number, "bytes": encoded.sections[0].size_bytes}
    return Made(replace(empty, sections=encoded.sections), memory, (Fact("trained", values | {"codec": manifest.codec}),))


def _telling_nothing(tally: Tally, ranges: Ranges) -> Tally:
    """A tally without what training samples give: traffic, refusals, and measures on samples that were held out.

    Under personal values a measure on any samples is one of the training samples, which these values were learned from.
    """
    names = (*TRAFFIC, REFUSED)
    return {name: sum_ for name, sum_ in tally.items() if name in names or (name.startswith(MEASURED) and not ranges.personal)}


def after_return(memory: Memory, frame: Frame, ranges: Ranges | None) -> Memory:
    """The memory once an update of this run was returned: it goes back to the residual, and its weight to that of the next.

    Args:
        memory: before.
        frame: of the update, which has a section.
        ranges: of the release in use; None before the first.

    Raises:
        CodecError: the codec is not known any more.
        WireError: the payload is malformed.
    """
    encoded, kept = encoded_of(frame), memory.residual
    said = give_back(codec_named(encoded.codec), encoded, np.zeros(encoded.size, np.float32), ranges)
    kept = said if kept is None else kept + said
    return replace(
        memory,
        residual=kept,
        balance=memory.balance.after_return(said, kept),
        updates_returned=memory.updates_returned + 1,
        weight_returned=memory.weight_returned + encoded.weight,
        weight_owed=memory.weight_owed + encoded.weight,
    )


def _unsent(memory: Memory, contribution: Contribution, residual: Vector, ranges: Ranges) -> Memory:
    """The memory where all that was trained has to wait for another codec, or another limit."""
    delta, nothing = booked(contribution, residual, ranges), np.zeros_like(residual)
    kept = residual + np.float32(contribution.weight) * delta
    balance = memory.balance.after_training(contribution.weight, delta, nothing, kept)
    return replace(memory, residual=kept, balance=balance, weight_owed=contribution.said_weight)


def _refusal(reason: str) -> tuple[Fact, ...]:
    return (Fact("update_refused", {"reason": reason}),)


def _refused(event: Worked) -> Tally:
    return event.tally | {REFUSED: (1.0, 1.0)} if event.reason and event.trained is None else event.tally


def _unsaid(tally: Tally, number: int, memory: Memory) -> Tally:
    """A tally without measures of a release that this device has told before, while it waited for tokens."""
    return tally if memory.measured_on < number else {name: sum_ for name, sum_ in tally.items() if not name.startswith(MEASURED)}
