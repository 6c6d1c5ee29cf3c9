"""`minirnn.models.NeuralSSM` in PyTorch, with the smoothing posterior: each z_t waits for z_{t-1}, and the steps are a Python loop."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minirnn.bench.torch_models import state_space
from minirnn.device import Array
from minirnn.models.neural_ssm import NeuralSSMConfig


class Twin(nn.Module):
    def __init__(self, config: NeuralSSMConfig) -> None:
        super().__init__()
        c = self.config = config
        state_space.check(c, "the neural state-space model")
        if c.posterior != "smoothing":
            raise ValueError("the neural state-space model in PyTorch has posterior=smoothing")
        Z, H, C = c.latent, c.hidden, c.combiner
        self.initial = nn.Parameter(torch.zeros(Z))
        self.transition = nn.LSTMCell(Z, H)
        self.prior = nn.Linear(H, 2 * Z)
        self.emission = state_space.Observation(Z, c.observed, c.emission_hidden, c.dropout)
        self.encoder = nn.LSTM(c.observed, c.encoder_hidden)
        self.hint = nn.Linear(c.encoder_hidden, C)
        self.combiner = nn.Linear(H + Z, C, bias=False)
        self.posterior = nn.Linear(C, 2 * Z)
        self.dropout = nn.Dropout(c.dropout)

    def prepare(self, batch: list[Array]) -> state_space.Inputs:
        return state_space.prepare(batch, self.initial)

    def loss(self, inputs: state_space.Inputs, step: int = 0, noise: Array | None = None) -> Tensor:
        c, (_, N, _) = self.config, inputs.x.shape
        e = state_space.turn(self.encoder(state_space.turn(self.dropout(inputs.x), inputs))[0], inputs)  # (T, N, .)
        eps = state_space.padded(noise, inputs, c.latent)
        z = self.initial.expand(N, -1)
        h = cell = inputs.x.new_zeros(N, c.hidden)
        steps: list[tuple[Tensor, ...]] = []
        for hint_t, eps_t in zip(self.hint(e), eps, strict=True):
            h, cell = self.transition(z, (h, cell))
            mean, log_std = self.prior(h).chunk(2, 1)  # (N, Z) each
            u = torch.tanh(hint_t + self.combiner(torch.cat((h, z), 1)))
            shift, s = self.posterior(u).chunk(2, 1)
            q_mean, q_log_std = torch.sigmoid(-s) * mean + shift, log_std - F.softplus(s) / 2
            z = q_mean + q_log_std.exp() * eps_t
            steps.append((z, q_mean, q_log_std, mean, log_std))
        z, *gaussians = (torch.cat(part)[inputs.rows] for part in zip(*steps, strict=True))  # (S, Z) each
        loss = self.emission.loss(z, inputs.frames) + state_space.weight_at(c, step) * state_space.gaussian_kl(*gaussians)
        return loss / len(inputs.rows)
