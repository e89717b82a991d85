"""One data set as many devices would have it, for experiments on one machine."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from edgemw.core.errors import DataError

Rows = npt.NDArray[np.int64]
_TRIES = 10_000


def iid(count: int, devices: int, rng: np.random.Generator) -> list[Rows]:
    """Rows 0..count-1 shuffled and dealt out evenly."""
    return [np.sort(part) for part in np.array_split(rng.permutation(count), devices)]


def dirichlet(labels: npt.NDArray[Any], devices: int, alpha: float, min_size: int, rng: np.random.Generator) -> list[Rows]:
    """Split every class by proportions drawn from Dirichlet(alpha); small alpha gives each device few classes.

    The draw is repeated until every device has `min_size` rows. Source: Hsu et al., arXiv:1909.06335, section 3.

    Args:
        labels: [N], the class of each row.
        devices: parts to make.
        alpha: concentration, above 0.
        min_size: fewest rows of a part.
        rng: decides the partition.

    Raises:
        DataError: there is not one label per row, or no draw gives every device enough rows.
    """
    if labels.ndim != 1:
        raise DataError(f"a split by class needs one label per row, not {labels.shape[1:]}")
    if devices * min_size > len(labels):
        raise DataError(f"{len(labels)} rows cannot give {devices} devices at least {min_size} each")
    for _ in range(_TRIES):
        parts: list[list[Rows]] = [[] for _ in range(devices)]
        for label in np.unique(labels):
            rows = rng.permutation(np.flatnonzero(labels == label))
            cuts = (np.cumsum(rng.dirichlet(np.full(devices, alpha))) * len(rows)).astype(int)[:-1]
            for part, piece in zip(parts, np.split(rows, cuts), strict=True):
                part.append(piece)
        joined = [np.sort(np.concatenate(part)) for part in parts]
        if min(map(len, joined)) >= min_size:
            return joined
    raise DataError(f"alpha {alpha} leaves a device under {min_size} rows in {_TRIES} draws: use a larger alpha or fewer devices")


def natural(clients: npt.NDArray[Any], devices: int) -> list[Rows]:
    """Rows by who produced them; with fewer devices than clients, clients are dealt out in turn.

    Raises:
        DataError: more devices than clients.
    """
    ids = np.unique(clients)
    if devices > len(ids):
        raise DataError(f"{devices} devices but the data come from {len(ids)} clients")
    return [np.flatnonzero(np.isin(clients, ids[device::devices])) for device in range(devices)]
