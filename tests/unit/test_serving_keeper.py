"""What a server makes of a store: the newest good release answers, and nothing else ever does."""

from __future__ import annotations

import selectors
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from edgemw.cli.main import main
from edgemw.compile.export import compile_task
from edgemw.compile.task import Task
from edgemw.core.bundle import Bundle, Vector, read_bundle
from edgemw.serving import store
from edgemw.serving.bell import Bell, ring
from edgemw.serving.keeper import Canary, Keeper
from edgemw.serving.session import open_inference
from edgemw.serving.store import Choice, ReleaseStore

DIGITS = Path(__file__).parents[2] / "examples" / "quickstart" / "digits.edge"
X = np.random.default_rng(0).random((2, 64), np.float32)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return read_bundle(DIGITS.read_bytes())


def theta(bundle: Bundle, number: int) -> Vector:
    """Another one for each release."""
    return np.random.default_rng(number).normal(0, 0.1, bundle.manifest.size).astype(np.float32)


def save(folder: Path, bundle: Bundle, number: int, keep: int = 3) -> None:
    ReleaseStore(folder, keep).save("digits", bundle, 1, number, theta(bundle, number))


def keeper_of(folder: Path, bundle: Bundle, releases: int) -> Keeper:
    """Of a store with so many releases, of which the newest answers."""
    for number in range(releases):
        save(folder, bundle, number)
    keeper = Keeper(ReleaseStore(folder, 1))
    assert keeper.look()
    return keeper


def answers(keeper: Keeper, bundle: Bundle) -> int:
    """The release that answers, which is the one that it says."""
    outputs, number = keeper.slots["digits"].serve(X)
    expected = open_inference(bundle.infer, theta(bundle, number), size=bundle.manifest.size).run(X)
    np.testing.assert_array_equal(outputs, expected)
    return number


def test_the_newest_release_answers_as_soon_as_it_was_looked_at(tmp_path: Path, bundle: Bundle) -> None:
    keeper = Keeper(ReleaseStore(tmp_path, 1))
    assert not keeper.look()
    assert keeper.slots == {}
    for number in range(4):
        save(tmp_path, bundle, number)
        assert keeper.look()
        assert not keeper.look()
        assert answers(keeper, bundle) == number
    assert keeper.refused == {}


def test_only_the_tasks_that_were_named_are_served(tmp_path: Path, bundle: Bundle) -> None:
    save(tmp_path, bundle, 0)
    keeper = Keeper(ReleaseStore(tmp_path, 1), ("har",))
    assert not keeper.look()
    assert set(keeper.slots) == {"har"}
    assert keeper.slots["har"].current is None


def test_a_damaged_release_is_passed_over_and_said(tmp_path: Path, bundle: Bundle) -> None:
    keeper = keeper_of(tmp_path, bundle, 2)
    save(tmp_path, bundle, 2)
    newest = max((tmp_path / "digits" / "releases").iterdir())
    (newest / "theta.f32").write_bytes(bytes(4 * bundle.manifest.size))
    assert not keeper.look()
    assert answers(keeper, bundle) == 1
    assert "damaged" in keeper.refused["digits"]
    save(tmp_path, bundle, 3)
    assert keeper.look()
    assert answers(keeper, bundle) == 3
    assert keeper.refused == {}


def test_a_first_release_that_is_damaged_leaves_the_one_before_it(tmp_path: Path, bundle: Bundle) -> None:
    for number in range(2):
        save(tmp_path, bundle, number)
    newest = max((tmp_path / "digits" / "releases").iterdir())
    (newest / "meta.json").write_text("{")
    keeper = Keeper(ReleaseStore(tmp_path, 1))
    assert keeper.look()
    assert answers(keeper, bundle) == 0


def test_a_release_whose_outputs_are_not_finite_does_not_answer(tmp_path: Path, bundle: Bundle) -> None:
    keeper = keeper_of(tmp_path, bundle, 1)
    ReleaseStore(tmp_path, 3).save("digits", bundle, 1, 1, np.full(bundle.manifest.size, 3e38, np.float32))
    assert not keeper.look()
    assert answers(keeper, bundle) == 0
    assert keeper.refused["digits"] == "release 1 is not served: outputs of 4 of 4 samples are not finite"


