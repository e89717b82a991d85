"""What docker/Dockerfile installs, installed here: its commands run in a folder, against the package index."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from tests.support.compose import FOLDER, ROOT
from tests.support.dockerfile import environment, lineage, stages

STAGES = stages((FOLDER / "Dockerfile").read_text())
PLACES = ("/opt/edgemw", "/wheels", "/src")
LARGEST_MB = 120  # of a device on x86-64; 103 with Python 3.11, most of it ONNX Runtime and numpy


class Build:
    """The stages of a Dockerfile that install, with their folders moved below another one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def here(self, text: str) -> str:
        for place in PLACES:
            text = text.replace(place, f"{self.folder}{place}")
        return text

    def copy(self, stage: str) -> None:
        """What COPY brings."""
        for words in (text.split() for text in STAGES[stage].texts("COPY")):
            for name in words[:-1]:
                target = self.folder / "src" / name
                if (ROOT / name).is_dir():
                    shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
                else:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(ROOT / name, target)

    def run(self, stage: str, what: str = "") -> None:
        """Every RUN that has this in it, but those of Debian's packages."""
        said = environment(lineage(STAGES, stage))
        env = {**os.environ, **{key: self.here(value) for key, value in said.items() if key != "PATH"}}
        env = {key: value for key, value in env.items() if key not in ("PYTHONPATH", "PIP_NO_CACHE_DIR")}
        for text in STAGES[stage].texts("RUN"):
            if what in text and "apt-get" not in text:
                line = self.here(text).replace("python3 -m", f"{sys.executable} -m")
                words = ["sh", "-c", line]
                done = subprocess.run(words, cwd=self.folder / "src", env=env, capture_output=True, text=True, check=False)
                assert done.returncode == 0, f"{line}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"

    def installed(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run something of what was installed."""
        command = [f"{self.folder}/opt/edgemw/bin/{words[0]}", *words[1:]]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=self.folder, env={}, check=False)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Build:
    build = Build(tmp_path_factory.mktemp("image"))
    build.copy("packages")
    build.run("packages")
    return build


@pytest.fixture(scope="module")
def device(built: Build) -> Build:
    built.run("device-packages")
    return built


def test_the_commands_are_there_with_compiled_coders_and_nothing_of_the_authors_side(device: Build) -> None:
    assert "usage: edgemw" in device.installed("edgemw", "--help").stdout
    doctor = device.installed("edgemw", "doctor")
    assert "FAIL" not in doctor.stdout, doctor.stdout
    assert "onnxruntime" in doctor.stdout
    for module in ("torch", "pip", "sklearn", "matplotlib"):
        assert "ModuleNotFoundError" in device.installed("python", "-I", "-c", f"import {module}").stderr, module
    coders = (device.folder / "opt").rglob("edgemw/compression/*.abi3.so")
    found = sorted(path.name.split(".")[0] for path in coders)
    assert found == ["_golomb", "_rangecoder"]


def test_what_a_device_installs_is_small(device: Build) -> None:
    files = [path for path in (device.folder / "opt").rglob("*") if path.is_file() and not path.is_symlink()]
    megabytes = sum(path.stat().st_size for path in files) / 1e6
    print(f"{megabytes:.0f} MB")
    assert megabytes < LARGEST_MB


def test_a_wheel_is_the_same_bytes_when_it_is_built_again(built: Build, tmp_path: Path) -> None:
    again = Build(tmp_path)
    again.copy("packages")
    again.run("packages", "pip wheel")
    first, second = (sha256(next((folder / "wheels").iterdir()).read_bytes()).hexdigest() for folder in (built.folder, tmp_path))
    assert first == second
