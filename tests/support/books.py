"""What `edgemw audit` would read from the disks of a world."""

from __future__ import annotations

from edgemw.fog.accounts import Accounts, Amount, amount_of
from edgemw.fog.audit import Books, Held
from tests.support.world import TASK, Disk, World


def books_of(world: World) -> list[Books]:
    """The books of every node as they stand on its disk."""
    return [_books(world, node, disk) for node, disk in world.disks.items()]


def _books(world: World, node: str, disk: Disk) -> Books:
    parent = world.parents[node]
    if world.options[node] is None:
        memory = disk.memory
        kept = [(frame, receiver, acknowledged) for frame, receiver, acknowledged in disk.outbox.values()]
        return Books(
            node=node,
            parent=parent,
            role="device",
            task=TASK,
            run=memory.run,
            sent=Amount(memory.updates_sent, memory.weight_sent),
            returned=Amount(memory.updates_returned, memory.weight_returned),
            held=tuple(Held(frame.id, receiver, acked, amount_of(frame, memory.run)) for frame, receiver, acked in kept),
        )
    forwarded = disk.forwarded
    totals = disk.released.totals if disk.released is not None else None
    run = disk.released.manifest.run if disk.released is not None else disk.accounts.run
    return Books(
        node=node,
        parent=parent,
        role="fog",
        task=TASK,
        run=run,
        accounts=disk.accounts if disk.accounts.run == run else Accounts(run),
        released=None if totals is None else Amount(totals.updates, totals.weight),
        held=tuple(Held(f.frame.id, f.receiver, f.acknowledged, amount_of(f.frame, run)) for f in forwarded.values()),
        waiting={update: amount_of(frame, run) for update, frame in disk.window.items()},
        inside={window: kept.members for window, kept in forwarded.items()},
        settled={update: settled.counted for update, settled in disk.settled.items()},
    )