def test_a_server_that_starts_beside_a_release_it_cannot_serve_takes_the_one_before_it(tmp_path: Path, bundle: Bundle) -> None:
    save(tmp_path, bundle, 0)
    ReleaseStore(tmp_path, 3).save("digits", bundle, 1, 1, np.full(bundle.manifest.size, 3e38, np.float32))
    keeper = Keeper(ReleaseStore(tmp_path, 1))
    assert keeper.look()
    assert answers(keeper, bundle) == 0
    assert "release 1 is not served" in keeper.refused["digits"]
    assert not keeper.look()
    save(tmp_path, bundle, 2)
    assert keeper.look()
    assert answers(keeper, bundle) == 2
    assert keeper.refused == {}


def test_a_release_that_could_not_be_read_for_a_moment_is_served_at_the_next_look(
    tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = keeper_of(tmp_path, bundle, 1)
    save(tmp_path, bundle, 1)
    with monkeypatch.context() as patch:

        def short_of_files(*_: object) -> None:
            raise OSError(24, "Too many open files")

        patch.setattr(store, "_read_theta", short_of_files)
        assert not keeper.look()
    assert answers(keeper, bundle) == 0
    assert keeper.look()
    assert answers(keeper, bundle) == 1


def test_a_store_that_was_emptied_and_filled_again_is_followed(tmp_path: Path, bundle: Bundle) -> None:
    keeper = keeper_of(tmp_path, bundle, 3)
    shutil.rmtree(tmp_path / "digits")
    save(tmp_path, bundle, 7)
    assert keeper.look()
    assert answers(keeper, bundle) == 7


def test_every_answer_is_of_one_release_while_others_take_its_place(tmp_path: Path, bundle: Bundle) -> None:
    """Bit for bit what the release that it names gives."""
    keeper = keeper_of(tmp_path, bundle, 1)
    expected = {n: open_inference(bundle.infer, theta(bundle, n), size=bundle.manifest.size).run(X) for n in range(12)}
    done, wrong, seen = threading.Event(), list[int](), set[int]()

    def ask() -> None:
        while not done.is_set():
            outputs, number = keeper.slots["digits"].serve(X)
            seen.add(number)
            if not np.array_equal(outputs, expected[number]):
                wrong.append(number)

    asking = [threading.Thread(target=ask) for _ in range(2)]
    for thread in asking:
        thread.start()
    for number in range(1, 12):
        save(tmp_path, bundle, number)
        assert keeper.look()
    done.set()
    for thread in asking:
        thread.join()
    assert wrong == []
    assert len(seen) > 1


# -- the bell


def rung(bell: Bell, timeout_s: float) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(bell, selectors.EVENT_READ)
        return bool(selector.select(timeout_s))


def test_whoever_saves_a_release_rings(tmp_path: Path, bundle: Bundle) -> None:
    bells = [Bell(tmp_path), Bell(tmp_path)]
    assert not rung(bells[0], 0)
    save(tmp_path, bundle, 0)
    for bell in bells:
        assert rung(bell, 10)
        bell.silence()
        assert not rung(bell, 0)
        bell.close()
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]
    assert ReleaseStore(tmp_path, 1).tasks() == ["digits"]


def test_a_bell_that_is_rung_a_thousand_times_holds_nobody_up(tmp_path: Path) -> None:
    bell = Bell(tmp_path)
    for _ in range(1000):
        ring(tmp_path)
    assert rung(bell, 0)
    bell.silence()
    bell.close()


def test_the_bell_of_a_dead_server_is_taken_down(tmp_path: Path) -> None:
    bell = Bell(tmp_path)
    bell._socket.close()  # as when its process is killed
    assert len(list(tmp_path.iterdir())) == 1
    ring(tmp_path)
    assert list(tmp_path.iterdir()) == []
    ring(tmp_path / "none")


def test_a_bell_rings_in_a_store_whose_path_is_longer_than_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / ("a" * 90) / ("b" * 90)
    folder.mkdir(parents=True)
    bell = Bell(folder)
    ring(folder)
    assert rung(bell, 10.0)
    bell.silence()
    monkeypatch.chdir(folder)
    ring(Path())  # whoever saves may know it by another name
    assert rung(bell, 10.0)
    bell.close()
    assert list(folder.iterdir()) == []


