"""The channel over a link in memory: updates and blobs arrive once, whatever is lost, repeated, reordered or forged."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from edgemw.core.encoded import Section
from edgemw.core.ids import Place
from edgemw.transport.channel import MAX_ANSWERING, Channel, ChannelLimits
from edgemw.transport.link import Received, Up
from edgemw.transport.memory import MemoryBroker, MemoryLink
from edgemw.transport.publishing import CHUNKS_AT_ONCE
from edgemw.wire import publication, topics
from edgemw.wire.chunks import blob_of, cut
from edgemw.wire.fetching import AHEAD, MAX_ACTIVE
from edgemw.wire.messages import (
    Ack,
    Blob,
    Chunk,
    Frame,
    Grant,
    Message,
    Offer,
    Outcome,
    Presence,
    StatusRequest,
    Update,
    pack,
)
from edgemw.wire.traffic import Arrived, Emitted, Fetch, Fetched, PublishBlob, Published, Retire, Send, Upload

NET, TASK = "net", "toy"
SMALL = ChannelLimits(update_bytes=200_000, blob_bytes=200_000, chunk_bytes=1024, held_bytes=200_000)
UP = topics.build(NET, "fog", "update", node="device", task=TASK)
REPLY = topics.build(NET, "fog", "reply", node="device", task=TASK)
DEVICE, FOG = Place(NET, "device", "fog", 1), Place(NET, "fog", "", 1)
Spawn = Callable[[Coroutine[Any, Any, None]], None]


class Peer:
    """A node with nothing but a link and a channel. `spoil` stands between them: it gives what really arrives."""

    def __init__(self, broker: MemoryBroker, place: Place, limits: ChannelLimits, spawn: Spawn) -> None:
        self.place = place
        self.link = MemoryLink(broker, place.node, wait_for_broker=True)
        self.events: list[Emitted] = []
        self.channel = Channel(self.link, place, limits, self.events.append, spawn)
        self.spoil: Callable[[Received], list[Received]] = lambda received: [received]

    async def listen(self) -> None:
        async for event in self.link.events():
            match event:
                case Up():
                    await self.channel.refresh()
                case Received():
                    for received in self.spoil(event):
                        await self.channel.receive(received.topic, received.payload)

    @property
    def messages(self) -> list[Message]:
        """The messages that arrived."""
        return [event.frame.message for event in self.events if isinstance(event, Arrived)]

    @property
    def fetched(self) -> list[bytes]:
        """The blobs that arrived."""
        return [event.data for event in self.events if isinstance(event, Fetched)]

    def frame(self, message: Message, *, seq: int = 0, task: str = TASK) -> Frame:
        return Frame(task, self.place.node, self.place.boot, seq, message)


class Net:
    """A broker, a fog node and a device under it."""

    def __init__(self, group: asyncio.TaskGroup, limits: ChannelLimits) -> None:
        self.broker = MemoryBroker()
        self._group = group
        self.fog = Peer(self.broker, FOG, limits, self._spawn)
        self.device = Peer(self.broker, DEVICE, limits, self._spawn)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._group.create_task(work, name="transfer")

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something beside the test."""
        return self._group.create_task(work, name="started")

    async def settle(self) -> None:
        """Let everything happen that can: nothing here waits for a clock."""
        quiet = 0
        while quiet < 30:
            before = self.fog.link.traffic, self.device.link.traffic
            await asyncio.sleep(0)
            quiet = quiet + 1 if before == (self.fog.link.traffic, self.device.link.traffic) else 0

    async def forge(self, topic: str, payload: bytes | Frame) -> str:
        """Publish what a hostile node would, to the fog; returns why it was refused ("" if it was not)."""
        before = self.fog.channel.refused.copy()
        data = payload if isinstance(payload, bytes) else pack(payload)
        await self.device.link.publish(topic, data)
        await self.settle()
        refused = self.fog.channel.refused - before
        assert refused.total() <= 1
        return next(iter(refused), "")


