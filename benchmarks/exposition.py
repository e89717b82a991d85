"""What a fog node's exposition of its devices costs, beside Prometheus's own client. Prints JSON; --text a table.

    python benchmarks/exposition.py [--devices 10000] [--text]

Every device has told its eighteen readings over MQTT, which with up and last seen are twenty series.

    stock_ms     `generate_latest` of gauges and counters with a label for each device, set before
    fleet_ms     `Fleet.text` joined and encoded, as a scrape of /fleet asks for it
    times        stock_ms / fleet_ms
    take_us      one message of a device taken in, its lines made (part of `fleet_ms` elsewhere)
    both_ms      fleet_ms and all messages of one interval: what a scrape costs in all; times_both is stock_ms over that
    stall_ms     the longest that an event loop waited for its turn, while the text was made and packed in a thread, ten times
    stock_stall_ms  the same with the stock client, once
    gzip_ms      packing it, level 1
    mb, gzip_mb  sizes
    fleet_memory_mb, stock_memory_mb  what they hold (tracemalloc)

Times are of processor time of the calling thread, the median of five; the stock client's is of two.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import gzip
import json
import platform
import statistics
import threading
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from edgemw.telemetry.fleet import SEEN, UP, Fleet
from edgemw.wire.messages import Frame, Telemetry
from edgemw.wire.readings import READINGS

TICK_S = 0.001


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--devices", type=int, default=10_000, help="of a fog node (default 10000)")
    parser.add_argument("--text", action="store_true", help="a table instead of JSON")
    options = parser.parse_args()
    row = measured(options.devices)
    if options.text:
        print("\n".join(f"{name:<18}{value}" for name, value in row.items()))
        return
    print(json.dumps({"machine": platform.machine(), "python": platform.python_version(), **row}, indent=1))


def measured(devices: int) -> dict[str, Any]:
    frames = [told(number, 0) for number in range(devices)]
    fleet, fleet_mb = held(lambda: full(frames, devices))
    stock, stock_mb = held(lambda: stock_registry(frames))
    again = [told(number, 1) for number in range(devices)]
    take_s = spent(lambda: [fleet.take(frame, 1.0, 1e9) for frame in again], 1)
    body = text(fleet)
    fleet_s, stock_s = spent(lambda: text(fleet), 5), spent(lambda: generate_latest(stock), 2)
    packed = gzip.compress(body, 1)
    return {
        "devices": devices,
        "series": sum(not line.startswith(b"#") for line in body.splitlines()),
        "stock_ms": round(1e3 * stock_s, 1),
        "fleet_ms": round(1e3 * fleet_s, 1),
        "times": round(stock_s / fleet_s, 1),
        "take_us": round(1e6 * take_s / devices, 1),
        "both_ms": round(1e3 * (fleet_s + take_s), 1),
        "times_both": round(stock_s / (fleet_s + take_s), 1),
        "stall_ms": round(1e3 * stall(lambda: gzip.compress(text(fleet), 1), 10), 1),
        "stock_stall_ms": round(1e3 * stall(lambda: generate_latest(stock), 1), 1),
        "gzip_ms": round(1e3 * spent(lambda: gzip.compress(body, 1), 5), 1),
        "mb": round(len(body) / 1e6, 2),
        "gzip_mb": round(len(packed) / 1e6, 2),
        "fleet_memory_mb": fleet_mb,
        "stock_memory_mb": stock_mb,
    }


def told(number: int, seq: int) -> Frame:
    readings = {reading.name: 1234.5678 + number + place + seq for place, reading in enumerate(READINGS)}
    return Frame("", f"device-{number}", 1_790_000_000, seq, Telemetry(f"site-{number % 20}", 15.0, "model", "", readings))


def full(frames: list[Frame], devices: int) -> Fleet:
    fleet = Fleet(devices)
    for frame in frames:
        fleet.take(frame, 0.0, 1e9)
    return fleet


def text(fleet: Fleet) -> bytes:
    return b"".join([piece.encode() for piece in fleet.text(1.0)])


def stock_registry(frames: list[Frame]) -> CollectorRegistry:
    """The same series in the objects that the client offers."""
    registry = CollectorRegistry()
    metrics: dict[str, Gauge | Counter] = {}
    for reading in READINGS:
        more = [reading.labels.partition("=")[0]] if reading.labels else ["source"] if reading.name == "energy" else []
        kind = Counter if reading.kind == "counter" else Gauge
        if reading.metric not in metrics:
            metrics[reading.metric] = kind(reading.metric, reading.about, ["device", "site", *more], registry=registry)
    up, seen = (Gauge(name, "As it says.", ["device", "site"], registry=registry) for name in (UP, SEEN))
    for frame in frames:
        message = frame.message
        assert isinstance(message, Telemetry)
        labels = frame.node, message.site
        for reading in READINGS:
            part = reading.labels.partition("=")[2].strip('"')
            more = [part] if part else [message.source] if reading.name == "energy" else []
            child = metrics[reading.metric].labels(*labels, *more)
            value = message.readings[reading.name]
            if isinstance(child, Gauge):
                child.set(value)
            else:
                child.inc(value)
        up.labels(*labels).set(1)
        seen.labels(*labels).set(1e9)
    return registry


def held(make: Callable[[], Any]) -> tuple[Any, float]:
    gc.collect()
    tracemalloc.start()
    made = make()
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return made, round(size / 1e6, 1)


def spent(work: Callable[[], object], times: int) -> float:
    """Median seconds of processor time."""
    found = []
    for _ in range(times):
        began = time.thread_time()
        work()
        found.append(time.thread_time() - began)
    return statistics.median(found)


def stall(work: Callable[[], object], times: int) -> float:
    """The longest turn that a loop which only sleeps waited for, beyond what it asked for, while a thread works."""

    async def watch() -> float:
        longest = 0.0
        thread = threading.Thread(target=lambda: [work() for _ in range(times)])
        thread.start()
        while thread.is_alive():
            began = time.perf_counter()
            await asyncio.sleep(TICK_S)
            longest = max(longest, time.perf_counter() - began - TICK_S)
        return longest

    return asyncio.run(watch())


if __name__ == "__main__":
    main()
