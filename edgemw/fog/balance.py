"""A fog node's books of mass: what its windows brought is in what it sends, or in its remainder.

    merged    sum of the parts, halved where they are late  =  sum of the sections + what was thinned out of the parts
    nested    window  +  remainder before                   =  sent  +  remainder after

Each side is one number, step times the sum of the integers, as in a device's books (`device/balance.py`). A sum that leaves out
an update, takes one twice or wraps shows at once. Kept for `lattice`, whose integers are read at the cost of what was sent;
other codecs would have to be decoded to P values.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgemw.compression.codec import Codec
from edgemw.compression.lattice import Lattice
from edgemw.compression.merge import halvings
from edgemw.core.encoded import Encoded, Section


class Balance:
    """The books of one life of a node. Payloads are well formed, and those of sums have as many values as their parts.

    Attributes:
        worst: the largest difference between two sides so far, as a part of the sizes on both; rounding of float64 leaves 1e-16.
    """

    def __init__(self) -> None:
        self.worst = 0.0

    def merged(
        self,
        codec: Codec,
        parts: Sequence[Encoded],
        sections: Iterable[Section],
        release: int | None = None,
        thinned: Sequence[Encoded] = (),
    ) -> None:
        """Updates became sections, which were `gathered` where a release is given, and what was `thinned` out of them."""
        if isinstance(codec, Lattice) and parts:
            came, out = (
                [(section.payload, sign * _weight(codec, section, release)) for part in some for section in part.sections]
                for some, sign in ((parts, 1.0), (thinned, -1.0))
            )
            self._check(codec, parts[0].size, [*came, *out, *((section.payload, -1.0) for section in sections)])

    def nested(self, lattice: Lattice, size: int, came: Iterable[bytes], went: Iterable[bytes]) -> None:
        """What came is to be what went; an empty payload is nothing."""
        signed = [*((payload, 1.0) for payload in came), *((payload, -1.0) for payload in went)]
        self._check(lattice, size, [(payload, sign) for payload, sign in signed if payload])

    def _check(self, lattice: Lattice, size: int, payloads: Iterable[tuple[bytes, float]]) -> None:
        left = sizes = 0.0
        for payload, weight in payloads:
            total, moved = lattice.mass(payload, size)
            left += weight * total
            sizes += abs(weight) * moved
        if sizes:
            self.worst = max(self.worst, abs(left) / sizes)


def _weight(lattice: Lattice, section: Section, release: int | None) -> float:
    return 0.5 ** halvings(max(0, release - section.base)) if lattice.dyadic and release is not None else 1.0
