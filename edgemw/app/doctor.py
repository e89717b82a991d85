"""Checks of this machine and its broker: each says what was found and, if it is not right, what to do."""

from __future__ import annotations

import asyncio
import os
import platform
import secrets
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import psutil

from edgemw.app.energy import sources_of
from edgemw.app.settings import Broker, Energy
from edgemw.app.wiring import mqtt_settings
from edgemw.core.errors import LinkError
from edgemw.transport.broker import find_mosquitto
from edgemw.transport.link import Limits, Received, Up
from edgemw.transport.mqtt import MqttLink
from edgemw.wire.chunks import CHUNK_BYTES

Level = Literal["ok", "warn", "fail"]
MIN_DISK_BYTES = 200 << 20
MIN_MEMORY_BYTES = 128 << 20
ROUND_TRIPS = 20
_PACKAGES = (
    ("numpy", "2.0", "fail", "pip install numpy"),
    ("paho-mqtt", "2.2", "fail", "pip install 'paho-mqtt>=2.2'"),
    ("onnxruntime", "1.31", "warn", "a device needs it: pip install 'edgemw[device]'; a fog node does not"),
    ("onnx", "1.19", "ok", "only devices with serving.int8 need it: pip install 'edgemw[int8]'; and authors of tasks"),
    ("torch", "2.13", "ok", "only authors of tasks need it: pip install 'edgemw[author]'"),
)


@dataclass(frozen=True, slots=True)
class Check:
    """One finding."""

    name: str
    level: Level
    found: str
    hint: str = ""


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


async def check_broker(broker: Broker, env: Mapping[str, str]) -> list[Check]:
    """Whether the broker lets us in, what it offers, and how long a message takes there and back."""
    settings = replace(mqtt_settings(broker, f"em1-doctor-{secrets.token_hex(6)}", env, wait=False), session_expiry_s=0)
    link = MqttLink(settings)
    try:
        async with link:
            events = link.events()
            limits = None
            async with asyncio.timeout(settings.connect_timeout_s):
                async for event in events:
                    if isinstance(event, Up):
                        limits = event.limits
                        break
            assert limits is not None
            checks = [
                Check("broker", "ok", f"{broker.url} speaks MQTT {'5' if limits.protocol == 5 else '3.1.1'}"),
                *_limits(limits),
            ]
            return [*checks, await _round_trip(link)]
    except LinkError as error:
        return [Check("broker", "fail", f"{error.what} at {error.where}", error.hint)]
    except TimeoutError:
        return [Check("broker", "fail", f"{broker.url} did not answer in time", "is this the right address?")]


def _limits(limits: Limits) -> Iterator[Check]:
    need = CHUNK_BYTES + 2000
    small = limits.max_packet_bytes < need
    hint = f"raise it to {need}, or set limits.max_message_bytes 2000 bytes below it" if small else ""
    yield Check("largest packet", "fail" if small else "ok", f"{limits.max_packet_bytes} bytes", hint)
    poor = limits.max_qos < 1 or not limits.retain
    found = f"QoS {limits.max_qos}, retained messages {'yes' if limits.retain else 'no'}"
    yield Check("delivery", "fail" if poor else "ok", found, "edgemw needs QoS 1 and retained messages" if poor else "")


async def _round_trip(link: MqttLink) -> Check:
    topic = f"em1/doctor/{secrets.token_hex(8)}"
    times = []
    try:
        async with asyncio.timeout(20):
            await link.subscribe(topic)
            events = link.events()
            for _ in range(ROUND_TRIPS):
                started = time.perf_counter()
                await link.publish(topic, b"x")
                async for event in events:
                    if isinstance(event, Received):
                        break
                times.append(time.perf_counter() - started)
    except (LinkError, TimeoutError) as error:
        return Check(
            "round trip", "fail", f"no answer: {error or 'timed out'}", "may this user publish and subscribe under em1/?"
        )
    middle = sorted(times)[len(times) // 2] * 1000
    slow = middle > 40
    hint = "set_tcp_nodelay true in mosquitto.conf, if the network is not the reason" if slow else ""
    return Check("round trip", "warn" if slow else "ok", f"{middle:.1f} ms (median of {ROUND_TRIPS}, QoS 1)", hint)
