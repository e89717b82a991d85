"""What a seed of the fuzzer stands for: a net, its settings, its links and what happens to it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from edgemw.simulation.chance import Chance
from edgemw.simulation.links import LinkSpec

FAULTS = (
    "kill",
    "power",
    "crash",
    "cut",
    "mute",
    "slow",
    "suspend",
    "broker",
    "crowd",
    "replay",
    "hostile",
    "forged",
    "fresh-fog",
    "disk-full",
    "new-task",
)
"""The kinds of faults; `storm.py` says what each does."""

_CODECS: tuple[tuple[str, dict[str, int | float | str]], ...] = (
    ("lattice", {}),
    ("lattice", {"rounding": "nearest"}),
    ("lattice", {"rounding": "nearest", "steps": "dyadic"}),
    ("lattice", {"steps": "dyadic", "coder": "golomb"}),
    ("dense", {}),
    ("topk", {"k": 0.2}),
    ("lanes", {"bits": 12, "blocks": 2, "members": 64}),
)
_LINKS = (LinkSpec(), LinkSpec(delay_s=0.05), LinkSpec(31_250.0, 0.04, 0.01), LinkSpec(2_000.0, 0.3, 0.05, 1.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """One run.

    Attributes:
        seed: decides everything else, and every random number of the run.
        fogs: parents of the fog nodes below the top.
        devices: parents of the devices.
        size: parameters of the model.
        rounds: releases to make.
        codec, parameters: how updates are encoded.
        fog_bytes: largest merged payload of a fog node; 0 is no limit.
        k, quorum, deadline_s, max_staleness: of every window.
        chunk_bytes: larger payloads travel in chunks.
        link: of every node.
        work_s: mean time of a training.
        double: chance that a message, or a chunk, comes once more, later, after others.
        altered: chance that a chunk says that it is another one.
        faults: kinds that happen.
        every_s: mean time between two faults.
        storm_s: how long they happen.
        threshold: percent of a group that takes masks off; 0: no masks.
    """

    seed: int
    fogs: dict[str, str]
    devices: dict[str, str]
    size: int
    rounds: int
    codec: str
    parameters: dict[str, int | float | str] = field(default_factory=dict)
    fog_bytes: int
    k: int
    quorum: int
    deadline_s: float
    max_staleness: int
    chunk_bytes: int
    link: LinkSpec
    work_s: float
    double: float
    altered: float
    faults: tuple[str, ...]
    every_s: float
    storm_s: float
    threshold: int = 0

    def __str__(self) -> str:
        codec = ", ".join([self.codec, *(f"{name} {value}" for name, value in self.parameters.items())])
        masks = f", masks {self.threshold} %" if self.threshold else ""
        rate = "" if math.isinf(self.link.rate) else f" {8e-3 * self.link.rate:g} kbit/s"
        return (
            f"{len(self.fogs)} fogs, {len(self.devices)} devices, {self.size} parameters, {self.rounds} rounds; "
            f"{codec}{masks}; k {self.k}, quorum {self.quorum}, deadline {self.deadline_s:g} s, staleness {self.max_staleness}; "
            f"link{rate} {1e3 * self.link.delay_s:g} ms; {self.storm_s:g} s, every {self.every_s:g} s: {', '.join(self.faults)}"
        )


def to_json(options: Options) -> dict[str, Any]:
    """Everything that a run is made of, for a file; an infinite rate is 0."""
    link = options.link
    return asdict(options) | {"link": {**asdict(link), "rate": 0.0 if math.isinf(link.rate) else link.rate}}


def from_json(values: dict[str, Any]) -> Options:
    """The inverse of `to_json`. Raises TypeError or KeyError where it was written otherwise."""
    link = values["link"]
    spec = LinkSpec(**{**link, "rate": link["rate"] or math.inf})
    return Options(**{**values, "link": spec, "faults": tuple(values["faults"])})


def options_of(seed: int) -> Options:
    """Expand a seed; the same one always gives the same run."""
    chance = Chance(seed)
    fogs = _fogs(chance)
    leaves = [fog for fog in fogs if fog not in fogs.values()] or ["top"]
    devices = {f"device-{n}": chance.one_of(leaves, "tree") for n in range(chance.whole(2, 6, "tree"))}
    codec, parameters = chance.one_of(_CODECS, "codec")
    threshold = chance.one_of((0, 51, 67, 100), "masks") if codec == "lanes" else 0
    if threshold:  # a group needs three
        devices |= {f"device-{n}": leaves[0] for n in range(len(devices), chance.whole(6, 8, "masks"))}
    fogs = {fog: parent for fog, parent in fogs.items() if fog in fogs.values() or fog in devices.values()}
    fogs = {fog: parent for fog, parent in fogs.items() if fog in fogs.values() or fog in devices.values()}
    dyadic = parameters.get("steps") == "dyadic"
    deadline_s = chance.one_of((5.0, 20.0, 60.0), "window")
    count = chance.whole(1, 5, "faults")
    k = chance.one_of((0, 0, 1), "window")
    return Options(
        seed=seed,
        fogs=fogs,
        devices=devices,
        size=chance.one_of((40, 40, 600), "size"),
        rounds=chance.whole(3, 6, "rounds"),
        codec=codec,
        parameters=parameters,
        fog_bytes=chance.one_of((0, 40), "codec") if dyadic else 0,
        k=k,
        quorum=1 if k == 1 else chance.one_of((1, 1, 2), "window"),
        deadline_s=deadline_s,
        max_staleness=chance.one_of((0, 1, 4), "window"),
        chunk_bytes=chance.one_of((1024, 120_000), "size"),
        link=chance.one_of(_LINKS, "link"),
        work_s=chance.one_of((0.0, 1.0, deadline_s), "work"),
        double=chance.one_of((0.0, 0.1), "messages"),
        altered=chance.one_of((0.0, 0.05), "messages"),
        faults=tuple(dict.fromkeys(chance.one_of(FAULTS, "faults") for _ in range(count))),
        every_s=chance.one_of((2.0, 10.0, 40.0), "faults"),
        storm_s=chance.one_of((60.0, 200.0), "faults"),
        threshold=threshold,
    )


def _fogs(chance: Chance) -> dict[str, str]:
    """No fog nodes, one level of them, or two."""
    levels = chance.whole(0, 2, "tree")
    first = {f"fog-{n}": "top" for n in range(chance.whole(1, 2, "tree"))} if levels else {}
    if levels < 2:
        return first
    return first | {f"{fog}-{n}": fog for fog in first for n in range(chance.whole(1, 2, "tree"))}
