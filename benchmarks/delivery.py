"""Updates through one fog node, each on disk before it is acknowledged, beside what paho publishes. Prints JSON; --text a table.

    python benchmarks/delivery.py [--updates N] [--repeats R] [--cases NAME ...] [--text]

Four ways take turns through the same mosquitto, with payloads of the same size and QoS 1 all the way:

    publish  one paho client publishes as fast as it can with IN_FLIGHT publications in flight; nobody reads.
             Publications per second until the last PUBACK. This is paho's raw publish rate
    read     the same while another paho client, in a process of its own, reads. Until the last message has been read
    answer   devices send, and a paho client answers each message with one of an acknowledgement's size: what the same protocol
             takes without checking, counting or keeping anything. Until the last answer
    fog      the same devices send updates to a top, `edgemw fog`: it checks them, counts each once, writes them to its open
             window (SQLite, WAL, synchronous FULL), acknowledges them after that, and makes a release of every WINDOW of them.
             Until the last acknowledgement

`ratio` is fog over publish, the median of the turns; the goal is 0.6. `ratio_read` and `ratio_answer` are fog over the other two.
The devices are CHILDREN devices with at most UNDER_WAY updates without an answer each, as real ones have. They are one process
that speaks MQTT on a socket, with packets made beforehand, so that what is slow is whoever answers. The paho clients, and the
broker towards its readers, have at most IN_FLIGHT and 20 publications without PUBACK.

`answer_cpu_ms` and `fog_cpu_ms` are the processor time that paho's client and the fog node take for one message; what is missing
from 1000 / rate is waiting, for the disk or for a core. One process in Python is not faster than 1000 / cpu_ms.

`dense` updates are float32; `lattice` ones are what devices send by default, and are decoded once when they are taken, to be
refused where they do not add.

`storage` is what is written for one update without any network: milliseconds in the database's calls, and bytes written to disk
(write_bytes of /proc/self/io, pages of the cache that were made dirty):

    device   the outbox: update and residual in one transaction (durable), then the acknowledgement, then outcome and residual
    fog      the window: update and books in one transaction (durable), one update at a time
    batch    the same with BATCH updates in a transaction, as a fog node does that is behind
    file     for comparison: the same frame written to a file of its own, with fsync
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from paho.mqtt.client import Client as Paho
from paho.mqtt.client import MQTTv5
from paho.mqtt.enums import CallbackAPIVersion

from edgemw.compression.table import codec_named
from edgemw.core.bundle import Bundle, Manifest, Slot, Spec
from edgemw.core.encoded import Section
from edgemw.fog.accounts import Accounts
from edgemw.storage import journal, outbox
from edgemw.storage.database import Database
from edgemw.storage.outbox import DeviceRow
from edgemw.transport.broker import Broker, start_broker
from edgemw.wire import publication, topics
from edgemw.wire.messages import Ack, Frame, ReleaseManifest, Update, pack, unpack

TASK, TOP = "toy", "top"
CHILDREN, UNDER_WAY = 50, 4
IN_FLIGHT = CHILDREN * UNDER_WAY
WINDOW, BATCH = 100, 50
PATIENCE_S = 120.0
WAYS = ("publish", "read", "answer", "fog")
CPU = ("answer_cpu_ms", "fog_cpu_ms")
RAW_TOPIC, ANSWER_TOPIC = "raw/update", "raw/answer"


@dataclass(frozen=True)
class Case:
    """Updates of one kind, and how many of them beside those of 1 kB."""

    codec: str
    size: int
    share: float = 1.0


CASES = {
    "dense 1 kB": Case("dense", 240),
    "dense 100 kB": Case("dense", 24_900, 0.1),
    "lattice 1 kB": Case("lattice", 8_500),
}
FOG = """schema = 1
net = "{net}"
[node]
id = "{top}"
state = "state"
[broker]
url = "{url}"
[window]
k = {window}
deadline = "1h"
max_staleness = 100000
[task]
bundle = "toy.edge"
rounds = 0
[codec]
use = "{codec}"
[telemetry]
http = ""
"""


def bundle(size: int) -> Bundle:
    """A task whose graphs are never run."""
    layout = (Slot("w", (size,), 0),)
    one = Spec((1,), "float32")
    manifest = Manifest(name=TASK, layout=layout, input=one, target=Spec((), "int64"), output=one, loss="mse", metrics=("mse",))
    return Bundle(manifest, b"infer", b"train", np.zeros(size, np.float32))


def update(case: Case, run: int) -> Update:
    """An update of about the bytes that its case says."""
    values = np.random.default_rng(0).laplace(0, 0.1, case.size).astype(np.float32)
    payload = codec_named(case.codec).encode(values, 0.5)
    return Update(run, case.codec, case.size, (Section(0, 10, 1, 1.0, payload),), {}, 0)


# -- paho


class Client:
    """A paho client on its own thread."""

    def __init__(self, host: str, port: int, name: str) -> None:
        self.client = Paho(CallbackAPIVersion.VERSION2, client_id=name, protocol=MQTTv5)
        self.client.max_inflight_messages_set(IN_FLIGHT)  # paho: not acknowledged by the broker
        self.client.max_queued_messages_set(0)
        self._subscribed = multiprocessing.Event()
        self.client.on_subscribe = lambda *about: self._subscribed.set()
        self.client.connect(host, port)
        self.client.loop_start()

    def subscribe(self, topic: str, heard: Callable[[bytes], None]) -> None:
        """Return when the broker has it."""
        self.client.on_message = lambda client, data, message: heard(bytes(message.payload))
        self.client.subscribe(topic, qos=1)
        _wait(self._subscribed, "the broker's answer")

    def close(self) -> None:
        """Leave."""
        self.client.disconnect()
        self.client.loop_stop()


class Count:
    """Says when there have been that many."""

    def __init__(self, number: int, done: Any) -> None:
        self._left, self._done = number, done

    def one(self) -> None:
        """One more."""
        self._left -= 1
        if self._left == 0:
            self._done.set()


def _wait(event: Any, what: str) -> None:
    if not event.wait(PATIENCE_S):
        raise TimeoutError(f"{what} did not come")


def published(broker: Broker, payload: bytes, number: int) -> float:
    """Publications per second of one paho client that nobody reads."""
    sender, done = Client(broker.host, broker.port, "publisher"), multiprocessing.Event()
    count = Count(number, done)
    sender.client.on_publish = lambda *about: count.one()
    return _rate(sender, payload, number, done)


def read(broker: Broker, payload: bytes, number: int) -> float:
    """Messages per second from one paho client to another, until the last one is read."""
    with _reader(broker, number, b"") as (_, done):
        return _rate(Client(broker.host, broker.port, "sender"), payload, number, done)


def answered(broker: Broker, payload: bytes, number: int) -> tuple[float, float]:
    """Messages per second of the devices that a paho client answers, and its processor time for one in ms."""
    answer = pack(Frame("", "", 1, 0, Ack(1, 0)))
    with _reader(broker, number, answer) as (process, done):
        devices = Devices(broker.host, broker.port)
        devices.subscribe(ANSWER_TOPIC)
        _, rate, cpu_ms = _exchange(devices, [_publication(RAW_TOPIC, payload, index) for index in range(number)], process)
        devices.close()
        done.set()
    return rate, cpu_ms


def _rate(sender: Client, payload: bytes, number: int, done: Any) -> float:
    """Publications per second until it is done."""
    begun = time.perf_counter()
    for _ in range(number):
        sender.client.publish(RAW_TOPIC, payload, qos=1)
    _wait(done, "the last one")
    taken = time.perf_counter() - begun
    sender.close()
    return number / taken


@contextmanager
def _reader(broker: Broker, number: int, answer: bytes) -> Iterator[tuple[int, Any]]:
    """A process with a paho client that reads, and its event: set when it has read all, or by whom it answers."""
    ready, done = multiprocessing.Event(), multiprocessing.Event()
    process = multiprocessing.Process(target=_read, args=(broker.host, broker.port, number, answer, ready, done))
    process.start()
    _wait(ready, "the reader")
    assert process.pid is not None
    yield process.pid, done
    process.join()


def _read(host: str, port: int, number: int, answer: bytes, ready: Any, done: Any) -> None:
    reader, all_here = Client(host, port, "reader"), Count(number, multiprocessing.Event() if answer else done)

    def heard(payload: bytes) -> None:
        if answer:
            reader.client.publish(ANSWER_TOPIC, answer, qos=1)
        all_here.one()

    reader.subscribe(RAW_TOPIC, heard)
    ready.set()
    _wait(done, "the end")
    reader.close()


# -- a fog node


class Devices:
    """All devices, as one connection of MQTT 3.1.1 that says only what is needed here: packets are made before time runs."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port), timeout=PATIENCE_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._come = bytearray()
        self.say(_packet(0x10, b"\0\4MQTT\4\2\0\0" + _text("devices")), 0x20)

    def say(self, packet: bytes, answer: int) -> None:
        """Send a packet and wait for its answer."""
        self._socket.sendall(packet)
        self._next(answer)

    def subscribe(self, topic: str) -> None:
        """Hear a topic with QoS 0: what is sent here is not acknowledged once more."""
        self.say(_packet(0x82, b"\0\1" + _text(topic) + b"\0"), 0x90)

    def next_message(self) -> bytes:
        """The payload of the next message."""
        body = self._next(0x30)
        return body[2 + int.from_bytes(body[:2], "big") :]

    def exchange(self, packets: list[bytes]) -> list[bytes]:
        """Publish all, IN_FLIGHT ahead of the answers, and give the answers."""
        ahead = iter(packets)
        self._socket.sendall(b"".join(islice(ahead, IN_FLIGHT)))
        answers = []
        for _ in packets:
            answers.append(self.next_message())
            self._socket.sendall(next(ahead, b""))
        return answers

    def close(self) -> None:
        """Leave."""
        self._socket.close()

    def _next(self, kind: int) -> bytes:
        """The body of the next packet of a kind; others are passed over."""
        while True:
            found = _parse(self._come)
            if found is None:
                come = self._socket.recv(1 << 18)
                if not come:
                    raise ConnectionError("the broker hung up")
                self._come += come
                continue
            first, begin, end = found
            body = bytes(self._come[begin:end])
            del self._come[:end]
            if first & 0xF0 == kind:
                return body


