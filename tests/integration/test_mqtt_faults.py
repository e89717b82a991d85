"""What the MQTT link does when the network fails."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest

from edgemw.core.errors import LinkError
from edgemw.transport.broker import Broker
from edgemw.transport.link import Down, Received
from edgemw.transport.mqtt import MqttLink, MqttSettings
from tests.contract.test_link_kinds import next_down, next_event, next_received, next_up, run
from tests.support.faultproxy import FaultProxy

PAYLOAD = bytes(1000)


def settings(url: str, client_id: str, **changes: Any) -> MqttSettings:
    """Settings that reconnect fast."""
    base = MqttSettings(url=url, client_id=client_id, reconnect_min_s=0.02, reconnect_max_s=0.2, flush_s=0.5)
    return dataclasses.replace(base, **changes)


async def settled(proxy: FaultProxy, at_least: int = 0) -> int:
    """Bytes that went up, once there are that many and no more follow for a while."""
    await proxy.up.reached(at_least)
    before = -1
    while before != proxy.up.passed_bytes:
        before = proxy.up.passed_bytes
        await asyncio.sleep(0.1)
    return before


@pytest.mark.parametrize("protocol", [5, 4])
def test_pitfall_1_a_backlog_never_exceeds_the_window_even_after_a_reconnect(mosquitto: Broker, protocol: int) -> None:
    count, window = 500, 20

    async def scenario() -> None:
        async with (
            FaultProxy(mosquitto.port) as proxy,
            MqttLink(settings(proxy.url, f"flood{protocol}", protocol=protocol)) as link,
        ):
            events = link.events()
            await next_up(events)
            proxy.down.swallow()  # no acknowledgement comes back
            before = await settled(proxy)
            tasks = [asyncio.ensure_future(link.publish("flood", PAYLOAD)) for _ in range(count)]
            first_flight = await settled(proxy, before + window * len(PAYLOAD)) - before
            assert first_flight <= window * (len(PAYLOAD) + 20)
            proxy.cut()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(outcome, LinkError) for outcome in outcomes)
            proxy.down.release()
            await next_up(events)
            await link.publish("flood", b"all is well")
            before = await settled(proxy)
            assert before < 1.5 * first_flight  # nothing was sent again behind our back
            proxy.down.swallow()
            tasks = [asyncio.ensure_future(link.publish("flood", PAYLOAD)) for _ in range(count)]
            assert await settled(proxy, before + window * len(PAYLOAD)) - before <= window * (len(PAYLOAD) + 20)
            proxy.down.release()
            await asyncio.gather(*tasks)

    run(scenario())


def test_the_window_in_bytes_holds_large_publications_back(mosquitto: Broker) -> None:
    async def scenario() -> None:
        async with FaultProxy(mosquitto.port) as proxy, MqttLink(settings(proxy.url, "bytes", window_bytes=256 * 1024)) as link:
            await next_up(link.events())
            proxy.down.swallow()
            before = await settled(proxy)
            tasks = [asyncio.ensure_future(link.publish("bulk", bytes(100_000))) for _ in range(10)]
            assert await settled(proxy, before + 200_000) - before <= 256 * 1024
            proxy.down.release()
            await asyncio.gather(*tasks)

    run(scenario())


def test_a_cut_amid_publications_fails_them_and_loses_nothing_that_was_acknowledged(mosquitto: Broker) -> None:
    async def scenario() -> None:
        async with (
            FaultProxy(mosquitto.port) as proxy,
            MqttLink(settings(proxy.url, "cut-sender")) as sender,
            MqttLink(settings(mosquitto.url, "cut-reader")) as reader,
        ):
            await reader.subscribe("cut/+")
            await sender.subscribe("answers")
            proxy.up.rate_bytes_per_s = 200_000
            tasks = [asyncio.ensure_future(sender.publish(f"cut/{number}", PAYLOAD)) for number in range(100)]
            events, incoming = sender.events(), reader.events()
            seen = {(await next_received(incoming)).topic for _ in range(10)}
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            proxy.cut()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            acknowledged = {f"cut/{number}" for number, outcome in enumerate(outcomes) if outcome is None}
            assert 0 < len(acknowledged) < 100
            await next_down(events)
            await next_up(events)
            for number, outcome in enumerate(outcomes):
                if outcome is not None:
                    await sender.publish(f"cut/{number}", PAYLOAD)
            while len(seen) < 100:
                seen.add((await next_received(incoming)).topic)
            await reader.publish("answers", b"all here")  # the subscription of the sender is back
            assert await next_received(events) == Received("answers", b"all here")

    run(scenario())


def test_a_silent_network_is_noticed_within_one_and_a_half_keepalives(mosquitto: Broker) -> None:
    keepalive_s = 2

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        async with FaultProxy(mosquitto.port) as proxy, MqttLink(settings(proxy.url, "silent", keepalive_s=keepalive_s)) as link:
            events = link.events()
            await next_up(events)
            proxy.up.swallow()
            proxy.down.swallow()
            started_s = loop.time()
            down = await next_down(events)
            assert "nothing heard" in down.reason
            assert loop.time() - started_s <= 1.5 * keepalive_s + 0.3
            proxy.up.release()
            proxy.down.release()
            proxy.cut()
            await next_up(events)

    run(scenario())


def test_an_idle_connection_is_kept_up_by_pings(mosquitto: Broker) -> None:
    async def scenario() -> None:
        async with MqttLink(settings(mosquitto.url, "idle", keepalive_s=1)) as link:
            events = link.events()
            await next_up(events)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(3.2):
                    await anext(events)

    run(scenario())


def test_pitfall_15_a_slow_large_arrival_outlasts_the_keepalive(mosquitto: Broker) -> None:
    async def scenario() -> None:
        async with FaultProxy(mosquitto.port) as proxy, MqttLink(settings(proxy.url, "slow", keepalive_s=1)) as link:
            await link.subscribe("slow")
            proxy.down.rate_bytes_per_s = 100_000
            async with MqttLink(settings(mosquitto.url, "slow-sender")) as sender:
                await sender.publish("slow", bytes(350_000))
            assert len((await next_received(link.events())).payload) == 350_000
            assert link.traffic.reconnects == 0

    run(scenario())


def test_a_broker_that_never_acknowledges_is_given_up(mosquitto: Broker) -> None:
    async def scenario() -> None:
        async with FaultProxy(mosquitto.port) as proxy, MqttLink(settings(proxy.url, "owed", ack_timeout_s=0.5)) as link:
            proxy.down.swallow()
            with pytest.raises(LinkError, match="does not acknowledge"):
                await link.publish("owed", b"")

    run(scenario())


def test_a_restart_of_the_broker_heals_by_itself(mosquitto: Broker) -> None:
    async def scenario() -> None:
        async with MqttLink(settings(mosquitto.url, "restart")) as link:
            events = link.events()
            await link.subscribe("restart")
            await next_up(events)
            await asyncio.to_thread(mosquitto.kill)
            await next_down(events)
            await asyncio.to_thread(mosquitto.restart)
            await next_up(events)
            await link.publish("restart", b"back")
            assert (await next_received(events)).payload == b"back"

    run(scenario())


def test_refused_connections_are_reported_and_tried_again(mosquitto: Broker) -> None:
    async def scenario() -> None:
        async with FaultProxy(mosquitto.port) as proxy, MqttLink(settings(proxy.url, "refused")) as link:
            events = link.events()
            await next_up(events)
            await proxy.refuse()
            await next_down(events)
            assert "the connection was refused" in (await next_down(events)).reason
            await proxy.accept()
            await next_up(events)

    run(scenario())


def test_a_broker_that_hangs_on_connect_does_not_hold_up_the_exit(mosquitto: Broker) -> None:
    async def scenario() -> None:
        async with FaultProxy(mosquitto.port) as proxy:
            proxy.up.swallow()
            link = MqttLink(settings(proxy.url, "hang", wait_for_broker=True, connect_timeout_s=0.4))
            async with link:
                assert isinstance(await next_event(link.events()), Down)
            proxy.up.release()

    run(scenario())
