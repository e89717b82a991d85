"""Whether a broker lets a node write and read its topics in the domain of its parent, without anybody noticing.

What is written is empty and not retained: nodes pass over that, since it is how a retained message is taken away.
"""

from __future__ import annotations

from edgemw.app.finding import Check
from edgemw.app.ground import Ground, take
from edgemw.core.errors import LinkError
from edgemw.core.ids import Place
from edgemw.transport.connection import BrokerUnreachable
from edgemw.transport.mqtt import MqttLink
from edgemw.wire import topics

ARRIVAL_S = 3.0
_NOBODY = "doctor"  # stands for a task, a transfer and whoever asks
WRITES = ("presence", "update", "chunk", "answer", "telemetry")
CHANGE = "change the broker's access rules for this user; brokers/mosquitto/acl has those that are needed"
READS = ("presence", "reply", "release", "task", "blob", "ask")


async def access_rules(ground: Ground, place: Place) -> Check:
    """What of a node's topics the broker refuses."""
    name = "access rules"
    refused = []
    async with ground.link("rights") as link:
        for channel in READS:
            if why := await _refusal_of_reading(link, place, channel):
                refused.append(f"reading {_shown(place, channel)} ({why})")
        for channel in WRITES:
            if why := await _refusal_of_writing(link, place, channel):
                refused.append(f"writing {_shown(place, channel)} ({why})")
        own = topics.build(place.net, place.parent, "presence", node=place.node)
        heard = bool(refused) or await take(link, ARRIVAL_S, lambda event: event.topic == own) is not None
    if refused:
        return Check(
            name, "fail", f"refused to {place.node}: {'; '.join(refused)}", "change the broker's access rules for this user"
        )
    if not heard:
        return Check(name, "fail", f"{own} was written and does not come back", "change the broker's access rules for this user")
    if ground.protocol != 5:
        silent = "in MQTT 3.1.1 a broker that refuses a publication does not say so"
        return Check(name, "ok", f"nothing was refused to {place.node} as a child of {place.parent}", silent)
    return Check(name, "ok", f"{place.node} may write and ask for what a child of {place.parent} needs")


async def _refusal_of_reading(link: MqttLink, place: Place, channel: str) -> str:
    try:
        await link.subscribe(_topic(place, channel, "+"))
    except LinkError as error:
        return error.what
    return ""


async def _refusal_of_writing(link: MqttLink, place: Place, channel: str) -> str:
    try:
        await link.publish(_topic(place, channel, _NOBODY), b"")
    except BrokerUnreachable:
        raise
    except LinkError as error:
        return error.what
    return ""


def _topic(place: Place, channel: str, other: str) -> str:
    """A node's topic in its parent's domain; `other` stands where neither the node nor its parent does."""
    names = {"node": other if channel in ("presence", "ask") and other == "+" else place.node, "fog": place.parent}
    places = {level: names.get(level, other) for level in topics.places(channel)}
    return topics.build(place.net, place.parent, channel, **places)


def _shown(place: Place, channel: str) -> str:
    return _topic(place, channel, "+")
