"""The format of `rangecoder.py` in C, by way of `_rangecoder.c`. Importing this fails where the extension was not built."""

from __future__ import annotations

from edgemw.compression import _rangecoder
from edgemw.compression.compiled import Compiled


class CompiledRangeCoder(Compiled):
    """See `compiled.py`."""

    def __init__(self) -> None:
        super().__init__(_rangecoder)
