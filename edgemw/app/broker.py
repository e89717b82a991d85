"""The settings of a link, from a file's [broker]."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from edgemw.app.secrets import reveal
from edgemw.app.settings import Broker
from edgemw.core.errors import ConfigError
from edgemw.transport.link import Will
from edgemw.transport.mqtt import MqttSettings, TlsSettings


def mqtt_settings(
    broker: Broker, client_id: str, env: Mapping[str, str], *, will: Will | None = None, wait: bool = True
) -> MqttSettings:
    """The link's settings from a file's [broker]."""
    tls = broker.tls
    return MqttSettings(
        url=broker.url,
        client_id=client_id,
        username=broker.username or None,
        password=reveal(broker.password, env) if broker.password else None,
        tls=TlsSettings(tls.ca, tls.cert, tls.key) if broker.url.startswith("mqtts") else None,
        keepalive_s=int(broker.keepalive),
        protocol={"auto": "auto", "5": 5, "3.1.1": 4}[broker.protocol],  # type: ignore[arg-type]  # a table of literals
        will=will,
        wait_for_broker=wait,
    )


def own_client_id(net: str, node: str, broker: Broker) -> str:
    """The client id of a node, on which its session hangs.

    A broker ends the connection of whoever has a client id when another client comes with the same one, whoever that is. So a
    node with a certificate adds 64 bits that follow from its private key: others cannot guess them, while two machines that were
    given one key by mistake still have one id, and are told.

    Raises:
        ConfigError: the key cannot be read.
    """
    key = broker.tls.key
    if key is None:
        return f"em1-{net}-{node}"
    try:
        secret = key.read_bytes()
    except OSError as error:
        raise ConfigError(f"{key}: {error.strerror or error}", key="broker.tls.key") from error
    return f"em1-{net}-{node}-{hashlib.sha256(b'edgemw client id' + secret).hexdigest()[:16]}"
