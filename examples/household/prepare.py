"""Samples for training from a table of meter readings: `python prepare.py swiss_elec.npz household.npz --homes 20`."""

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt

WEEK, DAY, HOUR = 672, 96, 4
"""Readings, one each 15 minutes."""

Array = npt.NDArray[np.float32]


def samples(energy: Array, first: int, last: int, stride: int) -> tuple[Array, Array]:
    """A week of one home's readings x [N, 672, 1] and the 24 hours after it y [N, 24]; those hours lie in first to last."""
    ends = range(first, last - DAY + 1, stride)
    x = np.stack([energy[end - WEEK : end, None] for end in ends])
    y = np.stack([energy[end : end + DAY].reshape(-1, HOUR).sum(1) for end in ends])
    return x, y


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("readings", type=Path, help="arrays values [steps, homes], scale, split_t")
    parser.add_argument("out", type=Path, help="the file to write: x, y, client, split")
    parser.add_argument("--homes", type=int, default=20, help="the first N homes (default: 20)")
    parser.add_argument("--stride", type=int, default=5, help="readings from one sample to the next (default: 5)")
    args = parser.parse_args()
    with np.load(args.readings, allow_pickle=False) as arrays:
        energy = arrays["values"][:, : args.homes].astype(np.float32) * arrays["scale"]
        tested_from = int(arrays["split_t"])
    parts = []
    for home in range(energy.shape[1]):
        for held_out, (first, last) in enumerate([(WEEK, tested_from), (tested_from, len(energy))]):
            x, y = samples(energy[:, home], first, last, args.stride)
            parts.append((x, y, np.full(len(x), home), np.full(len(x), held_out)))
    x, y, client, split = map(np.concatenate, zip(*parts, strict=True))
    np.savez_compressed(args.out, x=x, y=y, client=client, split=split)
    print(f"{args.out}: {energy.shape[1]} homes, {np.sum(split == 0)} samples to train on, {np.sum(split == 1)} to test on")


if __name__ == "__main__":
    main()
