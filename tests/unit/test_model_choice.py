"""Which release of a store is served: the newest, unless somebody has chosen; and `edgemw model`, which chooses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgemw import Predictor
from edgemw.cli.main import main
from edgemw.core.bundle import Bundle, Vector, read_bundle
from edgemw.core.errors import StorageError
from edgemw.serving.keeper import Keeper
from edgemw.serving.store import CHOICE, Choice, ReleaseStore

DIGITS = Path(__file__).parents[2] / "examples" / "quickstart" / "digits.edge"


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return read_bundle(DIGITS.read_bytes())


def theta(bundle: Bundle, number: int) -> Vector:
    return np.random.default_rng(number).normal(0, 0.1, bundle.manifest.size).astype(np.float32)


def filled(folder: Path, bundle: Bundle, numbers: range, *, keep: int = 3, run: int = 1) -> ReleaseStore:
    store = ReleaseStore(folder, keep)
    for number in numbers:
        store.save("digits", bundle, run, number, theta(bundle, number))
    return store


def numbers(store: ReleaseStore) -> list[int]:
    return [each.number for each in store.kept("digits")]


def model(*words: str) -> int:
    return main(["model", *words])


def served(keeper: Keeper) -> int:
    keeper.look()
    current = keeper.slots["digits"].current
    assert current is not None
    return current.release


def test_a_chosen_release_is_served_until_a_later_one_is_saved(tmp_path: Path, bundle: Bundle) -> None:
    store, keeper = filled(tmp_path, bundle, range(3)), Keeper(ReleaseStore(tmp_path, 1))
    predictor = Predictor(tmp_path)
    assert served(keeper) == predictor.release == 2
    assert model("use", str(tmp_path), "0") == 0
    assert served(keeper) == 0
    assert predictor.refresh()
    assert predictor.release == Predictor(tmp_path).release == 0
    assert not keeper.look()
    filled(tmp_path, bundle, range(3, 4))
    assert served(keeper) == 3
    assert predictor.refresh()
    assert predictor.release == 3
    assert numbers(store) == [0, 1, 2, 3]  # what was chosen stays as long as one that it stood for
    filled(tmp_path, bundle, range(4, 7))
    assert numbers(store) == [4, 5, 6]


def test_a_pinned_release_is_served_and_kept_whatever_comes(tmp_path: Path, bundle: Bundle) -> None:
    store, keeper = filled(tmp_path, bundle, range(3)), Keeper(ReleaseStore(tmp_path, 1))
    assert model("pin", str(tmp_path), "1") == 0
    filled(tmp_path, bundle, range(3, 9))
    assert numbers(store) == [1, 6, 7, 8]
    assert served(keeper) == 1
    assert Predictor(tmp_path).release == 1
    assert model("use", str(tmp_path), "latest") == 0
    assert served(keeper) == 8
    filled(tmp_path, bundle, range(9, 10))
    assert numbers(store) == [7, 8, 9]


def test_what_is_served_now_can_be_pinned(tmp_path: Path, bundle: Bundle) -> None:
    filled(tmp_path, bundle, range(3))
    assert model("rollback", str(tmp_path)) == 0
    assert model("pin", str(tmp_path)) == 0
    filled(tmp_path, bundle, range(3, 6))
    assert Predictor(tmp_path).release == 1


def test_rollback_goes_one_release_back_each_time_and_over_damaged_ones(
    tmp_path: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    filled(tmp_path, bundle, range(4), keep=4)
    damaged = sorted((tmp_path / "digits" / "releases").iterdir())[2]
    (damaged / "theta.f32").write_bytes(b"")
    for expected in (1, 0):
        assert model("rollback", str(tmp_path), "--json") == 0
        assert json.loads(capsys.readouterr().out)["number"] == Predictor(tmp_path).release == expected
    assert model("rollback", str(tmp_path)) == 3
    assert "no whole release is before release 0" in capsys.readouterr().err


def test_a_chosen_release_that_is_damaged_leaves_what_is_served(tmp_path: Path, bundle: Bundle) -> None:
    store, keeper = filled(tmp_path, bundle, range(3)), Keeper(ReleaseStore(tmp_path, 1))
    assert served(keeper) == 2
    first = min((tmp_path / "digits" / "releases").iterdir())
    store.choose("digits", Choice(int(first.name), None))
    (first / "theta.f32").write_bytes(b"")
    assert served(keeper) == 2
    assert "damaged" in keeper.refused["digits"]
    assert served(Keeper(ReleaseStore(tmp_path, 1))) == 2  # also where nothing is served yet
    assert Predictor(tmp_path).release == 2
    with pytest.raises(StorageError, match="damaged"):
        store.at("digits", int(first.name))
    store.choose("digits", None)
    assert served(keeper) == 2
    assert keeper.refused == {}


def test_what_somebody_went_back_from_does_not_come_again(tmp_path: Path, bundle: Bundle) -> None:
    filled(tmp_path, bundle, range(4), keep=9)
    assert model("rollback", str(tmp_path)) == 0
    filled(tmp_path, bundle, range(4, 5), keep=9)
    (max((tmp_path / "digits" / "releases").iterdir()) / "theta.f32").write_bytes(b"")  # the one that took over
    assert served(Keeper(ReleaseStore(tmp_path, 1))) == 2
    assert Predictor(tmp_path).release == 2


def test_a_predictor_keeps_what_it_has_while_the_chosen_release_cannot_be_read(tmp_path: Path, bundle: Bundle) -> None:
    store = filled(tmp_path, bundle, range(4), keep=9)
    store.choose("digits", Choice(2, None))
    predictor = Predictor(tmp_path)
    assert predictor.release == 1
    path = tmp_path / "digits" / "releases" / f"{3:010d}" / "theta.f32"
    whole = path.read_bytes()
    path.write_bytes(b"")
    store.choose("digits", Choice(3, None))
    assert not predictor.refresh()
    assert predictor.release == 1
    path.write_bytes(whole)
    assert predictor.refresh()
    assert predictor.release == 2


def test_a_release_that_is_gone_cannot_be_chosen(tmp_path: Path, bundle: Bundle) -> None:
    store = filled(tmp_path, bundle, range(6))
    with pytest.raises(StorageError, match="removed meanwhile"):
        store.choose("digits", Choice(1, None))
    assert store.choice("digits") is None


def test_a_damaged_release_is_not_pinned(tmp_path: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    store = filled(tmp_path, bundle, range(3))
    (max((tmp_path / "digits" / "releases").iterdir()) / "theta.f32").write_bytes(b"")
    assert model("pin", str(tmp_path)) == 1
    assert "release 2 is damaged" in capsys.readouterr().err
    assert model("rollback", str(tmp_path)) == 0  # 1 answers now, so it is 0
    assert store.choice("digits") == Choice(1, 3)


def test_a_choice_that_nobody_wrote_so_is_none(tmp_path: Path, bundle: Bundle) -> None:
    store = filled(tmp_path, bundle, range(3))
    path = tmp_path / "digits" / CHOICE
    for text in ("", "[]", "{}", '{"place": "x", "until": 1}', '{"place": 1}', '{"place": 99, "until": null}', "[" * 5000):
        path.write_text(text)
        assert store.choice("digits") is None, text[:20]
        assert Predictor(tmp_path).release == 2


def test_every_release_is_listed_with_what_is_wrong_with_it(
    tmp_path: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    filled(tmp_path, bundle, range(3))
    places = sorted((tmp_path / "digits" / "releases").iterdir())
    (places[0] / "theta.f32").write_bytes(bytes(4 * bundle.manifest.size))
    (places[1] / "meta.json").write_bytes(b"no")
    assert model("pin", str(tmp_path), "2") == 0
    capsys.readouterr()
    assert model("list", str(tmp_path)) == 0
    _, newest, middle, oldest = capsys.readouterr().out.splitlines()
    assert newest.endswith("<- to be served, whatever comes")
    assert middle.split()[1:3] == ["?", "?"]
    assert "sha256" in oldest
    assert model("list", str(tmp_path), "--json") == 0
    listed = json.loads(capsys.readouterr().out)["digits"]
    assert [bool(each["fault"]) for each in listed] == [True, True, False]
    assert [each["choice"] for each in listed] == ["", "", "pinned"]


def test_a_number_that_several_runs_have_is_of_the_newest(tmp_path: Path, bundle: Bundle) -> None:
    filled(tmp_path, bundle, range(2), keep=9)
    store = filled(tmp_path, bundle, range(2), keep=9, run=2)
    assert model("use", str(tmp_path), "0") == 0
    assert store.choice("digits") == Choice(3, 4)
    assert model("use", str(tmp_path), "0", "--run", "1") == 0
    assert store.choice("digits") == Choice(1, 4)
    assert model("use", str(tmp_path), "1") == 0  # which is the newest
    assert store.choice("digits") == Choice(4, 4)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("list", "nowhere"), "there is no folder nowhere"),
        (("list", "."), "holds no release yet"),
        (("list", "STORE", "--task", "digit"), "did you mean 'digits'"),
        (("use", "STORE", "7"), "there is no release 7 in the store; there are 0, 1"),
        (("use", "STORE", "1", "--run", "5"), "there is no release 1 of run 5"),
        (("rollback", "STORE", "--task", "digit"), "did you mean 'digits'"),
    ],
)
def test_what_is_not_there_is_said(
    words: tuple[str, ...],
    said: str,
    tmp_path: Path,
    bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    filled(tmp_path / "store", bundle, range(2))
    assert model(*(str(tmp_path / "store") if word == "STORE" else word for word in words)) == 3
    assert said in capsys.readouterr().err


def test_the_folder_that_cannot_be_written_to_is_named(tmp_path: Path, bundle: Bundle) -> None:
    store = filled(tmp_path, bundle, range(2))
    (tmp_path / "digits" / CHOICE).mkdir()
    with pytest.raises(StorageError, match=str(tmp_path / "digits" / CHOICE)):
        store.choose("digits", Choice(1, None))
    assert store.choice("digits") is None


def test_a_release_is_added_by_hand_if_a_server_would_take_it(
    tmp_path: Path, bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    store, weights = tmp_path / "models", tmp_path / "weights.npy"
    np.save(weights, theta(bundle, 1))
    assert model("add", str(store), str(DIGITS)) == 0
    assert model("add", str(store), str(DIGITS), "--weights", str(weights), "--json") == 0
    assert json.loads(capsys.readouterr().out.partition("\n")[2])["number"] == 1
    assert Predictor(store).release == 1
    raw = tmp_path / "theta.f32"
    theta(bundle, 1).tofile(raw)
    assert model("add", str(tmp_path / "other"), str(DIGITS), "--weights", str(raw), "--release", "7") == 0
    x = np.ones((1, 64), np.float32)
    np.testing.assert_array_equal(Predictor(tmp_path / "other").predict(x), Predictor(store).predict(x))
    raw.write_bytes(b"1234")
    assert model("add", str(store), str(DIGITS), "--weights", str(raw)) == 3
    assert "has 4 bytes, the bundle's layout needs 203304" in capsys.readouterr().err
    one_nan, all_large = theta(bundle, 2), np.full(bundle.manifest.size, 3e38, np.float32)
    one_nan[0] = np.nan
    for bad, said in ((one_nan, "1 of 50826 weights are not finite"), (all_large, "outputs of 4 of 4 samples are not finite")):
        np.save(weights, bad)
        assert model("add", str(store), str(DIGITS), "--weights", str(weights)) == 3
        assert f"{weights}: no server would take it: {said}" in capsys.readouterr().err
    assert numbers(ReleaseStore(store, keep=1)) == [0, 1]
