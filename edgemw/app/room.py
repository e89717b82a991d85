"""Whether a plan fits a class of devices: memory, what it keeps, batch, codec, updates and messages. Asked before anything runs.

    memory   = BASE + 4 P k + 12 b (i + w)   P parameters, k copies of them at the worst moment, by codec; b samples in a batch,
               of i numbers each; w outputs of all layers; and SERVICE where predictions are a process of their own
    kept     = the bundle + `serving.keep` 4 P

The constants were measured on x86-64 with ONNX Runtime 1.32 (`benchmarks/room.py`): most is taken while a
session is built. It is what a plan takes at least: layers with an output for every place of an image, and the samples, take more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import MappingProxyType

from edgemw.app.afford import update_size
from edgemw.app.checks import AUTO
from edgemw.app.sections import Codec, Limits, Serving, Training
from edgemw.app.settings import Deployment, DeviceFile
from edgemw.core.bundle import Bundle, Manifest
from edgemw.core.config.units import Size
from edgemw.core.errors import BundleError, ConfigError
from edgemw.core.plan import plan_of, within
from edgemw.profiles.catalogue import load_profile, load_radio
from edgemw.profiles.device import Profile
from edgemw.profiles.known import Bytes
from edgemw.telemetry.machine import own_memory_bytes

BASE_BYTES, SERVICE_BYTES = 89 << 20, 60 << 20
COPIES, MORE_COPIES = 37, MappingProxyType({"dense": 3, "qsgd": 4, "powersgd": 7})
"""Of theta, and how many more a codec takes."""
FRAME_BYTES, LEAST_BYTES = 512, 1024
"""Around a chunk, with its topic; and the smallest chunk that settings may ask for."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a device is to do.

    Attributes:
        manifest: of the task; None where it is not known yet.
        batch: samples of a training step.
        codec: of its updates; None where the top decides elsewhere.
        bundle_bytes: of the bundle.
    """

    manifest: Manifest | None = None
    batch: int = 1
    codec: Codec | None = None
    bundle_bytes: int = 0


def memory_bytes(load: Load, serving: Serving) -> int:
    """The memory that a device takes at least."""
    taken = BASE_BYTES + (SERVICE_BYTES if serving.process else 0)
    if load.manifest is None:
        return taken
    copies = COPIES + (MORE_COPIES.get(load.codec.use, 0) if load.codec is not None else 0)
    outputs = sum(slot.shape[0] for slot in load.manifest.layout if len(slot.shape) > 1)
    per_sample = math.prod(load.manifest.input.shape) + outputs
    return taken + 4 * load.manifest.size * copies + 12 * load.batch * per_sample


def kept_bytes(load: Load, serving: Serving) -> int:
    """What a device keeps on its disk or in its flash at least."""
    return load.bundle_bytes + (0 if load.manifest is None else 4 * load.manifest.size * serving.keep)


def memory_of(profile: Profile) -> Bytes | None:
    """The memory that a node of this class may take, where that is known."""
    return profile.limits.memory_bytes or profile.memory.ram_bytes


def load_of(settings: Deployment, training: Training, manifest: Manifest, bundle_bytes: int) -> Load:
    """What a device of a deployment is to do."""
    plan = within(plan_of(manifest.training | settings.plan.changes()), training.max_batch)
    return Load(manifest, plan.batch_size, settings.codec, bundle_bytes)


def check_room(settings: Deployment, manifest: Manifest, bundle_bytes: int) -> None:
    """Refuse a plan that does not fit a tier whose class is named. Raises ConfigError with the key that is too much."""
    top = settings.tiers[settings.top]
    for name, tier in settings.tiers.items():
        if tier.role != "device" or tier.profile in ("", AUTO):
            continue
        profile, load = load_profile(tier.profile), load_of(settings, tier.training, manifest, bundle_bytes)
        check_fits(profile, load, tier.limits, tier.serving, f"tiers.{name}.")
        if profile.runs != "none":
            _check_messages(profile, top.limits, f"tiers.{settings.top}.")  # its chunks are what a release comes in


def check_device(profile: Profile | None, settings: DeviceFile) -> None:
    """Refuse a device whose file alone is too much for its class. Raises ConfigError with the key."""
    if profile is not None:
        check_fits(profile, Load(), settings.limits, settings.serving, "")


def largest_batch(profile: Profile | None, training: Training) -> int:
    """The largest batch that a device trains with, by its file and its class; 0 is no limit."""
    known = profile.limits.batch if profile is not None else None
    return min((most for most in (training.max_batch, known.value if known is not None else 0) if most), default=0)


def check_task(profile: Profile | None, settings: DeviceFile, bundle: Bundle) -> None:
    """Refuse a task that a device cannot train. Raises BundleError; how the top wants it trained is not known yet."""
    if profile is None:
        return
    manifest, graphs = bundle.manifest, len(bundle.infer) + len(bundle.train or b"")
    batch = within(plan_of(manifest.training), largest_batch(profile, settings.training)).batch_size
    try:
        check_fits(profile, Load(manifest, batch, bundle_bytes=graphs), settings.limits, settings.serving, "")
    except ConfigError as error:
        raise BundleError(f"task {manifest.name!r} does not fit this device: {error}") from error


def class_here(settings: DeviceFile) -> Profile | None:
    """The class of the device that this process is, where it is known; one that was detected has the memory of this machine."""
    from edgemw.app.energy import profile_of  # with what reads sensors

    profile, known_by = profile_of(settings.node.profile, settings.energy)
    if profile is None or settings.node.profile != AUTO:
        return profile
    ram = Bytes(value=Size(own_memory_bytes()), how="measured", source="machine")
    sources = {**profile.sources, "machine": known_by}
    return replace(profile, memory=replace(profile.memory, ram_bytes=ram), sources=sources)


def check_fits(profile: Profile, load: Load, limits: Limits, serving: Serving, prefix: str) -> None:
    """Refuse what does not fit a device; one on which edgemw does not run is left alone. Raises ConfigError with the key.

    Args:
        prefix: before the keys of the device's settings, such as "tiers.device.".
    """
    if profile.runs == "none":
        return
    for problem in (
        *_learning(profile, load, prefix),
        *_memory(profile, load, serving, prefix),
        *_storage(profile, load, serving, prefix),
    ):
        raise problem
    _check_messages(profile, limits, prefix)


def _learning(profile: Profile, load: Load, prefix: str) -> Iterator[ConfigError]:
    limits = profile.limits
    if limits.batch is not None and load.batch > limits.batch.value:
        hint = f"say {prefix}training.max_batch = {limits.batch.value}"
        yield _refusal("plan.batch_size", f"a batch of {load.batch} samples", f"{limits.batch.value}", profile, hint)
    if load.codec is None or load.manifest is None:
        return
    if limits.codecs is not None and load.codec.use not in limits.codecs.value:
        hint = "use one of these"
        yield _refusal("codec.use", f"codec {load.codec.use!r}", ", ".join(limits.codecs.value), profile, hint)
    if limits.update_bytes is not None:
        needed = update_size(load.codec, load.manifest)
        if needed > limits.update_bytes.value:
            hint = "use another codec, or a smaller model"
            yield _refusal("codec.use", f"an update of {needed} bytes", f"{limits.update_bytes.value}", profile, hint)


def _memory(profile: Profile, load: Load, serving: Serving, prefix: str) -> Iterator[ConfigError]:
    there, needed = memory_of(profile), memory_bytes(load, serving)
    if there is None or needed <= there.value:
        return
    alone = memory_bytes(Load(load.manifest, 1, load.codec), serving)
    if load.manifest is None:
        key, hint = f"{prefix}profile" if prefix else "node.profile", "a node alone takes that: use a device with more"
    elif alone <= there.value:
        each = (needed - alone) // (load.batch - 1)
        fits = 1 + (there.value - alone) // each
        key, hint = "plan.batch_size", f"say {prefix}training.max_batch = {fits} or less"
    elif memory_bytes(Load(load.manifest, load.batch), serving) <= there.value:
        key, hint = "codec.use", "'lattice' takes less"
    else:
        key, hint = "task.bundle", f"use a smaller model than {load.manifest.size} parameters, or a device with more"
    yield _refusal(key, f"about {needed >> 20} MiB of memory", f"{there.value >> 20} MiB", profile, hint)


def _storage(profile: Profile, load: Load, serving: Serving, prefix: str) -> Iterator[ConfigError]:
    there, needed = profile.memory.flash_bytes, kept_bytes(load, serving)
    if there is None or load.manifest is None or needed <= there.value:
        return
    fits = (there.value - load.bundle_bytes) // (4 * load.manifest.size)
    keep = f"{prefix}serving.keep"
    key, hint = (keep, f"say {keep} = {fits}") if fits > 0 else ("task.bundle", "use a smaller model")
    yield _refusal(key, f"{needed} bytes for a bundle and {serving.keep} releases", f"{there.value}", profile, hint)


def _check_messages(profile: Profile, limits: Limits, prefix: str) -> None:
    key, chunk = f"{prefix}limits.max_message_bytes", limits.max_message_bytes
    radio = load_radio(profile.radios[0]) if profile.radios else None
    payload = None if radio is None else radio.limits.payload_bytes
    for known, taken, of in (
        (profile.limits.chunk_bytes, chunk, "a chunk"),
        (profile.limits.packet_bytes, chunk + FRAME_BYTES, "a packet"),
        (payload, chunk, f"a message over {radio.name if radio is not None else ''}"),
    ):
        if known is not None and taken > known.value:
            most = known.value - (taken - chunk)
            hint = f"say {key} = {most} or less" if most >= LEAST_BYTES else f"no message is cut to less than {LEAST_BYTES}"
            raise _refusal(key, f"{of} of {taken} bytes", f"{known.value}", profile, hint)


def _refusal(key: str, needed: str, there: str, profile: Profile, hint: str) -> ConfigError:
    return ConfigError(f"{needed} is needed, and {profile.name} has {there}: {hint}", key=key)
