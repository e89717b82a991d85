"""A group that adds under masks, both halves: the sum is exact whoever drops out, and nothing else can be read."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemw.compression.lanes import Lanes, lanes_of
from edgemw.compression.merge import merge
from edgemw.core.errors import WireError
from edgemw.device.events import Joined, SaveJoined
from edgemw.device.masks import Masks
from edgemw.device.member import GroupMember
from edgemw.fog import grouping
from edgemw.fog.events import Action
from edgemw.fog.grouping import GROUP_OVER, PLAIN, UNASKED
from edgemw.fog.window import parts_of
from edgemw.wire.chunks import bitmap
from edgemw.wire.groups import needed
from edgemw.wire.messages import Frame, Group, MaskKeys, Message, NoGroup, Revealed, Shares, Unmask, Update, pack, unpack
from tests.support.groups import DEADLINE_S, FOG, NET, TASK, Ring, place
from tests.system.fuzz_frames import damaged

NAMES = [f"device-{n}" for n in range(10)]
SIZE = 61
Part = MaskKeys | Shares | Revealed
Hears = Callable[[Frame, Part, float], list[Action]]


def refusal(made: Ring, frame: Frame) -> str:
    assert isinstance(frame.message, Update)
    return made.fog.refusal(frame, frame.message)


def vectors(count: int, seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(-1, 2, (count, SIZE)).astype(np.float32))


def ring(count: int, bits: int = 8, **more: object) -> Ring:
    return Ring(NAMES[:count], Lanes(bits=bits, blocks=2, members=min(count, (1 << (bits - 1)) - 1)), size=SIZE, **more)  # type: ignore[arg-type]  # as Ring's


def updates(made: Ring, devices: list[str]) -> dict[str, tuple[Frame, Frame]]:
    """The plain and the masked update of each device that can mask one."""
    key = 1, made.manifest.number
    found: dict[str, tuple[Frame, Frame]] = {}
    for device, vector in zip(devices, vectors(len(devices)), strict=True):
        if made.members[device].verdict(key) == "":
            plain = made.update(device, vector, energy=float(len(found)) + 0.375)
            found[device] = plain, made.members[device].masked(plain)
    return found


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 8), st.sampled_from([5, 8, 11, 16]), st.sampled_from([51, 67, 100]), st.data())
def test_the_sum_is_that_of_the_plain_updates_whoever_drops_out(count: int, bits: int, percent: int, data: st.DataObject) -> None:
    names = NAMES[:count]
    gone = data.draw(
        st.lists(st.sampled_from(["", "", "", "keys", "shares", "update", "answer"]), min_size=count, max_size=count)
    )
    phase = dict(zip(names, gone, strict=True))
    kinds = {"keys": (MaskKeys, Shares, Revealed), "shares": (Shares, Revealed), "update": (Revealed,), "answer": (Revealed,)}

    def loses(device: str, message: Message) -> bool:
        return isinstance(message, kinds.get(phase[device], ()))

    made = ring(count, bits, percent=percent, loses=loses)
    made.agree()
    members = [device for device in names if phase[device] != "keys"]
    dealers = [device for device in members if phase[device] != "shares"]
    least = needed(len(members), percent)
    if len(members) < 3 or len(dealers) < max(least, 3):
        assert all(made.members[device].verdict((1, 5)) for device in members if device in made.refused)
        assert not any(made.members[device].verdict((1, 5)) == "" for device in names)
        return
    sent = {device: pair for device, pair in updates(made, names).items() if phase[device] != "update"}
    assert set(sent) == {device for device in dealers if phase[device] != "update"}
    for plain, masked in sent.values():
        assert refusal(made, masked) == ""
        assert refusal(made, plain) == PLAIN
    frames = [masked for _, masked in sent.values()]
    if not frames:
        return
    made.unmask(frames)
    answering = [device for device in sent if phase[device] != "answer"]
    made.now += DEADLINE_S
    made.from_fog(made.fog.look(made.now, names, 0))
    if len(sent) < least or len(answering) < least:
        assert not made.fog.solved
        assert made.fog.failed
        return
    assert made.fog.solved
    total = made.fog.sum_of(made.codec, frames)
    expected = merge(made.codec, parts_of([plain for plain, _ in sent.values()]))
    assert total == expected  # payload, weight, count, energy and whose updates are in it


def test_one_masked_update_alone_is_noise() -> None:
    """Chi-square of 256 values of a lane over 32768 lanes of a constant: 255 on average, below 330 but once in a thousand."""
    made = Ring(NAMES[:4], Lanes(bits=8, blocks=1, members=4), size=32768)
    made.agree()
    masked = made.members[NAMES[0]].masked(made.update(NAMES[0], np.ones(32768, np.float32)))
    assert isinstance(masked.message, Update)
    counts = np.bincount(lanes_of(masked.message.sections[0].payload, 32768), minlength=256)
    assert float(((counts - 128) ** 2 / 128).sum()) < 330
    assert masked.message.sections[0].energy == 0.0


def test_two_updates_are_never_under_the_same_masks() -> None:
    """Their difference would be the difference of what they say."""
    made = ring(3)
    made.agree()
    plain = made.update(NAMES[0], np.ones(SIZE, np.float32))
    member = made.members[NAMES[0]]
    assert member.masked(plain) == member.masked(plain)
    with pytest.raises(RuntimeError, match="has masked another one"):
        member.masked(replace(plain, seq=8))


def test_what_has_no_group_is_never_sent_plain() -> None:
    masks = Masks(place(NAMES[0]), TASK, None, ())
    made = ring(3)
    masks.begin(made.manifest, (), 0.0)
    plain = made.update(NAMES[0], np.ones(SIZE, np.float32))
    with pytest.raises(RuntimeError, match="cannot be masked"):
        masks.masked(plain)
    with pytest.raises(RuntimeError, match="require_masks"):
        Masks(place(NAMES[0]), TASK, None, (), required=True).masked(plain)
    assert Masks(place(NAMES[0]), TASK, None, ()).masked(plain) is None


def test_a_release_that_asks_for_masks_no_more_has_none() -> None:
    """It was begun with masks in an earlier life, and is said again without."""
    made = ring(3)
    made.agree()
    masks, release = Masks(place(NAMES[0], 2), TASK, None, tuple(made.disks[NAMES[0]].values())), made.manifest
    assert masks.begin(replace(release, threshold=0), (), 0.0) == [SaveJoined(None, ((1, 5),))]
    assert masks.masked(made.update(NAMES[0], np.ones(SIZE, np.float32))) is None


def test_what_is_left_without_one_answer_is_noise_too() -> None:
    """The sum of all masked updates is not the sum: every survivor's own mask is on it still."""
    made = Ring(NAMES[:3], Lanes(bits=8, blocks=1, members=3), size=4096)
    made.agree()
    frames = [made.members[device].masked(made.update(device, np.ones(4096, np.float32))) for device in NAMES[:3]]
    payload = merge(made.codec, parts_of(frames)).sections[0].payload
    assert int((lanes_of(payload, 4096) == 3).sum()) < 60


