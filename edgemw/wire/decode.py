"""MessagePack from a stranger: every size is checked while it is read, not afterwards.

MessagePack lets one byte stand for an empty map of 64 bytes in memory, and lets arrays nest without end. So lengths are
limited before anything is made, values are counted while they are made, and nesting is limited to what messages need.
"""

from __future__ import annotations

from typing import Any, NoReturn

import msgpack

from edgemw.core.errors import WireError

MAX_ITEMS = 1024  # in one array or map
MAX_VALUES = 4096  # in all arrays and maps together
MAX_TEXT_BYTES = 4096
MAX_DEPTH = 8


def decode(data: bytes) -> Any:
    """The one value that the bytes stand for: tuples, dicts with text keys, bytes, text, numbers, truth values, None.

    Raises:
        WireError: not exactly one value, one of the limits above is exceeded, text is not UTF-8, a key is not text or stands
            twice in its map, or there is an extension type.
    """
    counter = _Counter()
    try:
        value = msgpack.unpackb(
            data,
            raw=False,
            use_list=False,
            strict_map_key=True,
            list_hook=counter.array,
            object_pairs_hook=counter.map,
            ext_hook=_no_extension,
            max_array_len=MAX_ITEMS,
            max_map_len=MAX_ITEMS,
            max_str_len=MAX_TEXT_BYTES,
            max_ext_len=0,
        )
    except (ValueError, msgpack.exceptions.UnpackException, RecursionError) as error:
        raise WireError("msgpack", str(error)[:80]) from error
    if counter.containers > MAX_DEPTH and not _is_shallow(value):  # fewer cannot be nested deeper
        raise WireError("msgpack", f"nested deeper than {MAX_DEPTH}")
    return value


class _Counter:
    """Counts values as arrays and maps are completed."""

    def __init__(self) -> None:
        self._left = MAX_VALUES
        self.containers = 0

    def array(self, items: tuple[Any, ...]) -> tuple[Any, ...]:
        self._count(len(items))
        return items

    def map(self, pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
        self._count(2 * len(pairs))
        entries = dict(pairs)
        if len(entries) != len(pairs) or any(type(key) is not str for key in entries):
            raise WireError("msgpack", "a key that is not text, or stands twice")
        return entries

    def _count(self, values: int) -> None:
        self.containers += 1
        self._left -= 1 + values
        if self._left < 0:
            raise WireError("msgpack", f"more than {MAX_VALUES} values")


def _no_extension(code: int, data: bytes) -> NoReturn:
    raise WireError("msgpack", f"extension type {code}")


def _is_shallow(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        inside = (item for each in level for item in (each.values() if type(each) is dict else each))
        level = [item for item in inside if type(item) is tuple or type(item) is dict]
        if not level:
            return True
    return False
