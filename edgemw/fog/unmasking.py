"""What takes the masks off a sum, put together from the shares that survivors give up. Values in, values out.

Source: Bonawitz et al., CCS 2017, figure 4, the server's side of round 4.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from edgemw.compression.codec import Codec
from edgemw.compression.lanes import lanes_of, with_lanes
from edgemw.compression.merge import merge
from edgemw.core.encoded import Encoded
from edgemw.fog.window import parts_of
from edgemw.masking.keys import Tampered, derived, public
from edgemw.masking.masks import WIDE_BITS, Mask, take_off_pairs
from edgemw.masking.shamir import join, weights
from edgemw.wire.messages import Frame, Group, Update

ENERGY_UNIT = 2.0**-80


def left_over(
    group: Group,
    transcript: bytes,
    dealers: Sequence[int],
    survivors: Collection[int],
    answers: Mapping[int, Sequence[bytes]],
    mask: Mask,
) -> Mask:
    """The masks that are in the sum of the survivors' updates.

    Args:
        group: whose masks they are.
        transcript: of the group.
        dealers: the members that have dealt out shares, in order.
        survivors: those of them whose updates are in the sum.
        answers: of as many survivors as the threshold says: a share for each dealer.
        mask: for the lanes of the sum, without any mask yet; it is changed and given back.

    Raises:
        Tampered: the shares do not fit together, or not the key that a member has said.
    """
    counted = weights(sorted(answers))
    living = [(place, group.members[place].mask) for place in dealers if place in survivors]
    for at, place in enumerate(dealers):
        try:
            secret = join({member: shares[at] for member, shares in answers.items()}, counted)
        except ValueError as error:
            raise Tampered(f"what was given up for {group.members[place].node} are no shares of one secret") from error
        if place in survivors:
            mask.add(derived(secret, transcript, b"stream"))
        elif public(secret) == group.members[place].mask:
            take_off_pairs(mask, place, secret, living, transcript)
        else:
            raise Tampered(f"what was given up for {group.members[place].node} are not the shares of its key")
    return mask


def unmasked(codec: Codec, frames: Sequence[Frame], mask: Mask) -> Encoded:
    """The sum of masked updates without their masks.

    Raises:
        CodecError, WireError: as `merge`.
    """
    merged = merge(codec, parts_of([*frames]))
    section = merged.sections[0]
    lanes = lanes_of(section.payload, merged.size)
    updates = [frame.message for frame in frames if isinstance(frame.message, Update)]
    wide = (sum(int.from_bytes(update.wide, "little") for update in updates) - mask.wide) % (1 << WIDE_BITS)
    plain = replace(section, payload=with_lanes(section.payload, lanes - mask.lanes, merged.size), energy=wide * ENERGY_UNIT)
    return replace(merged, sections=(plain,))
