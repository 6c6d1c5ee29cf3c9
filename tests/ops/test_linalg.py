from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minirnn import ops
from minirnn.diagnostics import monitored
from minirnn.kernels import registry
from minirnn.kernels.matmul import sizes
from minirnn.ops.linalg import MatMul
from minirnn.study.gradcheck import gradcheck, gradgradcheck
from minirnn.tensor import Tensor

from .arrays import Array, layouts, leaves, normal
from .seen import Seen

PRODUCTS = hnp.mutually_broadcastable_shapes(signature=np.matmul.signature, max_dims=2, min_side=0, max_side=4)


def positive_definite(*shape: int) -> Array:
    x = normal(*shape, shape[-1])
    return x @ x.swapaxes(-1, -2) + np.eye(shape[-1])


@given(shapes=PRODUCTS, lay_out=layouts)
def test_matmul_of_any_shapes(shapes: hnp.BroadcastableShapes, lay_out: Callable[[Array], Array]) -> None:
    a, b = (lay_out(normal(*shape, seed=k)) for k, shape in enumerate(shapes.input_shapes))
    y = Tensor(a) @ Tensor(b)
    np.testing.assert_allclose(y.data, np.matmul(a, b), atol=1e-13)
    assert y.shape == shapes.result_shape
    assert gradcheck(ops.matmul, leaves(a, b), complex_step=True, directions=1, elementwise=2)


def test_many_matrices_times_one_is_one_product() -> None:
    """(N, T, D) times (D, H) over N T rows at once, and so both gradients, which that one operation computes itself."""
    a, b = leaves(normal(5, 4, 3), normal(3, 2))
    seen = Seen()
    with monitored(seen):
        (a @ b).sum().backward()
    assert seen.functions.count(MatMul) == 1
    assert b.grad is not None
    np.testing.assert_allclose(b.grad.data, np.einsum("nti->i", a.data)[:, None] * np.ones(2), atol=1e-13)


@given(lay_out=layouts, lead=hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3), bias=st.booleans())
def test_linear(lay_out: Callable[[Array], Array], lead: tuple[int, ...], bias: bool) -> None:
    x, w, b = lay_out(normal(*lead, 3)), lay_out(normal(2, 3)), normal(2)
    inputs = [x, w, b] if bias else [x, w]
    np.testing.assert_allclose(ops.linear(*map(Tensor, inputs)).data, x @ w.T + bias * b, atol=1e-13)
    assert gradcheck(ops.linear, leaves(*inputs), complex_step=True, directions=1, elementwise=2)


@st.composite
def subscripts(draw: st.DrawFn) -> tuple[str, list[tuple[int, ...]]]:
    """Any sum of products over up to five letters."""
    sizes = draw(st.fixed_dictionaries({letter: st.integers(1, 3) for letter in "abcde"}))
    axes = st.lists(st.sampled_from("abcde"), unique=True, max_size=4).map("".join)
    letters = draw(st.lists(axes, min_size=1, max_size=3))
    there = sorted(set("".join(letters)))
    output = "".join(draw(st.lists(st.sampled_from(there), unique=True))) if there else ""
    text = ",".join(letters) + ("->" + output if draw(st.booleans()) else "")
    return text, [tuple(sizes[letter] for letter in mine) for mine in letters]