def on_net(scenario: Callable[[Net], Awaitable[None]], *, limits: ChannelLimits = SMALL) -> None:
    """Run a scenario; whatever it started must have ended by itself."""

    async def run() -> None:
        async with asyncio.TaskGroup() as outer, asyncio.TaskGroup() as group:
            net = Net(group, limits)
            async with net.fog.link, net.device.link:
                readers = [outer.create_task(peer.listen()) for peer in (net.fog, net.device)]
                for channel, values in (
                    ("update", {"node": "+", "task": "+"}),
                    ("chunk", {"fog": "fog", "node": "+", "transfer": "+"}),
                    ("presence", {"node": "+"}),
                    ("ask", {"node": "+"}),
                ):
                    await net.fog.link.subscribe(topics.build(NET, "fog", channel, **values))
                await net.device.link.subscribe(REPLY)
                await net.settle()
                async with asyncio.timeout(20):
                    await scenario(net)
                await net.settle()
                left = [task.get_name() for task in asyncio.all_tasks() if task.get_name() in ("transfer", "chunks")]
                assert left == []
                for reader in readers:
                    reader.cancel()

    asyncio.run(run())


def update(size: int) -> Update:
    payload = hashlib.shake_128(str(size).encode()).digest(size)
    return Update(1, "lattice", 10, (Section(0, 10, 1, 0.5, payload),), {"loss": (1.0, 1.0)})


def blob(number: int, size: int = 5000) -> tuple[Blob, bytes]:
    data = number.to_bytes(4, "big") + hashlib.shake_128(b"blob").digest(size - 4)
    return blob_of(data, 1024), data


# -- updates


def test_a_small_update_goes_inline() -> None:
    async def scenario(net: Net) -> None:
        frame = net.device.frame(update(100))
        await net.device.channel.carry(Upload(UP, frame))
        await net.settle()
        assert net.fog.events == [Arrived(topics.parse(UP), frame)]
        assert net.device.channel.sent == {"update": len(publication.write(UP, frame))}
        assert net.fog.channel.received == {"update": len(publication.write(UP, frame))}

    on_net(scenario)


def test_an_update_of_100_kb_and_more_is_offered_granted_and_arrives_once() -> None:
    async def scenario(net: Net) -> None:
        frame = net.device.frame(update(300_000))
        await net.device.channel.carry(Upload(UP, frame))
        await net.settle()
        assert net.fog.events == [Arrived(topics.parse(UP), frame)]
        sent = net.device.channel.sent
        assert sent["update"] < 200  # the offer
        assert 300_000 < sent["chunk"] < 300_600
        assert not net.fog.channel.refused
        assert net.fog.channel.held_bytes == 0

    on_net(scenario, limits=ChannelLimits())


def test_just_below_and_above_what_goes_inline() -> None:
    async def scenario(net: Net) -> None:
        envelope = len(pack(net.device.frame(update(99_000)))) - 99_000
        for size, kinds in ((100_000 - envelope, {"update"}), (100_001 - envelope, {"update", "chunk"})):
            net.device.channel.sent.clear()
            await net.device.channel.carry(Upload(UP, net.device.frame(update(size))))
            await net.settle()
            assert set(net.device.channel.sent) == kinds
        assert len(net.fog.messages) == 2

    on_net(scenario, limits=ChannelLimits())


