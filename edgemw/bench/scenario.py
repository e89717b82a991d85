"""A deployment file as a fleet in virtual time: its tree, windows, codec, samples and task."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgemw.app import sections
from edgemw.app.checks import AUTO
from edgemw.app.dealing import deal_out
from edgemw.app.deployment import device_ids, load_deployment
from edgemw.app.masking import check_library, check_masked_task
from edgemw.app.private import check_account, check_bundle
from edgemw.app.settings import Deployment, FogFile, Node, read_text
from edgemw.app.tiers import Tier, child_counts, node_id
from edgemw.app.wiring import check_plan_fits, fog_options, open_oracle, uplink_of
from edgemw.bench.cost import Group, class_of, times_of
from edgemw.bench.experiment import bundle_at, top_options, tree_of
from edgemw.core.bundle import Bundle, read_bundle
from edgemw.core.config.tree import parse_toml
from edgemw.core.errors import ConfigError
from edgemw.core.plan import plan_of, within
from edgemw.device.events import Work, Worked
from edgemw.device.uplink import Uplink
from edgemw.fog.release import TopOptions
from edgemw.fog.window import WindowOptions
from edgemw.learning.dataset import fit
from edgemw.simulation.fleet import Begin
from edgemw.simulation.learner import Learner, Share
from edgemw.simulation.tree import Tree

NOT_TRAINED = "nobody trains in this simulation"


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a simulation is of.

    Attributes:
        name, metric: of the deployment, and of its task.
        rounds: to make; 0 is without end.
        data: the task, as its file holds it.
        tree: who is below whom.
        options: of the top and of every fog node.
        shares: what devices have to train on and to measure with; empty where nobody trains.
        refused: why others cannot train.
        uplinks: what devices may send about updates, where that is limited.
        groups: nodes whose class is known, tier by tier.
        threads: of a training.
        how: how the samples were dealt out, in words.
    """

    name: str
    metric: str
    rounds: int
    data: bytes = field(repr=False)
    tree: Tree
    options: Mapping[str, TopOptions | WindowOptions]
    shares: Mapping[str, Share] = field(repr=False)
    refused: Mapping[str, str]
    uplinks: Mapping[str, sections.Uplink]
    groups: tuple[Group, ...]
    threads: int
    how: str

    def times(self) -> dict[str, float]:
        """Mean seconds of a training of every device whose class is known. Raises ConfigError where that does not say it."""
        top = next(options for options in self.options.values() if isinstance(options, TopOptions))
        manifest = read_bundle(self.data).manifest
        plan = plan_of({**manifest.training, **top.plan})
        samples = {
            device: float(plan.steps * within(plan, share.max_batch).batch_size or len(share.train) * plan.epochs)
            for device, share in self.shares.items()
        }
        return times_of(self.groups, manifest.size, samples)

    def uplink(self, device: str, now: float) -> Uplink | None:
        """Of one life of a device; None is no limit."""
        found = self.uplinks.get(device)
        return None if found is None else uplink_of(found, now)

    @contextmanager
    def working(self, workers: int) -> Iterator[Begin]:
        """The work of devices, in this process or in so many others."""
        if not self.shares:
            yield untrained
        elif workers == 0:
            learner = _learner(self.data, self.shares, self.refused, self.threads)
            yield lambda name, work: _done(learner(name, work))
        else:
            given = self.data, self.shares, self.refused, self.threads
            with ProcessPoolExecutor(workers, initializer=_open, initargs=given) as pool:
                yield lambda name, work: pool.submit(_work, name, work).result


def scenario_of(
    file: Path,
    samples: Path | None,
    devices: int,
    env: Mapping[str, str],
    overrides: Sequence[str],
    *,
    train: bool,
    profile: str = "",
) -> Scenario:
    """Read and check everything that a simulation needs.

    Args:
        file: of the deployment.
        samples: an .npz file instead of what the deployment names.
        devices: instead of as many as it has; 0 keeps them.
        env: environment.
        overrides: changes, as KEY=VALUE.
        train: whether devices train; without it they need no samples.
        profile: class of all devices, instead of those of their tiers.

    Raises:
        ConfigError: something that was asked for is refused; the message says what to write.
        BundleError: the bundle cannot be used.
        DataError: the data cannot be used with it.
    """
    if profile == AUTO:
        raise ConfigError("needs a name: what this machine is has nothing to do with those that are simulated", key="--profile")
    of_all = [f"tiers.{name}.profile={profile}" for name in _device_tiers(file)] if profile else []
    settings = load_deployment(file, samples, env, [*overrides, *of_all, *(_as_many(file, devices) if devices else ())])
    if settings.task.bundle is None:
        raise ConfigError("a simulation needs a bundle", key="task.bundle", file=str(file))
    data, bundle = bundle_at(settings.task.bundle)
    check_plan_fits(bundle, settings.plan)
    check_bundle(settings.privacy, bundle, settings.plan)
    check_account(settings.privacy)
    check_masked_task(settings.privacy, bundle.manifest, settings.plan.changes())
    check_library(masks=settings.privacy.masks)
    tree = tree_of(settings)
    shares, refused, how = _shares(settings, tree, bundle) if train else ({}, {}, NOT_TRAINED)
    metric = bundle.manifest.metrics[0] if bundle.manifest.metrics else "loss"
    threads = next(tier.training.threads for tier in settings.tiers.values() if tier.role == "device")
    rounds, options = settings.task.rounds, _options(settings)
    uplinks = {device: tier.uplink for device, tier in _devices(settings) if tier.uplink.rate or tier.uplink.max_upload}
    groups = tuple(_groups(settings))
    return Scenario(settings.name, metric, rounds, data, tree, options, shares, refused, uplinks, groups, threads, how)