def _parse(come: bytearray) -> tuple[int, int, int] | None:
    """The first byte of the first packet, and where its body stands; None where it has not come as a whole."""
    length = place = 0
    for index in range(1, len(come)):
        length |= (come[index] & 0x7F) << place
        place += 7
        if come[index] < 0x80:
            end = index + 1 + length
            return (come[0], index + 1, end) if len(come) >= end else None
    return None


def _packet(first: int, body: bytes) -> bytes:
    length, rest = b"", len(body)
    while rest >= 0x80:
        length, rest = length + bytes([rest & 0x7F | 0x80]), rest >> 7
    return bytes([first]) + length + bytes([rest]) + body


def _publication(topic: str, payload: bytes, index: int) -> bytes:
    """A PUBLISH packet with QoS 1."""
    return _packet(0x32, _text(topic) + (index % 65535 + 1).to_bytes(2, "big") + payload)


def _text(text: str) -> bytes:
    return len(text.encode()).to_bytes(2, "big") + text.encode()


def through_fog(broker: Broker, folder: Path, case: Case, number: int) -> tuple[float, float, int]:
    """Updates per second that a fog node acknowledges, its processor time for one in ms, and the bytes of one."""
    folder.mkdir()
    (folder / "toy.edge").write_bytes(bundle(case.size).to_bytes())
    settings = FOG.format(net=folder.name, top=TOP, url=broker.url, window=WINDOW, codec=case.codec)
    (folder / "fog.toml").write_text(settings)
    command = [sys.executable, "-m", "edgemw", "fog", "--config", str(folder / "fog.toml")]
    with (folder / "log").open("wb") as log:
        fog = subprocess.Popen(command, stdout=log, stderr=log)
    devices = Devices(broker.host, broker.port)
    try:
        devices.subscribe(topics.build(folder.name, TOP, "release", task=TASK))
        topic = topics.parse(topics.build(folder.name, TOP, "release", task=TASK))
        manifest = publication.read(topic, devices.next_message()).message
        assert isinstance(manifest, ReleaseManifest)
        return _through(devices, folder.name, update(case, manifest.run), number, fog.pid)
    finally:
        devices.close()
        fog.kill()  # asked to stop, it would wait for devices
        fog.wait()


