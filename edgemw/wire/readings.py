"""What a node tells about itself and its machine, and how that is called by Prometheus.

The place of a reading in this table is its place in the message, for ever: a new one goes to the end. A reader ignores places
that it does not know. With `up` and the time of the last message, that is twenty time series for a device.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Reading:
    """One number.

    Attributes:
        name: in code.
        metric: at a fog node.
        kind: a counter only grows in a life of its node.
        about: for Prometheus.
        labels: beside device and site, as they are written.
    """

    name: str
    metric: str
    kind: Literal["counter", "gauge"]
    about: str
    labels: str = ""


_ENERGY, _PART = "edgemw_device_energy_joules_total", "edgemw_process_energy_joules_total"
_PART_ABOUT = "Energy of this node beyond idle, by what for."

READINGS = (
    Reading("energy", _ENERGY, "counter", "Energy of the device, by source."),
    Reading("idle", "edgemw_device_energy_idle_joules_total", "counter", "Of that, what the device would have taken idle."),
    Reading("power", "edgemw_device_power_watts", "gauge", "Power of the device at the last look."),
    Reading("cpu", "edgemw_device_cpu_seconds_total", "counter", "Processor time of the whole device, all cores."),
    Reading("cores", "edgemw_device_cpu_cores", "gauge", "Cores of the device."),
    Reading("memory", "edgemw_device_memory_used_bytes", "gauge", "Memory of the device that is in use."),
    Reading("celsius", "edgemw_device_temperature_celsius", "gauge", "Temperature of the hottest part that has a sensor."),
    Reading("charge", "edgemw_device_battery_charge_ratio", "gauge", "How full the battery is."),
    Reading("charging", "edgemw_device_battery_charging", "gauge", "1 while the battery is charged."),
    Reading("sent", "edgemw_link_sent_bytes_total", "counter", "Bytes of MQTT PUBLISH packets sent."),
    Reading("received", "edgemw_link_received_bytes_total", "counter", "Bytes of MQTT PUBLISH packets received."),
    Reading("budget", "edgemw_device_power_budget_watts", "gauge", "Mean power that the device is allowed."),
    Reading("requests", "edgemw_serving_requests_total", "counter", "Prediction requests answered."),
    Reading("process_cpu", "edgemw_process_cpu_seconds_total", "counter", "Processor time of this node."),
    Reading("process_memory", "edgemw_process_resident_memory_bytes", "gauge", "Resident memory of this node."),
    Reading("train", _PART, "counter", _PART_ABOUT, 'component="train"'),
    Reading("serve", _PART, "counter", _PART_ABOUT, 'component="serve"'),
    Reading("communicate", _PART, "counter", _PART_ABOUT, 'component="communicate"'),
)
PLACES = {reading.name: place for place, reading in enumerate(READINGS)}
MOST_PLACES = 64
"""Of a message, so that later versions have room."""
