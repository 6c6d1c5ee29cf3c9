"""The blocked product: every shape of block, tile and panel, every way an operand may lie, one result whatever the threads."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

pytest.importorskip("numba", reason="the product is compiled by Numba")

from minirnn.kernels import fused, workers
from minirnn.kernels.matmul import numba_cpu, numpy_, sizes
from minirnn.kernels.matmul.numba_cpu import blocked, few

from .problems import Array

dtypes = st.sampled_from([np.float32, np.float64])
lengths = st.one_of(st.integers(0, 40), st.sampled_from([61, 64, 65, 127, 128, 255, 257, 300]))
depths = st.one_of(lengths, st.sampled_from([511, 512, 513, 1030]))
products = st.sampled_from([blocked, few])
layouts = st.sampled_from(["rows", "columns", "rows apart", "columns apart", "every other", "backwards", "read only"])


def laid(x: Array, layout: str) -> Array:
    """The same numbers, lying in memory as `layout` says."""
    rows, columns = x.shape
    if layout == "columns":
        return np.asfortranarray(x)
    if layout in ("rows apart", "columns apart"):
        wide = np.full((rows + 3, columns + 5), np.nan, x.dtype, order="C" if layout == "rows apart" else "F")
        wide[1 : rows + 1, 2 : columns + 2] = x
        return wide[1 : rows + 1, 2 : columns + 2]
    if layout == "every other":
        wide = np.full((2 * rows, 2 * columns), np.nan, x.dtype)
        wide[::2, ::2] = x
        return wide[::2, ::2]
    if layout == "backwards":
        return np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1]
    x = x.copy()
    x.flags.writeable = layout != "read only"
    return x


def draw(*shape: int, dtype: Any, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def allowed(a: Array, b: Array, plus: Any) -> Array:
    """The most that rounding makes of a sum of K products in any order: gamma_K |a| |b| (Higham 2002, equation 3.5), here for float32
    or float64, and a rounding for each addition of a block and of `plus`."""
    u, K = np.finfo(a.dtype).eps / 2, a.shape[1]
    terms = (K + K // numba_cpu.DEEPEST + 2) * u
    return terms / (1 - terms) * (np.abs(a).astype(np.longdouble) @ np.abs(b).astype(np.longdouble) + np.abs(plus)) + np.finfo(a.dtype).tiny


def exact(a: Array, b: Array, plus: Any) -> Array:
    return a.astype(np.longdouble) @ b.astype(np.longdouble) + plus


@given(products, lengths, depths, lengths, dtypes, layouts, layouts, st.sampled_from(["nothing", "bias", "out", "accumulate"]))
@example(blocked, 1025, 5, 3, np.float32, "columns", "rows", "accumulate")  # more rows than a packed block of a has
@example(blocked, 7, 520, 530, np.float32, "rows", "columns", "bias")  # more columns than a block of b has
@example(few, 11, 1040, 21, np.float32, "rows", "columns", "accumulate")  # three blocks of k, the last rows of w fewer than a tile has
def test_within_the_bounds_of_rounding(product: Any, M: int, K: int, N: int, dtype: Any, of_a: str, of_b: str, starts: str) -> None:
    a, b, bias, c = draw(M, K, dtype=dtype), draw(K, N, dtype=dtype, seed=1), draw(N, dtype=dtype, seed=2), draw(M, N, dtype=dtype, seed=3)
    plus: Any = {"bias": bias, "accumulate": c}.get(starts, 0)
    out = laid(c, "rows apart") if starts in ("out", "accumulate") else None
    y = product(laid(a, of_a), laid(b, of_b), bias if starts == "bias" else None, out, starts == "accumulate")
    assert y.dtype == dtype
    assert out is None or y is out
    assert (np.abs(y - exact(a, b, plus)) <= allowed(a, b, plus)).all()
    if out is not None:  # what lies between its rows
        assert np.isnan(out.base[:, 0]).all()
        assert np.isnan(out.base[:, N + 2 :]).all()


def _awake(run: Any, *arguments: Any, **options: Any) -> None:
    run(*arguments, **{**options, "worth_waking": True})


@given(products, lengths, depths, lengths, dtypes, layouts, layouts)
def test_any_number_of_threads_gives_the_same_bits(product: Any, M: int, K: int, N: int, dtype: Any, of_a: str, of_b: str) -> None:
    a, b = laid(draw(M, K, dtype=dtype), of_a), laid(draw(K, N, dtype=dtype, seed=1), of_b)
    results = []
    for threads in range(1, 5):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(workers, "threads", lambda operations, threads=threads: threads)
            patch.setattr(workers, "run", partial(_awake, workers.run))
            results.append(product(a, b))
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


@given(lengths, depths, lengths, dtypes, layouts)
@example(1025, 5, 3, np.float32, "columns")
@example(37, 1, 3, np.float64, "columns")
def test_sums_of_rows(M: int, K: int, N: int, dtype: Any, of_a: str) -> None:
    a, b, sums = draw(M, K, dtype=dtype), draw(K, N, dtype=dtype, seed=1), np.full(M, np.nan, dtype)
    np.testing.assert_array_equal(blocked(laid(a, of_a), b, sums=sums), blocked(laid(a, of_a), b))
    for threads in (1, 3):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(workers, "threads", lambda operations, threads=threads: threads)
            patch.setattr(workers, "run", partial(_awake, workers.run))
            again = np.full(M, np.nan, dtype)
            blocked(laid(a, of_a), b, sums=again)
            np.testing.assert_array_equal(again, sums)
    ones = np.ones((K, 1), dtype)
    assert (np.abs(sums - exact(a, ones, 0)[:, 0]) <= allowed(a, ones, 0)[:, 0]).all()
    if K and M:  # what is infinite stays so, in its own row
        a[M // 2, K - 1] = np.inf
        after = np.empty_like(sums)
        blocked(laid(a, of_a), b, sums=after)
        assert after[M // 2] == np.inf
        np.testing.assert_array_equal(np.delete(after, M // 2), np.delete(sums, M // 2))


@given(products, st.integers(1, 70), depths, st.integers(1, 140), dtypes, layouts, st.data())
def test_a_row_does_not_depend_on_those_beside_it(product: Any, M: int, K: int, N: int, dtype: Any, of_a: str, data: st.DataObject) -> None:
    a, b = draw(M, K, dtype=dtype), draw(K, N, dtype=dtype, seed=1)
    together = product(laid(a, of_a), b)
    r = data.draw(st.integers(0, M - 1))
    np.testing.assert_array_equal(product(a[r : r + 1], b)[0], together[r])
    if K:
        a[r, data.draw(st.integers(0, K - 1))] = data.draw(st.sampled_from([np.nan, np.inf, -np.inf]))
        beside = product(laid(a, of_a), b)
        assert not np.isfinite(beside[r]).any()
        np.testing.assert_array_equal(np.delete(beside, r, 0), np.delete(together, r, 0))
        b = b.copy()
        b[K - 1, N - 1] = np.nan  # and a column of b reaches its own column
        np.testing.assert_array_equal(np.delete(product(np.delete(a, r, 0), b), N - 1, 1), np.delete(np.delete(together, r, 0), N - 1, 1))


@given(depths.filter(bool), dtypes)
def test_whole_numbers_are_exact(K: int, dtype: Any) -> None:
    rng = np.random.default_rng(K)
    a, b = rng.integers(-9, 10, (23, K)), rng.integers(-9, 10, (K, 83))
    for product in (blocked, few):
        np.testing.assert_array_equal(product(a.astype(dtype), b.astype(dtype)), a @ b)


def test_a_planted_error_is_outside_the_bounds() -> None:
    """One product left out, one counted twice, two columns exchanged."""
    a, b = draw(20, 900, dtype=np.float32), draw(900, 70, dtype=np.float32, seed=1)
    limit, right = allowed(a, b, 0), exact(a, b, 0)
    less, more = a.copy(), a.copy()
    less[:, 899] = 0
    more[:, 512] *= 2
    for product in (blocked, few):
        assert (np.abs(product(a, b) - right) <= limit).all()
        for wrong in (product(less, b), product(more, b), product(a, b[:, [1, 0, *range(2, 70)]])):
            assert not (np.abs(wrong - right) <= limit).all()


def test_blocks_add_up_more_accurately_than_one_chain() -> None:
    """All terms of one sign: the error of a chain grows with its length."""
    a = np.full((1, 2**16), np.float32(0.1))
    b = np.full((2**16, 16), np.float32(0.1))
    chain = np.float32(0)
    for product in (a[0] * b[:, 0]).astype(np.float32):
        chain += product
    right = exact(a, b, 0)[0, 0]
    assert abs(blocked(a, b)[0, 0] - right) < abs(chain - right) / 10


@pytest.mark.parametrize("kernel", [numba_cpu, numpy_])
def test_both_kernels_take_the_same_arguments(kernel: Any) -> None:
    a, b, bias, c = (
        draw(70, 80, dtype=np.float64),
        draw(80, 90, dtype=np.float64),
        draw(90, dtype=np.float64),
        draw(70, 90, dtype=np.float64),
    )
    np.testing.assert_allclose(kernel.multiply(a, b), a @ b, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(kernel.multiply(a, b, bias), a @ b + bias, rtol=1e-12, atol=1e-12)
    out = c.copy()
    assert kernel.multiply(a, b, out=out, accumulate=True) is out
    np.testing.assert_allclose(out, c + a @ b, rtol=1e-12, atol=1e-12)
    assert kernel.multiply(a, b, out=out) is out
    np.testing.assert_allclose(out, a @ b, rtol=1e-12, atol=1e-12)


def test_sizes_alone_decide_who_multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sizes.pays(128, 128, 128)
    assert not sizes.pays(1, 1024, 1024)
    assert not sizes.pays(1024, 1024, 31)
    assert not sizes.pays(64, 64, 64)
    asked = []
    monkeypatch.setattr(numba_cpu, "blocked", lambda *arguments: asked.append(arguments[0].shape))
    kernel = fused("matmul", np.zeros(1, np.float32))
    small, large = draw(64, 64, dtype=np.float32), draw(65, 65, dtype=np.float32)
    np.testing.assert_array_equal(kernel.multiply(small, small), small @ small)
    kernel.multiply(large, large)
    assert asked == [(65, 65)]
    monkeypatch.setattr(numba_cpu, "few", lambda *arguments: asked.append("few"))
    some = draw(16, 512, dtype=np.float32)
    kernel.multiply(some, draw(64, 512, dtype=np.float32).T)
    kernel.multiply(some, draw(512, 64, dtype=np.float32))  # that one is packed
    assert asked == [(65, 65), "few", (16, 512)]


def test_what_is_refused() -> None:
    a = draw(6, 6, dtype=np.float32)
    with pytest.raises(ValueError, match=r"out must be float32 \(M, N\) = \(6, 6\) with contiguous rows, got float64"):
        blocked(a, a, out=np.zeros((6, 6)))
    with pytest.raises(ValueError, match=r"with contiguous rows, got float32 \(6, 6\)"):
        blocked(a, a, out=np.zeros((6, 6), np.float32, order="F"))
    with pytest.raises(ValueError, match="accumulate needs out, and takes no bias"):
        blocked(a, a, accumulate=True)
    with pytest.raises(ValueError, match="accumulate needs out, and takes no bias"):
        blocked(a, a, a[0], a.copy(), True)
