"""A household's next day: 672 readings of a meter, 15 minutes each, to the energy of the next 24 hours; 1 889 parameters."""

from torch import Tensor, nn

from edgemw.compile.task import Task


class Forecast(nn.Module):
    """The mean of the last seven days, hour by hour, and what a small convolution adds to it.

    Everything is in units of the home's own level, its mean over the window: homes that use little and homes that use much
    share one model, and nobody has to know a home's scale.
    """

    def __init__(self) -> None:
        super().__init__()
        first = nn.Sequential(nn.Conv1d(7, 16, 5, padding=2), nn.ReLU())
        second = nn.Sequential(nn.Conv1d(16, 16, 5, padding=2), nn.ReLU())
        self.change = nn.Sequential(first, second, nn.Conv1d(16, 1, 1), nn.Flatten())

    def forward(self, energy: Tensor) -> Tensor:
        """Readings [N, 672, 1] to the energy of the next hours [N, 24], both in kWh."""
        hours = energy.reshape(-1, 7, 24, 4).sum(3)  # a column is one hour of the day, and that of the forecast too
        level = hours.mean((1, 2), keepdim=True) + 0.01  # a home that stands empty uses nothing
        days = hours / level - 1
        forecast: Tensor = level[:, 0] * (1 + days.mean(1) + self.change(days))
        return forecast


task = Task(
    "household", Forecast, loss="l1", input=(672, 1), training={"lr": 0.02, "momentum": 0.9, "batch_size": 64, "epochs": 1}
)
