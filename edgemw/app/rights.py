"""Whether a broker lets a node write and read its topics in the domain of its parent, without anybody noticing.

What is written is empty and not retained: nodes pass over that, since it is how a retained message is taken away.
"""

from __future__ import annotations

from functools import partial

from edgemw.app.finding import Check
from edgemw.app.ground import Ground, take
from edgemw.core.errors import LinkError
from edgemw.core.ids import Place
from edgemw.transport.connection import BrokerUnreachable
from edgemw.transport.mqtt import MqttLink
from edgemw.wire import topics

ARRIVAL_S = 3.0
NOBODY = "doctor"  # stands for a task, a transfer, a blob and whoever asks
CHANGE = "change the broker's access rules for this user: `edgemw broker config` writes those that are needed"


def topics_read(place: Place) -> tuple[str, ...]:
    """What a node asks its broker for; one blob that is not there instead of all, which would bring whole releases."""
    topic = partial(topics.build, place.net, place.parent)
    return (
        topic("presence", node=place.node),
        topic("reply", node=place.node, task="+"),
        topic("release", task="+"),
        topic("task", task="+"),
        topic("blob", digest=NOBODY, index="0"),
        topic("ask", node="+"),
    )


def topics_written(place: Place) -> tuple[str, ...]:
    """What a node says to its parent, its presence first."""
    topic, node = partial(topics.build, place.net, place.parent), place.node
    return (
        topic("presence", node=node),
        topic("update", node=node, task=NOBODY),
        topic("chunk", fog=place.parent, node=node, transfer=NOBODY),
        topic("answer", asker=NOBODY, node=node),
        topic("telemetry", node=node),
    )


async def access_rules(ground: Ground, place: Place) -> Check:
    """What of a node's topics the broker refuses."""
    name, presence = "access rules", topics_written(place)[0]
    async with ground.link("rights") as link:
        refused = [*await _refused_reads(link, place), *await _refused_writes(link, place)]
        if refused:
            return Check(name, "fail", f"refused to {place.node}: {'; '.join(refused)}", CHANGE)
        if await take(link, ARRIVAL_S, lambda event: event.topic == presence) is None:
            return Check(name, "fail", f"{presence} was written and does not come back", CHANGE)
    if ground.protocol != 5:
        silent = "in MQTT 3.1.1 a broker that refuses a publication does not say so"
        return Check(name, "ok", f"nothing was refused to {place.node} as a child of {place.parent}", silent)
    return Check(name, "ok", f"{place.node} may write and ask for what a child of {place.parent} needs")


async def _refused_reads(link: MqttLink, place: Place) -> list[str]:
    refused = []
    for topic_filter in topics_read(place):
        try:
            await link.subscribe(topic_filter)
        except LinkError as error:
            refused.append(f"reading {topic_filter} ({error.what})")
    return refused


async def _refused_writes(link: MqttLink, place: Place) -> list[str]:
    refused = []
    for topic in topics_written(place):
        try:
            await link.publish(topic, b"")
        except BrokerUnreachable:
            raise
        except LinkError as error:
            refused.append(f"writing {topic} ({error.what})")
    return refused
