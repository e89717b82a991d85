"""Named columns from a file: `.npz`, `.csv`, `.parquet`. Nothing in them is ever executed."""

from __future__ import annotations

import csv
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemw.core.errors import DataError

Array = npt.NDArray[Any]
Columns = dict[str, Array]

_DAMAGE = (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, csv.Error)
"""What the readers raise on damaged files; RuntimeError covers encrypted archives and what pyarrow does not implement."""


def read_table(path: Path) -> Columns:
    """All arrays of a file by name.

    Numbers in a .csv become int64 or float64; an empty place among them is NaN.

    Raises:
        DataError: the file is missing, damaged, or of another kind.
    """
    readers = {".npz": _read_npz, ".csv": _read_csv, ".parquet": _read_parquet}
    reader = readers.get(path.suffix)
    if reader is None:
        raise DataError(f"{path}: samples come as {', '.join(readers)}")
    try:
        return reader(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except _DAMAGE as error:
        raise DataError(f"{path}: {error}") from error


def _read_npz(path: Path) -> Columns:
    with path.open("rb") as stream:  # numpy leaves a file that it opened itself open where the archive is damaged
        if not zipfile.is_zipfile(stream):
            raise DataError(f"{path}: not an archive as numpy.savez writes it")
        stream.seek(0)
        with np.load(stream, allow_pickle=False) as archive:
            columns = {name: _array(archive, name) for name in archive.files}
    other = next((name for name, column in columns.items() if not isinstance(column, np.ndarray)), None)
    if other is not None:
        raise DataError(f"{path}: {other!r} is not an array")
    return columns


def _array(archive: Any, name: str) -> Array:
    """One array of an .npz; numpy refuses those that only a pickle can say."""
    try:
        array: Array = archive[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise ValueError(f"array {name!r} holds Python objects: save numbers or text of one length") from error
    return array


def _read_csv(path: Path) -> Columns:
    with path.open(newline="", encoding="utf-8-sig") as stream:  # spreadsheets put a mark before the first name
        rows = csv.reader(stream)
        names = next(rows, None)
        if not names:
            raise DataError(f"{path}: no header line")
        twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
        if twice is not None:
            raise DataError(f"{path}: two columns are called {twice!r}")
        values = []
        for row in rows:
            if row and len(row) != len(names):
                raise DataError(f"{path}: line {rows.line_num} has {len(row)} columns, the header {len(names)}")
            if row:
                values.append(row)
    return {name: _numbers([row[i] for row in values]) for i, name in enumerate(names)}


def _numbers(texts: list[str]) -> Array:
    filled = [text.strip() or "nan" for text in texts]
    for kind in (np.int64, np.float64):
        try:
            return np.array(filled, dtype=kind)
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
