"""Which class of devices a machine is of, by what its kernel says of it."""

from __future__ import annotations

from dataclasses import dataclass

_BOARDS = (
    # how the model in the device tree begins, or a word of it; the first that fits
    ("Raspberry Pi 5", "raspberry-pi-5"),
    ("Raspberry Pi 4 Model B", "raspberry-pi-4b"),
    ("Raspberry Pi 3 Model B Plus", "raspberry-pi-3b-plus"),
    ("Raspberry Pi 3 Model B", "raspberry-pi-3b"),
    ("Raspberry Pi Zero 2", "raspberry-pi-zero-2w"),
    ("Orin Nano", "jetson-orin-nano-8gb"),
    ("Jetson Nano", "jetson-nano"),
)
_FEWEST_SOCKETS = 2


@dataclass(frozen=True, slots=True)
class Machine:
    """What is asked.

    Attributes:
        board: model in the device tree; "" where there is none.
        cpuinfo: the beginning of /proc/cpuinfo.
        sockets: processors with a package of their own.
    """

    board: str
    cpuinfo: str
    sockets: int


def detect(machine: Machine) -> tuple[str, str]:
    """The profile of a machine, and what it was known by; "" for none, and why."""
    for text, name in _BOARDS:
        if text in machine.board:
            return name, f"its device tree says {machine.board!r}"
    if machine.board:
        return "", f"no profile is of a {machine.board!r}"
    lines = dict(line.partition(":")[::2] for line in machine.cpuinfo.splitlines() if ":" in line)
    facts = {key.strip(): value.strip() for key, value in lines.items()}
    model = facts.get("model name", "")
    if "hypervisor" in facts.get("flags", "").split():
        return "x86-vcpu", f"a virtual machine on {model or 'x86'}"
    if "N100" in model.split():
        return "n100-gateway", f"its processor is {model!r}"
    if "flags" in facts and machine.sockets >= _FEWEST_SOCKETS:
        return "x86-server", f"{machine.sockets} processors, {model or 'x86'}"
    return "", f"no profile is of a machine with {model!r}" if model else "its kernel does not say what it is"
