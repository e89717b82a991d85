"""MessagePack in its shortest form: a float that float 32 holds exactly is written as one; readers take all forms."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import msgpack

_SINGLE = struct.Struct("<f")


def encode(value: Any) -> bytes:
    """The bytes of lists, maps, bytes, text, numbers, truth values and None; `decode` is the inverse."""
    return b"".join(_parts(value, msgpack.Packer()))


def _parts(value: Any, packer: msgpack.Packer) -> Iterator[bytes]:
    match value:
        case list() | tuple():
            yield packer.pack_array_header(len(value))
            for item in value:
                yield from _parts(item, packer)
        case dict():
            yield packer.pack_map_header(len(value))
            for key, item in value.items():
                yield packer.pack(key)
                yield from _parts(item, packer)
        case float() if _is_single(value):
            yield b"\xca" + struct.pack(">f", value)
        case _:
            yield packer.pack(value)


def _is_single(value: float) -> bool:
    try:
        narrowed: float = _SINGLE.unpack(_SINGLE.pack(value))[0]
    except OverflowError:
        return False
    return narrowed == value