# -- canaries


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def canary_keeper(folder: Path, bundle: Bundle, clock: Clock, share: float = 0.25) -> Keeper:
    """Serves release 0, and tries later ones out for a minute."""
    save(folder, bundle, 0)
    keeper = Keeper(ReleaseStore(folder, 1), canary=Canary(share, 60.0), clock=clock)
    assert keeper.look()
    return keeper


def picked(keeper: Keeper, requests: int) -> list[int]:
    """The releases that answer so many requests."""
    slot = keeper.slots["digits"]
    return [slot.serve(X, slot.pick())[1] for _ in range(requests)]


def test_a_canary_answers_its_share_and_after_a_while_everybody(tmp_path: Path, bundle: Bundle) -> None:
    clock = Clock()
    keeper = canary_keeper(tmp_path, bundle, clock)
    assert picked(keeper, 4) == [0] * 4  # the first release has nothing beside it
    save(tmp_path, bundle, 1)
    assert keeper.look()
    slot = keeper.slots["digits"]
    assert slot.canary is not None
    assert slot.current is not None
    assert (slot.current.release, slot.canary.release) == (0, 1)
    assert sorted(picked(keeper, 100)) == [0] * 75 + [1] * 25
    clock.now = 59.0
    assert not keeper.look()
    clock.now = 60.0
    assert keeper.look()
    assert slot.canary is None
    assert picked(keeper, 4) == [1] * 4
    assert answers(keeper, bundle) == 1


def test_a_canary_that_cannot_answer_is_replaced_within_the_request(tmp_path: Path, bundle: Bundle) -> None:
    keeper = canary_keeper(tmp_path, bundle, Clock(), share=0.5)
    ReleaseStore(tmp_path, 3).save("digits", bundle, 1, 1, np.full(bundle.manifest.size, 1e9, np.float32))
    assert keeper.look()
    slot, large = keeper.slots["digits"], np.full((1, 64), 1e9, np.float32)
    assert slot.canary is not None
    outputs, release = slot.serve(large, slot.canary)
    assert release == 0
    assert np.isfinite(outputs).all()
    assert slot.canary is None
    assert picked(keeper, 4) == [0] * 4
    assert keeper.look()
    assert keeper.refused["digits"] == "release 1 is not served: as a canary, it gives NaN or infinite outputs"
    assert not keeper.look()  # it is not tried again
    save(tmp_path, bundle, 2)
    assert keeper.look()
    assert slot.canary.release == 2
    assert keeper.refused == {}


def test_what_no_release_can_answer_is_not_the_canarys_fault(tmp_path: Path, bundle: Bundle) -> None:
    keeper = canary_keeper(tmp_path, bundle, Clock())
    save(tmp_path, bundle, 1)
    assert keeper.look()
    slot, huge = keeper.slots["digits"], np.full((1, 64), 3e38, np.float32)
    outputs, _ = slot.serve(huge, slot.canary)
    assert not np.isfinite(outputs).all()
    assert slot.canary is not None


def test_a_release_that_comes_while_another_one_is_tried_waits_for_its_turn(tmp_path: Path, bundle: Bundle) -> None:
    clock = Clock()
    keeper = canary_keeper(tmp_path, bundle, clock)
    slot, answering = keeper.slots["digits"], []
    for number in range(1, 8):  # one each 25 s, of which each is to be tried for a minute
        save(tmp_path, bundle, number)
        keeper.look()
        assert slot.current is not None
        assert slot.canary is not None
        answering.append((slot.current.release, slot.canary.release))
        clock.now += 25
    assert answering == [(0, 1), (0, 1), (0, 1), (1, 4), (1, 4), (1, 4), (4, 7)]


def test_requests_in_line_for_a_canary_that_failed_are_answered_by_the_release_before(tmp_path: Path, bundle: Bundle) -> None:
    keeper = canary_keeper(tmp_path, bundle, Clock())
    ReleaseStore(tmp_path, 3).save("digits", bundle, 1, 1, np.full(bundle.manifest.size, 1e9, np.float32))
    assert keeper.look()
    slot, large = keeper.slots["digits"], np.full((1, 64), 1e9, np.float32)
    canary = slot.canary
    for _ in range(2):
        outputs, release = slot.serve(large, canary)
        assert (release, bool(np.isfinite(outputs).all())) == (0, True)
    assert slot.answered == 2


