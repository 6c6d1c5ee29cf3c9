"""The linear Gaussian state-space model: a hidden Markov chain whose states and observations are Gaussian.

    z_1 = mean + scale eps_1                            scale scale^T = covariance of the first state
    z_t = A z_{t-1} + F u_t + b + B eps_t               eps_t ~ N(0, I), B B^T = Q
    x_t = C z_t + G u_t + d + D psi_t                   psi_t ~ N(0, I), D D^T = R

u_t are optional known inputs. The first state is drawn before any transition, as in pykalman: A, F u_t, b and B come in from t = 2 on.
Because everything is Gaussian, everything is exact: p(z_t | x_<=t) by the Kalman filter, p(z_t | x_1..x_T) by the smoother, ln p(x_1..x_T)
as the sum of ln p(x_t | x_<t), the maximum of the likelihood by EM or by its gradient. Observations may be missing, as NaN, wholly or in
part; `minirnn.kernels.kalman` has the derivations and the implementations.

Filter, smoother and likelihood run where the parameters live; series come from the host, and results go back there. On a device nothing is
raised where a covariance is not positive definite or a parameter not finite: the likelihood is NaN.

N sequences, T steps of the longest, n numbers in z_t, p in x_t, k in u_t.
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal, NamedTuple, Self, TypeAlias

import numpy as np

from minirnn import ops
from minirnn.device import array_module, beside, kind_of, on_host, to_device
from minirnn.kernels import registry
from minirnn.kernels.contract import Array
from minirnn.kernels.kalman.contract import Filtered, Parameters, Smoothed, check_diffuse, diffuse_start, whole_lengths
from minirnn.kernels.kalman.em import LEARNABLE, Linear, maximise
from minirnn.nn import Module, Parameter
from minirnn.random import Rng, generator
from minirnn.tensor import Tensor

Series: TypeAlias = "Array | Sequence[Array]"  # (T, p), (N, T, p) or a list of (T_n, p)
Form: TypeAlias = Literal["covariance", "square_root", "parallel"]
LEARNT = {"mean": "m0", "covariance": "P0"}  # names here and in the kernels, where they differ


@dataclass(frozen=True)
class LinearGaussianConfig:
    """Sizes of a `LinearGaussianSSM`.

    Args:
        states: n, numbers in z_t.
        observations: p, numbers in x_t.
        inputs: k, numbers in u_t; 0 for none.
        diffuse: know nothing of z_1 but x_1, which is used up: likelihoods are those of x_2, x_3, ... given x_1. For n = p.
    """

    states: int = 0
    observations: int = 0
    inputs: int = 0
    diffuse: bool = False

    def __post_init__(self) -> None:
        for name in ("states", "observations", "inputs"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.diffuse and self.states != self.observations:
            raise ValueError(f"a diffuse start needs states = observations, got states={self.states} and observations={self.observations}")


class Observations(NamedTuple):
    """A batch of series: what `loss` takes."""

    x: Array  # (N, T, p)  NaN where nothing was observed
    lengths: Array  # (N,)
    inputs: Array | None = None  # (N, T, k)


class Sample(NamedTuple):
    z: Array  # (N, T, n)
    x: Array  # (N, T, p)


class Forecast(NamedTuple):
    """What is expected of the steps after the last: x is in [lower, upper] with the probability asked for, each number for itself."""

    mean: Array  # (N, steps, p)
    cov: Array  # (N, steps, p, p)  of x_t, noise included
    lower: Array  # (N, steps, p)
    upper: Array  # (N, steps, p)
    state_mean: Array  # (N, steps, n)
    state_cov: Array  # (N, steps, n, n)


class LinearGaussianSSM(Module):
    """z_t = A z_{t-1} + F u_t + b + B eps_t, x_t = C z_t + G u_t + d + D psi_t

    A new model turns and shrinks its state by 0.95 at random, sees it through a random C, and has noise of 0.5 everywhere. What is known
    goes into `from_matrices`. Its parameters are factors of the covariances, so that no step of a gradient makes one indefinite.
    It computes in float64: half the digits of a covariance are soon lost. `.to("float32")` changes that.
    """

    def __init__(self, config: LinearGaussianConfig, *, kernel: str | None = None, rng: Rng = None) -> None:
        n, p, k, rng = config.states, config.observations, config.inputs, generator(rng)
        if min(n, p) < 1:
            raise ValueError(f"LinearGaussianSSM: states and observations must be at least 1, got states={n} and observations={p}")
        self.config = config
        self.kernel = kernel
        self.A = Parameter(0.95 * np.linalg.qr(rng.standard_normal((n, n)))[0])  # (n, n)
        self.B = Parameter(0.5 * np.eye(n))  # (n, n)
        self.b = Parameter(np.zeros(n))  # (n,)
        self.C = Parameter(rng.standard_normal((p, n)) / math.sqrt(n))  # (p, n)
        self.D = Parameter(0.5 * np.eye(p))  # (p, p)
        self.d = Parameter(np.zeros(p))  # (p,)
        if k:
            self.F = Parameter(np.zeros((n, k)))  # (n, k)
            self.G = Parameter(np.zeros((p, k)))  # (p, k)
        if not config.diffuse:
            self.mean = Parameter(np.zeros(n))  # (n,)
            self.scale = Parameter(np.eye(n))  # (n, n)

    @classmethod
    def from_matrices(
        cls,
        A: Any,
        C: Any,
        *,
        Q: Any = None,
        B: Any = None,
        R: Any = None,
        D: Any = None,
        b: Any = None,
        d: Any = None,
        F: Any = None,
        G: Any = None,
        mean: Any = None,
        covariance: Any = None,
        diffuse: bool = False,
        kernel: str | None = None,
    ) -> Self:
        """The model with these matrices: Q or a factor B of it, R or D, the rest zero where it is left out, `covariance` the identity.

        A (n, n), C (p, n), Q (n, n), B (n, q), R (p, p), D (p, r), b (n,), d (p,), F (n, k), G (p, k), mean (n,), covariance (n, n).
        Raises ValueError that names the argument where a shape does not fit, a number is not finite, or a covariance is not symmetric
        positive semi-definite.
        """
        A, C = _matrix("A", A, (None, None), "(n, n)"), _matrix("C", C, (None, None), "(p, n)")
        n, p = len(A), len(C)
        k = next((np.shape(m)[-1] for m in (F, G) if m is not None), 0)
        model = cls(LinearGaussianConfig(n, p, k, diffuse), kernel=kernel, rng=0)
        if diffuse and not (mean is None and covariance is None):
            raise ValueError("LinearGaussianSSM: a diffuse start takes its mean and covariance from the first observation; leave them out")
        given: dict[str, Any] = {
            "A": _matrix("A", A, (n, n), "(n, n)"),
            "C": _matrix("C", C, (p, n), "(p, n)"),
            "B": _noise("Q", Q, "B", B, n, "n"),
            "D": _noise("R", R, "D", D, p, "p"),
            "b": np.zeros(n) if b is None else _matrix("b", b, (n,), "(n,)"),
            "d": np.zeros(p) if d is None else _matrix("d", d, (p,), "(p,)"),
        }
        if k:
            given["F"] = np.zeros((n, k)) if F is None else _matrix("F", F, (n, k), "(n, k)")
            given["G"] = np.zeros((p, k)) if G is None else _matrix("G", G, (p, k), "(p, k)")
        if not diffuse:
            given["mean"] = np.zeros(n) if mean is None else _matrix("mean", mean, (n,), "(n,)")
            given["scale"] = np.eye(n) if covariance is None else _noise("covariance", covariance, "", None, n, "n")
        model.load_state_dict(given)
        return model

    @classmethod
    def local_level(cls, level_variance: float, observation_variance: float, *, diffuse: bool = True, **start: Any) -> Self:
        """A level that wanders, seen through noise: z_t = z_{t-1} + N(0, level_variance), x_t = z_t + N(0, observation_variance)."""
        return cls.from_matrices([[1.0]], [[1.0]], Q=[[level_variance]], R=[[observation_variance]], diffuse=diffuse, **start)

    def matrices(self) -> Linear:
        """A, F, b, Q, C, G, d, R, m0 and P0 as NumPy arrays (copies). The last two mean nothing where the start is diffuse."""
        return Linear(*_read(self._matrices()))

    def _matrices(self) -> Linear:
        """The same on the model's device."""
        A, B, C, D = (t.data.copy() for t in (self.A, self.B, self.C, self.D))
        n, p, k, xp = len(A), len(C), self.config.inputs, array_module(A)
        F, G = (self.F.data.copy(), self.G.data.copy()) if k else (xp.zeros((n, 0), A.dtype), xp.zeros((p, 0), A.dtype))
        mean, scale = (xp.zeros(n, A.dtype), xp.eye(n, dtype=A.dtype)) if self.config.diffuse else (self.mean.data.copy(), self.scale.data)
        return Linear(A, F, self.b.data.copy(), B @ B.T, C, G, self.d.data.copy(), D @ D.T, mean, scale @ scale.T)

    def sample(self, length: int, count: int = 1, rng: Rng = None, inputs: Array | None = None) -> Sample:
        """`count` sequences of `length` steps, z (N, T, n) and x (N, T, p). The same generator state gives the same bits."""
        if self.config.diffuse:
            raise ValueError("LinearGaussianSSM.sample: with a diffuse start the first state has no distribution to draw from")
        if length < 1 or count < 1:
            raise ValueError(f"LinearGaussianSSM.sample: length and count must be at least 1, got length={length} and count={count}")
        rng, m = generator(rng), self._matrices()
        dtype, n, p, xp = m.A.dtype, len(m.A), len(m.C), array_module(m.A)
        u = self._inputs(inputs, count, length)
        u = None if u is None else beside(u, m.A)
        eps, psi = (beside(rng.standard_normal((count, length, size)).astype(dtype), m.A) for size in (n, p))
        z = xp.empty((count, length, n), dtype)
        b = xp.broadcast_to(m.parameters(u).b, z.shape)
        z[:, 0] = m.m0 + eps[:, 0] @ self.scale.data.T
        for t in range(1, length):
            z[:, t] = z[:, t - 1] @ m.A.T + b[:, t] + eps[:, t] @ self.B.data.T
        return Sample(*_read((z, z @ m.C.T + m.parameters(u).d + psi @ self.D.data.T)))

    def filter(self, x: Series, lengths: Any = None, inputs: Series | None = None, form: Form = "covariance") -> Filtered:
        """p(z_t | x_<t) and p(z_t | x_<=t) of every step, and ln p(x_t | x_<t). One sequence is a batch of one.

        x          (T, p), (N, T, p) or a list of (T_n, p); NaN where nothing was observed
        lengths    (N,) where sequences in one array have different lengths; what follows their ends is never looked at
        inputs     u, like x with k in place of p
        form       square_root for badly conditioned problems, in float32 above all; parallel does all steps at once (long sequences
                   without Numba). Both run on the CPU alone, and give what "covariance" gives.
        """
        batch = self.observations(x, lengths, inputs)
        parameters, y = self._start(batch)
        return Filtered(*_read(self._kernel(batch, form).filter(parameters, y, batch.lengths)))

    def smooth(self, x: Series, lengths: Any = None, inputs: Series | None = None, form: Form = "covariance") -> Smoothed:
        """p(z_t | x_1..x_T) of every step, and Cov[z_t, z_{t-1} | x_1..x_T]. Arguments as for `filter`."""
        batch = self.observations(x, lengths, inputs)
        parameters, y = self._start(batch)
        kernel = self._kernel(batch, form)
        return Smoothed(*_read(kernel.smooth(parameters, kernel.filter(parameters, y, batch.lengths))))

    def log_likelihood(self, x: Series, lengths: Any = None, inputs: Series | None = None, form: Form = "covariance") -> Array:
        """ln p(x_1..x_T) of each sequence, in nats: (N,). With a diffuse start, ln p(x_2..x_T | x_1)."""
        return self.filter(x, lengths, inputs, form).log_likelihood

    def observe(self, mean: Array, cov: Array, inputs: Array | None = None) -> tuple[Array, Array]:
        """Mean (N, T, p) and covariance (N, T, p, p), noise included, of x_t where z_t has these (N, T, n), (N, T, n, n)."""
        m = self.matrices()
        u = self._inputs(inputs, mean.shape[0], mean.shape[1])
        return mean @ m.C.T + m.parameters(u).d, m.C @ cov @ m.C.T + m.R

    def forecast(self, x: Series, steps: int, level: float = 0.9, lengths: Any = None, inputs: Series | None = None) -> Forecast:
        """The `steps` steps after each sequence's last, and intervals in which each number lies with probability `level`.

        `inputs` go on to the end of the forecast: T + steps rows. The others are as for `filter`.
        """
        if steps < 1 or not 0 < level < 1:
            raise ValueError(f"LinearGaussianSSM.forecast: steps must be at least 1 and level in (0, 1), got {steps} and {level}")
        batch = self.observations(x, lengths, inputs, ahead=steps)
        (N, T, p), u = batch.x.shape, batch.inputs
        ahead = np.full((N, T + steps, p), np.nan, batch.x.dtype)
        ahead[:, :T] = np.where((np.arange(T) < batch.lengths[:, None])[..., None], batch.x, np.nan)
        known = self.filter(ahead, batch.lengths + steps, u)
        new = batch.lengths[:, None] + np.arange(steps), np.arange(N)[:, None]  # (N, steps), (N, 1)
        mean, cov = known.mean[new[1], new[0]], known.cov[new[1], new[0]]
        x_mean, x_cov = self.observe(mean, cov, None if u is None else u[new[1], new[0]])
        half = NormalDist().inv_cdf(0.5 + level / 2) * np.sqrt(np.diagonal(x_cov, axis1=-2, axis2=-1))
        return Forecast(x_mean, x_cov, x_mean - half, x_mean + half, mean, cov)

    def loss(self, batch: Observations | Series) -> Tensor:
        """-ln p(x) per step, in nats, a scalar: the sum over all sequences divided by the number of their steps."""
        if not isinstance(batch, Observations):
            batch = self.observations(batch)
        self._check_finite()
        y, u, here = batch.x, batch.inputs, self.A.data
        Q, R = self.B @ self.B.T, self.D @ self.D.T
        u = None if u is None else Tensor(beside(u, here))
        b = self.b if u is None else self.b + u @ self.F.T
        d = self.d if u is None else self.d + u @ self.G.T
        if self.config.diffuse:
            check_diffuse(self.C.data, y)
            first = y[:, 0] - (d if u is None else d[:, 0])  # (N, p)
            mean = ops.solve(self.C, first.T).T  # (N, n)  C^-1 (x_1 - d_1)
            factor = ops.solve(self.C, self.D)  # (n, p)  C^-1 D
            y = np.concatenate((np.full_like(y[:, :1], np.nan), y[:, 1:]), 1)
        else:
            mean, factor = self.mean, self.scale
        arrays = (self.A, Q, self.C, R, b, d, mean, factor @ factor.T)
        likelihood = ops.kalman_log_likelihood(*arrays, y=y, lengths=batch.lengths, kernel=self.kernel)  # (N,)
        return -ops.sum(likelihood) / float(batch.lengths.sum())

    def em(
        self, x: Series, iterations: int, learn: Collection[str] | None = None, lengths: Any = None, inputs: Series | None = None
    ) -> Array:
        """Expectation-maximisation in place; the log-likelihood before each iteration, summed over the sequences: (iterations,).

        learn   any of "A", "F", "b", "Q", "C", "G", "d", "R", "mean", "covariance"; None: all that the model has

        But for rounding it never falls. Covariances that are learnt stay positive definite: none gets below eps^(3/4) of the mean squares
        of what it is the noise of, so no number of iterations ends in a NaN, not even for data that the model fits exactly.
        """
        chosen = self.learnable() if learn is None else frozenset(learn)
        if unknown := chosen - self.learnable():
            known = ", ".join(sorted(self.learnable()))
            raise ValueError(f"LinearGaussianSSM.em: cannot learn {', '.join(sorted(unknown))}; learn is a subset of {known}")
        batch = self.observations(x, lengths, inputs)
        kernel = self._kernel(batch)
        likelihoods = np.empty(iterations)
        for i in range(iterations):
            parameters, y = self._start(batch)
            try:
                likelihoods[i], smoothed = _expected(kernel, parameters, y, batch.lengths)
            except np.linalg.LinAlgError:  # the covariances have no digits left: from here on by square roots
                kernel = registry.load("kalman", "square_root")
                likelihoods[i], smoothed = _expected(kernel, parameters, y, batch.lengths)
            names = {LEARNT.get(name, name) for name in chosen}
            self._set(maximise(self.matrices(), batch.x, smoothed, batch.lengths, names, batch.inputs), names)
        return likelihoods

    def learnable(self) -> frozenset[str]:
        """What `em` can learn. With a diffuse start, C and d also decide what the first observation says, and are not among it."""
        without = {"m0", "P0", "C", "G", "d"} if self.config.diffuse else set()
        without |= set() if self.config.inputs else {"F", "G"}
        ours = {theirs: name for name, theirs in LEARNT.items()}
        return frozenset(ours.get(name, name) for name in LEARNABLE if name not in without)

    def observations(self, x: Series, lengths: Any = None, inputs: Series | None = None, ahead: int = 0) -> Observations:
        """The batch that x, lengths and inputs (see `filter`) stand for, checked, in the model's dtype; inputs reach `ahead` steps on."""
        if isinstance(x, (list, tuple)) and all(np.ndim(part) == 2 for part in x) and lengths is None:
            lengths = np.array([len(part) for part in x])
            x = _padded("x", x)
            inputs = _padded("inputs", inputs, 0) if isinstance(inputs, (list, tuple)) else inputs
        x = np.asarray(x, dtype=self.A.dtype)
        x = x[None] if x.ndim == 2 else x
        p = self.config.observations
        if x.ndim != 3 or x.shape[2] != p or 0 in x.shape:
            raise ValueError(
                f"LinearGaussianSSM: x must be (T, p), (N, T, p) or a list of (T_n, p) with p = {p} observed numbers, got {x.shape}"
            )
        if np.isinf(x).any():
            raise ValueError("LinearGaussianSSM: x has an infinite number; what is missing is NaN")
        return Observations(x, whole_lengths(lengths, len(x), x.shape[1]), self._inputs(inputs, len(x), x.shape[1] + ahead))

    def _inputs(self, u: Any, N: int, T: int) -> Array | None:
        k = self.config.inputs
        if u is None and k == 0:
            return None
        if u is None or k == 0:
            raise ValueError(f"LinearGaussianSSM: the model was made for inputs={k}, and inputs were {'not ' if u is None else ''}given")
        u = np.asarray(u, dtype=self.A.dtype)
        if u.shape not in ((T, k), (N, T, k)):
            raise ValueError(f"LinearGaussianSSM: inputs must be (T, k) = ({T}, {k}) or (N, T, k) = ({N}, {T}, {k}), got {u.shape}")
        if not np.isfinite(u).all():
            raise ValueError("LinearGaussianSSM: inputs must be finite; only observations may be missing")
        return np.broadcast_to(u, (N, T, k))

    def _kernel(self, batch: Observations, form: Form = "covariance") -> Any:
        if form in ("square_root", "parallel") and self._device() != "cpu":
            raise ValueError(f'LinearGaussianSSM: form={form} runs on the CPU alone, the model is on {self.A.device}; .to("cpu") moves it')
        if form in ("square_root", "parallel"):
            return importlib.import_module(f"minirnn.kernels.kalman.{form}")
        if form != "covariance":
            raise ValueError(f"LinearGaussianSSM: form must be covariance, square_root or parallel, got {form!r}")
        N, T, _ = batch.x.shape
        chosen = registry.choose("kalman", dtype=self.A.dtype, device=self._device(), kernel=self.kernel, T=T, N=N, H=self.config.states)
        return registry.load("kalman", chosen.name, self._device())

    def _check_finite(self) -> None:
        """On a device nobody looks, since the host would have to wait."""
        if not on_host(self.A.data):
            return
        if broken := [name for name, p in self.named_parameters() if not np.isfinite(p.data).all()]:
            raise ValueError(f"LinearGaussianSSM: {', '.join(broken)} has a NaN or an infinite number in it")

    def _device(self) -> str:
        return kind_of(self.A.device)

    def _start(self, batch: Observations) -> tuple[Parameters, Array]:
        """What the kernels are given, on the model's device."""
        self._check_finite()
        u, y = None if batch.inputs is None else beside(batch.inputs, self.A.data), beside(batch.x, self.A.data)
        parameters = self._matrices().parameters(u)._replace(B=self.B.data, D=self.D.data)
        if self.config.diffuse:
            check_diffuse(self.C.data, batch.x)
            parameters, y = diffuse_start(parameters, y)
            return parameters, y
        return parameters._replace(B0=self.scale.data), y

    def _set(self, new: Linear, names: Collection[str]) -> None:
        """Take over what was learnt."""
        factors = {"Q": self.B, "R": self.D, "P0": None if self.config.diffuse else self.scale}
        for name in names:
            factor = factors.get(name)
            target = factor if factor is not None else getattr(self, "mean" if name == "m0" else name)
            value = getattr(new, name)
            target.data[...] = beside(_factor(value) if factor is not None else value, target.data)


