"""What a hostile peer may send: unpack raises WireError and nothing else, and takes little memory for it."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemw.core.errors import WireError
from edgemw.wire.decode import MAX_DEPTH, MAX_ITEMS, MAX_TEXT_BYTES, MAX_VALUES, decode
from edgemw.wire.messages import KINDS, Ack, Blob, Chunk, Frame, Grant, Offer, Update, pack, unpack
from tests.unit.test_wire_kinds import STRATEGIES, frames, patient

REASONS = {"size", "msgpack", "envelope", "version", "kind", "value"}
ACK = [1, 6, "task", "node", 1, 2, [3, 4, []]]
SHA = bytes(32)


def refusal(data: bytes) -> str:
    """The reason why a frame is refused; it is one of a few words."""
    with pytest.raises(WireError) as caught:
        unpack(data)
    assert caught.value.reason in REASONS
    assert len(str(caught.value)) < 200
    return caught.value.reason


def refusal_of(*envelope: Any) -> str:
    """The same for a frame of these places."""
    return refusal(msgpack.packb(envelope))


def unpacks_or_refuses(data: bytes) -> None:
    """Whatever is accepted is a frame, and can be said again."""
    frame, reason = None, ""
    try:
        frame = unpack(data)
    except WireError as error:
        reason = error.reason
    assert (reason in REASONS) == (frame is None)
    assert frame is None or unpack(pack(frame)) == frame


# -- any bytes


@patient
@given(st.binary(max_size=300))
def test_random_bytes(data: bytes) -> None:
    unpacks_or_refuses(data)


@patient
@given(frames)
def test_every_proper_prefix_is_refused(frame: Frame) -> None:
    data = pack(frame)
    for length in {*range(min(len(data), 120)), *range(max(0, len(data) - 20), len(data))}:
        assert refusal(data[:length]) == "msgpack"


@settings(patient, max_examples=300)
@given(frames, st.data())
def test_mutated_frames(frame: Frame, data: st.DataObject) -> None:
    mutated = bytearray(pack(frame))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(mutated) - 1))
        mutated[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    unpacks_or_refuses(bytes(mutated))


junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=11) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=25,
)


@patient
@given(st.integers(0, 20), junk)
def test_bodies_of_any_shape(kind: int, body: Any) -> None:
    unpacks_or_refuses(msgpack.packb([1, kind, "task", "node", 1, 2, body]))


@settings(patient, max_examples=300)
@given(st.sampled_from(KINDS), st.data())
def test_one_place_of_another_type(kind: Any, data: st.DataObject) -> None:
    envelope = list(msgpack.unpackb(pack(Frame("task", "node", 1, 2, data.draw(STRATEGIES[kind.body.cls])))))
    target = envelope
    while True:
        index = data.draw(st.integers(0, len(target) - 1)) if target else None
        if index is None or not isinstance(target[index], list) or data.draw(st.booleans()):
            break
        target = target[index]
    if index is not None:
        target[index] = data.draw(junk)
    unpacks_or_refuses(msgpack.packb(envelope))


# -- the envelope


def test_the_frame_that_the_others_differ_from_is_accepted() -> None:
    assert unpack(msgpack.packb(ACK)) == Frame("task", "node", 1, 2, Ack(3, 4))


@pytest.mark.parametrize("envelope", [7, "frame", b"frame", None, {}, [], ACK[:6], {"version": 1}])
def test_no_envelope(envelope: Any) -> None:
    assert refusal(msgpack.packb(envelope)) == "envelope"


@pytest.mark.parametrize("version", [0, 2, -1, True, 1.0, "1", None, [1], {"a": 1}, (1 << 64) - 1])
def test_another_version(version: Any) -> None:
    assert refusal_of(version, *ACK[1:]) == "version"


@pytest.mark.parametrize("kind", [0, 20, -1, True, 6.0, "6", None, [6], {"a": 1}])
def test_an_unknown_kind(kind: Any) -> None:
    assert refusal_of(1, kind, *ACK[2:]) == "kind"


@pytest.mark.parametrize("node", ["", "all", "Node", "a/b", "+", "#", "a" * 41, "node\n", "é", 5, None, b"node", ["node"]])
def test_a_name_that_no_node_may_have(node: Any) -> None:
    assert refusal_of(1, 6, "task", node, 1, 2, [3, 4]) == "value"


@pytest.mark.parametrize("task", ["Task", "a/b", "+", "a" * 41, 5, None, b"task"])
def test_a_name_that_no_task_may_have(task: Any) -> None:
    assert refusal_of(1, 6, task, "node", 1, 2, [3, 4]) == "value"


@pytest.mark.parametrize("number", [-1, 1 << 63, (1 << 64) - 1, True, 1.0, "1", None, [1]])
def test_integers_out_of_range(number: Any) -> None:
    for place in (4, 5):
        assert refusal_of(*ACK[:place], number, *ACK[place + 1 :]) == "value"
    assert refusal_of(*ACK[:6], [number, 4, []]) == "value"


def test_a_frame_above_the_limit_is_not_even_parsed() -> None:
    data = pack(Frame("task", "node", 1, 2, Ack(3, 4)))
    assert unpack(data, len(data)).message == Ack(3, 4)
    with pytest.raises(WireError, match="size"):
        unpack(data, len(data) - 1)


# -- MessagePack


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",  # the byte that is never used
        msgpack.packb(ACK) + b"\xc0",
        msgpack.packb(ACK) + msgpack.packb(ACK),
        b"\xdd\xff\xff\xff\xff",  # array, map, text and bytes that promise 4 GiB
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xa2\xff\xfe",  # not UTF-8
        b"\xa3\xed\xa0\x80",  # a surrogate in UTF-8
        b"\x82\xa1a\x01\xa1a\x02",  # a key twice
        b"\x81\x01\x02",  # keys that are not text
        b"\x81\xc4\x01a\x02",
        b"\x81\x90\x02",
        b"\x81\xc0\x02",
        b"\xc7\x00\x05",  # extension types: empty, fixed, a time
        b"\xd4\x05\x00",
        b"\xd6\xff\x00\x00\x00\x01",
        b"{" * 50,
        b'{"json": true}',
        b"\x80\x02]q\x00.",  # a pickle
    ],
    ids=lambda data: data[:8].hex() or "empty",
)
def test_what_is_not_the_messagepack_that_is_spoken_here(data: bytes) -> None:
    assert refusal(data) in {"msgpack", "envelope"}


@pytest.mark.parametrize(
    "inside", [b"\xc7\x00\x05", b"\xd4\x05\x00", b"\x82\xa1a\x01\xa1a\x02", b"\xa2\xff\xfe", b"\x81\x01\x02"]
)
def test_the_same_inside_a_body(inside: bytes) -> None:
    prefix = b"\x97" + b"".join(msgpack.packb(place) for place in ACK[:6])
    assert refusal(prefix + b"\x93\x03\x04" + inside) == "msgpack"


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 100, 511, 512, 1000, 1023, 1024, 1025, 100_000, 1_000_000])
@pytest.mark.parametrize("level", [b"\x91", b"\x81\xa1a"])
def test_a_nested_bomb(depth: int, level: bytes) -> None:
    bomb = level * depth + b"\xc0"
    assert refusal(bomb) == "msgpack"
    prefix = b"".join(msgpack.packb(place) for place in ACK[:6])
    assert refusal(b"\x97" + prefix + b"\x93\x03\x04" + bomb) == "msgpack"  # in a place that readers ignore
    assert refusal(b"\x97" + bomb + prefix) == "msgpack"  # in the place of the version
    assert refusal(b"\x98" + prefix + b"\x92\x03\x04" + bomb) == "msgpack"


def test_depth_items_values_and_text_up_to_the_limits_are_read() -> None:
    nested: Any = None
    for _ in range(MAX_DEPTH):
        nested = [nested]
    assert decode(msgpack.packb(nested)) is not None
    assert len(decode(msgpack.packb([0] * MAX_ITEMS))) == MAX_ITEMS
    assert len(decode(msgpack.packb("x" * MAX_TEXT_BYTES))) == MAX_TEXT_BYTES
    assert len(decode(msgpack.packb([[0] * 1022] * 3 + [[0] * 1021]))) == 4
    excesses: list[Any] = [[0] * (MAX_ITEMS + 1), "x" * (MAX_TEXT_BYTES + 1), [[0] * 1022] * 4 + [0]]
    for too_much in excesses:
        with pytest.raises(WireError):
            decode(msgpack.packb(too_much))
    with pytest.raises(WireError, match="4096"):
        decode(msgpack.packb([[0] * 1000] * 5))
    with pytest.raises(WireError, match=str(MAX_VALUES)):
        decode(msgpack.packb([{str(key): 0 for key in range(1000)}] * 3))


def bombs() -> dict[str, bytes]:
    """About a MiB each, written to be as large as possible in memory."""
    wide = b"\xdc" + struct.pack(">H", MAX_ITEMS)
    return {
        "empty maps": (wide + b"\x80" * MAX_ITEMS) * 1000,
        "nested maps": (wide + b"\x80" * (MAX_ITEMS - 1)) * 1000,
        "nested texts": (wide + b"\xa2ab" * (MAX_ITEMS - 1)) * 340,
        "nested tuples": (wide + b"\x91\xc0" * (MAX_ITEMS - 1)) * 500,
        "nested promises": wide * 340_000,
        "map of maps": b"\xde\x04\x00" + b"".join(b"\xa3%03x\x80" % n for n in range(MAX_ITEMS)),
    }


@pytest.mark.parametrize("name", bombs())
def test_a_message_of_a_mebibyte_takes_little_memory(name: str) -> None:
    data = bombs()[name]
    tracemalloc.start()
    try:
        assert refusal(data) in {"msgpack", "envelope"}
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 32 << 20


# -- values


def _update(**places: Any) -> list[Any]:
    names = ["run", "codec", "size", "sections", "tally", "report_on"]
    defaults: dict[str, Any] = dict(zip(names, [1, "lattice", 10, [[0, 1, 1, 0.5, b"x", b""]], [], -1], strict=True))
    return [1, 2, "task", "node", 1, 2, list((defaults | places).values())]


def test_the_update_that_the_others_differ_from_is_accepted() -> None:
    assert isinstance(unpack(msgpack.packb(_update())).message, Update)


@pytest.mark.parametrize(
    "places",
    [
        {"size": 0},
        {"size": (1 << 31) + 1},
        {"codec": "x" * 81},
        {"codec": "line\nbreak"},
        {"codec": "\x1b[2J"},
        {"report_on": -2},
        {"sections": {}},
        {"sections": [[0, 1, 1, 0.5]]},
        {"sections": ["abcde"]},
        {"sections": [[0, 0, 1, 0.5, b""]]},  # no weight
        {"sections": [[0, 1, 0, 0.5, b""]]},  # no update
        {"sections": [[0, 1, 1, -0.5, b""]]},
        {"sections": [[0, 1, 1, float("nan"), b""]]},
        {"sections": [[0, 1, 1, float("inf"), b""]]},
        {"sections": [[0, 1, 1, 0.5, "text"]]},
        {"sections": [[1, 1, 1, 0.5, b""], [0, 1, 1, 0.5, b""]]},  # not in order
        {"sections": [[1, 1, 1, 0.5, b""], [1, 1, 1, 0.5, b""]]},  # twice
        {"sections": [[n, 1, 1, 0.5, b""] for n in range(257)]},
        {"tally": {}},
        {"tally": ["loss"]},
        {"tally": [["loss", 1.0]]},
        {"tally": [{"0": "loss", "1": 1.0, "2": 1.0}]},
        {"tally": ["abc"]},
        {"tally": [["loss", float("nan"), 1.0]]},
        {"tally": [["loss", 1.0, float("-inf")]]},
        {"tally": [["loss", True, 1.0]]},
        {"tally": [["line\n", 1.0, 1.0]]},
        {"tally": [[-1, 1.0, 1.0]]},
        {"tally": [[9, 1.0, 1.0]]},
        {"tally": [[True, 1.0, 1.0]]},
        {"tally": [["uplink", 1.0, 1.0], [0, 1.0, 1.0]]},
        {"tally": [[str(n), 1.0, 1.0] for n in range(65)]},
    ],
    ids=str,
)
def test_updates_out_of_range(places: dict[str, Any]) -> None:
    assert refusal(msgpack.packb(_update(**places))) == "value"


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (3, [[SHA, 0, 1024]]),  # no byte
        (3, [[SHA, 1, 0]]),
        (3, [[SHA, 1, 1023]]),  # chunks so small that counting them is the attack
        (3, [[SHA, 1, (1 << 20) + 1]]),
        (3, [[SHA, (1 << 26) + 1, 1024]]),  # more than 65536 chunks
        (3, [[SHA, (1 << 32) + 1, 1 << 20]]),
        (3, [[SHA[:31], 1, 1024]]),
        (3, [SHA, 1, 1024]),
        (3, ["abc"]),
        (3, [{"a": 1}]),
        (4, [SHA, bytes(8193)]),
        (4, [SHA, "text"]),
        (5, [SHA, 65536, b""]),
        (5, [SHA, 0, bytes((1 << 20) + 1)]),
        (5, [SHA, 0, "text"]),
        (6, {"boot": 1}),
        (7, [1, 2, 1, 0, ""]),  # 1 is not true
        (7, [1, 2, True, -2, ""]),
        (7, [1, 2, True, 0, "x" * 201]),
        (1, ["online", "device", "all"]),
        (1, ["online", "device", "Fog"]),
        (11, ["fog", "", "x", "", {"a": None}]),
        (11, ["fog", "", "x", "", {"a": True}]),
        (11, ["fog", "", "x", "", {"a": float("nan")}]),
        (11, ["fog", "", "x", "", {"a": 1 << 63}]),
        (11, ["fog", "", "x", "", {"a": b"x"}]),
        (11, ["fog", "", "x", "", {str(n): 1 for n in range(257)}]),
        (12, [1, False, {}, ["all"]]),
        (12, [1, False, {}, ["n"] * 257]),
        (12, [1, False, {}, "abc"]),
    ],
    ids=str,
)
def test_bodies_out_of_range(kind: int, body: Any) -> None:
    assert refusal_of(1, kind, "task", "node", 1, 2, body) == "value"


@pytest.mark.parametrize("message", [Grant(SHA, b"\x01"), Chunk(SHA, 3, b"data"), Offer(Blob(SHA, 1, 1024))])
def test_huge_text_where_bytes_are_expected(message: Any) -> None:
    envelope = list(msgpack.unpackb(pack(Frame("task", "node", 1, 2, message))))
    envelope[6] = ["x" * 100_000] * len(envelope[6])
    assert refusal(msgpack.packb(envelope)) == "msgpack"


@pytest.mark.parametrize("make", [lambda: bytes(1 << 20), lambda: b"\x97" * 1000], ids=["zeros", "arrays"])
def test_foreign_data(make: Callable[[], bytes]) -> None:
    assert refusal(make()) in {"msgpack", "envelope"}
