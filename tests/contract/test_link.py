"""The contract of a link: the same promises in memory, on mosquitto (MQTT 5 and 3.1.1) and on amqtt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from edgemw.core.errors import LinkError
from edgemw.transport.link import Down, Link, LinkEvent, Received, Reply, Up, Will
from tests.contract.test_link_kinds import (
    KINDS,
    AnyLink,
    Needs,
    Stage,
    Stages,
    kinds_with,
    next_down,
    next_event,
    next_received,
    next_up,
    run,
)


@pytest.fixture(params=KINDS)
def stage(request: pytest.FixtureRequest, stages: Stages) -> Stage:
    """Every kind, unless a test narrows it down with `needs`."""
    return stages.open(request.param)


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stages]:
    """One broker of each kind for the whole file."""
    with Stages(tmp_path_factory.mktemp("brokers")) as opened:
        yield opened


def needs(*what: Needs) -> pytest.MarkDecorator:
    """Run on the kinds that can do this; `CANNOT` says why the others cannot."""
    return pytest.mark.parametrize("stage", kinds_with(*what), indirect=True)


def test_up_is_the_first_event_and_the_end_ends_the_events(stage: Stage) -> None:
    async def scenario() -> None:
        async with stage.link("a") as link:
            conforming: Link = link
            events = conforming.events()
            assert isinstance(await next_event(events), Up)
        assert [event async for event in events] == [Down("closed")] or [event async for event in link.events()] == []

    run(scenario())


def test_large_ones_that_nobody_acknowledges_arrive_whole_and_in_order(stage: Stage) -> None:
    payloads = [bytes([number]) * 1_000_000 for number in range(8)]

    async def scenario() -> None:
        async with stage.link("a") as sender, stage.link("b") as reader:
            await reader.subscribe(stage.topic("x"))
            events = reader.events()
            await next_up(events)
            sending = asyncio.gather(*(sender.publish(stage.topic("x"), payload, qos=0) for payload in payloads))
            for payload in payloads:
                assert (await next_received(events)).payload == payload
            await sending

    run(scenario())


def test_a_publication_reaches_its_subscribers_unchanged(stage: Stage) -> None:
    payloads = [b"", b"x", bytes(range(256)) * 400]

    async def scenario() -> None:
        async with stage.link("a") as sender, stage.link("b") as reader:
            events = reader.events()
            await reader.subscribe(stage.topic("x"))
            for payload in payloads:
                await sender.publish(stage.topic("x"), payload)
            assert [await next_received(events) for _ in payloads] == [
                Received(stage.topic("x"), payload, retained=False) for payload in payloads
            ]

    run(scenario())


def test_qos_0_arrives_while_both_are_connected(stage: Stage) -> None:
    async def scenario() -> None:
        async with stage.link("a") as link:
            await link.subscribe(stage.topic("x"))
            await link.publish(stage.topic("x"), b"quick", qos=0)
            assert (await next_received(link.events())).payload == b"quick"

    run(scenario())


@pytest.mark.parametrize(
    ("topic_filter", "matching"),
    [("a/+/c", ["a/b/c", "a//c"]), ("a/#", ["a", "a/b", "a/b/c", "a//c"]), ("+/b", ["a/b"]), ("a/b", ["a/b"])],
)
def test_wildcards(stage: Stage, topic_filter: str, matching: list[str]) -> None:
    async def scenario() -> None:
        async with stage.link("a") as link:
            await link.subscribe(stage.topic(topic_filter))
            await link.subscribe(stage.topic("end"))
            for topic in ("a", "a/b", "a/b/c", "a//c", "b", "end"):
                await link.publish(stage.topic(topic), b"")
            events = link.events()
            seen = []
            while (received := await next_received(events)).topic != stage.topic("end"):
                seen.append(received.topic)
            assert sorted(seen) == sorted(stage.topic(topic) for topic in matching)

    run(scenario())


def test_a_retained_message_waits_for_late_subscribers_and_empty_clears_it(stage: Stage) -> None:
    async def scenario() -> None:
        async with stage.link("a") as sender:
            await sender.publish(stage.topic("x"), b"kept", retain=True)
            async with stage.link("b") as reader:
                await reader.subscribe(stage.topic("+"))
                assert await next_received(reader.events()) == Received(stage.topic("x"), b"kept", retained=True)
            await sender.publish(stage.topic("x"), b"", retain=True)
            async with stage.link("c") as later:
                await later.subscribe(stage.topic("+"))
                await later.publish(stage.topic("end"), b"")
                assert (await next_received(later.events())).topic == stage.topic("end")

    run(scenario())


def test_a_filter_that_is_given_back_delivers_no_more(stage: Stage) -> None:
    async def scenario() -> None:
        async with stage.link("a") as link:
            await link.subscribe(stage.topic("x"))
            await link.subscribe(stage.topic("end"))
            await link.unsubscribe(stage.topic("x"))
            await link.publish(stage.topic("x"), b"")
            await link.publish(stage.topic("end"), b"")
            assert (await next_received(link.events())).topic == stage.topic("end")

    run(scenario())


def test_after_a_cut_every_subscription_is_asked_for_again(stage: Stage) -> None:
    topics = [stage.topic(f"n/{number}") for number in range(20)]

    async def scenario() -> None:
        async with stage.link("a") as sender, stage.link("b") as reader:
            events = reader.events()
            for topic in topics:
                await reader.subscribe(topic)
            await next_up(events)
            reader.cut()
            assert isinstance(await next_event(events), Down)
            assert isinstance(await next_event(events), Up)
            await reader.publish(stage.topic("barrier"), b"")  # the broker has seen what was asked before
            for topic in topics:
                await sender.publish(topic, b"")
            assert {(await next_received(events)).topic for _ in topics} == set(topics)
            assert reader.traffic.reconnects == 1

    run(scenario())


def test_a_filter_given_back_while_away_stays_given_back(stage: Stage) -> None:
    async def scenario() -> None:
        async with stage.link("a") as link:
            events = link.events()
            await link.subscribe(stage.topic("x"))
            await next_up(events)
            link.cut()
            await next_down(events)
            await link.unsubscribe(stage.topic("x"))
            await link.subscribe(stage.topic("end"))
            await next_up(events)
            await link.publish(stage.topic("barrier"), b"")
            await link.publish(stage.topic("x"), b"")
            await link.publish(stage.topic("end"), b"")
            assert (await next_received(events)).topic == stage.topic("end")

    run(scenario())


def test_pitfall_8_a_node_that_was_away_gets_what_it_missed(stage: Stage) -> None:
    async def scenario() -> None:
        async with stage.link("a") as sender:
            async with stage.link("b") as reader:
                await reader.subscribe(stage.topic("x"))
            for number in range(10):
                await sender.publish(stage.topic("x"), bytes([number]))
            async with stage.link("b") as returned:
                events = returned.events()
                assert isinstance(await next_event(events), Up)
                assert {(await next_received(events)).payload for _ in range(10)} == {bytes([n]) for n in range(10)}

    run(scenario())


def test_what_is_asked_for_at_the_moment_of_a_cut_waits_for_nobody(stage: Stage) -> None:
    async def scenario() -> None:
        async with stage.link("a") as link:
            events = link.events()
            await next_up(events)
            await link.subscribe(stage.topic("old"))
            link.cut()
            await link.subscribe(stage.topic("new"))
            await link.unsubscribe(stage.topic("old"))
            await next_up(events)
            for name in ("old", "new"):
                await link.publish(stage.topic(name), b"after")
            assert (await next_received(events)).topic == stage.topic("new")

    run(scenario())


@needs(Needs.REDELIVERY)
def test_what_the_reader_had_in_hand_is_delivered_again_after_a_cut(stage: Stage) -> None:
    async def scenario() -> None:
        async with stage.link("a") as link:
            events = link.events()
            await link.subscribe(stage.topic("x"))
            await link.publish(stage.topic("x"), b"once or twice")
            first = await next_received(events)
            link.cut()
            assert await next_received(events) == first

    run(scenario())


def test_the_will_is_published_after_a_cut_and_kept(stage: Stage) -> None:
    async def scenario() -> None:
        async with stage.link("watcher") as watcher:
            await watcher.subscribe(stage.topic("st"))
            async with stage.link("a", will=Will(stage.topic("st"), b"lost")) as link:
                events = link.events()
                await next_up(events)
                link.cut()
                assert (await next_received(watcher.events())).payload == b"lost"
                await next_up(events)
            async with stage.link("late") as late:
                await late.subscribe(stage.topic("st"))
                assert await next_received(late.events()) == Received(stage.topic("st"), b"lost", retained=True)

    run(scenario())


@needs(Needs.OWN_ONLY)
def test_a_clean_goodbye_publishes_no_will(stage: Stage) -> None:
    async def scenario() -> None:
        async with stage.link("watcher") as watcher:
            await watcher.subscribe(stage.topic("#"))
            async with stage.link("a", will=Will(stage.topic("st"), b"lost")):
                pass
            await watcher.publish(stage.topic("end"), b"")
            assert (await next_received(watcher.events())).topic == stage.topic("end")

    run(scenario())


def test_whoever_is_cut_short_leaves_without_a_goodbye_so_that_the_will_is_published(stage: Stage) -> None:
    async def cut_short() -> None:
        async with stage.link("a", will=Will(stage.topic("st"), b"lost")) as link:
            await link.publish(stage.topic("st"), b"online", retain=True)
            asyncio.current_task().cancel()  # type: ignore[union-attr]  # a coroutine runs in a task
            await asyncio.sleep(0)

    async def scenario() -> None:
        async with stage.link("watcher") as watcher:
            events = watcher.events()
            await watcher.subscribe(stage.topic("st"))
            await asyncio.wait([asyncio.ensure_future(cut_short())])
            while (await next_received(events)).payload != b"lost":
                pass
        async with stage.link("late") as late:
            await late.subscribe(stage.topic("st"))
            assert (await next_received(late.events())).payload == b"lost"

    run(scenario())


def test_publishing_while_down_is_an_error_and_works_after_up(stage: Stage) -> None:
    async def scenario() -> None:
        async with stage.link("a") as link:
            events = link.events()
            await next_up(events)
            await stage.stop()
            await next_down(events)
            with pytest.raises(LinkError):
                await link.publish(stage.topic("x"), b"")
            await stage.start()
            await next_up(events)
            await link.subscribe(stage.topic("x"))
            await link.publish(stage.topic("x"), b"back")
            assert (await next_received(events)).payload == b"back"

    run(scenario())


@needs(Needs.LASTING_RETAINED)
def test_retained_messages_survive_a_restart_of_the_broker(stage: Stage) -> None:
    async def scenario() -> None:
        async with stage.link("a") as link:
            await link.publish(stage.topic("x"), b"kept", retain=True)
        await stage.stop()
        await stage.start()
        async with stage.link("b") as reader:
            await reader.subscribe(stage.topic("x"))
            assert (await next_received(reader.events())).payload == b"kept"

    run(scenario())


def test_without_a_broker_opening_is_an_error(stage: Stage) -> None:
    async def scenario() -> None:
        await stage.stop()
        with pytest.raises(LinkError, match="refused"):
            await stage.link("a").__aenter__()

    run(scenario())


def test_a_node_may_start_before_its_broker(stage: Stage) -> None:
    async def scenario() -> None:
        await stage.stop()
        async with stage.link("a", wait_for_broker=True) as link:
            events = link.events()
            assert isinstance(await next_event(events), Down)
            await link.subscribe(stage.topic("x"))
            await stage.start()
            await next_up(events)
            await link.publish(stage.topic("x"), b"at last")
            assert (await next_received(events)).payload == b"at last"

    run(scenario())


@needs(Needs.LIMITS)
def test_pitfall_7_an_oversized_packet_is_refused_here_and_harms_nothing(stage: Stage) -> None:
    async def scenario() -> None:
        async with stage.link("a") as link:
            events = link.events()
            await link.subscribe(stage.topic("x"))
            assert (await next_up(events)).limits.max_packet_bytes == 2_000_000
            with pytest.raises(LinkError, match="larger than the broker takes"):
                await link.publish(stage.topic("x"), bytes(2_000_000))
            await link.publish(stage.topic("x"), b"small")
            assert (await next_event(events)) == Received(stage.topic("x"), b"small")
            assert link.traffic.reconnects == 0

    run(scenario())


@needs(Needs.EXPIRY)
def test_an_expired_publication_is_not_delivered(stage: Stage) -> None:
    async def scenario() -> None:
        async with stage.link("a") as sender:
            async with stage.link("b") as reader:
                await reader.subscribe(stage.topic("x"))
            await sender.publish(stage.topic("x"), b"stale", expiry_s=1)
            await sender.publish(stage.topic("x"), b"lasting", expiry_s=600)
            await asyncio.sleep(2.1)  # brokers count whole seconds
            async with stage.link("b") as returned:
                assert (await next_received(returned.events())).payload == b"lasting"

    run(scenario())


@pytest.mark.parametrize("reply", [Reply("a/b", b"\0\xff7"), Reply("a/b"), Reply("", b"7"), None])
def test_where_an_answer_is_wanted_goes_along_where_mqtt_5_is_spoken(stage: Stage, reply: Reply | None) -> None:
    async def scenario() -> None:
        async with stage.link("a") as link:
            events = link.events()
            await link.subscribe(stage.topic("x"))
            level = (await next_up(events)).limits.protocol
            await link.publish(stage.topic("x"), b"what?", qos=0, reply=reply)
            assert await next_received(events) == Received(stage.topic("x"), b"what?", reply=reply if level == 5 else None)

    run(scenario())


@pytest.mark.parametrize("topic", ["", "a/+", "a/#", "nul\0"])
def test_a_malformed_topic_is_refused(stage: Stage, topic: str) -> None:
    async def scenario() -> None:
        async with stage.link("a") as link:
            with pytest.raises(LinkError, match="topic"):
                await link.publish(topic, b"")

    run(scenario())


@pytest.mark.parametrize("topic_filter", ["", "a/b+", "a/#/b", "a#"])
def test_a_malformed_filter_is_refused(stage: Stage, topic_filter: str) -> None:
    async def scenario() -> None:
        async with stage.link("a") as link:
            with pytest.raises(LinkError, match="filter"):
                await link.subscribe(topic_filter)

    run(scenario())


def test_a_publication_larger_than_the_window_goes_alone(stage: Stage) -> None:
    async def scenario() -> None:
        async with stage.link("a", window_bytes=4096) as link:
            await link.subscribe(stage.topic("x"))
            async with asyncio.TaskGroup() as group:
                for size in (10, 50_000, 10, 50_000, 10):
                    group.create_task(link.publish(stage.topic("x"), bytes(size)))
            events = link.events()
            assert sorted([len((await next_received(events)).payload) for _ in range(5)]) == [10, 10, 10, 50_000, 50_000]

    run(scenario())


async def publish_until_taken(link: AnyLink, topic: str, payload: bytes, up: asyncio.Event) -> None:
    """What a caller does who must not lose a publication."""
    while True:
        await up.wait()
        try:
            return await link.publish(topic, payload)
        except LinkError:
            await asyncio.sleep(0)


async def keep_up_to_date(link: AnyLink, up: asyncio.Event) -> None:
    """Read the events of a link into a flag."""
    async for event in link.events():
        if isinstance(event, Up):
            up.set()
        elif isinstance(event, Down):
            up.clear()


def test_with_a_caller_who_repeats_nothing_is_lost_across_cuts(stage: Stage) -> None:
    count = 120

    async def scenario() -> None:
        seen: set[bytes] = set()
        cuts_at = [20, 60, 90]
        up = asyncio.Event()
        async with stage.link("a", window_bytes=8192) as sender, stage.link("b") as reader, asyncio.TaskGroup() as watching:
            await reader.subscribe(stage.topic("x"))
            watcher = watching.create_task(keep_up_to_date(sender, up))
            async with asyncio.TaskGroup() as sending:
                for number in range(count):
                    payload = number.to_bytes(4, "big") + bytes(1000)
                    sending.create_task(publish_until_taken(sender, stage.topic("x"), payload, up))
                events = reader.events()
                while len(seen) < count:
                    seen.add((await next_received(events)).payload[:4])
                    if cuts_at and len(seen) >= cuts_at[0]:
                        cuts_at.pop(0)
                        sender.cut()
            watcher.cancel()
        assert sender.traffic.reconnects >= 1  # a cut while it is away counts for nothing

    run(scenario())


def test_traffic_counts_exact_packets(stage: Stage) -> None:
    async def scenario() -> None:
        async with stage.link("a") as sender, stage.link("b") as reader:
            topic = stage.topic("x")
            await reader.subscribe(topic)
            await sender.publish(topic, bytes(1000))
            await sender.publish(topic, bytes(10), qos=0)
            events = reader.events()
            for _ in range(2):
                await next_received(events)
            properties = 1 if stage.kind in ("memory", "mosquitto-5") else 0
            large = 1 + 2 + 2 + len(topic) + 2 + properties + 1000
            small = 1 + 1 + 2 + len(topic) + properties + 10
            aliased = 3 + 3 - len(topic) if stage.kind == "mosquitto-5" else 0  # said once, a number of 3 bytes in both
            assert (sender.traffic.sent_bytes, sender.traffic.sent_messages) == (large + small + aliased, 2)
            assert reader.traffic.received_messages == 2
            # amqtt delivers QoS 0 at the QoS of the subscription, with a packet id
            assert reader.traffic.received_bytes == large + small + (2 if stage.kind == "amqtt" else 0)

    run(scenario())


@needs(Needs.REDELIVERY)
def test_a_reader_that_was_behind_gets_everything_in_the_end(stage: Stage) -> None:
    count = 60

    async def scenario() -> None:
        async with stage.link("a") as sender, stage.link("b", queue_size=5) as reader:
            events = reader.events()
            await reader.subscribe(stage.topic("x"))
            async with asyncio.TaskGroup() as group:
                for number in range(count):
                    group.create_task(sender.publish(stage.topic("x"), bytes([number])))
            seen: set[int] = set()
            while len(seen) < count:
                seen.add((await next_received(events)).payload[0])
            assert reader.traffic.dropped > 0

    run(scenario())


def test_a_reader_may_publish_while_it_handles_an_event(stage: Stage) -> None:
    async def scenario() -> None:
        async with stage.link("a") as asker, stage.link("b") as answerer:
            await answerer.subscribe(stage.topic("ask"))
            await asker.subscribe(stage.topic("answer"))

            async def answer() -> None:
                async for event in answerer.events():
                    if isinstance(event, Received):
                        await answerer.publish(stage.topic("answer"), event.payload)

            async with asyncio.TaskGroup() as group:
                task = group.create_task(answer())
                events = asker.events()
                for number in range(5):
                    await asker.publish(stage.topic("ask"), bytes([number]))
                    assert (await next_received(events)).payload == bytes([number])
                task.cancel()

    run(scenario())


def test_an_exception_in_the_body_comes_out_as_it_is(stage: Stage) -> None:
    async def scenario() -> None:
        with pytest.raises(KeyError):
            async with stage.link("a"):
                raise KeyError("mine")

    run(scenario())


def test_what_is_published_at_once_arrives_in_order_or_has_to_be_awaited(stage: Stage) -> None:
    async def scenario() -> None:
        async with stage.link("a") as link:
            await link.subscribe(stage.topic("x"))
            events = link.events()
            await next_up(events)
            for number in range(20):
                if not link.publish_at_once(stage.topic("x"), str(number).encode()):
                    await link.publish(stage.topic("x"), str(number).encode(), qos=0)
            assert [(await next_received(events)).payload for _ in range(20)] == [str(number).encode() for number in range(20)]

    run(scenario())


def test_an_arrival_that_is_dealt_with_first_is_no_event(stage: Stage) -> None:
    async def scenario() -> None:
        dealt_with: asyncio.Queue[bytes] = asyncio.Queue()
        came: asyncio.Queue[bytes] = asyncio.Queue()

        async def read(events: AsyncIterator[LinkEvent]) -> None:
            async for event in events:
                if isinstance(event, Received):
                    came.put_nowait(event.payload)

        def look(received: Received) -> bool:
            if received.payload.startswith(b"now"):
                dealt_with.put_nowait(received.payload)
                return True
            return False

        async with stage.link("a") as link:
            await link.subscribe(stage.topic("x"))
            events = link.events()
            await next_up(events)
            link.look_first(look)
            reading = asyncio.ensure_future(read(events))  # who waits for the next event is done with the one before
            for qos in (0, 1):
                await link.publish(stage.topic("x"), b"now %d" % qos, qos=qos)
                assert await dealt_with.get() == b"now %d" % qos
                await link.publish(stage.topic("x"), b"later", qos=qos)
                assert await came.get() == b"later"
        await reading

    run(scenario())