def _through(devices: Devices, net: str, said: Update, number: int, fog: int) -> tuple[float, float, int]:
    unsubscribed = _packet(0xA2, b"\0\2" + _text(topics.build(net, TOP, "release", task=TASK)))
    devices.say(unsubscribed, 0xB0)
    devices.subscribe(topics.build(net, TOP, "reply", node="+", task=TASK))
    packets = []
    for index in range(number):
        node, seq = f"device-{index % CHILDREN}", index // CHILDREN
        topic = topics.build(net, TOP, "update", node=node, task=TASK)
        payload = publication.write(topic, Frame(TASK, node, 1, seq, said))
        packets.append(_publication(topic, payload, index))
    answers, rate, cpu_ms = _exchange(devices, packets, fog)
    kinds = {type(unpack(answer, said=(TASK, TOP)).message) for answer in answers}
    if kinds != {Ack}:
        raise ValueError(f"not every update was acknowledged: {kinds}")
    return rate, cpu_ms, len(payload)


def _exchange(devices: Devices, packets: list[bytes], pid: int) -> tuple[list[bytes], float, float]:
    """The answers, their rate, and the processor time in ms that the process that answers took for one."""
    process = psutil.Process(pid)
    before, begun = process.cpu_times(), time.perf_counter()
    answers = devices.exchange(packets)
    after, taken = process.cpu_times(), time.perf_counter() - begun
    worked = after.user + after.system - before.user - before.system
    return answers, len(packets) / taken, 1e3 * worked / len(packets)


