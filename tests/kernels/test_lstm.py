"""The LSTM kernels: the reference against derivatives taken numerically, the others against the reference, all against PyTorch."""

from __future__ import annotations

import inspect
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirnn.kernels import kernels, load
from minirnn.kernels.lstm import numpy_

from .problems import (
    AWKWARD,
    RAGGED,
    Array,
    Problem,
    batch_sizes,
    check_central_difference,
    check_complex_step,
    distance,
    hidden,
    lstm_problem,
    rows_of,
)

NAMES = [k.name for k in kernels("lstm") if k.module is not None and k.why_not() is None]
FUSED = [name for name in NAMES if name != "numpy"]
TOLERANCE = {np.float64: 1e-10, np.float32: 1e-5}  # thousands of roundings of 1e-16 and dozens of 6e-8, relative to the array's largest


@pytest.fixture(params=NAMES)
def kernel(request: pytest.FixtureRequest) -> ModuleType:
    return load("lstm", request.param)


@pytest.fixture(params=FUSED)
def fused(request: pytest.FixtureRequest) -> ModuleType:
    return load("lstm", request.param)


def run(kernel: Any, problem: Problem) -> tuple[Any, Any]:
    tape = kernel.forward(*problem.inputs.values(), problem.batch_sizes)
    return tape, kernel.backward(tape, problem.inputs["w_hh"], *problem.cotangents.values())


def gradients(kernel: Any, problem: Problem) -> dict[str, Array]:
    grads = run(kernel, problem)[1]
    return {"z": grads.dz, "w_hh": grads.dw_hh, "h0": grads.dh0, "c0": grads.dc0}


def check_agreement(kernel: Any, problem: Problem) -> None:
    """Every array of the tape and every gradient equals the reference's."""
    tolerance = TOLERANCE[problem.inputs["z"].dtype.type]
    (tape, grads), (expected_tape, expected_grads) = run(kernel, problem), run(numpy_, problem)
    for name in ("h", "c", "gates", "h_n", "c_n"):
        assert distance(getattr(tape, name), getattr(expected_tape, name)) < tolerance, name
    for name in grads._fields:
        assert distance(getattr(grads, name), getattr(expected_grads, name)) < tolerance, name


@given(batch_sizes, hidden, st.integers(0, 9))
def test_the_reference_against_the_complex_step(batch_sizes: list[int], H: int, seed: int) -> None:
    problem = lstm_problem(batch_sizes, H, seed=seed)
    check_complex_step(numpy_.forward, gradients(numpy_, problem), problem)


@given(batch_sizes, st.sampled_from([1, 2, 3, 5, 8, 17]), st.integers(0, 9))
def test_the_reference_against_central_differences(batch_sizes: list[int], H: int, seed: int) -> None:
    problem = lstm_problem(batch_sizes, H, seed=seed)
    check_central_difference(numpy_.forward, gradients(numpy_, problem), problem)


MISTAKES = {  # what stands in the reference, and a wrong line in its place
    "scaled by 1.001": ("tape.h0, batch_sizes)", "tape.h0, batch_sizes) * 1.001"),
    "one gate scaled by 1.001": ("g**2)", "g**2) * 1.001"),
    "the path through c dropped": ("dc_t[:n] *= f", "dc_t[:n] *= 0"),
    "the path through tanh c dropped": ("dc_t[:n] += dh_t", "dc_t[:n] += 0 * dh_t"),
    "the path through h dropped": ("dh_t[:n] = dz[rows] @ w_hh", "dh_t[:n] = 0"),
    "c of the wrong step": ("* c_before[rows]", "* tape.c[rows]"),
    "h of the wrong step": ("previous(tape.h, tape.h0, batch_sizes)", "tape.h"),
    "gates in the wrong order": ("(da_i, da_f, da_g, da_o)", "(da_f, da_i, da_g, da_o)"),
    "a ragged row lost": ("dh_t[:n] = dz[rows] @ w_hh", "dh_t[: n - 1] = (dz[rows] @ w_hh)[: n - 1]"),
    "sequences enter at the last step of the longest": (
        "dh_n.copy()",
        "np.where(np.arange(len(dh_n))[:, None] < batch_sizes[-1], dh_n, 0)",
    ),
    "dh added after it was used": ("dh_t[:n] += dh[rows]", "pass"),
}