def test_a_canary_that_failed_is_not_tried_again_where_a_later_one_is_damaged(tmp_path: Path, bundle: Bundle) -> None:
    keeper = canary_keeper(tmp_path, bundle, Clock())
    ReleaseStore(tmp_path, 3).save("digits", bundle, 1, 1, np.full(bundle.manifest.size, 1e9, np.float32))
    assert keeper.look()
    slot = keeper.slots["digits"]
    slot.serve(np.full((1, 64), 1e9, np.float32), slot.canary)
    assert keeper.look()
    save(tmp_path, bundle, 2)
    newest = max((tmp_path / "digits" / "releases").iterdir())
    (newest / "theta.f32").write_bytes(bytes(4 * bundle.manifest.size))
    keeper.look()
    assert slot.canary is None
    assert picked(keeper, 4) == [0] * 4


def test_a_canary_that_failed_is_served_where_somebody_pins_it(tmp_path: Path, bundle: Bundle) -> None:
    keeper = canary_keeper(tmp_path, bundle, Clock())
    ReleaseStore(tmp_path, 3).save("digits", bundle, 1, 1, np.full(bundle.manifest.size, 1e9, np.float32))
    assert keeper.look()
    slot = keeper.slots["digits"]
    slot.serve(np.full((1, 64), 1e9, np.float32), slot.canary)
    assert keeper.look()
    assert main(["model", "pin", str(tmp_path), "1"]) == 0
    assert keeper.look()
    assert picked(keeper, 2) == [1, 1]


def test_a_release_that_takes_other_inputs_is_not_tried_beside_one_that_does_not(tmp_path: Path, bundle: Bundle) -> None:
    keeper = canary_keeper(tmp_path, bundle, Clock())
    narrow = compile_task(Task("digits", lambda: nn.Linear(5, 10), input=(5,), loss="cross_entropy"))
    ReleaseStore(tmp_path, 3).save("digits", narrow, 1, 1, narrow.theta0)
    assert keeper.look()
    slot = keeper.slots["digits"]
    assert slot.canary is None
    assert slot.current is not None
    assert slot.current.release == 1


@pytest.mark.parametrize("named", ["1", "latest"])
def test_the_newest_release_that_is_used_on_purpose_is_no_canary(tmp_path: Path, bundle: Bundle, named: str) -> None:
    keeper = canary_keeper(tmp_path, bundle, Clock())
    save(tmp_path, bundle, 1)
    assert keeper.look()
    assert main(["model", "use", str(tmp_path), named]) == 0
    assert keeper.look()
    assert picked(keeper, 4) == [1] * 4
    save(tmp_path, bundle, 2)  # which is tried out as ever
    assert keeper.look()
    assert sorted(picked(keeper, 4)) == [1, 1, 1, 2]


def test_a_canary_that_somebody_chooses_answers_everybody(tmp_path: Path, bundle: Bundle) -> None:
    keeper = canary_keeper(tmp_path, bundle, Clock())
    save(tmp_path, bundle, 1)
    assert keeper.look()
    chosen = ReleaseStore(tmp_path, 1)
    place = chosen.kept("digits")[-1].place
    chosen.choose("digits", Choice(place, None))
    assert keeper.look()
    assert picked(keeper, 4) == [1] * 4


def test_going_back_ends_a_canary(tmp_path: Path, bundle: Bundle) -> None:
    clock = Clock()
    keeper = canary_keeper(tmp_path, bundle, clock)
    save(tmp_path, bundle, 1)
    assert keeper.look()
    chosen = ReleaseStore(tmp_path, 1)
    first, last = (kept.place for kept in chosen.kept("digits"))
    chosen.choose("digits", Choice(first, last))
    assert keeper.look()
    assert picked(keeper, 8) == [0] * 8
    clock.now = 100
    assert not keeper.look()
    assert picked(keeper, 8) == [0] * 8
