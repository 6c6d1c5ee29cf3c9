"""The embedding's gradient against its definition, a product with a one-hot matrix."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirnn.kernels.embedding import numba_cpu, numpy_

KERNELS = pytest.mark.parametrize("kernel", [numpy_, numba_cpu], ids=["numpy", "numba"])


@KERNELS
@given(S=st.integers(0, 40), D=st.integers(1, 70), V=st.integers(1, 20), seed=st.integers(0, 99))
def test_it_is_the_product_with_the_one_hot_matrix(kernel: ModuleType, S: int, D: int, V: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    dy, ids = rng.standard_normal((S, D)), rng.integers(V, size=S)
    one_hot = np.eye(V)[ids]  # (S, V)
    np.testing.assert_allclose(kernel.backward(dy, ids, V), one_hot.T @ dy, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("S", "D"), [(3000, 256), (3000, 1), (2000, 17), (5000, 100)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.usefixtures("groups")
def test_threads_leave_the_order_of_every_sum_alone(S: int, D: int, dtype: Any, rng: np.random.Generator) -> None:
    dy, ids = rng.standard_normal((S, D)).astype(dtype), rng.zipf(1.3, S) % 500
    np.testing.assert_array_equal(numba_cpu.backward(dy, ids, 500), numpy_.backward(dy, ids, 500))


@KERNELS
def test_views_of_any_strides_are_read_and_not_written(kernel: ModuleType, rng: np.random.Generator) -> None:
    dy, ids = rng.standard_normal((40, 12))[::2, ::-1], rng.integers(5, size=40, dtype=np.int32)[::2]
    before = dy.copy()
    np.testing.assert_allclose(kernel.backward(dy, ids, 5), np.eye(5)[ids].T @ before, rtol=0, atol=1e-13)
    np.testing.assert_array_equal(dy, before)


@KERNELS
def test_a_nan_reaches_its_row_only(kernel: ModuleType) -> None:
    dy = np.ones((4, 3), np.float32)
    dy[2] = np.nan
    dw = kernel.backward(dy, np.array([0, 1, 2, 1]), 4)
    assert np.isnan(dw).all(axis=1).tolist() == [False, False, True, False]
    np.testing.assert_array_equal(dw[[0, 1, 3]], np.array([[1], [2], [0]]) * np.ones((3, 3)))
