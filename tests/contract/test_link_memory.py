"""The faults that a memory broker can be asked for; what it promises as a link is in the contract suite."""

from __future__ import annotations

import asyncio

import pytest

from edgemw.core.errors import LinkError
from edgemw.transport.link import Down, Received, Up, Will
from edgemw.transport.memory import MemoryBroker, MemoryLink
from tests.contract.test_link_kinds import next_down, next_event, next_received, next_up, run


def test_duplicates() -> None:
    async def scenario() -> None:
        broker = MemoryBroker()
        broker.duplicate = True
        async with MemoryLink(broker, "a") as link:
            await link.subscribe("x")
            await link.publish("x", b"twice")
            events = link.events()
            assert await next_received(events) == await next_received(events) == Received("x", b"twice")

    run(scenario())


def test_an_acknowledgement_lost_with_the_connection_makes_the_caller_repeat() -> None:
    async def scenario() -> None:
        broker = MemoryBroker()
        broker.hold_acknowledgements = True
        async with MemoryLink(broker, "a") as sender, MemoryLink(broker, "b") as reader:
            await reader.subscribe("x")
            sending = asyncio.ensure_future(sender.publish("x", b"1"))
            await next_received(reader.events())
            broker.cut("a")
            with pytest.raises(LinkError):
                await sending
            broker.hold_acknowledgements = False
            await next_down(sender.events())
            await next_up(sender.events())
            await sender.publish("x", b"1")
            assert (await next_received(reader.events())).payload == b"1"

    run(scenario())


def test_the_window_holds_back_until_acknowledgements_come() -> None:
    async def scenario() -> None:
        broker = MemoryBroker()
        broker.hold_acknowledgements = True
        async with MemoryLink(broker, "a", window_bytes=5000) as link:
            sending = [asyncio.ensure_future(link.publish("x", bytes(1000))) for _ in range(10)]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert link.traffic.sent_messages == 4
            broker.hold_acknowledgements = False
            broker.release_acknowledgements()
            await asyncio.gather(*sending)
            assert link.traffic.sent_messages == 10

    run(scenario())


def test_a_blocked_client_stays_away_and_its_will_goes_out() -> None:
    async def scenario() -> None:
        broker = MemoryBroker()
        async with MemoryLink(broker, "a", will=Will("st/a", b"lost")) as link:
            events = link.events()
            await next_up(events)
            broker.block("a")
            await next_down(events)
            assert broker.retained("st/a") == b"lost"
            with pytest.raises(LinkError, match="not connected"):
                await link.publish("x", b"")
            broker.unblock("a")
            await next_up(events)

    run(scenario())


def test_a_stopped_broker_keeps_sessions_and_retained_messages() -> None:
    async def scenario() -> None:
        broker = MemoryBroker()
        async with MemoryLink(broker, "a") as link:
            events = link.events()
            await link.publish("x", b"kept", retain=True)
            broker.stop()
            assert isinstance(await next_event(events), Up | Down)
            broker.start()
            await next_up(events)
            await link.subscribe("x")
            assert await next_received(events) == Received("x", b"kept", retained=True)

    run(scenario())


def test_a_denied_publication_and_a_shared_subscription_are_refused() -> None:
    async def scenario() -> None:
        broker = MemoryBroker()
        broker.deny("secret/#")
        async with MemoryLink(broker, "a") as link:
            with pytest.raises(LinkError, match="Not authorized"):
                await link.publish("secret/x", b"")
            with pytest.raises(LinkError, match="shared"):
                await link.subscribe("$share/g/x")
            await link.publish("public", b"")

    run(scenario())


def test_the_queue_of_a_sleeping_client_is_bounded_and_says_so() -> None:
    async def scenario() -> None:
        broker = MemoryBroker(max_queued_messages=3)
        async with MemoryLink(broker, "sleeper") as sleeper:
            await sleeper.subscribe("x")
        async with MemoryLink(broker, "a") as link:
            for _ in range(5):
                await link.publish("x", b"")
        assert broker.dropped == 2

    run(scenario())


def test_a_second_link_with_the_same_id_takes_the_session_over() -> None:
    async def scenario() -> None:
        broker = MemoryBroker()
        async with MemoryLink(broker, "a") as first:
            events = first.events()
            await next_up(events)
            connection = MemoryLink(broker, "a")
            async with connection:
                assert "taken over" in (await next_down(events)).reason
                broker.block("a")

    run(scenario())


def test_a_session_that_does_not_last_forgets() -> None:
    async def scenario() -> None:
        broker = MemoryBroker()
        async with MemoryLink(broker, "a", is_persistent=False) as link:
            await link.subscribe("x")
        async with MemoryLink(broker, "b") as sender:
            await sender.publish("x", b"missed")
            async with MemoryLink(broker, "a", is_persistent=False) as link:
                await link.subscribe("y")
                await sender.publish("y", b"seen")
                assert (await next_received(link.events())).payload == b"seen"

    run(scenario())
