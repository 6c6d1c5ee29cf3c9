"""The neural state-space model: latent states that remember all earlier ones, seen through a noisy non-linear emission.

    prior        h_t = LSTM(z_{t-1}, h_{t-1}),   z_t = mu(h_t) + sigma(h_t) eps_t,   eps_t ~ N(0, 1)         z_0 learnt, h_0 = 0
    emission     p(x_t | z_t): Gaussian with non-linear mean and scale, or Bernoulli with non-linear logits
    posterior    filtering    q(z_t | x_<=t)           = N(mu(e_t), sigma(e_t)^2),   e_t = LSTM(x_t, e_{t-1})
                 smoothing    q(z_t | z_<t, x_>=t)     e_t = LSTM(x_t, e_{t+1}), backwards in time, joined with h_t and z_{t-1}

The joint p(x, z) = prod_t p(z_t | z_<t) p(x_t | z_t) has the posterior prod_t p(z_t | z_<t, x_t..x_T): what h_t says about z_t, corrected
by the present and the future. The smoothing posterior has this form, the filtering one has not, and pays for it with a gap between
the bound and the likelihood. In the smoothing posterior the prior N(mu, sigma^2) is multiplied by a Gaussian factor in z_t,

    u_t = tanh(V e_t + W [h_t, z_{t-1}]),   (e, s) = U u_t,   gain k = sigmoid(s)
    q = N((1 - k) mu + e, (1 - k) sigma^2)        the factor has precision k / (1 - k) / sigma^2 and mean e / k

which is how a Kalman filter corrects: for a linear Gaussian model the exact posterior is among these. With the filtering posterior no
step waits for another, and a pass over a batch is one fused LSTM call for q and one for the prior; with the smoothing one each z_t
waits for z_{t-1}.

Bounds, particles and what is done with a learnt model are in `minirnn.models.state_space`. Krishnan et al. 2017 (deep Markov model)
inferred in this way; the prior here remembers more than z_{t-1}.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from minirnn import ops
from minirnn.device import Array, array_module
from minirnn.distributions import Gaussian
from minirnn.models.observation import Frames, Observation, delayed
from minirnn.models.state_space import Evidence, Hidden, StateSpaceConfig, StateSpaceModel, Trajectory, posterior_layer
from minirnn.nn import LSTM, Dropout, Linear, LSTMCell, Packed, Parameter
from minirnn.place import at
from minirnn.random import Rng, generator
from minirnn.tensor import Tensor


@dataclass(frozen=True)
class NeuralSSMConfig(StateSpaceConfig):
    """Hyper-parameters of `NeuralSSM`, beside those of `StateSpaceConfig`.

    Args:
        hidden: H, units of the prior's LSTM.
        encoder_hidden: units of the posterior's LSTM.
        posterior: "filtering", which sees x_1..x_t alone, or "smoothing", which sees x_t..x_T, h_t and z_{t-1}.
        combiner: tanh units that join what the posterior sees.
    """

    hidden: int = 64
    encoder_hidden: int = 64
    posterior: Literal["filtering", "smoothing"] = "filtering"
    combiner: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("hidden", "encoder_hidden", "combiner"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.posterior not in ("filtering", "smoothing"):
            raise ValueError(f'posterior must be "filtering" or "smoothing", got {self.posterior!r}')


class NeuralSSM(StateSpaceModel):
    """An LSTM prior over latent states, a non-linear emission, and an LSTM posterior."""

    config: NeuralSSMConfig

    def __init__(self, config: NeuralSSMConfig, *, kernel: str | None = None, rng: Rng = None) -> None:
        rng = generator(rng)
        self.config = config
        Z, H, C = config.latent, config.hidden, config.combiner
        self.initial = Parameter(np.zeros(Z, np.float32))
        self.transition = LSTMCell(Z, H, kernel=kernel, rng=rng)
        self.prior = Linear(H, 2 * Z, rng=rng)
        self.emission = Observation(config.observation, Z, config.observed, config.emission_hidden, config.dropout, rng)
        self.encoder = LSTM(self._inputs, config.encoder_hidden, kernel=kernel, rng=rng)
        self.hint = Linear(config.encoder_hidden, C, rng=rng)
        self.combiner = Linear(H + Z, C, bias=False, rng=rng) if config.posterior == "smoothing" else None
        self.posterior = posterior_layer(C, Z, rng, spread=2.0 if config.posterior == "smoothing" else -1.0)
        self.dropout = Dropout(config.dropout, rng=rng)
        self.noise = rng

    def _read(self, frames: Frames, past: Tensor | None) -> Tensor:
        """V e_t for every row (S, C)."""
        inputs = frames.inputs(self.config.missing)
        x, packing = self.dropout(inputs.rows), inputs.packing
        if self.combiner is None:
            e = self.encoder(Packed(x, packing))[0].rows
        else:
            e = self.encoder(Packed(x, packing).turned())[0].turned().rows
        hint: Tensor = self.hint(e)
        return hint

    def _start(self, n: int) -> Hidden:
        zeros = Tensor(array_module(self.initial.data).zeros((n, self.config.hidden), self.initial.dtype))
        return zeros, zeros

    def _predict(self, z: Tensor, hidden: Hidden, past: Tensor | None) -> tuple[Gaussian, Hidden]:
        h, c = self.transition(z, hidden)
        return Gaussian(*ops.split(self.prior(h), 2)), (h, c)

    def _infer(self, prior: Gaussian, z: Tensor, hidden: Hidden, hints: Tensor) -> Gaussian:
        if self.combiner is None:
            return Gaussian(*ops.split(self.posterior(hints.tanh()), 2))
        u = (hints + self.combiner(ops.concatenate([hidden[0], z], 1))).tanh()
        e, s = ops.split(self.posterior(u), 2)
        return Gaussian(ops.sigmoid(-s) * prior.mean + e, prior.log_std - ops.softplus(s) * 0.5)

    def _trajectory(self, evidence: Evidence, noise: Array) -> Trajectory:
        packing = evidence.frames.packing
        w_ih, w_hh, b_ih, b_hh = self.transition._weights("")
        if self.combiner is not None:
            combine, prior, q = self.combiner.weight, self.prior, self.posterior
            z0 = ops.repeat(self.initial.reshape(1, -1), packing.N, 0)
            weights = w_hh, w_ih, b_ih + b_hh, prior.weight, prior.bias, combine, q.weight, q.bias
            with at(module=self.transition, packing=packing):
                z, *rest = ops.latent_gain(evidence.hints, *weights, z0, noise=noise, batch_sizes=packing.batch_sizes)
            return Trajectory(z, Gaussian(*rest[:2]), Gaussian(*rest[2:]))
        posterior = Gaussian(*ops.split(self.posterior(evidence.hints.tanh()), 2))
        z = posterior.mean + posterior.std * noise
        first = ops.put_rows(ops.repeat(self.initial.reshape(1, -1), packing.N, 0), np.arange(packing.N), packing.S, unique=True)
        before = delayed(Packed(z, packing)).rows + first
        with at(module=self.transition, packing=packing):
            h, _ = self.transition.scan(before, self.transition._weights(""), self._start(packing.N), packing.batch_sizes)
        return Trajectory(z, Gaussian(*ops.split(self.prior(h), 2)), posterior)
