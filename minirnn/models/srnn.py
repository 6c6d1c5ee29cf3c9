"""SRNN: a deterministic recurrent layer below a stochastic one (Fraccaro et al., Sequential neural models with stochastic layers, 2016).

    deterministic   d_t = LSTM(x_{t-1}, d_{t-1}),   x_0 = 0
    prior           p(z_t | z_{t-1}, d_t) = N(mu_t, diag sigma_t^2),   both from tanh(A d_t + B z_{t-1})                  (equation 5)
    emission        p(x_t | z_t, d_t): Gaussian or Bernoulli
    posterior       a_t = LSTM([d_t, x_t], a_{t+1}), backwards in time                                                    (equation 11)
                    q(z_t | z_{t-1}, a_t) = N(mu_t + r_t, diag s_t^2),   r_t and s_t from tanh(V a_t + W z_{t-1})          (section 3.2)

The posterior is smoothing, as the exact one, and residual: its mean is the prior's and a correction r_t. d_t knows the past of x exactly,
so the model can say more than z alone would carry, and z_t is left with what the elements of a frame have to do with each other.

Bounds, particles and what is done with a learnt model are in `minirnn.models.state_space`. Where observations are missing d_t sees zeros
and is told so; `impute` draws z and x given what d_t makes of the gaps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minirnn import ops
from minirnn.device import Array
from minirnn.distributions import Gaussian
from minirnn.models.observation import Frames, Observation, delayed
from minirnn.models.state_space import Evidence, Hidden, StateSpaceConfig, StateSpaceModel, Trajectory, posterior_layer
from minirnn.nn import LSTM, Dropout, Linear, Packed, Parameter
from minirnn.random import Rng, generator
from minirnn.tensor import Tensor


@dataclass(frozen=True)
class SRNNConfig(StateSpaceConfig):
    """Hyper-parameters of `SRNN`, beside those of `StateSpaceConfig`.

    Args:
        hidden: H, units of the deterministic LSTM.
        encoder_hidden: units of the posterior's LSTM.
        combiner: tanh units of the prior's and of the posterior's network.
    """

    hidden: int = 64
    encoder_hidden: int = 64
    combiner: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("hidden", "encoder_hidden", "combiner"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


class SRNN(StateSpaceModel):
    """A stochastic layer on top of a deterministic one, with a posterior that runs backwards in time."""

    config: SRNNConfig

    def __init__(self, config: SRNNConfig, *, kernel: str | None = None, rng: Rng = None) -> None:
        rng = generator(rng)
        self.config = config
        Z, H, C = config.latent, config.hidden, config.combiner
        self.initial = Parameter(np.zeros(Z, np.float32))
        self.past = LSTM(self._inputs, H, kernel=kernel, rng=rng)
        self.prior_past = Linear(H, C, rng=rng)
        self.prior_latent = Linear(Z, C, bias=False, rng=rng)
        self.prior = Linear(C, 2 * Z, rng=rng)
        self.emission = Observation(config.observation, Z + H, config.observed, config.emission_hidden, config.dropout, rng)
        self.encoder = LSTM(H + self._inputs, config.encoder_hidden, kernel=kernel, rng=rng)
        self.posterior_hint = Linear(config.encoder_hidden, C, rng=rng)
        self.posterior_latent = Linear(Z, C, bias=False, rng=rng)
        self.posterior = posterior_layer(C, Z, rng, spread=-1.0)
        self.dropout = Dropout(config.dropout, rng=rng)
        self.noise = rng

    def _listen(self, frames: Frames) -> tuple[Tensor, Any]:
        """d_t and A d_t beside each other (S, H + C)."""
        before = delayed(frames.inputs(self.config.missing))
        states, memory = self.past(Packed(self.dropout(before.rows), before.packing))
        return self._joined(states.rows), memory

    def _hear(self, x: Tensor, memory: Any) -> tuple[Tensor, Any]:
        d, memory = self.past(ops.expand_dims(x, 0), memory)
        return self._joined(d[0]), memory

    def _joined(self, d: Tensor) -> Tensor:
        return ops.concatenate([d, self.prior_past(d)], 1)

    def _read(self, frames: Frames, past: Tensor | None) -> Tensor:
        """V a_t for every row (S, C)."""
        assert past is not None
        inputs = frames.inputs(self.config.missing)
        x, packing = self.dropout(inputs.rows), inputs.packing
        seen = ops.concatenate([past[:, : self.config.hidden], x], 1)
        hint: Tensor = self.posterior_hint(self.encoder(Packed(seen, packing).turned())[0].turned().rows)
        return hint

    def _features(self, z: Tensor, past: Tensor | None) -> Tensor:
        assert past is not None
        return ops.concatenate([z, past[:, : self.config.hidden]], 1)

    def _predict(self, z: Tensor, hidden: Hidden, past: Tensor | None) -> tuple[Gaussian, Hidden]:
        assert past is not None
        u = (past[:, self.config.hidden :] + self.prior_latent(z)).tanh()
        return Gaussian(*ops.split(self.prior(u), 2)), ()

    def _infer(self, prior: Gaussian, z: Tensor, hidden: Hidden, hints: Tensor) -> Gaussian:
        r, log_std = ops.split(self.posterior((hints + self.posterior_latent(z)).tanh()), 2)
        return Gaussian(prior.mean + r, log_std)

    def _trajectory(self, evidence: Evidence, noise: Array) -> Trajectory:
        assert evidence.past is not None
        packing, prior, q = evidence.frames.packing, self.prior, self.posterior
        z0 = ops.repeat(self.initial.reshape(1, -1), packing.N, 0)
        weights = self.prior_latent.weight, self.posterior_latent.weight, prior.weight, prior.bias, q.weight, q.bias
        past = evidence.past[:, self.config.hidden :]
        z, *rest = ops.latent_residual(past, evidence.hints, *weights, z0, noise=noise, batch_sizes=packing.batch_sizes)
        return Trajectory(z, Gaussian(*rest[:2]), Gaussian(*rest[2:]))
