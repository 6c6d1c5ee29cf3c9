"""Truncated back-propagation through time: what the gradient loses when it is cut every k steps.

    with mr.study.truncated(20):
        model.loss(batch).backward()                # no gradient passes from step 20 to step 19, from 40 to 39, ...

    found = mr.study.truncation(model, batch, [1, 2, 5, 10, 20, 50])
    found.cosine, found.ratio                       # of the truncated gradient g_k with the whole one, g, for each k

The whole gradient is a sum over all pairs of steps s <= t, of what the loss at t says to the weights as they were used at s. The
truncated one leaves out the pairs with a cut between them. What is left is in general the gradient of nothing, and a biased estimate of g:

    cosine  g_k . g / (|g_k| |g|)           how much of its direction is right
    ratio   |g_k| / |g|                     how long it is
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from minirnn.autograd import Function, grad
from minirnn.device import to_device
from minirnn.diagnostics import Direction, Monitor, Results, monitored
from minirnn.nn.module import Module, Parameter
from minirnn.ops.layer import Layer
from minirnn.ops.pieces import CUT
from minirnn.ops.recurrence import Recurrence
from minirnn.place import here
from minirnn.random import generator
from minirnn.tensor import Tensor

Vector: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]


@contextmanager
def truncated(k: int) -> Iterator[None]:
    """In this context no gradient passes through time from a step t = k, 2 k, 3 k, ... to the step before it.

    It holds for every recurrent layer and direction, and for the gradients of what is computed here, whenever they are taken. The
    numbers of the forward pass are the same. Steps count from where a direction begins: in a reverse one from each sequence's end. A layer
    that is called for one step at a time, as a cell is, has nothing to cut; neither have the latent recurrences of `NeuralSSM` and `SRNN`.

    Args:
        k: steps, at least 1; a k of T or more cuts nothing, and every bit stays.
    """
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise ValueError(f"truncated: k must be a number of steps, at least 1, got {k!r}")
    token = CUT.set(int(k))
    try:
        yield
    finally:
        CUT.reset(token)


class Bias(NamedTuple):
    """How truncated gradients stand to the whole one, for each k."""

    cosine: Vector  # (K,)
    ratio: Vector  # (K,)


@dataclass(frozen=True)
class Truncation:
    """What `truncation` found; `print` it for a table.

    Args:
        ks: (K,) steps between two cuts.
        T: steps of the longest recurrent layer.
        overall: of all parameters together.
        parameters: of each parameter, by its name in the model.
    """

    ks: tuple[int, ...]
    T: int
    overall: Bias
    parameters: Mapping[str, Bias]

    @property
    def cosine(self) -> Vector:
        """(K,) of all parameters together."""
        return self.overall.cosine

    @property
    def ratio(self) -> Vector:
        """(K,) of all parameters together."""
        return self.overall.ratio

    def __str__(self) -> str:
        width = max(map(len, [*self.parameters, "all parameters"]))
        lines = [f"{'T = ' + str(self.T):{width}}" + "".join(f"  {'k = ' + str(k):>13}" for k in self.ks)]
        lines += [f"{'':{width}}" + "  cosine  ratio" * len(self.ks)]
        for name, bias in {"all parameters": self.overall, **self.parameters}.items():
            lines.append(f"{name:{width}}" + "".join(f"  {c:6.3f} {r:6.3f}" for c, r in zip(*bias, strict=True)))
        return "\n".join(lines)


def truncation(model: Module, batch: Any, ks: Sequence[int], *, loss: Callable[[Any], Tensor] | None = None) -> Truncation:
    """How the gradient of `model.loss(batch)` changes when it is cut every k steps, for each k of `ks`.

    The model stays as it is: gradients, mode and generators. Every k sees the same draws of dropout and noise.

    Args:
        model: any model; its parameters that learn (`requires_grad`) are looked at.
        batch: what its loss takes.
        ks: steps between two cuts; where k is T or more, cosine and ratio are exactly 1.
        loss: in place of `model.loss`.

    Raises ValueError for a model in which there is nothing to cut, or a recurrence that is not cut (see `truncated`), and for a k below 1.
    """
    if not isinstance(ks, Iterable) or isinstance(ks, str):
        raise TypeError(f"truncation: ks must be numbers of steps, as (1, 2, 4), got {ks!r}")
    ks = tuple(ks)
    if not ks:
        raise ValueError("truncation: ks must name at least one k")
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not parameters:
        raise ValueError(f"truncation: {type(model).__name__} has no parameter that learns")
    compute = loss or getattr(model, "loss", None)
    if compute is None:
        raise TypeError(f"truncation: {type(model).__name__} has no method loss; pass loss=, a function of the batch")
    seen = _Recurrences()
    with _same_draws(model) as rewind, monitored(seen):
        whole = _gradient(compute, batch, parameters)
        seen.check(type(model).__name__)
        found = []
        for k in ks:
            rewind()
            with truncated(k):
                found.append(_gradient(compute, batch, parameters))
    by_name = {name: _bias([g[name] for g in found], whole[name]) for name in parameters}
    joined = [np.concatenate(list(g.values())) for g in (whole, *found)]
    return Truncation(tuple(map(int, ks)), seen.steps, _bias(joined[1:], joined[0]), by_name)


class _Recurrences(Monitor):
    """Which recurrences run, and over how many steps."""

    def __init__(self) -> None:
        self.steps = 0
        self.uncut = ""

    def watch(self, function: Function, direction: Direction, compute: Callable[[], Results]) -> Results:
        if isinstance(function, Layer):
            self.steps = max(self.steps, len(function.batch_sizes))
        elif isinstance(function, Recurrence):
            self.uncut = type(function).__name__
        elif (step := here().step) is not None:
            self.steps = max(self.steps, step + 1)  # an unrolled one
        return compute()

    def check(self, model: str) -> None:
        if self.uncut:
            raise ValueError(
                f"truncation: {model} has a recurrence, {self.uncut}, that mr.study.truncated does not cut; only layers are cut"
            )
        if self.steps < 2:
            raise ValueError(
                f"truncation: nothing to cut in {model}: no recurrent layer reads more than one step at a time; "
                "cells that are called step by step are not cut, use nn.LSTM, nn.GRU or nn.RNN over the whole sequence"
            )


@contextmanager
def _same_draws(model: Module) -> Iterator[Callable[[], None]]:
    """Gives a function that brings all generators back to where they are now, and does so at the end."""
    own, default = model.rng_state(), generator(None).bit_generator.state

    def rewind() -> None:
        model.set_rng_state(own)
        generator(None).bit_generator.state = default

    try:
        yield rewind
    finally:
        rewind()


def _gradient(loss: Callable[[Any], Tensor], batch: Any, parameters: Mapping[str, Parameter]) -> dict[str, Vector]:
    """Flat and in float64, by name; zeros where the loss does not depend on a parameter."""
    found = grad(loss(batch), list(parameters.values()), allow_unused=True)
    return {
        name: (np.zeros(p.size) if dp is None else to_device(dp.data, "cpu").astype(np.float64).ravel())
        for (name, p), dp in zip(parameters.items(), found, strict=True)
    }


def _bias(found: Sequence[Vector], whole: Vector) -> Bias:
    pairs = [_compared(g, whole) for g in found]
    return Bias(np.array([cosine for cosine, _ in pairs]), np.array([ratio for _, ratio in pairs]))


def _compared(g: Vector, whole: Vector) -> tuple[float, float]:
    """Cosine and ratio; of equals exactly 1. What is zero has no direction: cosine 0."""
    if np.array_equal(g, whole):
        return 1.0, 1.0
    scale = float(max(np.abs(g).max(), np.abs(whole).max()))
    g, whole = g / scale, whole / scale
    length, wanted = math.sqrt(g @ g), math.sqrt(whole @ whole)
    cosine = float(g @ whole) / (length * wanted) if length and wanted else 0.0
    return cosine, length / wanted if wanted else math.inf
