"""What a run on one machine leaves behind: `report.json`, a picture, one screen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

from edgemw.app.joules import energy_told, fleet_energy, points_gained
from edgemw.app.rounds import Round, round_of
from edgemw.core.errors import EdgeError

REPORT, PICTURE = "report.json", "report.png"
_MAX_LINES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounts:
    """Updates, and the training samples behind them; None where devices could not be asked.

    `bounded` is what of devices' claims fog nodes did not believe, where `window.robust` is on.
    """

    updates_sent: int | None = None
    updates_counted: int = 0
    weight_sent: int | None = None
    weight_counted: int = 0
    updates_returned: int | None = None
    weight_returned: int | None = None
    updates_bounded: int = 0
    weight_bounded: int = 0

    @property
    def waiting(self) -> int:
        """Updates that were sent and have no outcome; 0 where devices could not be asked."""
        sent = self.updates_sent or 0
        return max(0, sent - self.updates_counted - self.updates_bounded - (self.updates_returned or 0))

    @property
    def settled(self) -> bool:
        """Whether all that devices have sent was counted or returned, or was not believed."""
        updates = self.updates_counted + self.updates_bounded + (self.updates_returned or 0)
        weight = self.weight_counted + self.weight_bounded + (self.weight_returned or 0)
        return (self.updates_sent, self.weight_sent) == (updates, weight)


@dataclass(slots=True)
class Report:
    """A run.

    Attributes:
        metric: the name of the task's first metric.
        rounds_asked: releases after which the run ends by itself; 0 is without end.
        target: value of the metric at which it ends by itself; 0 is none.
        finished: whether it did all that it was to do.
        interrupted: whether a signal ended it before.
        error: what ended it, or made it useless.
        wall_s: seconds until the last release; what earlier runs in the same folder took is in it, the time between them not.
        failed: the nodes that could not run, and why.
        nodes: the last status of every node.
    """

    name: str
    metric: str
    devices: int
    rounds_asked: int = 0
    target: float = 0.0
    finished: bool = False
    interrupted: bool = False
    error: EdgeError | None = None
    wall_s: float = 0.0
    accounts: Accounts = field(default_factory=Accounts)
    restarts: dict[str, int] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    nodes: list[dict[str, Any]] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)

    def add(self, done: Round) -> None:
        """Take the report on a release.

        One on the same release, before the run was stopped and went on, gives way to it; but what only that one knows stays:
        devices measure a release once.
        """
        while self.rounds and self.rounds[-1].release >= done.release:
            earlier = self.rounds.pop()
            if earlier.release == done.release:
                done = replace(done, metrics=earlier.metrics | done.metrics)
        self.rounds.append(done)
        self.wall_s = done.wall_s
        self.accounts = replace(self.accounts, updates_counted=done.updates_counted, weight_counted=done.weight_counted)

    @property
    def reasons(self) -> dict[str, str]:
        """What nodes that ran said was not right with them."""
        return {node["node"]: node["reason"] for node in self.nodes if node["reason"] and node["node"] not in self.failed}

    def summary(self) -> dict[str, Any]:
        """The numbers that a script wants, flat."""
        last = self.rounds[-1] if self.rounds else Round(-1, 0.0, {}, 0, 0, 0, 0, ())
        measured = [r for r in self.rounds if self.metric in r.metrics]
        return {
            "name": self.name,
            "finished": self.finished,
            "interrupted": self.interrupted,
            "error": str(self.error) if self.error is not None else None,
            self.metric: measured[-1].metrics[self.metric] if measured else None,
            "rounds": max(last.release, 0),
            "rounds_asked": self.rounds_asked,
            "target": self.target,
            "devices": self.devices,
            "wall_s": round(self.wall_s, 3),
            "uplink_bytes": last.uplink_bytes,
            "downlink_bytes": last.downlink_bytes,
            **asdict(self.accounts),
            "energy": self._energy(),
            "restarts": self.restarts,
            "failed": self.failed,
            "reasons": self.reasons,
            **({"epsilon": last.metrics["epsilon"]} if "epsilon" in last.metrics else {}),
        }

    def _energy(self) -> dict[str, Any] | None:
        """Joules of all nodes, and for each round, megabyte, prediction and point; None where nobody knows any."""
        fleet = fleet_energy((node["node"], node["facts"]) for node in self.nodes)
        measured = [r.metrics[self.metric] for r in self.rounds if self.metric in r.metrics]
        rounds = max((r.release for r in self.rounds), default=0)
        return None if fleet is None else fleet.document(rounds, points_gained(self.metric, measured))

    def write(self, folder: Path) -> Path:
        """Write report.json and give its path."""
        path = folder / REPORT
        history = {"rounds_history": [r.row() for r in self.rounds], "nodes": self.nodes}
        path.write_text(json.dumps(self.summary() | history, indent=1) + "\n")
        return path

    @classmethod
    def read(cls, folder: Path, metric: str) -> Self | None:
        """The report that a folder holds; None where there is none.

        Raises:
            EdgeError: report.json is damaged.
        """
        path = folder / REPORT
        if not path.exists():
            return None
        try:
            document = json.loads(path.read_text())
            error = EdgeError(document["error"]) if document["error"] is not None else None
            accounts = Accounts(**{spec.name: document[spec.name] for spec in fields(Accounts) if spec.name in document})
            rounds = [round_of(row) for row in document["rounds_history"]]
            names = {spec.name for spec in fields(cls)} - {"metric", "error", "accounts", "rounds"}
            return cls(metric=metric, error=error, accounts=accounts, rounds=rounds, **{name: document[name] for name in names})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EdgeError(f"{path} is damaged: give another folder with --out") from error

    def draw(self, folder: Path) -> Path | None:
        """Draw the metric against bytes and against time; None where it was not measured or matplotlib is not installed."""
        points = [r for r in self.rounds if self.metric in r.metrics]
        try:
            import matplotlib
        except ImportError:
            return None
        if not points:
            return None
        matplotlib.use("Agg")
        from matplotlib import pyplot

        figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), sharey=True)
        values = [r.metrics[self.metric] for r in points]
        per_device = [(r.uplink_bytes + r.downlink_bytes) / self.devices / 1000 for r in points]
        uplink = [r.uplink_bytes / self.devices / 1000 for r in points]
        left.plot(per_device, values, label="up and down")
        left.plot(uplink, values, label="up")
        left.set_xscale("log")
        left.set_xlabel("kB per device")
        left.set_ylabel(self.metric)
        left.legend()
        right.plot([r.wall_s for r in points], values)
        right.set_xlabel("seconds")
        for axis in (left, right):
            axis.grid(alpha=0.3)
        figure.suptitle(f"{self.name}: {self.devices} devices, {self.summary()['rounds']} rounds")
        figure.tight_layout()
        path = folder / PICTURE
        figure.savefig(path, dpi=110)
        pyplot.close(figure)
        return path

    def screen(self, files: list[Path]) -> str:
        """The summary for people."""
        summary = self.summary()
        value = summary[self.metric]
        up, down = summary["uplink_bytes"], summary["downlink_bytes"]
        rounds, accounts = max(summary["rounds"], 1), self.accounts
        of = f" of {self.rounds_asked}" if self.rounds_asked and not self.finished else ""
        done = f"{'finished' if self.finished else 'stopped'} after {summary['rounds']}{of} rounds"
        lines = [
            f"{self.name}: {done} in {self.wall_s:.1f} s",
            f"  {self.metric:<18}{'not measured' if value is None else f'{value:.4f}'}",
            f"  {'devices':<18}{self.devices}",
            f"  {'sent up':<18}{amount(up)} by all devices, {amount(up / self.devices / rounds)} per device and round",
            f"  {'sent down':<18}{amount(down)} to all devices, {amount(down / self.devices / rounds)} per device and round",
            f"  {'updates':<18}{_sent(accounts.updates_sent)}, {accounts.updates_counted} counted",
            f"  {'examples':<18}{_sent(accounts.weight_sent)}, {accounts.weight_counted} counted",
        ]
        if "epsilon" in summary:
            lines.append(f"  {'epsilon':<18}{summary['epsilon']:.4g} after {summary['rounds']} releases")
        if summary["energy"] is not None:
            lines.append(f"  {'energy':<18}{energy_told(summary['energy'])}")
        if accounts.updates_returned:
            text = f"{accounts.updates_returned} updates were not taken and went back into their devices' residuals"
            lines.append(f"  {'returned':<18}{text}")
        if accounts.weight_bounded:
            lines.append(f"  {'not believed':<18}{accounts.weight_bounded} examples that devices claimed, by window.robust")
        if accounts.waiting > 0:
            lines.append(f"  {'on their way':<18}{accounts.waiting} updates, neither counted nor returned yet")
        if self.restarts:
            lines.append(f"  {'restarted':<18}{', '.join(f'{node} {count}x' for node, count in self.restarts.items())}")
        lines += _some([f"  {node:<18}could not run: {why}" for node, why in self.failed.items()])
        states = {node["node"]: node["state"] for node in self.nodes}
        lines += _some([f"  {node:<18}{states[node]}: {why}" for node, why in self.reasons.items()])
        lines += [f"  {path.name:<18}{path}" for path in files]
        return "\n".join(lines)


def _sent(count: int | None) -> str:
    return f"{'unknown' if count is None else count} sent"


def _some(lines: list[str]) -> Iterator[str]:
    yield from lines[:_MAX_LINES]
    if len(lines) > _MAX_LINES:
        yield f"  {'':<18}and {len(lines) - _MAX_LINES} more"


def amount(size_bytes: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "kB", "MB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.2f} GB"
