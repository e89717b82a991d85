"""What goes with privacy.masks and what does not: refused where the file is read, with the key and what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgemw.app import masking
from edgemw.app.masking import check_library, check_masked_task
from edgemw.app.sections import Privacy
from edgemw.app.settings import Deployment, DeviceFile, FogFile, load_file
from edgemw.app.wiring import fog_options
from edgemw.bench.scenario import scenario_of
from edgemw.cli.check import check
from edgemw.core.errors import ConfigError
from edgemw.fog.release import TopOptions
from edgemw.simulation.toy import toy_bundle
from edgemw.storage import outbox
from edgemw.storage.database import Database
from edgemw.storage.outbox import GroupRow

FILE = """
name = "line"
[data]
source = "digits"
[codec]
use = "lanes"
parameters = {{ bits = 16, members = 300 }}
[privacy]
masks = true
{privacy}
[tiers.top]
role = "fog"
{top}
[tiers.fog]
role = "fog"
parent = "top"
count = {fogs}
{fog}
[tiers.device]
role = "device"
parent = "fog"
count = {devices}
"""


PATIENT = 'window = { deadline = "90s" }'


def path_of(folder: Path, *, fogs: int = 2, devices: int = 8, privacy: str = "", fog: str = "", top: str = PATIENT) -> Path:
    path = folder / "edgemw.toml"
    path.write_text(FILE.format(fogs=fogs, devices=devices, privacy=privacy, fog=fog, top=top))
    return path


def test_a_deployment_with_masks_is_taken_and_said(tmp_path: Path) -> None:
    report = check(path_of(tmp_path), None, [], {})
    assert dict(report.facts)["masks"] == "67 % of a group of devices take them off its sum"


@pytest.mark.parametrize(
    ("given", "key", "reason"),
    [
        ({"devices": 4}, "tiers.fog", "would add 2 devices"),
        ({"devices": 2}, "tiers.fog", "would add 1 device:"),
        ({"devices": 258}, "tiers.fog.count", "has 129 devices, and a group has 128"),
        ({"fog": "window = { k = 2 }"}, "tiers.fog.window.k", "and 3 of 4 devices take masks off"),
        ({"devices": 256, "fog": 'limits = { max_message_bytes = "10kB" }'}, "tiers.fog.limits.max_message_bytes", "14464 bytes"),
        (
            {"devices": 64, "fog": '[tiers.device.uplink]\nrate = "1kB"\nburst = "2048B"'},
            "tiers.device.uplink.burst",
            "in a group of 32 takes 2944 bytes",
        ),
        ({"privacy": "threshold = 101"}, "privacy.threshold", "at most 100"),
        ({"privacy": 'mode = "local"'}, "privacy.masks", "is added to lattice payloads"),
    ],
)
def test_what_does_not_go_is_refused_with_its_key(tmp_path: Path, given: dict[str, object], key: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as refused:
        load_file(Deployment, path_of(tmp_path, **given), env={})  # type: ignore[arg-type]  # as path_of's
    assert refused.value.key == key


@pytest.mark.parametrize(
    ("top", "fog", "warning"),
    [
        ("", "", "tiers.top.window.deadline: a group of fog takes up to 90s where devices are silent"),
        (PATIENT, 'window = { deadline = "31s" }', "tiers.top.window.deadline: a group of fog takes up to 93s"),
        ("window = { k = 1 }", "", "tiers.top.window.k: a group of fog that is not among the first 1 of 2 gives up"),
        ("window = { quorum = 2 }", "", ""),
        (PATIENT, "", ""),
    ],
)
def test_whoever_makes_releases_before_groups_are_through_is_warned(tmp_path: Path, top: str, fog: str, warning: str) -> None:
    said = [text for text in check(path_of(tmp_path, top=top, fog=fog), None, [], {}).warnings if "a group of" in text]
    assert len(said) == bool(warning)
    assert all(text.startswith(warning) for text in said)


def test_a_codec_without_lanes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"give codec.use = 'lanes'"):
        load_file(Deployment, path_of(tmp_path), env={}, overrides=["codec.use=lattice", "codec.parameters={}"])


def test_a_deadline_that_gives_windows_back_is_a_warning(tmp_path: Path) -> None:
    report = check(path_of(tmp_path), None, [], {})
    (warning,) = (text for text in report.warnings if "masks" in text)
    assert "quorum = 2" in warning or "quorum = 3" in warning
    assert not [
        text for text in check(path_of(tmp_path, fog="window = { quorum = 3 }"), None, [], {}).warnings if "masks" in text
    ]


def test_a_threshold_without_masks_changes_nothing_and_is_said(tmp_path: Path) -> None:
    report = check(path_of(tmp_path, privacy="threshold = 80"), None, ["privacy.masks=false"], {})
    assert "privacy.threshold: not used, since privacy.masks is false" in report.warnings


def test_the_top_says_it_in_every_release(tmp_path: Path) -> None:
    path = tmp_path / "top.toml"
    path.write_text('net = "n"\n[node]\nid = "top"\n[codec]\nuse = "lanes"\n[privacy]\nmasks = true\nthreshold = 80\n')
    options = fog_options(load_file(FogFile, path, env={}).value)
    assert isinstance(options, TopOptions)
    assert options.threshold == 80


def test_a_device_may_insist_and_may_not_decide(tmp_path: Path) -> None:
    path = tmp_path / "device.toml"
    text = 'net = "n"\n[node]\nid = "d"\nparent = "top"\n[privacy]\n'
    path.write_text(text + "require_masks = true\n")
    assert load_file(DeviceFile, path, env={}).value.privacy.require_masks
    path.write_text(text + "masks = true\n")
    with pytest.raises(ConfigError, match="masks"):
        load_file(DeviceFile, path, env={})


def test_a_task_whose_statistics_travel_beside_is_refused() -> None:
    from dataclasses import replace

    from edgemw.core.bundle import Slot

    layout = (Slot("w", (62,), 0), Slot("norm.running_mean", (2,), 62, False))
    manifest = replace(toy_bundle(64).manifest, layout=layout)
    with pytest.raises(ConfigError, match="running statistics travel beside the lanes"):
        check_masked_task(Privacy(masks=True), manifest, {})
    check_masked_task(Privacy(masks=True), manifest, {"personal": "norm.*"})
    check_masked_task(Privacy(), manifest, {})


def test_a_simulation_refuses_what_up_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = tmp_path / "toy.edge"
    bundle.write_bytes(toy_bundle(4).to_bytes())
    given = [f"task.bundle={bundle}"]
    assert scenario_of(path_of(tmp_path), None, 0, {}, given, train=False).tree.devices
    monkeypatch.setattr(masking, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'edgemw\[security\]'"):
        scenario_of(path_of(tmp_path), None, 0, {}, given, train=False)


def test_without_the_library_a_node_does_not_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'edgemw\[security\]'"):
        check_library(masks=True)
    check_library(masks=False)


def test_what_a_device_has_of_groups_is_on_its_disk(tmp_path: Path) -> None:
    first = GroupRow(7, 3, "fog-0", b"s" * 32, b"", (), b"")
    dealt = GroupRow(7, 4, "fog-0", b"t" * 32, b"group", (b"", b"box"), b"\x03")
    db = Database(tmp_path)
    with db.transaction():
        outbox.put_group(db, "digits", first)
        outbox.put_group(db, "digits", GroupRow(7, 4, "fog-0", b"t" * 32, b"", (), b""))
        outbox.put_group(db, "digits", dealt)
    db.close()
    db = Database(tmp_path)
    assert outbox.groups(db, "digits") == [first, dealt]
    assert outbox.groups(db, "other") == []
    with db.transaction():
        outbox.forget_groups(db, "digits", [(7, 3)])
    assert outbox.groups(db, "digits") == [dealt]
    db.close()


def test_who_masks_nothing_loads_no_cryptography() -> None:
    """Devices and fog nodes of a net without masks do without the library, and start without its time and memory."""
    code = "import sys, edgemw.device.agent, edgemw.fog.agent, edgemw.app.settings; sys.exit('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
