"""Who is there in a net, and how each node is, from what nodes say about themselves, and from what they do not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache

from edgemw.core.config.words import nearest
from edgemw.wire import publication, topics
from edgemw.wire.messages import Frame, Presence, ReleaseManifest, Status, StatusRequest

_SILENT = {
    "online": ("silent", "is connected but does not answer: it may hang, or be overloaded"),
    "lost": ("lost", "its connection broke: power, network or a crash"),
    "offline": ("stopped", ""),  # on purpose: nothing is wrong with it
}
"""State and reason of a node that does not answer, by the last word about it."""


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """How one node is with one task; `task` is "" for a node without one."""

    node: str
    task: str
    status: Status


def question(net: str, domain: str, asker: str, boot: int = 0) -> tuple[str, bytes]:
    """Topic and payload that ask every node of a domain for its status."""
    topic = topics.build(net, domain, "ask", node=asker)
    return topic, publication.write(topic, Frame("", asker, boot, 0, StatusRequest()))


class Census:
    """What was heard of every node.

    Attributes:
        most: nodes that are kept, and answers of each to two of its tasks on average; who comes after that is left out.
    """

    def __init__(self, most: int = 100_000) -> None:
        self.most = most
        self._presence: dict[str, tuple[str, int, Presence, float]] = {}  # node: domain, boot, last word, when
        self._domains: defaultdict[str, set[str]] = defaultdict(set)  # node: where it has ever been
        self._answers: dict[tuple[str, str], tuple[float, Status]] = {}
        self._released_in: set[str] = set()  # domains whose owner has released something

    def take(self, domain: str, frame: Frame, now_s: float) -> None:
        """Take the presence or the status of a node, or that one has released; other messages are left alone.

        Args:
            domain: that it came in.
            now_s: by a clock that never goes back.
        """
        match frame.message:
            case Presence() as presence:
                known = self._presence.get(frame.node)
                if known is None and len(self._presence) >= self.most:
                    return
                comes = presence.state == "online" and known is not None and frame.boot > known[1]  # killed, and moved since
                if domain != (presence.parent or frame.node) or (self._is_elsewhere(frame.node, domain) and not comes):
                    return
                self._domains[frame.node].add(domain)
                if known is None or frame.boot >= known[1]:
                    self._presence[frame.node] = domain, frame.boot, presence, now_s
            case Status() as status if domain == (status.parent or frame.node):
                room = (frame.node, frame.task) in self._answers or len(self._answers) < 2 * self.most
                if room and not self._is_elsewhere(frame.node, domain):
                    self._answers[frame.node, frame.task] = now_s, status
            case ReleaseManifest():
                self._released_in.add(domain)

    def _is_elsewhere(self, node: str, domain: str) -> bool:
        """Whether a node is online in another domain: whoever owns this one could say anything of it here."""
        known = self._presence.get(node)
        return known is not None and known[0] != domain and known[2].state == "online"

    def copy(self) -> Census:
        """The same, as it is now, for another thread."""
        other = Census(self.most)
        other._presence = dict(self._presence)
        other._domains = defaultdict(set, self._domains)
        other._answers = dict(self._answers)
        other._released_in = set(self._released_in)
        return other

    def forget(self, node: str) -> None:
        """Whatever was heard of a node."""
        self._presence.pop(node, None)
        self._domains.pop(node, None)
        self._answers = {key: answer for key, answer in self._answers.items() if key[0] != node}

    def __len__(self) -> int:
        """How many nodes were ever there."""
        return len(self._presence)

    @property
    def presence(self) -> Mapping[str, str]:
        """The state of each node that was ever there, by its id."""
        return {node: message.state for node, (_, _, message, _) in self._presence.items()}

    @property
    def now_in(self) -> set[str]:
        """The domains that nodes are in."""
        return {domain for domain, _, _, _ in self._presence.values()}

    def domains(self, node: str) -> list[str]:
        """The domains that a node has ever been in."""
        return sorted(self._domains.get(node, ()))

    def role(self, node: str) -> str:
        """What a node is: "top", "fog" (with a parent) or "device"; empty when it has never been seen."""
        if node not in self._presence:
            return ""
        presence = self._presence[node][2]
        return "top" if presence.role == "fog" and not presence.parent else presence.role

    def top(self) -> str | None:
        """Id of the fog node without a parent, if it has been seen."""
        return next((node for node in self._presence if self.role(node) == "top"), None)

    def answered(self, since_s: float) -> set[str]:
        """The nodes that have answered since then."""
        return {node for (node, _), (at_s, _) in self._answers.items() if at_s >= since_s}

    def last_facts(self) -> dict[str, Mapping[str, int | float | str]]:
        """What every node has said last, however long ago; of one with several tasks what it said of one of them."""
        return {node: status.facts for (node, _), (_, status) in self._answers.items()}

    def statuses(self, since_s: float, patient_s: float | None = None) -> list[NodeStatus]:
        """How every node is, fog nodes first.

        A node that has not answered gets a reason that says so, and so does one whose parent is not there: it cannot know whether
        its parent was ever there.

        Args:
            since_s: earlier answers do not count.
            patient_s: who has come after that need not have answered; `since_s` where it is not given.
        """
        asked_s = since_s if patient_s is None else patient_s
        found = [*self._answers_since(since_s), *self._silent(self.answered(since_s), asked_s)]
        return sorted(found, key=lambda s: (s.status.role != "fog", s.status.parent, s.node, s.task))

    def _answers_since(self, since_s: float) -> Iterator[NodeStatus]:
        about = cache(self._about)  # many have one parent
        for (node, task), (at_s, status) in self._answers.items():
            if at_s >= since_s:
                reason = "; ".join(filter(None, (about(status.parent), status.reason)))
                yield NodeStatus(node, task, status if reason == status.reason else replace(status, reason=reason))

    def _about(self, parent: str) -> str:
        """Why a node that is there hears nothing from its parent; empty when the parent is there too, or it needs none."""
        if not parent:
            return ""
        if parent not in self._presence:
            if parent in self._released_in:
                return ""  # it is on another broker, and its releases have come over a bridge
            near = nearest(parent, [node for node in self._presence if self.role(node) != "device"])
            return f"its parent {parent!r} has never been seen" + (f" (did you mean {near!r}?)" if near else "")
        if self.role(parent) == "device":
            return f"its parent {parent!r} is a device"
        state = self.presence_of(parent)
        return "" if state == "online" else f"its parent {parent!r} is {_SILENT.get(state, (state, ''))[0]}"

    def presence_of(self, node: str) -> str:
        """The last word about a node: online, lost, offline; empty when it has never been seen."""
        return self._presence[node][2].state if node in self._presence else ""

    def _silent(self, answered: set[str], asked_s: float) -> Iterator[NodeStatus]:
        for node in self._presence.keys() - answered:
            _, _, presence, heard_s = self._presence[node]
            state, reason = _SILENT.get(presence.state, (presence.state, ""))
            if presence.state == "online" and heard_s > asked_s:
                state, reason = "online", ""
            yield NodeStatus(node, "", Status(presence.role, presence.parent, state, reason, {}))