def _groups(settings: Deployment) -> Iterator[Group]:
    """The tiers whose class is named: what this machine is of has no part in a simulation."""
    for name, tier in settings.tiers.items():
        if tier.profile not in ("", AUTO):
            nodes = tuple(node_id(name, number, top=name == settings.top) for number in range(tier.count))
            yield Group(name, class_of(tier.profile), nodes, tier.role == "device")


def _devices(settings: Deployment) -> Iterator[tuple[str, Tier]]:
    """Every device with its tier."""
    for name, tier in settings.tiers.items():
        if tier.role == "device":
            for number in range(tier.count):
                yield node_id(name, number, top=False), tier


def _as_many(file: Path, devices: int) -> list[str]:
    """The settings that make it so many devices; the file need not fit together without them."""
    tiers = _device_tiers(file)
    if not tiers:
        return []  # what is wrong is said when it is loaded
    if len(tiers) > 1:
        raise ConfigError(f"which of {', '.join(tiers)}? Say --set tiers.NAME.count={devices}", key="--devices")
    return [f"tiers.{tiers[0]}.count={devices}"]


def _device_tiers(file: Path) -> list[str]:
    """The tiers of devices, as far as a file that was not checked says them."""
    written = parse_toml(read_text(file), str(file)).get("tiers", {})
    if not isinstance(written, dict):
        return []
    return [name for name, tier in written.items() if isinstance(tier, dict) and tier.get("role") == "device"]


def _options(settings: Deployment) -> dict[str, TopOptions | WindowOptions]:
    found: dict[str, TopOptions | WindowOptions] = {}
    for name, tier in settings.tiers.items():
        if tier.role != "fog":
            continue
        counts = child_counts(settings.tiers, name)
        for number in range(tier.count):
            node = node_id(name, number, top=name == settings.top)
            file = FogFile(net=settings.name, node=Node(id=node, parent="above"), window=tier.window, limits=tier.limits)
            window = fog_options(file)
            assert isinstance(window, WindowOptions)
            window = replace(window, children=window.children or counts[number])
            found[node] = replace(top_options(settings), window=window) if name == settings.top else window
    return found


def _shares(settings: Deployment, tree: Tree, bundle: Bundle) -> tuple[dict[str, Share], dict[str, str], str]:
    if settings.data is None or device_ids(settings) != tree.devices:
        raise ConfigError("every device takes its part of [data] here: give --data, and no tier its own", key="--data")
    dealt = deal_out(settings.data, tree.devices, bundle.manifest)
    shares, tiers = {}, dict(_devices(settings))
    for device, (train, test) in dealt.rows.items():
        if device not in dealt.refused:
            train_part, test_part = (fit(dealt.samples.take(rows), bundle.manifest) for rows in (train, test))
            shares[device] = Share(train_part, {"": test_part}, tiers[device].training.max_batch)
    return shares, dict(dealt.refused), dealt.how


# ------------------------------------------------------------------------------------------------------- the work of devices


def _done(worked: Worked) -> Callable[[], Worked]:
    return lambda: worked


def untrained(name: str, work: Work) -> Callable[[], Worked]:
    """The work of a device that only answers."""
    return _answered(work.release.number, train=work.train)


@functools.lru_cache(64)
def _answered(number: int, *, train: bool) -> Callable[[], Worked]:
    """What all of them answer to a release."""
    return _done(Worked(number, None, {}, NOT_TRAINED if train else ""))


def _learner(data: bytes, shares: Mapping[str, Share], refused: Mapping[str, str], threads: int) -> Learner:
    return Learner(open_oracle(read_bundle(data), threads), shares, refused)


_here: list[Learner] = []
"""Of a process that works for others."""


def _open(data: bytes, shares: Mapping[str, Share], refused: Mapping[str, str], threads: int) -> None:
    _here.append(_learner(data, shares, refused, threads))


def _work(name: str, work: Work) -> Worked:
    return _here[0](name, work)
