"""The text of a configuration file, no longer than one may be."""

from __future__ import annotations

from pathlib import Path

from edgemw.core.config.tree import MAX_TEXT_CHARS
from edgemw.core.errors import ConfigError


def read_text(path: Path) -> str:
    """The text of a configuration file. Raises ConfigError when it cannot be read."""
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_TEXT_CHARS + 1).decode()
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror or error}", file=str(path)) from error
    except UnicodeDecodeError as error:
        raise ConfigError("is not UTF-8 text", file=str(path)) from error
