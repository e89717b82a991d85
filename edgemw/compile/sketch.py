"""A model that is a sketch: for every class the sum of its samples' features, and how many there are. It is learned in one round.

    phi <- phi min(1, C / |phi|) ;  B = sum over samples of [phi, C] (x) e_y        C: clip
    score of class c = phi . m_c - |m_c|^2 / 2 ,  m_c = C B_c[:d] / B_c[d]          the largest is that of the nearest mean;
                       -1e9 where B_c[d] says that next to nobody has samples of it

The loss of a sample is -[phi, C] . B_y, whose gradient is minus its part of the sum: so with lr = 1 and `privacy.unit = "sample"`
an update *is* the sketch of a device, at whatever B it began, and a bound of sqrt(2) C (`privacy.clip`) cuts nothing off. It has
K (d + 1) numbers, where a network has many thousand: what a small fleet can afford to hide single samples in.

Source: prototypes: Snell, Swersky and Zemel, NeurIPS 2017, section 2.3, with fixed features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_LEAST = 0.01  # of the mean number of samples in a class; with fewer, or as noise has it less than none, there is no mean
_NEVER = -1e9


class ClassMeans(nn.Module):
    """float32[B, ...] to scores float32[B, classes]; while it trains to products with the sums, for `own_class`.

    Args:
        features: d, how many `embed` gives.
        classes: K.
        clip: largest norm of a sample's features; longer ones are shortened.
        embed: from samples to float32[B, d]; left out, samples are flattened. Freeze its tensors: `frozen=("embed.*",)`. It is
            in evaluation mode always, so that means are of the features that are predicted from, and one sample is enough.
    """

    def __init__(self, features: int, classes: int, clip: float, embed: nn.Module | None = None) -> None:
        super().__init__()
        self.embed = embed or nn.Flatten()
        self.clip = clip
        self.sums = nn.Parameter(torch.zeros(classes, features + 1))
        self.embed.eval()

    def train(self, mode: bool = True) -> ClassMeans:
        """As of any module, but `embed` stays as it is."""
        super().train(mode)
        self.embed.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        phi: Tensor = self.embed(x)
        phi = phi * (self.clip / phi.norm(dim=1, keepdim=True).clamp_min(1e-12)).clamp_max(1.0)
        sums: Tensor = self.sums
        if self.training:
            return phi @ sums[:, :-1].T + self.clip * sums[:, -1]
        counts = sums[:, -1:] / self.clip
        least = _LEAST * counts.mean().clamp_min(0.0) + 1e-6
        means = sums[:, :-1] / torch.maximum(counts, least)
        return torch.where(least <= counts.T, phi @ means.T - 0.5 * means.square().sum(1), _NEVER)


def own_class(outputs: Tensor, target: Tensor) -> Tensor:
    """Mean of -outputs[target]; outputs [B, classes], target int64[B]."""
    return -outputs.gather(1, target.unsqueeze(1)).mean()
