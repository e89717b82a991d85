"""`edgemw simulate` with classes of devices: each has its own speed, radio and price, and the same command is the same run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from edgemw.bench.cost import Class, class_of
from edgemw.cli.main import main
from edgemw.core.errors import ConfigError
from edgemw.profiles.catalogue import load_profile, load_radio
from edgemw.profiles.energy import Usage
from edgemw.simulation.links import DIRECT, Links, LinkSpec

BUNDLE = Path(__file__).parents[2] / "examples" / "quickstart" / "digits.edge"
DEPLOYMENT = f"""\
name = "mixed"
[task]
bundle = "{BUNDLE}"
rounds = 3
[data]
source = "digits"
[window]
deadline = "60s"
[tiers.top]
role = "fog"
[tiers.fog]
role = "fog"
parent = "top"
profile = "n100-gateway"
[tiers.slow]
role = "device"
parent = "fog"
count = 2
profile = "raspberry-pi-zero-2w"
[tiers.fast]
role = "device"
parent = "fog"
count = 3
profile = "raspberry-pi-5"
"""


def simulated(capsys: pytest.CaptureFixture[str], file: Path, *words: str) -> dict[str, Any]:
    assert main(["simulate", str(file), "--json", *words]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    path = tmp_path / "mixed.toml"
    path.write_text(DEPLOYMENT)
    return path


def test_tiers_have_their_own_speed_and_joules(capsys: pytest.CaptureFixture[str], mixed: Path) -> None:
    found = simulated(capsys, mixed)
    energy, seconds = found["energy"], found["virtual_s"]
    slow, fast = energy["classes"]
    assert [(each["tier"], each["profile"], each["devices"]) for each in (slow, fast)] == [
        ("slow", "raspberry-pi-zero-2w", 2),
        ("fast", "raspberry-pi-5", 3),
    ]
    assert slow["busy_s"] > 20 * fast["busy_s"], "0.37 and 35 Gflops, and the speed of each by chance within a factor of 4"
    assert slow["idle_joules"] == pytest.approx(0.6 * seconds, abs=2e-3)
    assert fast["idle_joules"] == pytest.approx(2.76 * seconds, abs=2e-3)
    assert energy["joules"] == pytest.approx(2 * slow["joules_per_device"] + 3 * fast["joules_per_device"], abs=0.01)
    assert energy["joules_per_device"] == pytest.approx(energy["joules"] / 5, abs=0.01)
    assert energy["profile"] == "raspberry-pi-zero-2w, raspberry-pi-5"


def test_the_same_command_is_the_same_run(capsys: pytest.CaptureFixture[str], mixed: Path) -> None:
    keys = ("events_sha256", "model_sha256", "virtual_s", "energy")
    runs = [simulated(capsys, mixed, *words) for words in ([], [], ["--workers", "2"])]
    assert [{key: run[key] for key in keys} for run in runs] == [{key: runs[0][key] for key in keys}] * 3
    assert simulated(capsys, mixed, "--seed", "1")["events_sha256"] != runs[0]["events_sha256"]


def test_flags_win_over_classes(capsys: pytest.CaptureFixture[str], mixed: Path) -> None:
    slow, fast = simulated(capsys, mixed, "--work", "10s")["energy"]["classes"]
    assert all(3 * 10 / 4 < each["busy_s"] < 4 * 10 * 4 for each in (slow, fast))
    found = simulated(capsys, mixed, "--link", "8kbit,40ms,0%")
    assert found["virtual_s"] > 5, "releases of kilobytes take seconds at a kilobyte a second"
    (slow, fast) = simulated(capsys, mixed, "--profile", "raspberry-pi-4b")["energy"]["classes"]
    assert slow["profile"] == fast["profile"] == "raspberry-pi-4b"


def test_a_line_for_each_class(capsys: pytest.CaptureFixture[str], mixed: Path) -> None:
    assert main(["simulate", str(mixed)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  energy ")]
    assert [line.rpartition(": ")[2] for line in lines] == ["2 of raspberry-pi-zero-2w wifi-sbc", "3 of raspberry-pi-5 wifi-sbc"]


def test_what_a_profile_does_not_know_is_said(capsys: pytest.CaptureFixture[str], mixed: Path) -> None:
    mixed.write_text(DEPLOYMENT.replace("raspberry-pi-5", "x86-vcpu"))
    assert main(["simulate", str(mixed)]) == 3
    assert "x86-vcpu: its profile does not say how fast it calculates: say --work TIME" in capsys.readouterr().err
    mixed.write_text(DEPLOYMENT.replace("raspberry-pi-5", "stm32l4r5"))
    slow, unknown = simulated(capsys, mixed)["energy"]["classes"]
    assert (unknown["joules_per_device"], slow["joules_per_device"] > 0) == (None, True)
    assert "power.idle_w" in unknown["reason"]


def test_a_machine_s_own_class_has_no_part_in_a_simulation(capsys: pytest.CaptureFixture[str], mixed: Path) -> None:
    for name in ("n100-gateway", "raspberry-pi-zero-2w", "raspberry-pi-5"):
        mixed.write_text(mixed.read_text().replace(f'profile = "{name}"\n', ""))
    found = simulated(capsys, mixed)
    assert (found["energy"], found["virtual_s"]) == (None, 0)


def test_a_radio_has_a_rate_for_each_way_and_losses(tmp_path: Path) -> None:
    board = load_profile("android-phone")
    assert Class(board, load_radio("lte-pixel-4a")).link == LinkSpec(750e3, 0.0, 0.0, down_rate=1625e3)
    assert Class(board, load_radio("lte-m-nrf9160")).link.down_rate == 22.5e3, "as fast as up where only that is known"
    known = 'how = "read", source = "s" }'
    (tmp_path / "mine.toml").write_text(
        f'name = "m"\ntitle = "M"\nkind = "lora"\nsources.s = "S"\n[rate]\nup_bytes_per_s = {{ value = 100, {known}\n'
        f"delay_s = {{ value = 0.5, {known}\nloss_ratio = {{ value = 0.02, {known}\n"
    )
    link = Class(board, load_radio(tmp_path / "mine.toml")).link
    assert link == LinkSpec(100.0, 0.5, 0.02, down_rate=100.0)
    slow = (tmp_path / "mine.toml").read_text().replace("up_bytes_per_s", "wake_s")
    (tmp_path / "slow.toml").write_text(slow)
    assert Class(board, load_radio(tmp_path / "slow.toml")).link == LinkSpec(delay_s=0.5, loss=0.02)
    assert Class(board, load_radio("nb-iot-nrf9160")).link is DIRECT
    links = Links(lambda node: LinkSpec(100.0, 0.0, down_rate=1000.0))
    assert (links.arrival("a", "up", 1000, 0.0), links.arrival("a", "down", 1000, 0.0)) == (10.0, 1.0)


def test_measured_speed_goes_before_what_others_publish(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "firmware_profiles" / "raspberry-pi-4b.toml").read_text()
    measured = '[compute]\ntraining_macs_per_s = { value = 1e9, how = "measured", source = "edgemw" }'
    (tmp_path / "mine.toml").write_text(text.replace("[compute]", measured))
    assert class_of(str(tmp_path / "mine.toml")).training_s(1_000_000, 100) == pytest.approx(0.3)
    assert class_of("raspberry-pi-4b").training_s(1_000_000, 100) == pytest.approx(3e8 / (11.889e9 / 4)), "one core of four"
    with pytest.raises(ConfigError, match="calibrate"):
        class_of("x86-vcpu").training_s(1, 1)


def test_watts_of_one_core_count_for_every_core(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "firmware_profiles" / "x86-vcpu.toml").read_text()
    (tmp_path / "two.toml").write_text(text.replace("cores = { value = 1", "cores = { value = 2"))
    usage = Usage(seconds=10, utilisation=0.5)
    one, two = class_of("x86-vcpu").joules(usage), class_of(str(tmp_path / "two.toml")).joules(usage)
    assert [one.idle, two.idle] == pytest.approx([7.4, 14.8])
    assert one.cpu == pytest.approx(two.cpu), "the same work, on one core of two"


def test_the_example_of_the_documentation_is_true(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    root = BUNDLE.parents[2]
    text = (root / "docs" / "simulation.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "two.toml").write_text(example.replace("examples/", f"{root}/examples/"))
    assert main(["simulate", str(tmp_path / "two.toml")]) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  energy ")]
    told = re.findall(r"^  energy .*$", text, re.MULTILINE)
    number = r"\d+\.?\d*"
    assert [re.sub(number, "#", line) for line in said] == [re.sub(number, "#", line) for line in told] != []
    found, written = ([float(value) for value in re.findall(number, "".join(lines))] for lines in (said, told))
    assert found == pytest.approx(written, rel=0.05)


def test_a_simulation_wants_a_class_by_its_name(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", str(mixed), "--profile", "auto"]) == 3
    assert "--profile: needs a name" in capsys.readouterr().err
