"""A link that knows several servers: one that is lost is followed by another."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from edgemw.core.errors import LinkError
from edgemw.transport.broker import Broker, start_broker
from edgemw.transport.link import Up
from edgemw.transport.mqtt import MqttLink
from tests.contract.test_link_kinds import next_down, next_received, next_up, run
from tests.integration.test_mqtt_faults import settings


@pytest.fixture
def servers(has_mosquitto: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Broker]]:
    """Three brokers by their addresses."""
    started = [start_broker("mosquitto", tmp_path_factory.mktemp(f"server{i}")) for i in range(3)]
    yield {broker.url: broker for broker in started}
    for broker in started:
        broker.stop()


def test_a_link_goes_on_with_another_server_each_time_that_one_is_killed(servers: dict[str, Broker]) -> None:
    async def scenario() -> None:
        async with MqttLink(settings(",".join(servers), "mover")) as link:
            events, been = link.events(), list[str]()
            await link.subscribe("em1/#")
            while True:
                up: Up = await next_up(events)
                been.append(up.where)
                await link.publish("em1/x", up.where.encode())
                assert (await next_received(events)).payload == up.where.encode()
                if len(been) == len(servers):
                    break
                servers[up.where].kill()
                await next_down(events)
            assert set(been) == set(servers)
            servers[been[0]].start()
            servers[been[-1]].kill()
            assert (await next_up(events)).where == been[0]

    run(scenario())


def test_where_some_servers_are_down_the_first_connection_is_to_one_that_is_not(servers: dict[str, Broker]) -> None:
    *others, last = servers
    for url in others:
        servers[url].stop()

    async def scenario() -> None:
        for client_id in ("a", "b", "c", "d"):  # they begin at other places of the list
            async with MqttLink(settings(",".join(servers), client_id)) as link:
                assert (await next_up(link.events())).where == last

    run(scenario())


def test_where_no_server_answers_each_is_named(servers: dict[str, Broker]) -> None:
    for broker in servers.values():
        broker.stop()

    async def scenario() -> None:
        with pytest.raises(LinkError) as caught:
            await MqttLink(settings(",".join(servers), "nobody")).__aenter__()
        assert all(f"{url} (the connection was refused)" in caught.value.where for url in servers)

    run(scenario())
