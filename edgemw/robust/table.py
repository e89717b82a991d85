"""The robust options by the name that stands in files."""

from __future__ import annotations

from edgemw.robust.child import Robust
from edgemw.robust.krum import Krum
from edgemw.robust.median import Median
from edgemw.robust.norm import Norm
from edgemw.robust.options import RobustOptions
from edgemw.robust.trimmed import Trimmed


def robust_named(options: RobustOptions) -> Robust | None:
    """What options ask for; None where whatever comes is added."""
    match options.use:
        case "norm":
            return Norm(options.bound)
        case "krum":
            return Krum(options.bound, options.share)
        case "median":
            return Median(options.bound)
        case "trimmed":
            return Trimmed(options.bound, options.share)
        case _:
            return None
