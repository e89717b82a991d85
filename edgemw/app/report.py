"""What a run on one machine leaves behind: `report.json`, a picture, one screen."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgemw.core.errors import EdgeError


@dataclass(frozen=True, slots=True)
class Round:
    """One line of the history: what was known of a release when the next one was made."""

    release: int
    wall_s: float
    metrics: dict[str, float]
    uplink_bytes: int
    downlink_bytes: int
    updates_counted: int
    weight_counted: int
    late: tuple[str, ...]


@dataclass(slots=True)
class Report:
    """A run; `metric` is the name of the task's first metric."""

    name: str
    metric: str
    devices: int
    finished: bool = False
    wall_s: float = 0.0
    updates_sent: int = 0
    weight_sent: int = 0
    updates_returned: int = 0
    weight_returned: int = 0
    restarts: dict[str, int] = field(default_factory=dict)
    nodes: list[dict[str, Any]] = field(default_factory=list)
    rounds: list[Round] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """The numbers that a script wants, flat."""
        last = self.rounds[-1] if self.rounds else Round(-1, 0.0, {}, 0, 0, 0, 0, ())
        measured = [r for r in self.rounds if self.metric in r.metrics]
        value = measured[-1].metrics[self.metric] if measured else None
        return {
            "name": self.name,
            "finished": self.finished,
            self.metric: value,
            "rounds": max(last.release, 0),
            "devices": self.devices,
            "wall_s": round(self.wall_s, 3),
            "uplink_bytes": last.uplink_bytes,
            "downlink_bytes": last.downlink_bytes,
            "updates_sent": self.updates_sent,
            "updates_counted": last.updates_counted,
            "weight_sent": self.weight_sent,
            "weight_counted": last.weight_counted,
            "updates_returned": self.updates_returned,
            "weight_returned": self.weight_returned,
            "restarts": self.restarts,
        }

    def write(self, folder: Path) -> Path:
        """Write report.json and give its path."""
        path = folder / "report.json"
        rounds = [
            {
                "release": r.release,
                "wall_s": round(r.wall_s, 3),
                **r.metrics,
                "uplink_bytes": r.uplink_bytes,
                "downlink_bytes": r.downlink_bytes,
                "updates_counted": r.updates_counted,
                "weight_counted": r.weight_counted,
                "late": list(r.late),
            }
            for r in self.rounds
        ]
        path.write_text(json.dumps(self.summary() | {"rounds_history": rounds, "nodes": self.nodes}, indent=1) + "\n")
        return path

    def draw(self, folder: Path) -> Path | None:
        """Draw the metric against bytes and against time; None where matplotlib is not installed."""
        try:
            import matplotlib
        except ImportError:
            return None
        matplotlib.use("Agg")
        from matplotlib import pyplot

        points = [r for r in self.rounds if self.metric in r.metrics]
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
        path = folder / "report.png"
        figure.savefig(path, dpi=110)
        pyplot.close(figure)
        return path

    def screen(self, files: list[Path]) -> str:
        """The summary for people."""
        summary = self.summary()
        value = summary[self.metric]
        up, down = summary["uplink_bytes"], summary["downlink_bytes"]
        rounds = max(summary["rounds"], 1)
        lines = [
            f"{self.name}: {'finished' if self.finished else 'stopped'} after {summary['rounds']} rounds in {self.wall_s:.1f} s",
            f"  {self.metric:<18}{'not measured' if value is None else f'{value:.4f}'}",
            f"  {'devices':<18}{self.devices}",
            f"  {'sent up':<18}{amount(up)} by all devices, {amount(up / self.devices / rounds)} per device and round",
            f"  {'sent down':<18}{amount(down)} to all devices, {amount(down / self.devices / rounds)} per device and round",
            f"  {'updates':<18}{summary['updates_sent']} sent, {summary['updates_counted']} counted",
            f"  {'examples':<18}{summary['weight_sent']} sent, {summary['weight_counted']} counted",
        ]
        if self.updates_returned:
            text = f"{self.updates_returned} updates came too late and went back into their devices' residuals"
            lines.append(f"  {'returned':<18}{text}")
        if self.restarts:
            lines.append(f"  {'restarted':<18}{', '.join(f'{node} {count}x' for node, count in self.restarts.items())}")
        wrong = [node for node in self.nodes if node["reason"]]
        lines += [f"  {node['node']:<18}{node['state']}: {node['reason']}" for node in wrong[:8]]
        lines += [f"  {path.name:<18}{path}" for path in files]
        return "\n".join(lines)


def amount(size_bytes: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "kB", "MB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.2f} GB"


def open_folder(path: Path) -> Path:
    """Make the folder of a run. Raises EdgeError if it cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EdgeError(f"{path}: {error.strerror}: give another folder with --out") from error
    return path.absolute()