def test_a_lost_chunk_is_repaired_by_a_new_offer_that_brings_only_that_chunk() -> None:
    async def scenario(net: Net) -> None:
        lost: list[int] = []

        def lose(received: Received) -> list[Received]:
            message = publication.read(topics.parse(received.topic), received.payload).message
            if isinstance(message, Chunk) and message.index in (3, 7) and message.index not in lost:
                lost.append(message.index)
                return []
            return [received]

        net.fog.spoil = lose
        frame = net.device.frame(update(10_000))
        await net.device.channel.carry(Upload(UP, frame))
        await net.settle()
        assert (net.fog.messages, lost) == ([], [3, 7])
        whole = net.device.channel.sent["chunk"]
        await net.device.channel.carry(Upload(UP, frame))
        await net.settle()
        assert net.fog.messages == [frame.message]
        data = pack(frame)
        blob = blob_of(data, 1024)
        topic = topics.build(NET, "fog", "chunk", fog="fog", node="device", transfer=blob.name)
        expected = sum(len(publication.write(topic, net.device.frame(cut(data, blob, index)))) for index in (3, 7))
        assert net.device.channel.sent["chunk"] - whole == expected

    on_net(scenario)


def test_duplicates_and_reordering_change_nothing() -> None:
    async def scenario(net: Net) -> None:
        net.broker.duplicate = True
        held: list[Received] = []

        def shuffle(received: Received) -> list[Received]:
            if topics.parse(received.topic).channel != "chunk":
                return [received]
            held.append(received)
            return held[::-1] if len(held) == 20 else []

        net.fog.spoil = shuffle
        frame = net.device.frame(update(9_500))
        await net.device.channel.carry(Upload(UP, frame))
        await net.settle()
        assert net.fog.messages == [frame.message]
        assert set(net.fog.channel.refused) <= {"unasked"}  # copies that came after the last chunk
        assert len(held) == 20

    on_net(scenario)


def test_an_update_that_was_answered_is_answered_again_without_its_chunks() -> None:
    async def scenario(net: Net) -> None:
        frame = net.device.frame(update(10_000), seq=4)
        fog, device = net.fog, net.device
        await device.channel.carry(Upload(UP, frame))
        await net.settle()
        chunks = device.channel.sent["chunk"]
        for answer in (Ack(1, 4), Outcome(1, 4, True, 3, "")):
            device.events.clear()
            await fog.channel.carry(Send(REPLY, fog.frame(answer)))
            await device.channel.carry(Upload(UP, frame))
            await net.settle()
            assert device.messages == [answer, answer]
        await fog.channel.carry(Send(REPLY, fog.frame(Ack(1, 4))))  # late: the outcome stays the last word
        device.events.clear()
        await device.channel.carry(Upload(UP, frame))
        await net.settle()
        assert device.messages == [Outcome(1, 4, True, 3, "")]
        assert device.channel.sent["chunk"] == chunks
        assert len(fog.messages) == 1
        other = device.frame(update(10_001), seq=5)
        await device.channel.carry(Upload(UP, other))
        await net.settle()
        assert fog.messages[1:] == [other.message]

    on_net(scenario)


def test_reading_goes_on_while_a_large_update_is_being_sent() -> None:
    async def scenario(net: Net) -> None:
        frame = net.device.frame(update(50_000))
        net.device.spoil = _switch_on(net.broker, after=Grant)
        await net.device.channel.carry(Upload(UP, frame))
        await net.settle()
        await net.fog.link.publish(REPLY, pack(net.fog.frame(Ack(1, 0))), qos=0)
        await net.settle()
        assert net.device.messages == [Ack(1, 0)]  # although no chunk has been acknowledged
        await net.device.channel.carry(Upload(UP, frame))  # on its way already
        net.broker.hold_acknowledgements = False
        net.broker.release_acknowledgements()
        await net.settle()
        assert net.fog.messages == [frame.message]
        assert net.device.channel.sent["update"] < 200  # one offer

    on_net(scenario)


def _switch_on(broker: MemoryBroker, *, after: type[Message]) -> Callable[[Received], list[Received]]:
    def spoil(received: Received) -> list[Received]:
        if isinstance(publication.read(topics.parse(received.topic), received.payload).message, after):
            broker.hold_acknowledgements = True
        return [received]

    return spoil


