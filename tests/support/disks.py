"""A world whose nodes save to real databases as well, through the roles that do it in production."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from edgemw.app.books import read_books
from edgemw.core.ids import Place
from edgemw.device.agent import DeviceRole, Parts
from edgemw.fog.agent import FogRole
from edgemw.fog.audit import Audit, audit
from edgemw.storage.database import Database
from tests.support.world import NET, TASK, Disk, Learn, World


class Databases(World):
    """See the module; `folder` has a folder for each node."""

    def __init__(self, learn: Learn, folder: Path) -> None:
        self.folder = folder
        self._open: dict[str, tuple[Database, DeviceRole | FogRole]] = {}
        super().__init__(learn)

    def start(self, name: str) -> None:
        super().start(name)
        if name in self._open:
            self._open.pop(name)[0].close()
        db = Database(self.folder / name)
        place, options = Place(NET, name, self.parents[name], self.disks[name].boots), self.options.get(name)
        db.note_place(place, "device" if options is None else "fog")
        role = DeviceRole(place, db, NO_PARTS) if options is None else FogRole(place, db, options, lambda task, fact: None)
        self._open[name] = db, role

    def _save(self, name: str, disk: Disk, action: Any) -> None:
        super()._save(name, disk, action)
        self._open[name][1].act([(TASK, action)])

    def close(self) -> None:
        """Close every file; nothing can be saved any more."""
        for db, _ in self._open.values():
            db.close()
        self._open.clear()

    def audited(self) -> Audit:
        """Close every file and compare the books in them."""
        self.close()
        (found,) = audit(read_books([self.folder]))
        return found


class _NoParts:
    nice = 0


NO_PARTS = cast(Parts, _NoParts())
"""A device that only saves needs nothing else."""
