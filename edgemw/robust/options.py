"""What protects a window from children that lie, and how much; a value that settings, roles and mathematics share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

FEWEST = 3
"""Children that a median tells anything of: one of them may lie."""


@dataclass(frozen=True, slots=True)
class RobustOptions:
    """How a window is merged where children may lie.

    Attributes:
        use: "norm", "krum", "median" or "trimmed"; "" adds whatever comes.
        bound: how many times as much as the median of all children one child may bring.
        share: the part of the children that may lie, at most 0.45.
    """

    use: str = ""
    bound: float = 1.5
    share: float = 0.2


def liars(children: int, share: float) -> int:
    """How many of so many children may lie."""
    return int(share * children + 1e-9)  # 0.2 of 15 is 3, whatever floats say


def fewest_for(use: str, share: float) -> int:
    """The fewest children of which a window is protected."""
    least = FEWEST
    while use in ("krum", "trimmed") and not protects(use, least, share):
        least += 1
    return least


def protects(use: str, children: int, share: float) -> bool:
    """Whether a window of so many children is protected from at least one of them."""
    if use == "krum":  # Blanchard et al., NeurIPS 2017, theorem: n > 2 f + 2
        return liars(children, share) > 0 and children >= 2 * liars(children, share) + 3
    if use == "trimmed":
        return 0 < liars(children, share) < (children + 1) // 2
    return children >= FEWEST


FITS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"norm": ("lattice", "dense"), "krum": ("lattice", "dense"), "median": ("dense",), "trimmed": ("dense",)}
)
"""The codecs that each option goes with."""


def unfit(use: str, codec: str) -> str:
    """Why an option does not go with a codec, and what does; empty where it does."""
    if not use or codec in FITS[use]:
        return ""
    if codec == "lanes":
        return "lanes are for masks, and what is masked cannot be looked at: use codec lattice, or no robust merging"
    if codec == "lattice":
        return (
            f"updates of codec lattice are zero at most places, and so is their {use if use == 'median' else 'trimmed mean'}: "
            "use norm or krum, or codec dense"
        )
    return f"{use} does not go with codec {codec}: use codec {' or '.join(FITS[use])}"