def with_mistake(right: str, wrong: str) -> Any:
    source = inspect.getsource(numpy_)
    assert right in source
    module: dict[str, Any] = {"__name__": "mistaken"}
    exec(compile(source.replace(right, wrong), "mistaken", "exec"), module)
    return SimpleNamespace(forward=numpy_.forward, backward=module["backward"])


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_checks_catch(mistake: str) -> None:
    problem = lstm_problem(RAGGED, 3)
    mistaken = with_mistake(*MISTAKES[mistake])
    with pytest.raises(AssertionError):
        check_complex_step(numpy_.forward, gradients(mistaken, problem), problem)
    with pytest.raises(AssertionError):
        check_central_difference(numpy_.forward, gradients(mistaken, problem), problem)
    with pytest.raises(AssertionError):
        check_agreement(mistaken, lstm_problem(RAGGED, 3, np.float32))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("batch_sizes", "H"), AWKWARD)
@pytest.mark.usefixtures("groups")
def test_fused_kernels_equal_the_reference(fused: ModuleType, batch_sizes: list[int], H: int, dtype: Any) -> None:
    check_agreement(fused, lstm_problem(batch_sizes, H, dtype))


@given(batch_sizes, st.integers(1, 40), st.sampled_from([np.float64, np.float32]), st.integers(0, 9))
def test_fused_kernels_equal_the_reference_on_any_shape(batch_sizes: list[int], H: int, dtype: Any, seed: int) -> None:
    for name in FUSED:
        check_agreement(load("lstm", name), lstm_problem(batch_sizes, H, dtype, seed))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_agrees_with_pytorch(kernel: ModuleType, dtype: Any) -> None:
    torch = pytest.importorskip("torch", reason="compares with torch.nn.LSTM")
    H, D = 19, 5
    problem = lstm_problem([4, 4, 2, 1], H, dtype)
    z, w_hh, h0, c0 = problem.inputs.values()
    rng = np.random.default_rng(2)
    x = rng.standard_normal((len(z), D)).astype(dtype)

    theirs = torch.nn.LSTM(D, H, dtype=torch.from_numpy(z).dtype)
    with torch.no_grad():
        theirs.weight_hh_l0.copy_(torch.from_numpy(w_hh))
    w_ih, b_ih, b_hh = (p.detach().numpy() for p in (theirs.weight_ih_l0, theirs.bias_ih_l0, theirs.bias_hh_l0))
    tape = kernel.forward(x @ w_ih.T + b_ih + b_hh, w_hh, h0, c0, problem.batch_sizes)
    grads = kernel.backward(tape, w_hh, problem.cotangents["h"], None, problem.cotangents["h_n"], problem.cotangents["c_n"])

    x_, h0_, c0_ = (torch.from_numpy(array).clone().requires_grad_() for array in (x, h0, c0))
    packed = torch.nn.utils.rnn.PackedSequence(x_, torch.from_numpy(problem.batch_sizes))
    output, (h_n, c_n) = theirs(packed, (h0_[None], c0_[None]))
    cotangents = [torch.from_numpy(problem.cotangents[name]) for name in ("h", "h_n", "c_n")]
    torch.autograd.backward([output.data, h_n[0], c_n[0]], cotangents)

    for ours, other in [
        (tape.h, output.data),
        (tape.h_n, h_n[0]),
        (tape.c_n, c_n[0]),
        (grads.dz @ w_ih, x_.grad),
        (grads.dw_hh, theirs.weight_hh_l0.grad),
        (grads.dz.sum(0), theirs.bias_hh_l0.grad),
        (grads.dh0, h0_.grad),
        (grads.dc0, c0_.grad),
    ]:
        assert distance(ours, other.detach().numpy()) < TOLERANCE[dtype]


