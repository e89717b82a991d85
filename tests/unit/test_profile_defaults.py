"""What a class of devices decides where files say nothing, who wins over it, and that `edgemw config explain` says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgemw.app.settings import Deployment, DeviceFile, FogFile, load_file
from edgemw.cli.main import main
from edgemw.core.errors import ConfigError

BOARD = """\
name = "board"
title = "Board"
kind = "sbc"
runs = "python"
[defaults]
training.threads = { value = 3, how = "measured", source = "m" }
training.max_batch = { value = 8, how = "measured", source = "m" }
energy.interval = { value = "5s", how = "measured", source = "m" }
telemetry.publish = { value = "1m", how = "measured", source = "m" }
[sources]
m = "M"
"""
DEVICE = 'net = "n"\nnode = { id = "d", parent = "top", profile = "board.toml" }\n'
FOG = 'net = "n"\nnode = { id = "f", parent = "top", profile = "board.toml" }\n'
DEPLOYMENT = """\
name = "n"
data.source = "digits"
[tiers.top]
role = "fog"
profile = "board.toml"
[tiers.device]
role = "device"
parent = "top"
profile = "board.toml"
[tiers.other]
role = "device"
parent = "top"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "board.toml").write_text(BOARD)
    (tmp_path / "device.toml").write_text(DEVICE)
    (tmp_path / "fog.toml").write_text(FOG)
    (tmp_path / "deployment.toml").write_text(DEPLOYMENT)
    return tmp_path


def test_a_device_has_what_its_class_says(folder: Path) -> None:
    loaded = load_file(DeviceFile, folder / "device.toml", env={})
    device = loaded.value
    assert (device.training.threads, device.training.max_batch) == (3, 8)
    assert (float(device.energy.interval), float(device.telemetry.publish)) == (5, 60)
    assert device.node.profile == str(folder / "board.toml"), "relative to the file that names it"
    assert loaded.origin("training.threads") == "profile board"
    assert loaded.origin("training.nice") == "default"


def test_file_environment_and_flag_win_over_the_class(folder: Path) -> None:
    path = folder / "device.toml"
    path.write_text(DEVICE + "[training]\nthreads = 2\n")
    env = {"EDGEMW_TRAINING__MAX_BATCH": "16"}
    loaded = load_file(DeviceFile, path, env=env, overrides=["energy.interval=7s"])
    assert (loaded.value.training.threads, loaded.value.training.max_batch, float(loaded.value.energy.interval)) == (2, 16, 7)
    origins = [loaded.origin(key) for key in ("training.threads", "training.max_batch", "energy.interval", "telemetry.publish")]
    assert origins == [f"{path}:4", "environment EDGEMW_TRAINING__MAX_BATCH", "flag", "profile board"]


def test_a_class_that_a_flag_names_counts_too(folder: Path) -> None:
    loaded = load_file(DeviceFile, folder / "device.toml", env={}, overrides=["node.profile="])
    assert (loaded.value.training.threads, loaded.origin("training.threads")) == (1, "default")
    loaded = load_file(DeviceFile, folder / "device.toml", env={}, overrides=["node.profile=raspberry-pi-zero-2w"])
    assert loaded.origin("energy.interval") == "profile raspberry-pi-zero-2w"


def test_a_fog_node_takes_what_it_has_a_setting_for(folder: Path) -> None:
    loaded = load_file(FogFile, folder / "fog.toml", env={})
    assert (float(loaded.value.energy.interval), loaded.origin("telemetry.publish")) == (5, "profile board")


def test_a_class_that_is_detected_counts_for_a_node_and_not_for_a_deployment(folder: Path) -> None:
    (folder / "proc" / "device-tree").mkdir(parents=True)
    (folder / "proc" / "device-tree" / "model").write_text("Raspberry Pi Zero 2 W Rev 1.0\0")
    detected = [f"energy.procfs={folder / 'proc'}", "node.profile=auto"]
    loaded = load_file(DeviceFile, folder / "device.toml", env={}, overrides=detected)
    assert loaded.origin("energy.interval") == "profile raspberry-pi-zero-2w"
    overrides = [f"energy.procfs={folder / 'proc'}", "tiers.device.profile=auto", "tiers.top.profile=auto"]
    deployment = load_file(Deployment, folder / "deployment.toml", env={}, overrides=overrides)
    assert deployment.origin("tiers.device.energy.interval") == "default"


def test_tiers_of_a_deployment_have_what_their_own_class_says(folder: Path) -> None:
    loaded = load_file(Deployment, folder / "deployment.toml", env={})
    tiers = loaded.value.tiers
    assert [tiers[name].training.threads for name in ("top", "device", "other")] == [1, 3, 1]
    assert [float(tiers[name].energy.interval) for name in ("top", "device", "other")] == [5, 5, 1]
    assert loaded.origin("tiers.device.training.threads") == "profile board"


def test_what_a_deployment_says_for_all_tiers_wins_over_a_class(folder: Path) -> None:
    path = folder / "deployment.toml"
    path.write_text(DEPLOYMENT + "[training]\nthreads = 2\n[tiers.other.energy]\ninterval = '9s'\n")
    loaded = load_file(Deployment, path, env={"EDGEMW_ENERGY__INTERVAL": "3s"})
    device, other = loaded.value.tiers["device"], loaded.value.tiers["other"]
    assert (device.training.threads, device.training.max_batch) == (2, 8)
    assert (float(device.energy.interval), float(other.energy.interval)) == (3, 9)
    assert loaded.origin("tiers.device.training.threads") == f"{path}:14"


def test_explain_says_which_class_decided(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "explain", "training.threads", "--config", str(folder / "device.toml"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["training.threads"]
    assert (found["value"], found["origin"]) == ("3", "profile board")


@pytest.mark.parametrize(
    ("line", "key", "words"),
    [
        ("serving.keep = { value = 3", "defaults.serving", "unknown key"),
        ("training.nice = { value = 3", "defaults.training.nice", "unknown key"),
        ("training.threads = { value = 1000", "defaults.training.threads.value", "1000 cannot be: it is from 1 to 256"),
        ("training.max_batch = { value = 0", "defaults.training.max_batch.value", "must be at least 1"),
        ("energy.interval = { value = 5", "defaults.energy.interval.value", "expected a duration"),
        ("energy.interval = { value = '2m'", "defaults.energy.interval.value", "2m cannot be: it is from 0.1s to 1m"),
        ("telemetry.publish = { value = '0s'", "defaults.telemetry.publish.value", "0s cannot be: it is from 1s to 1h"),
    ],
)
def test_a_default_that_no_node_can_have_is_refused(folder: Path, line: str, key: str, words: str) -> None:
    head, _, tail = BOARD.partition("[defaults]\n")
    sources = tail[tail.index("[sources]") :]
    (folder / "board.toml").write_text(f"{head}[defaults]\n{line}, how = 'measured', source = 'm' }}\n{sources}")
    with pytest.raises(ConfigError, match=str(folder / "board.toml")) as caught:
        load_file(DeviceFile, folder / "device.toml", env={})
    assert f"{key}: " in str(caught.value)
    assert words in str(caught.value)
