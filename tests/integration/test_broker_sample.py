"""The files of brokers/mosquitto start, and their access rules hold: with certificates and with passwords."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edgemw.app.broker import mqtt_settings
from edgemw.app.settings import Broker, Tls
from edgemw.core.errors import LinkError
from edgemw.transport.mqtt import MqttLink
from edgemw.wire.topics import build
from tests.contract.test_link_kinds import next_received, next_up, run
from tests.support.mosquitto import Authority, Mosquitto

NODES = ("dev-1", "dev-2", "fog-1", "monitor")


@pytest.fixture(scope="module")
def authority(has_mosquitto: None, tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who signs the certificates of the fleet."""
    made = Authority(tmp_path_factory.mktemp("authority"))
    made.admit(*NODES, "stolen")
    made.revoke("stolen")
    return made


@pytest.fixture(scope="module")
def with_tls(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """tls/listener.conf, running."""
    with Mosquitto(tmp_path_factory.mktemp("tls"), "tls", authority) as broker:
        yield broker


@pytest.fixture(scope="module")
def with_passwords(has_mosquitto: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mosquitto]:
    """single/listener.conf, running."""
    broker = Mosquitto(tmp_path_factory.mktemp("single"), "single")
    broker.admit(*NODES)
    with broker:
        yield broker


@pytest.fixture(params=["with_tls", "with_passwords"])
def broker(request: pytest.FixtureRequest) -> Mosquitto:
    """Either, since the same rules hold."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Mosquitto)
    return found


def link(broker: Mosquitto, node: str) -> MqttLink:
    """A node's link."""
    return MqttLink(replace(mqtt_settings(broker.login(node), node, {}, wait=False), session_expiry_s=0))


def test_a_device_writes_its_own_topics_and_its_fog_reads_them(broker: Mosquitto) -> None:
    async def scenario() -> None:
        async with link(broker, "dev-1") as device, link(broker, "fog-1") as fog:
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
def test_a_device_cannot_speak_for_others(broker: Mosquitto, topic: str) -> None:
    async def scenario() -> None:
        async with link(broker, "dev-1") as device:
            with pytest.raises(LinkError, match="Not authorized"):
                await device.publish(topic, b"not mine")

    run(scenario())


def test_a_device_hears_its_fog_but_not_what_is_for_others(broker: Mosquitto) -> None:
    async def scenario() -> None:
        async with link(broker, "dev-1") as device, link(broker, "fog-1") as fog:
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


def test_predictions_are_asked_for_and_heard_by_who_asks_alone(broker: Mosquitto) -> None:
    async def scenario() -> None:
        async with link(broker, "dev-1") as asker, link(broker, "dev-2") as server:
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


def test_who_watches_asks_everybody_and_speaks_for_nobody(broker: Mosquitto) -> None:
    async def scenario() -> None:
        async with link(broker, "monitor") as monitor, link(broker, "dev-1") as device:
            await device.subscribe(build("n", "fog-1", "ask", node="+"))
            await monitor.subscribe(build("n", "+", "answer", asker="console-1", node="+"))
            question, answer = (
                build("n", "fog-1", "ask", node="console-1"),
                build("n", "fog-1", "answer", asker="console-1", node="dev-1"),
            )
            heard, told = device.events(), monitor.events()
            await monitor.publish(question, b"?")
            assert (await next_received(heard)).topic == question
            await device.publish(answer, b"well")
            assert (await next_received(told)).topic == answer
            with pytest.raises(LinkError, match="Not authorized"):
                await monitor.publish(build("n", "fog-1", "update", node="dev-1", task="digits"), b"not mine")

    run(scenario())


def test_a_revoked_certificate_is_not_let_in(with_tls: Mosquitto) -> None:
    assert re.search("revoked|TLS", refusal(with_tls.login("stolen")).what)  # as the alert comes in time or not


def test_a_certificate_of_another_authority_is_not_let_in(with_tls: Mosquitto, authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path / "stranger")
    stranger.admit("dev-1")
    theirs = stranger.tls("dev-1")
    assert "TLS" in refusal(replace(with_tls.login("dev-1"), tls=replace(theirs, ca=authority.folder / "ca.crt"))).what


def test_nobody_is_let_in_without_a_name(with_tls: Mosquitto, with_passwords: Mosquitto, authority: Authority) -> None:
    assert "TLS" in refusal(Broker(url=with_tls.url, tls=Tls(ca=authority.folder / "ca.crt"))).what
    assert refusal(Broker(url=with_passwords.url)).what == "not authorised"


def refusal(login: Broker) -> LinkError:
    """The error of a link that does not open."""

    async def scenario() -> None:
        async with MqttLink(mqtt_settings(login, "dev-1", {}, wait=False)):
            pass

    with pytest.raises(LinkError) as caught:
        run(scenario())
    return caught.value
