"""`edgemw doctor` sees what a broker lacks, says what follows from it, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgemw.app import probes
from edgemw.app.finding import Check
from edgemw.app.ground import take
from edgemw.app.probes import Work
from edgemw.app.probing import Subject, open_ground, probe_broker
from edgemw.app.settings import Broker
from edgemw.cli.main import main
from edgemw.core.errors import LinkError
from edgemw.core.ids import Place
from edgemw.transport.broker import Broker as Process
from edgemw.transport.broker import find_mosquitto, start_broker
from edgemw.transport.link import Received
from edgemw.transport.mqtt import MqttLink, MqttSettings
from tests.support.mosquitto import Mosquitto
from tests.support.ports import free_ports

NOBODY = Place("doctor", "doctor", "", 0)


@contextmanager
def mosquitto_with(folder: Path, *lines: str) -> Iterator[Broker]:
    """A mosquitto that is told nothing but where to listen, and these lines."""
    program, port, config = find_mosquitto(), free_ports(1)[0], folder / "mosquitto.conf"
    assert program is not None
    user = ["user root"] if os.geteuid() == 0 else []  # else it cannot look into a test's folder
    config.write_text("\n".join([f"listener {port} 127.0.0.1", "allow_anonymous true", *user, *lines, ""]))
    process = Process("mosquitto", [program, "-c", str(config)], folder, "127.0.0.1", port)
    process.start()
    with process:
        yield Broker(url=process.url)


def found_of(broker: Broker, place: Place = NOBODY, **changes: Any) -> dict[str, Check]:
    """All findings by name."""
    told: list[str] = []

    async def probe() -> list[Check]:
        return [check async for check in probe_broker(Subject(broker, place), {}, told.append, **changes)]

    checks = {check.name: check for check in asyncio.run(probe())}
    assert set(told) <= set(checks)
    return checks


def found(broker: Broker, work: Work) -> Check:
    """What one probe finds."""

    async def probe() -> Check:
        return await work(await open_ground(Subject(broker, NOBODY), {}))

    return asyncio.run(probe())


def not_ok(checks: dict[str, Check]) -> set[str]:
    """Names of findings that are not as they should be."""
    return {name for name, check in checks.items() if check.level != "ok"}


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_the_broker_of_edgemw_up_has_everything_and_nothing_is_left_on_it(
    protocol: Any, has_mosquitto: None, tmp_path: Path
) -> None:
    with start_broker("mosquitto", tmp_path, extra=["sys_interval 1"]) as process:
        broker = Broker(url=process.url, protocol=protocol)
        checks = found_of(broker)
        assert not not_ok(checks), checks
        assert checks["broker"].found.endswith(f"speaks MQTT {protocol}")
        assert asyncio.run(left_on(broker)) == ([], b"0")


async def left_on(broker: Broker) -> tuple[list[str], bytes]:
    """Topics that a broker keeps, and how many sessions of clients that are away."""
    last: dict[str, bytes] = {}
    async with MqttLink(MqttSettings(broker.url, "looker", session_expiry_s=0)) as link:
        retained = await topics_kept(link)
        await link.subscribe("$SYS/broker/#")
        for _ in range(3):  # what was said before, or while something was being removed, does not count

            def is_tick(event: Received) -> bool:
                last[event.topic] = event.payload
                return event.topic == "$SYS/broker/uptime"

            assert await take(link, 5, is_tick) is not None
    return retained, last["$SYS/broker/clients/disconnected"]


async def topics_kept(link: MqttLink) -> list[str]:
    """Topics that a broker keeps."""
    topics: list[str] = []
    await link.subscribe("#")
    await link.publish("end", b"")
    while (event := await take(link, 5)) is not None and event.topic != "end":
        topics.append(event.topic)
    return topics


def test_a_queue_of_mosquitto_s_default_length_is_noticed(has_mosquitto: None, tmp_path: Path) -> None:
    with mosquitto_with(tmp_path) as broker:
        check = found(broker, probes.session)
        assert (check.level, check.found.split(" for ")[0]) == ("warn", "1000 of 1100 messages kept")
        assert "max_queued_messages 20000" in check.hint
        trip = found(broker, probes.round_trip)
        assert (trip.level, trip.hint.split()[0]) == ("warn", "set_tcp_nodelay")


@pytest.mark.parametrize(
    ("line", "said"), [("max_packet_size 30000", "; the broker says that it takes 30000"), ("message_size_limit 30000", "")]
)
def test_a_packet_that_the_broker_does_not_take_is_noticed_also_where_it_says_nothing(
    line: str, said: str, has_mosquitto: None, tmp_path: Path
) -> None:
    with mosquitto_with(tmp_path, line) as broker:
        check = found(broker, probes.largest_packet)
    assert (check.level, check.found) == ("fail", f"16384 bytes came back, 32768 did not{said}")
    assert "limits.max_message_bytes = 15872" in check.hint


def test_no_retained_messages(has_mosquitto: None, tmp_path: Path) -> None:
    with mosquitto_with(tmp_path, "retain_available false") as broker, pytest.raises(LinkError, match="keeps no retained"):
        found(broker, probes.retained)


def test_a_user_without_rights_gets_one_failure_with_the_topic(
    has_mosquitto: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "acl").write_text("topic read em1/#\n")
    with mosquitto_with(tmp_path, f"acl_file {tmp_path / 'acl'}") as broker:
        assert main(["doctor", "--broker", broker.url, "--json"]) == 4
        checks = json.loads(capsys.readouterr().out)["checks"]
        silent = found(replace(broker, protocol="3.1.1"), probes.round_trip)
    last = checks[-1]
    assert (last["name"], last["level"], last["found"]) == (
        "round trip",
        "fail",
        "the broker refused a publication (Not authorized)",
    )
    assert "em1/doctor/doctor/doctor/" in last["hint"]
    assert (silent.level, silent.found) == ("fail", "a message was taken and did not come back")


@pytest.fixture
def secured(has_mosquitto: None, tmp_path: Path) -> Mosquitto:
    """brokers/mosquitto with passwords, not started yet."""
    broker = Mosquitto(tmp_path / "broker", "single")
    broker.admit("device-0", "fog-0")
    return broker


def file_of(broker: Mosquitto, folder: Path) -> Path:
    """A device's file."""
    path = folder / "device.toml"
    path.write_text(
        f'schema = 1\nnet = "farm"\n[node]\nid = "device-0"\nparent = "fog-0"\nstate = "{folder}"\n[broker]\n'
        f'url = "{broker.url}"\nusername = "device-0"\npassword = {{ file = "{broker.folder}/device-0.pass" }}\n'
        "[limits]\nmax_message_bytes = 4096\n"
    )
    return path


