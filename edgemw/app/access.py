"""Who may do what on the broker of one deployment: every node by its name, in its own place of the tree, and nothing besides.

The rules follow from the table of channels in `wire/topics.py`: what a node says goes into its parent's domain under its own
name, what a fog node says into its own domain, and everybody hears what is meant for it. brokers/mosquitto/acl is good for every
fleet without naming anybody, and therefore lets a node speak in any domain; these do not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from edgemw.app.deployment import Member, members
from edgemw.app.places import AUTHOR, MONITOR
from edgemw.app.rules import Rights, Rules
from edgemw.app.settings import Deployment
from edgemw.core.errors import ConfigError
from edgemw.wire.topics import CHANNELS, Channel, build

_SERVICES = frozenset({"predict", "prediction"})
"""Channels in the domain of a prediction service, whoever's child that is."""
_SPECIAL = frozenset({"ask", "event", *_SERVICES})


def access_rules(settings: Deployment, askers: Sequence[str] = (), moved: Sequence[tuple[str, str]] = ()) -> Rules:
    """The rules of a deployment.

    Args:
        settings: the deployment.
        askers: users who may ask every prediction service of the net.
        moved: nodes with a former parent each, whom they still owe updates that have no outcome.

    Raises:
        ConfigError: somebody would have the name of somebody else.
    """
    tree = tuple(members(settings))
    _refuse_twins(tree, askers)
    net = settings.name
    users = {member.id: Rights() for member in tree}
    below = _fogs_below(tree)
    for member in tree:
        users[member.id] += _own(net, member.id)
        if member.parent is not None:
            users[member.id] += _child(net, member.id, member.parent)
        if member.role == "fog":
            users[member.id] += _fog(
                net, member.id, ["+"] if member.parent is None else below[member.id], top=member.parent is None
            )
    for server in _servers(settings, tree):
        users[server] = users.get(server, _own(net, server)) + _server(net, server)
    for member in tree:
        if member.role == "device" and (server := settings.tiers[member.tier].serving.ask):
            users[member.id] += _asker(net, member.id, server)
    for node, former in moved:
        if node not in users or former not in users:
            raise ConfigError(f"there is no node {(former if node in users else node)!r}", key="--moved")
        users[node] += _child(net, node, former)
    users |= {asker: _own(net, asker) + _asker(net, asker, "+") for asker in askers}
    return Rules(Rights(), users | {AUTHOR: _author(net, tree[0].id), MONITOR: _monitor(net)})


def users_of(settings: Deployment, askers: Sequence[str] = ()) -> tuple[str, ...]:
    """Everybody who needs a certificate: nodes, parents first, then other services and people. Raises ConfigError."""
    return tuple(access_rules(settings, askers).users)


# --------------------------------------------------------------------------------------------------------- who in the tree


def _own(net: str, name: str) -> Rights:
    """Topics on which somebody tries the broker out (`edgemw doctor`)."""
    return Rights([f"em1/{net}/{name}/doctor/#"], [f"em1/{net}/{name}/doctor/#"])


def _child(net: str, node: str, parent: str) -> Rights:
    """A node in the domain of its parent."""
    topic = partial(_topic, net, parent, node=node, fog=parent)
    said = [channel for channel in CHANNELS if channel.writer == "node" and channel.name not in _SPECIAL]
    heard = [channel for channel in CHANNELS if channel.reader == "node" and channel.name not in _SPECIAL]
    return Rights(
        [topic(channel) for channel in said],
        [*(topic(channel) for channel in heard), topic("presence"), build(net, parent, "ask", node="+")],
    ) + Rights([], [build(net, parent, "blob", digest="+", index="+")])