def test_a_device_gives_up_shares_for_one_sum_only_also_in_another_life() -> None:
    made = ring(4)
    made.agree()
    frames = [masked for _, masked in updates(made, NAMES[:4]).values()]
    made.unmask(frames[:3])  # device-3 has dropped out: its key was asked for
    asked = next(message for _, message in made.heard if isinstance(message, Unmask))
    (first,) = {message.shares for device, message in made.heard if isinstance(message, Revealed) and device == NAMES[0]}
    everybody = replace(asked, survivors=bitmap([0, 1, 2, 3], 4))
    for member in (made.members[NAMES[0]], made.restart(NAMES[0])):
        assert member.on_message(FOG, everybody, 0.0) == []  # with these shares the fog node could read device-3
        (again,) = member.on_message(FOG, asked, 0.0)
        assert again.frame.message.shares == first  # type: ignore[union-attr]  # an Upload


@pytest.mark.parametrize(
    "survivors", [[1, 2, 3], [0, 1], [], [0, 1, 2, 3, 4]], ids=["without-it", "too-few", "none", "strangers"]
)
def test_a_device_gives_up_nothing_for_a_sum_that_is_none_of_its_group(survivors: list[int]) -> None:
    made = ring(5, loses=lambda device, message: device == NAMES[4] and isinstance(message, Shares))
    made.agree()
    label = next(message.group for _, message in made.heard if isinstance(message, Shares))
    ask = Unmask(1, 5, label, bitmap(survivors, 5))
    assert made.members[NAMES[0]].on_message(FOG, ask, 0.0) == []
    assert made.members[NAMES[0]].on_message("another-fog", replace(ask, survivors=bitmap([0, 1, 2, 3], 5)), 0.0) == []


