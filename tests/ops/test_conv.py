from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirnn import ops
from minirnn.study.gradcheck import gradcheck
from minirnn.tensor import Tensor

from .arrays import Array, apart, layouts, leaves, normal

pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


class Geometry(NamedTuple):
    N: int
    image: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]

    def places(self, axis: int) -> range:
        """Where a window begins, in the padded image."""
        span = self.dilation[axis] * (self.kernel[axis] - 1) + 1
        return range(0, self.image[axis] + 2 * self.padding[axis] - span + 1, self.stride[axis])

    def windows(self, x: Array, outside: float) -> Array:
        """Every window of x (N, C, H, W), cut out by hand: (N, C, P, Q, U, V)."""
        (top, left), (U, V), (d, e) = self.padding, self.kernel, self.dilation
        padded = np.pad(x, ((0, 0), (0, 0), (top, top), (left, left)), constant_values=outside)
        rows = [[padded[:, :, p : p + d * U : d, q : q + e * V : e][:, :, :U, :V] for q in self.places(1)] for p in self.places(0)]
        return np.stack([np.stack(row, 2) for row in rows], 2)


@st.composite
def geometries(draw: st.DrawFn, dilated: bool = True) -> Geometry:
    kernel = draw(pairs)
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    dilation = draw(pairs) if dilated else (1, 1)
    least = [max(1, d * (k - 1) + 1 - 2 * p) for k, p, d in zip(kernel, padding, dilation, strict=True)]
    image = tuple(draw(st.integers(n, n + 3)) for n in least)
    return Geometry(draw(st.integers(0, 2)), image, kernel, draw(pairs), padding, dilation)  # type: ignore[arg-type]


@given(geometry=geometries(), groups=st.integers(1, 2), lay_out=layouts)
def test_convolution_is_its_definition(geometry: Geometry, groups: int, lay_out: Callable[[Array], Array]) -> None:
    """y[n, f] = b_f + sum over the group's channels and the window of w x"""
    N, image, kernel, *steps = geometry
    C, F = 2 * groups, 3 * groups
    x, w, b = lay_out(normal(N, C, *image)), lay_out(normal(F, 2, *kernel)), normal(F)
    options: Any = dict(zip(("stride", "padding", "dilation"), steps, strict=True), groups=groups)
    windows = geometry.windows(x, 0)
    expected = [b[f] + np.einsum("ncpquv,cuv->npq", windows[:, 2 * (f // 3) : 2 * (f // 3) + 2], w[f]) for f in range(F)]
    y = ops.conv2d(Tensor(x), Tensor(w), Tensor(b), **options)
    np.testing.assert_allclose(y.data, np.stack(expected, 1), atol=1e-12)
    assert gradcheck(lambda x, w, b: ops.conv2d(x, w, b, **options), leaves(x, w, b), complex_step=True, directions=1, elementwise=2)


@given(geometry=geometries(dilated=False), lay_out=layouts)
def test_pooling_is_its_definition(geometry: Geometry, lay_out: Callable[[Array], Array]) -> None:
    N, image, kernel, stride, padding, _ = geometry
    x = lay_out(apart(N, 2, *image))
    for f, over, outside in ((ops.max_pool2d, np.max, -np.inf), (ops.avg_pool2d, np.mean, 0)):
        y = f(Tensor(x), kernel, stride, padding)
        np.testing.assert_allclose(y.data, over(geometry.windows(x, outside), axis=(4, 5)), atol=1e-13)
        assert gradcheck(lambda x, f=f: f(x, kernel, stride, padding), leaves(x), complex_step=True, directions=1, elementwise=2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_agrees_with_torch_where_maxima_tie(dtype: Any) -> None:
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    for kernel, stride, padding in ((2, None, 0), (3, 2, 1), ((2, 3), (1, 2), (1, 1))):
        (x,) = leaves(normal(2, 3, 7, 8).round().astype(dtype))
        theirs = torch.tensor(x.data, requires_grad=True)
        y, expected = ops.max_pool2d(x, kernel, stride, padding), F.max_pool2d(theirs, kernel, stride, padding)
        u = normal(*y.shape).astype(dtype)
        y.backward(u)
        expected.backward(torch.tensor(u))
        np.testing.assert_array_equal(y.data, expected.detach().numpy())
        assert x.grad is not None
        assert x.grad.dtype == dtype
        np.testing.assert_allclose(x.grad.data, theirs.grad.numpy(), rtol=1e-6)


def test_convolution_with_an_identity_kernel_changes_nothing() -> None:
    x = normal(2, 3, 5, 4)
    kernel = np.zeros((3, 3, 3, 3))
    kernel[range(3), range(3), 1, 1] = 1
    np.testing.assert_array_equal(ops.conv2d(Tensor(x), Tensor(kernel), padding=1).data, x)


def test_max_pooling_of_minus_infinity_and_nan() -> None:
    x = np.full((1, 1, 2, 4), -np.inf)
    x[0, 0, 1, 3] = np.nan
    (t,) = leaves(x)
    y = ops.max_pool2d(t, 2)
    np.testing.assert_array_equal(y.data, [[[[-np.inf, np.nan]]]])
    y.sum().backward()
    assert t.grad is not None
    assert t.grad.data[0, 0, 1, 3] == 1


X, W = Tensor(np.zeros((1, 2, 4, 4))), Tensor(np.zeros((4, 2, 3, 3)))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ops.conv2d(X[0], W), r"conv2d: x must be \(N, C, H, W\) .* got x \(2, 4, 4\)"),
        (lambda: ops.conv2d(X, W, groups=2), r"divisible by groups=2, got x \(1, 2, 4, 4\) and weight \(4, 2, 3, 3\)"),
        (lambda: ops.conv2d(X, W, X), r"conv2d: bias must be \(F,\) = \(4,\) .* got \(1, 2, 4, 4\)"),
        (lambda: ops.conv2d(X, W, dilation=2), r"spans \(5, 5\) does not fit into x \(N, C, H, W\) = \(1, 2, 4, 4\) with padding \(0, 0\)"),
        (lambda: ops.conv2d(X, W, stride=0), r"conv2d: stride must be a number >= 1, .* got 0"),
        (lambda: ops.max_pool2d(X, 2, padding=2), r"max_pool2d: padding \(2, 2\) is more than half of the window \(2, 2\)"),
        (lambda: ops.avg_pool2d(X[0], 2), r"avg_pool2d: x must be \(N, C, H, W\), got \(2, 4, 4\); one image alone needs a batch axis"),
    ],
)
def test_errors_name_the_argument(call: Callable[[], Tensor], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()


def test_the_window_by_hand_is_right() -> None:
    """The definition above, at one place and number by number."""
    x = normal(1, 1, 4, 5)
    windows = Geometry(1, (4, 5), (2, 2), (1, 2), (0, 1), (2, 1)).windows(x, 7)
    for (p, q), (u, v) in product([(0, 0), (1, 2)], product(range(2), range(2))):
        column = 2 * q + v - 1
        assert windows[0, 0, p, q, u, v] == (x[0, 0, p + 2 * u, column] if 0 <= column < 5 else 7)
