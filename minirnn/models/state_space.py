"""What sequence models with latent variables have in common: bounds on the likelihood, particles, and what is done with a learnt model.

A model is a prior p(z_t | z_<t, x_<t), an emission p(x_t | z_t, x_<t) and a posterior q(z_t | z_<t, x_1..x_T), all Gaussian in z_t. With

    w_t = p(x_t | z_t, x_<t) p(z_t | z_<t, x_<t) / q(z_t | z_<t, x),   z_t drawn from q

    elbo   E_q sum_t [ ln p(x_t | z_t, x_<t) - KL(q(z_t | ..) || p(z_t | ..)) ]                 Kingma and Welling 2014
    iwae   E ln 1/K sum_k prod_t w_t^k                                                        Burda et al. 2016
    fivo   E ln of the particle filter's estimate of the likelihood, of K particles           Maddison et al. 2017, algorithm 1

bound ln p(x_1..x_T) from below, elbo <= iwae. The KL is that of two Gaussians given the z_<t that was drawn: its closed form, and the mean
over one draw of z_<t. Particles are resampled where the effective sample size 1 / sum_k W_k^2 is below K / 2; the estimate of the
likelihood is unbiased. Through the choice of the survivors no gradient flows.

Random numbers are drawn on the host, those of a batch at once, and move with it; series go in as NumPy arrays and come out as such. Only
particles make the host wait for a device: which of them survive decides what is drawn next, so their weights are read once a step.

N series, K samples of each side by side, T steps, S rows, Z numbers in z_t, D in x_t.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from minirnn import ops
from minirnn.autograd import no_grad
from minirnn.device import Array, array_module, beside, to_device
from minirnn.distributions import Gaussian
from minirnn.errors import MinirnnError
from minirnn.models.observation import Frames, Kind, Observation, first_parameter, frames_of
from minirnn.models.particles import Resampling, Weights, log_mean, resample
from minirnn.models.terms import Terms
from minirnn.nn import Linear, Module, Packing, Parameter
from minirnn.nn.utils import evaluating
from minirnn.random import Rng, generator
from minirnn.tensor import Tensor

Bound = Literal["elbo", "iwae", "fivo"]
Hidden = tuple[Tensor, ...]  # what a prior remembers of z_<t, (n, .) each
ROWS = 1 << 15  # frames times samples that are looked at together: some 100 MB


@dataclass(frozen=True)
class StateSpaceConfig:
    """Hyper-parameters that every model with latent variables has.

    Args:
        observed: D, numbers per frame.
        observation: "real" (Gaussian) or "binary" (Bernoulli).
        latent: Z, numbers per latent state.
        emission_hidden: tanh units between latent state and observation; 0 makes the emission linear.
        dropout: of the emission's hidden units and of what the encoder reads.
        missing: whether observations may be missing (NaN); the networks are then told which.
        objective: the bound that is learnt.
        samples: K, of an objective other than elbo.
        annealing: updates over which the weight of the KL rises to 1 (elbo only); 0 starts there.
        beta: the weight of the KL that annealing starts from.
        resampling: how survivors are drawn.
    """

    observed: int = 0
    observation: Kind = "real"
    latent: int = 16
    emission_hidden: int = 64
    dropout: float = 0.0
    missing: bool = False
    objective: Bound = "elbo"
    samples: int = 4
    annealing: int = 0
    beta: float = 0.1
    resampling: Resampling = "systematic"

    def __post_init__(self) -> None:
        for name in ("latent", "samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("emission_hidden", "annealing"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")
        if not 0 <= self.beta <= 1:
            raise ValueError(f"beta must lie in [0, 1], got {self.beta}")


class Evidence(NamedTuple):
    """All that does not depend on z, for every row."""

    frames: Frames
    past: Tensor | None  # (S, F) what a model makes of x_<t
    hints: Tensor  # (S, A) what the posterior takes from x


class Trajectory(NamedTuple):
    """One draw of z for every row, and where it came from."""

    z: Tensor  # (S, Z)
    prior: Gaussian
    posterior: Gaussian


@dataclass(frozen=True)
class Filtered:
    """What is known of each step of a series once it and all before it have been seen.

    latent, std       (T, Z) mean and standard deviation of z_t
    observation       (T, D) mean of the emission: the series without its noise, and with its gaps filled
    log_likelihood    the estimate of ln p(x_1..x_T)
    """

    latent: Array
    std: Array
    observation: Array
    log_likelihood: float


class Cloud(NamedTuple):
    """K particles of each of n series after one step."""

    z: Tensor  # (n K, Z)
    hidden: Hidden
    past: Tensor | None  # (n K, F)
    weights: Array  # (n, K) normalised
    ancestors: Array | None  # (n K,) whose children they are among the step before; None: each its own


class StateSpaceModel(Module):
    """The common part.

    A model defines its prior (`_predict`), its posterior (`_read`, `_infer`) and, if it looks at x_<t beside z, `_listen` and `_hear`.
    """

    config: Any  # a StateSpaceConfig with more fields
    emission: Observation
    initial: Parameter  # (Z,) z_0
    noise: np.random.Generator

    def _listen(self, frames: Frames) -> tuple[Tensor | None, Any]:
        """What the past says at every row (S, F), and the memory after the last step: nothing, unless a model has such a part."""
        return None, None

    def _hear(self, x: Tensor, memory: Any) -> tuple[Tensor | None, Any]:
        """The same for one more step: x (n, .) is the frame before, as networks read it."""
        return None, None

    def _read(self, frames: Frames, past: Tensor | None) -> Tensor:
        """What the posterior takes from x for every row (S, A)."""
        raise NotImplementedError

    def _start(self, n: int) -> Hidden:
        """What the prior remembers before the first step."""
        return ()

    def _predict(self, z: Tensor, hidden: Hidden, past: Tensor | None) -> tuple[Gaussian, Hidden]:
        """p(z_t | z_<t, x_<t) from z_{t-1} (n, Z)."""
        raise NotImplementedError

    def _infer(self, prior: Gaussian, z: Tensor, hidden: Hidden, hints: Tensor) -> Gaussian:
        """q(z_t | z_<t, x) from z_{t-1} (n, Z) and what the prior makes of it."""
        raise NotImplementedError

    def start_from(self, series: Sequence[Any]) -> None:
        """Call it once before training, with the series to learn from: the emission begins with the mean of each column."""
        self.emission.start_from(self._frames(series))

    def loss(self, batch: Sequence[Any], step: int = 0, *, rng: Rng = None) -> Tensor:
        """What is minimised, per frame: minus the bound, its KL weighted by beta while it is annealed.

        batch  series (T_n, D) of any lengths
        step   updates so far
        rng    where the noise comes from; the model's own generator if None
        """
        frames, rng, config = self._frames(batch), self.noise if rng is None else generator(rng), self.config
        if config.objective != "elbo":
            return -self._bound(frames, config.samples, rng, config.objective).sum() / frames.packing.S
        reconstruction, kl = self._terms(frames, 1, rng)
        beta = min(1.0, config.beta + (1 - config.beta) * step / config.annealing) if config.annealing else 1.0
        return (kl * beta - reconstruction).sum() / frames.packing.S

    def log_likelihood(self, batch: Sequence[Any], samples: int = 1, rng: Rng = None, bound: Bound = "elbo") -> Array:
        """A lower bound on ln p(x_1..x_T) of each series (N,), from `samples` draws; elbo is the mean over them."""
        rng = generator(rng)
        found = []
        with no_grad(), evaluating(self):
            for part in _parts(batch, samples):
                found.append(self._bound(self._frames(part), samples, rng, bound).numpy().astype(np.float64))
        return np.concatenate(found)

    def elbo_terms(self, batch: Sequence[Any], samples: int = 1, rng: Rng = None) -> tuple[Array, Array]:
        """The elbo's two terms of each series: E ln p(x | z) and the KL, (N,) each."""
        rng = generator(rng)
        found: list[list[Array]] = [[], []]
        with no_grad(), evaluating(self):
            for part in _parts(batch, samples):
                frames = self._frames(part)
                for sums, term in zip(found, self._terms(frames, samples, rng), strict=True):
                    sequence = frames.repeated(samples).packing.sequence // samples
                    sums.append(np.bincount(sequence, term.numpy().astype(np.float64), frames.packing.N) / samples)
        return np.concatenate(found[0]), np.concatenate(found[1])

    def terms(self, series: Any, *, rng: Rng = None) -> Terms:
        """KL - ln p(x_t | z_t, x_<t) of each frame of a series (T, D), at one draw of z from q: (T,). Their sum is minus the elbo."""
        frames = self._frames([series]).watched()
        evidence, path, _, reconstruction = self._drawn(frames, 1, generator(rng))
        assert frames.given is not None
        expected = self.emission.mean(self._features(path.z, evidence.past))
        return Terms(path.posterior.kl(path.prior) - reconstruction, {"series": frames.given}, expected)

    def sample(self, length: int, count: int = 1, rng: Rng = None, temperature: float = 1.0) -> Array:
        """`count` new series (count, length, D). Standard deviations are multiplied, logits divided, by the temperature."""
        with no_grad(), evaluating(self):
            z = ops.repeat(self.initial.reshape(1, -1), count, 0)
            nothing = Tensor(_zeros((count, self._inputs), z))
            return self._generate(z, self._start(count), nothing, None, length, generator(rng), temperature)

    def forecast(self, series: Any, steps: int, count: int = 100, rng: Rng = None, samples: int = 0) -> Array:
        """`count` ways on which a series (T, D) may go on: (count, steps, D), by ancestral sampling from its last filtered state.

        samples  particles of the filter; 0 takes `count`, and at least 100
        """
        rng, frames, K = generator(rng), self._frames([series]), samples or max(count, 100)
        clouds: list[Cloud] = []
        with no_grad(), evaluating(self):
            self._particles(self._evidence(frames), K, rng, clouds.append)
            last = clouds[-1]
            chosen = resample(last.weights, rng, count=count)[0]
            z, hidden = _take(last.z, chosen), tuple(_take(s, chosen) for s in last.hidden)
            memory = self._listen(frames)[1]
            memory = None if memory is None else tuple(ops.repeat(s, count, 1) for s in memory)
            before = ops.repeat(frames.inputs(self.config.missing).rows[-1:], count, 0)
            return self._generate(z, hidden, before, memory, steps, rng, 1.0)

    def filter(self, series: Any, samples: int = 100, rng: Rng = None) -> Filtered:
        """z_t given x_1..x_t for each frame of a series (T, D), by a particle filter of `samples` particles.

        The particles are proposed by the model's posterior. Where that one looks at later frames too, the weights make up for it.
        """
        frames = self._frames([series])
        rows: list[tuple[Array, Array, Array]] = []

        def look(cloud: Cloud) -> None:
            W, z = cloud.weights[0], cloud.z.numpy()  # (K,), (K, Z)
            mean = W @ z
            expected = to_device(self.emission.mean(self._features(cloud.z, cloud.past)), "cpu")  # (K, D)
            rows.append((mean, np.sqrt(W @ (z - mean) ** 2), W @ expected))

        with no_grad(), evaluating(self):
            total = self._particles(self._evidence(frames), samples, generator(rng), look)
        latent, std, observation = map(np.stack, zip(*rows, strict=True))
        return Filtered(latent, std, observation, float(total.numpy()[0]))

    def impute(self, series: Any, count: int = 1, rng: Rng = None, samples: int = 0) -> Array:
        """A series (T, D) with its missing entries (NaN) drawn given all others, `count` times: (count, T, D).

        samples  particles, whose histories the draws are taken from; 0 takes `count`, and at least 100
        """
        if not self.config.missing:
            raise MinirnnError("impute: the model was made without missing=True")
        rng, frames = generator(rng), self._frames([series])
        clouds: list[Cloud] = []
        xp = array_module(frames.x)
        seen = xp.ones(frames.x.shape, bool) if frames.seen is None else frames.seen
        filled = xp.repeat(frames.x[None], count, 0)  # (count, T, D)
        with no_grad(), evaluating(self):
            self._particles(self._evidence(frames), samples or max(count, 100), rng, clouds.append)
            chosen = resample(clouds[-1].weights, rng, count=count)[0]
            for t in range(len(clouds) - 1, -1, -1):
                cloud = clouds[t]
                past = None if cloud.past is None else _take(cloud.past, chosen)
                drawn = self.emission.draw(self._features(_take(cloud.z, chosen), past), rng)
                filled[:, t] = xp.where(seen[t], filled[:, t], drawn)
                chosen = chosen if cloud.ancestors is None else cloud.ancestors[chosen]
        return to_device(filled, "cpu")

    @property
    def _inputs(self) -> int:
        """Numbers per frame that networks read."""
        return (2 if self.config.missing else 1) * int(self.config.observed)

    def _frames(self, batch: Sequence[Any]) -> Frames:
        config = self.config
        return frames_of(batch, config.observed, config.observation, missing=config.missing, like=first_parameter(self))

    def _features(self, z: Tensor, past: Tensor | None) -> Tensor:
        """What the emission sees."""
        return z if past is None else ops.concatenate([z, past], 1)

    def _evidence(self, frames: Frames, samples: int = 1) -> Evidence:
        past, _ = self._listen(frames)
        hints = self._read(frames, past)
        if samples > 1:
            past, hints = None if past is None else ops.repeat(past, samples, 0), ops.repeat(hints, samples, 0)
        return Evidence(frames.repeated(samples), past, hints)

    def _trajectory(self, evidence: Evidence, noise: Array) -> Trajectory:
        """z for every row, one step after the other."""
        sizes = evidence.frames.packing.batch_sizes.tolist()
        hints = ops.split(evidence.hints, sizes, 0)
        pasts = [None] * len(sizes) if evidence.past is None else ops.split(evidence.past, sizes, 0)
        draws = [noise[end - n : end] for n, end in zip(sizes, np.cumsum(sizes).tolist(), strict=True)]
        z, hidden = ops.repeat(self.initial.reshape(1, -1), sizes[0], 0), self._start(sizes[0])
        steps: list[tuple[Tensor, ...]] = []
        for n, hint, past, eps in zip(sizes, hints, pasts, draws, strict=True):
            z, hidden = _first(z, n), tuple(_first(s, n) for s in hidden)
            prior, hidden = self._predict(z, hidden, past)
            posterior = self._infer(prior, z, hidden, hint)
            z = posterior.mean + posterior.std * eps
            steps.append((z, prior.mean, prior.log_std, posterior.mean, posterior.log_std))
        z, *rest = (ops.concatenate(rows) for rows in zip(*steps, strict=True))
        return Trajectory(z, Gaussian(rest[0], rest[1]), Gaussian(rest[2], rest[3]))

    def _drawn(self, frames: Frames, samples: int, rng: np.random.Generator) -> tuple[Evidence, Trajectory, Array, Tensor]:
        """The evidence, a draw of z for every row, the noise (S, Z) it was made of, and ln p(x_t | z_t) (S,)."""
        evidence = self._evidence(frames, samples)
        noise = beside(_normal(rng, (evidence.frames.packing.S, self.config.latent), evidence.hints.dtype), evidence.hints.data)
        path = self._trajectory(evidence, noise)
        features = self._features(path.z, evidence.past)
        return evidence, path, noise, self.emission.log_prob(features, evidence.frames.x, evidence.frames.seen)

    def _terms(self, frames: Frames, samples: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """ln p(x_t | z_t) and the KL of every row, (S,) each."""
        _, path, _, reconstruction = self._drawn(frames, samples, rng)
        return reconstruction, path.posterior.kl(path.prior)

    def _bound(self, frames: Frames, samples: int, rng: np.random.Generator, bound: Bound) -> Tensor:
        """The bound of each series (N,)."""
        N = frames.packing.N
        if bound == "fivo":
            return self._particles(self._evidence(frames), samples, rng)
        if bound == "elbo":
            reconstruction, kl = self._terms(frames, samples, rng)
            total = _per_series(reconstruction - kl, frames.repeated(samples).packing)
            return total.reshape(N, samples).mean(1)
        if bound != "iwae":
            raise ValueError(f'bound must be "elbo", "iwae" or "fivo", got {bound!r}')
        evidence, path, noise, reconstruction = self._drawn(frames, samples, rng)
        log_q = path.posterior.log_std.sum(1) + Tensor((noise * noise).sum(1) * 0.5 + 0.5 * math.log(2 * math.pi) * noise.shape[1])
        log_w = _per_series(reconstruction + path.prior.log_prob(path.z) + log_q, evidence.frames.packing)
        return log_mean(log_w.reshape(N, samples))

    def _particles(self, evidence: Evidence, K: int, rng: np.random.Generator, look: Callable[[Cloud], None] | None = None) -> Tensor:
        """The particle filter's estimate of ln p(x_1..x_T) for each series (N,); `look` is shown the particles after every step."""
        frames, packing = evidence.frames, evidence.frames.packing
        sizes = packing.batch_sizes.tolist()
        ends = np.cumsum(sizes).tolist()
        N = sizes[0]
        z, hidden = ops.repeat(self.initial.reshape(1, -1), N * K, 0), self._start(N * K)
        weights = Weights(N, K, like=z)
        ancestors: Array | None = None
        for n, end in zip(sizes, ends, strict=True):
            weights.keep(n)
            ancestors = None if ancestors is None else ancestors[: n * K]
            z, hidden = _first(z, n * K), tuple(_first(s, n * K) for s in hidden)
            rows = slice(end - n, end)
            past = None if evidence.past is None else ops.repeat(evidence.past[rows], K, 0)
            seen = None if frames.seen is None else frames.seen[rows].repeat(K, 0)
            prior, hidden = self._predict(z, hidden, past)
            posterior = self._infer(prior, z, hidden, ops.repeat(evidence.hints[rows], K, 0))
            z = posterior.sample(_normal(rng, (n * K, self.config.latent), z.dtype))
            reconstruction = self.emission.log_prob(self._features(z, past), frames.x[rows].repeat(K, 0), seen)
            W = weights.multiply(reconstruction + prior.log_prob(z) - posterior.log_prob(z))
            if look is not None:
                look(Cloud(z, hidden, past, W, ancestors))
            ancestors = weights.survivors(W, rng, self.config.resampling) if end < ends[-1] else None
            if ancestors is not None:
                z, hidden = _take(z, ancestors), tuple(_take(s, ancestors) for s in hidden)
        return packing.unsort(weights.estimate())

    def _generate(
        self, z: Tensor, hidden: Hidden, x: Tensor, memory: Any, steps: int, rng: np.random.Generator, temperature: float
    ) -> Array:
        """What comes after z_{t-1} (n, Z) and x_{t-1} (n, .): (n, steps, D), read from a device when all of it is there."""
        xp = array_module(z.data)
        drawn = _zeros((len(z), steps, self.config.observed), z)
        for t in range(steps):
            past, memory = self._hear(x, memory)
            prior, hidden = self._predict(z, hidden, past)
            z = prior.sample(temperature * _normal(rng, prior.mean.shape, z.dtype))
            drawn[:, t] = self.emission.draw(self._features(z, past), rng, temperature)
            x = Tensor(xp.concatenate([drawn[:, t], xp.ones_like(drawn[:, t])], 1) if self.config.missing else drawn[:, t])
        return to_device(drawn, "cpu")


def posterior_layer(features: int, latent: int, rng: np.random.Generator, spread: float) -> Linear:
    """Features to mean and spread of q, which speaks up at first: means three times as large as usual, and `spread` for a narrow q.

    An emission that learns before q has something to say learns to overlook z, and from there hardly comes back.
    """
    layer = Linear(features, 2 * latent, rng=rng)
    layer.weight.data[:latent] *= 3
    assert layer.bias is not None
    layer.bias.data[latent:] = spread
    return layer


def _parts(batch: Sequence[Any], samples: int) -> list[Sequence[Any]]:
    """The batch in pieces of at most ROWS frames times samples, or of one series."""
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")
    parts: list[list[Any]] = [[]]
    rows = 0
    for series in batch:
        size = len(series) * samples
        if parts[-1] and rows + size > ROWS:
            parts.append([])
            rows = 0
        parts[-1].append(series)
        rows += size
    return list(parts)


def _normal(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Array:
    return rng.standard_normal(shape).astype(dtype)


def _zeros(shape: tuple[int, ...], like: Tensor) -> Array:
    return array_module(like.data).zeros(shape, like.dtype)


def _per_series(terms: Tensor, packing: Packing) -> Tensor:
    """The sum of the rows (S,) of each series: (N,)."""
    return ops.put_rows(terms.reshape(-1, 1), packing.sequence, packing.N).reshape(-1)


def _first(x: Tensor, n: int) -> Tensor:
    """The rows of the series that still run."""
    return x if len(x) == n else x[:n]


def _take(x: Tensor, rows: Array) -> Tensor:
    return ops.take_rows(x, rows)
