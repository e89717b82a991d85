"""Files of samples: what is read, and what is said about those that cannot be."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from edgemw.core.errors import DataError
from edgemw.storage.tables import read_table


class Bomb:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


# -- npz


def test_arrays_of_an_npz_come_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.ones((3, 2), np.float32), y=np.arange(3), note=np.array("hello"))
    columns = read_table(tmp_path / "a.npz")
    assert sorted(columns) == ["note", "x", "y"]
    assert (columns["x"].dtype.name, columns["x"].shape) == ("float32", (3, 2))


def test_a_pickle_is_never_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    np.savez(tmp_path / "objects.npz", x=np.array([Bomb(mark)], object))
    (tmp_path / "plain.npz").write_bytes(pickle.dumps(Bomb(mark)))
    with zipfile.ZipFile(tmp_path / "inside.npz", "w") as archive:
        archive.writestr("x.npy", pickle.dumps(Bomb(mark)))
    for name, message in (
        ("objects", "array 'x' holds Python objects: save numbers"),
        ("plain", "not an archive"),
        ("inside", "'x' is not an array"),
    ):
        with pytest.raises(DataError, match=rf"{name}\.npz: .*{message}"):
            read_table(tmp_path / f"{name}.npz")
    assert not mark.exists()


def test_an_array_without_a_name_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "a.npz").open("wb") as stream:
        np.save(stream, np.ones(3))
    with pytest.raises(DataError, match=r"a\.npz: not an archive as numpy\.savez writes it"):
        read_table(tmp_path / "a.npz")


def test_damaged_archives_are_refused_wherever_the_damage_is(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=np.random.default_rng(0).normal(size=500))
    whole = (tmp_path / "a.npz").read_bytes()
    path = tmp_path / "damaged.npz"
    for cut in (0, 1, 10, 100, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError, match=r"damaged\.npz: "):
            read_table(path)
    for at in (0, 60, 200, len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        with pytest.raises(DataError, match=r"damaged\.npz: "):
            read_table(path)


# -- csv


def test_columns_of_a_csv_are_integers_numbers_or_words(tmp_path: Path) -> None:
    columns = read_table(write(tmp_path / "a.csv", 'n,v,word\n1,0.5,red\n\n-2,1e3,"a, b"\n'))
    assert columns["n"].dtype == np.int64
    assert columns["n"].tolist() == [1, -2]
    assert columns["v"].tolist() == [0.5, 1000.0]
    assert columns["word"].tolist() == ["red", "a, b"]


def test_an_empty_place_among_numbers_is_nan(tmp_path: Path) -> None:
    columns = read_table(write(tmp_path / "a.csv", "v,word\n1,a\n ,\n3,b\n"))
    np.testing.assert_array_equal(columns["v"], [1, np.nan, 3])
    assert columns["word"].tolist() == ["a", "", "b"]


def test_integers_beyond_64_bits_become_floats(tmp_path: Path) -> None:
    assert read_table(write(tmp_path / "a.csv", "v\n99999999999999999999\n"))["v"].tolist() == [1e20]


def test_the_mark_and_line_ends_of_spreadsheets_do_no_harm(tmp_path: Path) -> None:
    columns = read_table(write(tmp_path / "a.csv", "\ufeffx,y\r\n1,2\r\n"))
    assert {name: column.tolist() for name, column in columns.items()} == {"x": [1], "y": [2]}


def test_a_csv_with_a_header_only_has_no_rows(tmp_path: Path) -> None:
    assert [len(column) for column in read_table(write(tmp_path / "a.csv", "x,y\n")).values()] == [0, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no header line"),
        ("x,y,x\n1,2,3\n", "two columns are called 'x'"),
        ("x,y\n1,2\n\n3\n", "line 4 has 1 columns, the header 2"),
        ('x,y\n1,"two\nlines"\n3,4,5\n', "line 4 has 3 columns, the header 2"),
        ("x\n" + "1" * 200_000 + "\n", "field larger than field limit"),
    ],
)
def test_what_is_wrong_in_a_csv_is_said_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"a\.csv: {message}"):
        read_table(write(tmp_path / "a.csv", text))


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"x\n\xff\xfe\n")
    with pytest.raises(DataError, match=r"a\.csv: .*utf-8"):
        read_table(tmp_path / "a.csv")


# -- parquet


def test_columns_of_a_parquet_file_come_by_name_lists_as_rows(tmp_path: Path) -> None:
    table = pa.table({"n": [1, 2], "v": [0.5, None], "word": ["a", "b"], "pixels": [[1.0, 2.0], [3.0, 4.0]]})
    parquet.write_table(table, tmp_path / "a.parquet")
    columns = read_table(tmp_path / "a.parquet")
    assert columns["n"].tolist() == [1, 2]
    np.testing.assert_array_equal(columns["v"], [0.5, np.nan])
    assert columns["word"].tolist() == ["a", "b"]
    assert columns["pixels"].tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_lists_of_several_lengths_are_refused(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"pixels": [[1.0], [3.0, 4.0]]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: .*same shape"):
        read_table(tmp_path / "a.parquet")


def test_a_damaged_parquet_file_is_refused(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"n": list(range(1000))}), tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    for content in (b"", b"PAR1", whole[:100], whole[:-8], b"x" * 1000):
        (tmp_path / "a.parquet").write_bytes(content)
        with pytest.raises(DataError, match=r"a\.parquet: "):
            read_table(tmp_path / "a.parquet")


# -- any


@pytest.mark.parametrize("suffix", ["npz", "csv", "parquet"])
def test_a_missing_file_is_named(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(DataError, match=rf"none\.{suffix}: no such file"):
        read_table(tmp_path / f"none.{suffix}")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(DataError, match=r"a\.csv: .*directory"):
        read_table(tmp_path / "a.csv")


def test_other_kinds_of_files_are_refused_with_those_that_are_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.pkl: samples come as \.npz, \.csv, \.parquet"):
        read_table(write(tmp_path / "a.pkl", "x"))