@given(shapes=hnp.mutually_broadcastable_shapes(signature="(n,k),(k,m)->(n,m)", max_dims=0, max_side=9), lay_out=layouts)
def test_products_and_derivatives_by_the_kernel_of_large_matrices(
    shapes: hnp.BroadcastableShapes, lay_out: Callable[[Array], Array]
) -> None:
    (n, k), (_, m) = shapes.input_shapes
    a, b, w, bias = (lay_out(normal(*shape, seed=s)) for s, shape in enumerate(((n, k), (k, m), (m, k), (m,))))
    with pytest.MonkeyPatch.context() as patch:
        for rule in ("FEWEST_ROWS", "FEWEST_COLUMNS", "LEAST"):
            patch.setattr(sizes, rule, -1)
        np.testing.assert_allclose((Tensor(a) @ Tensor(b)).data, a @ b, atol=1e-13)
        np.testing.assert_allclose(ops.linear(Tensor(a), Tensor(w), Tensor(bias)).data, a @ w.T + bias, atol=1e-13)
        assert gradcheck(ops.matmul, leaves(a, b), directions=1, elementwise=2)
        assert gradcheck(ops.linear, leaves(a, w, bias), directions=1, elementwise=2)
        assert gradgradcheck(ops.linear, leaves(a, w, bias), directions=1, elementwise=2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_products_reach_the_kernel_as_they_lie(dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """y = x w^T + b, dx = dy w and dw = dy^T x, none of them from a copy; smaller ones stay with NumPy."""
    seen: list[tuple[tuple[int, ...], str]] = []
    kernel = registry.fused("matmul", np.zeros(1, dtype))
    multiply = kernel.multiply

    def spy(a: Array, b: Array, *others: Any) -> Array:
        seen.append(((*a.shape, b.shape[1]), "".join("rows" if x.flags.c_contiguous else "columns" for x in (a, b))))
        return multiply(a, b, *others)

    monkeypatch.setattr(kernel, "multiply", spy)
    x, w, b = (Tensor(normal(*shape).astype(dtype), requires_grad=True) for shape in ((4, 50, 60), (70, 60), (70,)))
    y = ops.linear(x, w, b)
    dy = normal(*y.shape).astype(dtype)
    y.backward(Tensor(dy))
    assert seen == [((200, 60, 70), "rowscolumns"), ((200, 70, 60), "rowsrows"), ((70, 200, 60), "columnsrows")]
    rows = dy.reshape(200, 70).astype(np.float64)
    tolerance = 200 * np.finfo(dtype).eps
    for found, expected in ((x.grad, rows @ w.data), (w.grad, rows.T @ x.data.reshape(200, 60)), (b.grad, rows.sum(0))):
        assert found is not None
        np.testing.assert_allclose(found.data.reshape(expected.shape), expected, rtol=0, atol=tolerance * np.abs(expected).max())
    ops.linear(x[0], w, b)
    assert len(seen) == 3


@given(drawn=subscripts())
def test_einsum_of_anything(drawn: tuple[str, list[tuple[int, ...]]]) -> None:
    text, shapes = drawn
    arrays = [normal(*shape, seed=k) for k, shape in enumerate(shapes)]
    np.testing.assert_allclose(ops.einsum(text, *map(Tensor, arrays)).data, np.einsum(text, *arrays), atol=1e-12)
    assert gradcheck(lambda *xs: ops.einsum(text, *xs), leaves(*arrays), complex_step=True, directions=1, elementwise=2)


def test_second_derivatives_of_einsum() -> None:
    inputs = leaves(normal(2, 3), normal(3, 2), normal(2))
    assert gradgradcheck(lambda a, b, c: ops.einsum("ij,jk,k->i", a, b, c), inputs, complex_step=True)


@given(batch=hnp.array_shapes(min_dims=0, max_dims=2, max_side=3), n=st.integers(1, 5), lay_out=layouts)
def test_cholesky_is_a_lower_triangular_root(batch: tuple[int, ...], n: int, lay_out: Callable[[Array], Array]) -> None:
    a = lay_out(positive_definite(*batch, n))
    root = ops.cholesky(Tensor(a)).data
    np.testing.assert_array_equal(root, np.tril(root))
    np.testing.assert_allclose(root @ root.swapaxes(-1, -2), a, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(ops.logdet(Tensor(a)).data, np.log(np.linalg.eigvalsh(a)).sum(-1), rtol=1e-10, atol=1e-12)


@given(shapes=hnp.mutually_broadcastable_shapes(signature="(n,n),(n,k)->(n,k)", max_dims=2, max_side=4), lay_out=layouts)
def test_solve_leaves_no_residual(shapes: hnp.BroadcastableShapes, lay_out: Callable[[Array], Array]) -> None:
    n = shapes.input_shapes[0][-1]
    a = lay_out(normal(*shapes.input_shapes[0]) + 5 * np.eye(n))
    b = lay_out(normal(*shapes.input_shapes[1], seed=1))
    y = ops.solve(Tensor(a), Tensor(b))
    assert y.shape == shapes.result_shape
    np.testing.assert_allclose(a @ y.data, np.broadcast_to(b, y.shape), atol=1e-12)
    assert gradcheck(ops.solve, leaves(a, b), complex_step=True, directions=1, elementwise=2)


def test_slogdet_and_inverse() -> None:
    """det a is the product of the eigenvalues; d ln |det a| / da = a^-T."""
    (a,) = leaves(normal(4, 3, 3))
    sign, logabsdet = ops.slogdet(a)
    np.testing.assert_allclose(sign * np.exp(logabsdet.data), np.linalg.eigvals(a.data).prod(-1).real, rtol=1e-10)
    inverse = ops.inv(a.detach()).data
    np.testing.assert_allclose(inverse @ a.data, np.broadcast_to(np.eye(3), (4, 3, 3)), atol=1e-11)
    logabsdet.sum().backward()
    assert a.grad is not None
    np.testing.assert_allclose(a.grad.data, inverse.swapaxes(-1, -2), rtol=1e-10)


def test_a_gaussian_log_likelihood_has_the_textbook_gradient() -> None:
    """L = ln det S + y^T S^-1 y, dL/dS = S^-1 - S^-1 y y^T S^-1 and dL/dy = 2 S^-1 y (Petersen and Pedersen, 57 and 61)."""
    s, y = leaves(positive_definite(4), normal(4))
    root = ops.cholesky(s)
    white = ops.solve(root, y)
    (ops.sum(white * white) + ops.logdet(s)).backward()
    inverse = np.linalg.inv(s.data)
    assert s.grad is not None
    np.testing.assert_allclose(s.grad.data, inverse - inverse @ np.outer(y.data, y.data) @ inverse, rtol=1e-10, atol=1e-12)
    assert y.grad is not None
    np.testing.assert_allclose(y.grad.data, 2 * inverse @ y.data, rtol=1e-10)


@pytest.mark.parametrize("view", ["broadcast", "both steps", "reversed"])
def test_products_of_awkward_views(view: str) -> None:
    x = normal(6, 8)
    a: Any = {"broadcast": np.broadcast_to(x[0], (6, 8)), "both steps": np.repeat(x, 2, 1)[:, ::2], "reversed": x[::-1, ::-1]}[view]
    b = normal(8, 3, seed=1)
    np.testing.assert_allclose((Tensor(a) @ Tensor(b)).data, np.array(a) @ b, atol=1e-13)


X, V = Tensor(np.zeros((2, 3))), Tensor(np.zeros(2))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: X @ X, r"matmul: inner axes differ: a \(\.\.\., n, k\) = \(2, 3\), b \(\.\.\., k, m\) = \(2, 3\)"),
        (lambda: ops.linear(X, X.T), r"linear: x must be \(\.\.\., D\) for weight \(H, D\) = \(3, 2\), got x \(2, 3\)"),
        (lambda: ops.linear(X, X, Tensor(np.zeros(3))), r"linear: bias must be \(H,\) = \(2,\) for weight \(H, D\) = \(2, 3\), got \(3,\)"),
        (lambda: ops.einsum("ij,jk->ik", X, X), r"einsum 'ij,jk->ik': j is 3 in one operand and 2 in another"),
        (lambda: ops.einsum("ii->i", X[:, :2]), r"einsum 'ii->i': a letter stands twice in one operand"),
        (lambda: ops.einsum("ij->k", X), r"einsum 'ij->k': the output has letters that no operand has"),
        (lambda: ops.einsum("ijk->i", X), r"one letter for each axis of each operand, got shapes \(2, 3\)"),
        (lambda: ops.einsum("i...->i", X), r"einsum 'i\.\.\.->i': axes are letters"),
        (lambda: ops.solve(X, V), r"solve: a must be \(\.\.\., n, n\), got \(2, 3\)"),
        (lambda: ops.solve(X[:, :2], Tensor(np.zeros(3))), r"solve: b must be .* for a \(\.\.\., n, n\) = \(2, 2\), got \(3,\)"),
        (lambda: ops.cholesky(V), r"cholesky: a must be \(\.\.\., n, n\), got \(2,\)"),
        (lambda: ops.slogdet(X), r"slogdet: a must be \(\.\.\., n, n\), got \(2, 3\)"),
        (lambda: ops.inv(X), r"inv: a must be \(\.\.\., n, n\), got \(2, 3\)"),
    ],
)
def test_errors_name_the_argument(call: Callable[[], Tensor], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()


def test_what_has_no_root_says_so() -> None:
    with pytest.raises(np.linalg.LinAlgError, match=r"cholesky: a \(2, 2\) is not positive definite; .* add a little to the diagonal"):
        ops.cholesky(Tensor(-np.eye(2)))
