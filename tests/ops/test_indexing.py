from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minirnn import ops
from minirnn.study.gradcheck import gradcheck
from minirnn.tensor import Tensor

from .arrays import Array, layouts, leaves, normal, tensors


@given(x=tensors(min_dims=1), data=st.data())
def test_slices_numbers_and_new_axes(x: Array, data: st.DataObject) -> None:
    index = data.draw(hnp.basic_indices(x.shape, allow_newaxis=True))
    np.testing.assert_array_equal(Tensor(x)[index].data, x[index])
    assert gradcheck(lambda x: x[index], leaves(x), complex_step=True, directions=1, elementwise=2)


@given(x=tensors(min_dims=1, min_side=1), data=st.data())
def test_index_arrays_and_masks(x: Array, data: st.DataObject) -> None:
    index: Any = data.draw(st.one_of(hnp.integer_array_indices(x.shape), hnp.arrays(bool, x.shape), hnp.arrays(bool, x.shape[:1])))
    np.testing.assert_array_equal(Tensor(x)[index].data, x[index])
    assert gradcheck(lambda x: x[index], leaves(x), complex_step=True, directions=1, elementwise=2)


def test_a_tensor_of_integers_is_an_index() -> None:
    x = Tensor(normal(4, 3))
    np.testing.assert_array_equal(x[Tensor(np.array([2, 0])), 1].data, x.data[[2, 0], 1])


@given(lay_out=layouts, width=hnp.array_shapes(min_dims=0, max_dims=2, min_side=0), data=st.data())
def test_rows_come_and_their_gradients_go_back(lay_out: Callable[[Array], Array], width: tuple[int, ...], data: st.DataObject) -> None:
    """Row v receives the sum of what arrives wherever it was taken, and a row that nobody took receives exactly nothing."""
    rows = 5
    ids = data.draw(hnp.arrays(np.int64, hnp.array_shapes(min_dims=0, max_dims=2, min_side=0), elements=st.integers(0, rows - 1)))
    (w,) = leaves(lay_out(normal(rows, *width)))
    y = ops.take_rows(w, ids)
    np.testing.assert_array_equal(y.data, w.data[ids])
    dy = normal(*y.shape)
    y.backward(dy)
    assert w.grad is not None
    for v in range(rows):
        taken = dy[ids == v]
        np.testing.assert_allclose(w.grad.data[v], taken.sum(0), atol=1e-14)
        assert taken.size or not w.grad.data[v].any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_unique_rows_are_a_promise_that_changes_nothing(dtype: Any) -> None:
    ids = np.array([4, 0, 3])
    results = []
    for unique in (False, True):
        (w,) = leaves(normal(5, 2).astype(dtype))
        y = ops.take_rows(w, ids, unique)
        y.backward(np.ones((3, 2), dtype))
        assert w.grad is not None
        results.append((y.data, w.grad.data, ops.put_rows(y.detach(), ids, 5, unique).data))
    for plain, promised in zip(*results, strict=True):
        np.testing.assert_array_equal(plain, promised)


@given(x=tensors(min_dims=1, min_side=1), data=st.data())
def test_take_along_axis(x: Array, data: st.DataObject) -> None:
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    n = x.shape[axis]
    shape = list(x.shape)
    shape[axis] = data.draw(st.integers(0, 4))
    indices = data.draw(hnp.arrays(np.int64, tuple(shape), elements=st.integers(0, n - 1)))
    np.testing.assert_array_equal(ops.take_along_axis(Tensor(x), indices, axis).data, np.take_along_axis(x, indices, axis))
    assert gradcheck(lambda x: ops.take_along_axis(x, indices, axis), leaves(x), complex_step=True, directions=1, elementwise=2)


def test_put_along_axis_undoes_a_sort() -> None:
    x = normal(3, 7)
    order = np.argsort(x, 1)
    for unique in (False, True):
        ordered = ops.take_along_axis(Tensor(x), order, 1, unique)
        np.testing.assert_array_equal(ordered.data, np.sort(x, 1))
        np.testing.assert_array_equal(ops.put_along_axis(ordered, order, 7, 1, unique).data, x)


def test_put_adds_where_indices_meet() -> None:
    x = Tensor(np.array([[1.0, 2.0, 4.0]]))
    np.testing.assert_array_equal(ops.put_along_axis(x, np.array([[1, 1, 0]]), 3, 1).data, [[4, 3, 0]])
    np.testing.assert_array_equal(ops.put_rows(x.T, np.array([1, 1, 0]), 3).data, [[4], [3], [0]])


X = Tensor(np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: ops.take_rows(X, np.array([0, 2])), IndexError, r"take_rows: id 2 is outside 0\.\.1, the 2 rows that there are"),
        (lambda: ops.take_rows(X, np.array([-1])), IndexError, r"take_rows: id -1 is outside 0\.\.1"),
        (lambda: ops.take_rows(X, np.array([0.0])), TypeError, r"take_rows: ids must be integers, got float64"),
        (lambda: ops.put_rows(X, np.array([0]), 4), ValueError, r"put_rows: ids must be \(S,\) for x \(S, \.\.\.\) = \(2, 3\), got \(1,\)"),
        (lambda: ops.put_rows(X, np.array([0, 4]), 4), IndexError, r"put_rows: id 4 is outside 0\.\.3"),
        (lambda: ops.take_along_axis(X, np.zeros((3, 1), int), 1), ValueError, r"the shape of x \(2, 3\) but for axis 1, got \(3, 1\)"),
        (lambda: ops.take_along_axis(X, np.zeros((2, 1), int), 2), ValueError, r"take_along_axis: axis 2 is out of range for x \(2, 3\)"),
        (lambda: ops.put_along_axis(X, np.zeros((2, 1), int), 5), ValueError, r"indices must have the shape of x \(2, 3\), got \(2, 1\)"),
    ],
)
def test_errors_name_the_argument(call: Callable[[], Tensor], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()
