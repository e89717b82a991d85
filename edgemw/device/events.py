"""What a device's cycle hears and asks for, apart from messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgemw.core.bundle import Manifest, Vector
from edgemw.core.events import Fact, Finished, LinkDown, LinkUp, SetTimer, Stop, Timer
from edgemw.core.ids import UpdateId
from edgemw.core.plan import Tally
from edgemw.device.balance import Balance
from edgemw.learning.trainer import Trained
from edgemw.wire.following import Theta
from edgemw.wire.messages import Blob, Frame, Group, ReleaseManifest
from edgemw.wire.sender import Kept
from edgemw.wire.traffic import Arrived, Fetch, Fetched, FetchFailed, FetchStalled, Upload

_EMPTY = Balance()
_NOTHING: Mapping[str, Vector] = {}


@dataclass(frozen=True, slots=True)
class OpenTask:
    """Verify a bundle, open its oracle and fit the device's data to it; TaskOpened or TaskRefused follows."""

    blob: Blob
    data: bytes


@dataclass(frozen=True, slots=True)
class TaskOpened:
    """The task can be computed; `reason` says why it cannot be trained here, if so. `theta0` is float32[P], little endian."""

    digest: bytes
    manifest: Manifest
    theta0: Theta = field(repr=False)
    reason: str = ""


@dataclass(frozen=True, slots=True)
class TaskRefused:
    """The bundle cannot be used."""

    digest: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Install:
    """Serve predictions from this release; Installed follows."""

    release: ReleaseManifest
    theta: Vector


@dataclass(frozen=True, slots=True)
class Installed:
    """A release is being served; or `reason` says why the one before it still is, or why this one not as it was asked for."""

    number: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Work:
    """Measure a release on held-out data and, if `train`, train from it; Worked follows."""

    release: ReleaseManifest
    theta: Vector
    train: bool
    seed: int


@dataclass(frozen=True, slots=True)
class Worked:
    """Work is done. `trained` is None where there was nothing to train or training failed; `reason` says what went wrong."""

    number: int
    trained: Trained | None
    tally: Tally
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Memory:
    """What a device keeps of a task across its lives, besides the updates that are on their way.

    Attributes:
        run: the training run that the rest belongs to; -1 is none.
        trained_on: last release that it trained from.
        measured_on: last release that it measured.
        residual: float32[P] error feedback; None is zero, or that the codec keeps none.
        updates_sent: trained updates ever made in this run.
        weight_sent: sum of their weights.
        updates_returned: those of them that no release counted; they are in the residual again, where one is kept.
        weight_returned: sum of their weights.
        weight_owed: the part of it that goes with the next update, as what they said does.
        balance: the books of what was trained, sent and kept.
        personal: float32 values of this device's own, by the name of the tensor.
    """

    run: int = -1
    trained_on: int = -1
    measured_on: int = -1
    residual: Vector | None = field(default=None, repr=False)
    updates_sent: int = 0
    weight_sent: int = 0
    updates_returned: int = 0
    weight_returned: int = 0
    weight_owed: int = 0
    balance: Balance = _EMPTY
    personal: Mapping[str, Vector] = field(default_factory=lambda: _NOTHING, repr=False)


@dataclass(frozen=True, slots=True)
class Served:
    """A release that a device has served: which, and its theta, float32[P]."""

    run: int
    number: int
    theta: Vector = field(repr=False)


@dataclass(frozen=True, slots=True)
class Joined:
    """A release whose masked sum this device takes part in, as far as it has come.

    Attributes:
        run, release: which.
        fog: whose group it is.
        seed: 32 bytes that all its secrets come from.
        group: who is in it; None before that is known.
        dealt: sealed shares of the others, in the order of the group; empty before they have come.
        survivors: for whom shares were given up, as in Unmask; empty before anybody has asked.
    """

    run: int
    release: int
    fog: str
    seed: bytes = field(repr=False)
    group: Group | None = None
    dealt: tuple[bytes, ...] = field(default=(), repr=False)
    survivors: bytes = b""

    @property
    def key(self) -> tuple[int, int]:
        """What tells it from others."""
        return self.run, self.release


@dataclass(frozen=True, slots=True)
class Left:
    """What an earlier life has left.

    Attributes:
        memory: of the task.
        kept: updates without an outcome.
        served: the last release that was served; its theta need not be fetched if it is the release's still.
        joined: groups that it has masked updates in, or was about to.
    """

    memory: Memory = field(default_factory=Memory)
    kept: tuple[Kept, ...] = ()
    served: Served | None = None
    joined: tuple[Joined, ...] = ()

    @property
    def newest(self) -> tuple[int, int]:
        """Run and number of the newest release that this device is known to have taken; -1 where there is none."""
        memory = self.memory
        known = memory.run, max(memory.trained_on, memory.measured_on)
        return known if self.served is None else max(known, (self.served.run, self.served.number))


@dataclass(frozen=True, slots=True)
class SaveRound:
    """Keep a new update and the memory that goes with it, in one transaction.

    `masked` is the same update as it is sent, where it is sent under masks.
    """

    memory: Memory
    frame: Frame
    masked: Frame | None = None


@dataclass(frozen=True, slots=True)
class SaveJoined:
    """Keep how far this device has come with a group, and forget groups that are over, in one transaction."""

    joined: Joined | None
    forget: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class SaveMemory:
    """Keep the memory and forget these updates, in one transaction.

    It need not be `durable` where a power cut only means that an outcome is asked for once more.
    """

    memory: Memory
    forget: tuple[UpdateId, ...]
    durable: bool = True


@dataclass(frozen=True, slots=True)
class SaveAck:
    """Note that an update is durable at its receiver."""

    update: UpdateId


Event = (
    LinkUp
    | LinkDown
    | Timer
    | Stop
    | Arrived
    | Fetched
    | FetchFailed
    | FetchStalled
    | TaskOpened
    | TaskRefused
    | Installed
    | Worked
)
Action = SetTimer | Fact | Finished | Upload | Fetch | OpenTask | Install | Work | SaveRound | SaveMemory | SaveAck | SaveJoined
