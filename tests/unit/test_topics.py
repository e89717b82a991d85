"""The topic tree: built and parsed by one table, the same at every depth, and safe to bridge."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemw.core.errors import WireError
from edgemw.transport.filters import matches
from edgemw.wire import topics
from edgemw.wire.messages import KINDS
from edgemw.wire.topics import CHANNELS, Topic, build, parse, writer
from tests.unit.test_wire_kinds import patient

ids = st.text(string.ascii_lowercase + string.digits + "-", min_size=1, max_size=40)
nodes = ids.filter(lambda name: name != "all")


@st.composite
def places(draw: st.DrawFn) -> Topic:
    channel = draw(st.sampled_from(CHANNELS))
    values = {place: draw(nodes if place in ("node", "fog", "asker") else ids) for place in channel.places}
    return Topic(draw(ids), draw(nodes), channel.name, values)


def text_of(topic: Topic) -> str:
    return build(topic.net, topic.domain, topic.channel, **topic.values)


@patient
@given(places())
def test_build_and_parse_are_inverses(topic: Topic) -> None:
    assert parse(text_of(topic)) == topic
    assert text_of(parse(text_of(topic))) == text_of(topic)


@patient
@given(places(), places())
def test_two_topics_are_the_same_text_only_if_they_are_the_same(one: Topic, two: Topic) -> None:
    assert (text_of(one) == text_of(two)) == (one == two)


@pytest.mark.parametrize("channel", CHANNELS, ids=lambda channel: channel.name)
def test_the_longest_topic_stays_small(channel: topics.Channel) -> None:
    text = build("n" * 40, "d" * 40, channel.name, **dict.fromkeys(channel.places, "x" * 40))
    assert len(text.split("/")) <= 7
    assert len(text.encode()) <= 256


@patient
@given(places(), st.data())
def test_a_filter_matches_its_channel_and_no_other(topic: Topic, data: st.DataObject) -> None:
    open_places = data.draw(st.sets(st.sampled_from(sorted(topic.values)))) if topic.values else set()
    values = {place: "+" if place in open_places else value for place, value in topic.values.items()}
    name = build(topic.net, "+", topic.channel, **values)
    assert matches(name, text_of(topic))
    with pytest.raises(WireError):
        parse(name)  # a filter is no topic
    for other in CHANNELS:
        wide = build("+", "+", other.name, **dict.fromkeys(other.places, "+"))
        assert matches(wide, text_of(topic)) == (other.name == topic.channel)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "em1",
        "em1/net/fog",
        "em1/net/fog/st",
        "em1/net/fog/st/",
        "em1/net/fog/st/node/more",
        "em2/net/fog/st/node",
        "EM1/net/fog/st/node",
        "/em1/net/fog/st/node",
        "em1//fog/st/node",
        "em1/net//st/node",
        "em1/net/all/st/node",  # no node is everybody, and no domain is everybody's
        "em1/net/fog/st/all",
        "em1/net/fog/up/all/task",
        "em1/net/fog/in/all/node/0",
        "em1/net/fog/in/fog/all/0",
        "em1/net/fog/dn/all/task",
        "em1/net/fog/rs/all/node",
        "em1/net/fog/rq/status/all",
        "em1/net/fog/rq/other/node",
        "em1/net/fog/dn/all/task/other",
        "em1/net/fog/dn/node/task/release",
        "em1/net/fog/st/Node",
        "em1/net/fog/st/no_de",
        "em1/net/fog/st/node\n",
        "em1/net/fog/st/é",
        "em1/net/fog/st/" + "n" * 41,
        "em1/net/fog/st/+",
        "em1/net/fog/#",
        "em1/" * 10_000,
        "$SYS/broker/uptime",
        "homeassistant/sensor/x/config",
    ],
)
def test_topics_that_are_not_in_the_table(text: str) -> None:
    with pytest.raises(WireError) as caught:
        parse(text)
    assert caught.value.reason == "topic"
    assert len(str(caught.value)) < 100


@patient
@given(st.text(max_size=60))
def test_any_text(text: str) -> None:
    with pytest.raises(WireError):
        parse(text)
    with pytest.raises(WireError):
        parse("em1/net/fog/" + text.replace("/", "+"))


@pytest.mark.parametrize(
    ("channel", "values"),
    [
        ("presence", {"node": "Node"}),
        ("presence", {"node": "all"}),
        ("presence", {"node": "#"}),
        ("presence", {"node": ""}),
        ("presence", {"node": "a/b"}),
        ("presence", {}),
        ("presence", {"node": "a", "task": "b"}),
        ("update", {"node": "a"}),
    ],
)
def test_a_wrong_value_is_a_mistake_of_ours(channel: str, values: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"cannot stand|has the levels"):
        build("net", "fog", channel, **values)


def test_a_domain_cannot_be_everybody() -> None:
    with pytest.raises(ValueError, match="domain"):
        build("net", "all", "presence", node="a")


def test_who_alone_may_write() -> None:
    writers = {
        "em1/net/fog/st/device": "device",
        "em1/net/fog/up/device/task": "device",
        "em1/net/fog/in/fog/device/0a": "device",
        "em1/net/fog/dn/device/task": "fog",
        "em1/net/fog/dn/all/task/release": "fog",
        "em1/net/fog/dn/all/task/task": None,  # an author's machine: the broker's rules say which
        "em1/net/fog/blob/0a/0": None,  # named by its content, so nobody has to be believed
        "em1/net/fog/rq/status/console": "console",
        "em1/net/fog/rs/console/device": "device",
        "em1/net/fog/pq/asker/task": "asker",
        "em1/net/fog/pa/asker/task": "fog",
        "em1/net/fog/tm/device": "device",
        "em1/net/fog/ev/fog/task": "fog",
    }
    assert {text: writer(parse(text)) for text in writers} == writers
    assert {parse(text).channel for text in writers} == {channel.name for channel in CHANNELS}


def test_every_kind_has_a_place_and_channels_carry_only_kinds() -> None:
    carried = {name for channel in CHANNELS for name in topics.carried(channel.name)}
    assert carried == {kind.name for kind in KINDS}


def remapped(text: str, pattern: str, local: str, remote: str) -> str | None:
    """What mosquitto makes of `topic PATTERN out 1 LOCAL REMOTE` for a publication; None where it does not pass."""
    if not matches(local + pattern, text):
        return None
    return remote + text.removeprefix(local)


@patient
@given(places())
def test_a_bridge_may_change_what_stands_before_the_domain(topic: Topic) -> None:
    text = text_of(topic)
    upstream = remapped(text, "#", f"em1/{topic.net}/", "em1/region-2/")
    assert upstream is not None
    there = parse(upstream)
    assert (there.net, there.domain, there.channel, there.values) == ("region-2", topic.domain, topic.channel, topic.values)
    assert writer(there) == writer(topic)
    prefixed = remapped(text, "#", "em1/", "site-7/em1/")  # a broker that is shared with others
    assert prefixed is not None
    assert remapped(prefixed, "#", "site-7/em1/", "em1/") == text


def test_a_bridge_that_changes_the_domain_takes_the_owners_word_away() -> None:
    text = build("net", "region", "release", task="task")
    moved = remapped(text, "dn/all/#", "em1/net/region/", "em1/net/fog/")
    assert moved is not None
    assert writer(parse(moved)) == "fog"  # so a frame of `region` is refused there
