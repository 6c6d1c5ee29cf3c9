"""The packed product against NumPy's, at every shape of tile and panel."""

from __future__ import annotations

import os
import subprocess
import sys
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
depths = st.one_of(sizes, st.integers(product.DEEPEST - 2, 2 * product.DEEPEST + 2))


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
    assert not out[np.isfinite(a).all(axis=1), M:].any()
    return out[:, :M]


@given(rows, depths, sizes, dtypes)
def test_columns(n: int, K: int, M: int, dtype: Any) -> None:
    a, w = draw(n, K, dtype=dtype), draw(K, M, dtype=dtype)
    assert distance(columns(a, w), a @ w) < K * np.finfo(dtype).eps


@given(rows, depths, sizes, st.sampled_from([3, 4]), dtypes)
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


@given(st.integers(2, 20), depths, dtypes)
def test_the_rows_beside_it_change_no_bit_of_a_row(n: int, K: int, dtype: Any) -> None:
    a, w = draw(n, K, dtype=dtype), draw(K, 333, dtype=dtype)
    together = columns(a, w)
    for r in range(n):
        np.testing.assert_array_equal(columns(a[r : r + 1], w)[0], together[r])
    a[n // 2, 0] = np.nan
    beside = columns(a, w)
    assert np.isnan(beside[n // 2]).all()
    np.testing.assert_array_equal(np.delete(beside, n // 2, 0), np.delete(together, n // 2, 0))


@given(st.integers(1, 13), st.integers(1, 400), st.integers(1, 5), dtypes)
def test_panels_shared_out_give_the_same_bits(n: int, M: int, parts: int, dtype: Any) -> None:
    K, L = 37, product.lanes(dtype)
    a, w = draw(n, K, dtype=dtype), draw(K, M, dtype=dtype)
    width = product.padded(M, 4 * L)
    count = width // (4 * L)
    panels, out = product.empty(K * width, dtype), np.full((n, width), np.nan, dtype)
    for p in range(parts):
        some = p * count // parts, (p + 1) * count // parts
        product._pack_columns(w.reshape(-1), 4, K, M, panels, *some)
        by_four(a.reshape(-1), 0, K, n, K, panels, count, out.reshape(-1), 4 * L, width, L, *some)
    np.testing.assert_array_equal(out[:, :M], columns(a, w))


@given(sizes, sizes, st.sampled_from([3, 4]), st.integers(1, 4), dtypes)
def test_gates_are_packed_as_drawn_in_the_head_of_the_module(H: int, K: int, gates: int, parts: int, dtype: Any) -> None:
    w, L = draw(gates * H, K, dtype=dtype), product.lanes(dtype)
    P = product.padded(H, L) // L
    expected = np.zeros((gates, P * L, K), dtype)
    expected[:, :H] = w.reshape(gates, H, K)
    panels = np.full(gates * P * L * K, np.nan, dtype)
    for p in range(parts):
        product._pack_gates(w.reshape(-1), gates, H, K, panels, p * P // parts, (p + 1) * P // parts)
    np.testing.assert_array_equal(panels.reshape(P, K, gates, L), expected.reshape(gates, P, L, K).transpose(1, 3, 0, 2))
    np.testing.assert_array_equal(product.pack_gates(w, gates), panels)


@given(sizes, sizes, st.integers(1, 4), dtypes)
def test_columns_are_packed_as_drawn_in_the_head_of_the_module(K: int, M: int, vectors: int, dtype: Any) -> None:
    w, width = draw(K, M, dtype=dtype), vectors * product.lanes(dtype)
    expected = np.zeros((K, product.padded(M, width)), dtype)
    expected[:, :M] = w
    panels = product.pack_columns(np.asfortranarray(w), vectors).reshape(-1, K, width)
    np.testing.assert_array_equal(panels, expected.reshape(K, -1, width).swapaxes(0, 1))


@pytest.mark.skipif(not product.WIDE, reason="this machine has no wider registers than those")
def test_machines_with_registers_of_32_bytes() -> None:
    features = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma,+sse4.2,+cmov,+popcnt,+bmi,+bmi2,+64bit"}
    ask = "from minirnn.kernels import product; assert product.VECTOR == 32; import pytest; raise SystemExit(pytest.main())"
    tests = f"-q -p no:cacheprovider -k 'not machines' {__file__}"
    done = subprocess.run(
        [sys.executable, "-c", ask], env={**os.environ, **features, "PYTEST_ADDOPTS": tests}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@given(st.integers(1, 1000), dtypes)
def test_buffers_begin_on_a_cache_line(size: int, dtype: Any) -> None:
    buffer = product.empty(size, dtype)
    assert buffer.ctypes.data % 64 == 0
    assert buffer.shape == (size,)
