"""Differential privacy at the top: the noise that releases get, and what they have cost.

    central    noise N(0, (z S)^2) is added to the sum of the updates of every base, once per window ; devices trust the fogs
    local      devices add it, each to its own update ; nobody is trusted

Spent, of a device (unit = device) or of one sample of a device (sample) that takes part in every release:

    central    sensitivity S: its updates are there, or are zeros in their place. At most one of them is in the sums of one base,
               so release n has cost n mechanisms of noise z, however windows were cut and whoever was late
    local      sensitivity 2 S: its samples are these, or any others; of a sample, S: it is there or not. An update is made
               once, whatever becomes of it, so release n has cost n mechanisms of noise z / 2, of a sample z, and one more where
               it asks for training

Runs on one disk are on the same data: their costs add (`core/accountant.py`), as `Promise.counted_as` says where they promise
different things.

Source: central: McMahan et al., ICLR 2018, and zero-out: Kairouz et al., arXiv:2103.00039, section 2; local: Duchi, Jordan and
Wainwright, FOCS 2013, with Gaussian noise.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import numpy as np
import numpy.typing as npt

from edgemw.compression.bounded import Bound, bounded_step
from edgemw.compression.lattice import LARGEST_MOST
from edgemw.core.accountant import epsilon_of
from edgemw.core.encoded import Section
from edgemw.core.errors import ConfigError
from edgemw.core.ids import Place
from edgemw.core.noise import gaussian_integers
from edgemw.core.ranges import Ranges, blank
from edgemw.wire.messages import ReleaseManifest

CENTRAL, LOCAL = "central", "local"
DEVICE, SAMPLE = "device", "sample"
NO_PERSONAL = 'with privacy.unit = "sample" all that is learned is a sum, which is sent: freeze them, or leave it away'
RARE_IS_LOST = "what waits for a later update is lost under privacy: send it always, or never"

SectionNoise = Callable[[Section], npt.NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Promise:
    """What a run promises, from its first release to its last.

    Attributes:
        mode: central or local.
        clip: largest norm of an update.
        noise: deviation, as a multiple of it.
        unit: who is protected: a device with all its samples, or one sample, of which `clip` is then the bound.
    """

    mode: str
    clip: float
    noise: float
    unit: str = DEVICE

    @property
    def bound(self) -> Bound:
        """What is asked of devices."""
        return Bound(self.clip, self.noise if self.mode == LOCAL else 0.0, self.unit == SAMPLE)

    def mechanisms(self, number: int, *, train: bool) -> tuple[float, int]:
        """Deviation over sensitivity, and how often, once a release is out."""
        if self.mode != LOCAL:
            return self.noise, number
        return (self.noise if self.unit == SAMPLE else self.noise / 2), number + train

    def counted_as(self, then: Promise, noise: float) -> float:
        """What a mechanism of a run under this promise is worth to another one; deviation over sensitivity.

        A bound of single samples is none of a device, which may have any number of them: 0. Updates of which each is at most S
        away from zeros are 2 S apart where samples differ. Where they may be any others, one of them may.
        """
        if self.unit == SAMPLE:
            return noise if then.unit == SAMPLE else 0.0
        return noise / 2 if self.mode != LOCAL and (then.unit == SAMPLE or then.mode == LOCAL) else noise


@dataclass(frozen=True, slots=True)
class Privacy:
    """What the top's settings say.

    Attributes:
        promise: see above.
        delta: at which epsilon is said.
        budget: epsilon that no release may exceed; 0 is none.
        kappa: step of updates in root mean squares of one at the bound.
    """

    promise: Promise
    delta: float
    budget: float = 0.0
    kappa: float = 0.5

    @property
    def plan(self) -> dict[str, float]:
        """What devices are told, by the names of a plan."""
        bound = self.promise.bound
        return {"update_clip": bound.clip, "update_noise": bound.noise, "by_sample": int(bound.by_sample)}

    @property
    def parameters(self) -> dict[str, int | float | str]:
        """What updates need of the codec, by the names of its parameters."""
        return {"most": LARGEST_MOST} if self.promise.unit == SAMPLE else {}

    def step(self, ranges: Ranges) -> float:
        """Of all releases of a run."""
        return bounded_step(self.promise.bound, self.kappa, ranges.coded(0))


@dataclass(frozen=True, slots=True)
class Spent:
    """What a disk knows of.

    Attributes:
        promise: of its run.
        earlier: mechanisms of the runs before; deviation over sensitivity, how often.
        asked: local mode: from how many releases of this run devices were asked to train. A release that is announced again
            may ask for less than it did; who has answered has paid.
    """

    promise: Promise
    earlier: tuple[tuple[float, int], ...] = ()
    asked: int = 0

    def asking(self, manifest: ReleaseManifest) -> Spent:
        """What is spent once a release is out; it has to be on the disk before."""
        if self.promise.mode != LOCAL:
            return self
        return replace(self, asked=max(self.asked, manifest.number + manifest.train))

    def mechanisms(self, manifest: ReleaseManifest) -> tuple[float, int]:
        """Those of this run, with a release."""
        noise, times = self.promise.mechanisms(manifest.number, train=manifest.train)
        return noise, max(times, self.asked)

    def epsilon(self, manifest: ReleaseManifest, delta: float) -> float:
        """Of all that is out with a release. Raises ConfigError where dp-accounting is not installed."""
        return epsilon_of((*self.earlier, self.mechanisms(manifest)), delta)

    def ended(self, manifest: ReleaseManifest, then: Promise) -> tuple[tuple[float, int], ...]:
        """The mechanisms of all runs, when the present one has ended with a release, as the next promise counts them."""
        counted: dict[float, int] = {}
        for noise, times in (*self.earlier, self.mechanisms(manifest)):
            noise = self.promise.counted_as(then, noise)
            counted[noise] = counted.get(noise, 0) + times
        return tuple(sorted(counted.items()))


def begun(privacy: Privacy | None, before: Spent | None, manifest: ReleaseManifest | None) -> Spent | None:
    """What is spent when a run begins.

    Args:
        privacy: of the settings; None promises nothing, and keeps no account.
        before: of the run that ends.
        manifest: its last release; None where there was no run. Releases without a promise have cost everything.
    """
    if privacy is None:
        return None
    if manifest is None or (before is None and manifest.number == 0):
        return Spent(privacy.promise)
    return Spent(privacy.promise, before.ended(manifest, privacy.promise) if before is not None else ((0.0, manifest.number),))


def check_promise(privacy: Privacy | None, spent: Spent | None, *, ended: bool = False) -> str:
    """Refuse to go on with a run under another promise than it has begun with.

    Args:
        privacy: of the settings.
        spent: of the run on the disk.
        ended: whether that run has; another one may promise something else, and adds to its costs.

    Returns:
        Why the run does not go on; "" where it does.

    Raises:
        ConfigError: they differ, and the run goes on, or one of them promises nothing.
    """
    promise = privacy.promise if privacy is not None else None
    known = spent.promise if spent is not None else None
    if promise == known:
        return ""
    has = f"mode {known.mode}, clip {known.clip:g}, noise {known.noise:g}, unit {known.unit}" if known else "no privacy"
    if promise and known:
        if ended:
            costs = "the costs of both are added"
            if not known.counted_as(promise, known.noise):
                costs = "epsilon is infinite then, since that run promised nothing to whole devices"
            return f"the run with {has} has ended: a new bundle begins one as [privacy] says, and {costs}"
        hint = (
            "say the same until that run has ended (task.rounds); then another promise and a new bundle begin another run here, "
            "and the costs of both are added"
        )
    elif known:
        hint = "say the same; only another folder in node.state goes without privacy, and with it goes what was spent"
    else:
        hint = "leave privacy away; another folder in node.state begins an account, and does not count what was released here"
    raise ConfigError(f"the run in node.state has begun with {has}, and its releases are out: {hint}", key="privacy")


def check_bounded(privacy: Privacy | None, ranges: Ranges) -> None:
    """Refuse tensors whose part of an update no bound holds.

    Raises:
        ConfigError: there are some, with the key that keeps them at home.
    """
    sent = [slot.name for slot in ranges.statistics if slot not in ranges.local]
    if privacy is not None and sent:
        hint = f"keep them at home with plan.personal = [{sent[0]!r}, ...]"
        reason = f"{sent[0]!r} holds running statistics, which have no bound: {hint}"
        raise ConfigError(reason, key="privacy.mode")
    if privacy is not None and privacy.promise.unit == SAMPLE and ranges.personal:
        raise ConfigError(NO_PERSONAL, key="plan.personal")
    if privacy is not None and ranges.rare:
        raise ConfigError(RARE_IS_LOST, key="plan.rare")


def may_go_on(privacy: Privacy | None, spent: Spent | None, manifest: ReleaseManifest) -> bool:
    """Whether the budget has room for the updates that a release asks for, and the release that comes of them."""
    if privacy is None or spent is None or not privacy.budget:
        return True
    nxt = replace(manifest, number=manifest.number + 1, train=False)
    return spent.epsilon(nxt, privacy.delta) <= privacy.budget


def section_noise(
    privacy: Privacy | None, place: Place, task: str, manifest: ReleaseManifest, ranges: Ranges
) -> SectionNoise | None:
    """The noise of the sums that make a release, float64[P], on the step of its updates; None where the top adds none.

    Tasks of one top share its secret, and may share the numbers of runs: the noise is of one task and bundle.
    """
    if privacy is None or privacy.promise.mode != CENTRAL:
        return None
    step, scale = manifest.step, privacy.promise.clip * privacy.promise.noise / manifest.step

    def noise(section: Section) -> npt.NDArray[np.float64]:
        purpose = json.dumps(["release", place.node, task, manifest.bundle.hex(), manifest.run, manifest.number, section.base])
        drawn = gaussian_integers(place.secret, purpose, ranges.size, scale).astype(np.float64) * step
        blank(drawn, ranges.apart)
        return drawn

    return noise


def privacy_facts(privacy: Privacy | None, spent: Spent | None, manifest: ReleaseManifest) -> dict[str, int | float | str]:
    """Epsilon as a number, and in words for `status`; nothing without privacy."""
    if privacy is None or spent is None:
        return {}
    epsilon, mode = spent.epsilon(manifest, privacy.delta), spent.promise.mode
    words = f"epsilon {epsilon:.3g} at delta {privacy.delta:g} after {manifest.number} releases, {mode}"
    words += ", of single samples" if spent.promise.unit == SAMPLE else ""
    words += "" if may_go_on(privacy, spent, manifest) else f"; one more would exceed {privacy.budget:g}"
    return {"epsilon": round(epsilon, 6), "privacy": words}


def spent_text(spent: Spent | None) -> str | None:
    """For the disk, as JSON."""
    return None if spent is None else json.dumps(asdict(spent))


def spent_of(text: str | None) -> Spent | None:
    """What `spent_text` gave."""
    if text is None:
        return None
    values = json.loads(text)
    earlier = tuple((noise, times) for noise, times in values["earlier"])
    return Spent(Promise(**values["promise"]), earlier, values.get("asked", 0))
