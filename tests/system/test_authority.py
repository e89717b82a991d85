"""Nobody gives way: a mosquitto on generated files, and every rule attacked by others who have valid certificates too."""

from __future__ import annotations

import asyncio
import datetime
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgemw.app.broker import mqtt_settings, own_client_id
from edgemw.app.settings import Broker
from edgemw.core.errors import LinkError
from edgemw.pki import authority
from edgemw.transport.broker import find_mosquitto
from edgemw.transport.connection import BrokerUnreachable
from edgemw.transport.link import Down, Received, Will
from edgemw.transport.mqtt import MqttLink, MqttSettings, TlsSettings
from edgemw.wire.topics import CHANNELS, Topic, build, parse
from tests.contract.test_link_kinds import next_received, next_up, run
from tests.support.programs import needed
from tests.support.secured import Secured, carried_out

NET = "farm"
DEPLOYMENT = f"""schema = 1
name = "{NET}"
[data]
source = "digits"
[tiers.top]
role = "fog"
[tiers.fog]
role = "fog"
parent = "top"
count = 2
[tiers.device]
role = "device"
parent = "fog"
count = 4
serving = {{ mqtt = true, ask = "oracle" }}
"""
PARENT = {"top": "", "fog-0": "top", "fog-1": "top", **{f"device-{n}": f"fog-{n // 2}" for n in range(4)}}
FOGS = ("top", "fog-0", "fog-1")
DEVICES = ("device-0", "device-1", "device-2", "device-3")
SERVERS = (*DEVICES, "oracle")
USERS = (*PARENT, "oracle", "kiosk", "author", "monitor", "stranger")
WITNESS = "witness"
"""A user whom the test adds, who may read and write everything."""


# ------------------------------------------------------------------------------------------------- what is meant to be
# Written down without the code that makes the rules: who alone may write a topic, and who alone may read it.


def may_ask(node: str, domain: str) -> bool:
    """Whether somebody asks the nodes of a domain how they are: who watches and the top all of the net, a fog node its own."""
    return node in ("monitor", "top") or node == domain in FOGS


def writers(topic: Topic) -> set[str]:
    domain, values = topic.domain, topic.values
    node = values.get("node", "")
    child = {node} if PARENT.get(node) == domain else set()
    owner = {domain} if domain in FOGS else set()
    match topic.channel:
        case "update" | "chunk" | "telemetry":
            return child if values.get("fog", domain) == domain else set()
        case "presence":
            return child | owner
        case "answer":
            return child | ({"top"} if (domain, node) == ("top", "top") else set())
        case "reply" | "release":
            return owner
        case "task" | "blob":
            return owner | ({"author"} if domain == "top" else set())
        case "event":
            return {"top"} if (domain, node) == ("top", "top") else set()
        case "ask":
            return {node} if may_ask(node, domain) else set()
        case "predict":
            return asks(node, domain)
        case "prediction":
            return {domain} if domain in SERVERS else set()
    raise AssertionError(topic)


def readers(topic: Topic) -> set[str]:
    domain, values = topic.domain, topic.values
    node = values.get("node", "")
    children = {child for child, parent in PARENT.items() if parent == domain}
    owner = {domain} if domain in FOGS else set()
    consoles = {"monitor", "author"}
    match topic.channel:
        case "update" | "chunk" | "telemetry":
            return owner
        case "presence":
            return owner | consoles | {"top"} | ({node} & children)
        case "answer":
            return owner | ({values["asker"]} & {*FOGS, *consoles})
        case "reply":
            return owner | ({node} & children)
        case "release":
            return owner | children | consoles
        case "task" | "blob" | "ask":
            return owner | children
        case "event":
            return {*FOGS, *consoles}
        case "predict":
            return owner | ({domain} if domain in SERVERS else set())
        case "prediction":
            return owner | asks(node, domain)
    raise AssertionError(topic)


def asks(node: str, server: str) -> set[str]:
    """Whether somebody may ask a prediction service: itself, whom its tier names, and who may ask all of them."""
    if node == "kiosk":
        return {node}
    named = server == "oracle" and node in DEVICES
    return {node} if named or (node == server and server in SERVERS) else set()


