"""What a recurrence and a Kalman filter cost: operations, bytes, and the floor that their time is measured against."""

from __future__ import annotations

from typing import Any

import numpy as np

from minirnn.kernels.flops import kalman_filter, kalman_smoother

# Numbers per row and hidden unit that forward reads, writes, and that the tape keeps; gates G.
#         G  read                   written            kept
_ROWS = {
    "lstm": (4, "z 4, h 1, c 1", "gates 4, c 1, h 1", "gates 4, c 1, h 1"),
    "gru": (3, "z 3, h 1", "gates 3, hn 1, h 1", "gates 3, hn 1, h 1"),
    "rnn": (1, "z 1, h 1", "h 1", "h 1"),
}


def itemsize(dtype: str) -> int:
    """Bytes of a number; NumPy knows bfloat16 only where the package ml_dtypes has been imported."""
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def recurrence_costs(T: int, N: int, D: int, H: int, dtype: str, cell: str, measure: bool) -> list[str]:
    """The lines of `explain` about a recurrence on the CPU, and the layer around it."""
    G, read, written, kept = _ROWS[cell]

    def numbers(what: str) -> int:
        return sum(int(part.split()[1]) for part in what.split(", "))

    size = itemsize(dtype)
    weights = G * H * H * size
    moved = (numbers(read) + numbers(written)) * N * H * size
    step = 2 * N * G * H * H
    projection = 2 * N * G * H * D
    total = 3 * T * (step + projection)
    lines = [
        f"  one step forward   {si(step, 'FLOP')} in h w_hh^T; reads w_hh, {si(weights, 'B')}, "
        f"and per unit reads {read} and writes {written}: {si(moved, 'B')}",
        f"  kept for backward  {kept} per unit and row: {si(numbers(kept) * T * N * H * size, 'B')}",
        f"  in total           {si(total, 'FLOP')} in matrix products, forward and backward: recurrent {si(3 * T * step, 'FLOP')}, "
        f"input {si(3 * T * projection, 'FLOP')}",
    ]
    if measure:
        seconds = matmul_seconds(T, N, D, H, G, np.dtype(dtype))
        lines.append(
            f"  floor              {1e3 * seconds:.3g} ms: these products alone, NumPy, best of 5 ({si(total / seconds, 'FLOP/s')})"
        )
    else:
        lines.append("  floor              the time of these products alone; measure=True times them here")
    return lines


def kalman_costs(T: int, N: int, p: int, n: int, size: int) -> list[str]:
    """See `minirnn.kernels.flops`."""
    filter, smoother = kalman_filter(p, n), kalman_smoother(n)
    filtered, smoothed = 2 * (n + n**2), n + 2 * n**2
    return [
        f"  one step           filter {si(filter, 'FLOP')} (predict {si(3 * n**3, 'FLOP')}), smoother {si(smoother, 'FLOP')}",
        f"  kept               two means and covariances of every step: {si(filtered * T * N * size, 'B')}, "
        f"and smoothed, with lag one, {si(smoothed * T * N * size, 'B')}",
        f"  in total           {si(T * N * (filter + smoother), 'FLOP')}, each step after the one before",
    ]


def si(value: float, unit: str) -> str:
    prefixes = ["", "k", "M", "G", "T"]
    while value >= 1000 and len(prefixes) > 1:
        value /= 1000
        del prefixes[0]
    return f"{value:.3g} {prefixes[0]}{unit}"


def matmul_seconds(T: int, N: int, D: int, H: int, G: int, dtype: np.dtype[Any]) -> float:
    """Seconds of a layer's matrix products, forward and backward, without anything between them: the best of five rounds."""
    from time import perf_counter

    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray[Any, Any]:
        return rng.standard_normal(shape).astype(dtype)

    x, h, dz, dz_t, h_t = draw(T * N, D), draw(T * N, H), draw(T * N, G * H), draw(N, G * H), draw(N, H)
    w_ih, w_hh = draw(G * H, D), draw(G * H, H)
    best = float("inf")
    for _ in range(6):  # the first round warms up
        begin = perf_counter()
        np.matmul(x, w_ih.T)
        for _ in range(T):
            np.matmul(h_t, w_hh.T)
        for _ in range(T):
            np.matmul(dz_t, w_hh)
        np.matmul(dz.T, h)
        np.matmul(dz.T, x)
        np.matmul(dz, w_ih)
        best = min(best, perf_counter() - begin)
    return best
