"""Recurrences to solve in tests: awkward shapes, random arrays, and the numerical derivatives that a backward pass must agree with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

Array = np.ndarray[Any, Any]

RAGGED = [4, 3, 3, 1]  # batch sizes: four sequences, of 4, 3, 3 and 1 steps
AWKWARD = [  # batch sizes, H
    ([1], 1),  # T = N = H = 1
    ([1, 1, 1, 1, 1], 7),  # N = 1
    ([5], 3),  # T = 1
    ([13, 13, 7, 2, 1], 37),  # primes
    (RAGGED, 17),  # one unit more than a vector of 64 bytes holds in float32
    ([40, 33, 20, 5], 64),  # several tiles of rows
    ([3, 3, 3], 129),  # several panels, the last almost empty
]

# (T,) non-increasing counts: what up to seven sequences of up to six steps look like packed
batch_sizes = st.lists(st.integers(1, 6), min_size=1, max_size=7).map(lambda lengths: counts(lengths))
hidden = st.sampled_from([1, 2, 3, 5])


def counts(lengths: Sequence[int]) -> list[int]:
    """How many sequences are still running at each step."""
    return [sum(length > t for length in lengths) for t in range(max(lengths))]


def rows_of(sequence: int, batch_sizes: Sequence[int]) -> list[int]:
    """The packed rows of one sequence, first step first."""
    first = np.concatenate(([0], np.cumsum(batch_sizes)))
    return [int(first[t]) + sequence for t, n in enumerate(batch_sizes) if n > sequence]


def distance(actual: Array, expected: Array) -> float:
    """The largest difference, relative to the largest number expected: what rounding does to sums does not shrink with their result."""
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    scale = np.abs(expected).max(initial=0.0)
    return float(np.abs(actual - expected).max(initial=0.0) / scale) if scale else float(np.abs(actual).max(initial=0.0))


class Problem(NamedTuple):
    """Inputs of a recurrence, the gradients that come back from the loss, and so the loss L = sum over outputs of output * gradient."""

    inputs: dict[str, Array]  # by argument, in the order of the kernel's arguments; batch_sizes apart
    batch_sizes: Array
    cotangents: dict[str, Array]  # by field of the tape: dL / d field


def lstm_problem(batch_sizes: Sequence[int], H: int, dtype: Any = np.float64, seed: int = 0) -> Problem:
    rng = np.random.default_rng(seed)
    S, N = sum(batch_sizes), batch_sizes[0]

    def draw(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(dtype)

    return Problem(
        {"z": draw(S, 4 * H), "w_hh": draw(4 * H, H) / np.sqrt(H).astype(dtype), "h0": draw(N, H), "c0": draw(N, H)},
        np.array(batch_sizes),
        {"h": draw(S, H), "c": draw(S, H), "h_n": draw(N, H), "c_n": draw(N, H)},
    )


def loss(forward: Callable[..., Any], problem: Problem, inputs: dict[str, Array]) -> Any:
    tape = forward(*inputs.values(), problem.batch_sizes)
    return sum((getattr(tape, name) * cotangent).sum() for name, cotangent in problem.cotangents.items())


def complex_step(forward: Callable[..., Any], problem: Problem, name: str) -> Array:
    """dL / d inputs[name], number by number: L(x + ih) = L(x) + ih L'(x) - ..., so Im L / h is exact to rounding for a tiny h."""
    step = 1e-30
    inputs = {key: value.astype(np.complex128) for key, value in problem.inputs.items()}
    gradient = np.empty(problem.inputs[name].shape)
    for index in np.ndindex(gradient.shape):
        inputs[name][index] += 1j * step
        gradient[index] = loss(forward, problem, inputs).imag / step
        inputs[name][index] = problem.inputs[name][index]
    return gradient


def central_difference(forward: Callable[..., Any], problem: Problem, name: str, direction: Array) -> float:
    """dL / d inputs[name] along a direction, (L(x + hv) - L(x - hv)) / 2h."""
    step = 1e-5
    x = problem.inputs[name]
    up, down = (loss(forward, problem, {**problem.inputs, name: x + sign * step * direction}) for sign in (1, -1))
    return float((up - down) / (2 * step))


def check_complex_step(forward: Callable[..., Any], gradients: dict[str, Array], problem: Problem) -> None:
    """Both sides are sums of at most a few thousand products of numbers around 1: rounding leaves 1e-13 of the largest."""
    for name, gradient in gradients.items():
        assert distance(gradient, complex_step(forward, problem, name)) < 1e-12, name


def check_central_difference(forward: Callable[..., Any], gradients: dict[str, Array], problem: Problem) -> None:
    """Rounding leaves eps L / h = 1e-11 of the loss, curvature h^2 = 1e-10 of the third derivative: 1e-7 is generous to both, and far below
    the thousandth that a wrong factor is off by."""
    rng = np.random.default_rng(1)
    size = sum(float(np.abs(cotangent).sum()) for cotangent in problem.cotangents.values())
    for name, gradient in gradients.items():
        for _ in range(3):
            direction = rng.choice([-1.0, 1.0], gradient.shape)
            numeric = central_difference(forward, problem, name, direction)
            assert abs((gradient * direction).sum() - numeric) < 1e-7 * (size + np.abs(gradient).sum()), name