def every_topic(net: str) -> list[str]:
    """Each channel in domains of every kind, with nodes of every kind in its places."""
    places = {
        "node": ("top", "fog-0", "device-0", "device-2", "oracle", "kiosk", "monitor", "author"),
        "asker": ("fog-0", "device-0", "monitor"),
        "fog": ("fog-0", "fog-1"),
    }
    found = []
    for domain in ("top", "fog-0", "device-0", "oracle", "monitor"):
        for channel in CHANNELS:
            rows: list[dict[str, str]] = [{}]
            for place in channel.places:
                rows = [{**row, place: value} for row in rows for value in places.get(place, ("x",))]
            found += [build(net, domain, channel.name, **row) for row in rows]
    return found


TOPICS = every_topic(NET)
FOREIGN = [
    *[build(net, "fog-0", name, **values) for net in ("other", "top", "fog-0") for name, values in (
        ("update", {"node": "device-0", "task": "x"}),
        ("release", {"task": "x"}),
        ("reply", {"node": "device-0", "task": "x"}),
        ("ask", {"node": "monitor"}),
    )],
    "x",
    f"em1/{NET}",
    f"em1/{NET}/fog-0",
    f"em1/{NET}/fog-0/up/device-0",
    f"em1/{NET}/fog-0/up/device-0/x/y",
    f"em2/{NET}/fog-0/up/device-0/x",
    f"EM1/{NET}/fog-0/up/device-0/x",
    f"/em1/{NET}/fog-0/up/device-0/x",
    "$SYS/broker/version",
    "$SYS/broker/connection/bridge/state",
    "$CONTROL/dynamic-security/v1",
]  # fmt: skip
"""Where nobody may write anything."""
OWN = [f"em1/{NET}/{user}/doctor/x" for user in USERS]
"""Where `edgemw doctor` of a user, and nobody else, tries the broker out."""


# --------------------------------------------------------------------------------------------------------------- fixture


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """The broker of the farm; its authority is 400 days old, so that there can be a certificate that has ended."""
    needed("mosquitto", find_mosquitto())
    folder = tmp_path_factory.mktemp("farm")
    deployment = folder / "edgemw.toml"
    deployment.write_text(DEPLOYMENT)
    long_ago = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=400)
    authority.init(folder / "pki", None, long_ago)
    with authority.opened(folder / "pki", None) as signer:
        signer.issue_nodes(["device-1"], long_ago, 365)
    (folder / "pki/nodes/device-1").rename(folder / "ended")
    carried_out("pki", "issue", folder / "pki", "--for", deployment, "--asker", "kiosk", "--broker", "--host", "localhost")
    carried_out("pki", "issue", folder / "pki", WITNESS, "stranger", "stolen")
    secured = Secured(folder, deployment, "--asker", "kiosk")
    with (secured.folder / "acl").open("a") as acl:
        acl.write(f"\nuser {WITNESS}\ntopic readwrite #\ntopic read $SYS/#\n")
    with secured:
        yield secured


def link(broker: Secured, user: str, **changes: Any) -> MqttLink:
    """Somebody's connection, in MQTT 3.1.1: there a denied publication looks like any other, and so does a subscription."""
    settings = mqtt_settings(broker.login(user), f"test-{user}", {}, wait=False)
    calm = {"session_expiry_s": 0, "protocol": 4, "queue_size": 10_000, "flush_s": 0.1}
    return MqttLink(replace(settings, **{**calm, **changes}))


@asynccontextmanager
async def everybody(broker: Secured, *more: str) -> AsyncIterator[dict[str, MqttLink]]:
    """All users, connected."""
    async with AsyncExitStack() as stack:
        yield {user: await stack.enter_async_context(link(broker, user)) for user in (*USERS, *more)}


async def until(heard: AsyncIterator[Any], last: str) -> set[tuple[str, str]]:
    """What arrives, topic and payload, up to the publication on a topic."""
    found = set[tuple[str, str]]()
    async for event in heard:
        if isinstance(event, Received):
            if event.topic == last:
                return found
            found.add((event.topic, event.payload.decode()))
    raise AssertionError("the link ended")


