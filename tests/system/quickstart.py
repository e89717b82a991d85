"""The quickstart on a broker that lets in by certificates: a file for each node, with its own, and a console that watches."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from edgemw.app.console import Console, open_console
from edgemw.app.dealing import deal_out
from edgemw.app.deployment import device_ids, expand, load_deployment, to_toml
from edgemw.app.settings import Broker, Tls
from edgemw.app.wiring import load_bundle
from tests.system.fleet import ROOT, Fleet, edgemw, fact

FILE = ROOT / "examples" / "quickstart" / "edgemw.toml"
NET = "quickstart"
DEVICES = tuple(f"device-{number}" for number in range(8))
NODES = ("top", "fog-0", "fog-1", *DEVICES)
MONITOR = "monitor"
PATIENCE_S = 500.0


def identity(url: str, tls: Path, name: str) -> Broker:
    """How somebody with a certificate connects."""
    return Broker(url=url, tls=Tls(ca=tls / "ca.crt", cert=tls / f"{name}.crt", key=tls / f"{name}.key"))


def quickstart(folder: Path, url: str, tls: Path) -> Fleet:
    """The nodes of the quickstart, not started."""
    settings = load_deployment(FILE, None, {}, [f"broker.url={url}"])
    assert settings.data is not None
    assert settings.task.bundle is not None
    _, bundle = load_bundle(settings.task.bundle)
    paths = deal_out(settings.data, device_ids(settings), bundle.manifest).write(folder / "data")
    specs = expand(settings, url, folder, paths)
    assert tuple(spec.id for spec in specs) == NODES
    for spec in specs:
        spec.path.write_text(to_toml(replace(spec.settings, broker=identity(url, tls, spec.id))))
    return Fleet(folder, url, NET)


def carry(fleet: Fleet, monitor: Broker, half: Callable[[], None] = lambda: None) -> None:
    """From the start to when every device has the last release and knows what became of all its updates.

    The top is started last, when everybody is there to hear of the task: not every broker tells those who come later.

    Args:
        fleet: the quickstart.
        monitor: how the console connects.
        half: what happens when half of the releases are made.
    """

    async def scenario() -> None:
        rounds = load_deployment(FILE, None, {}).task.rounds
        async with asyncio.timeout(PATIENCE_S), open_console(monitor, NET, {}) as console:
            top, *below = NODES
            fleet.start(*below)
            while any(console.census.presence.get(node) != "online" for node in below):
                await console.settle()
            fleet.start(top)
            await _release(console, rounds // 2)
            half()
            while not await _is_settled(console, rounds):
                pass  # each look takes a moment

    asyncio.run(scenario())


def check_books(folder: Path) -> None:
    """`edgemw audit` finds nothing, and nothing waits any more."""
    found = edgemw("audit", folder, "--json")
    assert found.returncode == 0, found.stdout + found.stderr
    (task,) = json.loads(found.stdout)["tasks"]
    rows = {row["node"]: row for row in task["rows"]}
    assert task["faults"] == []
    assert all(rows[device]["waiting"]["updates"] == 0 for device in DEVICES)
    assert rows["top"]["counted"]["updates"] > 0


async def _release(console: Console, number: int) -> None:
    while True:
        _, report = await console.reports.get()
        if report.release >= number:
            return


async def _is_settled(console: Console, rounds: int) -> bool:
    statuses = {status.node: status for status in await console.ask()}
    return (
        set(statuses) == set(NODES)
        and statuses["top"].status.state == "finished"
        and all(fact(statuses[device], "updates_pending") == 0 for device in DEVICES)
        and all(fact(statuses[device], "release") == rounds for device in DEVICES)
        and not any(status.status.reason for status in statuses.values())
    )
