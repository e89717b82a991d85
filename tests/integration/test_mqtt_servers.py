"""A link that knows several servers: one that is lost is followed by another."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Self

import pytest

from edgemw.core.errors import LinkError
from edgemw.transport import reconnecting
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


class Moody:
    """A server of MQTT 3.1.1 that answers SUBSCRIBE with what it was told to, in turn: 1 grants, 0x80 refuses."""

    def __init__(self, *answers: int) -> None:
        self._answers = list(answers)
        self._writer: asyncio.StreamWriter | None = None
        self._served: list[asyncio.Task[None] | None] = []
        self.all_said = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._listening = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"mqtt://127.0.0.1:{self._listening.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._listening.close()
        await asyncio.gather(*filter(None, self._served))

    def hang_up(self) -> None:
        assert self._writer is not None
        self._writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._served.append(asyncio.current_task())
        try:
            while True:
                kind, length = await reader.readexactly(2)
                body = await reader.readexactly(length)
                if kind >> 4 == 1:
                    writer.write(b"\x20\x02\x00\x00")
                elif kind >> 4 == 8:
                    writer.write(b"\x90\x03" + body[:2] + bytes([self._answers.pop(0)]))
                    if not self._answers:
                        self.all_said.set()
        except asyncio.IncompleteReadError:
            writer.close()


def test_what_was_granted_and_is_refused_after_a_reconnect_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconnecting, "ASK_AGAIN_S", 0.02)

    async def scenario() -> None:
        async with Moody(1, 0x80, 0x80, 1) as server, MqttLink(settings(server.url, "patient", protocol=4)) as link:
            events = link.events()
            await next_up(events)
            await link.subscribe("em1/#")
            server.hang_up()
            await next_up(events)
            await server.all_said.wait()

    run(scenario())


def test_what_was_never_granted_is_an_error_at_once() -> None:
    async def scenario() -> None:
        async with Moody(0x80) as server, MqttLink(settings(server.url, "hopeful", protocol=4)) as link:
            with pytest.raises(LinkError, match="refused a topic filter"):
                await link.subscribe("em1/#")

    run(scenario())
