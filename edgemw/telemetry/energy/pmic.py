"""The power chip of a Raspberry Pi 5, through `vcgencmd pmic_read_adc`.

It shows volts and amperes of twelve rails, but no current of the 5 V input. From them the board's power is

    P = 1.1451 sum(V I) + 0.5879 W

a regression against a meter at the input (github.com/jfikar/RPi5-power). Older boards have no such chip.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable

from edgemw.telemetry.energy.reader import Roots, Unavailable
from edgemw.telemetry.energy.sensors import Rail, Sensors
from edgemw.telemetry.energy.tree import Unreadable

SLOPE, OFFSET_W = 1.1451, 0.5879
TIMEOUT_S = 2.0
_MODEL = "device-tree/model"
_READING = re.compile(r"^\s*(\w+)_([AV])\s+(?:current|volt)\(\d+\)=(-?\d+(?:\.\d+)?)[AV]\s*$", re.MULTILINE)
HINT = "add this user to the group video, and install vcgencmd (package raspi-utils)"

Command = Callable[[], str]


def vcgencmd() -> str:
    """What the firmware says. Raises OSError or subprocess.SubprocessError."""
    done = subprocess.run(["vcgencmd", "pmic_read_adc"], capture_output=True, timeout=TIMEOUT_S, check=True)
    return done.stdout[:8192].decode("ascii", "replace")


class Pmic(Sensors):
    """Power of a Raspberry Pi 5."""

    source = "pmic"
    uncertainty_ratio = 0.1
    sees_radio = sees_cards = True

    def __init__(self, roots: Roots, command: Command = vcgencmd) -> None:
        """Ask once.

        Raises:
            Unavailable: this is no Raspberry Pi 5, or its firmware does not answer.
        """
        if not roots.proc.maybe(_MODEL).startswith("Raspberry Pi 5"):
            raise Unavailable("missing")
        self._command, self._root = command, roots.procfs
        try:
            super().__init__([Rail(self._watts, roots.period_s)])
        except Unavailable as error:
            raise Unavailable(error.reason, HINT) from error

    def _watts(self) -> float:
        try:
            text = self._command()
        except PermissionError as error:
            raise Unreadable(self._root / "vcgencmd", "permission") from error
        except (OSError, subprocess.SubprocessError) as error:
            raise Unreadable(self._root / "vcgencmd", "no data") from error
        return board_watts(text)


def board_watts(text: str) -> float:
    """Watts of the board from the firmware's text. Raises Unreadable where it has no rail with both volts and amperes."""
    amperes: dict[str, float] = {}
    volts: dict[str, float] = {}
    for rail, unit, value in _READING.findall(text):
        (amperes if unit == "A" else volts)[rail] = float(value)
    rails = amperes.keys() & volts.keys()
    if not rails:
        raise Unreadable(Roots().procfs / "vcgencmd", "damaged")
    return max(0.0, SLOPE * sum(amperes[rail] * volts[rail] for rail in rails) + OFFSET_W)
