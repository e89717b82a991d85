"""The store of releases: what is read back is whole, whatever happened to the files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgemw.core.bundle import Bundle, Vector, read_bundle
from edgemw.core.errors import BundleError, StorageError
from edgemw.serving.store import META, THETA, ReleaseStore

DIGITS = Path(__file__).parents[2] / "examples" / "quickstart" / "digits.edge"


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return read_bundle(DIGITS.read_bytes())


def theta_of(bundle: Bundle, number: int) -> Vector:
    return np.full(bundle.manifest.size, number, np.float32)


def filled(folder: Path, bundle: Bundle, count: int, keep: int = 3) -> ReleaseStore:
    store = ReleaseStore(folder, keep)
    for number in range(count):
        store.save("digits", bundle, 7, number, theta_of(bundle, number))
    return store


def releases(folder: Path) -> list[Path]:
    return sorted((folder / "digits" / "releases").iterdir())


def test_what_was_saved_comes_back(tmp_path: Path, bundle: Bundle) -> None:
    filled(tmp_path, bundle, 2)
    release = ReleaseStore(tmp_path, 3).latest("digits")
    assert release is not None
    assert (release.task, release.run, release.number) == ("digits", 7, 1)
    assert release.manifest == bundle.manifest
    assert release.bundle.infer == bundle.infer
    np.testing.assert_array_equal(release.theta, theta_of(bundle, 1))


def test_an_empty_store_has_nothing_and_makes_nothing(tmp_path: Path) -> None:
    store = ReleaseStore(tmp_path / "none", 3)
    assert store.tasks() == []
    assert store.latest("digits") is None
    assert store.latest("../digits") is None
    assert not (tmp_path / "none").exists()


def test_the_newest_are_kept_and_the_bundle_is_there_once(tmp_path: Path, bundle: Bundle) -> None:
    filled(tmp_path, bundle, 5, keep=2)
    assert len(releases(tmp_path)) == 2
    assert len(list((tmp_path / "digits" / "bundles").iterdir())) == 1


def test_a_new_bundle_replaces_the_old_one_when_no_release_needs_it(tmp_path: Path, bundle: Bundle) -> None:
    store = filled(tmp_path, bundle, 2, keep=2)
    other = replace(bundle, theta0=bundle.theta0 + 1, recipe=None)
    for number in range(2):
        store.save("digits", other, 8, number, theta_of(other, number))
        assert len(list((tmp_path / "digits" / "bundles").iterdir())) == 2 - number
    release = store.latest("digits")
    assert release is not None
    assert release.run == 8
    np.testing.assert_array_equal(release.bundle.theta0, other.theta0)


def test_the_newest_is_what_was_saved_last_whatever_its_number(tmp_path: Path, bundle: Bundle) -> None:
    store = filled(tmp_path, bundle, 3)
    store.save("digits", bundle, 1, 0, theta_of(bundle, 9))
    release = store.latest("digits")
    assert release is not None
    assert (release.run, release.number) == (1, 0)


def test_saving_the_newest_again_changes_nothing(tmp_path: Path, bundle: Bundle) -> None:
    filled(tmp_path, bundle, 2)
    before = releases(tmp_path)
    ReleaseStore(tmp_path, 3).save("digits", bundle, 7, 1, theta_of(bundle, 1))
    assert releases(tmp_path) == before


def _cut(place: Path) -> None:
    (place / THETA).write_bytes((place / THETA).read_bytes()[:-4])


def _flip(place: Path) -> None:
    data = bytearray((place / THETA).read_bytes())
    data[100] ^= 1
    (place / THETA).write_bytes(data)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "theta cut short": _cut,
    "theta altered": _flip,
    "theta gone": lambda place: (place / THETA).unlink(),
    "meta gone": lambda place: (place / META).unlink(),
    "meta cut short": lambda place: (place / META).write_text('{"run": 7'),
    "meta of another kind": lambda place: (place / META).write_text("[]"),
    "meta too large": lambda place: (place / META).write_text(" " * 5000),
    "meta names a path": lambda place: (place / META).write_text('{"run":7,"number":1,"bundle":"../x","sha256":""}'),
    "all gone": lambda place: shutil.rmtree(place),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_one_before_stands_in_for_a_damaged_release(tmp_path: Path, bundle: Bundle, damage: str) -> None:
    store = filled(tmp_path, bundle, 3)
    DAMAGES[damage](releases(tmp_path)[-1])
    release = store.latest("digits")
    assert release is not None
    assert release.number == 1


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_release_can_be_saved_again(tmp_path: Path, bundle: Bundle, damage: str) -> None:
    filled(tmp_path, bundle, 3)
    DAMAGES[damage](releases(tmp_path)[-1])
    store = ReleaseStore(tmp_path, 3)
    store.save("digits", bundle, 7, 2, theta_of(bundle, 2))
    release = store.latest("digits")
    assert release is not None
    assert release.number == 2


def test_a_damaged_bundle_leaves_nothing_until_it_is_saved_again(tmp_path: Path, bundle: Bundle) -> None:
    filled(tmp_path, bundle, 2)
    (path,) = (tmp_path / "digits" / "bundles").iterdir()
    path.write_bytes(path.read_bytes()[:-10])
    store = ReleaseStore(tmp_path, 3)
    assert store.latest("digits") is None
    store.save("digits", bundle, 7, 2, theta_of(bundle, 2))
    assert store.latest("digits") is not None


def test_what_a_crash_left_is_neither_seen_nor_kept(tmp_path: Path, bundle: Bundle) -> None:
    filled(tmp_path, bundle, 1)
    halves = [tmp_path / "digits" / "releases" / ".new-1", tmp_path / "digits" / "bundles" / ".new-2"]
    halves[0].mkdir()
    (halves[0] / THETA).write_bytes(b"half")
    halves[1].write_bytes(b"half")
    store = ReleaseStore(tmp_path, 3)
    release = store.latest("digits")
    assert release is not None
    assert release.number == 0
    assert all(half.exists() for half in halves)  # a reader leaves a writer's files alone
    store.save("digits", bundle, 7, 1, theta_of(bundle, 1))
    assert not any(half.exists() for half in halves)


class _PowerCut(BaseException):
    """The process ends here; nothing may catch it."""


@pytest.mark.parametrize("step", range(1, 9))
def test_a_crash_at_any_step_leaves_a_whole_release(
    tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    filled(tmp_path, bundle, 2, keep=2)
    steps = 0

    def fsync(handle: int) -> None:
        nonlocal steps
        steps += 1
        if steps == step:
            raise _PowerCut

    other = replace(bundle, theta0=bundle.theta0 + 1, recipe=None)
    with monkeypatch.context() as patched:
        patched.setattr("edgemw.serving.store.os.fsync", fsync)
        try:
            ReleaseStore(tmp_path, 2).save("digits", other, 7, 2, theta_of(other, 2))
            assert steps < step
        except _PowerCut:
            assert steps == step
    release = ReleaseStore(tmp_path, 2).latest("digits")
    assert release is not None
    assert release.number in (1, 2)
    ReleaseStore(tmp_path, 2).save("digits", other, 7, 3, theta_of(other, 3))
    after = ReleaseStore(tmp_path, 2).latest("digits")
    assert after is not None
    assert after.number == 3


def test_a_release_that_does_not_fit_is_refused(tmp_path: Path, bundle: Bundle) -> None:
    store = ReleaseStore(tmp_path, 3)
    broken = theta_of(bundle, 1)
    broken[5] = np.nan
    for theta in (broken, theta_of(bundle, 1)[:-1]):
        with pytest.raises(BundleError, match="release 1 of digits"):
            store.save("digits", bundle, 7, 1, theta)
    with pytest.raises(StorageError, match="cannot name a task"):
        store.save("../up", bundle, 7, 1, theta_of(bundle, 1))
    assert store.tasks() == []


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path, bundle: Bundle) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        ReleaseStore(tmp_path / "file", 3).save("digits", bundle, 7, 1, theta_of(bundle, 1))


def test_readers_always_find_a_release_while_one_is_written(tmp_path: Path, bundle: Bundle) -> None:
    filled(tmp_path, bundle, 1, keep=1)
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(filled, tmp_path, bundle, 30, 2)
        reader, seen = ReleaseStore(tmp_path, 1), []
        while not writing.done():
            release = reader.latest("digits")
            assert release is not None
            assert release.theta[0] == release.theta[-1] == release.number
            seen.append(release.place)
        writing.result()
    assert seen == sorted(seen)
