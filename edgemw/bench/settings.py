"""What a comparison of codecs is of: settings, each written as a codec with what is to be different from its defaults.

    NAME[:KEY=VALUE]...        lattice:kappa=4   topk:k=0.01   dense:release=dense

`kappa`, `release` and `release_kappa` are `codec.kappa`, `release.use` and `release.kappa` of a deployment file; every other
key is a parameter of the codec.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgemw.core.errors import ConfigError

_KEYS = {"kappa": "codec.kappa", "release": "release.use", "release_kappa": "release.kappa"}


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to send updates and releases.

    Attributes:
        text: as it was written; its name in tables.
        overrides: what it sets in a deployment, as KEY=VALUE.
    """

    text: str
    overrides: tuple[str, ...]


def parse_setting(text: str) -> Setting:
    """Read a setting; whether the codec takes it is seen when a deployment is made of it.

    Raises:
        ConfigError: it is written otherwise.
    """
    name, *pairs = text.split(":")
    overrides = [f"codec.use={name}", "codec.parameters={}"]
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals and value):
            raise ConfigError(f"{text!r}: write NAME:KEY=VALUE, such as topk:k=0.01", key="--codecs")
        overrides.append(f"{_KEYS.get(key, f'codec.parameters.{key}')}={value}")
    return Setting(text, tuple(overrides))


REFERENCE = parse_setting("dense:release=dense")
"""Floats both ways: what every other setting is measured by."""

DEFAULTS = (
    REFERENCE,
    *map(
        parse_setting,
        (
            "dense:dtype=float16",
            "lattice:kappa=4",
            "lattice:kappa=8",
            "lattice:kappa=12",
            "lattice:kappa=24",
            "topk:k=0.01",
            "topk:k=0.05",
            "qsgd",
            "signsgd",
            "powersgd:rank=2",
            "powersgd:rank=4",
        ),
    ),
)
