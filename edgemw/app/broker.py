"""The settings of a link, from a file's [broker]."""

from __future__ import annotations

from collections.abc import Mapping

from edgemw.app.secrets import reveal
from edgemw.app.settings import Broker
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