def test_a_tampered_share_keeps_a_device_out() -> None:
    def altered(device: str, message: Message) -> Message:
        if device != NAMES[0] or not isinstance(message, Shares):
            return message
        box = bytearray(message.sealed[1])
        box[3] ^= 1
        return replace(message, sealed=(message.sealed[0], bytes(box), *message.sealed[2:]))

    made = ring(3)
    made.alters = altered
    made.agree()
    assert "altered" in (made.members[NAMES[0]].verdict((1, 5)) or "")
    assert made.members[NAMES[1]].verdict((1, 5)) == ""


def test_a_group_that_was_made_for_somebody_else_is_refused() -> None:
    made = ring(4, loses=lambda device, message: isinstance(message, Shares))
    made.agree()
    group = next(message for _, message in made.heard if isinstance(message, Group))
    for odd, why in (
        (replace(group, members=group.members[1:]), "without this device's keys"),
        (replace(group, members=(replace(group.members[0], mask=bytes(32)), *group.members[1:])), "without this device's keys"),
        (replace(group, members=group.members[:2], threshold=2), "tell too much"),
        (replace(group, threshold=1), "too few"),
    ):
        other = ring(4, loses=lambda device, message: isinstance(message, Group | NoGroup))
        other.agree()
        assert other.members[NAMES[0]].on_message(FOG, odd, 0.0) == []
        assert why in (other.members[NAMES[0]].verdict((1, 5)) or "")


def test_a_device_that_was_killed_before_its_shares_says_the_same_again() -> None:
    made = ring(3, loses=lambda device, message: device == NAMES[0] and isinstance(message, Shares))
    for device, member in made.members.items():
        made.from_device(device, member.begin(made.manifest, (), 0.0))
    made.from_fog(made.fog.look(0.0, NAMES[:3], 0))
    made.loses = lambda device, message: False
    made.from_device(NAMES[0], made.restart(NAMES[0]).begin(made.manifest, (), 1.0))
    made.from_fog(made.fog.look(1.0, NAMES[:3], 0))
    assert {device: made.members[device].verdict((1, 5)) for device in NAMES[:3]} == dict.fromkeys(NAMES[:3], "")


def test_what_is_lost_is_said_again() -> None:
    lost: set[tuple[str, type]] = set()

    def loses(device: str, message: Message) -> bool:
        first = (device, type(message)) not in lost
        lost.add((device, type(message)))
        return first

    made = ring(3, loses=loses)
    for device, member in made.members.items():
        made.from_device(device, member.begin(made.manifest, (), 0.0))
    for _ in range(20):
        made.now += 5.0
        for device, member in made.members.items():
            made.from_device(device, member.resend(made.now))
        made.from_fog(made.fog.look(made.now, NAMES[:3] if made.now < 60 else (), 0))
    assert all(made.members[device].verdict((1, 5)) == "" for device in NAMES[:3])
    frames = [masked for _, masked in updates(made, NAMES[:3]).values()]
    made.unmask(frames)
    assert not made.fog.solved
    made.now += 5.0
    made.from_fog(made.fog.look(made.now, (), 0))
    made.from_fog(made.fog.look(made.now + 5, (), 0))
    assert made.fog.solved


def test_what_comes_after_the_masks_are_coming_off_is_refused() -> None:
    made = ring(4)
    made.agree()
    sent = updates(made, NAMES[:4])
    made.unmask([masked for device, (_, masked) in sent.items() if device != NAMES[3]])
    late = sent[NAMES[3]][1]
    assert refusal(made, late) == GROUP_OVER
    made.fog.begin(replace(made.manifest, number=6))
    assert refusal(made, late) == GROUP_OVER
    made.fog.begin(replace(made.manifest, number=7, threshold=0))
    assert refusal(made, late) == UNASKED
    plain = sent[NAMES[3]][0]
    assert refusal(made, plain) == ""


