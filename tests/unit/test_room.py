"""Whether a plan fits a class of devices: refused with the key, what is needed, what there is, and what to do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgemw.app.room import Load, check_fits, check_task, class_here, largest_batch, memory_bytes
from edgemw.app.sections import Codec, Limits, Serving
from edgemw.app.settings import DeviceFile, load_file
from edgemw.cli.main import main
from edgemw.core.bundle import read_bundle
from edgemw.core.errors import BundleError, ConfigError
from edgemw.profiles.catalogue import load_profile
from edgemw.profiles.device import Profile

EXAMPLE = Path(__file__).parents[2] / "examples" / "quickstart"
BUNDLE = read_bundle((EXAMPLE / "digits.edge").read_bytes())
MIB = 1 << 20
RAM, PACKET, BATCH = "memory.ram_bytes = {{ value = '{}'", "limits.packet_bytes = { value = 2048", "limits.batch = { value = 16"
BOARD = """\
name = "board"
title = "Board"
kind = "sbc"
runs = "python"
{}
[sources]
m = "M"
"""


def board(folder: Path, *lines: str) -> Path:
    path = folder / "board.toml"
    path.write_text(BOARD.format("\n".join(f"{line}, how = 'measured', source = 'm' }}" for line in lines)))
    return path


def checked(folder: Path, *words: str, line: str) -> int:
    sets = [part for word in (f"tiers.device.profile={board(folder, line)}", *words) for part in ("--set", word)]
    return main(["check", str(EXAMPLE / "edgemw.toml"), *sets])


@pytest.mark.parametrize(
    ("line", "words", "key", "said"),
    [
        (
            "memory.ram_bytes = { value = '95MiB'",
            [],
            "edgemw.toml:14: task.bundle",
            "96 MiB of memory is needed, and board has 95",
        ),
        ("limits.memory_bytes = { value = '95MiB'", [], "task.bundle", "use a smaller model than 50826 parameters"),
        ("memory.ram_bytes = { value = '97MiB'", ["codec.use=powersgd"], "codec.use", "'lattice' takes less"),
        ("memory.ram_bytes = { value = '97MiB'", ["plan.batch_size=512"], "plan.batch_size", "training.max_batch = 157 or less"),
        ("limits.batch = { value = 16", [], "plan.batch_size", "a batch of 32 samples is needed, and board has 16"),
        ("limits.codecs = { value = ['dense']", [], "codec.use", "codec 'lattice' is needed, and board has dense"),
        ("limits.update_bytes = { value = '200kB'", ["codec.use=dense"], "codec.use", "an update of 203309 bytes"),
        ("limits.chunk_bytes = { value = '64kB'", [], "limits.max_message_bytes", "max_message_bytes = 64000 or less"),
        ("limits.packet_bytes = { value = '64kB'", [], "limits.max_message_bytes", "max_message_bytes = 63488 or less"),
        ("memory.flash_bytes = { value = '600kB'", [], "serving.keep", "a bundle and 3 releases is needed"),
        ("memory.flash_bytes = { value = '200kB'", [], "task.bundle", "use a smaller model"),
    ],
)
def test_what_does_not_fit_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, words: list[str], key: str, said: str
) -> None:
    assert checked(tmp_path, *words, line=line) == 3
    error = capsys.readouterr().err
    assert f"{key}: " in error
    assert said in error


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("memory.ram_bytes = { value = '97MiB'", []),
        ("memory.ram_bytes = { value = '97MiB'", ["plan.batch_size=512", "tiers.device.training.max_batch=157"]),
        ("limits.batch = { value = 16", ["training.max_batch=16"]),
        ("limits.codecs = { value = ['dense', 'lattice']", []),
        ("limits.chunk_bytes = { value = '64kB'", ["limits.max_message_bytes=64000"]),
        ("limits.packet_bytes = { value = '64kB'", ["limits.max_message_bytes=63488"]),
        ("memory.flash_bytes = { value = '600kB'", ["tiers.device.serving.keep=2"]),
    ],
)
def test_what_the_refusal_advises_is_accepted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, words: list[str]
) -> None:
    assert checked(tmp_path, *words, line=line) == 0
    assert "room device  a device takes about 9" in capsys.readouterr().out


def test_the_messages_of_a_radio_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = board(tmp_path)
    path.write_text('radios = ["lorawan-eu868-sf12"]\n' + path.read_text())
    words = ["--set", f"tiers.device.profile={path}"]
    assert main(["check", str(EXAMPLE / "edgemw.toml"), *words]) == 3
    assert "a message over lorawan-eu868-sf12 of 120000 bytes is needed, and board has 51" in capsys.readouterr().err


def test_chunks_of_the_top_are_what_a_release_comes_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = ["tiers.device.limits.max_message_bytes=60kB"]
    assert checked(tmp_path, *own, line="limits.chunk_bytes = { value = '64kB'") == 3
    assert "tiers.top.limits.max_message_bytes" in capsys.readouterr().err


def test_a_class_without_python_is_a_warning_only(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--set", "tiers.device.profile=esp32-s3"]
    assert main(["check", str(EXAMPLE / "edgemw.toml"), *words]) == 0
    assert "edgemw does not run on esp32-s3" in capsys.readouterr().err


def test_up_refuses_it_before_anything_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--set", f"tiers.device.profile={board(tmp_path, BATCH)}"]
    assert main(["up", str(EXAMPLE / "edgemw.toml"), "--out", str(tmp_path / "run"), *words]) == 3
    assert "a batch of 32 samples is needed" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_file_of_a_device_is_checked_against_its_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--set", f"node.profile={board(tmp_path, PACKET)}"]
    assert main(["check", str(EXAMPLE / "device.toml"), *words]) == 3
    assert "limits.max_message_bytes = 1536 or less" in capsys.readouterr().err
    words = ["--set", f"node.profile={board(tmp_path, RAM.format('64MiB'))}"]
    assert main(["check", str(EXAMPLE / "device.toml"), *words]) == 3
    assert "node.profile: about 89 MiB of memory is needed, and board has 64 MiB" in capsys.readouterr().err


def device_of(*overrides: str) -> DeviceFile:
    return load_file(DeviceFile, EXAMPLE / "device.toml", env={}, overrides=overrides).value


def test_a_device_that_starts_refuses_a_task_that_does_not_fit(tmp_path: Path) -> None:
    device = device_of(f"node.profile={board(tmp_path, RAM.format('95MiB'))}")
    with pytest.raises(BundleError, match=r"task 'digits' does not fit this device: .*96 MiB of memory is needed"):
        check_task(class_here(device), device, BUNDLE)
    check_task(class_here(device_of("node.profile=raspberry-pi-zero-2w")), device, BUNDLE)
    check_task(None, device, BUNDLE)


@pytest.mark.parametrize(("max_batch", "most"), [(0, 16), (8, 8), (64, 16)])
def test_a_device_that_runs_keeps_to_the_batch_of_its_class(tmp_path: Path, max_batch: int, most: int) -> None:
    device = device_of(f"node.profile={board(tmp_path, BATCH)}", f"training.max_batch={max_batch}")
    assert largest_batch(class_here(device), device.training) == most
    assert largest_batch(None, device.training) == max_batch
    check_task(class_here(device), device, BUNDLE)  # whose batches are of 32


def test_a_class_that_was_detected_has_the_memory_of_its_machine(tmp_path: Path) -> None:
    (tmp_path / "device-tree").mkdir()
    (tmp_path / "device-tree" / "model").write_text("Raspberry Pi 4 Model B Rev 1.4\0")
    found = class_here(device_of(f"energy.procfs={tmp_path}", "node.profile=auto"))
    assert found is not None
    assert found.memory.ram_bytes is not None
    assert (found.name, found.memory.ram_bytes.how) == ("raspberry-pi-4b", "measured")
    assert class_here(device_of("node.profile=")) is None


def test_memory_grows_with_parameters_batch_codec_and_service() -> None:
    small = Load(BUNDLE.manifest, 32, Codec())
    taken = memory_bytes(small, Serving())
    assert 95 * MIB < taken < 98 * MIB
    assert memory_bytes(replace(small, batch=512), Serving()) > taken + MIB
    assert memory_bytes(replace(small, codec=Codec(use="powersgd")), Serving()) == taken + 7 * 4 * BUNDLE.manifest.size
    assert memory_bytes(small, Serving(process=True)) == taken + 60 * MIB
    assert memory_bytes(Load(), Serving()) < taken


def test_every_class_that_runs_edgemw_can_train_the_quickstart() -> None:
    load = Load(BUNDLE.manifest, 32, Codec(), (EXAMPLE / "digits.edge").stat().st_size)
    for name in ("raspberry-pi-zero-2w", "raspberry-pi-3b", "raspberry-pi-4b", "jetson-nano", "x86-vcpu"):
        profile: Profile = load_profile(name)
        check_fits(profile, load, Limits(), Serving(), "tiers.device.")


def test_a_model_that_no_small_board_can_hold_is_refused() -> None:
    large = replace(BUNDLE.manifest, layout=(replace(BUNDLE.manifest.layout[0], shape=(2_000_000, 1)),))
    with pytest.raises(ConfigError, match="raspberry-pi-zero-2w has 352 MiB"):
        check_fits(load_profile("raspberry-pi-zero-2w"), Load(large, 1, Codec()), Limits(), Serving(), "")
