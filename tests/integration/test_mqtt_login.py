"""Why a broker was not reached, told apart: the network, the name and password, the certificates, the protocol."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgemw.core.errors import LinkError
from edgemw.transport.broker import Broker, start_broker
from edgemw.transport.connection import BrokerUnreachable
from edgemw.transport.mqtt import MqttLink, MqttSettings, TlsSettings
from tests.contract.test_link_kinds import next_received, next_up, run
from tests.support.certificates import make_certificate


@dataclass(frozen=True)
class Guarded:
    """A broker with passwords and a listener with certificates."""

    broker: Broker
    directory: Path
    tls_port: int
    mutual_port: int

    def url(self, host: str = "localhost", *, mutual: bool = False) -> str:
        """The address of a listener with TLS."""
        return f"mqtts://{host}:{self.mutual_port if mutual else self.tls_port}"

    def file(self, name: str) -> Path:
        """One of the generated files."""
        return self.directory / name


@pytest.fixture(scope="module")
def guarded(has_mosquitto: None, tmp_path_factory: pytest.TempPathFactory, unused_ports: tuple[int, int]) -> Iterator[Guarded]:
    """One mosquitto with three listeners."""
    directory = tmp_path_factory.mktemp("guarded")
    make_certificate(directory, "ca", "test authority", None, "")
    make_certificate(directory, "stranger", "another authority", None, "")
    make_certificate(directory, "server", "localhost", "ca", "subjectAltName=DNS:localhost\n")
    make_certificate(directory, "node", "node-1", "ca", "extendedKeyUsage=clientAuth\n")
    passwords = directory / "passwords"
    subprocess.run(
        ["mosquitto_passwd", "-b", "-c", str(passwords), "node-1", "right"], check=True, capture_output=True, timeout=30
    )
    (directory / "acl").write_text("topic readwrite open/#\n\nuser node-1\ntopic readwrite open/#\n")
    files = [f"cafile {directory}/ca.crt", f"certfile {directory}/server.crt", f"keyfile {directory}/server.key"]
    extra = [
        f"password_file {passwords}",
        f"acl_file {directory}/acl",
        f"listener {unused_ports[0]} 127.0.0.1",
        *files,
        f"listener {unused_ports[1]} 127.0.0.1",
        *files,
        "require_certificate true",
        "use_identity_as_username true",
    ]
    with start_broker("mosquitto", directory / "state", extra=extra) as broker:
        yield Guarded(broker, directory, *unused_ports)


def attempt(url: str, client_id: str = "node-1", **changes: Any) -> None:
    """Open and close a link."""

    async def scenario() -> None:
        async with MqttLink(MqttSettings(url=url, client_id=client_id, connect_timeout_s=5, **changes)):
            pass

    run(scenario())


def refusal(url: str, **changes: Any) -> LinkError:
    """The error of a link that does not open."""
    with pytest.raises(LinkError) as caught:
        attempt(url, **changes)
    assert str(caught.value.where)
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("protocol", ["auto", 5, 4])
def test_a_wrong_password_is_final_even_for_a_patient_node(guarded: Guarded, protocol: Any) -> None:
    error = refusal(guarded.broker.url, username="node-1", password="wrong", protocol=protocol, wait_for_broker=True)
    assert not isinstance(error, BrokerUnreachable)
    assert "password" in f"{error.what} {error.hint}" or "authorised" in error.what
    assert "wrong " not in error.hint.replace("wrong user", "")


def test_the_right_password_is_let_in(guarded: Guarded) -> None:
    attempt(guarded.broker.url, username="node-1", password="right")


def test_an_unknown_authority(guarded: Guarded) -> None:
    error = refusal(guarded.url(), tls=TlsSettings(ca=guarded.file("stranger.crt")))
    assert "unknown authority" in error.what
    assert "tls.ca" in error.hint
    assert not isinstance(error, BrokerUnreachable)


def test_a_certificate_for_another_host(guarded: Guarded) -> None:
    error = refusal(guarded.url("127.0.0.1"), tls=TlsSettings(ca=guarded.file("ca.crt")))
    assert "for another" in error.what


def test_a_broker_without_tls(guarded: Guarded) -> None:
    url = guarded.broker.url.replace("mqtt://", "mqtts://")
    assert "TLS" in refusal(url, tls=TlsSettings(ca=guarded.file("ca.crt"))).what


def test_a_missing_client_certificate(guarded: Guarded) -> None:
    error = refusal(guarded.url(mutual=True), tls=TlsSettings(ca=guarded.file("ca.crt")))
    assert "TLS" in error.what
    assert "client certificate" in error.hint


def test_a_missing_file_names_it(guarded: Guarded) -> None:
    assert "nowhere.crt" in str(refusal(guarded.url(), tls=TlsSettings(ca=guarded.file("nowhere.crt"))))


def test_an_unknown_host_and_a_closed_port_are_worth_another_try() -> None:
    unknown = refusal("mqtt://no-such-host.invalid")
    closed = refusal("mqtt://127.0.0.1:1")
    assert isinstance(unknown, BrokerUnreachable)
    assert isinstance(closed, BrokerUnreachable)
    assert "host name" in unknown.what
    assert "refused" in closed.what


def test_publications_of_every_size_pass_through_mutual_tls(guarded: Guarded) -> None:
    sizes = [0, 1, 16_384, 100_000, 1_000_000]

    async def scenario() -> None:
        tls = TlsSettings(ca=guarded.file("ca.crt"), cert=guarded.file("node.crt"), key=guarded.file("node.key"))
        async with MqttLink(MqttSettings(url=guarded.url(mutual=True), client_id="tls", tls=tls)) as link:
            events = link.events()
            await next_up(events)
            await link.subscribe("open/x")
            async with asyncio.TaskGroup() as group:
                for size in sizes:
                    group.create_task(link.publish("open/x", bytes(size)))
                assert sorted([len((await next_received(events)).payload) for _ in sizes]) == sizes

    run(scenario())


def test_pitfall_12_a_denied_publication_is_an_error_with_its_reason(guarded: Guarded) -> None:
    async def scenario() -> None:
        settings = MqttSettings(url=guarded.broker.url, client_id="node-1", username="node-1", password="right", protocol=5)
        async with MqttLink(settings) as link:
            with pytest.raises(LinkError, match="Not authorized"):
                await link.publish("forbidden", b"")
            await link.publish("open/x", b"")
            assert link.traffic.reconnects == 0

    run(scenario())
