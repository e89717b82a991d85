"""Named columns from a file: `.npz`, `.csv`, `.parquet`. Nothing in them is ever executed."""

from __future__ import annotations

import csv
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemw.core.errors import DataError

Array = npt.NDArray[Any]
Columns = dict[str, Array]


def read_table(path: Path) -> Columns:
    """All arrays of a file by name, each with one row per sample.

    Raises:
        DataError: the file is missing, damaged, of another kind, or its columns differ in length.
    """
    readers = {".npz": _read_npz, ".csv": _read_csv, ".parquet": _read_parquet}
    reader = readers.get(path.suffix)
    if reader is None:
        raise DataError(f"{path}: samples come as {', '.join(readers)}")
    try:
        return reader(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: {error}") from error


def _read_npz(path: Path) -> Columns:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _read_csv(path: Path) -> Columns:
    with path.open(newline="", encoding="utf-8") as stream:
        rows = csv.reader(stream)
        names = next(rows, None)
        if not names:
            raise DataError(f"{path}: no header line")
        values = [row for row in rows if row]
    wrong = next((number for number, row in enumerate(values, start=2) if len(row) != len(names)), None)
    if wrong is not None:
        raise DataError(f"{path}: line {wrong} has another number of columns than the header")
    return {name: _numbers([row[i] for row in values]) for i, name in enumerate(names)}


def _numbers(texts: list[str]) -> Array:
    for kind in (np.int64, np.float64):
        try:
            return np.array(texts, dtype=kind)
        except (ValueError, OverflowError):
            continue
    return np.array(texts)


def _read_parquet(path: Path) -> Columns:
    try:
        from pyarrow import parquet
    except ImportError:
        raise DataError(f"{path}: reading parquet needs the extra edgemw[parquet]") from None
    table = parquet.read_table(path)
    return {name: _stacked(table.column(name).to_numpy()) for name in table.column_names}


def _stacked(column: Array) -> Array:
    return np.stack(list(column)) if column.dtype == object and len(column) and isinstance(column[0], np.ndarray) else column