# -- without a network


def storage(folder: Path, case: Case, number: int) -> dict[str, float]:
    """What one update costs on disk."""
    said = update(case, 1)
    device, fog, batch = (Database(folder / name) for name in ("device", "fog", "batch"))
    frames = [Frame(TASK, f"device-{index % CHILDREN}", 1, index, said) for index in range(number)]
    row = DeviceRow(1, 0, 0, bytes(4 * case.size), 1, 10, 0, 0)
    books = json.dumps(asdict(Accounts(1)))

    def of_device() -> None:
        for frame in frames:
            own = replace(frame, node=frames[0].node)
            with device.transaction():
                outbox.put_update(device, own, TOP)
                outbox.put_device_row(device, TASK, row)
            with device.transaction(durable=False):
                outbox.acknowledge(device, TASK, own.id)
            with device.transaction(durable=False):
                outbox.put_device_row(device, TASK, row)
                outbox.forget(device, TASK, own.id)

    def of_fog(db: Database, together: int) -> None:
        for begin in range(0, number, together):
            with db.transaction():
                for frame in frames[begin : begin + together]:
                    journal.put_window(db, frame)
                journal.put_accounts(db, TASK, books)

    def to_files() -> None:
        for index, frame in enumerate(frames):
            with (folder / f"file-{index}").open("wb") as stream:
                stream.write(pack(frame))
                stream.flush()
                os.fsync(stream.fileno())

    works: dict[str, Callable[[], None]] = {
        "device": of_device,
        "fog": partial(of_fog, fog, 1),
        "batch": partial(of_fog, batch, BATCH),
        "file": to_files,
    }
    found: dict[str, float] = {}
    for name, work in works.items():
        before, begun = _written(), time.perf_counter()
        work()
        found[f"{name}_ms"] = 1e3 * (time.perf_counter() - begun) / number
        found[f"{name}_bytes"] = (_written() - before) / number
    for db in (device, fog, batch):
        db.close()
    return found


