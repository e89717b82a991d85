"""Frames that were damaged at random, to every decoder: refused in its own words, and nothing grows.

`make soak` feeds ten million of them; without options it is a short version with a fixed seed.
"""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest

from edgemw.compression import lattice
from edgemw.compression.table import CODECS
from edgemw.wire.messages import KINDS, unpack
from tests.system import fuzz_frames
from tests.system.fuzz_frames import MOST_GROWTH_BYTES, damaged, fuzz, run, targets


@pytest.mark.timeout(0)  # how many there are is an option
def test_every_decoder_refuses_damage_in_its_own_words(pytestconfig: pytest.Config) -> None:
    frames, seed = pytestconfig.getoption("--frames"), pytestconfig.getoption("--storm")
    if frames <= 100_000:
        ended = [fuzz(targets(), frames, seed)]
    else:
        print()
        ended, wall_s = run(frames, seed, 2)
        growth = ", ".join(f"{done.growth_bytes / 2**20:+.1f}" for done in ended)
        print(f"{frames} frames, {frames / wall_s:.0f} per second; memory since a tenth was done: {growth} MiB", flush=True)
    for done in ended:
        assert not done.bugs, "\n".join(map(str, done.bugs))
        assert 0.05 < done.taken / done.frames < 0.6  # damage that nobody takes, or everybody, tells nothing
        assert done.growth_bytes < MOST_GROWTH_BYTES
    assert sum(done.frames for done in ended) == frames


def test_a_planted_bug_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A codec that reads a header before it knows that there is one."""

    def opened(payload: bytes) -> Any:
        struct.unpack_from("<fI", payload)
        return sound(payload)

    sound = lattice._opened
    monkeypatch.setattr(lattice, "_opened", opened)
    done = fuzz(targets(), 20_000, 0, most_bugs=1)
    assert [bug.error.split("(")[0] for bug in done.bugs] == ["error"]
    (target,) = (target for target in targets() if target.name == done.bugs[0].target)
    with pytest.raises(struct.error):  # the bytes that it names do it again
        target.feed(done.bugs[0].data)


def test_memory_that_is_kept_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []
    target = fuzz_frames.Target("keeps", (b"a",), lambda data: kept.append(bytes(1 << 15)))
    assert fuzz([target], 2000, 0).growth_bytes > MOST_GROWTH_BYTES


def test_every_kind_and_every_codec_is_among_the_seeds() -> None:
    known = {target.name: target for target in targets()}
    kinds = {type(unpack(seed).message) for seed in known["wire"].seeds}
    assert kinds == {kind.body.cls for kind in KINDS}
    assert set(CODECS) <= set(known)
    for target in known.values():
        for seed in target.seeds:
            target.feed(seed)  # sound


def test_the_same_seed_is_the_same_damage() -> None:
    seeds = targets()[0].seeds
    one, other = ([damaged(rng, seeds) for _ in range(100)] for rng in (random.Random(3), random.Random(3)))
    assert one == other
