"""Attention of ragged queries: both implementations against the equations, query by query, and what must not reach another's numbers."""

from __future__ import annotations

import importlib.util
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirnn.kernels import workers
from minirnn.kernels.attention import numpy_

if importlib.util.find_spec("numba") is None:
    pytest.skip("needs numba", allow_module_level=True)

from minirnn.kernels.attention import numba_cpu

Array = Any
KERNELS = pytest.mark.parametrize("kernel", [numpy_, numba_cpu], ids=["numpy", "numba"])


class Problem(NamedTuple):
    q: Array  # (S, D)
    k: Array  # (N, G, D)
    owners: Array  # (S,)
    there: Array | None  # (N, G)
    dc: Array  # (S, D)
    da: Array | None  # (S, G)


def problem(S: int, N: int, G: int, D: int, seed: int = 0, dtype: Any = np.float64, masked: bool = True, weighed: bool = True) -> Problem:
    rng = np.random.default_rng(seed)
    normal = [rng.standard_normal(shape).astype(dtype) for shape in ((S, D), (N, G, D), (S, D), (S, G))]
    q, k, dc, da = normal
    there = rng.random((N, G)) < 0.7 if masked else None
    return Problem(q / np.sqrt(D).astype(dtype), k, rng.integers(0, N, S), there, dc, da if weighed else None)


def both(kernel: Any, p: Problem) -> tuple[Array, Array, Array, Array]:
    """c, a, dq, dk"""
    c, a = kernel.forward(p.q, p.k, p.owners, p.there)
    return c, a, *kernel.backward(p.dc, p.da, p.q, p.k, p.owners, p.there, a)


def by_hand(p: Problem) -> tuple[Array, Array, Array, Array]:
    """The equations in float64, one query after the other."""
    (S, D), (N, G, _) = p.q.shape, p.k.shape
    c, a, dq, dk = np.zeros((S, D)), np.zeros((S, G)), np.zeros((S, D)), np.zeros((N, G, D))
    for r, n in enumerate(p.owners):
        places = range(G) if p.there is None else np.flatnonzero(p.there[n])
        e = {g: np.exp(float(np.dot(p.q[r].astype(float), p.k[n, g].astype(float)))) for g in places}
        for g in e:
            a[r, g] = e[g] / sum(e.values())
            c[r] += a[r, g] * p.k[n, g]
        da = {g: np.dot(p.dc[r].astype(float), p.k[n, g].astype(float)) + (0 if p.da is None else p.da[r, g]) for g in e}
        for g in e:
            ds = a[r, g] * (da[g] - sum(a[r, h] * da[h] for h in e))
            dq[r] += ds * p.k[n, g]
            dk[n, g] += ds * p.q[r] + a[r, g] * p.dc[r]
    return c, a, dq, dk


@KERNELS
@given(
    sizes=st.tuples(st.integers(0, 9), st.integers(1, 4), st.integers(0, 9), st.integers(1, 40)),
    seed=st.integers(0, 99),
    dtype=st.sampled_from([np.float32, np.float64]),
    masked=st.booleans(),
    weighed=st.booleans(),
)
def test_it_is_the_equations(kernel: Any, sizes: Any, seed: int, dtype: Any, masked: bool, weighed: bool) -> None:
    p = problem(*sizes, seed, dtype, masked, weighed)
    for found, expected in zip(both(kernel, p), by_hand(p), strict=True):
        assert (found.shape, found.dtype) == (expected.shape, dtype)
        scale = max(1.0, np.abs(expected).max(initial=0))
        np.testing.assert_allclose(found, expected, rtol=0, atol=scale * (1e-5 if dtype == np.float32 else 1e-12))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_number_of_threads_makes_no_difference(dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    p = problem(40, 7, 13, 35, dtype=dtype)
    found = []
    for count in (1, 2, 3, 7):
        monkeypatch.setattr(workers, "threads", lambda operations, count=count: count)
        found.append(both(numba_cpu, p))
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            np.testing.assert_array_equal(one, other)


@KERNELS
def test_a_nan_stays_in_its_sequence(kernel: Any) -> None:
    p = problem(12, 3, 5, 9)
    clean, own = both(kernel, p), p.owners == 1
    p.q[np.flatnonzero(own)[0]] = np.nan
    c, a, dq, dk = both(kernel, p)
    for now, before in ((c, clean[0]), (a, clean[1]), (dq, clean[2])):
        np.testing.assert_array_equal(now[~own], before[~own])
    np.testing.assert_array_equal(dk[[0, 2]], clean[3][[0, 2]])
    assert np.isnan(c[np.flatnonzero(own)[0]]).all()


@KERNELS
def test_what_stands_where_no_key_is_takes_no_part(kernel: Any) -> None:
    p = problem(12, 3, 5, 9)
    assert p.there is not None
    p.there[2] = False
    clean = both(kernel, p)
    p.k[~p.there] = np.nan
    for now, before in zip(both(kernel, p), clean, strict=True):
        np.testing.assert_array_equal(now, before)
    assert not clean[0][p.owners == 2].any()
    assert not clean[3][2].any()


@KERNELS
def test_large_scores_do_not_overflow(kernel: Any) -> None:
    p = problem(6, 2, 4, 3)
    c, a = kernel.forward(p.q * 1e4, p.k, p.owners, p.there)
    assert np.isfinite(c).all()
    np.testing.assert_allclose(a.sum(1), 1)


@KERNELS
def test_what_lies_otherwise_is_the_same(kernel: Any) -> None:
    p = problem(8, 3, 4, 5)
    turned = p._replace(q=np.asfortranarray(p.q), k=p.k.transpose(2, 0, 1).copy().transpose(1, 2, 0), dc=np.asfortranarray(p.dc))
    for now, before in zip(both(kernel, turned), both(kernel, p), strict=True):
        np.testing.assert_allclose(now, before, rtol=1e-13, atol=1e-13)


def test_a_planted_error_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    p = problem(8, 3, 4, 5)
    real = numpy_.backward

    def wrong(dc: Array, da: Array | None, *others: Any) -> tuple[Array, Array]:
        return real(dc, None, *others)  # (4) without what the weights were given

    monkeypatch.setattr(numpy_, "backward", wrong)
    differ = [not np.allclose(found, expected, rtol=0, atol=1e-12) for found, expected in zip(both(numpy_, p), by_hand(p), strict=True)]
    assert differ == [False, False, True, True]
