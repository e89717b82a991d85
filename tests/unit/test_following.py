"""A release put together from differences is the release, bit for bit, whatever the reader had before."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemw.compression.difference import advance, difference
from edgemw.core.bundle import Vector
from edgemw.core.errors import WireError
from edgemw.core.plan import Plan
from edgemw.fog.announcer import Shelf
from edgemw.fog.trail import HOPS, Trail
from edgemw.wire.chunks import blob_of
from edgemw.wire.following import Following, Taken
from edgemw.wire.messages import Blob, Difference, ReleaseManifest, pack_difference

SIZE, CHUNK = 4000, 120_000


def theta_bytes(vector: Vector) -> bytes:
    return vector.astype("<f4").tobytes()


@dataclass
class Maker:
    """Makes releases as the top does, and remembers what is on the broker at each of them."""

    size: int = SIZE
    kappa: float = 4.0
    chunk: int = CHUNK
    seed: int = 0
    trail: Trail = field(default_factory=Trail)
    theta: list[bytes] = field(default_factory=list)
    manifests: list[ReleaseManifest] = field(default_factory=list)
    shelves: list[Shelf] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        theta0 = self.rng.normal(0, 1, self.size).astype(np.float32)
        self.residual = np.zeros(self.size, np.float32)
        self.trail.start(theta_bytes(theta0))
        blob = blob_of(theta_bytes(theta0), self.chunk)
        self._out(ReleaseManifest(1, 0, b"b" * 16, blob, True, "lattice", {}, 0.0, Plan(), 4), theta_bytes(theta0))

    def _out(self, manifest: ReleaseManifest, theta: bytes) -> None:
        self.trail.heard(manifest)
        manifest, needed, ahead = self.trail.release(manifest, theta)
        self.theta.append(theta)
        self.manifests.append(manifest)
        self.shelves.append(needed)
        assert not set(needed) & set(ahead)

    def release(self) -> None:
        base = np.frombuffer(self.theta[-1], "<f4")
        move = self.rng.normal(0, 0.01, self.size).astype(np.float32)
        master = base + self.residual + move
        payload = difference(base, master, move, self.kappa)
        old = self.manifests[-1]
        lead = self.trail.lead(old, payload)
        number = old.number + 1
        if lead is None:
            theta = theta_bytes(master)
            self._out(replace(old, number=number, theta=blob_of(theta, self.chunk), whole=True, difference=b"", packed=()), theta)
            return
        theta = advance(self.theta[-1], payload)
        self.residual = master - np.frombuffer(theta, "<f4")
        if not lead.inline:
            self.trail.put(lead.blob, lead.data)
        self._out(replace(lead.into(old), number=number, theta=blob_of(theta, self.chunk)), theta)


def take(following: Following, maker: Maker, number: int) -> list[Blob]:
    """Follow a release to its end with what is on the broker then; gives what was fetched."""
    found, fetched = follow(following, maker.manifests[number], maker.shelves[number])
    assert found.manifest == maker.manifests[number]
    assert bytes(found.theta) == maker.theta[number]
    return [blob for blob, _ in fetched]


def follow(following: Following, manifest: ReleaseManifest, shelf: Shelf) -> tuple[Taken, list[tuple[Blob, bytes]]]:
    """Follow a release to its end with these blobs; gives it and what was fetched."""
    fetched: list[tuple[Blob, bytes]] = []
    found = following.want(manifest)
    while isinstance(found, Blob):
        assert following.waits_for(found)
        blob, data = next(held for held in shelf.values() if held[0].label == found.label)
        assert blob.digest.startswith(found.digest)
        assert (blob.size, blob.chunk_size) == (found.size, found.chunk_size)
        fetched.append((blob, data))
        found = following.on_blob(blob, data)
    assert found is not None
    return found, fetched


def reader(maker: Maker) -> Following:
    following = Following(advance)
    following.know(maker.theta[0])
    return following


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.booleans(), min_size=1, max_size=40),
    st.sampled_from([(SIZE, 4.0, CHUNK), (SIZE, 0.3, CHUNK), (20, 4.0, CHUNK), (60_000, 2.0, 2048)]),
    st.integers(0, 3),
)
def test_every_reader_ends_with_the_same_bits_whatever_it_missed(
    heard: list[bool], kind: tuple[int, float, int], seed: int
) -> None:
    size, kappa, chunk = kind
    maker = Maker(size, kappa, chunk, seed)
    sometimes, always = reader(maker), reader(maker)
    take(sometimes, maker, 0)
    take(always, maker, 0)
    for number, hears in enumerate(heard, start=1):
        maker.release()
        fetched = take(always, maker, number)
        assert len(fetched) <= 1
        if hears:
            take(sometimes, maker, number)
    take(reader(maker), maker, len(heard))


def test_who_has_the_release_before_fetches_nothing_and_who_comes_late_at_most_one_theta_and_a_half() -> None:
    maker = Maker()
    always = reader(maker)
    take(always, maker, 0)
    largest = 0
    for number in range(1, 3 * HOPS):
        maker.release()
        assert take(always, maker, number) == []
        fetched = take(reader(maker), maker, number)
        largest = max(largest, sum(blob.size for blob in fetched))
        assert len(fetched) <= HOPS + 1
    assert sum(manifest.whole for manifest in maker.manifests[1:]) >= 2
    assert largest <= 1.5 * 4 * SIZE
    longest = max(len(shelf) for shelf in maker.shelves)
    assert longest <= HOPS + 1


def test_theta0_is_never_on_the_broker() -> None:
    maker = Maker()
    for _ in range(3):
        maker.release()
    origin = hashlib.sha256(maker.theta[0]).digest()
    assert all(origin not in shelf for shelf in maker.shelves)
    assert maker.shelves[0] == {}


def test_a_difference_that_leads_elsewhere_is_refused_and_the_release_can_be_taken_still() -> None:
    maker = Maker()
    for _ in range(2):
        maker.release()
    following = reader(maker)
    take(following, maker, 1)
    wrong = pack_difference(Difference(maker.manifests[1].theta.label, (), b"\0" * 8))
    with pytest.raises(WireError, match="another theta"):
        following.want(replace(maker.manifests[2], difference=wrong))
    take(following, maker, 2)


@pytest.mark.parametrize("payload", [b"", b"\xff" * 40, b"\0\0\x80\x7f\1\0\0\0\xff"])
def test_a_malformed_difference_is_refused(payload: bytes) -> None:
    maker = Maker()
    maker.release()
    following = reader(maker)
    take(following, maker, 0)
    wrong = pack_difference(Difference(maker.manifests[0].theta.label, (), payload))
    with pytest.raises(WireError):
        following.want(replace(maker.manifests[1], difference=wrong))


@pytest.mark.parametrize("every", [1, 2, 3])
@pytest.mark.parametrize("rounds", [0.5, 1.5, 2.5, 6.0])
@pytest.mark.parametrize("chunk", [CHUNK, 2048])
def test_a_reader_that_is_slower_than_rounds_takes_releases_all_the_same(rounds: float, chunk: int, every: int) -> None:
    """A fetch takes so many rounds; what a whole release has replaced is removed at the next such change.

    Below a fog node that passes releases over only every second, or third, is heard of.
    """
    maker = Maker(20_000, 2.0, chunk)
    following, taken = reader(maker), list[int]()
    under_way: dict[bytes, float] = {}
    shelf: Shelf = {}
    before: Shelf = {}
    for number in range(1, 80):
        maker.release()
        gone = {digest: hop for digest, hop in shelf.items() if digest not in maker.shelves[number]}
        before, shelf = gone or before, maker.shelves[number]
        there = {blob.label: (blob, data) for blob, data in (before | shelf).values()}
        if number < 20:
            continue
        newest = maker.manifests[number - number % every]
        answers: list[Blob | Taken | None] = []
        if number % every == 0:
            following.hear(1, 1)
            answers.append(following.want(newest))
        while True:
            match answers.pop() if answers else None:
                case Blob() as blob:
                    under_way.setdefault(blob.label, number + rounds)
                case Taken(manifest, theta):
                    taken.append(manifest.number)
                    assert bytes(theta) == maker.theta[manifest.number]
                    answers += [following.want(newest)] if manifest != newest else []
            due = [label for label, at in under_way.items() if at < number + 1 and label in there]
            if due and not answers:
                del under_way[due[0]]
                answers.append(following.on_blob(*there[due[0]]))
            if not answers:
                break
    assert taken == sorted(taken)
    assert len(taken) >= 2
    assert taken[0] <= 20 + 3 * rounds + 14 * every


def test_what_an_earlier_life_had_is_not_fetched_again() -> None:
    maker, following = Maker(), Following(advance)
    for _ in range(3):
        maker.release()
    following.remember(maker.theta[3])
    whole = replace(maker.manifests[3], whole=True, difference=b"", packed=())  # of a fog node that began again
    found = following.want(whole)
    assert isinstance(found, Taken)
    assert bytes(found.theta) == maker.theta[3]
    other = Following(advance)
    other.remember(maker.theta[1])
    assert isinstance(other.want(whole), Blob)


def test_another_life_of_a_fog_node_may_have_removed_what_is_waited_for() -> None:
    """It began again with its release as a whole, and said so to nobody before it had the next one."""
    maker, following = Maker(size=60_000, kappa=2.0, chunk=2048), Following(advance)
    for _ in range(4):
        maker.release()
    first, second = maker.manifests[1:3]
    following.hear(1, 1)
    assert isinstance(following.want(first), Blob)
    following.hear(1, 1)
    assert following.want(second) is None, "what leads to the first is on its way"
    following.hear(1, 2)
    assert isinstance(following.want(second), Blob)


def test_a_release_that_moved_nothing_is_passed_over() -> None:
    maker = Maker()
    for _ in range(2):
        maker.release()
    following = reader(maker)
    take(following, maker, 2)
    maker.manifests.append(replace(maker.manifests[2], number=3))
    maker.theta.append(maker.theta[2])
    maker.shelves.append(maker.shelves[2])
    assert take(following, maker, 3) == []
    assert take(reader(maker), maker, 3) != []


def test_a_trail_without_end_is_given_up() -> None:
    maker = Maker()
    maker.release()
    following = reader(maker)

    def hop(number: int) -> bytes:
        base, before = (Blob(kind + number.to_bytes(31, "little"), 4 * SIZE, CHUNK) for kind in (b"t", b"d"))
        return pack_difference(Difference(base.label, (before.brief,), b"p" * 100))

    following.want(replace(maker.manifests[1], whole=False, difference=hop(0)))

    def walk() -> None:
        for number in range(1, 1000):
            following.on_blob(Blob(b"d" + (number - 1).to_bytes(31, "little"), 4 * SIZE, CHUNK), hop(number))

    with pytest.raises(WireError, match="cost more"):
        walk()


def test_a_blob_that_nobody_waits_for_changes_nothing() -> None:
    following = reader(Maker())
    assert following.on_blob(Blob(b"z" * 32, 4, CHUNK), b"data") is None


class Fog:
    """Hears releases, perhaps not all, and lets others have them."""

    def __init__(self, maker: Maker) -> None:
        self.trail, self.following = Trail(), reader(maker)
        self.trail.start(maker.theta[0])

    def hear(self, manifest: ReleaseManifest, shelf: Shelf) -> None:
        """Take a release out of the domain above."""
        self.trail.heard(manifest)
        taken, fetched = follow(self.following, manifest, shelf)
        for blob, data in fetched:
            self.trail.put(blob, data)
        self.manifest, self.needed, ahead = self.trail.release(manifest, taken.theta)
        assert not set(self.needed) & set(ahead)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.booleans(), st.sampled_from([False, False, True])), min_size=1, max_size=25),
    st.sampled_from([4.0, 0.3]),
)
def test_whoever_comes_late_gets_every_release_from_fog_nodes_that_have_missed_some(
    heard: list[tuple[bool, bool, bool]], kappa: float
) -> None:
    """A top that begins another life says its release again, as a whole: who does not hear of that knows its theta already."""
    maker = Maker(kappa=kappa)
    mid, leaf = Fog(maker), Fog(maker)
    mid.hear(maker.manifests[0], maker.shelves[0])
    leaf.hear(mid.manifest, mid.needed)
    for mid_hears, leaf_hears, again in heard:
        if again:
            maker._out(replace(maker.manifests[-1], whole=True, difference=b"", packed=()), maker.theta[-1])
        maker.release()
        if mid_hears:
            mid.hear(maker.manifests[-1], maker.shelves[-1])
            if leaf_hears:
                leaf.hear(mid.manifest, mid.needed)
        for fog in (mid, leaf):
            found, _ = follow(reader(maker), fog.manifest, fog.needed)
            assert found.manifest == fog.manifest
            assert hashlib.sha256(found.theta).digest() == fog.manifest.theta.digest


def test_a_fog_that_did_not_hear_of_a_whole_release_writes_its_theta_once() -> None:
    maker = Maker()
    fog = Fog(maker)
    fog.hear(maker.manifests[0], maker.shelves[0])
    maker.release()
    fog.hear(maker.manifests[1], maker.shelves[1])
    maker._out(replace(maker.manifests[1], whole=True, difference=b"", packed=()), maker.theta[1])
    before, written = fog.needed, 0
    for _ in range(5):
        maker.release()
        assert not maker.manifests[-1].whole
        fog.hear(maker.manifests[-1], maker.shelves[-1])
        written += sum(len(data) for digest, (_, data) in fog.needed.items() if digest not in before)
        before = before | fog.needed
    assert 4 * SIZE <= written < 2 * 4 * SIZE


def test_error_feedback_loses_nothing() -> None:
    maker = Maker()
    for _ in range(5):
        maker.release()
    rng = np.random.default_rng(0)
    expected = rng.normal(0, 1, SIZE).astype(np.float32)
    for _ in range(5):
        expected = expected + rng.normal(0, 0.01, SIZE).astype(np.float32)
    np.testing.assert_allclose(np.frombuffer(maker.theta[-1], "<f4") + maker.residual, expected, atol=1e-5)
