"""What differential privacy costs: epsilon of Gaussian mechanisms that were composed, and the noise for an epsilon.

    mu^2    = sum over all mechanisms of (sensitivity / deviation)^2
    epsilon   is that of one Gaussian mechanism of sensitivity 1 and deviation 1 / mu, at a delta

Gaussian mechanisms compose to a Gaussian one exactly, also where each was chosen after seeing what those before gave, so
nothing is lost to a bound; the epsilon of one is exact as well. The last step is done by `dp-accounting`.

Source: Dong, Roth and Su, Gaussian differential privacy, JRSS B 84(1), 2022, corollary 3.3; Balle and Wang, ICML 2018, theorem 8.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from importlib.util import find_spec
from types import ModuleType

from edgemw.core.errors import ConfigError

MISSING = "privacy is accounted for by dp-accounting, which is not installed: pip install 'edgemw[privacy]'"

Mechanisms = Iterable[tuple[float, int]]
"""Deviation over sensitivity, and how often."""


def is_installed() -> bool:
    """Whether epsilon can be computed here."""
    return find_spec("dp_accounting") is not None


def epsilon_of(mechanisms: Mechanisms, delta: float) -> float:
    """Epsilon of Gaussian mechanisms on the same data, at a delta between 0 and 1; 0 of none.

    Raises:
        ConfigError: dp-accounting is not installed.
    """
    mu2 = math.fsum(times / noise**2 if noise > 0 else math.inf for noise, times in mechanisms if times)
    if mu2 == 0:
        return 0.0
    return math.inf if math.isinf(mu2) else _epsilon_of_one(1 / math.sqrt(mu2), delta)


def noise_for(epsilon: float, delta: float, times: int = 1) -> float:
    """The deviation over sensitivity of a mechanism that costs this epsilon where it is used so often; 0 for infinity.

    Raises:
        ConfigError: dp-accounting is not installed.
    """
    return float(_library().get_sigma_gaussian(epsilon, delta)) * math.sqrt(times)


@functools.lru_cache(64)  # whoever looks at a node asks again
def _epsilon_of_one(noise: float, delta: float) -> float:
    return float(_library().get_epsilon_gaussian(noise, delta))


def _library() -> ModuleType:
    try:
        import dp_accounting  # scipy with it: only who asks for an epsilon waits for that
    except ModuleNotFoundError as error:
        raise ConfigError(MISSING, key="privacy.mode") from error
    library: ModuleType = dp_accounting
    return library
