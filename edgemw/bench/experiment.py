"""From what a user asks for to runs that can be started: task, tree, samples of every device, and the settings to compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from edgemw.app.dealing import as_its_arrays_say, deal_out
from edgemw.app.deployment import device_ids, load_deployment
from edgemw.app.sections import Dataset, Node
from edgemw.app.settings import TOP_ONLY, Deployment, FogFile
from edgemw.app.tiers import node_id, parent_of
from edgemw.app.wiring import fog_options, load_bundle, open_oracle
from edgemw.bench.settings import REFERENCE, Setting
from edgemw.core.bundle import Bundle, Manifest
from edgemw.core.config.loader import load
from edgemw.core.errors import BundleError, ConfigError, DataError
from edgemw.fog.release import TopOptions
from edgemw.learning.dataset import Samples, fit
from edgemw.learning.oracle import Oracle
from edgemw.simulation.learner import Share
from edgemw.simulation.tree import Tree

VALIDATION = "validation."
"""Stands before the names of metrics on the samples that settings are chosen by."""
VALIDATION_SHARE = 0.2
DIGITS = "digits"
_FEWEST = 2  # training samples of a device from which one is held out


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a user asks for.

    Attributes:
        settings: to compare; the reference is added where it is not among them.
        seeds: runs of each.
        task: a bundle; None takes the deployment's.
        data: an .npz file, or the name of a data set; None takes the deployment's.
        config: a deployment file to take everything from that is not said here.
        devices, fogs: of the tree, where no deployment says it; no fogs put devices under the top.
        partition: how samples are dealt out; "" as their arrays, or the deployment, say.
        rounds: of each run; 0 takes the deployment's.
        participation: the chance that a device trains in a round.
        overrides: changes to the deployment, as KEY=VALUE.
    """

    settings: tuple[Setting, ...]
    seeds: int = 3
    task: Path | None = None
    data: str | None = None
    config: Path | None = None
    devices: int = 8
    fogs: int = 2
    partition: str = ""
    rounds: int = 0
    participation: float = 1.0
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Experiment:
    """What is the same for every run, and the options of the top for each setting, the reference first."""

    data: bytes = field(repr=False)
    bundle: Bundle
    oracle: Oracle
    tree: Tree
    dataset: Dataset
    options: Mapping[str, TopOptions]
    rounds: int
    participation: float = 1.0

    @property
    def metric(self) -> str:
        """The metric that settings are compared by."""
        return self.bundle.manifest.metrics[0]

    def shares(self, seed: int) -> tuple[dict[str, Share], dict[str, str], str]:
        """What every device has in the runs of a seed, why others have nothing, and how it was dealt out.

        A fifth of the training samples of every device is held out for validation.

        Raises:
            DataError: the data cannot be dealt out so, or nothing can be held out.
        """
        manifest = self.bundle.manifest
        dataset = replace(self.dataset, seed=self.dataset.seed + seed)
        dealt = deal_out(dataset, self.tree.devices, manifest)
        shares = {}
        for number, (device, (rows, test)) in enumerate(dealt.rows.items()):
            if device in dealt.refused:
                continue
            order = np.random.Generator(np.random.Philox([seed, number])).permutation(rows)
            held = round(VALIDATION_SHARE * len(rows)) if len(rows) >= _FEWEST else 0
            train, validation, tests = (
                fit(dealt.samples.take(np.sort(part)), manifest) for part in (order[held:], order[:held], test)
            )
            shares[device] = Share(train, _held(validation, tests))
        if not any(len(share.held[VALIDATION]) for share in shares.values()):
            raise DataError("no device has enough samples to hold some out for validation: ask for fewer devices")
        return shares, dict(dealt.refused), dealt.how


def _held(validation: Samples, test: Samples) -> dict[str, Samples]:
    return {VALIDATION: validation, "": test}


def prepare(request: Request, env: Mapping[str, str]) -> Experiment:
    """Read and check everything that the runs need.

    Raises:
        ConfigError: something that was asked for is refused; the message says what to write.
        BundleError: the bundle cannot be used.
        DataError: the data cannot be used with it.
    """
    if request.data is None and request.config is None:
        raise ConfigError(f"is missing: give samples, an .npz file or {DIGITS!r}", key="--data")
    if request.config is None and request.fogs > request.devices:
        raise ConfigError(f"{request.fogs} fog nodes for {request.devices} devices: each needs one", key="--fogs")
    for override in request.overrides:
        if override.startswith("codec."):
            key = override.partition("=")[0]
            raise ConfigError("belongs to a setting here, such as --codecs lattice:budget_round=1.5kB", key=key)
    settings = (REFERENCE, *(setting for setting in request.settings if setting != REFERENCE))
    classes = _classes(request.task)
    lifted = _without_windows(request, env)
    deployments = [_deployment(request, setting, env, lifted, classes=classes) for setting in settings]
    first = deployments[0]
    if first.task.bundle is None:
        raise ConfigError("is missing: give a bundle, such as --task digits.edge (`edgemw compile` makes one)", key="--task")
    data, bundle = bundle_at(first.task.bundle)
    if first.task.rounds == 0:
        raise ConfigError("is missing: this deployment has no end of its own", key="--rounds")
    if not bundle.manifest.metrics:
        raise BundleError(f"{first.task.bundle}: the task has no metric: name one where it is compiled")
    tree = tree_of(first)
    if first.data is None or device_ids(first) != tree.devices:
        raise ConfigError("every device takes its part of [data] here: give --data, and no tier its own", key="--data")
    options = {setting.text: top_options(deployment) for setting, deployment in zip(settings, deployments, strict=True)}
    threads = next(tier.training.threads for tier in first.tiers.values() if tier.role == "device")
    return Experiment(
        data, bundle, open_oracle(bundle, threads), tree, first.data, options, first.task.rounds, request.participation
    )


