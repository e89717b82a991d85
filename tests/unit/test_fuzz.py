"""The fuzzer: a thousand seeds hold, the same seed is the same run, and what is broken on purpose is found."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgemw.cli.main import main
from edgemw.device.cycle import Cycle
from edgemw.device.events import Left
from edgemw.fog import unmasking
from edgemw.fog.collector import Collector
from edgemw.fog.forwarder import Forwarder
from edgemw.fog.ledger import Ledger
from edgemw.fog.protection import Protected
from edgemw.fog.window import Window
from edgemw.simulation.fuzz.batch import SOMETIMES_AFTER, never_seen, run_many, run_one
from edgemw.simulation.fuzz.options import FAULTS, from_json, options_of, to_json
from edgemw.simulation.fuzz.storm import _FAULTS, Storm
from edgemw.wire.chunks import Assembler
from edgemw.wire.messages import Chunk, Update

SEEDS = Path(__file__).parents[1] / "seeds"
Plant = Callable[[pytest.MonkeyPatch], None]


def test_a_thousand_seeds_hold_and_everything_happens_in_some() -> None:
    results = [*run_many([*map(options_of, range(1000))], os.cpu_count() or 1)]
    assert [(result.options.seed, result.failure) for result in results if result.failure] == []
    assert never_seen(results) == []
    assert {fault for fault in FAULTS if not any(result.seen.get(f"fault {fault}") for result in results)} == set()


@pytest.mark.parametrize("path", sorted(SEEDS.glob("*.json")), ids=lambda path: path.stem)
def test_what_once_failed_holds(path: Path) -> None:
    assert run_one(from_json(json.loads(path.read_text())["options"])).failure == ""


def digest(seed: int) -> tuple[str, float]:
    seen = hashlib.sha256()

    class Watched(Storm):
        def step(self) -> None:
            name, event = self.queue[0]
            seen.update(f"{self.now} {name} {event}".encode())
            super().step()

    storm = Watched(options_of(seed))
    storm.run_through()
    return seen.hexdigest(), storm.now


@pytest.mark.parametrize("seed", [3, 45, 196])
def test_the_same_seed_is_the_same_run(seed: int) -> None:
    assert digest(seed) == digest(seed)


def test_options_survive_a_file() -> None:
    for seed in range(200):
        options = options_of(seed)
        assert from_json(json.loads(json.dumps(to_json(options)))) == options
        assert set(options.devices.values()) <= {"top", *options.fogs}
        assert set(options.fogs.values()) <= {"top", *options.fogs}


def test_every_kind_of_fault_is_there() -> None:
    assert set(_FAULTS) == set(FAULTS)


# ------------------------------------------------------------------------------------------------------ broken on purpose


def no_duplicate_check(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Ledger, "seen", lambda self, update: False)


def acknowledged_before_stored(patch: pytest.MonkeyPatch) -> None:
    on_update = Collector.on_update
    patch.setattr(Collector, "on_update", lambda self, *given: [*reversed(on_update(self, *given))])


def residual_forgotten(patch: pytest.MonkeyPatch) -> None:
    begin = Cycle.__init__

    def forgetful(self: Cycle, place: Any, task: str, left: Left, *rest: Any, **named: Any) -> None:
        memory = replace(left.memory, residual=None)
        begin(self, place, task, replace(left, memory=memory), *rest, **named)

    patch.setattr(Cycle, "__init__", forgetful)


def window_never_closes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Window, "ready", lambda self, now: False)


def weight_not_forwarded(patch: pytest.MonkeyPatch) -> None:
    merged = Forwarder._merged

    def light(*given: Any) -> tuple[Update, Protected] | None:
        made = merged(*given)
        if made is None:
            return None
        update, window = made
        return replace(update, sections=tuple(replace(section, weight=section.count) for section in update.sections)), window

    patch.setattr(Forwarder, "_merged", light)


def chunk_index_trusted(patch: pytest.MonkeyPatch) -> None:
    def add(self: Assembler, chunk: Chunk) -> bytes | None:
        self._parts[chunk.index] = chunk.data
        if len(self._parts) < self.blob.chunks:
            return None
        return b"".join(self._parts[index] for index in sorted(self._parts))

    patch.setattr(Assembler, "add", add)


def masks_of_the_dropped_stay(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(unmasking, "take_off_pairs", lambda *given: None)


@pytest.mark.parametrize(
    ("plant", "found"),
    [
        (no_duplicate_check, ("do not agree", "counted twice", "off the mean", "forwards")),
        (acknowledged_before_stored, ("acknowledged",)),
        (residual_forgotten, ("has lost or doubled",)),
        (window_never_closes, ("does not end",)),
        (weight_not_forwarded, ("forwards",)),
        (masks_of_the_dropped_stay, ("something else than its window", "off the mean")),
        (chunk_index_trusted, ("takes another", "WireError")),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_broken_on_purpose_is_found(plant: Plant, found: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    failures = (run_one(options_of(seed)).failure for seed in range(1000))
    failure = next((failure for failure in failures if failure), "")
    assert any(words in failure for words in found), failure or "not found in a thousand seeds"


# --------------------------------------------------------------------------------------------------------------- command


def test_the_command_says_what_it_saw(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["fuzz", "--seeds", "3", "--workers", "1", "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "3 seeds, 0 failed"
    assert not (tmp_path / "out").exists()


def test_a_failing_seed_is_written_and_can_be_run_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    window_never_closes(monkeypatch)
    assert main(["fuzz", "--seeds", "1", "--first", "7", "--workers", "1", "--out", str(tmp_path), "--json"]) == 1
    (failed,) = json.loads(capsys.readouterr().out)["failed"]
    assert "does not end" in failed["failure"]
    assert json.loads((tmp_path / "7.json").read_text()) == failed
    assert main(["fuzz", "--replay", str(tmp_path), "--workers", "1", "--out", str(tmp_path)]) == 1
    monkeypatch.undo()
    assert main(["fuzz", "--replay", str(tmp_path / "7.json"), "--workers", "1"]) == 0


def test_a_batch_that_sees_nothing_fails(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgemw.simulation.fuzz.storm.Storm._count", lambda self, fact, values: None)
    assert main(["fuzz", "--seeds", str(SOMETIMES_AFTER), "--workers", "1"]) == 1
    assert "! never seen: a duplicate was dropped" in capsys.readouterr().out


def test_whatever_goes_wrong_is_a_failure_with_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Cycle, *given: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(Cycle, "handle", fails)
    failure = run_one(options_of(1)).failure
    assert failure.startswith("AssertionError in ")
    assert "test_fuzz.py:" in failure


def test_what_goes_in_a_circle_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cycle, "handle", lambda self, event, now: [event])  # what is asked for comes back at once
    monkeypatch.setattr(Storm, "_act", lambda self, name, action: self.give(name, action))
    assert "events at one moment" in run_one(options_of(1)).failure


@pytest.mark.parametrize(("text", "reason"), [("{}", "not a file that"), ("[", "not a file that"), (None, "No such file")])
def test_what_is_not_a_seed_is_refused(text: str | None, reason: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "1.json"
    if text is not None:
        path.write_text(text)
    assert main(["fuzz", "--replay", str(path)]) == 3
    assert reason in capsys.readouterr().err
    assert main(["fuzz", "--replay", str(tmp_path / "none")]) == 3


@pytest.mark.parametrize("flags", [["--seeds", "0"], ["--workers", "many"]])
def test_wrong_usage_ends_with_2(flags: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["fuzz", *flags])
    assert ended.value.code == 2
