"""The sample configuration for production starts, and its access rules hold."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgemw.core.errors import LinkError
from edgemw.transport.broker import find_mosquitto
from edgemw.transport.mqtt import MqttLink, MqttSettings, TlsSettings
from edgemw.wire.topics import build
from tests.contract.test_link_kinds import next_received, next_up, run
from tests.integration.test_mqtt_login import make_certificate, openssl

SAMPLE = Path(__file__).parents[2] / "brokers" / "mosquitto"
NODES = ("dev-1", "dev-2", "fog-1", "monitor")
CA_CONFIG = (
    "[ca]\ndefault_ca = test\n[test]\ndatabase = index.txt\ncrlnumber = number\ndefault_md = sha256\ndefault_crl_days = 1\n"
)


@pytest.fixture(scope="module")
def etc(has_mosquitto: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What stands in /etc/edgemw: certificates and a list of revoked ones."""
    path = tmp_path_factory.mktemp("etc")
    make_certificate(path, "ca", "test authority", None, "")
    make_certificate(path, "server", "localhost", "ca", "subjectAltName=DNS:localhost\n")
    for node in (*NODES, "stolen"):
        make_certificate(path, node, node, "ca", "extendedKeyUsage=clientAuth\n")
    (path / "ca.conf").write_text(CA_CONFIG)
    (path / "index.txt").write_text("")
    (path / "number").write_text("01\n")
    authority = ["ca", "-config", "ca.conf", "-cert", "ca.crt", "-keyfile", "ca.key"]
    openssl(path, *authority, "-revoke", "stolen.crt")
    openssl(path, *authority, "-gencrl", "-out", "crl.pem")
    (path / "acl").write_text((SAMPLE / "acl").read_text())
    (path / "acl").chmod(0o600)
    return path


@pytest.fixture(scope="module")
def url(etc: Path, tmp_path_factory: pytest.TempPathFactory, unused_ports: tuple[int, int]) -> Iterator[str]:
    """The sample configuration with other paths and port, running."""
    state = tmp_path_factory.mktemp("state")
    text = (SAMPLE / "mosquitto.conf").read_text()
    text = text.replace("/etc/edgemw/", f"{etc}/").replace("/var/lib/edgemw/", f"{state}/")
    text = text.replace("listener 8883", f"listener {unused_ports[0]} 127.0.0.1").replace("user mosquitto", f"user {_me()}")
    (etc / "mosquitto.conf").write_text(text)
    program = find_mosquitto()
    assert program is not None
    with subprocess.Popen([program, "-c", str(etc / "mosquitto.conf")]) as process:
        deadline_s = time.monotonic() + 10.0
        while process.poll() is None and not _listens(unused_ports[0]) and time.monotonic() < deadline_s:
            time.sleep(0.02)
        yield f"mqtts://localhost:{unused_ports[0]}"
        process.terminate()


def _listens(port: int) -> bool:
    with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
        return True
    return False


def _me() -> str:
    return subprocess.run(["id", "-un"], check=True, capture_output=True, text=True, timeout=10).stdout.strip()


def link(url: str, etc: Path, node: str) -> MqttLink:
    tls = TlsSettings(ca=etc / "ca.crt", cert=etc / f"{node}.crt", key=etc / f"{node}.key")
    return MqttLink(MqttSettings(url=url, client_id=node, tls=tls, protocol=5))


def test_a_device_writes_its_own_topics_and_its_fog_reads_them(url: str, etc: Path) -> None:
    async def scenario() -> None:
        async with link(url, etc, "dev-1") as device, link(url, etc, "fog-1") as fog:
            assert (await next_up(device.events())).limits.max_packet_bytes == 1_200_000
            await fog.subscribe("em1/n/fog-1/#")
            for channel, values in (
                ("presence", {"node": "dev-1"}),
                ("update", {"node": "dev-1", "task": "digits"}),
                ("chunk", {"fog": "fog-1", "node": "dev-1", "transfer": "t1"}),
            ):
                topic = build("n", "fog-1", channel, **values)
                await device.publish(topic, b"mine")
                assert (await next_received(fog.events())).topic == topic

    run(scenario())


@pytest.mark.parametrize(
    "topic",
    [
        build("n", "fog-1", "update", node="dev-2", task="digits"),
        build("n", "fog-1", "presence", node="dev-2"),
        build("n", "fog-1", "release", task="digits"),
        build("n", "fog-1", "reply", node="dev-1", task="digits"),
        build("n", "fog-1", "blob", digest="abc", index="0"),
        build("n", "fog-1", "predict", node="dev-2", task="digits"),
        build("n", "fog-1", "prediction", node="dev-1", task="digits"),
    ],
)
def test_a_device_cannot_speak_for_others(url: str, etc: Path, topic: str) -> None:
    async def scenario() -> None:
        async with link(url, etc, "dev-1") as device:
            with pytest.raises(LinkError, match="Not authorized"):
                await device.publish(topic, b"not mine")

    run(scenario())


def test_a_device_hears_its_fog_but_not_what_is_for_others(url: str, etc: Path) -> None:
    async def scenario() -> None:
        async with link(url, etc, "dev-1") as device, link(url, etc, "fog-1") as fog:
            await device.subscribe("em1/#")
            await fog.publish(build("n", "fog-1", "reply", node="dev-2", task="digits"), b"for another")
            wanted = [
                build("n", "fog-1", "reply", node="dev-1", task="digits"),
                build("n", "fog-1", "release", task="digits"),
                build("n", "fog-1", "blob", digest="abc", index="0"),
            ]
            events = device.events()
            for topic in wanted:
                await fog.publish(topic, b"for you")
                assert (await next_received(events)).topic == topic

    run(scenario())


def test_predictions_are_asked_for_and_heard_by_who_asks_alone(url: str, etc: Path) -> None:
    async def scenario() -> None:
        async with link(url, etc, "dev-1") as asker, link(url, etc, "dev-2") as server:
            question, answer = (build("n", "dev-2", channel, node="dev-1", task="t") for channel in ("predict", "prediction"))
            await server.subscribe(build("n", "dev-2", "predict", node="+", task="+"))
            await asker.subscribe("em1/n/dev-2/pa/#")
            asked, heard = server.events(), asker.events()
            await asker.publish(question, b"x?")
            assert (await next_received(asked)).topic == question
            await server.publish(build("n", "dev-2", "prediction", node="fog-1", task="t"), b"for another")
            await server.publish(answer, b"y")
            assert (await next_received(heard)).topic == answer

    run(scenario())


def test_a_revoked_certificate_is_not_let_in(url: str, etc: Path) -> None:
    async def scenario() -> None:
        with pytest.raises(LinkError, match="TLS"):
            await link(url, etc, "stolen").__aenter__()

    run(scenario())