def bundle_at(path: Path) -> tuple[bytes, Bundle]:
    """A bundle file: its bytes, and what is in it. Raises BundleError, which says how one is made where there is none."""
    if not path.exists():
        raise BundleError(f"{path}: there is no such file: make it with `edgemw compile`")
    return load_bundle(path)


def _classes(task: Path | None) -> bool:
    """Whether a bundle is of a classification, so that its samples can be dealt out by class."""
    if task is None:
        return True
    manifest: Manifest = bundle_at(task)[1].manifest
    return manifest.classes is not None and manifest.target.shape == ()


# ---------------------------------------------------------------------------------------------------------- a deployment


def _deployment(
    request: Request, setting: Setting, env: Mapping[str, str], lifted: Sequence[str], *, classes: bool
) -> Deployment:
    """The deployment of one setting; everything but the codec and the way of releases is the same for all."""
    overrides, samples = (*_said(request), *lifted, *setting.overrides), _samples(request)
    try:
        if request.config is not None:
            return load_deployment(request.config, samples, env, overrides)
        return _built_in(request, samples, env, overrides, classes=classes)
    except ConfigError as error:
        if (error.key or "").startswith(("codec.", "release.")):
            raise ConfigError(f"{setting.text!r}: {error}", key="--codecs") from error
        raise


def _without_windows(request: Request, env: Mapping[str, str]) -> list[str]:
    """What takes the budgets of a file's windows away: not every codec could keep them, and windows are not used here.

    The file is read as it is: what is wrong with it is not said of a setting.
    """
    if request.config is None:
        return []
    tiers = load_deployment(request.config, _samples(request), env, _said(request)).tiers
    return [f"tiers.{name}.window.budget=0" for name, tier in tiers.items() if tier.role == "fog" and tier.window.budget]


def _samples(request: Request) -> Path | None:
    return None if request.data is None or request.data == DIGITS else Path(request.data)


def _said(request: Request) -> list[str]:
    """The flags as settings, and what was given as settings."""
    said = []
    if request.task is not None:
        said.append(f"task.bundle={request.task.absolute()}")
    if request.rounds:
        said.append(f"task.rounds={request.rounds}")
    if request.partition:
        said.append(f"data.partition={request.partition}")
    if request.data == DIGITS:
        said += [f"data.source={DIGITS}"]
    return [*said, *request.overrides, "task.target=0"]


def _built_in(
    request: Request, samples: Path | None, env: Mapping[str, str], overrides: Sequence[str], *, classes: bool
) -> Deployment:
    given = [f"data.path={samples.absolute()}"] if samples is not None else []
    text = _text(request.devices, request.fogs, "dirichlet" if classes else "iid")
    loaded = load(Deployment, text, "edgemw bench", cwd=Path.cwd(), env=env, overrides=[*given, *overrides])
    settings = loaded.value
    if samples is None or settings.data is None:
        return settings
    said = {key.removeprefix("data.") for key, origin in loaded.origins.items() if origin.kind in ("flag", "environment")}
    return replace(settings, data=as_its_arrays_say(settings.data, said))


def _text(devices: int, fogs: int, partition: str) -> str:
    """A deployment of two or three tiers; with no `[data]` source, so that a flag gives it."""
    tiers = ['[tiers.top]\nrole = "fog"']
    if fogs:
        tiers.append(f'[tiers.fog]\nrole = "fog"\nparent = "top"\ncount = {fogs}')
    tiers.append(f'[tiers.device]\nrole = "device"\nparent = "{"fog" if fogs else "top"}"\ncount = {devices}')
    limits = f"[limits]\nmax_children = {min(max(devices, fogs), 100_000)}"
    return "\n".join([f'name = "bench"\n[data]\npartition = "{partition}"\nalpha = 0.3', limits, *tiers])


def top_options(settings: Deployment) -> TopOptions:
    """What a deployment says of its top; its window is that of every fog node that says no other."""
    sections = {name: getattr(settings, name) for name in TOP_ONLY}
    options = fog_options(FogFile(net=settings.name, node=Node(id=settings.top), **sections))
    assert isinstance(options, TopOptions)  # a fog node without a parent
    return options


def tree_of(settings: Deployment) -> Tree:
    """Who is below whom in a deployment."""
    parents = {}
    for name in settings.top_down[1:]:
        tier = settings.tiers[name]
        assert tier.parent is not None
        above = settings.tiers[tier.parent].count
        for number in range(tier.count):
            parent = node_id(tier.parent, parent_of(number, tier.count, above), top=tier.parent == settings.top)
            parents[node_id(name, number, top=False)] = parent
    return Tree(parents)
