"""The promises of a codec as checks, for the authors of codecs; each raises AssertionError with what was broken.

    for check in CHECKS:
        check(Case(codec, vectors, step))

They are to hold for any three to seven finite vectors of one size and any step: codecs of a fixed width may wrap where more are
added than they were made for. So run them on many: `sample_vectors` makes typical and extreme ones, and a property-based test can
make more. `pytest --pyargs edgemw.conformance --codec NAME` runs them on those for a codec that is installed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import get_args

import numpy as np

from edgemw.compression.codec import Bound, Codec, Merging, is_shifting, ring_of
from edgemw.compression.merge import fold, merge
from edgemw.core.bundle import LARGEST, Vector
from edgemw.core.encoded import Encoded, Section
from edgemw.core.errors import CodecError, WireError
from edgemw.core.ids import UpdateId

_SMALLEST = float(np.finfo(np.float32).smallest_subnormal)
_ROUNDING = 2.0**-23  # twice the relative error of one float32 operation: what a merged value may be off, of the magnitudes added
_FEEDBACK = 1 + 2.0**-8  # float16 where the codec has it
_GROWTH = 2  # float16 values whose sum is float32
_MUTATIONS = 10
_POWERS = (4.0, 1.0, 0.5)
_NAME_BYTES = 80  # what a release has room for


@dataclass(frozen=True, slots=True)
class Case:
    """What one run of the checks is about; `vectors` are three to seven, float32[P] and finite."""

    codec: Codec
    vectors: tuple[Vector, ...]
    step: float

    @property
    def size(self) -> int:
        """P."""
        return self.vectors[0].size

    @property
    def payloads(self) -> list[bytes]:
        """Each vector encoded."""
        return [self.codec.encode(vector, self.step) for vector in self.vectors]


def sample_vectors(rng: np.random.Generator, size: int) -> tuple[Vector, ...]:
    """Vectors that codecs meet: dense, sparse, zero, tiny, and at the end of float32."""
    dense = rng.laplace(0, 1, size)
    sparse = np.where(rng.random(size) < 0.05, 20 * dense, 0)
    largest = np.where(rng.random(size) < 0.5, LARGEST, -LARGEST)
    vectors = (dense, sparse, np.zeros(size), dense * 1e-30, sparse * 1e-44, largest, dense * 1e36)
    return tuple(vector.astype(np.float32) for vector in vectors)


def check_attributes(case: Case) -> None:
    """The codec says what it is."""
    codec = case.codec
    _require(isinstance(codec, Codec), "a member of the protocol is missing")
    _require(codec.merging in get_args(Merging), f"merging is {codec.merging!r}")
    _require(isinstance(codec.stepped, bool), f"stepped is {codec.stepped!r}")
    _require(isinstance(codec.feedback, bool), f"feedback is {codec.feedback!r}")
    _require(0 < len(codec.name.encode()) <= _NAME_BYTES, f"name is {codec.name!r}")


def check_round_trip(case: Case) -> None:
    """Decoding gives float32[P] within the stated error, and the vector is left as it was."""
    for vector in case.vectors:
        before = vector.copy()
        decoded = case.codec.decode(case.codec.encode(vector, case.step), case.size)
        _require(decoded.dtype == np.float32 and decoded.shape == vector.shape, f"decoded {decoded.dtype}{decoded.shape}")
        error = np.abs(decoded.astype(np.float64) - vector)
        allowed = case.codec.bound(vector, case.step) + _SMALLEST
        _require(allowed.shape == vector.shape, f"bound {allowed.shape}")
        worst = int(np.argmax(error - allowed))
        _require(bool((error <= allowed).all()), f"{vector[worst]} became {decoded[worst]}")
        _require(np.array_equal(before, vector), "encoding changed its argument")


def check_feedback(case: Case) -> None:
    """What is left out never exceeds the vector in the 2-norm, so that error feedback does not grow without end."""
    if not case.codec.feedback:
        return
    for vector in case.vectors:
        wide = vector.astype(np.float64)
        left_out = wide - case.codec.decode(case.codec.encode(vector, case.step), case.size)
        allowed = _FEEDBACK * float(np.linalg.norm(wide)) + _SMALLEST * case.size
        _require(float(np.linalg.norm(left_out)) <= allowed, f"{np.linalg.norm(left_out)} of {np.linalg.norm(wide)} is left out")


def check_determinism(case: Case) -> None:
    """The same vector gives the same bytes, also from a copy elsewhere in memory."""
    for vector in case.vectors:
        again = np.concatenate([vector[:1], vector])[1:]
        _require(case.codec.encode(vector, case.step) == case.codec.encode(again, case.step), "encoding differs")


def check_not_finite(case: Case) -> None:
    """NaN and infinities raise CodecError wherever they stand."""
    for bad, place in itertools.product((np.nan, np.inf, -np.inf), {0, case.size // 2, case.size - 1}):
        vector = case.vectors[0].copy()
        vector[place] = bad
        _refused(CodecError, case.codec.encode, vector, case.step)


def check_commutes(case: Case) -> None:
    """Order does not matter."""
    payloads = case.payloads
    _same_sum(case, case.codec.merge(payloads, case.size), case.codec.merge(payloads[::-1], case.size))


def check_associates(case: Case) -> None:
    """Grouping does not matter."""
    payloads, size = case.payloads, case.size
    whole = case.codec.merge(payloads, size)
    for cut in range(1, len(payloads)):
        left, right = case.codec.merge(payloads[:cut], size), case.codec.merge(payloads[cut:], size)
        _same_sum(case, whole, case.codec.merge([left, right], size))


def check_growth(case: Case) -> None:
    """Unless it adds by decoding, a sum is not longer than its parts, with float16 widened to float32."""
    if case.codec.merging == "decodes":
        return
    parts, merged = case.payloads, case.codec.merge(case.payloads, case.size)
    _require(len(merged) <= _GROWTH * sum(map(len, parts)), f"{len(merged)} bytes from {sum(map(len, parts))}")


def check_adds(case: Case) -> None:
    """A merge is addition of what the payloads decode to, within the stated error; sums beyond float32 end at its largest."""
    decoded = [case.codec.decode(payload, case.size).astype(np.float64) for payload in case.payloads]
    expected = np.clip(np.sum(decoded, axis=0), -LARGEST, LARGEST)
    merged = case.codec.decode(case.codec.merge(case.payloads, case.size), case.size)
    error = np.abs(merged.astype(np.float64) - expected)
    allowed = _ROUNDING * _magnitudes(case) + _SMALLEST
    worst = int(np.argmax(error - allowed))
    _require(bool((error <= allowed).all()), f"{[float(d[worst]) for d in decoded]} added to {merged[worst]}")


def check_identity(case: Case) -> None:
    """Zero adds nothing, a payload alone is its own sum, and no payload at all raises CodecError."""
    zero = case.codec.encode(np.zeros(case.size, np.float32), case.step)
    _require(not case.codec.decode(zero, case.size).any(), "zero is not zero")
    for payload in case.payloads:
        alone = case.codec.merge([payload], case.size)
        _require(case.codec.merging != "exact" or alone == payload, "a payload alone changed")
        _same_sum(case, alone, case.codec.merge([payload, zero], case.size))
        _same_values(case, alone, payload)
    _refused(CodecError, case.codec.merge, [], case.size)


def check_step(case: Case) -> None:
    """`check` tells the announced step as float32 and merging keeps it; without one, a codec may take steps of its own.

    Different steps do not add, unless they are powers of two or one of them is 0. A bad step raises CodecError.
    """
    announced = float(np.float32(case.step)) if case.codec.stepped else 0.0
    payloads = case.payloads
    for payload in (*payloads, case.codec.merge(payloads, case.size)):
        told = case.codec.check(payload, case.size)
        _require(told == announced or (case.codec.stepped and not announced), f"check says {told}")
    if not case.codec.stepped:
        return
    if announced:
        other = case.codec.encode(case.vectors[0], 5.0 if announced == 3.0 else 3.0)
        for pair in ([payloads[0], other], [other, payloads[0]]):
            _refused(WireError, case.codec.merge, pair, case.size)
    for step in (-1.0, np.inf, np.nan, 1e39):
        _refused(CodecError, case.codec.encode, case.vectors[0], step)


def check_shifting(case: Case) -> None:
    """Where payloads add across powers of two, they do so exactly and in any grouping; `shifted` divides, and folding weighs."""
    codec, size = case.codec, case.size
    if not is_shifting(codec):
        return
    payloads = [codec.encode(vector, step) for vector, step in zip(case.vectors, itertools.cycle(_POWERS), strict=False)]
    for payload in payloads:
        step, largest = codec.measure(payload, size)
        _require(step == codec.check(payload, size), "measure and check see different steps")
        _require(largest * step == np.abs(codec.decode(payload, size)).max(initial=0), "measure misses the largest symbol")
        _require(largest <= codec.most, "an encoding has larger symbols than it says")
    whole, exact = codec.merge(payloads, size), np.sum([codec.decode(payload, size) for payload in payloads], axis=0)
    _require(codec.check(whole, size) == min(_POWERS), "the finest step did not win")
    _require(np.array_equal(codec.decode(whole, size), exact), "a sum across steps is not exact")
    for cut in range(1, len(payloads)):
        grouped = codec.merge([codec.merge(payloads[cut:], size), codec.merge(payloads[:cut], size)], size)
        _require(grouped == whole, "the grouping changed a sum across steps")
    divided = codec.merge([codec.shifted(payload, 3) for payload in payloads], size)
    _require(divided == codec.shifted(whole, 3), "shifting does not distribute over merging")
    _require(np.array_equal(codec.decode(divided, size), exact / 8), "shifting does not divide")
    parts = [_encoding(codec, size, number, payload) for number, payload in enumerate(payloads)]
    folded = fold(codec, merge(codec, parts), 9)
    halves = [fold(codec, merge(codec, half), 9) for half in (parts[:2], parts[2:])]
    _require(fold(codec, merge(codec, halves), 9) == folded, "the grouping changed what was folded")
    _require(folded.weight == sum(part.weight for part in parts), "folding did not conserve the weight")


def check_prefixes(case: Case) -> None:
    """A proper prefix of a payload is refused, and so is one with a byte more.

    Of a codec that is exactly mergeable, it may be the one payload of another vector: entropy coders need not say where they end.
    """
    for payload in (*case.payloads, case.codec.merge(case.payloads, case.size)):
        for length in _lengths(len(payload)):
            _cut(case, payload[:length])
        _cut(case, payload + b"\0")


def check_hostile_bytes(case: Case) -> None:
    """Damaged and random bytes raise only WireError; what passes is a payload like any other, and adds like one."""
    rng = np.random.default_rng(case.size)
    for payload in (*case.payloads, case.codec.merge(case.payloads, case.size)):
        for mutated in _mutations(rng, payload):
            _harmless(case, mutated, payload)


def check_encoded_merge(case: Case) -> None:
    """Weight, count and contributions are conserved in any grouping, and sections of different bases stay apart."""
    parts = _encodings(case)
    whole = merge(case.codec, parts)
    _require(whole.weight == sum(part.weight for part in parts), "weight was not conserved")
    _require(whole.count == len(parts), "count was not conserved")
    _require(whole.contributions == frozenset().union(*(part.contributions for part in parts)), "contributions were lost")
    _require(
        [section.base for section in whole.sections] == sorted({part.sections[0].base for part in parts}), "bases were mixed"
    )
    for section in whole.sections:
        inside = [part.sections[0] for part in parts if part.sections[0].base == section.base]
        _require(section.weight == sum(part.weight for part in inside), f"weight of base {section.base}")
        _require(section.energy == sum(part.energy for part in inside), f"energy of base {section.base}")
        _same_sum(case, section.payload, case.codec.merge([part.payload for part in inside], case.size))
    for cut in range(1, len(parts)):
        grouped = merge(case.codec, [merge(case.codec, parts[cut:]), merge(case.codec, parts[:cut])])
        _require(case.codec.merging != "exact" or grouped == whole, "the grouping changed an exact sum")
        _require(
            (grouped.weight, grouped.contributions) == (whole.weight, whole.contributions), "the grouping changed the weight"
        )


def check_encoded_misuse(case: Case) -> None:
    """Nothing to merge, a contribution twice, another codec and another size raise CodecError."""
    first, second = _encodings(case)[:2]
    both = merge(case.codec, [first, second])
    other_codec = Encoded("another", first.size, first.sections, frozenset())
    other_size = Encoded(first.codec, first.size + 1, first.sections, frozenset())
    for parts in ([], [first, first], [both, second], [other_codec], [first, other_codec], [second, other_size]):
        _refused(CodecError, merge, case.codec, parts)


CHECKS: tuple[Callable[[Case], None], ...] = (
    check_attributes,
    check_round_trip,
    check_feedback,
    check_determinism,
    check_not_finite,
    check_commutes,
    check_associates,
    check_growth,
    check_adds,
    check_identity,
    check_step,
    check_shifting,
    check_prefixes,
    check_hostile_bytes,
    check_encoded_merge,
    check_encoded_misuse,
)


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)


def _refused(error: type[Exception], act: Callable[..., object], *arguments: object) -> None:
    try:
        act(*arguments)
    except error:
        return
    raise AssertionError(f"no {error.__name__}")


def _malformed(case: Case, payload: bytes) -> None:
    _refused(WireError, case.codec.check, payload, case.size)
    _refused(WireError, case.codec.decode, payload, case.size)
    _refused(WireError, case.codec.merge, [payload], case.size)


def _cut(case: Case, suspect: bytes) -> None:
    if case.codec.merging == "exact" and _passes(case, suspect):
        _require(case.codec.merge([suspect], case.size) == suspect, "a vector has two encodings")
    else:
        _malformed(case, suspect)


def _passes(case: Case, suspect: bytes) -> bool:
    try:
        case.codec.check(suspect, case.size)
    except WireError:
        return False
    return True


def _harmless(case: Case, suspect: bytes, sound: bytes) -> None:
    if not _passes(case, suspect):
        _malformed(case, suspect)
        return
    _require(bool(np.isfinite(case.codec.decode(suspect, case.size)).all()), "decoding gave NaN or an infinity")
    alone = case.codec.merge([suspect], case.size)
    _require(case.codec.merging != "exact" or alone == suspect, "a vector has two encodings")
    if case.codec.check(suspect, case.size) != case.codec.check(sound, case.size):
        return
    if ring_of(case.codec, suspect) == ring_of(case.codec, sound):
        case.codec.check(case.codec.merge([suspect, sound, suspect], case.size), case.size)
    else:  # a fog node has to know before it merges
        _refused(WireError, case.codec.merge, [suspect, sound, suspect], case.size)


def _mutations(rng: np.random.Generator, payload: bytes) -> Iterator[bytes]:
    for _ in range(_MUTATIONS):
        flipped = bytearray(payload)
        flipped[rng.integers(len(payload))] ^= 1 << int(rng.integers(8))
        yield bytes(flipped)
        kept = int(rng.integers(len(payload) + 1))
        yield payload[:kept] + rng.bytes(len(payload) - kept)
        yield rng.bytes(int(rng.integers(64)))


def _lengths(length: int) -> Iterator[int]:
    """All proper prefixes of short payloads; of long ones the ends."""
    yield from range(min(length, 64))
    yield from range(max(64, length - 64), length)


def _magnitudes(case: Case) -> Bound:
    """The sum of the magnitudes that are added, for each value."""
    total: Bound = np.sum([np.abs(case.codec.decode(payload, case.size).astype(np.float64)) for payload in case.payloads], axis=0)
    return total


def _same_sum(case: Case, one: bytes, other: bytes) -> None:
    if case.codec.merging == "exact":
        _require(one == other, "an exact sum has two encodings")
    else:
        _same_values(case, one, other)


def _same_values(case: Case, one: bytes, other: bytes) -> None:
    magnitudes = _magnitudes(case)
    difference = case.codec.decode(one, case.size).astype(np.float64) - case.codec.decode(other, case.size)
    wrong = (np.abs(difference) > 2 * _ROUNDING * magnitudes + _SMALLEST) & (magnitudes <= LARGEST)
    _require(not wrong.any(), f"sums differ by {np.abs(difference).max()}")


def _encodings(case: Case) -> list[Encoded]:
    """One encoding for each payload, of two bases in turn, with energies whose sums are exact."""
    return [_encoding(case.codec, case.size, number, payload) for number, payload in enumerate(case.payloads)]


def _encoding(codec: Codec, size: int, number: int, payload: bytes) -> Encoded:
    section = Section(base=7 - number % 2, weight=10 + number, count=1, energy=0.5 + number, payload=payload)
    return Encoded(codec.name, size, (section,), frozenset({UpdateId(f"device-{number}", 1, 0)}))