# ----------------------------------------------------------------------------------------------------------------- rules


def test_nobody_writes_what_is_not_its_own_and_everybody_what_is(broker: Secured) -> None:
    async def scenario() -> None:
        async with everybody(broker, WITNESS) as links:
            witness = links.pop(WITNESS)
            for topic_filter in ("#", "$SYS/broker/version", "$SYS/broker/connection/#", "$CONTROL/#"):
                await witness.subscribe(topic_filter)
            heard = witness.events()

            async def attack(user: str) -> None:
                for topic in (*TOPICS, *FOREIGN, *OWN):
                    await links[user].publish(topic, user.encode())

            async with asyncio.TaskGroup() as group:
                reading = group.create_task(until(heard, "the/end"))
                async with asyncio.TaskGroup() as attackers:
                    for user in links:
                        attackers.create_task(attack(user))
                await witness.publish("the/end", b"")
            found = {(topic, user) for topic, user in reading.result() if user in USERS}  # and not the broker's own $SYS
            meant = {(topic, user) for topic in TOPICS for user in writers(parse(topic))}
            assert found == meant | {(f"em1/{NET}/{user}/doctor/x", user) for user in USERS if user != "stranger"}

    run(scenario(), 120)


def test_nobody_hears_what_is_for_others_and_everybody_what_is_for_it(broker: Secured) -> None:
    async def scenario() -> None:
        async with everybody(broker, WITNESS) as links:
            witness = links.pop(WITNESS)
            del links["stranger"]  # who has no topic on which it could be told the end
            found = dict[str, set[tuple[str, str]]]()

            async def listen(user: str) -> None:
                found[user] = await until(links[user].events(), f"em1/{NET}/{user}/doctor/end")

            for user in links:
                for topic_filter in ("#", "em1/#", "+/+/+/#", "$SYS/#", "$CONTROL/#", f"$share/g/em1/{NET}/fog-0/#"):
                    await links[user].subscribe(topic_filter)
            async with asyncio.TaskGroup() as group:
                for user in links:
                    group.create_task(listen(user))
                for topic in (*TOPICS, *(topic for topic in FOREIGN if not topic.startswith("$"))):
                    await witness.publish(topic, b"said")
                for user in links:
                    await witness.publish(f"em1/{NET}/{user}/doctor/end", b"")
            for user, heard in found.items():
                said = {topic for topic, payload in heard if payload == "said"}
                strayed = {topic for topic in FOREIGN if user in FOGS and topic.startswith(f"em1/{NET}/{user}")}  # its own domain
                assert said == {topic for topic in TOPICS if user in readers(parse(topic))} | strayed, user
                assert not {topic for topic, _ in heard if topic.startswith("$")}, user

    run(scenario(), 120)


def test_the_broker_tells_about_itself_only_who_watches_and_only_of_bridges(broker: Secured) -> None:
    async def scenario() -> None:
        async with link(broker, WITNESS) as witness, link(broker, "device-0") as device:
            await witness.subscribe("$SYS/#")
            assert (await next_received(witness.events())).topic.startswith("$SYS/")  # there is something to hear
            await device.subscribe("$SYS/#")
            await device.subscribe(f"em1/{NET}/device-0/doctor/#")
            await device.publish(f"em1/{NET}/device-0/doctor/x", b"")
            assert (await next_received(device.events())).topic.endswith("doctor/x")

    run(scenario())


def test_what_was_retained_by_others_is_not_there(broker: Secured) -> None:
    release = build(NET, "fog-0", "release", task="x")

    async def scenario() -> None:
        async with link(broker, "device-0") as device, link(broker, "fog-1") as fog, link(broker, "fog-0") as owner:
            for forger in (device, fog):
                await forger.publish(release, b"forged", retain=True)
            async with link(broker, "device-1") as late:
                await late.subscribe(release)
                await owner.publish(release, b"right", retain=True)
                assert (await next_received(late.events())).payload == b"right"
            for forger in (device, fog):
                await forger.publish(release, b"", retain=True)  # nor can it be taken away
            async with link(broker, "device-1") as late:
                await late.subscribe(release)
                assert (await next_received(late.events())).payload == b"right"
            await owner.publish(release, b"", retain=True)

    run(scenario())


