"""Addition of encodings: sections by release, weights as integers, overlapping contributions refused."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from edgemw.compression.codec import Codec
from edgemw.core.encoded import Encoded, Section
from edgemw.core.errors import CodecError
from edgemw.core.ids import UpdateId


def merge(codec: Codec, parts: Sequence[Encoded]) -> Encoded:
    """The sum of encodings; commutative and associative, exact when the codec is.

    The only section of its base is passed on as it is.

    Raises:
        CodecError: no parts, another codec or size, or a contribution that is in two of them.
        WireError: a payload is malformed, or the payloads of one base have different steps.
    """
    if not parts:
        raise CodecError("nothing to merge")
    size = parts[0].size
    contributions: set[UpdateId] = set()
    by_base: dict[int, list[Section]] = {}
    for part in parts:
        if (part.codec, part.size) != (codec.name, size):
            raise CodecError(f"cannot add {part.codec}[{part.size}] to {codec.name}[{size}]")
        overlap = contributions & part.contributions
        if overlap:
            raise CodecError(f"{min(overlap)} would be counted twice")
        contributions |= part.contributions
        for section in part.sections:
            by_base.setdefault(section.base, []).append(section)
    sections = tuple(_sum(codec, size, by_base[base]) for base in sorted(by_base))
    return Encoded(codec.name, size, sections, frozenset(contributions))


def _sum(codec: Codec, size: int, sections: list[Section]) -> Section:
    if len(sections) == 1:
        return sections[0]
    return Section(
        base=sections[0].base,
        weight=sum(section.weight for section in sections),
        count=sum(section.count for section in sections),
        energy=min(sum(section.energy for section in sections), sys.float_info.max),  # inf would not pass the parent's wire
        payload=codec.merge([section.payload for section in sections], size),
    )
