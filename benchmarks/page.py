"""What the page of a fog node costs that node. Prints JSON; --text a table.

    python benchmarks/page.py [--nodes 10000] [--text]

Every node below has said that it is there and how it is, with 23 facts, as devices do. Then the page is asked for its view, four
times with new answers in between, as a browser does; nothing but the loop's own rests in between.

    answer_ms   from the question to the answer, made in a thread, median
    stall_ms    the longest that the event loop waited for its turn meanwhile
    dumps_ms    `json.dumps` of the same view alone, in the same run: the least that an answer can take
    mb          of an answer, before packing
    bytes_each  of it, by node
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from edgemw.app.history import History
from edgemw.app.overview import EVERY_S, Overview
from edgemw.app.page.doors import Page
from edgemw.core.ids import Place
from edgemw.transport.memory import MemoryBroker, MemoryLink
from edgemw.wire import publication, topics
from edgemw.wire.messages import Frame, Message, Presence, Status

TURNS = 4
TICK_S = 0.001


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nodes", type=int, default=10_000, help="below the fog node (default 10000)")
    parser.add_argument("--text", action="store_true", help="a table instead of JSON")
    options = parser.parse_args()
    row = asyncio.run(measured(options.nodes))
    if options.text:
        print("\n".join(f"{name:<12}{value}" for name, value in row.items()))
        return
    print(json.dumps({"machine": platform.machine(), "python": platform.python_version(), **row}, indent=1))


async def measured(nodes: int) -> dict[str, Any]:
    link = MemoryLink(MemoryBroker(), "top", is_persistent=False)
    with tempfile.TemporaryDirectory() as folder:
        overview = Overview(Place("net", "top", "", 1), link, History(Path(folder) / "history.jsonl"))
        page = Page(overview, asyncio.get_running_loop())
        tell(overview, nodes, [("presence", Presence("online", "device", "top"))])
        async with link, asyncio.TaskGroup() as group:
            running = group.create_task(overview.run(list))
            turns = [await turn(overview, page, nodes) for _ in range(TURNS)]
            running.cancel()
    body = turns[-1][2]
    shown = len(json.loads(body)["nodes"])
    if shown < nodes:
        raise SystemExit(f"{shown} of {nodes} nodes are in the answer")
    return {
        "nodes": nodes,
        "answer_ms": round(1e3 * statistics.median(answer_s for answer_s, _, _ in turns), 1),
        "stall_ms": round(1e3 * max(stall_s for _, stall_s, _ in turns), 1),
        "dumps_ms": round(1e3 * dumps_s(body), 1),
        "mb": round(len(body) / 1e6, 2),
        "bytes_each": round(len(body) / nodes),
    }


async def turn(overview: Overview, page: Page, nodes: int) -> tuple[float, float, bytes]:
    """Seconds of an answer, the loop's longest wait, and the answer."""
    numbers = ("release", "last_update_s", "updates_sent", "updates_pending", "energy_j", "energy_w", "predictions")
    facts: dict[str, int | float | str] = {"energy_source": "model", **dict.fromkeys(numbers, 1.5)}
    facts |= {f"other_{number}": number for number in range(15)}
    tell(overview, nodes, [("answer", Status("device", "top", "idle", "", facts))])
    longest_s, done = 0.0, asyncio.Event()

    async def beat() -> None:
        nonlocal longest_s
        last = time.perf_counter()
        while not done.is_set():
            await asyncio.sleep(TICK_S)
            now = time.perf_counter()
            longest_s, last = max(longest_s, now - last - TICK_S), now

    async with asyncio.TaskGroup() as group:
        group.create_task(beat())
        began = time.perf_counter()
        _, _, body = await asyncio.to_thread(page.doors["/overview"], "")
        answer_s = time.perf_counter() - began
        done.set()
    await asyncio.sleep(EVERY_S)  # until it counts as another look
    return answer_s, longest_s, body


def tell(overview: Overview, nodes: int, said: list[tuple[str, Message]]) -> None:
    """Each node says something, on its topic."""
    for number in range(nodes):
        node = f"node-{number}"
        for channel, message in said:
            asker = {"asker": "top"} if channel == "answer" else {}
            topic = topics.build("net", "top", channel, node=node, **asker)
            frame = Frame("task" if channel == "answer" else "", node, 1, 0, message)
            overview.hear(topic, publication.write(topic, frame))


def dumps_s(body: bytes) -> float:
    view, times = json.loads(body), []
    for _ in range(5):
        began = time.perf_counter()
        json.dumps(view)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


if __name__ == "__main__":
    main()