def _read(arrays: Iterable[Array | None]) -> list[Any]:
    """The arrays on the host: those of a device are waited for and copied."""
    return [None if array is None else to_device(array, "cpu") for array in arrays]


def _expected(kernel: Any, parameters: Parameters, y: Array, lengths: Array) -> tuple[float, Smoothed]:
    """The log-likelihood of all sequences, and the smoothed states, on the host: there the maximisation step solves its small systems.

    Raises LinAlgError where a covariance is not positive definite; a device says so by a likelihood that is NaN. The square roots are
    the CPU's alone, and what they need is read.
    """
    if kernel is sys.modules.get("minirnn.kernels.kalman.square_root"):
        parameters, y = Parameters(*_read(parameters)), to_device(y, "cpu")
    filtered = kernel.filter(parameters, y, lengths)
    likelihood = float(to_device(filtered.log_likelihood, "cpu").sum())
    if math.isnan(likelihood) and not on_host(y):
        raise np.linalg.LinAlgError
    return likelihood, Smoothed(*_read(kernel.smooth(parameters, filtered)))


def _matrix(name: str, value: Any, shape: tuple[int | None, ...], symbols: str) -> Array:
    """value as a float64 array of this shape (None: any length)."""
    array = np.asarray(value, dtype=np.float64)
    if array.ndim != len(shape) or any(want not in (None, have) for want, have in zip(shape, array.shape, strict=True)):
        sizes = "" if None in shape else f" = {shape}"
        raise ValueError(f"LinearGaussianSSM: {name} must be {symbols}{sizes}, got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"LinearGaussianSSM: {name} has a NaN or an infinite number in it")
    return array


def _noise(name: str, covariance: Any, factor_name: str, factor: Any, n: int, letter: str) -> Array:
    """A square factor (n, n) of the covariance, which is given as it is or as a factor (n, any)."""
    if (covariance is None) == (factor is None):
        raise ValueError(
            f"LinearGaussianSSM: give {name} ({letter}, {letter}), or {factor_name} with {factor_name} {factor_name}^T = {name}"
        )
    if factor is not None:
        factor = _matrix(factor_name, factor, (n, None), f"({letter}, q)")
        return factor if factor.shape[1] == n else _factor(factor @ factor.T)
    covariance = _matrix(name, covariance, (n, n), f"({letter}, {letter})")
    asymmetry, largest = float(np.abs(covariance - covariance.T).max()), float(np.abs(covariance).max())
    if asymmetry > 1e-8 * largest:
        raise ValueError(f"LinearGaussianSSM: {name} {covariance.shape} is not symmetric: it differs from its transpose by {asymmetry:.3g}")
    least = float(np.linalg.eigvalsh(covariance)[0])
    if least < -1e-8 * largest:
        raise ValueError(
            f"LinearGaussianSSM: {name} {covariance.shape} is not positive semi-definite, its least eigenvalue is {least:.3g}; "
            "no noise has such a covariance"
        )
    return _factor(covariance)


def _factor(covariance: Array) -> Array:
    """L (n, n) with L L^T = covariance: Cholesky's where there is one, else the eigenvectors times the roots of their eigenvalues."""
    try:
        return np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(covariance)
        return vectors * np.sqrt(np.maximum(values, 0))


def _padded(name: str, parts: Sequence[Array], value: float = np.nan) -> Array:
    """Arrays (T_n, p) as one (N, T, p), filled up with `value`."""
    widths = {np.shape(part)[1] for part in parts}
    if len(widths) != 1:
        raise ValueError(
            f"LinearGaussianSSM: the sequences of {name} have different widths: {', '.join(map(str, sorted(widths))) or 'none given'}"
        )
    whole = np.full((len(parts), max(map(len, parts)), widths.pop()), float(value))
    for row, part in zip(whole, parts, strict=True):
        row[: len(part)] = part
    whole.flags.writeable = False  # it moves to a device once, however often it is learnt from
    return whole
