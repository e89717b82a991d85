"""docs/asyncapi.yaml is what the topic and message tables say, and it holds together."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemw.wire import asyncapi
from edgemw.wire.messages import KINDS, pack
from edgemw.wire.topics import CHANNELS
from tests.unit.test_wire_golden import GOLDEN
from tests.unit.test_wire_kinds import frames, patient

yaml = importlib.import_module("yaml")  # it comes without types
FILE = Path(__file__).parents[2] / "docs" / "asyncapi.yaml"
DOCUMENT: dict[str, Any] = yaml.safe_load(FILE.read_text())


def test_the_file_is_what_the_generator_writes() -> None:
    written = subprocess.run([sys.executable, "-m", "edgemw.wire.asyncapi"], capture_output=True, check=True, cwd=FILE.parents[1])
    assert written.stdout == FILE.read_bytes()
    assert written.stderr == b""


def test_the_yaml_says_what_the_generator_means() -> None:
    assert asyncapi.document() == DOCUMENT


texts = st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]), max_size=8)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | texts | st.floats(allow_nan=False, allow_infinity=False, width=16),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@patient
@given(st.dictionaries(st.sampled_from(["a", "$ref", "on", "no", "0.2", "a b", "é"]), plain, max_size=4))
def test_the_yaml_writer_is_read_back_unchanged(value: dict[str, Any]) -> None:
    assert yaml.safe_load(asyncapi.yaml_of(value)) == value


def references(value: Any) -> Iterator[str]:
    """Every $ref in a document."""
    if isinstance(value, dict):
        for name, item in value.items():
            if name == "$ref":
                yield item
            else:
                yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def resolve(reference: str) -> Any:
    """What a reference points to."""
    assert reference.startswith("#/")
    target: Any = DOCUMENT
    for name in reference[2:].split("/"):
        target = target[name]
    return target


def test_every_reference_resolves() -> None:
    assert len(list(references(DOCUMENT))) > 50
    for reference in references(DOCUMENT):
        assert resolve(reference)


def test_the_required_parts_are_there() -> None:
    assert DOCUMENT["asyncapi"] == "3.0.0"
    assert DOCUMENT["info"]["title"]
    assert DOCUMENT["info"]["version"]
    for server in DOCUMENT["servers"].values():
        assert server["host"]
        assert server["protocol"] in ("mqtt", "mqtts")
    for name, operation in DOCUMENT["operations"].items():
        assert operation["action"] in ("send", "receive")
        assert name.startswith(operation["action"])
        assert operation["bindings"]["mqtt"]["qos"] == 1
        channel = resolve(operation["channel"]["$ref"])
        assert {reference["$ref"].rpartition("/")[2] for reference in operation["messages"]} == set(channel["messages"])


def test_channels_are_those_of_the_topic_table() -> None:
    assert set(DOCUMENT["channels"]) == {channel.name for channel in CHANNELS}
    for channel in CHANNELS:
        entry = DOCUMENT["channels"][channel.name]
        assert entry["address"] == f"em1/{{net}}/{{domain}}/{channel.pattern}"
        assert set(entry["parameters"]) == set(re.findall(r"\{(\w+)\}", entry["address"]))
        assert tuple(entry["messages"]) == channel.carries
        assert DOCUMENT["operations"][f"send{channel.name.capitalize()}"]["bindings"]["mqtt"]["retain"] is channel.retained


def test_messages_are_those_of_the_message_table() -> None:
    assert set(DOCUMENT["components"]["messages"]) == {kind.name for kind in KINDS}
    for message in DOCUMENT["components"]["messages"].values():
        assert message["summary"].endswith(".")
        jsonschema.Draft7Validator.check_schema(message["payload"])


def as_json(value: Any) -> Any:
    """MessagePack as the schemas describe it: bytes are text of the same length."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, list):
        return [as_json(item) for item in value]
    return value


def validator(kind: str) -> Any:
    return jsonschema.Draft7Validator(DOCUMENT["components"]["messages"][kind]["payload"])


@pytest.mark.parametrize("entry", GOLDEN, ids=lambda entry: str(entry["kind"]))
def test_golden_frames_are_valid_by_their_own_schema_only(entry: dict[str, Any]) -> None:
    envelope = as_json(msgpack.unpackb(bytes.fromhex(entry["hex"])))
    assert [kind.name for kind in KINDS if validator(kind.name).is_valid(envelope)] == [entry["kind"]]


@patient
@given(frames)
def test_any_frame_is_valid_by_its_schema(frame: Any) -> None:
    validator(type(frame.message).__name__).validate(as_json(msgpack.unpackb(pack(frame))))