def test_a_link_that_goes_down_during_a_transfer_raises_nothing_and_the_rest_is_sent_later() -> None:
    async def scenario(net: Net) -> None:
        frame = net.device.frame(update(50_000))
        net.device.spoil = _switch_on(net.broker, after=Grant)
        await net.device.channel.carry(Upload(UP, frame))
        await net.settle()
        assert net.fog.messages == []
        net.broker.block("device")
        await net.settle()
        assert net.device.channel.refused == {"link-down": 1}
        await net.device.channel.carry(Upload(UP, frame))
        assert net.device.channel.refused == {"link-down": 2}
        net.device.spoil = lambda received: [received]
        net.broker.hold_acknowledgements = False
        net.broker.unblock("device")
        await net.settle()
        before = net.device.channel.sent["chunk"]
        await net.device.channel.carry(Upload(UP, frame))
        await net.settle()
        assert net.fog.messages == [frame.message]
        assert net.device.channel.sent["chunk"] - before < 50_000

    on_net(scenario)


def test_a_chunk_that_the_broker_refuses_ends_the_transfer_and_leaves_no_task() -> None:
    async def scenario(net: Net) -> None:
        net.broker.deny("em1/net/fog/in/#")
        await net.device.channel.carry(Upload(UP, net.device.frame(update(50_000))))
        await net.settle()
        assert net.device.channel.refused == {"refused-by-broker": 1}
        assert net.device.channel.sent["chunk"] == 0

    on_net(scenario)


@pytest.mark.parametrize("size", [900, 3000])
def test_an_update_above_the_limit_is_returned_to_its_sender(size: int) -> None:
    limits = replace(SMALL, update_bytes=800)

    async def scenario(net: Net) -> None:
        frame = net.device.frame(update(size), seq=4)
        for _ in range(2):
            await net.device.channel.carry(Upload(UP, frame))
            await net.settle()
        outcome = Outcome(1, 4, False, -1, "larger than limits.max_update_bytes (800 bytes)")
        assert net.device.messages == [outcome, outcome]
        assert (net.fog.messages, net.fog.channel.refused) == ([], {"size": 1})
        assert net.device.channel.sent["chunk"] == 0

    on_net(scenario, limits=limits)


