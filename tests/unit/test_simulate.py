"""`edgemw simulate`: the same command is the same run, links and absences take their time, and nothing is lost."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgemw.bench.scenario import scenario_of
from edgemw.cli.main import main
from edgemw.cli.simulate import _EPILOG, _link, add_parser
from edgemw.simulation.broker import BrokerSpec, Sessions
from edgemw.simulation.chance import Chance
from edgemw.simulation.links import DIRECT, Links, LinkSpec
from edgemw.wire import topics
from edgemw.wire.messages import Ack, Frame

CONFIG = Path(__file__).parents[2] / "examples" / "quickstart" / "edgemw.toml"
SHORT = ["simulate", str(CONFIG), "--set", "task.rounds=3", "--set", "window.deadline=60s"]
HARD = ["--link", "250kbit,40ms,1%", "--work", "10s", "--away", "2m,30s", "--devices", "12"]


def simulated(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main([*SHORT, "--json", *words]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_the_same_command_is_the_same_run_whoever_trains(capsys: pytest.CaptureFixture[str]) -> None:
    digests = [
        (found["events_sha256"], found["model_sha256"], found["virtual_s"], found["uplink_bytes"])
        for workers in ("0", "0", "1", "2")
        for found in [simulated(capsys, *HARD, "--workers", workers)]
    ]
    assert len(set(digests)) == 1
    other = simulated(capsys, *HARD, "--seed", "1")
    assert other["events_sha256"] != digests[0][0]
    assert other["model_sha256"] != digests[0][1]


def test_everything_is_counted_or_returned(capsys: pytest.CaptureFixture[str]) -> None:
    found = simulated(capsys, *HARD)
    assert found["finished"]
    assert found["rounds"] == 3
    assert found["updates_sent"] == found["updates_counted"] + found["updates_returned"] > 0
    assert found["weight_sent"] == found["weight_counted"] + found["weight_returned"]


def test_links_and_work_take_their_time(capsys: pytest.CaptureFixture[str]) -> None:
    fast, slow = simulated(capsys), simulated(capsys, "--link", "20kbit,500ms,5%", "--work", "30s")
    assert fast["virtual_s"] == 0
    assert slow["virtual_s"] > 3 * 30
    assert fast["updates_counted"] == slow["updates_counted"] == 24


def test_a_run_is_left_and_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["--work", "10s", "--for", "25s", "--set", "task.rounds=0", "--out", str(tmp_path / "out")]
    assert main([*SHORT, *words]) == 0
    out = capsys.readouterr().out
    assert "digest of model" in out
    document = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (document["finished"], document["virtual_s"]) == (False, 25.0)
    assert [row["release"] for row in document["rounds_history"]] == [*range(document["rounds"] + 1)]
    assert (tmp_path / "out" / "report.png").exists()


def test_without_training_a_fleet_only_answers(capsys: pytest.CaptureFixture[str]) -> None:
    found = simulated(capsys, "--devices", "200", "--train", "none", "--join", "1m", "--work", "5s")
    assert found["finished"]
    assert found["updates_counted"] == 0
    assert found["events"] > 200 * 5


def test_a_device_sends_no_more_than_its_uplink_allows(capsys: pytest.CaptureFixture[str]) -> None:
    free = simulated(capsys, "--work", "1s")
    rate, burst = 20.0, 2048
    words = ["--set", f"tiers.device.uplink.rate={rate:g}", "--set", f"tiers.device.uplink.burst={burst}"]
    held = simulated(capsys, "--work", "1s", "--set", "window.deadline=1h", *words)
    assert held["updates_counted"] + held["updates_returned"] == held["updates_sent"] > 16
    assert held["uplink_bytes"] < 1.2 * free["uplink_bytes"], "what waits for tokens waits once"
    assert 2 * free["virtual_s"] < held["virtual_s"]
    around = 8 * 4 * 200  # presence, acknowledgements and headers are not counted
    assert held["uplink_bytes"] <= 8 * (burst + rate * held["virtual_s"]) + around


def test_a_folder_with_something_else_in_it_is_refused_before_anything_is_simulated(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = [*SHORT, "--out"]
    assert main([*words, str(tmp_path / "new")]) == 0
    assert main([*words, str(tmp_path / "new")]) == 0, "its own"
    (tmp_path / "file").write_text("")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "report.json").write_text("{}")
    capsys.readouterr()
    for name in ("file", "run", ""):
        assert main([*words, str(tmp_path / name)]) == 3
        captured = capsys.readouterr()
        assert "give another folder" in captured.err
        assert captured.out == ""


def test_ctrl_c_leaves_what_is_there(tmp_path: Path) -> None:
    words = [*SHORT, "--set", "task.rounds=0", "--work", "1s", "--for", "1000h", "--json", "--out", str(tmp_path / "out")]
    process = subprocess.Popen(
        [sys.executable, "-m", "edgemw", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    while not process.stderr.readline().lstrip().startswith("3 "):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    document = json.loads(out)
    assert document["interrupted"]
    assert document["rounds"] >= 3
    assert json.loads((tmp_path / "out" / "report.json").read_text())["events_sha256"] == document["events_sha256"]


def test_every_example_in_the_help_can_be_simulated() -> None:
    examples = [line.split()[1:] for line in _EPILOG.splitlines() if line.startswith("  edgemw simulate")]
    assert len(examples) == 4
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    for words in examples:
        args = parser.parse_args(words)
        path = CONFIG.parents[2] / args.file
        assert scenario_of(path, None, args.devices, {}, args.overrides, train=args.train == "real").tree.devices


def test_a_class_of_devices_has_a_speed_a_link_and_a_price(capsys: pytest.CaptureFixture[str]) -> None:
    found = simulated(capsys, "--profile", "raspberry-pi-4b")
    energy, seconds = found["energy"], found["virtual_s"]
    assert seconds > 0, "the radio's rate, and training, take time"
    assert (energy["profile"], energy["radio"], energy["uncertainty_ratio"]) == ("raspberry-pi-4b", "wifi-sbc", 0.25)
    assert energy["idle_joules"] == pytest.approx(2.7 * seconds, abs=2e-3)
    assert energy["cpu_joules"] == pytest.approx((6.4 - 2.7) * energy["busy_s"] / 4, abs=2e-3)
    sent, received = found["uplink_bytes"] / 8, found["downlink_bytes"] / 8
    assert energy["radio_joules"] == pytest.approx(2.3e-7 * sent + 8.2e-8 * received, rel=0.1), "reports come before the end"
    parts = sum(energy[f"{part}_joules"] for part in ("idle", "cpu", "radio"))
    assert energy["joules_per_device"] == pytest.approx(parts, abs=2e-3)
    slower = simulated(capsys, "--profile", "raspberry-pi-4b", "--link", "8kbit,40ms,0%", "--work", "30s")
    assert slower["virtual_s"] > 3 * 30
    assert slower["energy"]["busy_s"] > 3 * 15


def test_a_batch_is_no_larger_than_a_device_can_hold(capsys: pytest.CaptureFixture[str]) -> None:
    models = {simulated(capsys, "--set", f"tiers.device.training.max_batch={most}")["model_sha256"] for most in (0, 32, 8)}
    assert len(models) == 2, "the plan has batches of 32"


def test_what_is_larger_than_a_packet_of_the_broker_is_dropped(capsys: pytest.CaptureFixture[str]) -> None:
    words = [*SHORT, "--link", "250kbit,40ms,1%", "--for", "1h", "--packet"]
    assert main([*words, "1kB"]) == 1, "the bundle does not come through"
    assert "messages by the broker: too large" in capsys.readouterr().out
    assert main([*words, "200kB"]) == 0
    assert "dropped" not in capsys.readouterr().out


TOPIC = topics.parse("em1/net/fog/dn/device/task")


def test_what_is_not_acknowledged_is_sent_again_in_order_and_once_more_where_only_the_acknowledgement_was_lost() -> None:
    sessions, messages = (
        Sessions(BrokerSpec(session_s=60.0)),
        [(TOPIC, Frame("task", "fog", 1, 0, Ack(1, n)), 10) for n in range(4)],
    )
    for number, at in enumerate((1.0, 2.0, 3.0)):
        assert sessions.keep("device", messages[number], 0.0, at)
    sessions.leaves("device", 1.5)
    assert sessions.keep("device", messages[3], 10.0)
    sessions.leaves("device", 20.0)
    assert sessions.returns("device", 60.0) == messages[1:]
    assert sessions.returns("device", 61.0) == []


def test_a_session_ends_and_a_queue_is_bounded() -> None:
    sessions, message = (
        Sessions(BrokerSpec(queued=2, packet_bytes=100, session_s=60.0)),
        (TOPIC, Frame("task", "fog", 1, 0, Ack(1, 1)), 10),
    )
    assert [sessions.keep("device", message, 0.0, at) for at in (1.0, 2.0, 3.0)] == [True, True, False]
    assert sessions.keep("device", message, 1.0), "the first was acknowledged"
    sessions.leaves("device", 1.0)
    assert sessions.returns("device", 62.0) == []
    assert [sessions.takes(size_bytes) for size_bytes in (100, 101)] == [True, False]
    assert sessions.dropped == {"queue full": 1, "too large": 1}


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--link", "3,4"], "is not a link such as 250kbit,40ms,1%"),
        (["--link", "0kbit,4ms,1%"], "is not a link"),
        (["--away", "3m"], "is not two times"),
        (["--devices", "none"], "is not a whole number of 1 or more"),
        (["--set", "task.rounds=0"], "has no end of its own"),
        (["--queue", "-1"], "--queue"),
        (["--packet", "much"], "is not a size such as 64kB"),
        (["--set", "task.rounds=0", "--for", "1s"], "nothing takes time here"),
    ],
)
def test_wrong_usage_says_what_to_write(words: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*SHORT, *words])
    assert ended.value.code == 2
    assert reason in capsys.readouterr().err


def test_what_is_refused_ends_with_3(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["simulate", "nothing.toml"]) == 3
    bad = tmp_path / "bad.toml"
    bad.write_text('name = "n"\ntiers = 3\n')
    assert main(["simulate", str(bad), "--devices", "4"]) == 3
    assert main([*SHORT, "--devices", "2000"]) == 3
    assert "training samples cannot give 2000 devices" in capsys.readouterr().err
    assert main([*SHORT, "--set", "task.bundle=none.edge"]) == 3


# ------------------------------------------------------------------------------------------------------------------ links


def test_a_link_carries_one_message_after_the_other() -> None:
    links = Links(lambda node: LinkSpec(1000.0, 0.5))
    assert links.arrival("a", "up", 100, 0.0) == pytest.approx(0.6)
    assert links.arrival("a", "up", 100, 0.0) == pytest.approx(0.7)
    assert links.arrival("a", "down", 100, 0.0) == pytest.approx(0.6)
    assert links.arrival("a", "up", 100, 9.0) == pytest.approx(9.6)
    links.slowed["a"] = 10.0
    late = links.arrival("a", "up", 100, 10.0)
    assert late == pytest.approx(16.0)
    del links.slowed["a"]
    assert links.arrival("a", "up", 1, 11.0) >= late, "nothing overtakes what was sent before"
    links.forget("a")
    assert links.arrival("a", "up", 100, 11.0) == pytest.approx(11.6)
    assert links.sent_bytes("a", "up") == 501


def test_losses_cost_time_in_proportion() -> None:
    links = Links(lambda node: LinkSpec(loss=0.1, retry_s=1.0), Chance(3))
    assert links.arrival("a", "up", 1460 * 10_000, 0.0) == pytest.approx(1000, rel=0.15)
    small = Links(lambda node: LinkSpec(loss=0.1, retry_s=1.0), Chance(3))
    assert sum(small.arrival(f"n{n}", "up", 1000, 0.0) for n in range(3000)) == pytest.approx(300, rel=0.15)


def test_what_is_typed_is_what_a_link_does() -> None:
    assert _link("250kbit,40ms,1%") == LinkSpec(31_250.0, 0.04, 0.01)
    assert _link("2Mbit,1s,0%") == LinkSpec(250_000.0, 1.0, 0.0)
    assert Links().arrival("a", "up", 10**9, 3.0) == 3.0
    assert LinkSpec() == DIRECT


def test_a_stream_does_not_depend_on_other_streams() -> None:
    one, other = Chance(5), Chance(5)
    first = [one.number("a") for _ in range(5)]
    mixed = [(other.number("b"), other.number("a"))[1] for _ in range(5)]
    assert first == mixed
    assert len(set(first)) == 5
    assert [Chance(6).number("a")] != first[:1]
    numbers = [one.number("c") for _ in range(4000)]
    assert 0.48 < sum(numbers) / 4000 < 0.52
    assert {one.whole(1, 3, "d") for _ in range(100)} == {1, 2, 3}
    assert sum(one.waiting(2.0, "e") for _ in range(4000)) / 4000 == pytest.approx(2.0, rel=0.1)
