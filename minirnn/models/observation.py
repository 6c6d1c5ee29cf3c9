"""What a frame x_t is: a vector of real numbers or of zeros and ones, perhaps with gaps; and its distribution given a hidden vector.

    binary    p(x | u) = prod_d Bernoulli(x_d; sigmoid(logit_d(u)))
    real      p(x | u) = N(x; mean(u), diag scale(u)^2)

logit, mean and ln scale are linear in u, or in a hidden layer tanh(V u + v). N series, T_n frames each, S frames in all,
D numbers per frame.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from minirnn import ops
from minirnn.device import Array, array_module, beside, to_device
from minirnn.distributions import LOG_2PI, Bernoulli, Gaussian
from minirnn.errors import MinirnnError
from minirnn.nn import Dropout, Linear, Module, Packed, Packing, pack_sequence
from minirnn.random import Rng, generator
from minirnn.tensor import Tensor

Kind = Literal["real", "binary"]


@dataclass(frozen=True)
class Frames:
    """A ragged batch of series on the model's device: packed rows, zero where nothing was observed.

    x      (S, D)
    seen   (S, D) true where observed, or None where everything is
    given  x as networks are given it, where a gradient in it is wanted; None where not
    """

    x: Array
    seen: Array | None
    packing: Packing
    given: Tensor | None = None

    def inputs(self, with_mask: bool) -> Packed:
        """What a network reads: x (S, D), and beside it, if `with_mask`, what was seen, as zeros and ones (S, 2D)."""
        x = Tensor(self.x) if self.given is None else self.given
        if not with_mask:
            return Packed(x, self.packing)
        seen = array_module(self.x).ones_like(self.x) if self.seen is None else self.seen.astype(self.x.dtype)
        return Packed(ops.concatenate([x, Tensor(seen)], 1), self.packing)

    def watched(self) -> Frames:
        """The same with `given`."""
        return dataclasses.replace(self, given=Tensor(self.x, requires_grad=True))

    def repeated(self, times: int) -> Frames:
        """Each series `times` times, the copies side by side."""
        if times == 1:
            return self
        seen = None if self.seen is None else self.seen.repeat(times, axis=0)
        return Frames(self.x.repeat(times, axis=0), seen, Packing(self.packing.lengths.repeat(times)))


def frames_of(batch: Sequence[Any], size: int, kind: Kind, *, missing: bool, like: Array) -> Frames:
    """The series of a batch, each (T_n, D), packed; checked on the host, and then brought to the dtype and the device of `like`.

    Raises MinirnnError for series of another width, for binary ones that hold something beside 0 and 1, and for NaN (a missing observation)
    unless `missing`.
    """
    if not len(batch):
        raise MinirnnError("the batch holds no series")
    arrays = [np.asarray(series) for series in batch]
    for n, series in enumerate(arrays):
        if series.ndim != 2 or not len(series):
            raise MinirnnError(f"series {n} must be (T, D), frames by columns, with at least one frame; got {series.shape}")
        if series.shape[1] != size:
            raise MinirnnError(f"series {n} has {series.shape[1]} columns, the model was made for {size}")
    packed = pack_sequence([series.astype(like.dtype) for series in arrays])
    x, seen = packed.rows.data, None
    gaps = np.isnan(x)
    if gaps.any():
        row = int(np.argwhere(gaps)[0, 0])
        where = f"series {packed.packing.sequence[row]} has a missing observation (NaN) in frame {packed.packing.time[row]}"
        if not missing:
            raise MinirnnError(f"{where}; a model made with missing=True takes them")
        x, seen = np.where(gaps, x.dtype.type(0), x), ~gaps
    if not np.isfinite(x).all():
        raise MinirnnError("a series holds an infinite number")
    if kind == "binary" and not np.isin(x, (0, 1)).all():
        raise MinirnnError(f"binary series hold zeros and ones; found {x[~np.isin(x, (0, 1))][0]:g}")
    return Frames(beside(x, like), None if seen is None else beside(seen, like), packed.packing)


class Observation(Module):
    """p(x | u) for u (S, features): `hidden` tanh units between u and the parameters, none if 0."""

    def __init__(self, kind: Kind, features: int, size: int, hidden: int = 0, dropout: float = 0.0, rng: Rng = None) -> None:
        rng = generator(rng)
        self.kind: Kind = kind
        self.hidden = Linear(features, hidden, rng=rng) if hidden else None
        self.output = Linear(hidden or features, size if kind == "binary" else 2 * size, rng=rng)
        self.dropout = Dropout(dropout, rng=rng)

    def forward(self, u: Tensor) -> Bernoulli | Gaussian:
        if self.hidden is not None:
            u = self.hidden(u).tanh()
        parameters = self.output(self.dropout(u))
        return Bernoulli(parameters) if self.kind == "binary" else Gaussian(*ops.split(parameters, 2))

    def start_from(self, frames: Frames) -> None:
        """Give each column, before anything is learnt, its own mean (and scale) by the output's bias.

        Piano rolls are zeros but for a few percent. An emission that has to learn that first does it with saturated hidden units, through
        which nothing is learnt afterwards.
        """
        hidden = False if frames.seen is None else ~to_device(frames.seen, "cpu")
        x = np.ma.array(to_device(frames.x, "cpu").astype(np.float64), mask=hidden)
        assert self.output.bias is not None
        bias = self.output.bias.data
        mean = x.mean(0).filled(0)
        if self.kind == "binary":
            p = (mean * len(x) + 0.5) / (len(x) + 1)
            start = np.log(p / (1 - p))
        else:
            start = np.concatenate([mean, np.log(np.maximum(x.std(0).filled(1), 1e-3))])
        bias[...] = beside(start.astype(bias.dtype), bias)

    def log_prob(self, u: Tensor, x: Array, seen: Array | None) -> Tensor:
        """ln p(x | u) (S,) of the elements that were seen, all if None."""
        p = self(u)
        if seen is None:
            found: Tensor = p.log_prob(x)
            return found
        if isinstance(p, Bernoulli):
            terms = p.logits * x - ops.softplus(p.logits)  # (S, D)
        else:
            residual = (x - p.mean) * (-p.log_std).exp()
            terms = -(residual * residual * 0.5 + p.log_std + 0.5 * LOG_2PI)
        return ops.sum(terms * seen, 1)

    def draw(self, u: Tensor, rng: np.random.Generator, temperature: float = 1.0) -> Array:
        """x (S, D), on u's device: logits are divided by the temperature, scales multiplied by it; 0 gives the most probable x."""
        p = self(u)
        if isinstance(p, Gaussian):
            mean, log_std = p.mean.data, p.log_std.data
            noise = beside(rng.standard_normal(mean.shape).astype(mean.dtype), mean)
            return mean + array_module(mean).exp(log_std) * temperature * noise
        if temperature == 0:
            return (p.logits.data > 0).astype(p.logits.dtype)
        return Bernoulli(p.logits / temperature).sample(rng)

    def mean(self, u: Tensor) -> Array:
        """E[x | u] (S, D)"""
        mean: Tensor = self(u).mean
        return mean.data


def delayed(packed: Packed) -> Packed:
    """The row of the step before, zero at the first step."""
    packing = packed.packing
    zeros = Tensor(array_module(packed.rows.data).zeros((packing.N, packed.rows.shape[1]), packed.rows.dtype))  # step 0 has N rows
    if packing.T == 1:
        return Packed(zeros, packing)
    before = packing.starts[packing.time[packing.N :] - 1] + packing.position[packing.N :]
    return Packed(ops.concatenate([zeros, ops.take_rows(packed.rows, before, unique=True)]), packing)


def first_parameter(model: Module) -> Array:
    """An array whose dtype and device are those in which a model computes."""
    return next(model.parameters()).data
