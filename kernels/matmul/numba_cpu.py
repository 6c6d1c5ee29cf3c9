"""out = a b in blocks that stay in the caches, compiled by Numba. README.md in this folder derives the sizes.

    for each block of k (DEEPEST at most):
        for each block of rows:                          of a; all rows, where they need not be packed
            for each block of columns (PANELS panels):   pack the block of b: (depth, 256) numbers in half of the second cache
                for each tile of rows (6 at most):       its part of a lies in the first cache
                    for each panel:                      the tile of `tile.py`

Few rows times a transpose, x w^T, copy nothing: each row of w is read once, and multiplied by all of them (`rows.py`).

Threads share the columns, or the rows where there are more of them, and pack for themselves: none waits for another. Every number of `out`
is a sum, in order, over the blocks of k, each a chain of multiply-adds: neither the threads nor the numbers beside it change a bit of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from minirnn.kernels import workers
from minirnn.kernels.compiling import compiled
from minirnn.kernels.contract import Array
from minirnn.kernels.matmul import numpy_
from minirnn.kernels.matmul.sizes import is_few, pays
from minirnn.kernels.product import DEEPEST, FEW, TALLEST, lanes, padded
from minirnn.kernels.rows import ROWS as TILE
from minirnn.kernels.rows import dots
from minirnn.kernels.tile import VECTOR, copy, tiles, transpose
from minirnn.kernels.vectors import lanes_of, load, pointer, store, zeros

VECTORS = 4  # of a panel; the last one has 1 or 2 where that is enough
PANELS = 4  # of a block of b
HEIGHT = TALLEST[VECTORS]  # rows of a tile
ROWS = 1024  # of a block of a, where it is packed: where it is a transpose
STRIP = 16  # rows of it that lie side by side for every k: whole cache lines, cut into tiles of 6 + 5 + 5
RUN = 128  # k's that a row of b^T is read along

_tile_4, _tile_2, _tile_1 = (tiles(V, HEIGHT, 1) for V in (4, 2, 1))


def multiply(
    a: Array, b: Array, bias: Array | None = None, out: Array | None = None, accumulate: bool = False, sums: Array | None = None
) -> Array:
    """a (M, K), b (K, N), bias (N,) or None -> (M, N): `out`, or a new array; with `accumulate`, what `out` was is added

    `sums` (M,), if there are any, get the sums of the rows of a. The products that blocks do not pay for are NumPy's.
    """
    if not pays(a.shape[0], a.shape[1], b.shape[1]):
        return numpy_.multiply(a, b, bias, out, accumulate, sums)
    if not (is_few(*a.shape) and b.strides[0] == b.itemsize):
        return blocked(a, b, bias, out, accumulate, sums)
    if sums is not None:
        a.sum(1, out=sums)
    return few(a, b, bias, out, accumulate)


def blocked(
    a: Array, b: Array, bias: Array | None = None, out: Array | None = None, accumulate: bool = False, sums: Array | None = None
) -> Array:
    """As `multiply`, whatever the sizes. `a`, `b` and their transposes are read where they lie; the rows of `out` are contiguous.

    a, b, bias, out   all float32 or all float64; `out` overlaps none of the others
    accumulate        needs `out`, and takes no bias
    sums              contiguous; they cost nearly nothing where `a` is a transpose, since every thread packs its rows
    """
    (M, K), N, dtype = a.shape, b.shape[1], a.dtype
    result = _result(M, K, N, dtype, bias, out, accumulate)
    if min(M, K, N) == 0:
        return numpy_.multiply(a, b, bias, result, accumulate, sums)
    rows = a
    a, a_row, a_k = _flat(a)
    b, b_k, b_column = _flat(b)
    c, c_row, _ = _flat(result)
    start, start_row, starts = (c, c_row, accumulate) if bias is None else (np.ascontiguousarray(bias), 0, True)
    by_rows = M > N
    operations = 2 * M * K * N
    P = min(-(-M // HEIGHT) if by_rows else -(-N // lanes(dtype)), workers.threads(operations))
    packed = padded(min(M, ROWS), STRIP) if a_k > 1 else 0
    line = 64 // a.itemsize
    size = padded(min(K, DEEPEST) * (PANELS * VECTORS * lanes(dtype) + packed), line)
    scratch = np.empty(P * size + line, dtype)
    in_passing = sums is not None and a_k > 1
    if sums is not None and not in_passing:
        rows.sum(1, out=sums)
    row_sums = sums if in_passing else scratch[:0]
    operands = (by_rows, a, a_row, a_k, b, b_k, b_column, c, c_row, start, start_row, starts, M, K, N, row_sums, scratch, size)
    workers.run(_part, P, *operands, worth_waking=operations > 2 * workers.WORTH)
    return result


def few(a: Array, b: Array, bias: Array | None = None, out: Array | None = None, accumulate: bool = False) -> Array:
    """As `blocked`, for few rows of a and for a b that lies column by column, which is read once, where it lies."""
    (M, K), N = a.shape, b.shape[1]
    result = _result(M, K, N, a.dtype, bias, out, accumulate)
    if min(M, K, N) == 0:
        return numpy_.multiply(a, b, bias, result, accumulate)
    (a, a_row), (b, b_column), (c, c_row) = _by_rows(a), _by_rows(b.T), _by_rows(result)
    start, start_row, starts = (c, c_row, accumulate) if bias is None else (np.ascontiguousarray(bias), 0, True)
    operations = 2 * M * K * N
    P = min(-(-N // TILE), workers.threads(operations))
    operands = (a, a_row, b, b_column, c, c_row, start, start_row, starts, M, K, N)
    workers.run(_part_of_few, P, *operands, worth_waking=operations > 2 * workers.WORTH)
    return result


def _result(M: int, K: int, N: int, dtype: Any, bias: Array | None, out: Array | None, accumulate: bool) -> Array:
    """What a product is written to, after a check of the arguments."""
    result = np.empty((M, N), dtype) if out is None else out
    in_place = result.flags.c_contiguous or (result.strides[1] == result.itemsize and result.strides[0] >= N * result.itemsize)
    if result.shape != (M, N) or result.dtype != dtype or not in_place:
        raise ValueError(
            f"matmul: out must be {dtype} (M, N) = {(M, N)} with contiguous rows, got {result.dtype} {result.shape}, {result.strides}"
        )
    if accumulate and (out is None or bias is not None):
        raise ValueError("matmul: accumulate needs out, and takes no bias: add the bias to out before")
    return result


def _flat(x: Array) -> tuple[Array, int, int]:
    """x (rows, columns) as a vector, and how many elements lie between two rows and two columns: one of these is 1, or x is copied."""
    if x.flags.c_contiguous and x.flags.writeable:
        return x.reshape(-1), x.shape[1], 1
    if x.flags.f_contiguous and x.flags.writeable:
        return x.T.reshape(-1), 1, x.shape[0]
    (rows, columns), (down, right) = x.shape, (stride // x.itemsize for stride in x.strides)
    apart = (right == 1 and down >= columns) or (down == 1 and right >= rows)
    if not apart or not x.flags.writeable:  # one that is not writeable has another type for Numba
        return x.copy().reshape(-1), columns, 1
    span = (rows - 1) * down + (columns - 1) * right + 1
    return np.lib.stride_tricks.as_strided(x, (span,), (x.itemsize,)), down, right


def _by_rows(x: Array) -> tuple[Array, int]:
    """x, or a copy with contiguous rows, as a vector, and how many elements lie between two rows."""
    vector, row, column = _flat(x)
    return (vector, row) if column == 1 else _by_rows(np.ascontiguousarray(x))


@compiled(error_model="numpy")
def _part_of_few(
    p: int,
    P: int,
    a: Array,
    a_row: int,
    b: Array,
    b_column: int,
    out: Array,
    out_row: int,
    start: Array,
    start_row: int,
    starts: bool,
    M: int,
    K: int,
    N: int,
) -> None:
    """The columns of thread p; all arrays are vectors."""
    tiles = (N + TILE - 1) // TILE
    left, right = tiles * p // P * TILE, min(N, tiles * (p + 1) // P * TILE)
    dots(a, 0, a_row, M, K, b, left * b_column, b_column, right - left, out, left, out_row, start, left, start_row, starts)


@compiled(error_model="numpy")
def _part(
    p: int,
    P: int,
    by_rows: bool,
    a: Array,
    a_row: int,
    a_k: int,
    b: Array,
    b_k: int,
    b_column: int,
    out: Array,
    out_row: int,
    start: Array,
    start_row: int,
    starts: bool,
    M: int,
    K: int,
    N: int,
    sums: Array,
    scratch: Array,
    size: int,
) -> None:
    """The share of thread p. All arrays are vectors: a[m, k] is element m a_row + k a_k, start (what `out` starts from) like `out`.
    sums (M,) of the rows of a, or empty."""
    L = VECTOR // a.itemsize
    top, bottom, left, right = 0, M, 0, N
    if by_rows:
        top, bottom = p * M // P, (p + 1) * M // P
    else:
        vectors = (N + L - 1) // L
        left, right = p * vectors // P * L, min(N, (p + 1) * vectors // P * L)
    packs, sums_up = a_k > 1, sums.size > 0 and (by_rows or p == 0)
    panels_at = p * size + -scratch.ctypes.data % 64 // a.itemsize  # on a cache line
    packed_at = panels_at + min(K, DEEPEST) * PANELS * VECTORS * L
    height, width = ROWS if packs else M, PANELS * VECTORS * L
    blocks = (K + DEEPEST - 1) // DEEPEST
    for block in range(blocks):
        k = block * K // blocks
        depth = (block + 1) * K // blocks - k
        for row in range(top, bottom, height):
            n = min(height, bottom - row)
            if packs:
                _pack_a(a, row + k * a_k, a_k, n, depth, scratch, packed_at)
                if sums_up:
                    _sum_rows(scratch, packed_at, n, depth, block > 0, sums, row)
            of_a = (scratch, packed_at, 0) if packs else (a, row * a_row + k, a_row)
            for column in range(left, right, width):
                columns = min(width, right - column)
                of_w = (scratch, panels_at)
                _pack_b(b, k * b_k + column * b_column, b_k, b_column, depth, columns, *of_w)
                of_out = (out, row * out_row + column, out_row)
                of_start = (start, row * start_row + column, start_row, starts) if block == 0 else (*of_out, True)
                _tiles(packs, n, depth, columns, of_a, of_w, of_out, of_start)


@njit(error_model="numpy")
def _tiles(packed: bool, n: int, depth: int, columns: int, of_a: Any, of_w: Any, of_out: Any, of_start: Any) -> None:
    """n rows of a, or of the packed a, times a packed block of b; each `of_` is an array, where its block begins, and its row's length."""
    a, a_at, a_row = of_a
    panels, panels_at = of_w
    out, out_at, out_row = of_out
    start, start_at, start_row, starts = of_start
    L = VECTOR // out.itemsize
    r = 0
    while r < n:
        if packed:
            strip = r - r % STRIP
            R = _height(r - strip, min(STRIP, n - strip))
            from_a = (a, a_at + strip * depth + r - strip, 1, STRIP, depth)
        else:
            R = _height(r, n)
            from_a = (a, a_at + r * a_row, a_row, 1, depth)
        for column in range(0, columns, VECTORS * L):
            V = _vectors(columns - column, L)
            from_w = (panels, panels_at + column * depth, 0)
            to = (out, out_at + r * out_row + column, out_row, 0, L)
            from_start = (start, start_at + r * start_row + column, start_row, starts)
            if V == 4:
                _tile_4(R, 1, *from_a, *from_w, *to, *from_start, columns - column)
            elif V == 2:
                _tile_2(R, 1, *from_a, *from_w, *to, *from_start, columns - column)
            else:
                _tile_1(R, 1, *from_a, *from_w, *to, *from_start, columns - column)
        r += R


