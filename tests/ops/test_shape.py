from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minirnn import ops
from minirnn.study.gradcheck import gradcheck
from minirnn.tensor import Tensor

from .arrays import Array, leaves, normal, tensors

with_axes = tensors(min_dims=1)


@given(x=with_axes, data=st.data())
def test_what_numpy_does(x: Array, data: st.DataObject) -> None:
    axis, other = data.draw(st.integers(-x.ndim, x.ndim - 1)), data.draw(st.integers(-x.ndim, x.ndim - 1))
    times = data.draw(st.integers(0, 3))
    order = data.draw(st.permutations(range(x.ndim)))
    widths = data.draw(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=x.ndim, max_size=x.ndim))
    pairs: list[tuple[Callable[[Tensor], Tensor], Array]] = [
        (lambda x: ops.transpose(x, order), np.transpose(x, order)),
        (lambda x: x.T, x.T),
        (lambda x: ops.swapaxes(x, axis, other), np.swapaxes(x, axis, other)),
        (lambda x: ops.reshape(x, (x.size,)), x.reshape(x.size)),
        (lambda x: ops.expand_dims(x, axis), np.expand_dims(x, axis)),
        (lambda x: ops.squeeze(ops.expand_dims(x, axis), axis), x),
        (lambda x: ops.flip(x, axis), np.flip(x, axis)),
        (lambda x: ops.repeat(x, times, axis), np.repeat(x, times, axis)),
        (lambda x: ops.tile(x, times, axis), np.concatenate([x] * times, axis) if times else x.take([], axis)),
        (lambda x: ops.pad(x, widths), np.pad(x, widths)),
        (lambda x: ops.concatenate([x, 2 * x, x], axis), np.concatenate([x, 2 * x, x], axis)),
        (lambda x: ops.stack([x, 2 * x], axis), np.stack([x, 2 * x], axis)),
    ]
    for f, expected in pairs:
        np.testing.assert_array_equal(f(Tensor(x)).data, expected)
        assert gradcheck(f, leaves(x), complex_step=True, directions=1, elementwise=2)


@given(x=with_axes, data=st.data())
def test_split_is_undone_by_concatenate(x: Array, data: st.DataObject) -> None:
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    cuts = sorted(data.draw(st.lists(st.integers(0, x.shape[axis]), max_size=3)))
    sizes = np.diff([0, *cuts, x.shape[axis]]).tolist()
    parts = ops.split(Tensor(x), sizes, axis)
    for part, expected in zip(parts, np.split(x, cuts, axis), strict=True):
        np.testing.assert_array_equal(part.data, expected)
    np.testing.assert_array_equal(ops.concatenate(parts, axis).data, x)
    assert gradcheck(lambda x: ops.split(x, sizes, axis), leaves(x), complex_step=True, directions=1, elementwise=2)


@given(shapes=hnp.mutually_broadcastable_shapes(num_shapes=1, base_shape=(2, 3, 4), min_dims=0, max_dims=3))
def test_sum_to_is_the_transpose_of_broadcast_to(shapes: hnp.BroadcastableShapes) -> None:
    """<broadcast x, y> = <x, sum y>"""
    (shape,), target = shapes.input_shapes, shapes.result_shape
    x, y = normal(*shape), normal(*target, seed=1)
    left = (ops.broadcast_to(Tensor(x), target).data * y).sum()
    right = (x * ops.sum_to(Tensor(y), shape).data).sum()
    np.testing.assert_allclose(left, right, rtol=1e-12, atol=1e-12)


def test_unused_parts_of_a_split_get_zeros() -> None:
    (x,) = leaves(normal(6))
    _, middle, _ = ops.split(x, 3)
    middle.sum().backward()
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.data, [0, 0, 1, 1, 0, 0])


def test_diagonal() -> None:
    x = normal(2, 3, 3)
    np.testing.assert_array_equal(ops.diagonal(Tensor(x)).data, np.diagonal(x, axis1=-2, axis2=-1))
    assert gradcheck(ops.diagonal, leaves(x), complex_step=True)


def test_views_share_memory() -> None:
    x = Tensor(normal(4, 6))
    for y in (x.reshape(24), x.T, *ops.split(x, 2), ops.flip(x, 0), ops.broadcast_to(x, (5, 4, 6)), ops.diagonal(x.reshape(2, 12)[:, :2])):
        assert np.shares_memory(y.data, x.data) or y.shape == (2,)


X = Tensor(np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ops.transpose(X, (0, 0)), r"transpose: axes \(0, 0\) are not a permutation of the 2 axes of x \(2, 3\)"),
        (lambda: ops.reshape(X, (4,)), r"reshape: x \(2, 3\) has 6 elements, which do not fill shape \(4,\)"),
        (lambda: ops.reshape(X, (4, -1)), r"reshape: x \(2, 3\) has 6 elements, which do not fill shape \(4, -1\)"),
        (lambda: ops.expand_dims(X, 3), r"expand_dims: axis 3 is out of range for x \(2, 3\)"),
        (lambda: ops.swapaxes(X, 0, 2), r"swapaxes: axis 2 is out of range for x \(2, 3\)"),
        (lambda: ops.split(X, 2), r"split: axis 1 of x \(2, 3\) does not divide into 2 equal parts"),
        (lambda: ops.split(X, [1, 1]), r"split: axis 1 of x \(2, 3\) does not divide into parts of \[1, 1\]"),
        (lambda: ops.squeeze(X, 0), r"squeeze: axis 0 of x \(2, 3\) has length 2, not 1"),
        (lambda: ops.concatenate([X, Tensor(np.zeros((2, 2)))]), r"concatenate: shapes must agree but for axis 0, got \(2, 3\), \(2, 2\)"),
        (lambda: ops.concatenate([]), r"concatenate: there must be at least one tensor"),
        (lambda: ops.pad(X, [(1, 1)]), r"pad: widths must be a pair \(before, after\) for each of the 2 axes of x \(2, 3\)"),
        (lambda: ops.broadcast_to(X, (3, 3)), r"broadcast_to: x \(2, 3\) cannot be repeated to \(3, 3\)"),
        (lambda: ops.sum_to(X, (2, 2)), r"sum_to: shape \(2, 2\) must be one that broadcasts to x \(2, 3\)"),
        (lambda: ops.diagonal(X), r"diagonal: x must be \(\.\.\., n, n\), got \(2, 3\)"),
    ],
)
def test_errors_name_the_argument(call: Callable[[], Tensor], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
