"""What `NeuralSSM`, `SRNN` and `AutoregressiveLSTM` have in common in PyTorch: ragged batches of series, and the emission."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minirnn.device import Array
from minirnn.models.state_space import StateSpaceConfig


class Inputs(NamedTuple):
    """N series, longest first, T steps of the longest, S frames in all; D numbers per frame."""

    x: Tensor  # (T, N, D), zero after a series' end
    before: Tensor  # (T, N, D) the frame before, zero at first
    turned: Tensor  # (T, N) the step that stands at this one's place in the series turned round
    rows: Tensor  # (S,) places of the real frames in (T, N)
    frames: Tensor  # (S, D) the real frames


def prepare(batch: list[Array], like: Tensor) -> Inputs:
    """The series of a batch, each (T_n, D)."""
    batch = sorted(batch, key=lambda series: -len(series))  # the loss does not care
    lengths = torch.tensor([len(series) for series in batch])
    x = nn.utils.rnn.pad_sequence([torch.from_numpy(np.asarray(series)).to(like.dtype) for series in batch])
    time = torch.arange(len(x))[:, None]  # (T, 1)
    inside = time < lengths  # (T, N)
    turned = torch.where(inside, lengths - 1 - time, time)
    rows = torch.nonzero(inside.flatten())[:, 0]
    return Inputs(x, F.pad(x, (0, 0, 0, 0, 1, 0))[:-1], turned, rows, x.flatten(0, 1)[rows])


def turn(x: Tensor, inputs: Inputs) -> Tensor:
    """Every series of x (T, N, .) turned round in time, each within its own length."""
    return x[inputs.turned, torch.arange(x.shape[1])]


def padded(noise: Array | None, inputs: Inputs, latent: int) -> Tensor:
    """(T, N, Z) from noise (S, Z), whose rows are the real frames step by step; drawn if None."""
    T, N, _ = inputs.x.shape
    if noise is None:
        return torch.randn(T, N, latent, dtype=inputs.x.dtype)
    whole = torch.zeros(T * N, latent, dtype=inputs.x.dtype)
    whole[inputs.rows] = torch.from_numpy(noise)
    return whole.view(T, N, latent)


class Observation(nn.Module):
    """Binary frames given u, through `hidden` tanh units if not 0."""

    def __init__(self, features: int, size: int, hidden: int, dropout: float) -> None:
        super().__init__()
        if hidden:
            self.hidden = nn.Linear(features, hidden)
        self.output = nn.Linear(hidden or features, size)
        self.dropout = nn.Dropout(dropout)

    def loss(self, u: Tensor, x: Tensor) -> Tensor:
        """-sum ln p(x | u) of all frames x (S, D)."""
        u = torch.tanh(self.hidden(u)) if hasattr(self, "hidden") else u
        return F.binary_cross_entropy_with_logits(self.output(self.dropout(u)), x, reduction="sum")


def gaussian_kl(mean: Tensor, log_std: Tensor, prior_mean: Tensor, prior_log_std: Tensor) -> Tensor:
    """KL(q || p) of independent Gaussians, summed over everything."""
    ratio = log_std - prior_log_std
    shift = (mean - prior_mean) * torch.exp(-prior_log_std)
    return (((2 * ratio).exp() + shift * shift - 1) / 2 - ratio).sum()


def weight_at(config: StateSpaceConfig, step: int) -> float:
    """Of the KL, at update number `step`."""
    return min(1.0, config.beta + (1 - config.beta) * step / config.annealing) if config.annealing else 1.0


def check(config: StateSpaceConfig, what: str) -> None:
    if config.observation != "binary" or config.missing or config.objective != "elbo":
        raise ValueError(f"{what} in PyTorch takes binary frames without gaps, and learns the elbo")
