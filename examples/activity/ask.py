"""Asks a prediction service at a steady rate, over HTTP and over MQTT, and says of each release how good and how fast it was.

`python ask.py uci_har.npz` goes on until Ctrl-C; `--question 0` prints the request for one sample instead.
"""

import argparse
import contextlib
import http.client
import json
import queue
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

WHO = "ask"
TIMEOUT_S = 5.0
Ask = Callable[[bytes], dict[str, Any]]


class NoAnswerError(Exception):
    """Nobody answers, or the answer is an error."""


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer: over HTTP or MQTT, of a release, whether it was right, and when it came after the question was due."""

    door: str
    release: int
    right: bool
    latency_s: float


@dataclass(slots=True)
class Score:
    """What a release answered."""

    right: int = 0
    latencies_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    @property
    def answers(self) -> int:
        return sum(map(len, self.latencies_s.values()))

    def line(self, release: int) -> str:
        """A row of the table: all answers and how many were right; by door how many, and their latency."""
        text = f"{release:>7}{self.answers:>9}{self.right / self.answers:>10.3f}"
        for door in ("http", "mqtt"):
            times = self.latencies_s[door]
            p50, p99 = np.percentile(times, [50, 99]) * 1000 if times else (np.nan, np.nan)
            text += f"{len(times):>9}{p50:>8.1f}{p99:>8.1f}"
        return text


HEAD = f"{'release':>7}{'answers':>9}{'accuracy':>10}" + "".join(
    f"{door:>9}{'p50 ms':>8}{'p99 ms':>8}" for door in ("http", "mqtt")
)


def question(x: npt.NDArray[np.floating[Any]]) -> bytes:
    """A request of the Open Inference Protocol for one sample."""
    values = [round(value, 4) for value in x.ravel().tolist()]
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, *x.shape], "data": values}
    return json.dumps({"inputs": [tensor]}).encode()


@contextlib.contextmanager
def over_http(url: str, task: str) -> Iterator[Ask]:
    """One connection, kept open."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT_S)

    def ask(body: bytes) -> dict[str, Any]:
        try:
            connection.request("POST", f"/v2/models/{task}/infer", body)
            return dict(json.loads(connection.getresponse().read()))
        except (OSError, http.client.HTTPException) as error:
            connection.close()  # the next question connects again
            raise NoAnswerError(f"{url}: {error}") from error

    with contextlib.closing(connection):
        yield ask


@contextlib.contextmanager
def over_mqtt(broker: str, net: str, node: str, task: str) -> Iterator[Ask]:
    """MQTT 5: every question says at which topic its answer is wanted, and which question it was."""
    where, answers = urlsplit(broker), queue.SimpleQueue[MQTTMessage]()
    response = f"em1/{net}/{node}/pa/{WHO}/{task}"
    subscribed = threading.Event()
    client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)

    def subscribe(*_: Any) -> None:
        client.subscribe(response)

    client.on_connect = subscribe
    client.on_subscribe = lambda *_: subscribed.set()
    client.on_message = lambda _client, _data, message: answers.put(message)
    numbers = iter(range(sys.maxsize))

    def ask(body: bytes) -> dict[str, Any]:
        number = str(next(numbers)).encode()
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.ResponseTopic, properties.CorrelationData = response, number
        client.publish(f"em1/{net}/{node}/pq/{WHO}/{task}", body, properties=properties)
        due = time.monotonic() + TIMEOUT_S
        with contextlib.suppress(queue.Empty):
            while True:
                message = answers.get(timeout=max(0.0, due - time.monotonic()))
                if vars(message.properties).get("CorrelationData") == number:  # not the late answer to an earlier one
                    return dict(json.loads(message.payload))
        raise NoAnswerError(f"{broker}: no answer from {node} in {TIMEOUT_S:g} s")

    client.connect(where.hostname or "127.0.0.1", where.port or 1883)
    client.loop_start()
    try:
        if not subscribed.wait(TIMEOUT_S):
            raise NoAnswerError(f"{broker}: the broker does not answer")
        yield ask
    finally:
        client.disconnect()
        client.loop_stop()


