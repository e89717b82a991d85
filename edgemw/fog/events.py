"""What a fog node hears and asks for, apart from messages, and what it keeps on disk."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgemw.core.bundle import Vector
from edgemw.core.events import Fact, Finished, LinkDown, LinkUp, SetTimer, Stop, Timer
from edgemw.core.ids import UpdateId
from edgemw.fog.accounts import Accounts, Amount, amount_of
from edgemw.fog.privacy import Spent
from edgemw.fog.rate import Rate
from edgemw.wire.messages import Blob, Frame, ReleaseManifest
from edgemw.wire.traffic import Arrived, Fetch, Fetched, FetchFailed, FetchStalled, PublishBlob, Published, Retire, Send, Upload


@dataclass(frozen=True, slots=True)
class Settled:
    """The outcome of an update: counted in `release`, or returned with a reason."""

    counted: bool
    release: int
    reason: str


@dataclass(frozen=True, slots=True)
class Totals:
    """What the top has counted in a run."""

    updates: int = 0
    weight: int = 0
    uplink_bytes: int = 0
    downlink_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Gain:
    """How good a run has become, by the first metric of its task: at first, and now; None before anybody has measured."""

    metric: str = ""
    first: float | None = None
    last: float | None = None

    def measured(self, metric: str, value: float) -> Gain:
        """What is known once devices have measured."""
        return Gain(metric, value if self.first is None else self.first, value)


@dataclass(frozen=True, slots=True)
class Released:
    """A release of the top with all that making the next one needs.

    Attributes:
        manifest: as published.
        theta: float32[P], what devices get.
        residual: float32[P], what the differences of releases could not say yet; None is zero.
        first, second: the server optimiser's moments, float32[P]; None before they are used.
        totals: what has been counted so far.
        report: the facts of the last report, once the run is finished; None before.
        reached: the target that the run has reached; 0 is none.
        rate: what was spent, and how the step is chosen.
        gain: how good the run has become.
        spent: what it and the runs before it have cost of privacy; None where none is promised.
    """

    manifest: ReleaseManifest
    theta: Vector = field(repr=False)
    first: Vector | None = field(default=None, repr=False)
    second: Vector | None = field(default=None, repr=False)
    totals: Totals = Totals()
    report: dict[str, int | float | str] | None = None
    residual: Vector | None = field(default=None, repr=False)
    reached: float = 0.0
    rate: Rate = field(default_factory=Rate)
    gain: Gain = Gain()
    spent: Spent | None = None

    @property
    def master(self) -> Vector:
        """float32[P], where the server step goes on from."""
        return self.theta if self.residual is None else self.theta + self.residual


@dataclass(frozen=True, slots=True)
class Forwarded:
    """A merged window on its way up: the frame with its own identity, who is to have it, and whose updates are in it.

    `brought` is the payload of the window's sum where what is sent is another one; else empty. `cut` is what its members claimed
    and was not believed. `whole` is False where it is something else than the plain sum of the window: `window.robust`
    has changed it, or left some out, or members were under masks.
    """

    frame: Frame
    receiver: str
    members: tuple[UpdateId, ...]
    acknowledged: bool = False
    brought: bytes = b""
    cut: Amount = field(default_factory=Amount)
    whole: bool = True

    def unbelieved(self, run: int) -> Amount:
        """`cut`, where the window is of a run."""
        return self.cut if amount_of(self.frame, run) else Amount()

    def claimed(self, run: int) -> Amount:
        """What its members stand for by their own words, where the window is of a run."""
        return amount_of(self.frame, run) + self.unbelieved(run)


@dataclass(frozen=True, slots=True)
class Remainder:
    """What the forwarded windows of a run have not said yet, as a payload."""

    run: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class FogMemory:
    """What a fog node finds on disk about one task when it starts, and a secret of this life, which nobody keeps."""

    open: tuple[Frame, ...] = ()
    forwarded: tuple[Forwarded, ...] = ()
    settled: tuple[tuple[UpdateId, Settled], ...] = ()
    bundle: bytes | None = field(default=None, repr=False)
    bundles_known: frozenset[bytes] = frozenset()
    released: Released | None = None
    shelf: tuple[Blob, ...] = ()
    remainder: Remainder | None = None
    accounts: Accounts = field(default_factory=Accounts)
    secret: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class BundleGiven:
    """The operator's file names a bundle for the top to serve."""

    data: bytes


@dataclass(frozen=True, slots=True)
class SaveUpdate:
    """Put a child's update into the open window, and into the books."""

    frame: Frame
    accounts: Accounts


@dataclass(frozen=True, slots=True)
class SaveForward:
    """Close the open window: its updates are now inside this frame, and in what remains for the next one.

    `release` is the one that the window was for.
    """

    forwarded: Forwarded
    release: ReleaseManifest
    remainder: Remainder | None = None


@dataclass(frozen=True, slots=True)
class SaveAck:
    """The parent has a forwarded window on its disk."""

    update: UpdateId


@dataclass(frozen=True, slots=True)
class SaveOutcomes:
    """Note what became of children's updates, and forget the forwarded window that they were in, if any.

    With `remainder` what remains for the next window has changed by it.
    """

    outcomes: tuple[tuple[UpdateId, Settled], ...]
    accounts: Accounts
    forwarded: UpdateId | None = None
    remainder: Remainder | None = None


@dataclass(frozen=True, slots=True)
class SaveRelease:
    """Keep a release, the outcomes of the window that made it and the books, in one transaction."""

    released: Released
    outcomes: tuple[tuple[UpdateId, Settled], ...]
    accounts: Accounts


@dataclass(frozen=True, slots=True)
class SaveBundle:
    """Keep a new bundle and its release 0; everything about the old one but its digest is forgotten."""

    digest: bytes
    data: bytes
    released: Released


@dataclass(frozen=True, slots=True)
class SaveShelf:
    """Note which blobs this node has on the broker for releases, so that another life can remove them."""

    blobs: tuple[Blob, ...]


Event = LinkUp | LinkDown | Timer | Stop | Arrived | Fetched | FetchFailed | FetchStalled | Published | BundleGiven
Save = SaveUpdate | SaveForward | SaveAck | SaveOutcomes | SaveRelease | SaveBundle | SaveShelf
Action = SetTimer | Fact | Finished | Send | Upload | Fetch | PublishBlob | Retire | Save
