"""What the top makes of a bundle and of a window: the next release. Values in, values out.

merged -> mean -> server step -> master ; devices get theta, which follows the master in differences or as a whole
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from edgemw.compression.codec import Codec
from edgemw.compression.difference import advance, difference, difference_within, statistics_difference
from edgemw.compression.step_rule import as_step, mean_move, next_step
from edgemw.compression.steps import announced
from edgemw.compression.table import codec_named
from edgemw.core.bundle import Bundle, Vector, theta_bytes
from edgemw.core.encoded import Encoded
from edgemw.core.errors import CodecError
from edgemw.core.plan import Plan, Tally, plan_of
from edgemw.core.ranges import Ranges, Slots, cut, put, ranges_of, statistics_of
from edgemw.fog.events import Released, Totals
from edgemw.fog.privacy import Privacy, SectionNoise
from edgemw.fog.rate import Budget, first_kappa, next_kappa
from edgemw.fog.server import ServerOptions, ServerState, mean_statistics, mean_update, server_step
from edgemw.fog.spending import announced_bytes, empty_update_bytes
from edgemw.fog.trail import Trail
from edgemw.fog.window import WindowOptions
from edgemw.wire.chunks import CHUNK_BYTES, blob_of
from edgemw.wire.fields import MAX_INTEGER
from edgemw.wire.messages import ReleaseManifest

MAX_PAST = 64  # releases whose statistics are kept


@dataclass(frozen=True, slots=True)
class TopOptions:
    """How the top trains.

    Attributes:
        window: when a window closes.
        server: the server's optimiser.
        plan: changes to the bundle's training defaults, by the names of Plan.
        rounds: releases to make; 0 is without end.
        target: stop once the first metric is as good as this; 0 is off.
        codec, parameters, kappa: how updates are encoded.
        release_codec, release_kappa: how releases are encoded: "lattice", or "dense" for theta as a whole every time.
        budget, release_budget: bytes of one device for its updates, and for releases; where one is given it decides on the step.
        privacy: what is promised to devices; None is nothing.
        chunk_bytes: bundles and releases are cut into pieces of this size.
        threshold: percent of a group of devices that takes the masks off its sum; 0: no masks.
    """

    window: WindowOptions
    server: ServerOptions
    plan: dict[str, int | float | str]
    rounds: int = 0
    target: float = 0.0
    codec: str = "lattice"
    parameters: dict[str, int | float | str] = field(default_factory=dict)
    kappa: float = 16.0
    release_codec: str = "lattice"
    release_kappa: float = 2.0
    budget: Budget = field(default_factory=Budget)
    release_budget: Budget = field(default_factory=Budget)
    privacy: Privacy | None = None
    chunk_bytes: int = CHUNK_BYTES
    threshold: int = 0


def first_release(bundle: Bundle, label: bytes, run: int, options: TopOptions) -> ReleaseManifest:
    """The manifest of a bundle's release 0. Raises ConfigError where the patterns of the plan do not fit it."""
    plan = _plan(bundle, options)
    return ReleaseManifest(
        run=run,
        number=0,
        bundle=label,
        theta=blob_of(theta_bytes(bundle.theta0), options.chunk_bytes),
        train=True,
        codec=options.codec,
        parameters=_parameters(bundle, options),
        step=options.privacy.step(past_of(bundle).ranges(plan)) if options.privacy is not None else 0.0,
        plan=plan,
        max_staleness=options.window.max_staleness,
        threshold=options.threshold,
    )


def taken_up(released: Released, bundle: Bundle, options: TopOptions) -> ReleaseManifest:
    """The manifest of a release from the disk, for settings that may have changed; it is whole, what led to it is not kept."""
    manifest = released.manifest
    return replace(
        manifest,
        theta=blob_of(theta_bytes(released.theta), options.chunk_bytes),
        whole=True,
        difference=b"",
        packed=(),
        plan=_plan(bundle, options),
        codec=options.codec,
        parameters=_parameters(bundle, options),
        step=announced(codec_named(options.codec, **options.parameters), manifest.step)
        if options.codec == manifest.codec
        else 0.0,
        max_staleness=options.window.max_staleness,
        threshold=options.threshold,
    )


