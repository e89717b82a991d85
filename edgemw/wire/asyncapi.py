"""docs/asyncapi.yaml: the topic table and the message table as AsyncAPI 3.0 with MQTT bindings.

    python -m edgemw.wire.asyncapi > docs/asyncapi.yaml

Every channel of `topics.CHANNELS` becomes one channel with two operations, what its writer sends and what its reader
receives; every kind of `messages.KINDS` becomes one message whose payload is the whole frame as a JSON schema. MessagePack
has bytes and JSON has not: bytes are described as text of the same length.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

from edgemw.wire.fields import NATURAL, NODE, SIGNATURE, TASK
from edgemw.wire.messages import KINDS, MAX_MESSAGE_BYTES, VERSION, Kind
from edgemw.wire.topics import CHANNELS, Channel

PARAMETERS = {
    "net": "Name of the federation.",
    "domain": "Id of the fog node that owns the domain.",
    "node": "Id of a node; never `all`.",
    "task": "Name of a task.",
    "fog": "Id of the fog node that granted the transfer: the owner of the domain.",
    "transfer": "First 16 bytes of the sha256 of the packed update, in hex.",
    "digest": "First 16 bytes of the sha256 of the blob, in hex.",
    "index": "Number of the chunk, in decimal.",
    "asker": "Name of whoever asked: a node, or a console.",
}
_PLAIN = re.compile(r"[A-Za-z$][\w$-]*\Z")
_TRUTH = {"y", "n", "on", "off", "yes", "no", "true", "false", "null"}  # YAML 1.1 reads more into these than text
_MQTT = "0.2.0"


def document() -> dict[str, Any]:
    """The AsyncAPI document as plain values."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "edgemw",
            "version": f"{VERSION}.0.0",
            "description": "Messages between devices and fog nodes; docs/wire-format.md explains them.",
        },
        "defaultContentType": "application/msgpack",
        "servers": {"broker": _server("mqtt"), "secure": _server("mqtts")},
        "channels": {channel.name: _channel(channel) for channel in CHANNELS},
        "operations": {name: operation for channel in CHANNELS for name, operation in _operations(channel).items()},
        "components": {
            "messages": {kind.name: _message(kind) for kind in KINDS},
            "parameters": {name: {"description": about} for name, about in PARAMETERS.items()},
        },
    }


def _server(protocol: str) -> dict[str, Any]:
    return {
        "host": "localhost:1883" if protocol == "mqtt" else "localhost:8883",
        "protocol": protocol,
        "protocolVersion": "5",
        "description": "Any MQTT 3.1.1 or 5 broker with QoS 1 and retained messages.",
        "bindings": {"mqtt": {"cleanSession": False, "maximumPacketSize": MAX_MESSAGE_BYTES, "bindingVersion": _MQTT}},
    }


def _channel(channel: Channel) -> dict[str, Any]:
    return {
        "address": f"em1/{{net}}/{{domain}}/{channel.pattern}",
        "title": channel.name,
        "description": channel.about,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in channel.carries},
        "parameters": {name: {"$ref": f"#/components/parameters/{name}"} for name in ("net", "domain", *channel.places)},
    }


def _operations(channel: Channel) -> dict[str, dict[str, Any]]:
    title = channel.name.capitalize()
    return {
        f"send{title}": _operation(channel, "send", f"Published by: {channel.writer}."),
        f"receive{title}": _operation(channel, "receive", f"Subscribed to by: {channel.reader}."),
    }


def _operation(channel: Channel, action: str, summary: str) -> dict[str, Any]:
    binding: dict[str, Any] = {"qos": 1, "bindingVersion": _MQTT}
    if action == "send":
        binding["retain"] = channel.retained
    return {
        "action": action,
        "summary": summary,
        "channel": {"$ref": f"#/channels/{channel.name}"},
        "messages": [{"$ref": f"#/channels/{channel.name}/messages/{name}"} for name in channel.carries],
        "bindings": {"mqtt": binding},
    }


def _message(kind: Kind) -> dict[str, Any]:
    summary = (kind.body.cls.__doc__ or "").partition("\n")[0]
    envelope = [
        {"title": "version", "const": VERSION},
        {"title": "kind", "const": kind.number},
        {"title": "task", **TASK.schema},
        {"title": "node", **NODE.schema},
        {"title": "boot", **NATURAL.schema},
        {"title": "seq", **NATURAL.schema},
        {"title": "body", **kind.body.schema},
        {"title": "signature", **SIGNATURE.schema},
    ]
    return {
        "name": kind.name,
        "title": kind.name,
        "summary": summary,
        "contentType": "application/msgpack",
        "payload": {"type": "array", "items": envelope, "minItems": len(envelope) - 1},
        "bindings": {"mqtt": {"contentType": "application/msgpack", "bindingVersion": _MQTT}},
    }


def yaml_of(value: Any, indent: int = 0) -> str:
    """Block-style YAML of plain values; texts (of 16-bit characters) are quoted as in JSON."""
    pad = " " * indent
    if isinstance(value, dict) and value:
        return "".join(f"{pad}{_key(key)}:{_nested(item, indent + 2)}" for key, item in value.items())
    if isinstance(value, list) and value:
        return "".join(f"{pad}- {yaml_of(item, indent + 2).lstrip(' ')}" for item in value)
    return f"{pad}{json.dumps(value)}\n"


def _nested(value: Any, indent: int) -> str:
    if isinstance(value, dict | list) and value:
        return "\n" + yaml_of(value, indent)
    return " " + yaml_of(value)


def _key(key: str) -> str:
    return key if _PLAIN.match(key) and key.lower() not in _TRUTH else json.dumps(key)


def text() -> str:
    """The file."""
    return "# Written by: python -m edgemw.wire.asyncapi > docs/asyncapi.yaml\n" + yaml_of(document())


if __name__ == "__main__":
    sys.stdout.write(text())
