"""What single values of a file must look like; each check gives the reason why a value is refused, or ""."""

from __future__ import annotations

import re
from collections.abc import Mapping

from edgemw.core.errors import ConfigError
from edgemw.core.ids import valid_id
from edgemw.core.plan import MAX_PATTERNS
from edgemw.profiles.catalogue import load_profile
from edgemw.transport.addresses import broker_addresses
from edgemw.wire.topics import EVERYBODY

EMBEDDED = "embedded"
AUTO = "auto"
DATA_SUFFIXES = (".npz", ".csv", ".parquet")
_ADDRESS = re.compile(r"(?:\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]*):(\d{1,5})\Z")
_ENTRY_POINT = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*\Z")


def check_id(value: object) -> str:
    """A name of a node or a federation."""
    if value == EVERYBODY:
        return f"must not be {EVERYBODY!r}: topics use it for everybody"
    return "" if isinstance(value, str) and valid_id(value) else "must be 1 to 40 of a-z, 0-9 and '-'"


def check_optional_id(value: object) -> str:
    """A name, or nothing."""
    return "" if value in ("", None) else check_id(value)


def check_url(value: object) -> str:
    """A broker's address, or several, without credentials; or "embedded"."""
    if value == EMBEDDED:
        return ""
    try:
        broker_addresses(str(value))
    except ConfigError as error:
        return error.reason
    return ""


def check_address(value: object) -> str:
    """An address to listen on, or "" for off."""
    match = _ADDRESS.match(str(value))
    return "" if value == "" or (match and int(match[1]) <= 65535) else 'must be "HOST:PORT", or "" for off'


def check_profile(value: object) -> str:
    """A class of devices: its name, the path of a file, "auto", or "" for none."""
    if value in ("", AUTO):
        return ""
    try:
        load_profile(str(value))
    except ConfigError as error:
        return str(error)
    return ""


def check_data_path(value: object) -> str:
    """A file of samples, by its suffix."""
    return "" if value is None or str(value).endswith(DATA_SUFFIXES) else f"must end in {', '.join(DATA_SUFFIXES)}"


def check_npz(value: object) -> str:
    """An .npz file, by its suffix."""
    return "" if value is None or str(value).endswith(".npz") else "must end in .npz"


def check_entry_point(value: object) -> str:
    """A Python function by name, or nothing."""
    return "" if value == "" or _ENTRY_POINT.match(str(value)) else 'must be "package.module:function"'


def check_patterns(value: object) -> str:
    """Patterns over the names of tensors, or nothing; a release has room for so many."""
    patterns = value if isinstance(value, tuple) else ()
    if any(not pattern or not pattern.isprintable() or " " in pattern for pattern in patterns):
        return 'must be names such as "head.weight" or patterns such as "head.*", without spaces'
    return "" if len(" ".join(patterns)) <= MAX_PATTERNS else f"must have at most {MAX_PATTERNS} characters together"


def check_tier_names(value: object) -> str:
    """The names of tiers; nodes are named after them."""
    names = value if isinstance(value, Mapping) else {}
    bad = next((name for name in names if not valid_id(name)), None)
    return "" if bad is None else f"a tier's name is 1 to 40 of a-z, 0-9 and '-', not {bad!r}"
