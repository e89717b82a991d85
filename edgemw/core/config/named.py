"""What is given by a name, or as a file of one's own: what ends in .toml is a path, relative to the file that says it."""

from __future__ import annotations

from typing import NewType

SUFFIX = ".toml"

NameOrFile = NewType("NameOrFile", str)
"""A name, or the absolute path of a .toml file."""
