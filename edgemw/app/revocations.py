"""A list of revoked certificates that changes while a node runs: it holds from the next look on, without a restart."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from edgemw.app.sections import Security
from edgemw.core.errors import ConfigError
from edgemw.wire.signed import Trust

LOOK_S = 5.0

log = logging.getLogger(__name__)


class Revocations:
    """The file of a list, as it was when it was looked at last."""

    def __init__(self, path: Path, revoke: Callable[[bytes], None]) -> None:
        """Begin with a list that has been taken; `revoke` takes another one, or raises ConfigError."""
        self._path, self._revoke, self._seen = path, revoke, _state(path)

    def look(self) -> None:
        """Take the list again where its file has changed; one that cannot be used changes nothing, and the log says why."""
        state = _state(self._path)
        if state == self._seen:
            return
        self._seen = state
        try:
            self._revoke(self._path.read_bytes())
        except (OSError, ConfigError) as error:
            log.error("security.crl: %s cannot be used, the list before it holds: %s", self._path, error)
        else:
            log.info("revoked certificates read again", extra={"facts": {"file": str(self._path)}})


async def watch_revocations(security: Security, trust: Trust) -> None:
    """Look at the list again and again, where there is one."""
    if security.crl is None or trust.revoke is None:
        return
    revocations = Revocations(security.crl, trust.revoke)
    while True:
        await asyncio.sleep(LOOK_S)
        await asyncio.to_thread(revocations.look)


def _state(path: Path) -> tuple[int, int, int]:
    """What changes when a file is written; zeros where there is none."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0, 0
    return found.st_mtime_ns, found.st_ino, found.st_size
