"""The baseline of sequence models: an LSTM predicts the next frame from the past ones, without latent variables.

    p(x_1..x_T) = prod_t p(x_t | x_<t),    h_t = LSTM(x_{t-1}, h_{t-1}),  x_0 = 0
    p(x_t | x_<t) = prod_d Bernoulli(x_td; sigmoid(logit_d(h_t)))   or   N(x_t; mean(h_t), diag scale(h_t)^2)

The log-likelihood is exact. Within a frame the elements are independent given the past: what a chord's notes have to do with each other
this model cannot say, and a latent variable can. Boulanger-Lewandowski et al. 2012 is where the piano rolls come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minirnn import ops
from minirnn.autograd import no_grad
from minirnn.device import Array, array_module, to_device
from minirnn.errors import MinirnnError
from minirnn.models.chunks import Reader
from minirnn.models.observation import Frames, Kind, Observation, delayed, first_parameter, frames_of
from minirnn.models.state_space import Bound, Filtered
from minirnn.models.terms import Terms
from minirnn.nn import LSTM, Module, Packed
from minirnn.nn.utils import evaluating
from minirnn.random import Rng, generator
from minirnn.tensor import Tensor


@dataclass(frozen=True)
class AutoregressiveConfig:
    """Hyper-parameters of `AutoregressiveLSTM`.

    Args:
        observed: D, numbers per frame.
        observation: "real" (Gaussian) or "binary" (Bernoulli).
        hidden: H, units of the LSTM.
        layers: of the LSTM.
        dropout: of its outputs, and between layers.
        missing: whether observations may be missing (NaN); the LSTM is then told which.
    """

    observed: int = 0
    observation: Kind = "real"
    hidden: int = 200
    layers: int = 1
    dropout: float = 0.0
    missing: bool = False

    def __post_init__(self) -> None:
        for name in ("hidden", "layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")


class AutoregressiveLSTM(Module):
    """Next-frame prediction by an LSTM."""

    def __init__(self, config: AutoregressiveConfig, *, kernel: str | None = None, rng: Rng = None) -> None:
        rng = generator(rng)
        self.config = config
        D = config.observed
        between = config.dropout if config.layers > 1 else 0.0
        inputs = 2 * D if config.missing else D
        self.lstm = LSTM(inputs, config.hidden, config.layers, dropout=between, kernel=kernel, rng=rng)
        self.emission = Observation(config.observation, config.hidden, D, dropout=config.dropout, rng=rng)

    def start_from(self, series: Sequence[Any]) -> None:
        """Call it once before training, with the series to learn from: the emission begins with the mean of each column."""
        self.emission.start_from(self._frames(series))

    def loss(self, batch: Sequence[Any], step: int = 0, *, rng: Rng = None) -> Tensor:
        """-ln p(x_t | x_<t), mean over the frames. `step` and `rng` are for the models that anneal and draw."""
        frames = self._frames(batch)
        return -self._log_probs(frames).sum() / frames.packing.S

    def reader(self, batch: Sequence[Any]) -> Reader:
        """The batch in chunks of steps: the same loss, see `minirnn.models.chunks`."""
        return _Reader(self, self._frames(batch))

    def log_likelihood(self, batch: Sequence[Any], samples: int = 1, rng: Rng = None, bound: Bound = "elbo") -> Array:
        """ln p(x_1..x_T) of each series (N,): exact, whatever `samples` and `bound` say."""
        frames = self._frames(batch)
        with no_grad(), evaluating(self):
            terms = self._log_probs(frames).numpy()  # (S,)
        return np.bincount(frames.packing.sequence, terms.astype(np.float64), frames.packing.N)

    def sample(self, length: int, count: int = 1, rng: Rng = None, temperature: float = 1.0) -> Array:
        """`count` new series (count, length, D)."""
        return self._continue(self._nothing(count), None, length, generator(rng), temperature)

    def forecast(self, series: Any, steps: int, count: int = 100, rng: Rng = None) -> Array:
        """`count` ways on which a series (T, D) may go on for `steps` frames: (count, steps, D)."""
        inputs = self._frames([series]).inputs(self.config.missing).rows  # (T, D)
        with no_grad(), evaluating(self):
            state = None
            if len(inputs) > 1:
                _, state = self.lstm(inputs[:-1].reshape(-1, 1, inputs.shape[1]))
                state = tuple(ops.repeat(s, count, 1) for s in state)
        return self._continue(ops.repeat(inputs[-1:], count, 0).reshape(1, count, -1), state, steps, generator(rng), 1.0)

    def filter(self, series: Any, samples: int = 1, rng: Rng = None) -> Filtered:
        """E[x_t | x_<t] of each frame of a series (T, D), with the hidden states in place of a latent variable's mean."""
        frames = self._frames([series])
        with no_grad(), evaluating(self):
            h = self._states(frames)
            mean, total = to_device(self.emission.mean(h), "cpu"), float(self.emission.log_prob(h, frames.x, frames.seen).numpy().sum())
        states = h.numpy()
        return Filtered(states, np.zeros_like(states), mean, total)

    def impute(self, series: Any, count: int = 1, rng: Rng = None) -> Array:
        """A series (T, D) with its missing entries drawn, `count` times, from p(x_t | x_<t): from what came before the gap alone."""
        if not self.config.missing:
            raise MinirnnError("impute: the model was made without missing=True")
        rng, frames = generator(rng), self._frames([series])
        xp = array_module(frames.x)
        seen = xp.ones(frames.x.shape, bool) if frames.seen is None else frames.seen
        filled = xp.repeat(frames.x[None], count, 0)  # (count, T, D)
        state: Any = None
        x = self._nothing(count)
        with no_grad(), evaluating(self):
            for t in range(len(frames.x)):
                h, state = self.lstm(x, state)
                filled[:, t] = xp.where(seen[t], filled[:, t], self.emission.draw(h[0], rng))
                x = self._input(filled[:, t])
        return to_device(filled, "cpu")

    def terms(self, series: Any, *, rng: Rng = None) -> Terms:
        """-ln p(x_t | x_<t) of each frame of a series (T, D): (T,). `rng` is for the models that draw."""
        frames = self._frames([series]).watched()
        h = self._states(frames)
        assert frames.given is not None
        return Terms(-self.emission.log_prob(h, frames.x, frames.seen), {"series": frames.given}, self.emission.mean(h))

    def _frames(self, batch: Sequence[Any]) -> Frames:
        config = self.config
        return frames_of(batch, config.observed, config.observation, missing=config.missing, like=first_parameter(self))

    def _states(self, frames: Frames) -> Tensor:
        """h_t of each frame (S, H), which has seen the frames before it."""
        before = delayed(frames.inputs(self.config.missing))
        states: Packed = self.lstm(before)[0]
        return states.rows

    def _log_probs(self, frames: Frames) -> Tensor:
        return self.emission.log_prob(self._states(frames), frames.x, frames.seen)

    def _nothing(self, count: int) -> Tensor:
        """x_0 of `count` series, as the LSTM reads it: (1, count, D)."""
        like = first_parameter(self)
        return Tensor(array_module(like).zeros((1, count, self.lstm.input_size), like.dtype))

    def _input(self, x: Array) -> Tensor:
        """Frames (count, D) that were drawn, as the LSTM reads them: (1, count, D)."""
        xp = array_module(x)
        return Tensor(xp.concatenate([x, xp.ones_like(x)], 1)[None] if self.config.missing else x[None])

    def _continue(self, x: Tensor, state: Any, steps: int, rng: np.random.Generator, temperature: float) -> Array:
        drawn = array_module(x.data).zeros((x.shape[1], steps, self.config.observed), x.dtype)
        with no_grad(), evaluating(self):
            for t in range(steps):
                h, state = self.lstm(x, state)
                drawn[:, t] = self.emission.draw(h[0], rng, temperature)
                x = self._input(drawn[:, t])
        return to_device(drawn, "cpu")


class _Reader(Reader):
    def __init__(self, model: AutoregressiveLSTM, frames: Frames) -> None:
        super().__init__(model.lstm, frames.packing)
        self.model, self.frames, self.before = model, frames, delayed(frames.inputs(model.config.missing)).rows

    def inputs(self, rows: slice) -> Tensor:
        return self.before[rows]

    def cost(self, states: Packed, rows: slice) -> Tensor:
        seen = None if self.frames.seen is None else self.frames.seen[rows]
        return -self.model.emission.log_prob(states.rows, self.frames.x[rows], seen).sum()
