"""What a comparison of codecs is of: settings, each written as a codec with what is to be different from its defaults.

    NAME[:KEY=VALUE]...        lattice:kappa=4   topk:k=0.01   dense:release=dense

`kappa`, `budget_round` and `budget_run` are those of `[codec]` in a deployment file, `release`, `release_kappa`,
`release_budget_round` and `release_budget_run` those of `[release]`, where `release` is `use`; every other key is a parameter of
the codec. A setting says all of the codec: parameters and budgets of a file are not for it.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgemw.core.errors import ConfigError

_KEYS = {
    "kappa": "codec.kappa",
    "budget_round": "codec.budget_round",
    "budget_run": "codec.budget_run",
    "release": "release.use",
    "release_kappa": "release.kappa",
    "release_budget_round": "release.budget_round",
    "release_budget_run": "release.budget_run",
}
_NOTHING_OF_FILES = ("codec.parameters={}", "codec.budget_round=", "codec.budget_run=")
_NO_RELEASE_BUDGET = ("release.budget_round=", "release.budget_run=")


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
    overrides = [f"codec.use={name}", *_NOTHING_OF_FILES]
    if any(pair.startswith("release") for pair in pairs):
        overrides += _NO_RELEASE_BUDGET
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
            "lattice",
            "lattice:kappa=4",
            "lattice:kappa=8",
            "lattice:kappa=32",
            "lattice:rounding=nearest:kappa=12",
            "topk:k=0.01",
            "topk:k=0.05",
            "qsgd",
            "signsgd",
            "powersgd:rank=2",
            "powersgd:rank=4",
        ),
    ),
)
