"""A window between its closing and its merging: what children brought is made what one child may bring.

Who brought too much is remembered for some windows, and said. Randomness is a hash of who made an update and of a secret of this
node's life, so that nobody who sends can know what stays of it, and the simulator, which gives none, is the same every time.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from edgemw.compression.codec import Codec
from edgemw.core.encoded import Encoded
from edgemw.core.errors import CodecError
from edgemw.core.events import Fact
from edgemw.core.plan import Plan
from edgemw.fog.accounts import Amount
from edgemw.fog.window import parts_of
from edgemw.robust.child import Bounded, Child, Measure
from edgemw.robust.options import FEWEST, RobustOptions, unfit
from edgemw.robust.table import robust_named
from edgemw.wire.messages import Frame, Update

LEFT_OUT = "left out: too far from the others"
REMEMBERED = 10  # windows
_OFTEN = 0.5  # of them
_MUCH = 0.5  # of an update: what is made smaller than that is not what an honest child sends now and then
_FEWEST = 3  # windows before anybody is named
_NAMED = 4
MAX_MEASURES = 1000
NOT_PRIVATE = (
    "what of one device is left would depend on the others, and privacy.mode = central promises to each that it does not: "
    "leave one of the two away"
)


@dataclass(frozen=True, slots=True)
class Protected:
    """A window as it is to be merged.

    Attributes:
        parts: what is to be added.
        thinned: what was taken out of lattice payloads.
        frames: the updates that are in it.
        left_out: the others, which go back.
        cut: of claims, what was not believed.
        untouched: the parts are those of all updates, as they came and in the order in which they came.
        facts: what happened.
    """

    parts: tuple[Encoded, ...] = ()
    frames: tuple[Frame, ...] = ()
    thinned: tuple[Encoded, ...] = ()
    left_out: tuple[Frame, ...] = ()
    cut: Amount = field(default_factory=Amount)
    facts: tuple[Fact, ...] = ()
    untouched: bool = True


class Protection:
    """The option of one window on one node, and what it remembers.

    Args:
        options: see RobustOptions.
        secret: of this life; empty in simulations.
    """

    def __init__(self, options: RobustOptions, secret: bytes = b"") -> None:
        self._options, self._robust, self._secret = options, robust_named(options), secret[:64]
        self._run = -1
        self._measures: dict[str, Measure] = {}  # of each child the last, however long ago: nobody can push another's vote out
        self._lately: deque[tuple[frozenset[str], frozenset[str]]] = deque(maxlen=REMEMBERED)  # in the window, brought too much
        self._bounded = 0
        self._unfit = ""

    @property
    def reason(self) -> str:
        """Who brings too much again and again, or why nothing can be merged; empty where all is right."""
        if self._unfit:
            return self._unfit
        suspects = self._suspects()
        said = [f"{name} in {times} of its last {windows} windows" for name, times, windows in suspects[:_NAMED]]
        more = f" and of {len(suspects) - _NAMED} more" if len(suspects) > _NAMED else ""
        return f"bounded the updates of {', '.join(said)}{more}" if suspects else ""

    def facts(self) -> dict[str, int | float | str]:
        """Numbers for `status`; none where there is no protection."""
        if self._robust is None:
            return {}
        return {"robust": self._options.use, "children_bounded": self._bounded, "suspects": len(self._suspects())}

    def _suspects(self) -> list[tuple[str, int, int]]:
        """Who has brought too much again and again: in how many of how many windows."""
        windows = Counter(name for there, _ in self._lately for name in there)
        too_much = Counter(name for _, names in self._lately for name in names)
        often = [name for name, times in sorted(too_much.items()) if times >= _FEWEST and times >= _OFTEN * windows[name]]
        return [(name, too_much[name], windows[name]) for name in often]

    def protect(self, codec: Codec, frames: Sequence[Frame], plan: Plan | None) -> Protected:
        """What of a window is to be merged.

        Args:
            codec: of the updates.
            frames: the window.
            plan: of the release.

        Raises:
            CodecError: the option does not go with the codec, or with the plan, or there are too few children to compare.
            WireError: a payload is malformed.
        """
        said = [frame for frame in frames if isinstance(frame.message, Update) and frame.message.sections]
        if self._robust is None or not said:
            return Protected(tuple(parts_of(said)), tuple(frames))
        central = plan is not None and plan.update_clip > 0 and not plan.update_noise
        reason = NOT_PRIVATE if central else unfit(self._options.use, codec.name)
        if reason:
            self._unfit = f"window.robust: {reason}"
            raise CodecError(self._unfit)
        self._enter(said[0])
        by_child: dict[str, list[Frame]] = {}
        for frame in said:
            by_child.setdefault(frame.node, []).append(frame)
        children = [Child(name, tuple(parts_of(sent))) for name, sent in by_child.items()]
        earlier = {name: one for name, one in self._measures.items() if name not in by_child}
        bounded = self._robust.bound(codec, children, earlier, self._chance)
        self._remember(bounded)
        known = len(self._measures) if self._options.use == "norm" else len(children)
        self._unfit = "" if known >= FEWEST else f"window.robust: {known} children are too few to tell who lies, {FEWEST} are not"
        if self._unfit:
            raise CodecError(self._unfit)
        out = tuple(frame for name in bounded.left_out for frame in by_child[name])
        gone = {frame.id for frame in out}
        inside = tuple(frame for frame in frames if frame.id not in gone)
        claimed = sum((Amount(child.count, child.weight) for child in children if child.name not in bounded.left_out), Amount())
        cut = claimed - Amount(sum(part.count for part in bounded.parts), sum(part.weight for part in bounded.parts))
        values: dict[str, int | float | str] = {
            "bounded": len(bounded.kept),
            "left_out": len(bounded.left_out),
            "weight": cut.weight,
        }
        came = tuple(parts_of(said))
        untouched = set(bounded.parts) == set(came)  # no two are alike: each says whose it is
        parts = came if untouched else bounded.parts
        return Protected(parts, inside, bounded.cut, out, cut, (Fact("window_bounded", values),), untouched)

    def _chance(self, text: str) -> float:
        drawn = blake2b(text.encode(), key=self._secret, digest_size=8).digest()
        return (int.from_bytes(drawn, "little") >> 11) / 2.0**53

    def _enter(self, frame: Frame) -> None:
        """Another run begins with other lengths."""
        run = frame.message.run if isinstance(frame.message, Update) else -1
        if run != self._run:
            self._run = run
            self._measures.clear()
            self._lately.clear()

    def _remember(self, bounded: Bounded) -> None:
        much = {name for name, kept in bounded.kept.items() if kept < _MUCH} | set(bounded.left_out)
        self._lately.append((frozenset(bounded.measures), frozenset(much)))
        self._bounded += len(bounded.kept) + len(bounded.left_out)
        for name, one in bounded.measures.items():
            self._measures.pop(name, None)
            self._measures[name] = one
        while len(self._measures) > MAX_MEASURES:
            del self._measures[next(iter(self._measures))]
