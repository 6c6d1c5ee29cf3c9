"""The packed product against NumPy's, at every shape of tile and panel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("numba", reason="the product is compiled by Numba")

from numba import njit

from minirnn.kernels import product
from minirnn.kernels.product import multiply_3, multiply_4

from .problems import Array, distance

dtypes = st.sampled_from([np.float32, np.float64])
rows = st.integers(1, 20)
sizes = st.integers(1, 150)


@njit(cache=True)
def by_three(*arguments: Any) -> None:
    multiply_3(*arguments)


@njit(cache=True)
def by_four(*arguments: Any) -> None:
    multiply_4(*arguments)


def draw(*shape: int, dtype: Any) -> Array:
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def columns(a: Array, w: Array) -> Array:
    """a (n, K) @ w (K, M)"""
    (n, K), M, L = a.shape, w.shape[1], product.lanes(a.dtype)
    panels = product.pack_columns(w)
    width = product.padded(M, 4 * L)
    out = np.full((n, width), np.nan, a.dtype)
    by_four(a.reshape(-1), 0, K, n, K, panels, width // (4 * L), out.reshape(-1), 4 * L, width, L)
    assert not out[:, M:].any()
    return out[:, :M]


@given(rows, sizes, sizes, dtypes)
def test_columns(n: int, K: int, M: int, dtype: Any) -> None:
    a, w = draw(n, K, dtype=dtype), draw(K, M, dtype=dtype)
    assert distance(columns(a, w), a @ w) < K * np.finfo(dtype).eps


@given(rows, sizes, sizes, st.sampled_from([3, 4]), dtypes)
def test_gates(n: int, K: int, H: int, gates: int, dtype: Any) -> None:
    a, w = draw(n, K, dtype=dtype), draw(gates * H, K, dtype=dtype)
    L = product.lanes(dtype)
    width = product.padded(H, L)
    out = np.full((n, gates, width), np.nan, dtype)
    multiply = by_three if gates == 3 else by_four
    multiply(a.reshape(-1), 0, K, n, K, product.pack_gates(w, gates), width // L, out.reshape(-1), L, gates * width, width)
    assert distance(out[:, :, :H].reshape(n, -1), a @ w.T) < K * np.finfo(dtype).eps


@given(st.integers(1, 13), st.integers(2, 4), dtypes)
def test_rows_may_lie_apart(n: int, apart: int, dtype: Any) -> None:
    K, M = 19, 70
    a, w = draw(n * apart, K, dtype=dtype), draw(K, M, dtype=dtype)
    L = product.lanes(dtype)
    width = product.padded(M, 4 * L)
    out = np.empty((n, width), dtype)
    by_four(a.reshape(-1), K, apart * K, n, K, product.pack_columns(w), width // (4 * L), out.reshape(-1), 4 * L, width, L)
    np.testing.assert_array_equal(out[:, :M], columns(np.ascontiguousarray(a[1::apart]), w))


@given(st.integers(2, 20), dtypes)
def test_the_rows_beside_it_change_no_bit_of_a_row(n: int, dtype: Any) -> None:
    a, w = draw(n, 67, dtype=dtype), draw(67, 33, dtype=dtype)
    together = columns(a, w)
    for r in range(n):
        np.testing.assert_array_equal(columns(a[r : r + 1], w)[0], together[r])


@given(st.integers(1, 1000), dtypes)
def test_buffers_begin_on_a_cache_line(size: int, dtype: Any) -> None:
    buffer = product.empty(size, dtype)
    assert buffer.ctypes.data % 64 == 0
    assert buffer.shape == (size,)
