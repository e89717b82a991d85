"""What an MQTT link needs to know, checked once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edgemw.core.errors import ConfigError
from edgemw.transport.addresses import Address, broker_addresses
from edgemw.transport.link import Will


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """Files in PEM. Without `ca` the authorities of the system count; `cert` and `key` are the node's own, together."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ConfigError("a certificate and its key come together", key="tls.cert, tls.key")


@dataclass(frozen=True, slots=True)
class MqttSettings:
    """One MQTT connection; a value that cannot work raises ConfigError here, before anything is opened.

    Attributes:
        url: `mqtt://host[:port]` or `mqtts://host[:port]`; several with commas between are servers of one cluster, which are
            tried in turn.
        client_id: unique on the broker; the persistent session hangs on it.
        protocol: `auto` begins with MQTT 5 and falls back to 3.1.1.
        session_expiry_s: how long the broker keeps the session of a node that is away; 0 starts clean every time.
            On 3.1.1 any other value means as long as the broker likes.
        window_bytes: PUBLISH packets handed over and not acknowledged; 64 KiB suits links below 1 Mbit/s.
        queue_size: arrivals that the reader has not taken yet; see `inbox.py` for what happens then.
        receive_maximum: QoS 1 arrivals that the broker may have unacknowledged (MQTT 5).
        max_packet_bytes: larger packets are not for us; the broker is told (MQTT 5).
        ack_timeout_s: a connection on which nothing moves for this long while an acknowledgement is due is cut.
        will_delay_s: how long the broker holds the will back (MQTT 5), so that a short break is not a death notice.
        wait_for_broker: open the link even though no broker answers yet.
        flush_s: how long closing waits for publications in flight.
    """

    url: str
    client_id: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: TlsSettings | None = None
    keepalive_s: int = 30
    protocol: Literal["auto", 5, 4] = "auto"
    session_expiry_s: int = 3600
    window_bytes: int = 256 * 1024
    window_messages: int = 20
    queue_size: int = 1000
    queue_bytes: int = 16 * 1024 * 1024
    receive_maximum: int = 50
    max_packet_bytes: int = 16 * 1024 * 1024
    connect_timeout_s: float = 10.0
    ack_timeout_s: float = 30.0
    will: Will | None = None
    will_delay_s: int = 10
    wait_for_broker: bool = False
    reconnect_min_s: float = 0.5
    reconnect_max_s: float = 60.0
    flush_s: float = 2.0

    def __post_init__(self) -> None:
        first, *_ = self.addresses
        if self.tls is not None and not first.tls:
            raise ConfigError("certificates are given but the connection is not encrypted", key="url", suggestion="mqtts://...")
        if not 1 <= len(self.client_id.encode()) <= 65535 or "\0" in self.client_id:
            raise ConfigError("1 to 65535 bytes are needed", key="client_id")
        if self.password is not None and self.username is None:
            raise ConfigError("a password needs a user name", key="username")
        if self.protocol not in ("auto", 5, 4):
            raise ConfigError(f"{self.protocol!r} is not one of auto, 5, 4", key="protocol")
        self._check_ranges()

    def _check_ranges(self) -> None:
        ranges: tuple[tuple[str, float, float, float], ...] = (
            ("keepalive_s", self.keepalive_s, 1, 65535),
            ("session_expiry_s", self.session_expiry_s, 0, 0xFFFFFFFF),
            ("window_bytes", self.window_bytes, 1024, 1 << 28),
            ("window_messages", self.window_messages, 1, 65535),
            ("queue_size", self.queue_size, 1, 1_000_000),
            ("queue_bytes", self.queue_bytes, 1024, 1 << 31),
            ("receive_maximum", self.receive_maximum, 1, 65535),
            ("max_packet_bytes", self.max_packet_bytes, 1024, 268_435_455),
            ("connect_timeout_s", self.connect_timeout_s, 0.01, 600),
            ("ack_timeout_s", self.ack_timeout_s, 0.01, 3600),
            ("will_delay_s", self.will_delay_s, 0, 0xFFFFFFFF),
            ("reconnect_min_s", self.reconnect_min_s, 0.001, self.reconnect_max_s),
            ("reconnect_max_s", self.reconnect_max_s, 0.001, 86400),
            ("flush_s", self.flush_s, 0, 600),
        )
        for key, value, low, high in ranges:
            if not low <= value <= high:
                raise ConfigError(f"{value:g} is not between {low:g} and {high:g}", key=key)

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where the broker listens, out of the URL; one for each server of a cluster. All are encrypted, or none.

        Raises:
            ConfigError: the URL is not of the form that `url` promises.
        """
        return broker_addresses(self.url)
