"""A broker that refuses a service one of its topics, which it can do without."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from edgemw.app.answering import MqttDoor, answer_questions
from edgemw.app.settings import Broker
from tests.contract.test_link_kinds import run
from tests.integration.test_mqtt_pitfalls import CONNACK_5

PUBLISH, SUBSCRIBE = 3, 8
GRANTED, NOT_AUTHORISED = 1, 0x87


def packets(data: bytearray) -> Iterator[bytes]:
    """Whole packets of less than 128 bytes, taken out."""
    while len(data) > 1 and len(data) >= 2 + data[1]:
        packet = bytes(data[: 2 + data[1]])
        del data[: len(packet)]
        yield packet


def test_a_service_that_may_not_hear_itself_answers_all_the_same() -> None:
    answered = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(CONNACK_5)
        topic = b"em1/net/server/pq/asker/digits"
        data, question = bytearray(), bytes([0x30, 3 + len(topic), 0, len(topic)]) + topic + b"\x00"
        while part := await reader.read(1000):
            data += part
            for packet in packets(data):
                if packet[0] >> 4 == SUBSCRIBE:
                    refused = b"/pa/" in packet
                    writer.write(b"\x90\x04" + packet[2:4] + bytes([0, NOT_AUTHORISED if refused else GRANTED]))
                    writer.write(question if refused else b"")
                elif packet[0] >> 4 == PUBLISH:
                    assert b"/pq/" not in packet  # where it cannot hear the answer it does not ask
        writer.close()

    async def scenario() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            url = f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            door = MqttDoor(Broker(url=url), "net", "server", {})
            service = asyncio.ensure_future(answer_questions(door, lambda *_: answered.set(), {}))
            waiting = asyncio.ensure_future(answered.wait())
            await asyncio.wait([service, waiting], return_when=asyncio.FIRST_COMPLETED)
            assert not service.done()
            service.cancel()
            await asyncio.wait([service])

    run(scenario())
