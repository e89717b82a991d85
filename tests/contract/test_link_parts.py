"""The parts of a link, each by itself."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemw.core.errors import ConfigError, LinkError
from edgemw.transport import refusal
from edgemw.transport.addresses import broker_addresses, in_turn
from edgemw.transport.backoff import Backoff
from edgemw.transport.connection import BrokerUnreachable
from edgemw.transport.filters import matches
from edgemw.transport.inbox import Inbox
from edgemw.transport.link import Down, Limits, Received, Up
from edgemw.transport.mqtt import MqttSettings, TlsSettings
from edgemw.transport.outgoing import SENT, Outgoing
from edgemw.transport.traffic import publish_packet_bytes
from edgemw.transport.window import Window
from tests.contract.test_link_kinds import run

CLOSED = LinkError("closed", where="here", hint="none")


def test_the_window_is_first_come_first_served() -> None:
    async def scenario() -> None:
        window = Window(max_bytes=100, max_messages=2)
        order: list[str] = []

        async def take(name: str, size_bytes: int) -> None:
            await window.acquire(size_bytes, 1)
            order.append(name)

        await take("first", 60)
        async with asyncio.TaskGroup() as group:
            group.create_task(take("large", 100))
            group.create_task(take("small", 10))
            await asyncio.sleep(0)
            assert order == ["first"]  # the small one fits, and does not push in
            window.release(60, 1)
            await asyncio.sleep(0)
            assert order == ["first", "large"]
            window.release(100, 1)
        assert order == ["first", "large", "small"]

    run(scenario())


def test_whoever_was_let_in_goes_before_whoever_comes() -> None:
    async def scenario() -> None:
        window = Window(max_bytes=100, max_messages=5)
        order: list[str] = []

        async def take(name: str) -> None:
            await window.acquire(50, 1)
            order.append(name)

        await window.acquire(100, 1)
        async with asyncio.TaskGroup() as group:
            group.create_task(take("first"))
            await asyncio.sleep(0)
            window.release(100, 1)  # its turn has come, and it has not noticed yet
            await take("second")
        assert order == ["first", "second"]

    run(scenario())


def test_whoever_stops_waiting_holds_nobody_up() -> None:
    async def scenario() -> None:
        window = Window(max_bytes=100, max_messages=5)
        await window.acquire(60, 1)
        async with asyncio.TaskGroup() as group:
            impatient = group.create_task(window.acquire(100, 1))
            patient = group.create_task(window.acquire(40, 1))
            await asyncio.sleep(0)
            impatient.cancel()
            await patient
        assert (window.used_bytes, window.used_messages) == (100, 2)

    run(scenario())


def test_a_cancelled_turn_is_given_back() -> None:
    async def scenario() -> None:
        window = Window(max_bytes=100, max_messages=5)
        await window.acquire(100, 1)
        async with asyncio.TaskGroup() as group:
            waiter = group.create_task(window.acquire(100, 1))
            await asyncio.sleep(0)
            window.release(100, 1)  # its turn comes, and in the same turn of the loop it is cancelled
            waiter.cancel()
        assert (window.used_bytes, window.used_messages) == (0, 0)

    run(scenario())


def test_a_closed_window_fails_those_who_wait_and_those_who_come() -> None:
    async def scenario() -> None:
        window = Window(max_bytes=10, max_messages=1)
        await window.acquire(10, 1)
        waiter = asyncio.ensure_future(window.acquire(10, 1))
        await asyncio.sleep(0)
        window.close(CLOSED)
        for late in (waiter, window.acquire(1, 0)):
            with pytest.raises(LinkError):
                await late

    run(scenario())


@given(st.lists(st.tuples(st.integers(1, 150), st.integers(0, 1)), max_size=30))
def test_the_window_never_holds_more_than_it_may(requests: list[tuple[int, int]]) -> None:
    async def scenario() -> None:
        window = Window(max_bytes=100, max_messages=3)

        async def use(size_bytes: int, slots: int) -> None:
            await window.acquire(size_bytes, slots)
            assert window.used_messages <= 3
            assert window.used_bytes <= 100 or window.used_bytes == size_bytes
            await asyncio.sleep(0)
            window.release(size_bytes, slots)

        async with asyncio.TaskGroup() as group:
            for size_bytes, slots in requests:
                group.create_task(use(size_bytes, slots))
        assert (window.used_bytes, window.used_messages) == (0, 0)

    asyncio.run(scenario())


def test_the_inbox_acknowledges_an_event_when_the_next_is_asked_for() -> None:
    async def scenario() -> None:
        inbox = Inbox(max_messages=2, max_bytes=100)
        done: list[str] = []
        assert inbox.offer(Received("a", b""), 10, lambda: done.append("a"))
        assert inbox.offer(Received("b", b""), 10, lambda: done.append("b"))
        assert not inbox.offer(Received("c", b""), 10, lambda: done.append("c"))
        await inbox.get()
        assert done == []
        await inbox.get()
        assert done == ["a"]
        inbox.close()
        assert await inbox.get() is None
        assert done == ["a", "b"]
        await inbox.caught_up()  # "c" was left with the broker, and all else is done

    run(scenario())


def test_one_arrival_of_any_size_fits_into_an_empty_inbox() -> None:
    inbox = Inbox(max_messages=5, max_bytes=100)
    assert inbox.offer(Received("a", b""), 1000, None)
    assert not inbox.offer(Received("b", b""), 1, None)


def test_a_flapping_connection_does_not_fill_the_inbox() -> None:
    async def scenario() -> None:
        inbox = Inbox(max_messages=1, max_bytes=1)
        for number in range(1000):
            inbox.put_state(Up(Limits()))
            inbox.put_state(Down(str(number)))
        inbox.close()
        assert [await inbox.get(), await inbox.get()] == [Down("999"), None]

    run(scenario())


def test_the_backoff_doubles_its_ceiling_up_to_the_maximum_and_starts_again() -> None:
    backoff = Backoff(min_s=1.0, max_s=8.0, rng=random.Random(1))
    delays = [backoff.next_delay_s() for _ in range(200)]
    for delay_s, ceiling_s in zip(delays, [1.0, 2.0, 4.0, *[8.0] * 197], strict=True):
        assert 0.5 <= delay_s <= ceiling_s
    assert max(delays) > 7.0
    backoff.reset()
    assert backoff.next_delay_s() <= 1.0
    again = Backoff(min_s=1.0, max_s=8.0, rng=random.Random(1))
    assert [again.next_delay_s() for _ in range(200)] == delays


@pytest.mark.parametrize(
    ("topic_filter", "topic", "expected"),
    [
        ("a/b", "a/b", True),
        ("a/+", "a/b", True),
        ("a/+", "a", False),
        ("a/+", "a/b/c", False),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("#", "a/b", True),
        ("#", "$SYS/x", False),
        ("+/x", "$SYS/x", False),
        ("$SYS/#", "$SYS/x", True),
        ("+", "", True),
        ("/+", "/a", True),
    ],
)
def test_filters_match_as_mqtt_says(topic_filter: str, topic: str, expected: bool) -> None:
    assert matches(topic_filter, topic) is expected


@pytest.mark.parametrize(("payload_bytes", "size_bytes"), [(0, 5), (124, 129), (125, 131), (16380, 16386), (16381, 16388)])
def test_packet_sizes_at_the_edges_of_the_length_field(payload_bytes: int, size_bytes: int) -> None:
    assert publish_packet_bytes("a", payload_bytes, qos=0, properties_bytes=0) == size_bytes


@pytest.mark.parametrize(
    "changes",
    [
        {"url": "http://host"},
        {"url": "host:1883"},
        {"url": "mqtt://"},
        {"url": "mqtt://host:99999"},
        {"url": "mqtt://host/path"},
        {"url": "mqtt://user:secret@host"},
        {"url": "mqtt://a,mqtt://user:secret@b"},
        {"url": "mqtt://a,"},
        {"url": "mqtt://a,b:1883"},
        {"url": "mqtt://a,mqtts://b"},
        {"url": ",".join(["mqtt://a"] * 17)},
        {"client_id": ""},
        {"tls": TlsSettings()},
        {"password": "secret"},
        {"keepalive_s": 0},
        {"protocol": 3},
        {"reconnect_min_s": 100.0},
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any]) -> None:
    values: dict[str, Any] = {"url": "mqtt://host", "client_id": "x"} | changes
    with pytest.raises(ConfigError) as caught:
        MqttSettings(**values)
    assert caught.value.key
    assert "secret" not in str(caught.value)


def test_a_certificate_without_its_key_is_refused(tmp_path: Any) -> None:
    with pytest.raises(ConfigError):
        TlsSettings(cert=tmp_path / "cert")


def test_addresses_and_default_ports() -> None:
    assert [str(address) for address in broker_addresses("mqtt://host")] == ["mqtt://host:1883"]
    assert [str(address) for address in broker_addresses("mqtts://[::1], mqtts://b:1")] == ["mqtts://[::1]:8883", "mqtts://b:1"]


def test_a_fleet_spreads_over_the_servers_of_a_cluster_and_a_node_begins_where_it_began() -> None:
    addresses = broker_addresses("mqtt://a,mqtt://b,mqtt://c")
    turns = [in_turn(addresses, f"em1-n-device-{i}") for i in range(300)]
    assert all(sorted(map(str, turn)) == sorted(map(str, addresses)) for turn in turns)
    assert turns[7] == in_turn(addresses, "em1-n-device-7")
    first = Counter(turn[0].host for turn in turns)
    assert set(first) == {"a", "b", "c"}
    assert min(first.values()) > 70


def test_what_no_server_of_a_cluster_could_do_is_one_error_that_names_each() -> None:
    lost = BrokerUnreachable("no answer in time", where="mqtt://a:1", hint="is the address right?")
    refused = LinkError("wrong user name or password", where="mqtt://b:1", hint="check them")
    assert refusal.of_all([refused]) is refused
    both = refusal.of_all([lost, refused])
    assert isinstance(both, BrokerUnreachable)
    assert not isinstance(refusal.of_all([refused, refused]), BrokerUnreachable)
    assert both.where == "mqtt://a:1 (no answer in time), mqtt://b:1 (wrong user name or password)"


def test_a_password_is_never_shown() -> None:
    settings = MqttSettings(url="mqtt://host", client_id="x", username="u", password="secret")
    assert "secret" not in f"{settings!r} {settings}"


def test_what_is_looked_at_first_is_acknowledged_at_once_and_goes_before_nothing_that_waits() -> None:
    async def scenario() -> None:
        inbox, done, seen = Inbox(max_messages=5, max_bytes=100), list[str](), list[str]()

        def look(event: Received) -> bool:
            seen.append(event.topic)
            return event.topic == "a"

        inbox.look_first(look)
        assert inbox.offer(Received("a", b""), 10, lambda: done.append("a"))
        assert (seen, done) == (["a"], ["a"])
        inbox.put_state(Up(Limits()))
        assert inbox.offer(Received("a", b""), 10, lambda: done.append("queued"))
        assert (seen, done) == (["a"], ["a"])
        assert isinstance(await inbox.get(), Up)
        assert await inbox.get() == Received("a", b"")
        inbox.acknowledge_in_hand()
        assert inbox.offer(Received("b", b""), 10, None)
        assert seen == ["a", "b"]
        assert await inbox.get() == Received("b", b"")
        assert done == ["a", "queued"]

    run(scenario())


def test_what_is_looked_at_first_waits_for_what_has_still_to_be_acknowledged() -> None:
    async def scenario() -> None:
        inbox, done = Inbox(max_messages=5, max_bytes=100), list[str]()
        inbox.look_first(lambda event: event.topic == "now")
        assert inbox.offer(Received("first", b""), 10, lambda: done.append("first"))
        await inbox.get()
        assert inbox.offer(Received("now", b""), 10, lambda: done.append("now"))
        assert done == []
        assert await inbox.get() == Received("now", b"")
        inbox.acknowledge_in_hand()
        assert done == ["first", "now"]
        assert inbox.offer(Received("now", b""), 10, lambda: done.append("at once"))
        assert done[-1] == "at once"

    run(scenario())


def test_whatever_goes_wrong_at_the_hand_over_gives_the_room_back() -> None:
    def wrong() -> int:
        raise UnicodeEncodeError("utf-8", "x", 0, 1, "no")

    async def scenario() -> None:
        window = Window(max_bytes=100, max_messages=5)
        outgoing = Outgoing(window)
        with pytest.raises(UnicodeEncodeError):
            outgoing.send_at_once(60, wrong)
        assert window.used_bytes == 0
        assert outgoing.send_at_once(60, lambda: SENT)

    run(scenario())
