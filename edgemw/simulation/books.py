"""What `edgemw audit` would read from the disks of a world."""

from __future__ import annotations

from edgemw.fog.accounts import Accounts, Amount, amount_of
from edgemw.fog.audit import Books, Held
from edgemw.simulation.disk import Disk
from edgemw.simulation.world import World


def books_of(world: World) -> list[Books]:
    """The books of every node as they stand on its disk."""
    task = world.bundle.manifest.name
    return [
        _of_device(node, world.parents[node], task, disk)
        if world.options.get(node) is None
        else _of_fog(node, world.parents[node], task, disk)
        for node, disk in world.disks.items()
    ]


def _of_device(node: str, parent: str, task: str, disk: Disk) -> Books:
    memory = disk.memory
    return Books(
        node=node,
        parent=parent,
        role="device",
        task=task,
        run=memory.run,
        sent=Amount(memory.updates_sent, memory.weight_sent),
        returned=Amount(memory.updates_returned, memory.weight_returned),
        held=tuple(
            Held(kept.frame.id, kept.receiver, kept.acknowledged, amount_of(kept.frame, memory.run)) for kept in disk.kept
        ),
    )


def _of_fog(node: str, parent: str, task: str, disk: Disk) -> Books:
    forwarded = disk.forwarded
    totals = disk.released.totals if disk.released is not None else None
    run = disk.released.manifest.run if disk.released is not None else disk.accounts.run
    return Books(
        node=node,
        parent=parent,
        role="fog",
        task=task,
        run=run,
        accounts=disk.accounts if disk.accounts.run == run else Accounts(run),
        released=None if totals is None else Amount(totals.updates, totals.weight),
        held=tuple(Held(f.frame.id, f.receiver, f.acknowledged, f.claimed(run), f.unbelieved(run)) for f in forwarded.values()),
        waiting={update: amount_of(frame, run) for update, frame in disk.window.items()},
        inside={window: kept.members for window, kept in forwarded.items()},
        settled={update: settled.counted for update, settled in disk.settled.items()},
    )
