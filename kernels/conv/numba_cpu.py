"""Convolution fused: windows are read where they lie, in an image whose channels are side by side. Equation numbers are numpy_.py's.

With channels last, one row of a window is one run of numbers, so `tile.py` gathers a window by a table of U offsets instead of from a
column that somebody has laid out. Nothing larger than the padded images is written beside the results:

    y   rows are places, the sum goes over a window, vectors are output channels                        (1)
    dx  the same with dy as the image: a pixel h sees the windows p = (h + a - d u) / s that are whole. The pixels whose u are the same
        (s of them in a row, r in a column of phases) make a small convolution without a stride          (4)
    dw  rows are elements of the window, the sum goes over places, vectors are output channels           (2)

Threads take blocks of places in (1) and (4), and elements of the window in (2): every number is summed by one thread in one order, whatever
their number. y and dx have their channels last in memory; seen as (N, F, P, Q) and (N, C, H, W) they are transposed, not copied.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from minirnn.kernels import workers
from minirnn.kernels.contract import Array
from minirnn.kernels.conv import loops
from minirnn.kernels.conv.loops import BLOCK
from minirnn.kernels.conv.numpy_ import Geometry, Pair
from minirnn.kernels.conv.tile import HEIGHTS
from minirnn.kernels.product import empty, lanes, padded

CONVOLVE = {2: loops.convolve_2, 3: loops.convolve_3, 4: loops.convolve_4}
WEIGH = {2: loops.weigh_2, 3: loops.weigh_3, 4: loops.weigh_4}


class Plan(NamedTuple):
    """Where the numbers of a convolution lie: offsets from the begin of an image."""

    around: tuple[int, int, int, int]  # zeros above, below, left and right of it
    rows: Array  # (R,)  where the window of a place begins
    outs: Array  # (R,)  where its result goes
    offsets: Array  # (E,)  of the runs of a window, from its begin
    run: int  # numbers in a run
    elements: Array  # (E,)  u V + v of the first number of a run
    blocks: Array  # (B, 5)  first row, rows, first offset, offsets G, numbers of a panel vector that come before this phase's
    whole: bool  # whether every pixel of the result belongs to some row

    @property
    def products(self) -> int:
        """Multiply-adds for each channel of the result."""
        return int(self.blocks[:, 1] @ self.blocks[:, 3]) * self.run


class Sums(NamedTuple):
    """Where the numbers of the gradient of w lie, K = (u, v, c)."""

    elements: Array  # (K,)  from the begin of a window
    lines: Array  # (P,)  where the first window of each row of places begins, from the begin of an image
    outs: Array  # (K,)  where the sums of an element go


def forward(x: Array, w: Array, b: Array | None, geometry: Geometry) -> tuple[Array, Array]:
    """x (N, C, H, W), w (F, C, U, V), b (F,) or None, float32 or float64 -> y (N, F, P, Q), and what `backward` needs"""
    (N, C, H, W), (F, _, U, V) = x.shape, w.shape
    P, Q = geometry.places((H, W), (U, V))
    plan = _windows(C, F, (H, W), (U, V), geometry)
    kept = _channels_last(x, plan.around)
    vectors = _vectors(F, x.dtype)
    bias = _start(F, vectors, x.dtype)
    if b is not None:
        bias[:F] = b
    y = empty(N * P * Q * F, x.dtype)
    _convolve(kept, plan, _panels(w, plan, F, C * U * V, U * V, C, vectors), bias, y.reshape(N, P * Q, F), vectors)
    return y.reshape(N, P, Q, F).transpose(0, 3, 1, 2), kept


def backward(
    dy: Array, w: Array, kept: Array, geometry: Geometry, image: Pair, needs: tuple[bool, bool, bool]
) -> tuple[Array | None, Array | None, Array | None]:
    """dy (N, F, P, Q), w (F, C, U, V), `kept` from `forward`, image (H, W) -> dx (N, C, H, W), dw (F, C, U, V), db (F,)

    needs: which of them are wanted; the others are None.
    """
    dx = _images(dy, w, geometry, image) if needs[0] else None
    return (dx, *(_weights(dy, w, kept, geometry) if needs[1] or needs[2] else (None, None)))


def _images(dy: Array, w: Array, geometry: Geometry, image: Pair) -> Array:
    """dx: (4)"""
    (N, F, P, Q), (_, C, U, V), (H, W) = dy.shape, w.shape, image
    plan = _phases(F, C, (P, Q), image, (U, V), geometry)
    vectors = _vectors(C, dy.dtype)
    dx = empty(N * H * W * C, dy.dtype)
    if not plan.whole:
        dx[:] = 0
    panels = _panels(w, plan, C, U * V, C * U * V, F, vectors)
    _convolve(_channels_last(dy, plan.around), plan, panels, _start(C, vectors, dy.dtype), dx.reshape(N, H * W, C), vectors)
    return dx.reshape(N, H, W, C).transpose(0, 3, 1, 2)


def _weights(dy: Array, w: Array, kept: Array, geometry: Geometry) -> tuple[Array, Array]:
    """dw and db: (2), (3)"""
    (N, F, P, Q), (_, C, U, V), (_, r) = dy.shape, w.shape, geometry.stride
    vectors = _vectors(F, dy.dtype)
    columns = padded(F, vectors * lanes(dy.dtype))
    rows = _channels_last(dy, (0, 0, 0, 0)).reshape(-1, F)  # (N P Q, F)
    if columns > F:
        rows = np.pad(rows, ((0, 0), (0, columns - F)))
    K = C * U * V
    sums = _sums(C, (P, Q), (U, V), kept.shape[2], columns, geometry)
    dw, dwt, parts = np.empty(w.shape, dy.dtype), np.zeros(K * columns, dy.dtype), np.zeros((N, columns), dy.dtype)
    operations = 2.0 * K * rows.size
    count = workers.groups(-(-K // HEIGHTS[vectors][0]), operations)
    arguments = (kept.reshape(-1), kept[:1].size, sums.elements, r * C, sums.lines, rows.reshape(-1), columns, Q, dwt, sums.outs, C)
    workers.run(WEIGH[vectors], count, *arguments, dw.reshape(-1), parts)
    return dw, parts[:, :F].sum(axis=0)


def _convolve(images: Array, plan: Plan, panels: Array, start: Array, out: Array, vectors: int) -> None:
    """images (N, height, width, I), out (N, R', J): the tiles of every image and block."""
    N, _, J = out.shape
    if not out.size or not len(plan.blocks):
        return
    width = vectors * lanes(out.dtype)
    P = workers.groups(N * len(plan.blocks), 2.0 * N * plan.products * start.size)
    whole = J % width == 0  # else the last panel goes by way of a scratch
    scratch, lines = empty(0 if whole else P * BLOCK * width, out.dtype), np.arange(0 if whole else len(plan.rows)) * width
    arguments = (images.reshape(-1), images[:1].size, N, plan.rows, plan.outs, plan.offsets, plan.run, plan.blocks, panels)
    workers.run(CONVOLVE[vectors], P, *arguments, start, out.reshape(-1), out[:1].size, J, scratch, lines)


def _start(columns: int, vectors: int, dtype: np.dtype[np.generic]) -> Array:
    """Zeros that fill whole panels."""
    return np.zeros(padded(columns, vectors * lanes(dtype)), dtype)


def _vectors(columns: int, dtype: np.dtype[np.generic]) -> int:
    """V, vectors in a tile: what wastes least, and of those the most."""
    return min((4, 3, 2), key=lambda V: padded(columns, V * lanes(dtype)))


def _channels_last(x: Array, around: tuple[int, int, int, int]) -> Array:
    """x (N, C, H, W) as (N, H, W, C) with zeros around; x itself, seen so, where there is nothing to do."""
    x = x.transpose(0, 2, 3, 1)
    if not any(around) and x.flags.c_contiguous:
        return x
    N, H, W, C = x.shape
    top, bottom, left, right = around
    out = empty(N * (H + top + bottom) * (W + left + right) * C, x.dtype).reshape(N, H + top + bottom, W + left + right, C)
    rows = x.reshape(N, H, 1, W * C) if x.flags.c_contiguous else x
    threads = workers.groups(N, (50.0 if rows is not x else 100.0) * out.size)
    workers.run(loops.pad, threads, rows, out.reshape(N, H + top + bottom, (W + left + right) * C), top, left * C)
    return out


def _panels(w: Array, plan: Plan, J: int, by_j: int, by_i: int, numbers: int, vectors: int) -> Array:
    """w as panels, for tiles whose lanes are J channels and whose runs go over the other `numbers` channels (and along the window)."""
    L = lanes(w.dtype)
    count, K = padded(J, vectors * L) // (vectors * L), len(plan.elements) * plan.run
    panels = empty(count * K * vectors * L, w.dtype)
    arguments = (np.ascontiguousarray(w).reshape(-1), J, by_j, by_i, numbers, plan.elements, plan.run)
    workers.run(loops.pack, workers.groups(count, 200.0 * panels.size), *arguments, panels.reshape(count, K, vectors * L))
    return panels


@lru_cache(maxsize=64)
def _windows(C: int, F: int, image: Pair, window: Pair, geometry: Geometry) -> Plan:
    """(1)"""
    (s, r), (top, left), (d, e) = geometry
    (P, Q), (U, V) = geometry.places(image, window), window
    width = image[1] + 2 * left
    p, q = np.ogrid[:P, :Q]
    u, v = np.ogrid[:U, : 1 if e == 1 else V]  # without dilation, a row of a window is one run
    rows = ((s * p * width + r * q) * C).reshape(-1)
    offsets = ((d * u * width + e * v) * C).reshape(-1)
    blocks = [(at, min(BLOCK, P * Q - at), 0, len(offsets), 0) for at in range(0, P * Q, BLOCK)]
    run, elements = (V * C if e == 1 else C), (u * V + v).reshape(-1)
    return Plan((top, top, left, left), rows, np.arange(P * Q) * F, offsets, run, elements, np.array(blocks), True)


@lru_cache(maxsize=64)
def _sums(C: int, places: Pair, window: Pair, width: int, columns: int, geometry: Geometry) -> Sums:
    """(2), for padded images of so many columns of pixels, and so many columns of results."""
    (s, _), _, (d, e) = geometry
    u, v, c = np.ogrid[: window[0], : window[1], :C]
    elements = ((u * d * width + v * e) * C + c).reshape(-1)
    return Sums(elements, np.arange(places[0]) * (s * width * C), np.arange(len(elements)) * columns)


@lru_cache(maxsize=64)
def _phases(F: int, C: int, places: Pair, image: Pair, window: Pair, geometry: Geometry) -> Plan:
    """(4)"""
    (H, W), (_, V) = image, window
    down, across = (_phases_along(*sizes) for sizes in zip(places, image, window, *geometry, strict=True))
    around = (*_margins(down, places[0]), *_margins(across, places[1]))
    width = places[1] + around[2] + around[3]
    rows: list[Array] = []
    outs: list[Array] = []
    offsets: list[Array] = []
    elements: list[Array] = []
    blocks: list[tuple[int, ...]] = []
    for h, us, tops in down:
        for w, vs, lefts in across:
            if len(us) and len(vs) and len(h) and len(w):
                at, before = sum(map(len, rows)), sum(map(len, offsets))
                i, j = np.ogrid[: len(h), : len(w)]
                rows.append((((i + around[0]) * width + j + around[2]) * F).reshape(-1))
                outs.append(((h[:, None] * W + w) * C).reshape(-1))
                offsets.append(((tops[:, None] * width + lefts) * F).reshape(-1))
                elements.append((us[:, None] * V + vs).reshape(-1))
                count, G = len(rows[-1]), len(offsets[-1])
                blocks += [(at + k, min(BLOCK, count - k), before, G, before * F) for k in range(0, count, BLOCK)]
    whole = sum(map(len, rows)) == H * W
    tables = (np.concatenate([np.zeros(0, np.int64), *parts]) for parts in (rows, outs, offsets, elements))
    rows_, outs_, offsets_, elements_ = tables
    return Plan(around, rows_, outs_, offsets_, F, elements_, np.array(blocks, np.int64).reshape(-1, 5), whole)


def _phases_along(P: int, H: int, U: int, s: int, a: int, d: int) -> list[tuple[Array, Array, Array]]:
    """For each phase along one axis: its pixels h = phase, phase + s, ...; the u that see them; and the first pixel's p for each u."""
    u = np.arange(U)
    found = []
    for phase in range(s):
        seen = u[(phase + a - d * u) % s == 0]
        found.append((np.arange(phase, H, s), seen, (phase + a - d * seen) // s))
    return found


def _margins(phases: list[tuple[Array, Array, Array]], P: int) -> tuple[int, int]:
    """Zeros before and after P places, so that every p that a phase reaches for is there."""
    reached = [(first.min(), first.max() + len(h) - 1) for h, _, first in phases if len(first) and len(h)]
    return max((0, *(-int(low) for low, _ in reached))), max((0, *(int(high) - P + 1 for _, high in reached)))