def test_a_wrong_share_of_a_key_is_noticed() -> None:
    made = ring(4, loses=lambda device, message: isinstance(message, Revealed))
    made.agree()
    frames = [masked for device, (_, masked) in updates(made, NAMES[:4]).items() if device != NAMES[3]]
    made.unmask(frames)
    made.loses = lambda device, message: True
    for device in NAMES[:3]:
        asked = next(message for to, message in made.heard if isinstance(message, Unmask) and to == device)
        actions = made.members[device].on_message(FOG, asked, 0.0)
        revealed = actions[-1].frame.message  # type: ignore[union-attr]  # an Upload
        assert isinstance(revealed, Revealed)
        wrong = replace(revealed, shares=(*revealed.shares[:3], bytes(33)))
        made.fog.on_message(replace(frames[0], node=device, message=wrong), wrong, 0.0)
    assert not made.fog.solved
    assert NAMES[3] in made.fog.failed


@given(st.integers(3, 128), st.integers(51, 100))
def test_a_percentage_is_never_rounded_down(members: int, percent: int) -> None:
    """Two sums of one group need 2 t - n members that lie, which is what a threshold promises: of 5 at 67 % not 1, but 3."""
    least = needed(members, percent)
    assert 3 <= least <= members
    assert 2 * least > members
    assert 100 * least >= percent * members
    assert (needed(5, 67), needed(10, 67), needed(3, 51)) == (4, 7, 3)


def test_a_group_of_two_is_none() -> None:
    made = ring(2)
    made.agree()
    assert set(made.refused) == set(NAMES[:2])
    assert "a group of 2 devices" in made.refused[NAMES[0]]
    assert "a group of 2 devices" in made.fog.reason


def test_facts_say_what_became_of_groups() -> None:
    made = ring(3)
    assert made.fog.facts() == {"group": 0, "groups_unmasked": 0, "groups_given_up": 0}
    made.agree()
    frames = [masked for _, masked in updates(made, NAMES[:3]).values()]
    made.unmask(frames)
    assert made.fog.facts() == {"group": 3, "groups_unmasked": 1, "groups_given_up": 0}
    (fact,) = made.facts
    assert fact.values == {"outcome": "unmasked", "members": 3, "dropped": 0, "reason": ""}


def test_no_two_groups_have_a_key_of_one_seed() -> None:
    """Also where a release is begun with again: shares of its keys may have been given up for the first group."""
    made = ring(3)
    member = made.members[NAMES[0]]
    seeds = [_seed_of(member.begin(made.manifest, (), 0.0))]
    member.clear()
    seeds.append(_seed_of(member.begin(made.manifest, (), 0.0)))
    seeds.append(_seed_of(member.begin(replace(made.manifest, number=6), (), 0.0)))
    seeds.append(_seed_of(GroupMember(place(NAMES[0], 2), TASK, None, ()).begin(made.manifest, (), 0.0)))
    assert len(set(seeds)) == 4


def _seed_of(actions: Sequence[object]) -> bytes:
    return next(action.joined.seed for action in actions if isinstance(action, SaveJoined) and action.joined is not None)


@pytest.mark.parametrize("kind", ["mask", "cipher"])
def test_a_key_that_nobody_can_agree_with_is_left_out(kind: str) -> None:
    """One of small order makes X25519 fail."""
    made = hostile(kind)
    made.agree()
    assert "none that others can agree with" in made.refused[NAMES[3]]
    assert [made.members[device].verdict((1, 5)) for device in NAMES[:3]] == [""] * 3


@pytest.mark.parametrize("kind", ["mask", "cipher"])
def test_a_device_is_in_no_group_with_such_a_key(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "_are_keys", lambda said: True)
    made = hostile(kind)
    made.agree()
    assert [made.members[device].verdict((1, 5)) for device in NAMES[:3]] == [f"{NAMES[3]}: a public key of small order"] * 3


def hostile(kind: str) -> Ring:
    """Four devices, of which one says zeros for a key and does what else it has to."""
    made = ring(4)
    made.members[NAMES[3]]._unfit = lambda known, group: ""  # type: ignore[method-assign]
    hears = made.fog.on_message

    def on_message(frame: Frame, message: MaskKeys | Shares | Revealed, now: float) -> list[Action]:
        if frame.node == NAMES[3] and isinstance(message, MaskKeys):
            message = replace(message, mask=bytes(32)) if kind == "mask" else replace(message, cipher=bytes(32))
        return hears(frame, message, now)

    made.fog.on_message = on_message  # type: ignore[method-assign]
    return made


