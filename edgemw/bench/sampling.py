"""Looks at some updates of a run: what they cost at least, and how long their codec takes for them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgemw.bench.bounds import entropy_bits, index_set_bits
from edgemw.compression.codec import Codec
from edgemw.compression.table import codec_named
from edgemw.core.bundle import Vector
from edgemw.device.events import SaveRound
from edgemw.simulation.tree import Tree
from edgemw.wire.messages import ReleaseManifest, Update

_RELEASES, _DEVICES, _REPEATS = 8, 8, 5


@dataclass(frozen=True, slots=True)
class Sample:
    """What was seen; bits are per parameter, means over the updates looked at.

    Attributes:
        sent_bits: their payloads.
        index_set_bits: to say which parameters they name; None where they name most.
        entropy_bits: of their values; None where too few repeat.
        left_out: the part of what was to be sent that was not, as a ratio of 2-norms; None where nobody keeps it.
        encode_ms, merge_ms, decode_ms: medians: one vector; the updates of one fog node; their sum.
        merged: how many updates that node has.
    """

    sent_bits: float
    index_set_bits: float | None
    entropy_bits: float | None
    left_out: float | None
    encode_ms: float
    merge_ms: float
    decode_ms: float
    merged: int


def mean_of(samples: Sequence[Sample]) -> Sample:
    """The mean of at least one."""
    return Sample(
        sent_bits=statistics.fmean(sample.sent_bits for sample in samples),
        index_set_bits=_mean_of_all([sample.index_set_bits for sample in samples]),
        entropy_bits=_mean_of_all([sample.entropy_bits for sample in samples]),
        left_out=_mean_of_all([sample.left_out for sample in samples]),
        encode_ms=statistics.fmean(sample.encode_ms for sample in samples),
        merge_ms=statistics.fmean(sample.merge_ms for sample in samples),
        decode_ms=statistics.fmean(sample.decode_ms for sample in samples),
        merged=samples[0].merged,
    )


def _mean_of_all(values: Sequence[float | None]) -> float | None:
    """None where one is missing: the mean of the others would flatter."""
    known = [each for each in values if each is not None]
    return statistics.fmean(known) if len(known) == len(values) else None


@dataclass(frozen=True, slots=True)
class _Seen:
    payload: bytes
    vector: Vector  # that was encoded
    step: float


class Sampler:
    """Looks at the updates of some devices, those of one fog node first, in some releases of a run."""

    def __init__(self, tree: Tree, rounds: int) -> None:
        first = tree.children[tree.parents[tree.devices[0]]]
        self._devices = frozenset(tuple(dict.fromkeys([*first, *tree.devices]))[:_DEVICES])
        self._siblings = frozenset(first) & self._devices
        count = min(_RELEASES, rounds)
        self._releases = frozenset(round((index + 1) * rounds / count) - 1 for index in range(count))
        self._last: dict[str, _Seen] = {}
        self._sent: list[float] = []
        self._index: list[float | None] = []
        self._entropy: list[float | None] = []
        self._left_out: list[float | None] = []
        self._release: ReleaseManifest | None = None

    def look(self, node: str, saved: SaveRound, release: ReleaseManifest) -> None:
        """Take an update that a device has made."""
        update = saved.frame.message
        if node not in self._devices or release.number not in self._releases:
            return
        if not isinstance(update, Update) or not update.sections:
            return
        codec, payload, size = codec_named(release.codec), update.sections[0].payload, update.size
        decoded, residual = codec.decode(payload, size), saved.memory.residual
        vector = decoded if residual is None else decoded + residual
        if release.step or not codec.stepped:
            self._sent.append(8 * len(payload) / size)
            self._index.append(index_set_bits(int((decoded != 0).sum()), size))
            self._entropy.append(entropy_bits(decoded))
            self._left_out.append(None if residual is None else _ratio(residual, vector))
        if node in self._siblings:
            if self._release is not None and self._release.number != release.number:
                self._last.clear()  # who trained from another release may be on another step
            self._release = release
            self._last[node] = _Seen(payload, vector, release.step)

    def sample(self) -> Sample | None:
        """What was seen; None where nobody trained."""
        release = self._release
        if release is None or not self._sent:
            return None
        codec = codec_named(release.codec, **release.parameters)
        sent, times = statistics.fmean(self._sent), _times(codec, [*self._last.values()])
        index, entropy, left_out = map(_mean_of_all, (self._index, self._entropy, self._left_out))
        return Sample(sent, index, entropy, left_out, *times, len(self._last))


def _ratio(part: Vector, whole: Vector) -> float:
    norm = float(np.linalg.norm(whole.astype(np.float64)))
    return float(np.linalg.norm(part.astype(np.float64))) / norm if norm else 0.0


def _times(codec: Codec, seen: list[_Seen]) -> tuple[float, float, float]:
    """Milliseconds to encode one vector, to merge all payloads, and to decode the sum."""
    size, payloads = seen[0].vector.size, [each.payload for each in seen]
    merged = codec.merge(payloads, size)
    return (
        _median_ms(lambda: codec.encode(seen[0].vector, seen[0].step)),
        _median_ms(lambda: codec.merge(payloads, size)),
        _median_ms(lambda: codec.decode(merged, size)),
    )


def _median_ms(call: Callable[[], object]) -> float:
    taken = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        call()
        taken.append(1000 * (time.perf_counter() - started))
    return statistics.median(taken)
