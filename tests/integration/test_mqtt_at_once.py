"""What goes past paho: publications that arrive many at a time, and those at QoS 0 that a socket does not take at once."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest

from edgemw.core.errors import LinkError
from edgemw.transport.link import Down
from edgemw.transport.mqtt import MqttLink
from tests.contract.test_link_kinds import next_event, next_received, next_up, run
from tests.integration.test_mqtt_pitfalls import CONNACK_4, CONNACK_5, scripted_broker, settings

LARGE = bytes(8_000_000)
Then = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def accepting_broker(then: Then) -> AsyncIterator[str]:
    """A server that accepts whoever connects, and reads no further; then it does what it is told, once for each."""

    serving: list[asyncio.Task[None] | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.append(asyncio.current_task())
        await reader.read(1000)
        writer.write(CONNACK_4)
        try:
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await then(reader, writer)
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1000)
    try:
        yield f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in serving:
            if task is not None:
                task.cancel()
        await asyncio.gather(*(task for task in serving if task is not None))


def reads_after(begin: asyncio.Event, came: asyncio.Queue[int]) -> Then:
    """Reads only then, and says how many bytes came."""

    async def late(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await begin.wait()
        total = 0
        while part := await reader.read(1 << 20):
            total += len(part)
        came.put_nowait(total)

    return late


@pytest.mark.parametrize("count", [7, 20_000])
def test_whoever_keeps_up_misses_nothing_of_a_burst(count: int) -> None:
    burst = b"".join(b"\x30\x05\x00\x01x" + struct.pack(">H", number) for number in range(count))

    async def scenario() -> None:
        async with scripted_broker(lambda _: [CONNACK_4, burst]) as url, MqttLink(settings(url)) as link:
            events = link.events()
            for number in range(count):
                assert (await next_received(events)).payload == struct.pack(">H", number)
            assert link.traffic.dropped == 0

    run(scenario())


def test_publishing_is_over_when_the_socket_has_all_and_closing_waits_for_it() -> None:
    begin, came = asyncio.Event(), asyncio.Queue[int]()

    async def scenario() -> None:
        async with accepting_broker(reads_after(begin, came)) as url:
            async with MqttLink(replace(settings(url), flush_s=10)) as link:
                await next_up(link.events())
                first = asyncio.ensure_future(link.publish("a", LARGE, qos=0))
                second = asyncio.ensure_future(link.publish("a", b"x", qos=0))
                done, _ = await asyncio.wait([first, second], timeout=0.3)
                assert not done
                begin.set()
                await asyncio.gather(first, second)
                third = asyncio.ensure_future(link.publish("a", LARGE, qos=0))
                await asyncio.sleep(0)
                assert not third.done()
            await third
            assert await came.get() > 2 * len(LARGE)

    run(scenario())


def test_a_socket_that_takes_no_more_ends_the_connection_and_the_publication() -> None:
    async def never(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async def scenario() -> None:
        async with accepting_broker(never) as url, MqttLink(replace(settings(url), ack_timeout_s=0.5)) as link:
            events = link.events()
            await next_up(events)
            with pytest.raises(LinkError, match="does not acknowledge"):
                await link.publish("a", LARGE, qos=0)
            assert isinstance(await next_event(events), Down)

    run(scenario())


def test_a_connection_that_was_lost_is_said_to_who_publishes() -> None:
    is_up, gone = asyncio.Event(), asyncio.Event()

    async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await is_up.wait()
        raw: socket.socket = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        gone.set()

    async def scenario() -> None:
        async with accepting_broker(reset) as url, MqttLink(settings(url)) as link:
            await next_up(link.events())
            is_up.set()
            await gone.wait()
            with pytest.raises(LinkError):
                await link.publish("a", b"x", qos=0)

    run(scenario())


def test_a_packet_larger_than_was_asked_for_ends_the_connection() -> None:
    def answer(number: int) -> list[bytes]:
        return [CONNACK_5, b"\x30\xff\xff\xff\x7f" if number == 1 else b"\x30\x05\x00\x01x\x00y"]

    async def scenario() -> None:
        async with scripted_broker(answer) as url, MqttLink(settings(url, protocol=5)) as link:
            events = link.events()
            await next_up(events)
            down = await next_event(events)
            assert isinstance(down, Down)
            assert "asked for" in down.reason
            assert (await next_received(events)).payload == b"y"

    run(scenario())


def test_nothing_goes_before_what_a_socket_has_not_taken_and_closing_waits_for_it() -> None:
    begin, came = asyncio.Event(), asyncio.Queue[int]()

    async def scenario() -> None:
        async with accepting_broker(reads_after(begin, came)) as url:
            async with MqttLink(replace(settings(url), flush_s=10)) as link:
                await next_up(link.events())
                assert link.publish_at_once("a", LARGE)
                assert not link.publish_at_once("a", b"x")
                assert link.traffic.sent_messages == 1
                begin.set()
            assert await came.get() > len(LARGE)

    run(scenario())


def test_a_publication_at_once_that_is_lost_with_its_connection_is_nobodys_error(caplog: pytest.LogCaptureFixture) -> None:
    async def never(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async def scenario() -> None:
        async with accepting_broker(never) as url, MqttLink(settings(url)) as link:
            events = link.events()
            await next_up(events)
            assert link.publish_at_once("a", LARGE)
            link.cut()
            assert isinstance(await next_event(events), Down)
            with pytest.raises(LinkError, match="not connected"):
                link.publish_at_once("a", b"x")

    run(scenario())
    gc.collect()
    assert "never retrieved" not in caplog.text


def test_what_is_larger_than_the_broker_takes_is_not_published_at_once_either() -> None:
    connack = b"\x20\x08\x00\x00\x05\x27" + struct.pack(">I", 1000)

    async def scenario() -> None:
        async with scripted_broker(lambda _: [connack]) as url, MqttLink(settings(url, protocol=5)) as link:
            await next_up(link.events())
            assert not link.publish_at_once("a", bytes(1000))
            with pytest.raises(LinkError, match="larger than the broker takes"):
                await link.publish("a", bytes(1000), qos=0)
            assert link.publish_at_once("a", bytes(900))

    run(scenario())
