"""Streams: what sensors publish becomes windows, and windows become predictions."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemw.app.streams import discovery_of, load_streams, streams_of
from edgemw.core.bundle import Manifest, Spec
from edgemw.core.errors import ConfigError
from edgemw.serving.slot import Served, Slot
from edgemw.serving.stream import MAX_PAYLOAD_BYTES, MAX_TOPICS, Stream, StreamSpec, as_input


def manifest_of(shape: tuple[int, ...], classes: int | None = None, outputs: int = 1) -> Manifest:
    output = Spec((outputs,), "float32")
    return Manifest("toy", (), Spec(shape, "float32"), output, output, "mse", (), classes=classes)


def slot_of(predict: Callable[[Any], Any], shape: tuple[int, ...], **more: Any) -> dict[str, Slot]:
    slot = Slot()
    slot.install(Served(predict, "toy", 3, manifest_of(shape, **more)))
    return {"toy": slot}


def spec(**changes: Any) -> StreamSpec:
    given: dict[str, Any] = {"name": "s", "task": "toy", "source": "a/+", "fields": ("t", "h"), "window": 3, "every": 1}
    return StreamSpec(**given | {"target": "p/{topic}"} | changes)


def total(x: Any) -> Any:
    """Of all that is in a sample, and its first value."""
    return np.stack([x.reshape(len(x), -1).sum(axis=1), x.reshape(len(x), -1)[:, 0]], axis=1).astype(np.float32)


def sample(t: object, h: object = 0) -> bytes:
    return json.dumps({"t": t, "h": h, "state": "ON", "linkquality": 90}).encode()


def test_a_prediction_is_made_of_the_last_rows_of_a_topic() -> None:
    stream = Stream(spec(), slot_of(total, (3, 2), outputs=2))
    said = [stream.take("a/x", sample(n, 10 * n)) for n in range(1, 5)]
    assert said[:2] == [None, None]
    for number, published in enumerate(said[2:], start=1):
        assert published is not None
        rows = range(number, number + 3)
        assert published[0] == "p/a/x"
        outputs = [11.0 * sum(rows), float(number)]
        assert json.loads(published[1]) == {"task": "toy", "release": 3, "sample": number + 2, "outputs": outputs}
    assert stream.take("a/y", sample(1)) is None  # another sensor, another window
    assert (stream.rows, stream.left_out, stream.predictions) == (5, 0, 2)


def test_so_many_rows_lie_between_two_predictions() -> None:
    stream = Stream(spec(window=2, every=3), slot_of(total, (2, 2), outputs=2))
    made = [stream.take("a/x", sample(n)) is not None for n in range(9)]
    assert made == [False, False, True] * 3


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((3, 2), [[1, 2], [3, 4], [5, 6]]),
        ((2, 3), [[1, 3, 5], [2, 4, 6]]),
        ((6,), [1, 2, 3, 4, 5, 6]),
        ((3,), None),
        ((6, 1), None),
    ],
)
def test_rows_take_the_shape_of_the_input(shape: tuple[int, ...], expected: object) -> None:
    x = as_input(np.array([[1, 2], [3, 4], [5, 6]]), manifest_of(shape))
    assert (None if x is None else x.tolist()) == expected


def test_one_number_is_an_input_of_any_shape_of_one() -> None:
    assert as_input(np.array([[7.0]]), manifest_of(())).tolist() == 7.0
    assert as_input(np.array([[7.0]]), manifest_of((1, 1, 1))).tolist() == [[[7.0]]]


@pytest.mark.parametrize(
    ("fields", "payload", "expected"),
    [
        (("AM2301.Temperature",), {"Time": "2026-01-01", "AM2301": {"Temperature": 21.5}}, 21.5),
        (("values.1",), {"values": [1, 2.5]}, 2.5),
        (("state",), {"state": "ON"}, 1.0),
        (("contact",), {"contact": False}, 0.0),
        (("0",), [4], 4.0),
    ],
)
def test_fields_are_picked_by_path(fields: tuple[str, ...], payload: object, expected: float) -> None:
    stream = Stream(spec(fields=fields, window=1), slot_of(total, (1,), outputs=2))
    said = stream.take("a/x", json.dumps(payload).encode())
    assert said is not None
    assert json.loads(said[1])["outputs"][0] == expected


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"no",
        b"{}",
        b"[" * 50_000,
        b"\xff",
        b'{"t": 1}',
        sample("warm"),
        sample(None),
        sample([1]),
        b'{"t": NaN, "h": 1}',
        b'{"t": 1e999, "h": 1}',
        sample(1e39),
        b" " * (MAX_PAYLOAD_BYTES + 1),
    ],
)
def test_what_is_no_row_is_left_out_and_said_once(payload: bytes, caplog: pytest.LogCaptureFixture) -> None:
    stream = Stream(spec(), slot_of(total, (3, 2), outputs=2))
    with caplog.at_level(logging.WARNING):
        for data in (sample(1), sample(2), payload, payload, payload):
            assert stream.take("a/x", data) is None
    assert stream.take("a/x", sample(3)) is not None
    assert (stream.rows, stream.left_out) == (3, 3)
    assert len(caplog.records) == 1


@settings(max_examples=200, deadline=None)
@given(
    payload=st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda part: st.lists(part) | st.dictionaries(st.sampled_from(["t", "h", "x"]), part),
    ).map(lambda document: json.dumps(document).encode())
)
def test_no_payload_does_harm(payload: bytes) -> None:
    stream = Stream(spec(window=1), slot_of(total, (2,), outputs=2))
    said = stream.take("a/x", payload)
    assert (stream.rows, stream.left_out) in ((1, 0), (0, 1))
    assert said is None or np.isfinite(json.loads(said[1])["outputs"]).all()


def test_topics_are_bounded_and_the_one_that_rested_longest_goes() -> None:
    stream = Stream(spec(window=2), slot_of(total, (2, 2), outputs=2))
    for n in range(MAX_TOPICS):
        assert stream.take(f"a/{n}", b"not json") is None  # which takes no place
        assert stream.take(f"a/{n}", sample(1)) is None
    assert stream.take("a/0", sample(1)) is not None
    assert stream.take("a/new", sample(1)) is None
    assert stream.take("a/0", sample(1)) is not None
    assert stream.take("a/1", sample(1)) is None  # its first row is gone


def test_long_windows_leave_room_for_fewer_topics() -> None:
    stream = Stream(spec(window=100_000, fields=("t",) * 20), slot_of(total, (2, 2), outputs=2))
    payload = sample(1)
    for n in range(5):
        stream.take(f"a/{n}", payload)
    assert len(stream._windows) == 2


def test_why_there_is_no_prediction_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    slots: dict[str, Slot] = {}
    stream = Stream(spec(window=2), slots)
    with caplog.at_level(logging.ERROR):
        for n in range(5):
            assert stream.take("a/x", sample(n)) is None
        slots |= slot_of(total, (3, 2), outputs=2)
        for n in range(5):
            assert stream.take("a/x", sample(n)) is None
        slots |= slot_of(lambda x: np.full((len(x), 2), np.nan, np.float32), (2, 2), outputs=2)
        assert stream.take("a/x", sample(1)) is None
    assert [record.getMessage() for record in caplog.records] == [
        "no prediction: there is no release of toy yet",
        "no prediction: 2 rows of 2 fields do not make the input of toy, which is [3, 2]",
        "no prediction: release 3 gives NaN or infinite outputs",
    ]
    slots |= slot_of(total, (2, 2), outputs=2)
    assert stream.take("a/x", sample(1)) is not None


def test_what_keeps_a_stream_from_predicting_is_known_before_its_window_is_full() -> None:
    slots = {"other": slot_of(total, (2, 2), outputs=2)["toy"], "empty": Slot()}
    stream = Stream(spec(window=2), slots)
    assert stream.fault == "there is no release of toy yet; the store has other"
    slots |= slot_of(total, (3, 2), outputs=2)
    assert stream.fault == "2 rows of 2 fields do not make the input of toy, which is [3, 2]"
    slots |= slot_of(total, (2, 2), outputs=2)
    assert stream.fault == ""


def test_a_classifier_names_its_class() -> None:
    stream = Stream(spec(window=1), slot_of(total, (2,), classes=2, outputs=2))
    said = stream.take("a/x", sample(1, 1))
    assert said is not None
    assert json.loads(said[1]) == {"task": "toy", "release": 3, "sample": 1, "outputs": [2.0, 1.0], "class": 0, "score": 0.731059}


# ---- the file

GOOD = """
[[stream]]
name = "kitchen"
task = "toy"
source = "zigbee2mqtt/kitchen"
fields = ["t", "h"]
window = 3
target = "edgemw/kitchen"
home_assistant = "homeassistant"
"""


OTHER = """
[[stream]]
name = "other"
task = "toy"
source = "x/y"
fields = ["t"]
target = "p/{topic}"
"""


@pytest.mark.parametrize("source", ["+/temp", "home/+/temp", "home/#"])
def test_a_target_must_not_be_what_the_source_matches(tmp_path: Path, source: str) -> None:
    with pytest.raises(ConfigError, match="reads as samples"):
        loaded(tmp_path, OTHER.replace("x/y", source).replace("p/{topic}", "{topic}"))


def loaded(tmp_path: Path, text: str) -> Any:
    path = tmp_path / "streams.toml"
    path.write_text(text)
    return load_streams(path)


def test_the_file_makes_streams_and_sensors_of_home_assistant(tmp_path: Path) -> None:
    (table,) = loaded(tmp_path, GOOD)
    (stream,) = streams_of([table], slot_of(total, (3, 2), outputs=2))
    assert (stream.spec.fields, stream.spec.window, stream.spec.every) == (("t", "h"), 3, 1)
    said = discovery_of(table, "device-0")
    assert said is not None
    assert said[0] == "homeassistant/sensor/edgemw_device_0_kitchen/config"
    config = json.loads(said[1])
    assert (config["state_topic"], config["unique_id"]) == ("edgemw/kitchen", "edgemw_device_0_kitchen")
    (silent,) = loaded(tmp_path, GOOD.replace('home_assistant = "homeassistant"', ""))
    assert discovery_of(silent, "device-0") is None


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"zigbee2mqtt/kitchen"', '"zigbee2mqtt/#/x"', "stream.0.source: is no topic filter"),
        ('"zigbee2mqtt/kitchen"', '"zigbee2mqtt/+"', "{topic}"),
        ('"edgemw/kitchen"', '"zigbee2mqtt/kitchen"', "reads as samples"),
        ('"edgemw/kitchen"', '"a/#"', "stream.0.target: is no topic"),
        ('"edgemw/kitchen"', '"edgemw/{topics}"', "stream.0.target: has braces that are not {topic}"),
        ('["t", "h"]', "[]", "fields"),
        ('["t", "h"]', '["t..h"]', "fields"),
        ("window = 3", "window = 0", "window"),
        ('"kitchen"', '"Kitchen"', "name"),
        ("window = 3", "windows = 3", "window"),
        ("[[stream]]", GOOD + "[[stream]]", "two streams are called 'kitchen'"),
        ("[[stream]]", OTHER.replace("x/y", "zigbee2mqtt/+") + "[[stream]]", "match the same topics"),
        ("[[stream]]", OTHER.replace("p/{topic}", "zigbee2mqtt/kitchen") + "[[stream]]", "is a topic that kitchen reads"),
        ('"zigbee2mqtt/kitchen"', '"em1/n/s/pq/a/b"', "questions of edgemw"),
        ('"zigbee2mqtt/kitchen"', '"$share/g/a"', "shared"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        loaded(tmp_path, GOOD.replace(old, new, 1))
    assert said in str(refused.value)
    assert "streams.toml" in str(refused.value)


def test_wildcards_and_home_assistant_do_not_go_together(tmp_path: Path) -> None:
    text = GOOD.replace("zigbee2mqtt/kitchen", "zigbee2mqtt/+").replace("edgemw/kitchen", "edgemw/{topic}")
    with pytest.raises(ConfigError, match="home_assistant"):
        loaded(tmp_path, text)
    assert loaded(tmp_path, text.replace('home_assistant = "homeassistant"', ""))
