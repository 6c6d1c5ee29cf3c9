"""The GRU kernels: the reference against derivatives taken numerically, the others against the reference, all against PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirnn.kernels import kernels, load
from minirnn.kernels.gru import numpy_

from . import checks
from .problems import AWKWARD, RAGGED, Array, Problem, batch_sizes, check_central_difference, check_complex_step, hidden


def gru_problem(batch_sizes: Sequence[int], H: int, dtype: Any = np.float64, seed: int = 0) -> Problem:
    rng = np.random.default_rng(seed)
    S, N = sum(batch_sizes), batch_sizes[0]

    def draw(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(dtype)

    return Problem(
        {"z": draw(S, 3 * H), "w_hh": draw(3 * H, H) / np.sqrt(H).astype(dtype), "b_hn": draw(H), "h0": draw(N, H)},
        np.array(batch_sizes),
        {"h": draw(S, H), "h_n": draw(N, H)},
    )


GRU = checks.Cell(numpy_, gru_problem, {})
NAMES = [k.name for k in kernels("gru") if k.module is not None and k.why_not() is None]
FUSED = [name for name in NAMES if name != "numpy"]
DTYPES = pytest.mark.parametrize("dtype", [np.float64, np.float32])


@pytest.fixture(params=NAMES)
def kernel(request: pytest.FixtureRequest) -> ModuleType:
    return load("gru", request.param)


@given(batch_sizes, hidden, st.integers(0, 9))
def test_the_reference_against_the_complex_step(batch_sizes: list[int], H: int, seed: int) -> None:
    problem = gru_problem(batch_sizes, H, seed=seed)
    check_complex_step(GRU.forward, GRU.gradients(numpy_, problem), problem)


@given(batch_sizes, st.sampled_from([1, 2, 3, 5, 8, 17]), st.integers(0, 9))
def test_the_reference_against_central_differences(batch_sizes: list[int], H: int, seed: int) -> None:
    problem = gru_problem(batch_sizes, H, seed=seed)
    check_central_difference(GRU.forward, GRU.gradients(numpy_, problem), problem)


MISTAKES = {  # what stands in the reference, and a wrong line in its place
    "scaled by 1.001": ("dw_hh = da.T", "dw_hh = 1.001 * da.T"),
    "one gate scaled by 1.001": ("n**2)", "n**2) * 1.001"),
    "the reset gate forgotten on the way to w_hh": ("dz_n * r)", "dz_n)"),
    "the path through u dropped": ("dh_t[running] * u + ", ""),
    "the path through w_hh dropped": (" + da[rows] @ w_hh", ""),
    "the gradient of the whole for that of the recurrent half": ("da[rows] @ w_hh", "dz[rows] @ w_hh"),
    "h of the wrong step": ("(h_before[rows] - n)", "(tape.h[rows] - n)"),
    "the bias of the whole candidate": ("da[:, 2 * H :]", "dz[:, 2 * H :]"),
    "gates in the wrong order": ("(dz_r, dz_u, dz_n)", "(dz_u, dz_r, dz_n)"),
    "sequences enter at the last step of the longest": (
        "dh_n.copy()",
        "np.where(np.arange(len(dh_n))[:, None] < batch_sizes[-1], dh_n, 0)",
    ),
    "dh left out": ("dh_t[running] += dh[rows]", "pass"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_checks_catch(mistake: str) -> None:
    checks.notices_the_mistake(GRU, *MISTAKES[mistake])


@DTYPES
@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize(("batch_sizes", "H"), AWKWARD)
@pytest.mark.usefixtures("groups")
def test_fused_kernels_equal_the_reference(name: str, batch_sizes: list[int], H: int, dtype: Any) -> None:
    checks.agrees_with_the_reference(GRU, load("gru", name), gru_problem(batch_sizes, H, dtype))


@pytest.mark.parametrize("name", FUSED)
@given(batch_sizes, st.integers(1, 40), st.sampled_from([np.float64, np.float32]), st.integers(0, 9))
def test_fused_kernels_equal_the_reference_on_any_shape(name: str, batch_sizes: list[int], H: int, dtype: Any, seed: int) -> None:
    checks.agrees_with_the_reference(GRU, load("gru", name), gru_problem(batch_sizes, H, dtype, seed))


@DTYPES
def test_agrees_with_pytorch(kernel: ModuleType, dtype: Any) -> None:
    torch = pytest.importorskip("torch", reason="compares with torch.nn.GRU")

    def project(x: Array, w_ih: Array, b_ih: Array, b_hh: Array) -> Array:
        """Every bias but the one that the reset gate multiplies."""
        H = len(b_hh) // 3
        return x @ w_ih.T + b_ih + np.where(np.arange(3 * H) < 2 * H, b_hh, 0)

    checks.agrees_with_pytorch(GRU, kernel, dtype, torch.nn.GRU, project)


@DTYPES
@pytest.mark.usefixtures("groups")
def test_a_sequence_alone_is_what_it_is_in_a_batch(kernel: ModuleType, dtype: Any) -> None:
    checks.gives_each_sequence_what_it_gets_alone(GRU, kernel, dtype)


@pytest.mark.parametrize("where", ["z", "h0", "dh", "dh_n"])
@pytest.mark.usefixtures("groups")
def test_nan_stays_in_its_sequence(kernel: ModuleType, where: str) -> None:
    checks.keeps_a_nan_in_its_sequence(GRU, kernel, where)


@DTYPES
@pytest.mark.usefixtures("groups")
def test_same_input_same_bits(kernel: ModuleType, dtype: Any) -> None:
    checks.repeats_itself_to_the_bit(GRU, kernel, dtype)


def test_arguments_are_read_only(kernel: ModuleType) -> None:
    checks.writes_to_no_argument(GRU, kernel)


def test_no_gradient_means_zero(kernel: ModuleType) -> None:
    checks.takes_no_gradient_for_zero(GRU, kernel)


def test_gradients_may_lie_in_any_order(kernel: ModuleType) -> None:
    checks.reads_gradients_of_any_strides(GRU, kernel)


@DTYPES
@pytest.mark.parametrize("huge", [1e30, np.inf])
def test_huge_inputs_saturate(kernel: ModuleType, huge: float, dtype: Any) -> None:
    """An update gate wide open keeps h0 and hands its gradient through; a closed one leaves the candidate, tanh(-inf) = -1."""
    for sign in (1, -1):
        problem = gru_problem([2] * 3, 5, dtype)
        problem.inputs["z"][:] = sign * huge
        tape, grads = GRU.run(kernel, problem)
        np.testing.assert_allclose(tape.h_n, problem.inputs["h0"] if sign > 0 else -1, rtol=1e-6)
        through = problem.cotangents["h_n"] + problem.cotangents["h"].reshape(3, 2, 5).sum(0) if sign > 0 else 0
        np.testing.assert_allclose(grads.dh0, through, atol=1e-5)
        np.testing.assert_allclose(grads.dz, 0, atol=1e-30)  # a gate may close to the smallest number instead of 0


@pytest.mark.parametrize(
    ("argument", "wrong", "error", "words"),
    [
        ("z", np.zeros((11, 10)), ValueError, r"GRU: z must be \(S, 3H\) = \(11, 9\), got \(11, 10\)"),
        ("w_hh", np.zeros((12, 3)), ValueError, r"GRU: w_hh must be \(3H, H\) = \(9, 3\), got \(12, 3\)"),
        ("b_hn", np.zeros(9), ValueError, r"GRU: b_hn must be \(H,\) = \(3,\), got \(9,\)"),
        ("h0", np.zeros((4, 3), np.float32), TypeError, "GRU: h0 is float32 and w_hh is float64; convert one of them"),
        ("batch_sizes", np.array([3, 4, 3, 1]), ValueError, r"GRU: batch_sizes must be a non-increasing .* sort the sequences by length"),
    ],
)
def test_a_wrong_argument_is_named(kernel: ModuleType, argument: str, wrong: Array, error: type[Exception], words: str) -> None:
    problem = gru_problem(RAGGED, 3)
    with pytest.raises(error, match=words):
        kernel.forward(**{**problem.inputs, "batch_sizes": problem.batch_sizes, argument: wrong})
