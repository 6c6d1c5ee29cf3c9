"""`minirnn.models.SRNN` in PyTorch: two LSTMs over whole sequences, and a Python loop over the latent states between them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from minirnn.bench.torch_models import state_space
from minirnn.device import Array
from minirnn.models.srnn import SRNNConfig


class Twin(nn.Module):
    def __init__(self, config: SRNNConfig) -> None:
        super().__init__()
        c = self.config = config
        state_space.check(c, "the SRNN")
        Z, H, C = c.latent, c.hidden, c.combiner
        self.initial = nn.Parameter(torch.zeros(Z))
        self.past = nn.LSTM(c.observed, H)
        self.prior_past = nn.Linear(H, C)
        self.prior_latent = nn.Linear(Z, C, bias=False)
        self.prior = nn.Linear(C, 2 * Z)
        self.emission = state_space.Observation(Z + H, c.observed, c.emission_hidden, c.dropout)
        self.encoder = nn.LSTM(H + c.observed, c.encoder_hidden)
        self.posterior_hint = nn.Linear(c.encoder_hidden, C)
        self.posterior_latent = nn.Linear(Z, C, bias=False)
        self.posterior = nn.Linear(C, 2 * Z)
        self.dropout = nn.Dropout(c.dropout)

    def prepare(self, batch: list[Array]) -> state_space.Inputs:
        return state_space.prepare(batch, self.initial)

    def loss(self, inputs: state_space.Inputs, step: int = 0, noise: Array | None = None) -> Tensor:
        c, (_, N, _) = self.config, inputs.x.shape
        d = self.past(self.dropout(inputs.before))[0]  # (T, N, H)
        seen = torch.cat((d, self.dropout(inputs.x)), -1)
        hints = self.posterior_hint(state_space.turn(self.encoder(state_space.turn(seen, inputs))[0], inputs))  # (T, N, C)
        eps = state_space.padded(noise, inputs, c.latent)
        z = self.initial.expand(N, -1)
        steps: list[tuple[Tensor, ...]] = []
        for past_t, hint_t, eps_t in zip(self.prior_past(d), hints, eps, strict=True):
            mean, log_std = self.prior(torch.tanh(past_t + self.prior_latent(z))).chunk(2, 1)  # (N, Z) each
            residual, q_log_std = self.posterior(torch.tanh(hint_t + self.posterior_latent(z))).chunk(2, 1)
            q_mean = mean + residual
            z = q_mean + q_log_std.exp() * eps_t
            steps.append((z, q_mean, q_log_std, mean, log_std))
        z, *gaussians = (torch.cat(part)[inputs.rows] for part in zip(*steps, strict=True))  # (S, Z) each
        features = torch.cat((z, d.flatten(0, 1)[inputs.rows]), 1)
        loss = self.emission.loss(features, inputs.frames) + state_space.weight_at(c, step) * state_space.gaussian_kl(*gaussians)
        return loss / len(inputs.rows)