def test_what_the_broker_refuses_is_said_once_for_each_cause(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(net: Net) -> None:
        net.broker.deny(UP)
        for seq in range(3):
            await net.device.channel.carry(Upload(UP, net.device.frame(update(100), seq=seq)))
        reference, data = blob(1, 2_001_000)
        reference = replace(reference, chunk_size=2_001_000)  # in one piece, more than the broker takes
        for _ in range(2):
            await net.device.channel.carry(PublishBlob("fog", reference, data))
        net.broker.block("device")
        await net.device.channel.carry(Upload(UP, net.device.frame(update(100))))
        assert net.device.channel.refused == {"refused-by-broker": 5, "link-down": 1}

    on_net(scenario)
    said = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(said) == 2
    assert said[0].startswith(f"{UP}: the broker refused a publication (Not authorized) at memory: ")
    assert "larger than the broker takes (2000000 bytes) at memory: it has 2001" in said[1]


# -- blobs


def test_a_blob_is_found_by_whoever_comes_later() -> None:
    async def scenario(net: Net) -> None:
        reference, data = blob(1)
        await net.fog.channel.carry(PublishBlob("fog", reference, data))
        assert net.fog.events == [Published("fog", reference)]
        await net.device.channel.carry(Fetch("fog", reference))
        await net.settle()
        assert net.device.events == [Fetched(reference, data)]
        assert net.device.channel.fetching == 0
        received = net.device.channel.received["blob"]
        await net.fog.channel.carry(PublishBlob("fog", reference, data))
        await net.settle()
        assert net.device.channel.received["blob"] == received  # it has unsubscribed

    on_net(scenario)


def test_a_blob_that_is_published_later_still_arrives_and_a_newer_one_is_not_held_up() -> None:
    async def scenario(net: Net) -> None:
        (old, old_data), (new, new_data) = blob(1), blob(2)
        await net.device.channel.carry(Fetch("fog", old))
        await net.device.channel.carry(Fetch("fog", new))
        await net.device.channel.carry(Fetch("fog", new))
        await net.fog.channel.carry(PublishBlob("fog", new, new_data))
        await net.settle()
        assert (net.device.fetched, net.device.channel.fetching) == ([new_data], 1)
        await net.fog.channel.carry(PublishBlob("fog", old, old_data))
        await net.settle()
        assert (net.device.fetched, net.device.channel.fetching) == ([new_data, old_data], 0)

    on_net(scenario)


def test_more_blobs_than_are_asked_for_at_once_all_arrive() -> None:
    async def scenario(net: Net) -> None:
        blobs = [blob(number) for number in range(MAX_ACTIVE + 5)]
        for reference, data in blobs:
            await net.fog.channel.carry(PublishBlob("fog", reference, data))
        for reference, _ in blobs:
            net.start(net.device.channel.carry(Fetch("fog", reference)))
        await net.settle()
        assert sorted(net.device.fetched) == sorted(data for _, data in blobs)

    on_net(scenario)


def test_a_fetch_whose_blob_is_gone_gives_way_to_those_that_wait() -> None:
    async def scenario(net: Net) -> None:
        waiting, data = blob(99)
        await net.device.channel.carry(Fetch("fog", waiting))
        for number in range(MAX_ACTIVE):
            await net.device.channel.carry(Fetch("fog", blob(number)[0]))
        await net.fog.channel.carry(PublishBlob("fog", waiting, data))
        await net.settle()
        assert net.device.fetched == []
        for _ in range(2):
            await net.device.channel.refresh()
        await net.settle()
        assert net.device.fetched == [data]

    on_net(scenario)


def test_retained_chunks_that_were_lost_are_asked_for_again_and_only_if_nothing_moves() -> None:
    async def scenario(net: Net) -> None:
        reference, data = blob(1)
        await net.fog.channel.carry(PublishBlob("fog", reference, data))
        net.device.spoil = lambda received: [] if received.topic.endswith("/2") else [received]
        await net.device.channel.carry(Fetch("fog", reference))
        await net.settle()
        net.device.spoil = lambda received: [received]
        await net.device.channel.refresh()
        await net.settle()
        assert net.device.fetched == []  # it moved since the last look
        await net.device.channel.refresh()
        await net.settle()
        assert net.device.fetched == [data]

    on_net(scenario)


def test_an_altered_blob_is_refused_and_repaired() -> None:
    async def scenario(net: Net) -> None:
        reference, data = blob(1)
        bad = pack(net.fog.frame(Chunk(reference.digest, 1, bytes(1024)), task=""))
        await net.fog.channel.carry(PublishBlob("fog", reference, data))
        place = topics.build(NET, "fog", "blob", digest=reference.name, index="1")
        await net.fog.link.publish(place, bad, retain=True)
        await net.device.channel.carry(Fetch("fog", reference))
        await net.settle()
        assert (net.device.fetched, net.device.channel.refused) == ([], {"digest": 1})
        await net.fog.channel.carry(PublishBlob("fog", reference, data))
        for _ in range(2):
            await net.device.channel.refresh()
        await net.settle()
        assert net.device.fetched == [data]

    on_net(scenario)


def test_after_a_lost_connection_the_chunks_that_are_missing_come_and_no_others() -> None:
    async def scenario(net: Net) -> None:
        reference, data = blob(1, 60_000)
        chunks = reference.chunks
        await net.fog.channel.carry(PublishBlob("fog", reference, data))
        arrived: list[str] = []

        def note(received: Received, most: int) -> list[Received]:
            arrived.append(received.topic)
            return [received] if len(arrived) <= most else []

        net.device.spoil = partial(note, most=chunks // 2)  # the connection is dead from then on
        await net.device.channel.carry(Fetch("fog", reference))
        await net.settle()
        assert chunks // 2 < len(arrived) <= chunks // 2 + AHEAD
        net.device.spoil = partial(note, most=chunks)
        lost = set(arrived[chunks // 2 :])
        arrived.clear()
        net.broker.cut("device")
        await net.settle()
        assert net.device.fetched == [data]
        assert lost <= set(arrived)
        assert len(arrived) == chunks - chunks // 2

    on_net(scenario)


def test_a_blob_above_the_limit_is_not_fetched() -> None:
    async def scenario(net: Net) -> None:
        await net.device.channel.carry(Fetch("fog", Blob(bytes(32), 200_001, 1024)))
        assert (net.device.channel.fetching, net.device.channel.refused) == (0, {"size": 1})

    on_net(scenario)


def test_retire_clears_every_retained_chunk() -> None:
    async def scenario(net: Net) -> None:
        reference, data = blob(1)
        names = [topics.build(NET, "fog", "blob", digest=reference.name, index=str(index)) for index in range(5)]
        await net.fog.channel.carry(PublishBlob("fog", reference, data))
        assert all(net.broker.retained(name) for name in names)
        await net.fog.channel.carry(Retire("fog", reference))
        assert not any(net.broker.retained(name) for name in names)

    on_net(scenario)


def test_a_retirement_that_the_link_cut_short_is_finished_later_unless_the_blob_came_back() -> None:
    async def scenario(net: Net) -> None:
        (gone, gone_data), (back, back_data) = blob(1), blob(2)
        for reference, data in ((gone, gone_data), (back, back_data)):
            await net.fog.channel.carry(PublishBlob("fog", reference, data))
        net.broker.block("fog")
        await net.settle()
        for reference in (gone, back):
            await net.fog.channel.carry(Retire("fog", reference))
        assert net.fog.channel.refused == {"link-down": 2}
        await net.fog.channel.carry(PublishBlob("fog", back, back_data))
        net.broker.unblock("fog")
        await net.settle()
        retained = {
            reference: net.broker.retained(topics.build(NET, "fog", "blob", digest=reference.name, index="0")) is not None
            for reference in (gone, back)
        }
        assert retained == {gone: False, back: True}

    on_net(scenario)


def test_a_blob_that_could_not_be_published_is_not_said_to_be() -> None:
    async def scenario(net: Net) -> None:
        reference, data = blob(1, 40_000)
        net.broker.deny(topics.build(NET, "fog", "blob", digest=reference.name, index=str(CHUNKS_AT_ONCE + 3)))
        await net.fog.channel.carry(PublishBlob("fog", reference, data))
        assert (net.fog.events, net.fog.channel.refused) == ([], {"refused-by-broker": 1})

    on_net(scenario)


def retained(net: Net, reference: Blob) -> list[int]:
    """The chunks of a blob that are on the broker."""
    names = (topics.build(NET, "fog", "blob", digest=reference.name, index=str(index)) for index in range(reference.chunks))
    return [index for index, name in enumerate(names) if net.broker.retained(name)]


async def acknowledge_everything(net: Net) -> None:
    """Let the broker answer again, what it has held back first."""
    net.broker.hold_acknowledgements = False
    net.broker.release_acknowledgements()
    await net.settle()


def test_a_retired_blob_leaves_no_chunk_though_its_publishing_was_under_way() -> None:
    async def scenario(net: Net) -> None:
        reference, data = blob(1, 40_000)
        net.broker.hold_acknowledgements = True
        net.start(net.fog.channel.carry(PublishBlob("fog", reference, data)))
        await net.settle()
        assert len(retained(net, reference)) == CHUNKS_AT_ONCE
        net.start(net.fog.channel.carry(Retire("fog", reference)))
        await acknowledge_everything(net)
        assert retained(net, reference) == []
        assert net.fog.events == []  # nobody is told that it is there

    on_net(scenario)


def test_a_blob_that_comes_back_while_it_is_being_removed_is_there_as_a_whole() -> None:
    async def scenario(net: Net) -> None:
        reference, data = blob(1, 40_000)
        net.broker.hold_acknowledgements = True
        for transfer in (PublishBlob("fog", reference, data), Retire("fog", reference), PublishBlob("fog", reference, data)):
            net.start(net.fog.channel.carry(transfer))
            await net.settle()
        await acknowledge_everything(net)
        assert retained(net, reference) == list(range(reference.chunks))
        assert net.fog.events == [Published("fog", reference)]

    on_net(scenario)


def test_many_releases_over_a_blocked_uplink_hold_the_transfers_of_the_last_ones_only() -> None:
    async def scenario(net: Net) -> None:
        net.broker.hold_acknowledgements = True
        blobs = [blob(number, 40_000) for number in range(30)]
        for number, (reference, data) in enumerate(blobs):
            if number >= 2:
                net.start(net.fog.channel.carry(Retire("fog", blobs[number - 2][0])))
            net.start(net.fog.channel.carry(PublishBlob("fog", reference, data)))
            await net.settle()
            assert sum(task.get_name() == "chunks" for task in asyncio.all_tasks()) <= 2 * CHUNKS_AT_ONCE
        await acknowledge_everything(net)
        assert [len(retained(net, reference)) for reference, _ in blobs] == [0] * 28 + [blobs[-1][0].chunks] * 2
        assert net.fog.events == [Published("fog", reference) for reference, _ in blobs[-2:]]

    on_net(scenario)


# -- what others may try


@pytest.mark.parametrize(
    ("topic", "payload", "reason"),
    [
        (UP, json.dumps({"temperature": 21.5}).encode(), "msgpack"),
        (UP, b"on", "msgpack"),
        (UP, pack(Frame(TASK, "other", 1, 0, update(10))), "sender"),
        (UP, pack(Frame(TASK, "other", 1, 0, Offer(Blob(bytes(32), 5000, 1024)))), "sender"),
        (UP, pack(Frame("other", "device", 1, 0, update(10))), "task"),
        (UP, pack(Frame(TASK, "device", 1, 0, Ack(1, 0))), "kind"),
        (UP, pack(Frame(TASK, "device", 1, 0, Offer(Blob(bytes(32), 200_001, 1024)))), "size"),
        ("em1/net/fog/up/device/Toy", pack(Frame(TASK, "device", 1, 0, update(10))), "topic"),
        ("em1/net/fog/up/all/toy", pack(Frame(TASK, "device", 1, 0, update(10))), "topic"),
        ("em1/net/fog/in/fog/device/0a", pack(Frame(TASK, "device", 1, 0, Chunk(bytes(32), 0, b"x"))), "unasked"),
        ("em1/net/fog/in/fog/device/0a", pack(Frame(TASK, "other", 1, 0, Chunk(bytes(32), 0, b"x"))), "sender"),
        ("em1/net/fog/in/fog/device/0a", pack(Frame(TASK, "device", 1, 0, update(10))), "kind"),
        ("em1/net/fog/st/device", pack(Frame("", "other", 1, 0, Presence("lost", "device", "fog"))), "sender"),
        ("em1/net/fog/rq/status/device", pack(Frame("", "other", 1, 0, StatusRequest())), "sender"),
        (UP, bytes(2_000_000 - 100), "size"),
    ],
)
def test_forged_and_foreign_messages_are_counted_and_dropped(topic: str, payload: bytes, reason: str) -> None:
    async def scenario(net: Net) -> None:
        assert await net.forge(topic, payload) == reason
        assert net.fog.events == []

    on_net(scenario)


def test_an_inline_update_above_the_limit_is_refused() -> None:
    async def scenario(net: Net) -> None:
        assert await net.forge(UP, net.device.frame(update(3000))) == "size"

    on_net(scenario, limits=replace(SMALL, update_bytes=2000))


@pytest.mark.parametrize(
    ("inside", "reason"),
    [
        (pack(Frame(TASK, "other", 1, 0, update(3000))), "sender"),
        (pack(Frame("other", "device", 1, 0, update(3000))), "task"),
        (pack(Frame(TASK, "device", 1, 0, Ack(1, 0))) + bytes(3000), "msgpack"),
        (pack(Frame(TASK, "device", 1, 0, Offer(Blob(bytes(32), 5000, 1024)))), "kind"),
        (pack(Frame("", "device", 1, 0, Presence("online", "device", "fog"))), "kind"),
        (b"\x91" * 5000, "msgpack"),
    ],
)
def test_what_is_inside_of_chunks_is_checked_like_everything_else(inside: bytes, reason: str) -> None:
    async def scenario(net: Net) -> None:
        reference = blob_of(inside, 1024)
        assert await net.forge(UP, net.device.frame(Offer(reference))) == ""
        target = topics.build(NET, "fog", "chunk", fog="fog", node="device", transfer=reference.name)
        reasons = [await net.forge(target, net.device.frame(cut(inside, reference, index))) for index in range(reference.chunks)]
        assert reasons == [*[""] * (reference.chunks - 1), reason]
        assert (net.fog.events, net.fog.channel.held_bytes) == ([], 0)

    on_net(scenario)


def test_an_offer_or_a_grant_in_another_domain_is_refused() -> None:
    async def scenario(net: Net) -> None:
        fog, device = net.fog.channel, net.device.channel
        await fog.receive(UP.replace("/fog/", "/attic/"), pack(net.device.frame(Offer(Blob(bytes(32), 5000, 1024)))))
        assert fog.refused == {"domain": 1}
        net.broker.block("fog")  # nobody grants
        await device.carry(Upload(UP, net.device.frame(update(5000))))
        data = pack(net.device.frame(update(5000)))
        grant = Frame(TASK, "attic", 1, 0, Grant(blob_of(data, 1024).digest, b"\xff"))
        await device.receive(REPLY.replace("/fog/", "/attic/"), pack(grant))
        await device.receive(REPLY, pack(replace(grant, node="fog", message=Grant(bytes(32), b"\xff"))))
        assert device.refused == {"unasked": 2}
        assert device.sent["chunk"] == 0

    on_net(scenario)


def test_a_removed_retained_message_is_nothing() -> None:
    async def scenario(net: Net) -> None:
        assert await net.forge("em1/net/fog/st/device", b"") == ""
        assert net.fog.channel.received == {}

    on_net(scenario)


def test_offers_that_come_faster_than_answers_go_are_left_to_be_repeated() -> None:
    async def scenario(net: Net) -> None:
        fog = net.fog.channel
        net.broker.hold_acknowledgements = True
        for seq in range(MAX_ANSWERING + 5):
            await fog.receive(UP, pack(net.device.frame(Offer(Blob(bytes(32), 5000, 1024)), seq=seq)))
        assert fog.refused == {"busy": 5}
        net.broker.hold_acknowledgements = False
        while fog.sent["reply"] == 0:
            net.broker.release_acknowledgements()
            await asyncio.sleep(0)
        await net.settle()
        await fog.receive(UP, pack(net.device.frame(Offer(Blob(bytes(32), 5000, 1024)))))
        assert fog.refused == {"busy": 5}

    on_net(scenario)


def test_a_flood_of_offers_and_chunks_holds_a_bounded_number_of_bytes() -> None:
    async def scenario(net: Net) -> None:
        fog = net.fog.channel
        for number in range(40):
            data = number.to_bytes(4, "big") + bytes(60_000)
            reference = blob_of(data, 10_000)
            await fog.receive(UP, pack(net.device.frame(Offer(reference))))
            await net.settle()
            target = topics.build(NET, "fog", "chunk", fog="fog", node="device", transfer=reference.name)
            for index in range(reference.chunks - 1):
                await fog.receive(target, pack(net.device.frame(cut(data, reference, index))))
                assert fog.held_bytes <= 200_000
        assert fog.held_bytes > 100_000

    on_net(scenario)
