"""A net in memory for tests: messages can be lost, doubled and refused by hand, work and blobs held back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgemw.core.bundle import Bundle, Vector
from edgemw.core.events import Fact
from edgemw.device.events import Install, Work, Worked
from edgemw.fog.events import BundleGiven, SaveRelease
from edgemw.fog.release import TopOptions
from edgemw.fog.window import WindowOptions
from edgemw.learning.trainer import Trained
from edgemw.simulation import world
from edgemw.simulation.disk import Disk
from edgemw.simulation.toy import TASK, toy_bundle
from edgemw.simulation.world import NET
from edgemw.wire.messages import Blob, Frame, RoundReport
from edgemw.wire.topics import Topic
from edgemw.wire.traffic import Fetch, FetchFailed

__all__ = ["NET", "TASK", "Disk", "Fact", "Learn", "World", "toy_bundle"]


Learn = Callable[[str, int, Vector], Trained]


class World(world.World):
    """See the module.

    Attributes:
        served: what devices installed last.
        releases, reports: what the top made and said.
        loses, copies, refuses: whether a message does not reach a node, how often it does, which blobs are too large.
        holding: nodes whose work is finished by hand.
        fetching: nodes whose blobs are fetched by hand.
    """

    def __init__(self, learn: Learn, *, size: int = 64, bundle: Bundle | None = None) -> None:
        super().__init__(bundle or toy_bundle(size), lambda name, work: self._work(name, work))
        self.learn = learn
        self.served: dict[str, Vector] = {}
        self.releases: list[int] = []
        self.reports: list[RoundReport] = []
        self.loses: Callable[[str, Frame], bool] = lambda target, frame: False
        self.copies: Callable[[str, Frame], int] = lambda target, frame: 1
        self.refuses: Callable[[str, Blob], bool] = lambda name, blob: False
        self.holding: dict[str, list[Work]] = {}
        self.fetching: dict[str, list[Fetch]] = {}

    def top(self, name: str, options: TopOptions) -> None:
        """Add the top, which is given the bundle."""
        self.add(name, "", options)
        if self.disks[name].bundle is None:
            self.give(name, BundleGiven(self.bundle.to_bytes()))

    def fog(self, name: str, parent: str, options: WindowOptions) -> None:
        """Add a fog node."""
        self.add(name, parent, options)

    def device(self, name: str, parent: str) -> None:
        """Add a device."""
        self.add(name, parent, None)

    def kill(self, name: str) -> None:
        """As in the simulation; what is held back is gone too."""
        super().kill(name)
        if name in self.holding:
            if not self.holding.pop(name):
                return
            self.holding[name] = []

    def finish(self, name: str) -> None:
        """Finish work that is held back."""
        for work in self.holding[name]:
            super().work(name, work)
        self.holding[name] = []

    def work(self, name: str, work: Work) -> None:
        """Do it, or hold it back."""
        if name in self.holding:
            self.holding[name].append(work)
        else:
            super().work(name, work)

    def fetch(self, name: str, fetch: Fetch) -> None:
        """Bring a blob, unless it is refused."""
        if self.refuses(name, fetch.blob):
            self.give(name, FetchFailed(fetch.blob, "it is too large"))
        else:
            super().fetch(name, fetch)

    def _work(self, name: str, work: Work) -> Worked:
        trained = self.learn(name, work.release.number, work.theta) if work.train else None
        return Worked(work.release.number, trained, {"test.mse": (1.0, 1.0), "uplink": (10.0, 1.0)})

    def _act(self, name: str, action: Any) -> None:
        match action:
            case Fetch() if name in self.fetching:
                self.fetching[name].append(action)
                return
            case Install(theta=theta):
                self.served[name] = theta
        super()._act(name, action)

    def _save(self, name: str, disk: Disk, action: Any) -> None:
        super()._save(name, disk, action)
        if isinstance(action, SaveRelease):
            self.releases.append(action.released.manifest.number)

    def _publish(self, text: str, frame: Frame, *, retain: bool) -> None:
        if isinstance(frame.message, RoundReport):
            self.reports.append(frame.message)
        super()._publish(text, frame, retain=retain)

    def _deliver(self, reader: str, topic: Topic, frame: Frame, size_bytes: int, at: float, writer: str = "") -> None:
        if writer and self.loses(reader, frame):
            return
        for _ in range(self.copies(reader, frame) if writer else 1):
            super()._deliver(reader, topic, frame, size_bytes, at, writer)