def _fog(net: str, node: str, below: Iterable[str], *, top: bool) -> Rights:
    """A fog node in its own domain, and as somebody who asks the domains below how their nodes are."""
    topic = partial(_topic, net, node, fog=node)
    said = [channel for channel in CHANNELS if channel.writer == "fog" and channel.name not in _SPECIAL]
    write = [*(topic(channel) for channel in said), topic("task"), topic("blob")]
    write += [topic("presence")]  # to forget children that are gone for good
    if top:  # which has no parent to tell how it is, and so says it here
        write += [build(net, node, "event", node=node, task="+"), build(net, node, "answer", asker="+", node=node)]
    read = [f"em1/{net}/{node}/#", build(net, "+", "event", node="+", task="+"), build(net, "+", "answer", asker=node, node="+")]
    asked = list(below) if top else [node, *below]
    write += [build(net, domain, "ask", node=node) for domain in asked]
    return Rights(write, [*read, *(build(net, domain, "presence", node="+") for domain in below)])


def _server(net: str, name: str) -> Rights:
    """A prediction service in its own domain, also where it asks itself whether another has its name."""
    questions, answers = (build(net, name, channel, node="+", task="+") for channel in ("predict", "prediction"))
    return Rights(
        [answers, build(net, name, "predict", node=name, task="+")],
        [questions, build(net, name, "prediction", node=name, task="+")],
    )


def _asker(net: str, name: str, server: str) -> Rights:
    """Somebody who asks a prediction service."""
    return Rights([build(net, server, "predict", node=name, task="+")], [build(net, server, "prediction", node=name, task="+")])


def _author(net: str, top: str) -> Rights:
    """Who publishes tasks to the top: `edgemw task publish`."""
    write = [build(net, top, "task", task="+"), build(net, top, "blob", digest="+", index="+")]
    return _own(net, AUTHOR) + Rights(write, _looking(net, AUTHOR))


def _monitor(net: str) -> Rights:
    """Who looks at the net, and asks: `edgemw up`, `edgemw status`."""
    asking = [build(net, "+", "ask", node=MONITOR)]
    return _own(net, MONITOR) + Rights(asking, [*_looking(net, MONITOR), "$SYS/broker/connection/#"])


def _looking(net: str, name: str) -> list[str]:
    """What a console listens to."""
    return [
        build(net, "+", "presence", node="+"),
        build(net, "+", "answer", asker=name, node="+"),
        build(net, "+", "event", node="+", task="+"),
        build(net, "+", "release", task="+"),
    ]


def _topic(net: str, domain: str, channel: Channel | str, **known: str) -> str:
    """The filter of a channel in a domain, with the places that are known."""
    found = next(each for each in CHANNELS if channel in (each, each.name))
    return build(net, domain, found.name, **{place: known.get(place, "+") for place in found.places})


# -------------------------------------------------------------------------------------------------------------- the tree


def _fogs_below(tree: Sequence[Member]) -> Mapping[str, list[str]]:
    """For each fog node the fog nodes at any level below it; none of them where it has none."""
    found = defaultdict[str, list[str]](list)
    parents = {member.id: member.parent for member in tree}
    for member in tree:
        above = member.parent if member.role == "fog" else None
        while above is not None:
            found[above].append(member.id)
            above = parents[above]
    return found


def _servers(settings: Deployment, tree: Sequence[Member]) -> Iterable[str]:
    """Prediction services that are asked over MQTT: devices that answer there, and whoever a tier asks."""
    tiers = settings.tiers
    answering = [member.id for member in tree if member.role == "device" and tiers[member.tier].serving.mqtt]
    asked = [tier.serving.ask for tier in tiers.values() if tier.role == "device" and tier.serving.ask]
    return dict.fromkeys([*answering, *asked])


def _refuse_twins(tree: Sequence[Member], askers: Sequence[str]) -> None:
    names = {member.id: member.tier for member in tree}
    for name in (MONITOR, AUTHOR):
        if name in names:
            what = "asks how everybody is" if name == MONITOR else "publishes tasks"
            raise ConfigError(
                f"its node would be called {name!r}, as the user who {what}: rename the tier", key=f"tiers.{names[name]}"
            )
    for asker in askers:
        if asker in names or asker in (MONITOR, AUTHOR):
            raise ConfigError(f"there is a {'node' if asker in names else 'user'} {asker!r} already", key="--asker")
