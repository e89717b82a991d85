"""What telemetry of many devices costs a fog node, over a real mosquitto, with scrapes meanwhile. Prints JSON; --text a table.

    python benchmarks/telemetry_load.py [--devices 10000] [--interval 15] [--seconds 90] [--text]

One process of `edgemw fog`, a mosquitto, and one client that publishes at QoS 1 what so many devices would, spread over every
interval; each message has all readings. Every 15 s a scrape of /fleet, packed, as Prometheus makes it.

    sent, taken         messages that were acknowledged by the broker, and that the fog node has counted
    rejected, expired   by the fog node: nothing may be
    cpu_cores           processor time of the fog node over the time of the run
    memory_mb           its resident memory at the end
    scrape_ms           the longest scrape, from connecting to the last byte
    health_ms           the longest answer of /healthz, asked every second: the event loop answers it, so it shows how long that
                        was busy
    scrape_mb           size of a scrape, not packed
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import multiprocessing
import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from edgemw.transport.broker import start_broker
from edgemw.wire import publication, topics
from edgemw.wire.messages import Frame, Telemetry
from edgemw.wire.readings import READINGS

NET, FOG = "load", "fog-0"
SCRAPE_EVERY_S, HEALTH_EVERY_S = 15.0, 1.0
IN_FLIGHT = 200
FILE = """schema = 1
net = "{net}"
[node]
id = "{fog}"
parent = "top"
state = "{state}"
[broker]
url = "{url}"
[telemetry]
http = "127.0.0.1:0"
publish = "0s"
[limits]
max_children = {devices}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--devices", type=int, default=10_000, help="that tell about themselves (default 10000)")
    parser.add_argument("--interval", type=float, default=15.0, help="seconds between two messages of one (default 15)")
    parser.add_argument("--seconds", type=float, default=90.0, help="how long (default 90)")
    parser.add_argument("--text", action="store_true", help="a table instead of JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        row = measured(Path(folder), options.devices, options.interval, options.seconds)
    if options.text:
        print("\n".join(f"{name:<14}{value}" for name, value in row.items()))
        return
    print(json.dumps({"machine": platform.machine(), "cores": os.cpu_count(), **row}, indent=1))


def measured(folder: Path, devices: int, interval_s: float, seconds: float) -> dict[str, Any]:
    with start_broker("mosquitto", folder / "broker") as broker:
        state = folder / "state"
        file = folder / "fog.toml"
        file.write_text(FILE.format(net=NET, fog=FOG, state=state, url=broker.url, devices=devices))
        with (folder / "fog.log").open("wb") as log:
            command = [sys.executable, "-m", "edgemw", "fog", "--config", str(file)]
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            url = address(state / "telemetry.address", process)
            watch = Watch(url)
            began, usage = time.monotonic(), psutil.Process(process.pid)
            before = usage.cpu_times()
            with watch:
                sent = publish(broker.url, devices, interval_s, seconds, lambda: count(fetched(f"{url}/fleet"), "messages") > 0)
                taken = settled(url, sent)
            now, wall_s = usage.cpu_times(), time.monotonic() - began
            cores = (now.user + now.system - before.user - before.system) / wall_s
            return {
                "devices": devices,
                "per_second": round(sent / seconds),
                "sent": sent,
                **taken,
                "cpu_cores": round(cores, 3),
                "memory_mb": round(usage.memory_info().rss / 1e6, 1),
                **watch.found,
            }
        finally:
            process.terminate()
            process.wait()


def address(note: Path, process: subprocess.Popen[bytes]) -> str:
    """Where the fog node's door is, once it has written that down."""
    while not (note.exists() and note.read_text().endswith("\n")):
        if process.poll() is not None:
            raise SystemExit("the fog node ended")
        time.sleep(0.1)
    return note.read_text().strip()


class Watch:
    """Scrapes and asks for health in a process of its own, which nothing else keeps busy, and keeps the longest."""

    def __init__(self, url: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._over, self._told = context.Event(), context.Queue()
        self._process = context.Process(target=watch, args=(url, self._over, self._told))
        self.found: dict[str, float] = {}

    def __enter__(self) -> Watch:
        self._process.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self.found = self._told.get()
        self._process.join()


def watch(url: str, over: Any, told: Any) -> None:
    """Ask again and again until told that it is over."""
    found = {"scrape_ms": 0.0, "scrape_mb": 0.0, "health_ms": 0.0, "scrapes": 0}

    def longest(name: str, began: float) -> None:
        found[name] = max(found[name], round(1e3 * (time.perf_counter() - began), 1))

    def scrape() -> None:
        began = time.perf_counter()
        body, packed = answer_of(f"{url}/fleet")
        longest("scrape_ms", began)
        found["scrapes"] += 1
        found["scrape_mb"] = max(found["scrape_mb"], round(len(gzip.decompress(body) if packed else body) / 1e6, 2))

    def health() -> None:
        began = time.perf_counter()
        with contextlib.suppress(urllib.error.HTTPError):  # it has no parent here, and says so
            answer_of(f"{url}/healthz")
        longest("health_ms", began)

    def again(work: Callable[[], None], every_s: float) -> None:
        while not over.wait(every_s):
            work()

    threads = [threading.Thread(target=again, args=work) for work in ((scrape, SCRAPE_EVERY_S), (health, HEALTH_EVERY_S))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told.put(found)


def answer_of(url: str) -> tuple[bytes, bool]:
    """What comes, and whether it is packed."""
    request = urllib.request.Request(url, headers={"Accept-Encoding": "gzip"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read(), answer.headers.get("Content-Encoding") == "gzip"


def fetched(url: str) -> bytes:
    body, packed = answer_of(url)
    return gzip.decompress(body) if packed else body


def publish(url: str, devices: int, interval_s: float, seconds: float, heard: Callable[[], bool]) -> int:
    """Publish at an even pace, once the fog node hears anything; the number of messages that the broker has acknowledged."""
    host, _, port = url.removeprefix("mqtt://").rpartition(":")
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="load")
    client.max_inflight_messages_set(IN_FLIGHT)
    acknowledged = threading.Semaphore(0)
    client.on_publish = lambda *rest: acknowledged.release()
    client.connect(host, int(port))
    client.loop_start()
    tried = 0
    while not heard():
        client.publish(*message(0, tried, interval_s), qos=1).wait_for_publish()
        tried += 1
    began, pace_s, sent = time.monotonic(), interval_s / devices, 0
    while (now := time.monotonic() - began) < seconds:
        for number in range(sent, int(now / pace_s)):
            topic, payload = message(number % devices, tried + number // devices, interval_s)
            client.publish(topic, payload, qos=1)
        sent = max(sent, int(now / pace_s))
        time.sleep(0.005)
    for _ in range(tried + sent):
        acknowledged.acquire()
    client.disconnect()
    client.loop_stop()
    return sent + tried


def message(device: int, number: int, interval_s: float) -> tuple[str, bytes]:
    node = f"device-{device}"
    readings = {reading.name: 1234.5678 + device + place + number for place, reading in enumerate(READINGS)}
    topic = topics.build(NET, FOG, "telemetry", node=node)
    frame = Frame("", node, 1_790_000_000, number, Telemetry(f"site-{device % 20}", interval_s, "model", "", readings))
    return topic, publication.write(topic, frame)


def settled(url: str, sent: int) -> dict[str, int]:
    """What the fog node has counted, once it has all of them, or nothing has come for two seconds."""
    counted, still = -1, 0
    while counted < sent and still < 20:
        time.sleep(0.1)
        now = count(fetched(f"{url}/fleet"), "messages")
        counted, still = now, 0 if now > counted else still + 1
    text = fetched(f"{url}/fleet")
    return {"taken": count(text, "messages"), "rejected": count(text, "rejected"), "expired": count(text, "expired")}


def count(text: bytes, name: str) -> int:
    found = re.findall(rf"^edgemw_telemetry_{name}_total(?:\{{[^}}]*\}})? (\d+)", text.decode(), re.MULTILINE)
    return sum(map(int, found))


if __name__ == "__main__":
    main()