@dataclass(frozen=True, slots=True)
class Past:
    """What the next release needs to know besides the present one.

    Attributes:
        layout: of the bundle.
        own_plan: what the bundle says of training.
        statistics: running statistics of the last releases by number, the present one among them.
    """

    layout: Slots = ()
    own_plan: Plan = field(default_factory=Plan)
    statistics: Mapping[int, Vector] = field(default_factory=dict)

    def ranges(self, plan: Plan | None) -> Ranges:
        """What a release's plan keeps from the codec. Raises ConfigError where its patterns do not fit the layout."""
        return ranges_of(self.layout, plan or self.own_plan)

    def then(self, released: Released, max_staleness: int) -> Past:
        """The same with one more release; of earlier ones those stay that updates may come from."""
        number, slots = released.manifest.number, statistics_of(self.layout)
        oldest = number - min(max_staleness, MAX_PAST)
        kept = {one: values for one, values in self.statistics.items() if oldest <= one < number}
        return replace(self, statistics=kept | {number: cut(released.theta, slots)})


def past_of(bundle: Bundle) -> Past:
    """Before the first release."""
    return Past(bundle.manifest.layout, plan_of(bundle.manifest.training))


def moved(
    nxt: Released,
    past: Past,
    merged: Encoded,
    empty_bytes: float,
    options: TopOptions,
    trail: Trail,
    noise: Callable[[ReleaseManifest, Ranges], SectionNoise | None] = lambda manifest, ranges: None,
) -> Released:
    """The release after the server step.

    Args:
        nxt: the release before, with the number of the next.
        past: the releases before.
        merged: the sum of the window.
        empty_bytes: of an update without symbols.
        trail: told of a difference that is too large for the manifest.
        noise: that the sums of the window get.

    Raises:
        CodecError: the release would not be finite.
        ConfigError: the patterns of the plan do not fit the layout.
        WireError: a payload is malformed.
    """
    codec = codec_named(nxt.manifest.codec, **nxt.manifest.parameters)
    base, ranges, master = nxt.manifest.number - 1, past.ranges(nxt.manifest.plan), nxt.master
    mean = mean_update(codec, merged, base, options.server.staleness, noise(nxt.manifest, ranges))
    state = server_step(ServerState(master, nxt.first, nxt.second), mean, options.server)
    put(state.theta, ranges.statistics, mean_statistics(merged, past.statistics, base, options.server.staleness))
    put(state.theta, ranges.local, cut(master, ranges.local))  # whatever a codec or a moment says of it
    if not all(vector is None or np.isfinite(vector).all() for vector in (state.theta, state.first, state.second)):
        raise CodecError(f"release {nxt.manifest.number} would hold NaN or infinite values")
    if codec.stepped and options.privacy is None:  # there the step is one for all releases, and tells nothing of the data
        coordinates = sum(section.count * ranges.coded(section.base) for section in merged.sections)
        move = mean_move(sum(section.energy for section in merged.sections), coordinates)
        nxt = _stepped(nxt, codec, move, empty_bytes, options)
    nxt = replace(nxt, first=state.first, second=state.second)
    return _towards(nxt, state.theta, options, trail, ranges)


def counted(totals: Totals, parts: Sequence[Encoded], tally: Tally) -> Totals:
    """The totals with a window added; they stay numbers that the disk and the wire can hold."""
    sums = (
        totals.updates + sum(part.count for part in parts),
        totals.weight + sum(part.weight for part in parts),
        totals.uplink_bytes + max(0, int(tally.get("uplink", (0, 0))[0])),
        totals.downlink_bytes + max(0, int(tally.get("downlink", (0, 0))[0])),
    )
    return Totals(*(min(number, MAX_INTEGER) for number in sums))