def doctor(path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """What the command prints about the broker, line by line."""
    main(["doctor", "--config", str(path)])
    lines = capsys.readouterr().out.splitlines()
    return {line[6:22].strip(): line for line in lines[next(i for i, line in enumerate(lines) if "broker  " in line) :]}


def test_a_node_s_file_has_its_topics_tried_and_the_shipped_rules_are_enough(
    secured: Mosquitto, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with secured:
        printed = doctor(file_of(secured, tmp_path), capsys)
    assert printed["access rules"] == "ok    access rules    device-0 may write and ask for what a child of fog-0 needs"
    assert printed["largest packet"].startswith("ok    largest packet  a chunk came back: 4608 bytes")
    assert not [line for line in printed.values() if line.startswith(("FAIL", "WARN"))]


def test_a_rule_that_is_missing_is_named(secured: Mosquitto, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    acl = secured.folder / "acl"
    acl.write_text(acl.read_text().replace("pattern write em1/+/+/up/%u/#\n", ""))
    with secured:
        printed = doctor(file_of(secured, tmp_path), capsys)
    refused = "writing em1/farm/fog-0/up/device-0/doctor (the broker refused a publication (Not authorized))"
    assert printed["access rules"] == f"FAIL  access rules    refused to device-0: {refused}"


def test_a_presence_that_nobody_may_read_is_noticed(
    secured: Mosquitto, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    acl = secured.folder / "acl"
    acl.write_text(acl.read_text().replace("pattern read em1/+/+/st/+\n", ""))
    with secured:
        printed = doctor(file_of(secured, tmp_path), capsys)
    assert printed["access rules"].endswith("em1/farm/fog-0/st/device-0 was written and does not come back")


def test_a_broker_that_makes_one_client_of_a_user_is_probed_no_further(
    secured: Mosquitto, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listener = secured.folder / "conf.d" / "listener.conf"
    listener.write_text(listener.read_text() + "use_username_as_clientid true\n")
    with secured:
        printed = doctor(file_of(secured, tmp_path), capsys)
    assert printed["two clients"].startswith("FAIL  two clients     the second client of a user ends the first")
    assert "access rules" not in printed


def test_what_the_fallback_in_python_lacks_is_named(tmp_path: Path) -> None:
    pytest.importorskip("amqtt")
    with start_broker("amqtt", tmp_path) as process:
        checks = found_of(Broker(url=process.url, protocol="3.1.1"))
    assert not_ok(checks) == {"redelivery", "one id twice"}
    assert checks["shared"].found == "granted, and nothing is delivered; edgemw uses none"


def test_the_time_is_bounded_and_what_was_not_probed_is_said(has_mosquitto: None, tmp_path: Path) -> None:
    with mosquitto_with(tmp_path, "set_tcp_nodelay true", "sys_interval 1") as broker:
        started = time.monotonic()
        checks = found_of(broker, within_s=1.0)
        took_s = time.monotonic() - started
        assert asyncio.run(left_on(broker)) == ([], b"0")
    assert took_s < 5
    assert checks["message expiry"].found == "not probed: what is above took all the time"
    assert set(checks) == {"broker", *(probe.name for probe in (*probes.FIRST, *probes.PROBES))}


def test_a_broker_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--broker", f"mqtt://127.0.0.1:{free_ports(1)[0]}"]) == 4
    line = capsys.readouterr().out.splitlines()[-2]
    assert line.startswith("FAIL  broker          the connection was refused at mqtt://127.0.0.1:")
