"""Energy of a device without a meter, from its profile: see `edgemw/profiles/energy.py`."""

from __future__ import annotations

from edgemw.core.errors import ConfigError
from edgemw.profiles.device import Profile
from edgemw.profiles.energy import Usage, energy_j
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
        self._profile, self._radio = profile, radio
        self._times = cores if profile.power.per_core else 1
        known = profile.uncertainty_ratio
        self.uncertainty_ratio = UNKNOWN_RATIO if known is None else known.value
        try:
            self.joules(Moment(0.0, 1.0, 0.5, 1.0, 1.0, 1))
        except ConfigError as error:
            raise Unavailable("incomplete", str(error)) from error

    def joules(self, moment: Moment) -> float | None:
        """Joules of this stretch of time."""
        usage = Usage(
            seconds=moment.seconds,
            utilisation=moment.utilisation,
            sent_bytes=moment.sent_bytes,
            received_bytes=moment.received_bytes,
            sessions=moment.sessions,
        )
        energy = energy_j(self._profile, usage, self._radio)
        return self._times * (energy.idle + energy.cpu) + energy.radio
