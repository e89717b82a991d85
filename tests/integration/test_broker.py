"""The broker that edgemw starts for itself."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgemw.core.errors import ConfigError, LinkError
from edgemw.transport.broker import MAX_PACKET_BYTES, start_broker
from edgemw.transport.mqtt import MqttLink, MqttSettings
from tests.contract.test_link_kinds import next_received, next_up, run


def is_alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def gone_within(pid: int, timeout_s: float) -> bool:
    """Wait for the end of a process that is not our child."""
    deadline_s = time.monotonic() + timeout_s
    while is_alive(pid) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    return not is_alive(pid)


def test_auto_takes_mosquitto_and_tells_what_it_is(has_mosquitto: None, tmp_path: Path) -> None:
    with start_broker("auto", tmp_path / "new" / "directory") as broker:
        assert broker.kind == "mosquitto"
        assert broker.url == f"mqtt://127.0.0.1:{broker.port}"
        assert is_alive(broker.pid)
        assert broker.log_path.exists()
        pid = broker.pid
    assert not is_alive(pid)
    with pytest.raises(LinkError, match="stopped"):
        _ = broker.pid


def test_an_async_with_stops_it_too(has_mosquitto: None, tmp_path: Path) -> None:
    pids = []

    async def scenario() -> None:
        async with start_broker("mosquitto", tmp_path) as broker:
            pids.append(broker.pid)
            async with MqttLink(MqttSettings(url=broker.url, client_id="x")) as link:
                assert (await next_up(link.events())).limits.max_packet_bytes == MAX_PACKET_BYTES

    run(scenario())
    assert not is_alive(pids[0])


def test_a_later_start_in_the_same_directory_finds_retained_messages(has_mosquitto: None, tmp_path: Path) -> None:
    async def publish(url: str) -> None:
        async with MqttLink(MqttSettings(url=url, client_id="x")) as link:
            await link.publish("kept", b"here", retain=True)

    async def read(url: str) -> None:
        async with MqttLink(MqttSettings(url=url, client_id="y")) as link:
            await link.subscribe("kept")
            assert (await next_received(link.events())).payload == b"here"

    with start_broker("mosquitto", tmp_path) as broker:
        run(publish(broker.url))
    with start_broker("mosquitto", tmp_path) as broker:
        run(read(broker.url))
        port = broker.port
        broker.restart()
        assert broker.port == port
        run(read(broker.url))


@pytest.mark.parametrize("kind", ["mosquitto", "amqtt"])
def test_it_dies_with_the_process_that_started_it(has_mosquitto: None, tmp_path: Path, kind: str) -> None:
    code = (
        "import sys, threading; from edgemw.transport.broker import start_broker; out = []\n"
        "t = threading.Thread(target=lambda: out.append(start_broker(sys.argv[1], sys.argv[2]))); t.start(); t.join()\n"
        "print(out[0].pid, flush=True); sys.stdin.read()"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", code, kind, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_alive(pid)  # although the thread that started it has ended
        parent.send_signal(signal.SIGKILL)
    assert gone_within(pid, 5.0)


def test_a_broker_that_ignores_sigterm_is_killed(has_mosquitto: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgemw.transport.broker.STOP_TIMEOUT_S", 0.2)
    broker = start_broker("mosquitto", tmp_path)
    pid = broker.pid
    os.kill(pid, signal.SIGSTOP)
    broker.stop()
    assert not is_alive(pid)


def test_a_start_that_fails_shows_the_log(has_mosquitto: None, tmp_path: Path) -> None:
    with pytest.raises(LinkError, match="no_such_option"):
        start_broker("mosquitto", tmp_path, extra=["no_such_option 1"])


def test_a_taken_port_that_was_asked_for_is_an_error(has_mosquitto: None, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(LinkError, match="in use"):
            start_broker("mosquitto", tmp_path, port=taken.getsockname()[1])


def test_only_loopback_addresses_are_served(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="loopback"):
        start_broker("auto", tmp_path, host="0.0.0.0")


def test_an_unknown_kind_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not one of"):
        start_broker("rabbit", tmp_path)  # type: ignore[arg-type]  # what a user may write in a file


def test_amqtt_keeps_sessions_while_it_runs(tmp_path: Path) -> None:
    async def scenario(url: str) -> None:
        settings = MqttSettings(url=url, client_id="sleeper", protocol=4)
        async with MqttLink(settings) as link:
            await link.subscribe("x")
        async with MqttLink(MqttSettings(url=url, client_id="sender", protocol=4)) as link:
            await link.publish("x", b"while you were away")
        async with MqttLink(settings) as link:
            assert (await next_received(link.events())).payload == b"while you were away"

    with start_broker("amqtt", tmp_path) as broker:
        assert broker.kind == "amqtt"
        run(scenario(broker.url))
