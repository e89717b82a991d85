"""kill -9 while a device saves round after round: what is found afterwards is a whole number of rounds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgemw.storage import outbox
from edgemw.storage.database import Database
from edgemw.wire.messages import Update

SIZE = 20_000

WRITER = f"""
import sys
from pathlib import Path
import numpy as np
from edgemw.core.encoded import Section
from edgemw.core.ids import UpdateId
from edgemw.storage import outbox
from edgemw.storage.database import Database
from edgemw.storage.outbox import DeviceRow
from edgemw.wire.messages import Frame, Update

db = Database(Path(sys.argv[1]))
row = outbox.device_row(db, "toy")
seq = row.updates_sent if row else 0
while True:
    payload = np.full({SIZE}, seq, "<f4").tobytes()
    with db.transaction():
        update = Update(1, "dense", {SIZE}, (Section(0, 10, 1, 0.0, payload),))
        outbox.put_update(db, Frame("toy", "device-0", 1, seq, update), "fog-0")
        residual = np.full({SIZE}, -seq, "<f4").tobytes()
        outbox.put_device_row(db, "toy", DeviceRow(1, seq, seq, residual, seq + 1, 10 * (seq + 1), 0, 0))
        outbox.forget(db, "toy", UpdateId("device-0", 1, seq - 8))
    print(seq, flush=True)
    seq += 1
"""


@pytest.mark.parametrize("rounds", [1, 2, 9, 23])
def test_residual_and_update_always_belong_together(tmp_path: Path, rounds: int) -> None:
    told = -1
    for _ in range(2):
        told = _write_and_kill(tmp_path, told + 1, rounds)
        db = Database(tmp_path)
        assert db.execute("PRAGMA integrity_check") == [("ok",)]
        row = outbox.device_row(db, "toy")
        kept = outbox.kept_updates(db, "toy")
        db.close()
        assert row is not None
        assert row.residual is not None
        last = row.updates_sent - 1
        assert last >= told  # what was said to be saved is there; the round that was being saved may be
        assert [row.frame.seq for row in kept] == list(range(max(0, last - 7), last + 1))
        np.testing.assert_array_equal(np.frombuffer(row.residual, "<f4"), -last)
        newest = kept[-1].frame.message
        assert isinstance(newest, Update)
        np.testing.assert_array_equal(np.frombuffer(newest.sections[0].payload, "<f4"), last)
        told = last


def _write_and_kill(folder: Path, first: int, rounds: int) -> int:
    """Let a process save some rounds, kill it in the middle of what follows, and give the last round that it said was saved."""
    with subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        said = [int(writer.stdout.readline()) for _ in range(rounds)]
        writer.kill()
        said += [int(line) for line in writer.stdout.read().splitlines()]
    assert said == list(range(first, first + len(said)))
    return said[-1]
