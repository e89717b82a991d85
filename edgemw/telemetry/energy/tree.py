"""Files of a kernel below a root that may be another than `/`: one value in each, and each may fail in its own way."""

from __future__ import annotations

import errno
import math
import os
from pathlib import Path

MOST_BYTES = 4096  # a page is all that sysfs gives
_REASONS = {
    errno.ENOENT: "missing",
    errno.ENOTDIR: "missing",
    errno.EACCES: "permission",
    errno.EPERM: "permission",
    errno.ENODATA: "no data",
    errno.EAGAIN: "no data",
    errno.ENXIO: "no data",
    errno.EIO: "no data",
}


class Unreadable(Exception):
    """A file has no value now: `reason` is missing, permission, "no data" or damaged."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason


class Tree:
    """Reads below a root; paths are given without a leading slash."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def text(self, path: str) -> str:
        """What a file holds, without space around it. Raises Unreadable."""
        found = self.root / path
        try:
            # One read of one page without Python's buffers: sensors that fail with EAGAIN would be asked again by those.
            descriptor = os.open(found, os.O_RDONLY | os.O_CLOEXEC)
            try:
                data = os.read(descriptor, MOST_BYTES)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise Unreadable(found, _REASONS.get(error.errno or 0, "no data")) from error
        return data.decode("utf-8", "replace").strip().strip("\0")

    def number(self, path: str) -> float:
        """The finite number that a file holds. Raises Unreadable."""
        text = self.text(path)
        try:
            value = float(text)
        except ValueError:
            raise Unreadable(self.root / path, "damaged") from None
        if not math.isfinite(value):
            raise Unreadable(self.root / path, "damaged")
        return value

    def maybe(self, path: str) -> str:
        """The text of a file that need not be there; "" where it cannot be read."""
        try:
            return self.text(path)
        except Unreadable:
            return ""

    def matching(self, pattern: str) -> list[str]:
        """Paths below the root that match a glob pattern, in order; none where a folder cannot be read."""
        try:
            return sorted(str(path.relative_to(self.root)) for path in self.root.glob(pattern))
        except OSError:
            return []
