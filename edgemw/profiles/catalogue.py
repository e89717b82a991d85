"""The profiles that come with edgemw, by name, and those of others, by path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from edgemw.core.config.loader import Loaded, load
from edgemw.core.config.named import SUFFIX
from edgemw.core.config.reading import read_text
from edgemw.core.config.tree import Origin, parse_toml
from edgemw.core.config.words import nearest
from edgemw.core.errors import ConfigError
from edgemw.profiles.device import Profile
from edgemw.profiles.radio import RADIO_KINDS, Radio

T = TypeVar("T", Profile, Radio)

FOLDER = Path(__file__).parents[2] / "firmware_profiles"
"""Beside the package `edgemw`, in a checkout as where it is installed."""

RADIOS = FOLDER / "radios"


def profile_names() -> tuple[str, ...]:
    """The classes of devices that come with edgemw."""
    return _names(FOLDER)


def radio_names() -> tuple[str, ...]:
    """The radios that come with edgemw."""
    return _names(RADIOS)


def load_profile(name_or_path: str | Path) -> Profile:
    """A class of devices; what ends in .toml is a path. Radios of its own, beside it, are absolute paths afterwards.

    Raises:
        ConfigError: there is no such profile, its file says something wrong, or names a radio that there is not.
    """
    path = _found(name_or_path, FOLDER)
    loaded = _load(Profile, path)
    radios = [_radio(name, path, loaded.origins, f"radios.{n}") for n, name in enumerate(loaded.value.radios)]
    return replace(loaded.value, radios=tuple(radios))


def load_radio(name_or_path: str | Path) -> Radio:
    """A radio; what ends in .toml is a path.

    Raises:
        ConfigError: there is no such radio, or its file says something wrong.
    """
    return _load(Radio, _found(name_or_path, RADIOS)).value


def load_either(name_or_path: str | Path) -> Profile | Radio:
    """A class of devices or a radio, whichever has this name, or whichever the file is by its `kind`.

    Raises:
        ConfigError: there is neither, or its file says something wrong.
    """
    if not _is_path(name_or_path):
        if name_or_path in profile_names():
            return load_profile(name_or_path)
        if name_or_path in radio_names():
            return load_radio(name_or_path)
        raise _unknown(str(name_or_path), (*profile_names(), *radio_names()))
    path = Path(name_or_path)
    is_radio = parse_toml(read_text(path), str(path)).get("kind") in RADIO_KINDS
    return load_radio(path) if is_radio else load_profile(path)


def _load(cls: type[T], path: Path) -> Loaded[T]:
    return load(cls, read_text(path), str(path), cwd=Path.cwd())


def _names(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in folder.glob(f"*{SUFFIX}")))


def _is_path(name_or_path: str | Path) -> bool:
    return isinstance(name_or_path, Path) or name_or_path.endswith(SUFFIX)


def _found(name_or_path: str | Path, folder: Path) -> Path:
    if _is_path(name_or_path):
        return Path(name_or_path)
    if name_or_path not in _names(folder):
        raise _unknown(str(name_or_path), _names(folder))
    return folder / f"{name_or_path}{SUFFIX}"


def _unknown(name: str, known: tuple[str, ...]) -> ConfigError:
    reason = f"there is no profile {name!r}: `edgemw profile list` shows all; a file of your own ends in {SUFFIX}"
    return ConfigError(reason, suggestion=nearest(name, known))


def _radio(name: str, path: Path, origins: Mapping[str, Origin], key: str) -> str:
    """The name of a radio that there is, or the absolute path of one's own."""
    if _is_path(name):
        return str(path.parent.absolute() / name)
    if name not in radio_names():
        raise origins[key].refusal(f"there is no radio {name!r}", key=key, suggestion=nearest(name, radio_names()))
    return name
