"""What edgemw uses of a broker, tried out: one function for each, with what follows where it is missing.

A CONNACK says what a broker believes of itself. Some grant what they then do not do, and drop without a word, so that each
probe looks at what arrives.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

from edgemw.app.finding import Check, Level
from edgemw.app.ground import Ground, take
from edgemw.core.errors import LinkError
from edgemw.transport.connection import BrokerUnreachable
from edgemw.transport.link import Down, Reply, Will
from edgemw.transport.mqtt import MqttLink
from edgemw.transport.publishing import publish_all

ROUND_TRIPS = 20
ROUND_TRIPS_S = 2.0  # on a slow line a few do
SLOW_S = 0.04
QUEUED = 1100  # more than mosquitto keeps by default, which is 1000
QUEUE_S = 5.0  # for sending them
QUIET_S = 1.0  # whatever is coming has come
ARRIVAL_S = 3.0
SESSION_S = 300
UNLIMITED_BYTES = 268_435_455  # what MQTT can say
LEAST_CHUNK_BYTES = 1024  # of limits.max_message_bytes

Work = Callable[[Ground], Coroutine[None, None, Check]]


@dataclass(frozen=True, slots=True)
class Probe:
    """A name for people, what is done, how long it may take, and what a refusal of the broker means."""

    name: str
    work: Work
    within_s: float = 8.0
    refused: Level = "fail"


async def round_trip(ground: Ground) -> Check:
    """How long a message takes there and back."""
    topic = ground.topic("x")
    times: list[float] = []
    async with ground.link("one") as link:
        try:
            await link.subscribe(topic)
            while len(times) < ROUND_TRIPS and sum(times) < ROUND_TRIPS_S:
                started = time.perf_counter()
                await link.publish(topic, b"x")
                if await take(link, ARRIVAL_S) is None:
                    hint = "check the access rules of the broker"
                    raise LinkError("a message was taken and did not come back", where=topic, hint=hint)
                times.append(time.perf_counter() - started)
        except LinkError as error:
            return Check("round trip", "fail", error.what, f"{error.hint}; nothing else can be probed without {topic}")
    middle_s = sorted(times)[len(times) // 2]
    hint = "set_tcp_nodelay true in mosquitto.conf, if the network is not the reason" if middle_s > SLOW_S else ""
    found = f"{middle_s * 1000:.1f} ms (median of {len(times)}, QoS 1)"
    return Check("round trip", "warn" if hint else "ok", found, hint)


async def side_by_side(ground: Ground) -> Check:
    """Whether two clients of one user keep their connections."""
    async with ground.link("one") as first, ground.link("two"):
        try:
            await first.publish(ground.topic("x"), b"x")
        except BrokerUnreachable:
            found = "the second client of a user ends the first: the broker makes one id of both (use_username_as_clientid)"
            hint = "nodes run, but not with serving.mqtt, which is a second client. Nothing else can be probed"
            return Check("two clients", "fail", found, hint)
    return Check("two clients", "ok", "of one user, side by side")


async def largest_packet(ground: Ground) -> Check:
    """Whether a chunk comes back; if not, how much does."""
    need = ground.chunk_bytes
    sizes = [need, *(1 << power for power in range(16, 10, -1) if 1 << power < need)]
    for size in sizes:
        if await _comes_back(ground, size):
            break
    else:
        return Check("largest packet", "fail", f"not even {sizes[-1]} bytes came back", "look into the broker's log")
    said = f"; the broker says that it takes {ground.says_bytes}" if ground.says_bytes < UNLIMITED_BYTES else ""
    if size == need:
        return Check("largest packet", "ok", f"a chunk came back: {need} bytes{said}")
    fits = max(LEAST_CHUNK_BYTES, size - 512)
    hint = f"let the broker take {need + 2000}, or set limits.max_message_bytes = {fits} on every node: nothing large passes now"
    return Check("largest packet", "fail", f"{size} bytes came back, {sizes[sizes.index(size) - 1]} did not{said}", hint)


async def _comes_back(ground: Ground, size: int) -> bool:
    topic = ground.topic("size")
    try:
        async with ground.link("size") as link:
            await link.subscribe(topic)
            started = time.perf_counter()
            await link.publish(topic, bytes(size))
            back_s = max(ARRIVAL_S, 2 * (time.perf_counter() - started))  # on a slow line the way back is slow too
            return await take(link, back_s) is not None
    except LinkError:
        return False  # refused, or the connection was cut: smaller ones are tried


async def retained(ground: Ground) -> Check:
    """Whether a message is kept for whoever comes later, found by a wildcard, and gone when it is cleared."""
    topic, wildcard = ground.topic("kept", "a"), ground.topic("kept", "+")
    async with ground.clearing(topic), ground.link("one") as link:
        await link.publish(topic, b"kept", retain=True)
        if not await _finds(ground, topic):
            hint = "whoever comes later finds no task and no release: allow retained messages, or take another broker"
            return Check("retained", "fail", "nothing is kept", hint)
        if not await _finds(ground, wildcard):
            hint = "nodes find tasks, releases and each other by wildcards: late ones find nothing. Take another broker"
            return Check("retained", "fail", "kept, but found by its exact topic only", hint)
        await link.publish(topic, b"", retain=True)
        if await _finds(ground, wildcard):
            return Check("retained", "warn", "kept, and not cleared by an empty one", "releases of the past fill the broker")
    return Check("retained", "ok", "kept, found by a wildcard, cleared")


async def _finds(ground: Ground, topic_filter: str) -> bool:
    """Whether a client that comes now gets something retained."""
    async with ground.link("late") as link:
        await link.subscribe(topic_filter)
        return await take(link, QUIET_S, lambda event: event.retained and bool(event.payload)) is not None


async def session(ground: Ground) -> Check:
    """How much is kept for a client that is away."""
    topic = ground.topic("queue")
    async with ground.forgetting("away"):
        async with ground.link("away", session_expiry_s=SESSION_S) as link:
            await link.subscribe(topic)
        async with ground.link("one") as link:
            sent = await _publish_many(link, topic)
        async with ground.link("away", session_expiry_s=SESSION_S) as link:
            kept = await _count(link)
    if kept >= sent:
        fewer = f"; the line was too slow for {QUEUED}" if sent < QUEUED else ""
        return Check("session", "ok", f"all {sent} messages kept for a client that was away{fewer}")
    again = "Nodes send again what is not answered, so that rounds take longer"
    if not kept:
        hint = f"a node that was away for a moment hears nothing of what was said meanwhile. {again}"
        return Check("session", "warn", "nothing is kept for a client that is away", hint)
    hint = f"raise the broker's queue (mosquitto: max_queued_messages 20000, and max_queued_bytes). {again}"
    return Check("session", "warn", f"{kept} of {sent} messages kept for a client that was away, the rest dropped silently", hint)


async def _publish_many(link: MqttLink, topic: str) -> int:
    """Send up to `QUEUED` messages; how many the broker took in time."""
    taken = 0

    async def publish(topic: str, payload: bytes) -> None:
        nonlocal taken
        await link.publish(topic, payload)
        taken += 1

    try:
        async with asyncio.timeout(QUEUE_S):
            await publish_all(publish, ((topic, b"%d" % number) for number in range(QUEUED)))
    except TimeoutError:
        return taken  # a slow line: what was taken is what is looked for
    return taken


async def _count(link: MqttLink) -> int:
    """Different messages that come until none does for a moment."""
    seen: set[bytes] = set()
    while (event := await take(link, QUIET_S)) is not None:
        seen.add(event.payload)
    return len(seen)


async def redelivery(ground: Ground) -> Check:
    """Whether what was not acknowledged comes again on the next connection."""
    topic = ground.topic("again")
    async with ground.forgetting("worker"):
        async with ground.dropping("worker", session_expiry_s=SESSION_S) as link:
            await link.subscribe(topic)
            await link.publish(topic, b"once")
            await take(link, ARRIVAL_S)
        async with ground.link("worker", session_expiry_s=SESSION_S) as link:
            came = await take(link, ARRIVAL_S) is not None
    if came:
        return Check("redelivery", "ok", "what was not acknowledged came again on the next connection")
    hint = "what a node was about to read when its line broke is lost; nodes send again what is not answered"
    return Check("redelivery", "warn", f"what was not acknowledged did not come again within {ARRIVAL_S:g} s", hint)


async def last_will(ground: Ground) -> Check:
    """Whether others hear of a client whose connection breaks."""
    topic = ground.topic("will")
    async with ground.clearing(topic), ground.link("one") as link:
        await link.subscribe(topic)
        async with ground.dropping("mortal", will=Will(topic, b"gone"), will_delay_s=0):
            pass
        heard = await take(link, ARRIVAL_S) is not None
    if heard:
        return Check("last will", "ok", "published when a connection broke")
    hint = (
        "a node that dies is called online for ever, and windows wait for it until their deadline. May this user write its will?"
    )
    return Check("last will", "warn", f"not published within {ARRIVAL_S:g} s of a broken connection", hint)


async def takeover(ground: Ground) -> Check:
    """Whether the second client with an id ends the first."""
    async with ground.link("twin") as first, ground.link("twin"):
        try:
            async with asyncio.timeout(ARRIVAL_S):
                async for event in first.events():
                    if isinstance(event, Down):
                        return Check("one id twice", "ok", "the later connection ends the earlier one")
        except TimeoutError:
            pass
    hint = "two nodes that were given one id by mistake run side by side and are not told"
    return Check("one id twice", "warn", "both connections stay", hint)


async def response_topic(ground: Ground) -> Check:
    """Whether a question carries where its answer is wanted."""
    name = "response topic"
    if ground.protocol != 5:
        return Check(name, "ok", "none in MQTT 3.1.1", "`serving.ask` needs MQTT 5; `edgemw predict` does without")
    topic, reply = ground.topic("question"), Reply(ground.topic("answer"), b"\x00\x01")
    async with ground.link("one") as link:
        await link.subscribe(topic)
        await link.publish(topic, b"?", reply=reply)
        event = await take(link, ARRIVAL_S)
    if event is not None and event.reply == reply:
        return Check(name, "ok", "passed on, with its correlation data")
    return Check(name, "warn", "lost on the way", "`serving.ask` gets no answers; `edgemw predict` does without")


async def expiry(ground: Ground) -> Check:
    """Whether a retained message ends by itself (information: nothing here sets an expiry)."""
    name = "message expiry"
    if ground.protocol != 5:
        return Check(name, "ok", "none in MQTT 3.1.1; edgemw sets none")
    topic = ground.topic("expiring")
    async with ground.clearing(topic), ground.link("one") as link:
        await link.publish(topic, b"x", retain=True, expiry_s=1)
        await asyncio.sleep(2.0)  # MQTT counts whole seconds
        stays = await _finds(ground, topic)
    return Check(name, "ok", f"{'not ' if stays else ''}kept to; edgemw sets none")


async def shared(ground: Ground) -> Check:
    """Whether a shared subscription is granted, and then served (information: edgemw uses none)."""
    topic = ground.topic("shared")
    found = "granted, and nothing is delivered"
    async with ground.link("one") as link, ground.link("member") as member:
        try:
            await member.subscribe(f"$share/doctor/{topic}")
        except LinkError:
            found = "refused"
        else:
            await link.publish(topic, b"x")
            if await take(member, QUIET_S) is not None:
                found = "delivered"
    return Check("shared", "ok", f"{found}; edgemw uses none")


PROBES = (
    Probe("largest packet", largest_packet, 20.0),
    Probe("retained", retained, 12.0),
    Probe("session", session, 15.0),
    Probe("redelivery", redelivery),
    Probe("last will", last_will),
    Probe("one id twice", takeover),
    Probe("response topic", response_topic),
    Probe("shared", shared, refused="ok"),
    Probe("message expiry", expiry, refused="ok"),
)
FIRST = (Probe("round trip", round_trip), Probe("two clients", side_by_side))
"""Where one of these fails there is no sense in the others."""
