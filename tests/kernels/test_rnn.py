"""The plain recurrence's kernels: the reference against derivatives, the others against the reference, all against PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirnn.kernels import kernels, load
from minirnn.kernels.rnn import numpy_

from . import checks
from .problems import AWKWARD, RAGGED, Array, Problem, batch_sizes, check_central_difference, check_complex_step, hidden


def rnn_problem(batch_sizes: Sequence[int], H: int, dtype: Any = np.float64, seed: int = 0) -> Problem:
    rng = np.random.default_rng(seed)
    S, N = sum(batch_sizes), batch_sizes[0]

    def draw(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(dtype)

    return Problem(
        {"z": draw(S, H), "w_hh": draw(H, H) / np.sqrt(H).astype(dtype), "h0": draw(N, H)},
        np.array(batch_sizes),
        {"h": draw(S, H), "h_n": draw(N, H)},
    )


TANH = checks.Cell(numpy_, rnn_problem, {})
RELU = checks.Cell(numpy_, rnn_problem, {"nonlinearity": "relu"})
NAMES = [k.name for k in kernels("rnn") if k.module is not None and k.why_not() is None]
FUSED = [name for name in NAMES if name != "numpy"]
DTYPES = pytest.mark.parametrize("dtype", [np.float64, np.float32])
CELLS = pytest.mark.parametrize("cell", [TANH, RELU], ids=["tanh", "relu"])


@pytest.fixture(params=NAMES)
def kernel(request: pytest.FixtureRequest) -> ModuleType:
    return load("rnn", request.param)


@CELLS
@given(batch_sizes, hidden, st.integers(0, 9))
def test_the_reference_against_the_complex_step(cell: checks.Cell, batch_sizes: list[int], H: int, seed: int) -> None:
    problem = rnn_problem(batch_sizes, H, seed=seed)
    check_complex_step(cell.forward, cell.gradients(numpy_, problem), problem)


@given(batch_sizes, st.sampled_from([1, 2, 3, 5, 8, 17]), st.integers(0, 9))
def test_the_reference_against_central_differences(batch_sizes: list[int], H: int, seed: int) -> None:
    """tanh only: a difference that straddles the corner of a relu is no derivative, and the complex step never leaves its side of it."""
    problem = rnn_problem(batch_sizes, H, seed=seed)
    check_central_difference(TANH.forward, TANH.gradients(numpy_, problem), problem)


MISTAKES = {  # the cell, what stands in the reference, and a wrong line in its place
    "scaled by 1.001": (TANH, "dw_hh = dz.T", "dw_hh = 1.001 * dz.T"),
    "the derivative of tanh scaled by 1.001": (TANH, "** 2)", "** 2) * 1.001"),
    "the corner on the wrong side": (RELU, "np.where(tape.h[rows] <= 0, 0, dh_t[:n])", "np.where(tape.h[rows] <= 0, dh_t[:n], 0)"),
    "no corner": (RELU, "np.where(tape.h[rows] <= 0, 0, dh_t[:n])", "dh_t[:n]"),
    "no memory": (TANH, "dh_t[:n] = dz[rows] @ w_hh", "dh_t[:n] = 0"),
    "w_hh transposed": (TANH, "dz[rows] @ w_hh", "dz[rows] @ w_hh.T"),
    "h of the wrong step": (TANH, "previous(tape.h, tape.h0, batch_sizes)", "tape.h"),
    "a ragged row lost": (RELU, "dh_t[:n] = dz[rows] @ w_hh", "dh_t[: n - 1] = (dz[rows] @ w_hh)[: n - 1]"),
    "sequences enter at the last step of the longest": (
        TANH,
        "dh_n.copy()",
        "np.where(np.arange(len(dh_n))[:, None] < batch_sizes[-1], dh_n, 0)",
    ),
    "dh left out": (TANH, "dh_t[:n] += dh[rows]", "pass"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_checks_catch(mistake: str) -> None:
    checks.notices_the_mistake(*MISTAKES[mistake])


@CELLS
@DTYPES
@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize(("batch_sizes", "H"), AWKWARD)
@pytest.mark.usefixtures("groups")
def test_fused_kernels_equal_the_reference(cell: checks.Cell, name: str, batch_sizes: list[int], H: int, dtype: Any) -> None:
    checks.agrees_with_the_reference(cell, load("rnn", name), rnn_problem(batch_sizes, H, dtype))


@CELLS
@pytest.mark.parametrize("name", FUSED)
@given(batch_sizes, st.integers(1, 40), st.sampled_from([np.float64, np.float32]), st.integers(0, 9))
def test_fused_kernels_equal_the_reference_on_any_shape(
    cell: checks.Cell, name: str, batch_sizes: list[int], H: int, dtype: Any, seed: int
) -> None:
    checks.agrees_with_the_reference(cell, load("rnn", name), rnn_problem(batch_sizes, H, dtype, seed))


@CELLS
@DTYPES
def test_agrees_with_pytorch(kernel: ModuleType, cell: checks.Cell, dtype: Any) -> None:
    torch = pytest.importorskip("torch", reason="compares with torch.nn.RNN")

    def project(x: Array, w_ih: Array, b_ih: Array, b_hh: Array) -> Array:
        return x @ w_ih.T + b_ih + b_hh

    checks.agrees_with_pytorch(cell, kernel, dtype, partial(torch.nn.RNN, **cell.options), project)


@CELLS
@DTYPES
@pytest.mark.usefixtures("groups")
def test_a_sequence_alone_is_what_it_is_in_a_batch(kernel: ModuleType, cell: checks.Cell, dtype: Any) -> None:
    checks.gives_each_sequence_what_it_gets_alone(cell, kernel, dtype)


@CELLS
@pytest.mark.parametrize("where", ["z", "h0", "dh", "dh_n"])
@pytest.mark.usefixtures("groups")
def test_nan_stays_in_its_sequence(kernel: ModuleType, cell: checks.Cell, where: str) -> None:
    checks.keeps_a_nan_in_its_sequence(cell, kernel, where)


@CELLS
@DTYPES
@pytest.mark.usefixtures("groups")
def test_same_input_same_bits(kernel: ModuleType, cell: checks.Cell, dtype: Any) -> None:
    checks.repeats_itself_to_the_bit(cell, kernel, dtype)


@CELLS
def test_arguments_are_read_only(kernel: ModuleType, cell: checks.Cell) -> None:
    checks.writes_to_no_argument(cell, kernel)


@CELLS
def test_no_gradient_means_zero(kernel: ModuleType, cell: checks.Cell) -> None:
    checks.takes_no_gradient_for_zero(cell, kernel)


@CELLS
def test_gradients_may_lie_in_any_order(kernel: ModuleType, cell: checks.Cell) -> None:
    checks.reads_gradients_of_any_strides(cell, kernel)


@DTYPES
@pytest.mark.parametrize("huge", [1e30, np.inf])
def test_huge_inputs_saturate(kernel: ModuleType, huge: float, dtype: Any) -> None:
    for sign in (1, -1):
        problem = rnn_problem([2] * 3, 5, dtype)
        problem.inputs["z"][:] = sign * huge
        tape, grads = TANH.run(kernel, problem)
        np.testing.assert_array_equal(tape.h, np.full((6, 5), sign))
        assert not grads.dz.any()


def test_a_relu_has_slope_zero_at_its_corner(kernel: ModuleType) -> None:
    tape = kernel.forward(np.zeros((1, 1)), np.ones((1, 1)), np.zeros((1, 1)), np.array([1]), "relu")
    assert kernel.backward(tape, np.ones((1, 1)), np.ones((1, 1)), None).dz[0, 0] == 0


@pytest.mark.parametrize(
    ("argument", "wrong", "error", "words"),
    [
        ("z", np.zeros((11, 4)), ValueError, r"RNN: z must be \(S, H\) = \(11, 3\), got \(11, 4\)"),
        ("w_hh", np.zeros((12, 3)), ValueError, r"RNN: w_hh must be \(H, H\) = \(3, 3\), got \(12, 3\)"),
        ("h0", np.zeros((4, 3), np.float32), TypeError, "RNN: h0 is float32 and w_hh is float64; convert one of them"),
        ("nonlinearity", "gelu", ValueError, 'RNN: nonlinearity must be "tanh" or "relu", got \'gelu\''),
    ],
)
def test_a_wrong_argument_is_named(kernel: ModuleType, argument: str, wrong: Any, error: type[Exception], words: str) -> None:
    problem = rnn_problem(RAGGED, 3)
    with pytest.raises(error, match=words):
        kernel.forward(**{**problem.inputs, "batch_sizes": problem.batch_sizes, argument: wrong})