def test_a_will_in_the_name_of_another_is_not_published(broker: Secured) -> None:
    def mortal(user: str, topic: str) -> MqttLink:
        return link(broker, user, client_id=f"mortal-{user}", will=Will(topic, user.encode()), protocol=5, will_delay_s=0)

    class Cut(Exception):
        pass

    async def scenario() -> None:
        topic = build(NET, "fog-0", "presence", node="device-0")
        async with link(broker, "fog-0") as fog:
            await fog.subscribe(topic)
            for user in ("device-1", "device-0"):
                with pytest.raises(Cut):
                    async with mortal(user, topic):
                        raise Cut
            assert (await next_received(fog.events())).payload == b"device-0"

    run(scenario())


# ------------------------------------------------------------------------------------------------------- who is let in


def refused(settings: MqttSettings) -> LinkError:
    """Why a connection did not come about."""

    async def scenario() -> None:
        async with MqttLink(replace(settings, session_expiry_s=0, wait_for_broker=False)):
            pass

    with pytest.raises(LinkError) as caught:
        run(scenario())
    return caught.value


def let_in(broker: Secured, login: Broker) -> None:
    async def scenario() -> None:
        async with MqttLink(replace(mqtt_settings(login, "test", {}, wait=False), session_expiry_s=0)) as connected:
            await next_up(connected.events())

    run(scenario())


def test_certificates_that_let_nobody_in(broker: Secured, tmp_path: Path) -> None:
    carried_out("pki", "init", tmp_path / "other")
    carried_out("pki", "issue", tmp_path / "other", "device-1")
    own, other, ca = broker.pki / "nodes/device-1", tmp_path / "other/nodes/device-1", broker.pki / "ca.pem"
    ended = broker.pki.parent / "ended"
    attempts = {
        "none": TlsSettings(ca=ca),
        "of another authority": TlsSettings(ca, other / "cert.pem", other / "key.pem"),
        "for signatures": TlsSettings(ca, own / "sign.pem", own / "sign.key"),
        "of the broker": TlsSettings(ca, broker.pki / "broker/cert.pem", broker.pki / "broker/key.pem"),
        "that has ended": TlsSettings(ca, ended / "cert.pem", ended / "key.pem"),
        "of the authority itself": TlsSettings(ca, ca, broker.pki / "ca.key"),
    }
    for what, tls in attempts.items():
        assert "TLS" in refused(MqttSettings(broker.url, "device-1", tls=tls)).what, what
    let_in(broker, broker.login("device-1"))


def test_a_broker_of_another_authority_and_one_with_another_name_are_not_believed(broker: Secured, tmp_path: Path) -> None:
    carried_out("pki", "init", tmp_path / "other")
    mine = broker.login("device-1").tls
    wrong = TlsSettings(tmp_path / "other/ca.pem", mine.cert, mine.key)
    assert "unknown authority" in refused(MqttSettings(broker.url, "device-1", tls=wrong)).what
    elsewhere = broker.url.replace("localhost", "127.0.0.1")
    assert "for another" in refused(MqttSettings(elsewhere, "device-1", tls=TlsSettings(mine.ca, mine.cert, mine.key))).what


def test_tls_below_1_3_is_refused(broker: Secured) -> None:
    mine = broker.login("device-1").tls
    for version, works in ((ssl.TLSVersion.TLSv1_2, False), (ssl.TLSVersion.TLSv1_3, True)):
        context = ssl.create_default_context(cafile=mine.ca)
        assert mine.cert is not None
        context.load_cert_chain(mine.cert, mine.key)
        context.maximum_version = version
        with socket.create_connection(("localhost", broker.port), timeout=10) as plain:
            if works:
                with context.wrap_socket(plain, server_hostname="localhost") as encrypted:
                    assert encrypted.version() == "TLSv1.3"
            else:
                with pytest.raises(ssl.SSLError, match=r"(?i)version|alert"):
                    context.wrap_socket(plain, server_hostname="localhost")


