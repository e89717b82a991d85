"""A bell in a store: whoever saves a release rings, and who serves from the store need not look ever so often.

A bell is a datagram socket in the store's folder, for the user who owns it. Nothing is said but that there is something to look
at, so a ring that is lost, or that nobody meant, does no harm: servers look now and then all the same.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

_PREFIX = ".bell-"


class Bell:
    """Hangs in a store until it is closed; readable once it was rung."""

    def __init__(self, folder: Path) -> None:
        """Hang it up.

        Raises:
            OSError: the folder cannot be written to, or, where there is no /proc, its path is too long for a socket.
        """
        self._path = folder / f"{_PREFIX}{uuid4().hex[:12]}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        before = os.umask(0o177)
        try:
            with _address(self._path) as address:
                self._socket.bind(address)
        except OSError:
            self._socket.close()
            raise
        finally:
            os.umask(before)

    def fileno(self) -> int:
        """For a selector."""
        return self._socket.fileno()

    def silence(self) -> None:
        """Forget all rings so far."""
        try:
            while True:
                self._socket.recv(1)
        except BlockingIOError:
            return

    def close(self) -> None:
        """Take it down."""
        self._socket.close()
        self._path.unlink(missing_ok=True)


def ring(folder: Path) -> None:
    """Ring every bell in a store; those of servers that are gone are taken down. Never fails: a bell is a courtesy."""
    with suppress(OSError):
        for bell in [entry for entry in folder.iterdir() if entry.name.startswith(_PREFIX)]:
            _ring_one(bell)


def _ring_one(bell: Path) -> None:
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ringing, _address(bell) as address:
        ringing.setblocking(False)
        try:
            ringing.sendto(b"", address)
        except ConnectionRefusedError:  # nobody has it open
            bell.unlink(missing_ok=True)


@contextmanager
def _address(bell: Path) -> Iterator[str]:
    """Where a socket is, by way of its open folder: an address of its own has some 100 bytes, and paths are longer."""
    folder = os.open(bell.parent, os.O_RDONLY)
    try:
        short = Path(f"/proc/self/fd/{folder}")
        yield str(short / bell.name if short.is_dir() else bell)
    finally:
        os.close(folder)
