"""A group that adds under masks, without a net: members and their fog node, whose messages a test can lose."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from edgemw.compression.lanes import Lanes
from edgemw.core.encoded import Section
from edgemw.core.events import Fact
from edgemw.core.ids import Place
from edgemw.device.events import Action as DeviceAction
from edgemw.device.events import Joined, SaveJoined
from edgemw.device.member import GroupMember
from edgemw.fog.events import Action as FogAction
from edgemw.fog.grouping import Grouping
from edgemw.simulation.chance import secret_of
from edgemw.wire import topics
from edgemw.wire.messages import Blob, Frame, Group, MaskKeys, Message, NoGroup, ReleaseManifest, Revealed, Shares, Unmask, Update
from edgemw.wire.traffic import Send, Upload

NET, TASK, FOG = "net", "toy", "fog"
DEADLINE_S = 30.0
Loses = Callable[[str, Message], bool]
"""Whether a message from or to a device never arrives."""


def nobody(device: str, message: Message) -> bool:
    """Loses nothing."""
    return False


def place(device: str, boot: int = 1) -> Place:
    return Place(NET, device, FOG, boot, secret_of(device, boot))


class Ring:
    """See the module.

    Attributes:
        disks: what each member has saved.
        heard: every message that has arrived, with the device that said it or that it was for.
        refused: why members are in no group.
        facts: what the fog node said of itself.
        alters: what becomes of a message to a device on its way.
    """

    def __init__(self, devices: Sequence[str], codec: Lanes, *, size: int = 64, percent: int = 67, loses: Loses = nobody) -> None:
        self.codec, self.size, self.loses, self.now = codec, size, loses, 0.0
        theta = Blob(bytes(32), 4 * size, 1024)
        parameters: dict[str, int | float | str] = {}
        self.manifest = ReleaseManifest(1, 5, bytes(16), theta, True, "lanes", parameters, 1.0, None, 4, threshold=percent)
        self.fog = Grouping(Place(NET, FOG, "", 1), TASK, DEADLINE_S)
        self.fog.begin(self.manifest)
        self.members = {device: GroupMember(place(device), TASK, None, ()) for device in devices}
        self.disks: dict[str, dict[tuple[int, int], Joined]] = {device: {} for device in devices}
        self.heard: list[tuple[str, Message]] = []
        self.refused: dict[str, str] = {}
        self.facts: list[Fact] = []
        self.alters: Callable[[str, Message], Message] = lambda device, message: message

    def agree(self) -> None:
        """From keys to shares that are dealt out; whoever is missing is waited for until the deadline, twice."""
        for device, member in self.members.items():
            self.from_device(device, member.begin(self.manifest, (), self.now))
        for _ in range(2):
            self.from_fog(self.fog.look(self.now, self.members, 0))
            self.now += DEADLINE_S
            self.from_fog(self.fog.look(self.now, self.members, 0))

    def restart(self, device: str) -> GroupMember:
        """Another life, from the disk."""
        member = self.members[device] = GroupMember(place(device, 2), TASK, None, self.disks[device].values())
        return member

    def update(self, device: str, vector: np.ndarray, energy: float = 1.0) -> Frame:
        """A plain update."""
        section = Section(self.manifest.number, 10, 1, energy, self.codec.encode(vector.astype(np.float32), 1.0))
        return Frame(TASK, device, 1, 7, Update(1, "lanes", self.size, (section,)))

    def unmask(self, frames: Sequence[Frame]) -> None:
        """Ask for what takes the masks off."""
        self.from_fog(self.fog.unmask(frames, self.now))

    # -- carrying

    def from_device(self, device: str, actions: Iterable[DeviceAction]) -> None:
        for action in actions:
            match action:
                case SaveJoined(joined=joined, forget=keys):
                    for key in keys:
                        del self.disks[device][key]
                    if joined is not None:
                        self.disks[device][joined.key] = joined
                case Upload(frame=frame):
                    message = frame.message
                    if isinstance(message, MaskKeys | Shares | Revealed) and not self.loses(device, message):
                        self.heard.append((device, message))
                        self.from_fog(self.fog.on_message(frame, message, self.now))

    def from_fog(self, actions: Iterable[FogAction]) -> None:
        for action in actions:
            if isinstance(action, Fact):
                self.facts.append(action)
            if not isinstance(action, Send):
                continue
            device = topics.parse(action.topic)["node"]
            message = self.alters(device, action.frame.message)
            if isinstance(message, Group | Shares | Unmask | NoGroup) and not self.loses(device, message):
                self.heard.append((device, message))
                if isinstance(message, NoGroup):
                    self.refused[device] = message.reason
                self.from_device(device, self.members[device].on_message(FOG, message, self.now))
