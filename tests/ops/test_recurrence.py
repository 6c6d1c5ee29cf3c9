"""The recurrences as operations: every kernel against the unrolled form and finite differences, whatever is asked of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from minirnn import detect_anomaly, grad, ops
from minirnn.autograd import Function
from minirnn.diagnostics import AnomalyError, Direction, Monitor, Results, monitored
from minirnn.kernels import kernels
from minirnn.ops.elementwise import Relu
from minirnn.study.gradcheck import gradcheck, gradgradcheck
from minirnn.tensor import Tensor

from .arrays import LAYOUTS, Array, leaves, normal


class Cell(NamedTuple):
    run: Callable[..., tuple[Tensor, ...]]
    gates: int
    states: int
    bias: bool
    options: dict[str, Any]

    def inputs(self, batch_sizes: Sequence[int], H: int) -> list[Array]:
        """z (S, G H), w_hh (G H, H), b_hn (H,) of a GRU, and the states (N, H)"""
        S, N = sum(batch_sizes), batch_sizes[0]
        bias = [normal(H, seed=2)] if self.bias else []
        states = [normal(N, H, seed=3 + k) for k in range(self.states)]
        return [normal(S, self.gates * H), normal(self.gates * H, H, seed=1), *bias, *states]


CELLS = {
    "lstm": Cell(ops.lstm, 4, 2, False, {}),
    "gru": Cell(ops.gru, 3, 1, True, {}),
    "rnn tanh": Cell(ops.rnn, 1, 1, False, {"nonlinearity": "tanh"}),
    "rnn relu": Cell(ops.rnn, 1, 1, False, {"nonlinearity": "relu"}),
}
FUSED = [
    pytest.param(name, kernel.name, id=f"{name}-{kernel.name}")
    for name in CELLS
    for kernel in kernels(name.split()[0])
    if kernel.module is not None and kernel.why_not("float64") is None
]
# counts of the sequences still running: of up to five sequences, of up to five steps
ragged = st.lists(st.integers(1, 5), min_size=1, max_size=5).map(lambda lengths: [sum(n > t for n in lengths) for t in range(max(lengths))])
hidden = st.sampled_from([1, 2, 3, 5])


class Kink(Monitor):
    """How near a relu came to zero, where it has no derivative."""

    distance = float("inf")

    def watch(self, function: Function, direction: Direction, compute: Callable[[], Results]) -> Results:
        if isinstance(function, Relu):
            self.distance = min(self.distance, np.abs(function.inputs[0].data).min(initial=np.inf))
        return compute()


def gradients(outputs: Sequence[Tensor], inputs: Sequence[Tensor], asked: Sequence[bool]) -> list[Array]:
    """Of the sum of the outputs asked for, each times some numbers."""
    chosen = [y for y, wanted in zip(outputs, asked, strict=True) if wanted]
    found = grad(chosen, [t for t in inputs if t.requires_grad], [Tensor(normal(*y.shape, seed=9)) for y in chosen])
    return [g.data for g in found]


@pytest.mark.parametrize(("name", "kernel"), FUSED)
@given(batch_sizes=ragged, H=hidden, layout=st.sampled_from(list(LAYOUTS)), data=st.data())
def test_fused_is_unrolled(name: str, kernel: str, batch_sizes: list[int], H: int, layout: str, data: st.DataObject) -> None:
    """Outputs and gradients: for any lengths, any subset of the outputs in the loss, any subset of the inputs frozen, any layout."""
    cell, sizes = CELLS[name], np.array(batch_sizes)
    arrays = [LAYOUTS[layout](x) for x in cell.inputs(batch_sizes, H)]
    needs = data.draw(st.lists(st.booleans(), min_size=len(arrays), max_size=len(arrays)).filter(any))
    inputs = [Tensor(x, needed) for x, needed in zip(arrays, needs, strict=True)]
    fused = cell.run(*inputs, sizes, **cell.options, kernel=kernel)
    unrolled = cell.run(*inputs, sizes, **cell.options, kernel="unrolled")
    asked = data.draw(st.lists(st.booleans(), min_size=len(fused), max_size=len(fused)).filter(any))
    for mine, theirs in zip(fused, unrolled, strict=True):
        np.testing.assert_allclose(mine.data, theirs.data, rtol=1e-10, atol=1e-12)
    for mine, theirs in zip(gradients(fused, inputs, asked), gradients(unrolled, inputs, asked), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize(("name", "kernel"), FUSED)
@settings(max_examples=8)
@given(batch_sizes=ragged, H=hidden)
def test_finite_differences_to_second_order(name: str, kernel: str, batch_sizes: list[int], H: int) -> None:
    cell, sizes = CELLS[name], np.array(batch_sizes)
    how = {"directions": 1, "elementwise": 0}

    def f(*inputs: Tensor) -> tuple[Tensor, ...]:
        return cell.run(*inputs, sizes, **cell.options, kernel=kernel)

    inputs = leaves(*cell.inputs(batch_sizes, H))
    kink = Kink()
    with monitored(kink):
        cell.run(*inputs, sizes, **cell.options, kernel="unrolled")
    assume(kink.distance > 1e-3)
    assert gradcheck(f, inputs, **how)
    assert gradgradcheck(f, inputs, **how)


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn tanh"])
@settings(max_examples=8)
@given(batch_sizes=ragged, H=hidden)
def test_complex_step_to_second_order(name: str, batch_sizes: list[int], H: int) -> None:
    cell, sizes = CELLS[name], np.array(batch_sizes)
    for kernel in ("numpy", "unrolled"):

        def f(*inputs: Tensor, kernel: str = kernel) -> tuple[Tensor, ...]:
            return cell.run(*inputs, sizes, **cell.options, kernel=kernel)

        inputs = leaves(*cell.inputs(batch_sizes, H))
        assert gradcheck(f, inputs, complex_step=True, directions=1, elementwise=0)
        assert gradgradcheck(f, inputs, complex_step=True, directions=1, elementwise=0)


@pytest.mark.parametrize(("name", "kernel"), FUSED)
def test_second_derivatives_with_frozen_inputs(name: str, kernel: str) -> None:
    """The gradient penalty of a layer whose weights are frozen, or whose input is."""
    cell, batch_sizes = CELLS[name], [3, 2, 1]
    arrays = cell.inputs(batch_sizes, 2)
    for free in range(len(arrays)):
        results = []
        for which in (kernel, "unrolled"):
            inputs = [Tensor(x, k == free) for k, x in enumerate(arrays)]
            outputs = cell.run(*inputs, np.array(batch_sizes), **cell.options, kernel=which)
            loss = ops.sum(outputs[0] * outputs[0]) + ops.sum(outputs[-1])
            (dx,) = grad(loss, inputs[free], create_graph=True)
            results.append(grad(ops.sum(dx * dx), inputs[free])[0].data)
        np.testing.assert_allclose(*results, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("name", "kernel"), FUSED)
def test_a_graph_can_be_gone_through_twice(name: str, kernel: str) -> None:
    cell, batch_sizes = CELLS[name], [2, 1]
    inputs = leaves(*cell.inputs(batch_sizes, 2))
    loss = ops.sum(cell.run(*inputs, np.array(batch_sizes), **cell.options, kernel=kernel)[0])
    first, second = (grad(loss, inputs, retain_graph=True) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.data, b.data)


@pytest.mark.parametrize(("name", "kernel"), FUSED)
def test_float32_stays_float32(name: str, kernel: str) -> None:
    cell, batch_sizes = CELLS[name], [3, 3, 1]
    inputs = leaves(*(x.astype(np.float32) for x in cell.inputs(batch_sizes, 3)))
    outputs = cell.run(*inputs, np.array(batch_sizes), **cell.options, kernel=kernel)
    ops.sum(outputs[0]).backward()
    assert {t.dtype for t in outputs} | {t.grad.dtype for t in inputs if t.grad is not None} == {np.dtype(np.float32)}


def test_the_last_states_are_each_sequences_own() -> None:
    """Packed rows of sequences of 3, 2 and 1 steps: rows 0 1 2 | 3 4 | 5."""
    for name, cell in CELLS.items():
        for kernel in ("unrolled", None):
            outputs = cell.run(*map(Tensor, cell.inputs([3, 2, 1], 2)), np.array([3, 2, 1]), **cell.options, kernel=kernel)
            h, h_n = outputs[0], outputs[len(outputs) // 2]
            np.testing.assert_array_equal(h_n.data, h.data[[5, 4, 2]], err_msg=name)


@pytest.mark.parametrize("kernel", ["numpy", "numba", "unrolled"])
def test_the_anomaly_detector_names_step_and_sequence(kernel: str) -> None:
    """h_t = 1e200 h_{t-1} overflows at the second step, in the sequence that does not start from zero."""
    z, w_hh, h0 = Tensor(np.zeros((5, 1))), Tensor(np.full((1, 1), 1e200)), Tensor(np.array([[0.0], [1.0]]))
    where = "time step 1" if kernel == "unrolled" else "RNN forward.* time step 1, sequence 1 of the batch"
    with detect_anomaly(), np.errstate(all="ignore"), pytest.raises(AnomalyError, match=where):
        ops.rnn(z, w_hh, h0, np.array([2, 2, 1]), "relu", kernel)


@pytest.mark.parametrize("kernel", ["numpy", "numba", "unrolled"])
@pytest.mark.parametrize("name", CELLS)
def test_errors_name_the_argument(name: str, kernel: str) -> None:
    cell = CELLS[name]
    z, *others = map(Tensor, cell.inputs([2, 1], 3))
    with pytest.raises(ValueError, match=rf"z must be \(S, \d?H\) = \(3, {3 * cell.gates}\), got \(2, {3 * cell.gates}\)"):
        cell.run(z[:2], *others, np.array([2, 1]), **cell.options, kernel=kernel)
    with pytest.raises(ValueError, match=r"batch_sizes must be a non-increasing \(T,\) array"):
        cell.run(z, *others, np.array([1, 2]), **cell.options, kernel=kernel)


def test_a_relu_recurrence_of_one_step_has_no_curvature() -> None:
    """h = relu(z + h0 w^T): dh/dz is 0 or 1, wherever it is, and its derivative with create_graph=True is nothing, not an error."""
    z, w, h0 = Tensor(np.array([[-1.0, 2.0]]), requires_grad=True), Tensor(np.zeros((2, 2))), Tensor(np.zeros((1, 2)))
    h, _ = ops.rnn(z, w, h0, np.array([1]), "relu", "numpy")
    (dz,) = grad(h.sum(), z, create_graph=True)
    np.testing.assert_array_equal(dz.data, [[0, 1]])
    (dz * dz + z).sum().backward(create_graph=True)
    assert z.grad is not None
    np.testing.assert_array_equal(z.grad.data, [[1, 1]])