def alone(problem: Problem, n: int) -> tuple[Problem, list[int]]:
    """The problem of sequence n by itself, and its rows in the batch."""
    rows = rows_of(n, problem.batch_sizes.tolist())

    def pick(name: str, array: Array) -> Array:
        return array if name == "w_hh" else array[n : n + 1] if len(array) == problem.batch_sizes[0] and name not in "zhc" else array[rows]

    return Problem(
        {name: pick(name, array) for name, array in problem.inputs.items()},
        np.ones(len(rows), np.int64),
        {name: pick(name, array) for name, array in problem.cotangents.items()},
    ), rows


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.usefixtures("groups")
def test_a_sequence_alone_is_what_it_is_in_a_batch(kernel: ModuleType, dtype: Any) -> None:
    """To the bit in kernels that do their own products, where the sum behind each number has one order; to rounding in the others."""
    problem = lstm_problem([9, 9, 7, 4, 1], 20, dtype)
    tape, grads = run(kernel, problem)
    dw_hh = np.zeros_like(grads.dw_hh)
    for n in range(problem.batch_sizes[0]):
        single, rows = alone(problem, n)
        tape_1, grads_1 = run(kernel, single)
        dw_hh += grads_1.dw_hh
        pairs = [(tape.h[rows], tape_1.h), (tape.c[rows], tape_1.c), (tape.gates[rows], tape_1.gates), (tape.h_n[n], tape_1.h_n[0])]
        pairs += [(grads.dz[rows], grads_1.dz), (grads.dh0[n], grads_1.dh0[0]), (grads.dc0[n], grads_1.dc0[0])]
        for batched, single_one in pairs:
            if kernel is numpy_:
                assert distance(batched, single_one) < TOLERANCE[dtype]
            else:
                np.testing.assert_array_equal(batched, single_one)
    assert distance(grads.dw_hh, dw_hh) < TOLERANCE[dtype]


@pytest.mark.parametrize("where", ["z", "h0", "c0", "dh", "dc_n"])
@pytest.mark.usefixtures("groups")
def test_nan_stays_in_its_sequence(kernel: ModuleType, where: str) -> None:
    sizes, sick = [7, 7, 5, 2], 3  # sequence 3 has three steps
    problem = lstm_problem(sizes, 20, np.float32)
    healthy_tape, healthy_grads = run(kernel, problem)
    rows = rows_of(sick, sizes)
    if where == "z":
        problem.inputs["z"][rows[0], 1] = np.nan
    elif where == "dh":
        problem.cotangents["h"][rows[-1], 1] = np.nan
    elif where == "dc_n":
        problem.cotangents["c_n"][sick, 1] = np.nan
    else:
        problem.inputs[where][sick, 1] = np.nan
    tape, grads = run(kernel, problem)
    others = np.setdiff1d(np.arange(len(tape.h)), rows)
    sequences = np.setdiff1d(np.arange(sizes[0]), [sick])
    np.testing.assert_array_equal(tape.h[others], healthy_tape.h[others])
    np.testing.assert_array_equal(tape.c_n[sequences], healthy_tape.c_n[sequences])
    np.testing.assert_array_equal(grads.dz[others], healthy_grads.dz[others])
    np.testing.assert_array_equal(grads.dh0[sequences], healthy_grads.dh0[sequences])
    assert np.isnan(grads.dh0[sick]).all(), "a NaN must not be lost on its way back"
    if where in ("z", "h0", "c0"):
        assert np.isnan(tape.h_n[sick]).all(), "a NaN must not be lost on its way forward"


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("huge", [1e30, np.inf])
def test_huge_inputs_saturate(kernel: ModuleType, huge: float, dtype: Any) -> None:
    """Gates closed or wide open, no NaN and no overflow: with i = f = o = 1 and g = 1, c counts the steps."""
    H, T = 5, 3
    for sign, c_n in ((1, float(T)), (-1, 0.0)):
        problem = lstm_problem([2] * T, H, dtype)
        problem.inputs["z"][:] = sign * huge
        problem.inputs["c0"][:] = 0
        tape, grads = run(kernel, problem)
        np.testing.assert_allclose(tape.c_n, c_n, atol=1e-30)
        for array in (tape.h, tape.gates, *grads):
            assert np.isfinite(array).all()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.usefixtures("groups")
