"""Energy of a device without a meter, from its profile: see `edgemw/profiles/energy.py`."""

from __future__ import annotations

from edgemw.core.errors import ConfigError
from edgemw.profiles.device import Profile
from edgemw.profiles.energy import Usage, energy_j, power_w, radio_j
from edgemw.profiles.radio import Radio
from edgemw.telemetry.energy.reader import Moment, Unavailable

UNKNOWN_RATIO = 0.5


class Model:
    """Joules as a function of time, utilisation, bytes and sessions."""

    source = "model"
    sees_radio, sees_cards = True, False

    def __init__(self, profile: Profile, radio: Radio | None, cores: int) -> None:
        """Model a device of this class.

        Args:
            radio: None leaves out what is sent and received.
            cores: of the device, for profiles whose watts are of one core.

        Raises:
            Unavailable: the profile does not say what the device draws.
        """
        self._profile, self._radio, self._times = profile, radio, _times(profile, cores)
        known = profile.uncertainty_ratio
        self.uncertainty_ratio = UNKNOWN_RATIO if known is None else known.value
        try:
            self.joules(Moment(0.0, 1.0, 0.5, 1.0, 1.0, 1))
        except ConfigError as error:
            raise Unavailable("incomplete", str(error)) from error

    def joules(self, moment: Moment) -> float | None:
        """Joules of this stretch of time."""
        used = Usage(seconds=moment.seconds, utilisation=moment.utilisation)
        return self._times * energy_j(self._profile, used).total + of_radio(self._radio, moment)


def idle_w(profile: Profile | None, cores: int) -> float | None:
    """What a device of this class takes idle; None where that is not known."""
    if profile is None:
        return None
    try:
        return power_w(profile, 0.0) * _times(profile, cores)
    except ConfigError:
        return None


def of_radio(radio: Radio | None, moment: Moment) -> float:
    """Joules of what a radio sent and received; 0 without one."""
    if radio is None:
        return 0.0
    used = Usage(sent_bytes=moment.sent_bytes, received_bytes=moment.received_bytes, sessions=moment.sessions)
    return radio_j(radio, used)


def _times(profile: Profile, cores: int) -> int:
    return cores if profile.power.per_core else 1