def test_whoever_seals_nonsense_is_named() -> None:
    made = ring(3)
    made.alters = lambda device, message: (
        replace(message, sealed=(b"", *message.sealed[1:2], bytes(82)))
        if isinstance(message, Shares) and device == NAMES[0]
        else message
    )
    made.agree()
    assert made.members[NAMES[0]].verdict((1, 5)) == f"{NAMES[2]}: a sealed share was altered"


@pytest.mark.parametrize(("net", "node"), [("other", NAMES[0]), (NET, "renamed")])
def test_a_device_begins_with_groups_of_another_net_or_name(net: str, node: str) -> None:
    made = ring(3)
    made.agree()
    moved = replace(place(NAMES[0], 2), net=net, node=node)
    member = GroupMember(moved, TASK, None, made.disks[NAMES[0]].values())
    assert member.verdict((1, 5))
    assert member.begin(replace(made.manifest, number=6), (), 0.0)[0] == SaveJoined(
        Joined(1, 6, FOG, member._rounds[1, 6].joined.seed), ((1, 5),)
    )


def test_a_device_takes_no_smaller_threshold_than_its_release_asks_for_in_any_life() -> None:
    made = ring(5, percent=100, loses=lambda device, message: device == NAMES[0] and isinstance(message, Group))
    made.agree()
    group = next(message for _, message in made.heard if isinstance(message, Group))
    again = made.restart(NAMES[0])
    assert again.on_message(FOG, replace(group, threshold=3), 0.0) == []  # the release is not heard yet
    again.begin(made.manifest, (), 0.0)
    assert again.on_message(FOG, replace(group, threshold=3), 0.0) == []
    assert "a threshold of 3" in (again.verdict((1, 5)) or "")

    raised = ring(5, percent=51)
    raised.agree()
    later = raised.restart(NAMES[0])
    later.begin(replace(raised.manifest, threshold=100), (), 0.0)
    assert "a threshold of 3" in (later.verdict((1, 5)) or "")


def test_a_device_whose_uplink_takes_no_message_of_a_group_is_in_none() -> None:
    made = ring(6)
    made.members[NAMES[0]] = GroupMember(place(NAMES[0]), TASK, None, (), 400)
    made.agree()
    assert "uplink.burst" in (made.members[NAMES[0]].verdict((1, 5)) or "")
    assert [made.members[device].verdict((1, 5)) for device in NAMES[1:6]] == [""] * 5


@pytest.mark.parametrize("first", [0, 20, 40])
def test_whatever_members_and_fog_node_say_nobody_fails_or_answers_twice(first: int) -> None:
    """Messages of both sides are damaged at random, as far as they can be read still; members begin other lives."""
    for seed in range(first, first + 20):
        rng = random.Random(seed)
        made, percent = ring(rng.randint(3, 6), percent=rng.choice([51, 67, 100])), rng.choice([0.02, 0.1, 0.3])
        hears = made.fog.on_message

        def on_message(frame: Frame, message: Part, now: float, hears: Hears = hears, rng: Any = rng, p: float = percent) -> Any:
            said = altered(rng, frame) if rng.random() < p else message
            return [action for _ in range(rng.choice([1, 1, 2])) for action in hears(frame, said, now)]

        def to_device(device: str, message: Message, rng: Any = rng, p: float = percent) -> Any:
            return altered(rng, Frame(TASK, FOG, 1, 0, message)) if rng.random() < p else message

        made.fog.on_message, made.alters = on_message, to_device  # type: ignore[method-assign]
        made.agree()
        sent = updates(made, [*made.members])
        frames = [masked for plain, masked in sent.values() if refusal(made, masked) == ""]
        for device in made.members:
            if rng.random() < 0.3:
                made.restart(device)
        if frames:
            made.unmask(frames)
        for _ in range(8):
            made.now += 5.0
            made.from_fog(made.fog.look(made.now, NAMES, 0))
        if made.fog.solved:
            made.fog.sum_of(made.codec, frames)
        made.from_fog(made.fog.end())
        answers = {(device, said.group, said.shares) for device, said in made.heard if isinstance(said, Revealed)}
        assert len(answers) == len({(device, group) for device, group, _ in answers})


def altered(rng: Any, frame: Frame) -> Any:
    """A message with something wrong that can be read still, or as it is where none was found."""
    for _ in range(30):
        try:
            said = unpack(damaged(rng, [pack(frame)])).message
        except WireError:
            continue
        if type(said) is type(frame.message) and said != frame.message:
            return said
    return frame.message
