"""The format of `golomb.py` in C, by way of `_golomb.c`. Importing this fails where the extension was not built."""

from __future__ import annotations

from edgemw.compression import _golomb
from edgemw.compression.compiled import Compiled


class CompiledGolomb(Compiled):
    """See `compiled.py`."""

    def __init__(self) -> None:
        super().__init__(_golomb)
