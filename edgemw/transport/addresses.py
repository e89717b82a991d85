"""Where a broker listens: one address, or those of every server of a cluster."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from urllib.parse import urlsplit
from zlib import crc32

from edgemw.core.errors import ConfigError

MAX_ADDRESSES = 16
_DEFAULT_PORTS = {"mqtt": 1883, "mqtts": 8883}
_FORM = "must be a broker address such as mqtt://host:1883 or mqtts://host:8883, or several of one cluster with commas between"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a broker listens."""

    host: str
    port: int
    tls: bool

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"


def broker_addresses(url: str) -> tuple[Address, ...]:
    """The addresses in `mqtt://host[:port]` or `mqtts://host[:port]`, or in several of them with commas between.

    Raises:
        ConfigError: it is of another form, some are encrypted and some are not, or there are too many. Its text is never
            repeated, in case it holds a password.
    """
    parts = url.split(",")
    if len(parts) > MAX_ADDRESSES:
        raise ConfigError(f"must have at most {MAX_ADDRESSES} addresses, and has {len(parts)}", key="url")
    addresses = tuple(_address(part.strip()) for part in parts)
    if len({address.tls for address in addresses}) > 1:
        raise ConfigError("must be mqtts:// for every address, or mqtt:// for every one", key="url")
    return addresses


def in_turn(addresses: tuple[Address, ...], client_id: str) -> deque[Address]:
    """The addresses in the order in which a client tries them; where it begins follows from its id, so that a fleet spreads."""
    turn = deque(addresses)
    turn.rotate(-(crc32(client_id.encode()) % len(addresses)))
    return turn


def _address(text: str) -> Address:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ConfigError(_FORM, key="url") from error
    if parts.username is not None or parts.password is not None:
        reason = "must not hold a name or password, for it ends up in logs: use broker.username and broker.password"
        raise ConfigError(reason, key="url")
    if parts.scheme not in _DEFAULT_PORTS:
        suggestion = {"tcp": "mqtt", "ssl": "mqtts", "tls": "mqtts"}.get(parts.scheme)
        raise ConfigError(_FORM, key="url", suggestion=suggestion)
    if not parts.hostname or parts.path not in ("", "/") or parts.query or parts.fragment or port == 0:
        raise ConfigError(_FORM, key="url")
    return Address(parts.hostname, port or _DEFAULT_PORTS[parts.scheme], parts.scheme == "mqtts")
