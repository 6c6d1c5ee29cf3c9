"""A product of a few rows with a packed matrix, for Numba functions: out (n, M) = a (n, K) @ w (K, M).

A recurrence multiplies by the same `w` in every step, so `w` is packed once per call into panels of V vectors of L numbers (L fills a
register), and the numbers that one k needs lie side by side:

    panel[p, k, v, l]        k = 0 .. K-1,  v = 0 .. V-1,  l = 0 .. L-1

A tile (`tile.py`) of R rows by one panel takes V loads and R broadcasts for R V multiply-adds; matmul/README.md derives its size. The loads
come from the second cache: a tile of two rows waits for them, one of four or more for the arithmetic. So n rows are cut into tiles of
nearly one height, 16 into 6 + 5 + 5. A single row would wait for the additions of its few sums, one after the other, so it takes several
panels at once.

Every number of `out` is the sum, in order, of chains of DEEPEST multiply-adds over k, whichever tile it falls in: a row's result does not
depend, in any bit, on the rows beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from minirnn.kernels.compiling import compiled
from minirnn.kernels.contract import Array
from minirnn.kernels.tile import VECTOR as VECTOR
from minirnn.kernels.tile import WIDE, copy, tiles, transpose

TALLEST = {3: 8 if WIDE else 4, 4: 6 if WIDE else 3}  # rows of the tallest tile by V: sums and operands fill the registers
AT_ONCE = 4 if WIDE else 2  # panels that a single row takes
DEEPEST = 512  # k's of one chain: as much of a panel stays in the second cache while all rows pass by it
FEW = 16  # rows of `w`, or of a panel, that are written together: whole cache lines on both sides of the copy

# GNU's allocator hands memory back, page by page, once twice its largest freed block lies unused at the end of the heap: each training step
# would get the same pages anew. So a block of nearly the most that it takes for this is freed here, never written to.
np.empty(2**25 - 2**13, np.uint8)


def empty(size: int, dtype: Any) -> Array:
    """An uninitialised vector that begins on a cache line, so that no load of a panel straddles two."""
    itemsize = np.dtype(dtype).itemsize
    buffer = np.empty(size + 64 // itemsize, dtype)
    return buffer[-buffer.ctypes.data % 64 // itemsize :][:size]


def lanes(dtype: Any) -> int:
    """L, the numbers in one register."""
    return int(VECTOR // np.dtype(dtype).itemsize)


def padded(columns: int, multiple: int) -> int:
    """The least multiple of `multiple` that holds `columns`."""
    return -(-columns // multiple) * multiple


def pack_gates(w: Array, gates: int) -> Array:
    """Panels of w^T for w (gates * H, K): panel p has units p L .. p L + L - 1 of every gate, a vector each; zeros fill the last."""
    L, H, K = lanes(w.dtype), len(w) // gates, w.shape[1]
    panels = empty(gates * padded(H, L) * K, w.dtype)
    _pack_gates(np.ascontiguousarray(w).reshape(-1), gates, H, K, panels, 0, padded(H, L) // L)
    return panels


def pack_columns(w: Array, vectors: int = 4) -> Array:
    """Panels of w (K, M): panel p has the columns p V L .. p V L + V L - 1. Zeros fill the last."""
    L, (K, M) = lanes(w.dtype), w.shape
    panels = empty(padded(M, vectors * L) * K, w.dtype)
    _pack_columns(np.ascontiguousarray(w).reshape(-1), vectors, K, M, panels, 0, padded(M, vectors * L) // (vectors * L))
    return panels


@njit(error_model="numpy")
def gates_into(w: Array, gates: int, H: int, K: int, panels: Array, first: int, last: int) -> None:
    """Panels first .. last - 1 of all that `pack_gates` makes of w (gates * H, K); w and panels one-dimensional. For Numba functions."""
    L = VECTOR // w.itemsize
    for p in range(first, last):
        for few in range(0, K, FEW):
            for v in range(gates):
                for k in range(few, min(few + FEW, K), L):
                    transpose(w, (v * H + p * L) * K + k, K, H - p * L, K - k, panels, ((p * K + k) * gates + v) * L, gates * L)


@njit(error_model="numpy")
def columns_into(w: Array, vectors: int, K: int, M: int, panels: Array, first: int, last: int) -> None:
    """Panels first .. last - 1 of all that `pack_columns` makes of w (K, M); w and panels one-dimensional. For Numba functions."""
    L = VECTOR // w.itemsize
    width = vectors * L
    for few in range(0, K, FEW):
        for p in range(first, last):
            for k in range(few, min(few + FEW, K)):
                for j in range(0, width, L):
                    copy(w, k * M + p * width + j, M - p * width - j, panels, (p * K + k) * width + j, L)


@compiled(error_model="numpy")
def _pack_gates(w: Array, gates: int, H: int, K: int, panels: Array, first: int, last: int) -> None:
    gates_into(w, gates, H, K, panels, first, last)


@compiled(error_model="numpy")
def _pack_columns(w: Array, vectors: int, K: int, M: int, panels: Array, first: int, last: int) -> None:
    columns_into(w, vectors, K, M, panels, first, last)


def multiplier(V: int) -> Callable[..., None]:
    """multiply(...) for panels of V vectors, to be called from Numba functions."""
    tallest = TALLEST[V]
    tile = tiles(V, tallest, AT_ONCE)

    def multiply(
        a: Array,
        a_at: int,
        a_row: int,
        n: int,
        K: int,
        panels: Array,
        count: int,
        out: Array,
        out_panel: int,
        out_row: int,
        out_vector: int,
        first: int = 0,
        last: int = -1,
    ) -> None:
        """out = a @ w for n rows, `count` panels, or only those from `first` to before `last`. All arrays one-dimensional; row r of `a`
        begins at a_at + r a_row, vector v of panel p of row r of `out` at p out_panel + r out_row + v out_vector."""
        width = V * (VECTOR // panels.itemsize)
        end = count if last < 0 else last
        T = (n + tallest - 1) // tallest
        for k in range(0, K, DEEPEST):
            p = first
            while p < end:
                Q = 1
                while n == 1 and min(AT_ONCE, end - p) >= 2 * Q:
                    Q *= 2
                r = 0
                for t in range(T):
                    R = (n - r + T - t - 1) // (T - t)  # what is left, shared by the tiles that are left
                    at = p * out_panel + r * out_row
                    of_a = (a, a_at + r * a_row + k, a_row, 1, min(DEEPEST, K - k))
                    of_w = (panels, (p * K + k) * width, K * width)
                    tile(R, Q, *of_a, *of_w, out, at, out_row, out_panel, out_vector, out, at, out_row, k > 0, Q * width)
                    r += R
                p += Q

    multiply.__name__ = multiply.__qualname__ = f"multiply_{V}"  # compiled code is kept under this name
    return njit(error_model="numpy")(multiply)


multiply_3 = multiplier(3)
multiply_4 = multiplier(4)