def _stepped(nxt: Released, codec: Codec, move: float, empty_bytes: float, options: TopOptions) -> Released:
    """The next release with its step, from the root mean square of what devices moved; nobody's move leaves it as it is."""
    if move <= 0:
        return nxt
    rate, budget, size = nxt.rate.and_move(move), options.budget, nxt.theta.size
    if not budget.given:
        step = next_step(options.kappa, move, rate.step)
    elif rate.step > 0:
        step = next_kappa(rate, budget, empty_bytes, nxt.manifest.number) * move
    else:
        step = first_kappa(budget, empty_bytes, size) * move
    manifest = replace(nxt.manifest, step=announced(codec, as_step(step)))
    return replace(nxt, manifest=manifest, rate=replace(rate, step=step))


def _towards(nxt: Released, master: Vector, options: TopOptions, trail: Trail, ranges: Ranges) -> Released:
    """The release that leads to `master`; what `nxt` holds of theta and manifest is still the one before."""
    base, manifest, lead = theta_bytes(nxt.theta), nxt.manifest, None
    if options.release_codec == "lattice":
        beside = statistics_difference(nxt.theta, master, ranges.statistics)
        if options.release_budget.given:
            limit_bytes = _limit_bytes(nxt, options.release_budget, trail, beside)
            payload = difference_within(nxt.theta, master, limit_bytes, ranges.apart)
        else:
            payload = difference(nxt.theta, master, master - nxt.master, options.release_kappa, ranges.apart)
        theta = advance(base, payload, beside, ranges.statistics)
        if theta == base:  # nothing that could be said: whoever has the release before has this one
            return replace(nxt, residual=master - nxt.theta)
        lead = trail.lead(manifest, payload, beside)
    if lead is None:
        blob = blob_of(theta_bytes(master), options.chunk_bytes)
        whole = replace(manifest, theta=blob, whole=True, difference=b"", packed=())
        return replace(nxt, manifest=whole, theta=master, residual=None)
    if not lead.inline:
        trail.put(lead.blob, lead.data)
    vector = np.frombuffer(theta, "<f4").astype(np.float32)
    manifest = replace(lead.into(manifest), theta=blob_of(theta, options.chunk_bytes))
    return replace(nxt, manifest=manifest, theta=vector, residual=master - vector)


def _parameters(bundle: Bundle, options: TopOptions) -> dict[str, int | float | str]:
    """What devices make the codec with; kappa is for the releases that announce no step, among them the first."""
    if options.codec != "lattice":
        return options.parameters
    kappa, manifest = options.kappa, bundle.manifest
    if options.budget.given:
        codec = codec_named(options.codec, **options.parameters)
        empty_bytes = empty_update_bytes(manifest.name, manifest.metrics, codec, manifest.size)
        kappa = first_kappa(options.budget, empty_bytes, manifest.size)
    promised = options.privacy.parameters if options.privacy is not None else {}
    return {"kappa": kappa, **options.parameters, **promised}


def _limit_bytes(nxt: Released, budget: Budget, trail: Trail, beside: bytes) -> float:
    """What the budget of releases leaves for the payload of this one."""
    blank = trail.lead(nxt.manifest, b"", beside)
    around = announced_bytes(blank.into(nxt.manifest)) if blank is not None else 0
    return budget.next_bytes(nxt.rate.got_bytes, nxt.manifest.number - 1) - around


def _plan(bundle: Bundle, options: TopOptions) -> Plan | None:
    """The plan where it is not the bundle's own, which every device has."""
    promised = options.privacy.plan if options.privacy is not None else {}
    plan, own = plan_of(bundle.manifest.training | options.plan | promised), plan_of(bundle.manifest.training)
    return None if plan == own else plan
