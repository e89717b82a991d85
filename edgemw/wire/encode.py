"""MessagePack in its shortest form: a float that float 32 holds exactly is written as one; readers take all forms."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import msgpack

_SINGLE = struct.Struct("<f")
_PLAIN = frozenset((int, str, bytes, bool, type(None)))  # most values


def encode(value: Any) -> bytes:
    """The bytes of lists, maps, bytes, text, numbers, truth values and None; `decode` is the inverse."""
    if _is_narrow(value):
        narrow: bytes = msgpack.packb(value, use_single_float=True)
        return narrow
    parts: list[bytes] = []
    _write(value, msgpack.Packer(), parts.append)
    return b"".join(parts)


def _is_narrow(value: Any) -> bool:
    """Whether no float in it needs 64 bits, so that all can be packed at once."""
    level = [value]
    while level:
        deeper = []
        for each in level:
            kind = type(each)
            if kind in _PLAIN:
                continue
            if kind is list or kind is tuple:
                deeper += each
            elif kind is dict:
                deeper += each.values()
            elif kind is not float or not _is_single(each):
                return False
        level = deeper
    return True


def _write(value: Any, packer: msgpack.Packer, put: Callable[[bytes], None]) -> None:
    if type(value) in _PLAIN:
        put(packer.pack(value))
    elif isinstance(value, (list, tuple)):
        put(packer.pack_array_header(len(value)))
        for item in value:
            _write(item, packer, put)
    elif isinstance(value, dict):
        put(packer.pack_map_header(len(value)))
        for key, item in value.items():
            put(packer.pack(key))
            _write(item, packer, put)
    elif isinstance(value, float) and _is_single(value):
        put(b"\xca" + struct.pack(">f", value))
    else:
        put(packer.pack(value))


def _is_single(value: float) -> bool:
    try:
        narrowed: float = _SINGLE.unpack(_SINGLE.pack(value))[0]
    except OverflowError:
        return False
    return narrowed == value
