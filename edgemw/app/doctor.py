"""Checks of this machine: each says what was found and, if it is not right, what to do. Its broker: see probing.py."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from edgemw.app.energy import sources_of
from edgemw.app.finding import Check, Level
from edgemw.app.settings import Energy
from edgemw.transport.broker import find_mosquitto

MIN_DISK_BYTES = 200 << 20
MIN_MEMORY_BYTES = 128 << 20
_PACKAGES = (
    ("numpy", "2.0", "fail", "pip install numpy"),
    ("paho-mqtt", "2.2", "fail", "pip install 'paho-mqtt>=2.2'"),
    ("onnxruntime", "1.31", "warn", "a device needs it: pip install 'edgemw[device]'; a fog node does not"),
    ("onnx", "1.19", "ok", "only devices with serving.int8 need it: pip install 'edgemw[int8]'; and authors of tasks"),
    ("torch", "2.13", "ok", "only authors of tasks need it: pip install 'edgemw[author]'"),
)


def check_machine(state: Path | None) -> Iterator[Check]:
    """Interpreter, packages, memory, disk and clock."""
    good = sys.version_info >= (3, 11)
    yield Check("python", "ok" if good else "fail", platform.python_version(), "" if good else "3.11 or later is needed")
    for name, least, missing, hint in _PACKAGES:
        yield _package(name, least, missing, hint)  # type: ignore[arg-type]  # the table holds levels
    memory = psutil.virtual_memory().available
    small = memory < MIN_MEMORY_BYTES
    yield Check(
        "memory", "warn" if small else "ok", f"{memory >> 20} MiB available", "a device uses about 90 MiB" if small else ""
    )
    yield _disk(state or Path.cwd())
    wrong = time.time() < 1_735_689_600  # 2025-01-01: certificates and life numbers need a clock that has been set
    yield Check(
        "clock",
        "warn" if wrong else "ok",
        time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "set the clock" if wrong else "",
    )
    mosquitto = find_mosquitto()
    hint = "" if mosquitto else "install the package mosquitto: amqtt, the fallback of embedded brokers, is for trying things out"
    yield Check("mosquitto", "ok" if mosquitto else "warn", mosquitto or "not installed", hint)


def _package(name: str, least: str, missing: Level, hint: str) -> Check:
    try:
        found = version(name)
    except PackageNotFoundError:
        return Check(name, missing, "not installed", hint)
    old = _numbers(found) < _numbers(least)
    return Check(name, "fail" if old else "ok", found, f"{least} or later is needed: {hint}" if old else "")


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("+")[0].split(".")[:2] if part.isdigit())


def _disk(folder: Path) -> Check:
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if not os.access(existing, os.W_OK):
        return Check("state", "fail", f"{existing} cannot be written", "give node.state a folder that this user may write")
    small = free < MIN_DISK_BYTES
    return Check("state", "warn" if small else "ok", f"{free >> 20} MiB free in {existing}", "free some space" if small else "")


def check_energy(profile: str, settings: Energy) -> Iterator[Check]:
    """Which class of devices this machine is of, and where joules of this node would be known from."""
    sources = sources_of(profile, settings)
    known = sources.profile
    hint = "" if known is not None else "say node.profile: `edgemw profile list` shows all; without one there is no model"
    found = f"{known.name}: {sources.known_by}" if known is not None else f"unknown: {sources.known_by}"
    yield Check("profile", "ok" if known is not None else "warn", found, hint)
    if not float(settings.interval):
        yield Check("energy", "warn", "not looked at", "energy.interval is 0s, so that energy.budget has no effect either")
        return
    there = [name for name, reason in sources.states.items() if not reason]
    absent = [f"{name} {reason}" for name, reason in sources.states.items() if reason]
    hint = "" if there else "no source of energy.sources is here: add 'model', with a profile, or leave that setting out"
    found = ", then ".join(there) or "no source"
    found += f" ({', '.join(absent)})" if absent else ""
    yield Check("energy", "ok" if there else "warn", found, hint)
    for name, error in sources.found.unavailable.items():
        if error.reason != "missing" and error.hint:
            yield Check(f"energy: {name}", "warn", f"there, but {error.reason}", error.hint)
