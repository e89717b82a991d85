"""Plays meter readings to an MQTT broker faster than they were made, and scores the forecasts that come back.

`python replay.py swiss_elec.npz --homes 0-3,100-103`: homes 0 to 3 and 100 to 103. A week fills the windows of `edgemw serve`;
then the readings that nobody trained on are played, and every forecast is scored once the 24 hours that it is about are over.
"""

import argparse
import contextlib
import json
import queue
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

WEEK, DAY, HOUR = 672, 96, 4
"""Readings, one each 15 minutes."""
TIMEOUT_S, QUIET_S = 10.0, 0.5
NAMES = ("forecast", "yesterday", "last week", "7 days")

Array = npt.NDArray[np.float64]


class Meters:
    """Smart meters of some homes at a broker, and the forecasts that somebody publishes about them."""

    def __init__(self, broker: str, homes: list[int]) -> None:
        where = urlsplit(broker)
        self.homes = homes
        self._topics = [f"meters/home-{home}" for home in homes]
        self._rows = {f"forecast/{topic}": row for row, topic in enumerate(self._topics)}
        self._heard = queue.SimpleQueue[MQTTMessage]()
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = lambda _client, _data, message: self._heard.put(message)
        self._client.on_connect = self._subscribe
        subscribed = threading.Event()
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.connect(where.hostname or "127.0.0.1", where.port or 1883)
        self._client.loop_start()
        if not subscribed.wait(TIMEOUT_S):
            sys.exit(f"{broker}: the broker does not answer")

    def _subscribe(self, *_: Any) -> None:
        self._client.subscribe([(topic, 0) for topic in self._rows])

    def read(self, energy: Array) -> None:
        """Publish one reading of every home [homes], in kWh."""
        for topic, value in zip(self._topics, energy.tolist(), strict=True):
            self._client.publish(topic, json.dumps({"energy": round(value, 3)}))

    def forecasts(self, quiet_s: float = 0.0) -> tuple[int, Array]:
        """The release and the forecast of every home [homes, 24], once all are here and none came for `quiet_s`."""
        found: dict[int, dict[str, Any]] = {}
        due = time.monotonic() + TIMEOUT_S
        with contextlib.suppress(queue.Empty):
            while time.monotonic() < due:
                whole = len(found) == len(self.homes)
                if whole and not quiet_s:
                    break
                message = self._heard.get(timeout=quiet_s if whole else TIMEOUT_S)
                found[self._rows[message.topic]] = json.loads(message.payload)
        if len(found) < len(self.homes):
            home = next(home for row, home in enumerate(self.homes) if row not in found)
            sys.exit(f"no forecast for home-{home}: does `edgemw serve --streams` run, and is there a release?")
        rows = [found[row] for row in range(len(self.homes))]
        return max(row["release"] for row in rows), np.array([row["outputs"] for row in rows])

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def hourly(energy: Array) -> Array:
    """Readings [N, homes] to hours [homes, N / 4]."""
    hours: Array = energy.reshape(-1, HOUR, energy.shape[1]).sum(1).T
    return hours


def replayed(meters: Meters, energy: Array, start: int, pace_s: float) -> Iterator[tuple[int, Array]]:
    """Play from a week before `start` to the end; of each forecast its release and the errors [4, homes], of NAMES and homes."""
    due = time.monotonic()
    for reading in energy[start - WEEK : start]:
        due = _next(due, pace_s)
        meters.read(reading)
    release, forecast = meters.forecasts(QUIET_S)  # windows that an earlier replay has filled are full of this one now
    made: dict[int, tuple[int, Array]] = {start: (release, forecast)}
    due = time.monotonic()
    for now in range(start + 1, len(energy) + 1):
        due = _next(due, pace_s)
        meters.read(energy[now - 1])
        made[now] = meters.forecasts()
        if (then := now - DAY) in made:
            release, forecast = made.pop(then)
            days = hourly(energy[then - WEEK : then]).reshape(-1, 7, 24)
            guesses = np.stack([forecast, days[:, -1], days[:, 0], days.mean(1)])
            yield release, np.abs(guesses - hourly(energy[then:now])).mean(2)


def _next(due: float, pace_s: float) -> float:
    """Wait for the next reading; where others are too slow for the pace, theirs counts."""
    time.sleep(max(0.0, due + pace_s - time.monotonic()))
    return max(due + pace_s, time.monotonic() - 1.0)


def numbers(text: str) -> list[int]:
    """`0-3,100` as 0, 1, 2, 3, 100."""
    parts = [part.split("-") for part in text.split(",")]
    return [home for part in parts for home in range(int(part[0]), int(part[-1]) + 1)]


def row(first: str, errors: Array, release: str = "") -> str:
    """A line of the table."""
    return f"{first:>9}{release:>9}" + "".join(f"{error:>11.3f}" for error in errors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("readings", type=Path, help="arrays values [steps, homes], scale, split_t")
    parser.add_argument("--homes", type=numbers, default="0-3,100-103", help="whose readings (default: %(default)s)")
    parser.add_argument("--broker", default="mqtt://127.0.0.1:1884", help="(default: %(default)s)")
    parser.add_argument("--speed", type=float, default=100.0, help="readings of each home in a second (default: 100)")
    args = parser.parse_args()
    with np.load(args.readings, allow_pickle=False) as arrays:
        energy = arrays["values"][:, args.homes] * float(arrays["scale"])
        start = int(arrays["split_t"])
    try:
        meters = Meters(args.broker, args.homes)
    except OSError as error:
        sys.exit(f"{args.broker}: {error}; is the broker running?")
    print(f"mean absolute error, kWh in an hour, of {len(args.homes)} homes", flush=True)
    print(f"{'day':>9}{'release':>9}" + "".join(f"{name:>11}" for name in NAMES), flush=True)
    errors: list[Array] = []
    with contextlib.closing(meters), contextlib.suppress(KeyboardInterrupt):
        for release, scored in replayed(meters, energy, start, 1 / args.speed):
            errors.append(scored)
            if len(errors) % DAY == 0:
                print(row(f"{len(errors) // DAY}", np.mean(errors[-DAY:], (0, 2)), f"{release}"), flush=True)
    if errors:
        for home, mean in zip(args.homes, np.mean(errors, 0).T, strict=True):
            print(row(f"home-{home}", mean))
        print(row("all", np.mean(errors, (0, 2))))


if __name__ == "__main__":
    main()