def ask_steadily(
    door: str, ask: Ask, samples: list[tuple[npt.NDArray[Any], int]], rate: float, say: Callable[[Answered | str], None]
) -> None:
    """Ask for one sample after the other, for ever.

    Latency counts from when a question was due: a slow answer counts for those that it holds up too.
    """
    due = time.monotonic()
    for number in range(sys.maxsize):
        x, label = samples[number % len(samples)]
        body = question(x)
        due += 1 / rate
        time.sleep(max(0.0, due - time.monotonic()))
        try:
            answer = ask(body)
            if "error" in answer:
                raise NoAnswerError(answer["error"])
        except NoAnswerError as error:
            say(f"{door}: {error}")
            time.sleep(1.0)
            due = time.monotonic()
            continue
        right = int(np.argmax(answer["outputs"][0]["data"])) == label
        say(Answered(door, int(answer["model_version"]), right, time.monotonic() - due))


def report(heard: queue.SimpleQueue[Answered | str], seconds: float) -> None:
    """Print a line for a release when another has taken its place, and each ten seconds for one that stays."""
    scores: dict[int, Score] = defaultdict(Score)
    current: dict[str, int] = {}
    complaints: set[str] = set()
    end = time.monotonic() + (seconds or float("inf"))
    shown = time.monotonic()
    print(HEAD, flush=True)
    try:
        while (now := time.monotonic()) < end:
            with contextlib.suppress(queue.Empty):
                match heard.get(timeout=0.1):
                    case Answered() as answered:
                        score = scores[answered.release]
                        score.right += answered.right
                        score.latencies_s[answered.door].append(answered.latency_s)
                        current[answered.door] = answered.release
                    case complaint if complaint not in complaints:
                        complaints.add(complaint)
                        print(complaint, file=sys.stderr, flush=True)
            answering = range(min(current.values(), default=0), max(current.values(), default=0) + 1)
            over = sorted(release for release in scores if release not in answering)
            for release in over:
                print(scores.pop(release).line(release), flush=True)
            if over:
                shown = now
            elif now > shown + 10:
                shown = now
                for release, score in sorted(scores.items()):
                    print(score.line(release), flush=True)
    except KeyboardInterrupt:
        pass
    for release, score in sorted(scores.items()):
        print(score.line(release), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="arrays x, y and split; asked for are the samples whose split is 1")
    parser.add_argument("--question", type=int, metavar="N", help="print the request for test sample N, and ask nobody")
    parser.add_argument("--task", default="har")
    parser.add_argument("--url", default="http://127.0.0.1:8090", help="of edgemw serve (default: %(default)s)")
    parser.add_argument("--broker", default="mqtt://127.0.0.1:1884", help="(default: %(default)s)")
    parser.add_argument("--net", default="activity")
    parser.add_argument("--node", default="device-0", help="name of the server over MQTT (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=20.0, help="questions a second, over each of the two (default: 20)")
    parser.add_argument("--seconds", type=float, default=0.0, help="how long to ask (default: until Ctrl-C)")
    args = parser.parse_args()
    with np.load(args.data, allow_pickle=False) as arrays:
        held_out = np.flatnonzero(arrays["split"])
        x, y = arrays["x"][held_out], arrays["y"][held_out]
    if args.question is not None:
        print(question(x[args.question]).decode())
        return
    order = np.random.default_rng(0).permutation(len(y))
    samples = [(x[row], int(y[row])) for row in order]
    heard = queue.SimpleQueue[Answered | str]()
    try:
        with over_http(args.url, args.task) as http_ask, over_mqtt(args.broker, args.net, args.node, args.task) as mqtt_ask:
            for door, ask, of_door in (("http", http_ask, samples), ("mqtt", mqtt_ask, samples[::-1])):
                threading.Thread(target=ask_steadily, args=(door, ask, of_door, args.rate, heard.put), daemon=True).start()
            report(heard, args.seconds)
    except (OSError, NoAnswerError) as error:
        sys.exit(f"{args.broker}: {error}; is the broker running?")


if __name__ == "__main__":
    main()