@njit(error_model="numpy")
def _height(r: int, n: int) -> int:
    """Rows of the tile that begins with row r of n: what is left, shared by as few tiles as can hold it."""
    count = (n - r + HEIGHT - 1) // HEIGHT
    return (n - r + count - 1) // count


@njit(error_model="numpy")
def _vectors(columns: int, L: int) -> int:
    """Of the panel that begins where so many columns are left."""
    return VECTORS if columns > 2 * L else 2 if columns > L else 1


@njit(error_model="numpy")
def _pack_a(a: Array, a_at: int, a_k: int, n: int, depth: int, packed: Array, at: int) -> None:
    """n columns of a^T (depth, ...), which has rows of length a_k: strip after strip, each (depth, STRIP)."""
    L = VECTOR // a.itemsize
    for some in range(0, depth, FEW):
        for strip in range(0, n, STRIP):
            for k in range(some, min(some + FEW, depth)):
                for r in range(strip, strip + STRIP, L):
                    copy(a, a_at + k * a_k + r, n - r, packed, at + strip * (depth - 1) + k * STRIP + r, L)


@njit(error_model="numpy")
def _sum_rows(packed: Array, at: int, n: int, depth: int, adds: bool, sums: Array, first: int) -> None:
    """The sums over k of what `_pack_a` has packed, n of them from `first` on, or what they were and these: two chains each."""
    L, zero = lanes_of(packed), zeros(packed)
    packed, sums = pointer(packed), pointer(sums)
    for strip in range(0, n, STRIP):
        for r in range(strip, min(strip + STRIP, n), L):
            row = at + strip * (depth - 1) + r
            total = load(packed, row, None)
            other = load(packed, row + STRIP, None) if depth > 1 else zero
            for k in range(2, depth - 1, 2):
                total = total + load(packed, row + k * STRIP, None)
                other = other + load(packed, row + (k + 1) * STRIP, None)
            if depth > 2 and depth % 2:
                total = total + load(packed, row + (depth - 1) * STRIP, None)
            total = total + other
            if adds:
                total = total + load(sums, first + r, n - r)
            store(sums, first + r, total, n - r)


@njit(error_model="numpy")
def _pack_b(b: Array, b_at: int, b_k: int, b_column: int, depth: int, columns: int, panels: Array, at: int) -> None:
    """A block (depth, columns) of b: panel after panel, each (depth, V, L)."""
    L = VECTOR // b.itemsize
    width = VECTORS * L
    few = FEW if b_column == 1 else RUN
    for some in range(0, depth, few):
        until = min(some + few, depth)
        for panel in range(0, columns, width):
            V = _vectors(columns - panel, L)
            to = at + panel * depth
            if b_column == 1:
                for k in range(some, until):
                    for j in range(panel, panel + V * L, L):
                        copy(b, b_at + k * b_k + j, columns - j, panels, to + k * V * L + j - panel, L)
            else:
                for j in range(panel, panel + V * L, L):
                    for k in range(some, until, L):
                        to_k = to + k * V * L + j - panel
                        transpose(b, b_at + j * b_column + k, b_column, columns - j, depth - k, panels, to_k, V * L)
