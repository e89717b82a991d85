"""What a node tells of itself over MQTT, from what it knows."""

from __future__ import annotations

from collections.abc import Callable

from edgemw.telemetry.energy.meter import NONE, Energy
from edgemw.telemetry.machine import Machine
from edgemw.telemetry.process import Usage
from edgemw.telemetry.pulled import LinkTraffic
from edgemw.wire.messages import Telemetry


class Teller:
    """Makes the messages of a node."""

    def __init__(self, site: str, address: str, interval_s: float, budget_w: float, process: Callable[[], Usage]) -> None:
        """Say who tells.

        Args:
            site: where it stands; "" where nobody said.
            address: HOST:PORT of its own metrics; "" where nobody reaches them.
            interval_s: between two messages.
            budget_w: mean power that it is allowed; 0 is no limit.
            process: reads the node's use.
        """
        self._site, self._address, self._interval_s = site, address, interval_s
        self._budget_w, self._process = budget_w, process

    def message(self, machine: Machine, energy: Energy, traffic: LinkTraffic, requests: int) -> Telemetry:
        """What is known now.

        Args:
            energy: of this life.
            requests: answered in this life.
        """
        usage = self._process()
        readings: dict[str, float] = {
            "cpu": machine.busy_s,
            "cores": machine.cores,
            "memory": machine.memory_used_bytes,
            "sent": traffic.sent_bytes,
            "received": traffic.received_bytes,
            "process_cpu": usage.cpu_s,
            "process_memory": usage.resident_bytes,
            "requests": requests,
        }
        if self._budget_w:
            readings["budget"] = self._budget_w
        if machine.celsius is not None:
            readings["celsius"] = machine.celsius
        if machine.charge is not None:
            readings |= {"charge": machine.charge[0], "charging": float(machine.charge[1])}
        if energy.source != NONE:
            parts = {name: energy.components[name] for name in ("train", "serve", "communicate")}
            readings |= {"energy": energy.joules[energy.source], "idle": energy.idle_j, "power": energy.watts, **parts}
        return Telemetry(self._site, self._interval_s, energy.source, self._address, readings)
