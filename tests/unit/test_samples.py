"""From [[data]] tables to samples, and from one data set to the files of many devices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from edgemw.app.dealing import as_its_arrays_say, deal_out
from edgemw.app.samples import load_samples
from edgemw.app.settings import Data
from edgemw.app.settings import Dataset as Whole
from edgemw.core.bundle import Manifest, Slot, Spec
from edgemw.core.errors import DataError
from edgemw.learning.dataset import fit_dataset

Array = npt.NDArray[Any]
COUNT = 40


def manifest(*, name: str = "toy", x: tuple[int, ...] = (2,), y: tuple[int, ...] = (), target: str = "int64") -> Manifest:
    layout = (Slot("w", (2,), 0),)
    return Manifest(name, layout, Spec(x, "float32"), Spec(y, target), Spec((3,), "float32"), "cross_entropy", ("accuracy",))


def arrays(count: int = COUNT) -> dict[str, Array]:
    """Every sample carries its own number in the first input."""
    rows = np.arange(count)
    return {
        "x": np.stack([rows, rows * 0.5], axis=1).astype(np.float32),
        "y": rows % 3,
        "client": rows % 4,
        "room": np.array(["north", "south"])[rows % 2],
        "side": rows // (count // 2),
        "word": np.array(["fit", "judge"])[rows // (count // 2)],
        "names": np.array(["a", "b", "c"]),
    }


def saved(folder: Path, columns: Mapping[str, Array] | None = None, name: str = "a.npz") -> Path:
    np.savez(folder / name, **(columns if columns is not None else arrays()))  # type: ignore[arg-type]  # names are ours
    return folder / name


def numbers(x: Array) -> list[int]:
    return sorted(int(n) for n in x[:, 0])


# -- which table


def test_the_table_of_the_task_comes_before_the_one_for_any_task(tmp_path: Path) -> None:
    any_ = Data(path=saved(tmp_path, name="any.npz"), test_fraction=0)
    own = Data(task="toy", path=saved(tmp_path, arrays(6), name="own.npz"), test_fraction=0)
    assert len(load_samples([any_, own], manifest()).train) == 6
    assert len(load_samples([any_, own], manifest(name="else")).train) == 40


def test_a_task_without_a_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no \[\[data\]\] table for task 'toy'"):
        load_samples([Data(task="other", path=saved(tmp_path))], manifest())


# -- the same samples from every kind of source


def source() -> tuple[Array, Array]:
    return arrays()["x"], arrays()["y"]


def list_source() -> Any:
    return [[1.0, 2.0], [3.0, 4.0]], [0, 1]


def single_source() -> Any:
    return arrays()["x"]


def broken_source() -> Any:
    raise AttributeError("the sensor has no such register")


def data_of(kind: str, folder: Path) -> Data:
    columns = arrays()
    if kind == "npz":
        return Data(path=saved(folder))
    if kind == "use":
        return Data(use=f"{__name__}:source")
    if kind == "csv":
        lines = ["n,half,y", *(f"{a:g},{b:g},{y}" for (a, b), y in zip(columns["x"], columns["y"], strict=True))]
        (folder / "a.csv").write_text("\n".join(lines))
        return Data(path=folder / "a.csv", x=("n", "half"))
    table = pa.table({"x": list(columns["x"]), "y": columns["y"]})
    parquet.write_table(table, folder / "a.parquet")
    return Data(path=folder / "a.parquet")


@pytest.mark.parametrize("kind", ["npz", "csv", "parquet", "use"])
def test_every_source_gives_the_same_samples(kind: str, tmp_path: Path) -> None:
    loaded = fit_dataset(load_samples([data_of(kind, tmp_path)], manifest()), manifest())
    expected = fit_dataset(load_samples([Data(path=saved(tmp_path, name="same.npz"))], manifest()), manifest())
    for ours, theirs in ((loaded.train, expected.train), (loaded.test, expected.test)):
        np.testing.assert_array_equal(ours.x, theirs.x)
        np.testing.assert_array_equal(ours.y, theirs.y)


def test_a_function_may_give_lists() -> None:
    assert load_samples([Data(use=f"{__name__}:list_source", test_fraction=0)], manifest()).train.x.shape == (2, 2)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        ("no_such_module_here:load", "No module named 'no_such_module_here'"),
        (f"{__name__}:absent", "has no attribute 'absent'"),
        (f"{__name__}:single_source", r"must give a tuple \(x, y\)"),
    ],
)
def test_a_function_that_cannot_be_used_is_named(use: str, message: str) -> None:
    with pytest.raises(DataError, match=f"{use}.*{message}"):
        load_samples([Data(use=use)], manifest())


def test_an_error_inside_the_function_is_not_taken_for_a_wrong_name() -> None:
    with pytest.raises(AttributeError, match="the sensor has no such register"):
        load_samples([Data(use=f"{__name__}:broken_source")], manifest())


# -- which samples


def test_select_keeps_what_fits_all_conditions(tmp_path: Path) -> None:
    path = saved(tmp_path)
    one = load_samples([Data(path=path, select={"client": 2}, test_fraction=0)], manifest())
    assert numbers(one.train.x) == list(range(2, COUNT, 4))
    two = load_samples([Data(path=path, select={"room": "south", "client": 3}, test_fraction=0)], manifest())
    assert numbers(two.train.x) == list(range(3, COUNT, 4))


def test_a_selection_without_samples_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path)
    for value in (9, "two"):
        with pytest.raises(DataError, match=rf"a\.npz: no samples with client = {value!r} and room = 'north'"):
            load_samples([Data(path=path, select={"client": value, "room": "north"})], manifest())


@pytest.mark.parametrize(("split", "train", "test"), [("side", 0, 1), ("side", 1, 0), ("word", "fit", "judge")])
def test_the_split_column_tells_training_from_test(tmp_path: Path, split: str, train: int | str, test: int | str) -> None:
    loaded = load_samples([Data(path=saved(tmp_path), split=split, train=train, test=test)], manifest())
    first, second = list(range(COUNT // 2)), list(range(COUNT // 2, COUNT))
    expected = (second, first) if train == 1 else (first, second)
    assert (numbers(loaded.train.x), numbers(loaded.test.x)) == expected


def test_samples_with_another_value_in_the_split_column_are_left_out(tmp_path: Path) -> None:
    loaded = load_samples([Data(path=saved(tmp_path), split="client", train=0, test=3)], manifest())
    assert (len(loaded.train), len(loaded.test)) == (10, 10)


@settings(max_examples=30)
@given(count=st.integers(2, 30), fraction=st.floats(0, 0.5), without=st.integers(0, 29))
def test_test_fraction_splits_everything_and_no_sample_decides_what_another_one_is_for(
    tmp_path_factory: pytest.TempPathFactory, count: int, fraction: float, without: int
) -> None:
    def split(rows: list[int]) -> tuple[list[int], list[int]]:
        path = saved(tmp_path_factory.mktemp("split"), {"x": arrays(30)["x"][rows], "y": arrays(30)["y"][rows]})
        try:
            loaded = load_samples([Data(path=path, test_fraction=fraction)], manifest())
        except DataError:  # none is left to train on
            return [], sorted(rows)
        return numbers(loaded.train.x), numbers(loaded.test.x)

    train, test = split(list(range(count)))
    assert sorted(train + test) == list(range(count))
    fewer = split([row for row in range(count) if row != without % count])
    assert fewer == ([row for row in train if row != without % count], [row for row in test if row != without % count])


def test_about_a_test_fraction_of_many_samples_is_held_out(tmp_path: Path) -> None:
    columns = {"x": np.random.default_rng(0).standard_normal((2000, 2)), "y": np.arange(2000)}
    for fraction in (0.0, 0.2, 0.7):
        loaded = load_samples([Data(path=saved(tmp_path, columns), test_fraction=fraction)], manifest())
        assert len(loaded.test) == pytest.approx(2000 * fraction, abs=100)


def test_a_fraction_that_leaves_nothing_to_train_on_is_said(tmp_path: Path) -> None:
    path = saved(tmp_path, {"x": arrays(30)["x"][:1], "y": arrays(30)["y"][:1]})
    with pytest.raises(DataError, match="leaves none of 1 samples"):
        load_samples([Data(path=path, test_fraction=0.999999999)], manifest())


# -- shapes


@pytest.mark.parametrize("shape", [(2, 3), (1, 6), (6, 1), (1, 2, 3), (6,)])
def test_flat_rows_take_the_shape_of_the_task(tmp_path: Path, shape: tuple[int, ...]) -> None:
    x = np.arange(24).reshape(4, 6)
    path = saved(tmp_path, {"x": x, "y": x[:, 0]})
    loaded = load_samples([Data(path=path, test_fraction=0)], manifest(x=shape))
    np.testing.assert_array_equal(loaded.train.x, x.reshape(4, *shape))


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
@pytest.mark.parametrize("given_shape", [(4,), (4, 1)])
def test_single_values_take_the_shape_of_the_task(tmp_path: Path, shape: tuple[int, ...], given_shape: tuple[int, ...]) -> None:
    path = saved(tmp_path, {"x": np.ones((4, 2)), "y": np.arange(4).reshape(given_shape)})
    loaded = load_samples([Data(path=path, test_fraction=0)], manifest(y=shape))
    assert loaded.train.y.shape == (4, *shape)


def test_targets_of_several_columns_are_stacked(tmp_path: Path) -> None:
    columns = arrays()
    path = saved(tmp_path, {"x": columns["x"], "a": columns["y"], "b": columns["client"]})
    loaded = load_samples([Data(path=path, y=("a", "b"), test_fraction=0)], manifest(y=(2,)))
    np.testing.assert_array_equal(loaded.train.y, np.stack([columns["y"], columns["client"]], axis=1))


@pytest.mark.parametrize("shape", [(3,), (2, 2)])
def test_other_shapes_are_for_the_fit_to_refuse(tmp_path: Path, shape: tuple[int, ...]) -> None:
    task = manifest(y=shape)
    with pytest.raises(DataError, match=r"targets have shape \(\) per sample, the task takes"):
        fit_dataset(load_samples([Data(path=saved(tmp_path))], task), task)


# -- what is wrong is said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": "pixels"}, "no array 'pixels'; there are x, y, client, room, side, word, names"),
        ({"y": ("y", "z")}, "no array 'z'; there are x, y"),
        ({"select": {"phone": 3}}, "no array 'phone'; there are x, y"),
        ({"split": "fold"}, "no array 'fold'; there are x, y"),
        ({"y": "names"}, f"columns differ in length: x has {COUNT}, names has 3"),
        ({"select": {"x": 3}}, r"'x' has \(2,\) values per sample, one is needed"),
        ({"split": "x"}, r"'x' has \(2,\) values per sample, one is needed"),
    ],
)
def test_a_wrong_column_is_named_with_those_that_exist(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=rf"a\.npz: {message}"):
        load_samples([Data(path=saved(tmp_path), **change)], manifest())


def test_a_single_value_is_no_column(tmp_path: Path) -> None:
    path = saved(tmp_path, {"x": np.ones((3, 2)), "y": np.array(5)})
    with pytest.raises(DataError, match=r"a\.npz: 'y' is one value, not one per sample"):
        load_samples([Data(path=path)], manifest())


def test_a_file_without_rows_or_columns_says_so(tmp_path: Path) -> None:
    empty = tmp_path / "empty.csv"
    empty.write_text("x,y\n")
    with pytest.raises(DataError, match=r"empty\.csv: no samples$"):
        load_samples([Data(path=empty)], manifest())
    with pytest.raises(DataError, match=r"nothing\.npz: no array 'x'; there are none"):
        load_samples([Data(path=saved(tmp_path, {}, "nothing.npz"))], manifest())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.npz: no such file"):
        load_samples([Data(path=tmp_path / "none.npz")], manifest())


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    path = saved(tmp_path, {"x": np.ones((2, 2)), "y": np.array([{}, {}], object)})
    with pytest.raises(DataError, match=r"a\.npz: array 'y' holds Python objects: save numbers"):
        load_samples([Data(path=path)], manifest())


# -- dealing out


def dealt(paths: Mapping[str, Path]) -> dict[str, tuple[list[int], list[int]]]:
    """Numbers of the training and of the test samples of each device."""
    parts = {}
    for device, path in paths.items():
        loaded = load_samples([Data(path=path, split="split")], manifest())
        parts[device] = numbers(loaded.train.x), numbers(loaded.test.x)
        y = np.concatenate([loaded.train.y, loaded.test.y])
        x = np.concatenate([loaded.train.x, loaded.test.x])
        np.testing.assert_array_equal(y, x[:, 0] % 3)  # inputs and targets stay together
    return parts


def union(parts: Mapping[str, tuple[list[int], list[int]]]) -> tuple[list[int], list[int]]:
    return sorted(n for train, _ in parts.values() for n in train), sorted(n for _, test in parts.values() for n in test)


@settings(max_examples=25)
@given(
    partition=st.sampled_from(["iid", "dirichlet", "natural"]),
    split=st.sampled_from(["", "side"]),
    devices=st.integers(1, 4),
    seed=st.integers(0, 20),
)
def test_the_parts_are_the_whole_and_nobody_has_anothers(
    tmp_path_factory: pytest.TempPathFactory, partition: Any, split: str, devices: int, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("dealt")
    whole = Whole(path=saved(folder), partition=partition, split=split, seed=seed, alpha=5.0, min_size=1)
    names = [f"device-{n}" for n in range(devices)]
    parts = dealt(deal_out(whole, names, manifest()).write(folder / "first"))
    assert list(parts) == names
    train, test = union(parts)
    assert sorted(train + test) == list(range(COUNT))
    assert len(test) == (COUNT // 2 if split else 8)
    if split:
        assert test == list(range(COUNT // 2, COUNT))
    assert dealt(deal_out(whole, names, manifest()).write(folder / "second")) == parts


def test_test_samples_are_dealt_evenly(tmp_path: Path) -> None:
    whole = Whole(path=saved(tmp_path), split="side", min_size=1)
    parts = dealt(deal_out(whole, ["a", "b", "c"], manifest()).write(tmp_path / "out"))
    assert sorted(len(test) for _, test in parts.values()) == [6, 7, 7]


def test_a_natural_partition_keeps_a_client_and_its_test_samples_on_one_device(tmp_path: Path) -> None:
    whole = Whole(path=saved(tmp_path), partition="natural", split="side", min_size=1)
    parts = dealt(deal_out(whole, ["a", "b", "c"], manifest()).write(tmp_path / "out"))
    for train, test in parts.values():
        assert {n % 4 for n in train} == {n % 4 for n in test}
    owners = [{n % 4 for n in train} for train, _ in parts.values()]
    assert sum(map(len, owners)) == 4


def test_test_samples_of_clients_that_do_not_train_are_dealt_evenly(tmp_path: Path) -> None:
    columns = arrays() | {"client": np.arange(COUNT) // 5}  # clients 0 to 3 train, 4 to 7 are only tested on
    whole = Whole(path=saved(tmp_path, columns), partition="natural", split="side", min_size=1)
    parts = dealt(deal_out(whole, ["a", "b"], manifest()).write(tmp_path / "out"))
    assert union(parts)[1] == list(range(COUNT // 2, COUNT))
    assert [len(test) for _, test in parts.values()] == [10, 10]


def test_digits_come_by_name(tmp_path: Path) -> None:
    names = [f"d{n}" for n in range(10)]
    task = manifest(x=(64,))
    paths = deal_out(Whole(source="digits", partition="dirichlet", alpha=1.0), names, task).write(tmp_path)
    loaded = [fit_dataset(load_samples([Data(path=path, split="split")], task), task) for path in paths.values()]
    assert sum(len(data.train) for data in loaded) == 1438
    assert sum(len(data.test) for data in loaded) == 359
    assert max(float(data.train.x.max()) for data in loaded) == 1.0
    assert min(len(data.train) for data in loaded) >= 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"partition": "natural", "client": "owner"}, r"a\.npz: no array 'owner'; there are x, y, client"),
        ({"x": "pixels"}, r"a\.npz: no array 'pixels'; there are x, y"),
        ({"y": "names"}, r"a\.npz: columns differ in length: x has 40, names has 3"),
        ({"split": "fold"}, r"a\.npz: no array 'fold'"),
        (
            {"partition": "natural", "client": "room"},
            r"a\.npz: array 'room' names 2 clients, fewer than the 3 devices: .* data\.partition=iid",
        ),
        ({"min_size": 11}, r"a\.npz: 32 training samples cannot give 3 devices 11 each, as data\.min_size asks for"),
        ({"partition": "dirichlet", "min_size": 20}, r"a\.npz: 32 training samples cannot give 3 devices 20 each"),
        ({"partition": "natural", "min_size": 9, "split": "side"}, "b would have 5 training samples, data.min_size asks for 9"),
        ({"y": "x"}, r"a\.npz: targets have shape \(2,\) per sample, .* \(inputs are array 'x', targets array 'x'\)"),
        ({"y": "room"}, "targets are of dtype <U5, the task takes int64"),
        ({"split": "word"}, r"array 'word' must be 0 for training and 1 for test samples, found 'fit', 'judge'"),
        ({"split": "client"}, "found 0, 1, 2, 3"),
    ],
)
def test_what_cannot_be_dealt_out_is_said(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    whole = Whole(path=saved(tmp_path), **({"min_size": 1} | change))
    with pytest.raises(DataError, match=message):
        deal_out(whole, ["a", "b", "c"], manifest())


def test_a_missing_data_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.npz: no such file"):
        deal_out(Whole(path=tmp_path / "none.npz"), ["a"], manifest())


def test_a_split_by_class_needs_one_class_per_sample(tmp_path: Path) -> None:
    whole = Whole(path=saved(tmp_path), partition="dirichlet", y="x", min_size=1)
    with pytest.raises(DataError, match=r"data\.partition=dirichlet: a split by class needs one label per row, not \(2,\)"):
        deal_out(whole, ["a"], manifest(y=(2,), target="float32"))


def test_how_samples_were_dealt_out_is_said(tmp_path: Path) -> None:
    path = saved(tmp_path)
    natural = deal_out(Whole(path=path, partition="natural", split="side", min_size=1), ["a", "b", "c"], manifest())
    assert "a.npz: 4 clients (array 'client') go whole to 3 devices" in natural.how
    assert natural.how.endswith("20 of 40 are held out for testing, where array 'side' is 1")
    iid = deal_out(Whole(path=path), ["a", "b"], manifest())
    assert iid.how.endswith("dealt out evenly to 2 devices; 8 of 40 are held out for testing, at random")


def test_only_those_who_get_unusable_rows_are_refused_and_told_what_they_will_say_themselves(tmp_path: Path) -> None:
    columns = arrays()
    columns["x"][6, 0] = np.nan
    whole = Whole(path=saved(tmp_path, columns), partition="natural", client="room", split="side", min_size=1)
    parts = deal_out(whole, ["a", "b"], manifest())
    assert parts.refused == {"a": "1 of 10 inputs hold NaN or infinite values, first in row 3"}
    paths = parts.write(tmp_path / "out")
    with pytest.raises(DataError, match=parts.refused["a"]):
        fit_dataset(load_samples([Data(path=paths["a"], split="split")], manifest()), manifest())
    columns["x"][:, 1] = np.inf
    with pytest.raises(DataError, match=r"a\.npz: no device has samples that fit: a: 10 of 10 inputs hold NaN"):
        deal_out(replace(whole, path=saved(tmp_path, columns)), ["a", "b"], manifest())


def test_the_digest_knows_the_samples_and_who_has_which(tmp_path: Path) -> None:
    whole, names = Whole(path=saved(tmp_path), min_size=1), ["a", "b"]
    digest = deal_out(whole, names, manifest()).digest()
    assert deal_out(replace(whole, path=saved(tmp_path, name="copy.npz")), names, manifest()).digest() == digest
    other = arrays()
    other["y"][0] = 2
    changed = [replace(whole, seed=1), replace(whole, split="side"), replace(whole, path=saved(tmp_path, other, "other.npz"))]
    digests = {deal_out(each, names, manifest()).digest() for each in changed}
    digests |= {deal_out(whole, each, manifest()).digest() for each in (["a", "c"], ["a", "b", "c"])}
    assert len(digests | {digest}) == 6


@pytest.mark.parametrize(
    ("columns", "said", "split", "partition"),
    [
        ({"client", "split"}, set(), "split", "natural"),
        ({"client"}, set(), "", "natural"),
        ({"split"}, set(), "split", "iid"),
        ({"client", "split"}, {"partition"}, "split", "iid"),
        ({"client", "split"}, {"split", "partition"}, "", "iid"),
        (set(), set(), "", "iid"),
    ],
)
def test_arrays_of_the_usual_names_say_what_they_are(
    tmp_path: Path, columns: set[str], said: set[str], split: str, partition: str
) -> None:
    path = saved(tmp_path, {name: np.zeros(3) for name in {"x", "y"} | columns})
    settings = as_its_arrays_say(Whole(path=path), said)
    assert (settings.split, settings.partition) == (split, partition)


def test_a_file_that_is_no_archive_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_text("x")
    settings = Whole(path=tmp_path / "a.npz")
    assert as_its_arrays_say(settings, ()) == settings