def _written() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["write_bytes"])


# -- all of it


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--updates", type=int, default=3000, help="of 1 kB in each turn, a tenth of that of 100 kB (default 3000)"
    )
    parser.add_argument("--repeats", type=int, default=5, help="turns (default 5)")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES), metavar="NAME", help="some of the cases")
    parser.add_argument("--text", action="store_true", help="print a table instead of JSON")
    options = parser.parse_args()
    cases = {name: CASES[name] for name in options.cases}
    found: dict[str, dict[str, Any]] = {name: {measure: [] for measure in (*WAYS, *CPU)} for name in cases}
    with tempfile.TemporaryDirectory() as folder, start_broker("mosquitto", Path(folder) / "broker") as broker:
        for turn in range(options.repeats):
            for name, case in cases.items():
                place = Path(folder) / f"{name.replace(' ', '-').lower()}-{turn}"
                _turn(broker, place, case, int(options.updates * case.share), found[name])
                print(f"turn {turn + 1} of {options.repeats}: {name}", file=sys.stderr, flush=True)
        for name, case in cases.items():
            found[name]["storage"] = storage(Path(folder) / f"storage-{case.codec}-{case.size}", case, 200)
    for row in found.values():
        for way, ratio in (("publish", "ratio"), ("read", "ratio_read"), ("answer", "ratio_answer")):
            row[ratio] = statistics.median(fog / raw for fog, raw in zip(row["fog"], row[way], strict=True))
    if options.text:
        _print(found)
    else:
        print(json.dumps({"machine": platform.machine(), "cores": os.cpu_count(), "cases": found}, indent=1))


def _turn(broker: Broker, folder: Path, case: Case, number: int, row: dict[str, Any]) -> None:
    fog, fog_cpu_ms, size_bytes = through_fog(broker, folder, case, number)
    payload = bytes(size_bytes)
    answer, answer_cpu_ms = answered(broker, payload, number)
    row["bytes"] = size_bytes
    found = published(broker, payload, number), read(broker, payload, number), answer, fog, answer_cpu_ms, fog_cpu_ms
    for name, value in zip((*WAYS, *CPU), found, strict=True):
        row[name].append(value)


def _print(found: dict[str, dict[str, Any]]) -> None:
    ways = "".join(f"{way:>9}" for way in WAYS)
    print(f"{'updates/s':>14}{'bytes':>9}{ways}{'ratio':>7}{'of read':>9}{'of answer':>11}   ms of processor: answer, fog")
    for name, row in found.items():
        rates = "".join(f"{statistics.median(row[way]):>9.0f}" for way in WAYS)
        ratios = f"{row['ratio']:>7.2f}{row['ratio_read']:>9.2f}{row['ratio_answer']:>11.2f}"
        cpu = "".join(f"{statistics.median(row[one]):>14.3f}" for one in CPU)
        print(f"{name:>14}{row['bytes']:>9}{rates}{ratios}{cpu}")
    print(f"\n{'ms (bytes)':>14}" + "".join(f"{who:>21}" for who in ("device", "fog", "batch", "file")))
    for name, row in found.items():
        kept = row["storage"]
        who = ("device", "fog", "batch", "file")
        print(f"{name:>14}" + "".join(f"{kept[f'{one}_ms']:>9.2f} ({kept[f'{one}_bytes']:>9.0f})" for one in who))


if __name__ == "__main__":
    main()
