"""A profile of this machine: what was measured here, and for the rest what is known of its class."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edgemw.bench.calibrate import MERGED, Calibration, Spread
from edgemw.core.config.units import Size
from edgemw.profiles.device import Profile
from edgemw.profiles.known import Bytes, Count, Number, numbers

SOURCE = "calibration"
"""The key of the source of what was measured."""


def local_profile(base: Profile | None, name: str, found: Calibration, measured_on: str) -> Profile:
    """The base with what was measured in the place of what others say; what it draws stays as known, with its sources.

    Args:
        base: class of this machine; None where nobody knows it.
        name: of the profile.
        measured_on: what says of the source which machine that was, and when.
    """
    parts = base or Profile(name=name, title=name, kind="server", runs="python")
    model = f"{found.task}, {found.parameters} parameters"
    notes = {
        "compute.training_steps_per_s": f"{model}, batches of {found.batch}, threads: {found.threads}",
        "compute.training_macs_per_s": f"3 * {found.parameters} parameters * {found.batch} samples * steps in a second",
        "compute.inference_s": f"{model}, one thread",
        "compute.encode_bytes_per_s": f"lattice, {found.parameters} parameters",
        "compute.merge_bytes_per_s": f"lattice, {MERGED} updates of {found.parameters} parameters",
        "compute.decode_bytes_per_s": f"lattice, {found.parameters} parameters",
    }
    compute = {key.partition(".")[2]: _number(found.measured[key], note) for key, note in notes.items()}
    tried = ", ".join(f"{rate:.3g} steps in a second with {count}" for count, rate in found.steps_by_threads.items())
    threads = Count(value=found.threads, how="measured", source=SOURCE, note=f"{model}: {tried}")
    defaults = replace(parts.defaults, training=replace(parts.defaults.training, threads=threads))
    cores = Count(value=found.cores, **_measured("that this process may use"))
    profile = replace(
        parts,
        name=name,
        title=parts.title if base is None else f"{base.title}, as measured",
        runs="python",
        cpu=parts.cpu if base is not None else replace(parts.cpu, cores=cores),
        memory=replace(parts.memory, ram_bytes=Bytes(value=Size(found.ram_bytes), **_measured("that this process may use"))),
        compute=replace(parts.compute, **compute),
        defaults=defaults,
        sources={**parts.sources, SOURCE: measured_on},
    )
    used = {number.source for _, number in numbers(profile)}
    return replace(profile, sources={key: title for key, title in profile.sources.items() if key in used})


def _number(spread: Spread, note: str) -> Number:
    return Number(value=float(f"{spread.median:.4g}"), **_measured(f"{note}; quartiles {spread.low:.3g} and {spread.high:.3g}"))


def _measured(note: str) -> dict[str, Any]:
    return {"how": "measured", "source": SOURCE, "note": note}