def test_a_revoked_node_is_let_in_no_longer_once_the_broker_was_told(broker: Secured) -> None:
    let_in(broker, broker.login("stolen"))
    carried_out("pki", "revoke", broker.pki, "stolen")
    (broker.folder / "crl.pem").write_bytes((broker.pki / "crl.pem").read_bytes())
    broker.hang_up()
    login = broker.login("stolen")
    tls = TlsSettings(login.tls.ca, login.tls.cert, login.tls.key)
    what = refused(MqttSettings(broker.url, "stolen", tls=tls)).what  # the alert may be lost with the connection
    assert what in ("the broker hung up on TLS", "the broker says that this certificate is revoked")
    let_in(broker, broker.login("device-1"))


def test_a_node_that_is_revoked_while_it_is_connected_does_nothing_more(tmp_path: Path) -> None:
    (tmp_path / "edgemw.toml").write_text(DEPLOYMENT)

    async def scenario(broker: Secured) -> None:
        topic, later = (build(NET, "fog-0", "update", node=f"device-{number}", task="x") for number in range(2))
        async with link(broker, "device-0") as stolen, link(broker, "device-1") as other, link(broker, "fog-0") as fog:
            await fog.subscribe(f"em1/{NET}/fog-0/up/#")
            heard = fog.events()
            await stolen.publish(topic, b"before")
            assert (await next_received(heard)).payload == b"before"
            await asyncio.to_thread(carried_out, "pki", "revoke", broker.pki, "device-0")
            await asyncio.to_thread(broker.configure)
            await asyncio.to_thread(broker.hang_up)
            await stolen.publish(topic, b"after")
            await other.publish(later, b"well")
            assert (await next_received(heard)).payload == b"well"

    with Secured(tmp_path, tmp_path / "edgemw.toml") as broker:
        run(scenario(broker))


def test_nobody_takes_over_the_session_of_another_without_its_key(broker: Secured) -> None:
    victim = own_client_id(NET, "device-0", broker.login("device-0"))

    async def scenario() -> None:
        async with link(broker, "device-0", client_id=victim) as device, link(broker, "fog-0") as fog:
            reply, events = build(NET, "fog-0", "reply", node="device-0", task="x"), device.events()
            await next_up(events)
            await device.subscribe(reply)
            for guess in (f"em1-{NET}-device-0", "device-0", own_client_id(NET, "device-0", broker.login("device-1"))):
                async with link(broker, "device-1", client_id=guess) as attacker:
                    await next_up(attacker.events())
                await fog.publish(reply, guess.encode())
                assert (await next_received(events)).payload == guess.encode()
            assert device.traffic.reconnects == 0
            async with link(broker, "device-0", client_id=victim):  # who has the key is the same node
                async for event in events:
                    if isinstance(event, Down):
                        return

    run(scenario())


def test_a_session_that_is_taken_over_with_a_known_id_brings_nothing_that_was_for_another(broker: Secured) -> None:
    async def scenario() -> None:
        reply = build(NET, "fog-0", "reply", node="device-2", task="x").replace("fog-0", "fog-1")
        async with link(broker, "device-2", client_id="leaked", session_expiry_s=60) as device:
            await device.subscribe(reply)
        async with link(broker, "fog-1") as fog:
            await fog.publish(reply, b"for device-2 alone")
        async with link(broker, "device-3", client_id="leaked", session_expiry_s=60) as thief:
            events = thief.events()
            await thief.subscribe(f"em1/{NET}/device-3/doctor/#")
            await thief.publish(f"em1/{NET}/device-3/doctor/x", b"mine")
            assert (await next_received(events)).payload == b"mine"
        async with link(broker, "device-3", client_id="leaked"):
            pass

    run(scenario())


def test_unreachable_is_not_refused() -> None:
    """The control of all refusals above: they are of TLS, and not of a broker that is not there."""
    assert isinstance(refused(MqttSettings("mqtts://localhost:1", "x", tls=TlsSettings())), BrokerUnreachable)