def test_same_input_same_bits(kernel: ModuleType, dtype: Any) -> None:
    problem = lstm_problem([40, 33, 20, 5], 37, dtype)
    (tape, grads), (tape_2, grads_2) = run(kernel, problem), run(kernel, problem)
    for first, second in zip((*tape, *grads), (*tape_2, *grads_2), strict=True):
        np.testing.assert_array_equal(first, second)


def test_arguments_are_read_only(kernel: ModuleType) -> None:
    problem = lstm_problem(RAGGED, 6)
    for array in (*problem.inputs.values(), *problem.cotangents.values(), problem.batch_sizes):
        array.flags.writeable = False
    tape, _ = run(kernel, problem)
    before = [np.copy(array) for array in tape]
    kernel.backward(tape, problem.inputs["w_hh"], *problem.cotangents.values())
    for array, copy in zip(tape, before, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("missing", range(4))
def test_no_gradient_means_zero(kernel: ModuleType, missing: int) -> None:
    problem = lstm_problem(RAGGED, 6)
    tape, _ = run(kernel, problem)
    given = list(problem.cotangents.values())
    zero = [np.zeros_like(g) if k == missing else g for k, g in enumerate(given)]
    none = [None if k == missing else g for k, g in enumerate(given)]
    for with_zero, with_none in zip(
        kernel.backward(tape, problem.inputs["w_hh"], *zero), kernel.backward(tape, problem.inputs["w_hh"], *none), strict=True
    ):
        np.testing.assert_array_equal(with_none, with_zero)
    for array in kernel.backward(tape, problem.inputs["w_hh"], None, None, None, None):
        assert not array.any()


def test_gradients_may_lie_in_any_order(kernel: ModuleType) -> None:
    problem = lstm_problem(RAGGED, 6)
    tape, expected = run(kernel, problem)
    strided = [np.asfortranarray(g) for g in problem.cotangents.values()]
    for array, other in zip(kernel.backward(tape, problem.inputs["w_hh"], *strided), expected, strict=True):
        np.testing.assert_array_equal(array, other)


@pytest.mark.parametrize(
    ("argument", "wrong", "error", "words"),
    [
        ("z", np.zeros((11, 13)), ValueError, r"LSTM: z must be \(S, 4H\) = \(11, 12\), got \(11, 13\)"),
        ("w_hh", np.zeros((9, 3)), ValueError, r"LSTM: w_hh must be \(4H, H\) = \(12, 3\), got \(9, 3\)"),
        ("c0", np.zeros((3, 3)), ValueError, r"LSTM: c0 must be \(N, H\) = \(4, 3\), got \(3, 3\)"),
        ("h0", np.zeros((4, 3), np.float32), TypeError, "LSTM: h0 is float32 and w_hh is float64; convert one of them"),
        ("batch_sizes", np.array([3, 4, 3, 1]), ValueError, r"LSTM: batch_sizes must be a non-increasing .* sort the sequences by length"),
    ],
)
def test_a_wrong_argument_is_named(kernel: ModuleType, argument: str, wrong: Array, error: type[Exception], words: str) -> None:
    problem = lstm_problem(RAGGED, 3)
    arguments = {**problem.inputs, "batch_sizes": problem.batch_sizes, argument: wrong}
    with pytest.raises(error, match=words):
        kernel.forward(**arguments)
