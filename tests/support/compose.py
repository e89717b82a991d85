"""Reads docker/compose.yaml: what each of its services is started with, as far as an ordinary process can have it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support.dockerfile import Image, image, stages

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docker"
SECRETS = "/run/secrets"
OTHERS = {"prometheus": Image({}, "0:0", ["/usr/bin/prometheus"], [], [], [])}
"""Images of others, as they are known: what a container of them runs."""


@dataclass(frozen=True)
class Mount:
    """What a container sees at `target`: a file or folder of this machine, or the volume of this name."""

    source: str
    target: str
    writable: bool

    @property
    def is_volume(self) -> bool:
        return "/" not in self.source


@dataclass(frozen=True)
class Service:
    """One service: what its image says, and what compose.yaml changes; images of others have no `target`."""

    name: str
    image: Image
    target: str | None
    mounts: tuple[Mount, ...]
    said: Mapping[str, Any]

    @property
    def command(self) -> list[str]:
        return [*self.image.entrypoint, *(self.said.get("command") or self.image.command)]

    @property
    def user(self) -> str:
        return str(self.said.get("user", self.image.user))

    @property
    def env(self) -> dict[str, str]:
        return {**self.image.env, **self.said.get("environment", {})}


def certificates(folder: Path, *names: str, **said: str) -> str:
    """What docker/certificates.sh says that it did in this folder."""
    env = {**os.environ, "SECRETS": str(folder), **said}
    words = [str(FOLDER / "certificates.sh"), *names]
    return subprocess.run(words, env=env, capture_output=True, text=True, timeout=120, check=True).stdout


def document() -> dict[str, Any]:
    """The whole file, anchors resolved."""
    found = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    assert isinstance(found, dict)
    return found


def services(secrets: Path) -> dict[str, Service]:
    """The services by name, but for Grafana, which is nowhere packaged; secrets come from this folder."""
    whole = document()
    known = stages((FOLDER / "Dockerfile").read_text())
    files = {name: str(secrets / said["file"].removeprefix("secrets/")) for name, said in whole["secrets"].items()}
    found = {}
    for name, said in whole["services"].items():
        if "build" in said:
            target = said["build"]["target"]
            found[name] = Service(name, image(known, target), target, mounts(said, files), said)
        elif name in OTHERS:
            found[name] = Service(name, OTHERS[name], None, mounts(said, files), said)
    return found


def mounts(said: Mapping[str, Any], files: Mapping[str, str]) -> tuple[Mount, ...]:
    """Volumes, files and secrets of a service."""
    found = []
    for volume in said.get("volumes", []):
        source, target, *mode = volume.split(":")
        place = str((FOLDER / source).resolve()) if source.startswith(".") else source
        found.append(Mount(place, target, mode != ["ro"]))
    for secret in said.get("secrets", []):
        source = secret if isinstance(secret, str) else secret["source"]
        target = source if isinstance(secret, str) else secret["target"]
        found.append(Mount(files[source], target if target.startswith("/") else f"{SECRETS}/{target}", writable=False))
    return tuple(found)
