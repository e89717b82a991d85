"""All probes of one broker, one after the other, within a bound of time."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from edgemw.app.broker import mqtt_settings
from edgemw.app.finding import Check
from edgemw.app.ground import Ground
from edgemw.app.probes import FIRST, PROBES, Probe
from edgemw.app.rights import access_rules
from edgemw.app.running import CHUNK_FRAME_BYTES
from edgemw.app.settings import Broker
from edgemw.core.errors import LinkError
from edgemw.core.ids import Place
from edgemw.transport.link import Up
from edgemw.transport.mqtt import MqttLink
from edgemw.wire.chunks import CHUNK_BYTES

WITHIN_S = 30.0
NOTICE_S = 2.0


@dataclass(frozen=True, slots=True)
class Subject:
    """A broker, and who uses it: `place` is of the node whose rights count, with the parent "" where only its name is known."""

    broker: Broker
    place: Place
    chunk_bytes: int = CHUNK_BYTES


async def probe_broker(
    subject: Subject, env: Mapping[str, str], tell: Callable[[str], None], within_s: float = WITHIN_S
) -> AsyncIterator[Check]:
    """Each finding as soon as it is there; nothing is left on the broker.

    Args:
        tell: is given the name of a probe that takes more than two seconds.
        within_s: for all of them, and a few seconds to connect and to clean up.
    """
    try:
        ground = await open_ground(subject, env)
    except LinkError as error:
        yield Check("broker", "fail", f"{error.what} at {error.where}", error.hint)
        return
    except TimeoutError:
        yield Check("broker", "fail", f"{subject.broker.url} did not answer in time", "is this the right address?")
        return
    yield _accepted(subject.broker, ground)
    place = subject.place
    rights = (Probe("access rules", partial(access_rules, place=place)),) if place.parent else ()
    deadline = asyncio.get_running_loop().time() + within_s
    for probe in (*FIRST, *rights, *PROBES):
        check = await _carry_out(probe, ground, deadline, tell)
        yield check
        if probe in FIRST and check.level == "fail":
            return


async def open_ground(subject: Subject, env: Mapping[str, str]) -> Ground:
    """Connect once and see what the broker offers. Raises LinkError, TimeoutError."""
    token, place = secrets.token_hex(6), subject.place
    settings = replace(mqtt_settings(subject.broker, f"em1-doctor-{token}", env, wait=False), session_expiry_s=0)
    prefix = f"em1/{place.net}/{place.node}/doctor/{token}"
    async with MqttLink(settings) as link, asyncio.timeout(settings.connect_timeout_s):
        async for event in link.events():
            if isinstance(event, Up):
                limits = event.limits
                chunk_bytes = subject.chunk_bytes + CHUNK_FRAME_BYTES
                return Ground(settings, prefix, limits.protocol, limits.max_packet_bytes, chunk_bytes)
    raise TimeoutError


def _accepted(broker: Broker, ground: Ground) -> Check:
    if ground.protocol == 5:
        return Check("broker", "ok", f"{broker.url} speaks MQTT 5")
    hint = "enough; a broker of MQTT 5 also says its limits, and whether it refused a publication"
    return Check("broker", "ok", f"{broker.url} speaks MQTT 3.1.1", hint)


async def _carry_out(probe: Probe, ground: Ground, deadline: float, tell: Callable[[str], None]) -> Check:
    loop = asyncio.get_running_loop()
    if loop.time() >= deadline:
        return Check(probe.name, "warn", "not probed: what is above took all the time", "is the line slow, or the broker busy?")
    notice = loop.call_later(NOTICE_S, tell, probe.name)
    try:
        async with asyncio.timeout_at(min(loop.time() + probe.within_s, deadline)):
            return await probe.work(ground)
    except LinkError as error:
        return Check(probe.name, probe.refused, error.what, error.hint)
    except TimeoutError:
        return Check(probe.name, "warn", "no answer in time", "is the line slow, or the broker busy?")
    finally:
        notice.cancel()
