"""Addition of encodings: sections by release, weights as integers, overlapping contributions refused."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

from edgemw.compression import side
from edgemw.compression.codec import Codec, Shifting, is_shifting
from edgemw.core.encoded import Encoded, Section
from edgemw.core.errors import CodecError
from edgemw.core.ids import UpdateId


def merge(codec: Codec, parts: Sequence[Encoded]) -> Encoded:
    """The sum of encodings; commutative and associative, exact when the codec is.

    The only section of its base is passed on as it is.

    Raises:
        CodecError: no parts, another codec or size, or a contribution that is in two of them.
        WireError: a payload is malformed, or the payloads of one base have different steps or statistics.
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


def fold(codec: Shifting, encoded: Encoded, release: int) -> Encoded:
    """All sections as one section of base `release`; what is older weighs less, exactly.

    A section that is tau releases behind is divided by 2^a, where 2^-a is the nearest to 1 / sqrt(1 + tau) in the logarithm and
    the larger of two that are as near. Dividing lowers the exponent of the step, so no bit is lost, and for one `release` folding
    and merging change places freely. What is folded again for a later release is weighed again for the releases in between.

    Weight, count and energy are summed as they are: in FedBuff (arXiv:2106.06639, algorithm 1; staleness in section 5) the sum
    of discounted updates is divided by the number of updates, not by the sum of discounts. So a window of late updates moves the
    model less. Statistics of late updates are left out: their devices count as if they had measured what `release` says.

    Raises:
        WireError: a payload is malformed, or the steps are no powers of two or too far apart.
    """
    if not encoded.sections:
        return encoded
    sections = [_rebased(codec, section, release) for section in encoded.sections]
    return replace(encoded, sections=(_sum(codec, encoded.size, sections),))


def halvings(behind: int) -> int:
    """How often a section is halved that is so many releases behind: the least a with 1 + behind <= 2^(2 a + 1)."""
    return behind.bit_length() // 2


def gathered(codec: Codec, encoded: Encoded, release: int) -> Encoded:
    """What a node makes of its window for `release`: one section where the codec's parameters ask for dyadic steps."""
    return fold(codec, encoded, release) if is_shifting(codec) and codec.dyadic else encoded


def _rebased(codec: Shifting, section: Section, release: int) -> Section:
    behind = max(0, release - section.base)
    measured = section.side if behind == 0 else b""  # a statistic belongs to its release: see decision 0011
    return replace(section, base=release, payload=codec.shifted(section.payload, halvings(behind)), side=measured)


def _sum(codec: Codec, size: int, sections: list[Section]) -> Section:
    if len(sections) == 1:
        return sections[0]
    return Section(
        base=sections[0].base,
        weight=sum(section.weight for section in sections),
        count=sum(section.count for section in sections),
        energy=min(sum(section.energy for section in sections), sys.float_info.max),  # inf would not pass the parent's wire
        payload=codec.merge([section.payload for section in sections], size),
        side=side.merge([section.side for section in sections], size),
    )
