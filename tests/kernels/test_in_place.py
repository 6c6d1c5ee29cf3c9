"""What recurrence kernels offer beside forward and backward: results in place, the whole gradients of all states, gates once more, a single
step; and bits that do not depend on threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minirnn.kernels import kernels, load, workers
from minirnn.kernels.contract import Array
from minirnn.kernels.packed import previous

from .problems import RAGGED, Problem, distance, lstm_problem
from .test_gru import gru_problem
from .test_rnn import rnn_problem

PROBLEMS = {"lstm": lstm_problem, "gru": gru_problem, "rnn": rnn_problem}
GATES = {"lstm": 4, "gru": 3, "rnn": 1}
TOLERANCE = {np.float64: 1e-10, np.float32: 1e-5}
CASES = [(cell, k.name) for cell in PROBLEMS for k in kernels(cell) if k.module and k.why_not() is None and k.devices == ("cpu",)]
SHAPES = [(RAGGED, 6), ([1], 1), ([7, 7, 5, 2], 20), ([30] * 4, 33), ([2, 1], 128)]

pytestmark = [
    pytest.mark.parametrize(("cell", "name"), CASES, ids=["-".join(case) for case in CASES]),
    pytest.mark.parametrize("dtype", [np.float64, np.float32]),
]


def module(cell: str, name: str) -> Any:
    return load(cell, name)


def forward(kernel: Any, problem: Problem, z: Array, **options: Any) -> Any:
    return kernel.forward(z, *[array for name, array in problem.inputs.items() if name != "z"], problem.batch_sizes, **options)


def backward(kernel: Any, problem: Problem, tape: Any, **options: Any) -> Any:
    return kernel.backward(tape, problem.inputs["w_hh"], *problem.cotangents.values(), **options)


def check_bits(results: Any, expected: Any) -> None:
    for array, other in zip(results, expected, strict=True):
        np.testing.assert_array_equal(array, other)


@pytest.mark.parametrize(("batch_sizes", "H"), SHAPES)
def test_results_in_place_have_the_same_bits(cell: str, name: str, dtype: Any, batch_sizes: list[int], H: int) -> None:
    kernel = module(cell, name)
    assert kernel.in_place
    problem = PROBLEMS[cell](batch_sizes, H, dtype)
    expected = forward(kernel, problem, problem.inputs["z"])
    expected_grads = backward(kernel, problem, expected)
    for in_place in (True, False):
        z = problem.inputs["z"].copy()
        out = z if in_place else np.empty_like(z)
        tape = forward(kernel, problem, z, out=out)
        assert (tape.h if cell == "rnn" else tape.gates) is out
        check_bits(tape, expected)
        out = tape.gates if in_place and cell != "rnn" else np.empty_like(z)
        grads = backward(kernel, problem, tape, out=out)
        assert grads.dz is out
        check_bits(grads, expected_grads)


def states_before(cell: str, problem: Problem, tape: Any, t: int) -> dict[str, Array]:
    """The states that step t started from."""
    first, n = int(problem.batch_sizes[: t - 1].sum()), problem.batch_sizes[t]
    return {name: getattr(tape, name[0])[first : first + n] if t else problem.inputs[name] for name in ("h0", "c0")[: 1 + (cell == "lstm")]}


def whole_gradients(cell: str, problem: Problem) -> list[Array]:
    """dL/dh_t, dL/dc_t of every row from the reference: what the first states of the steps after t get, and what the loss reads from the
    state itself. The cell state's is also reached through h_t = o tanh c_t."""
    kernel, batch_sizes = load(cell, "numpy"), problem.batch_sizes
    names = ("h", "c")[: 1 + (cell == "lstm")]
    tape = forward(kernel, problem, problem.inputs["z"])
    whole = [problem.cotangents[name].copy() for name in names]
    for t, n in enumerate(batch_sizes):
        rows = slice(int(batch_sizes[:t].sum()), int(batch_sizes[: t + 1].sum()))
        going_on = int(batch_sizes[t + 1]) if t + 1 < len(batch_sizes) else 0
        for d, name in zip(whole, names, strict=True):  # at a sequence's last step
            d[rows][going_on:] += problem.cotangents[f"{name}_n"][going_on:n]
        if going_on:
            inputs = {k: a[rows.stop :] if k == "z" else a for k, a in problem.inputs.items()} | {
                k: a[:going_on] for k, a in states_before(cell, problem, tape, t + 1).items()
            }
            given = {k: a[:going_on] if k.endswith("_n") else a[rows.stop :] for k, a in problem.cotangents.items()}
            rest = Problem(inputs, batch_sizes[t + 1 :], given)
            grads = backward(kernel, rest, forward(kernel, rest, inputs["z"]))
            for d, name in zip(whole, names, strict=True):
                d[rows][:going_on] += getattr(grads, f"d{name}0")
    if cell == "lstm":
        o = tape.gates[:, 3 * tape.h.shape[1] :]
        whole[1] += whole[0] * o * (1 - np.tanh(tape.c) ** 2)
    return whole


@pytest.mark.parametrize(("batch_sizes", "H"), SHAPES)
@pytest.mark.parametrize("by_units", [False, True])
def test_taps_are_the_whole_gradients_and_change_no_bit(
    cell: str, name: str, dtype: Any, batch_sizes: list[int], H: int, by_units: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel, problem = module(cell, name), PROBLEMS[cell](batch_sizes, H, dtype)
    assert kernel.taps
    monkeypatch.setattr(workers, "plan", lambda *sizes: (2, by_units, True))
    tape = forward(kernel, problem, problem.inputs["z"])
    for out in (None, np.empty_like(problem.inputs["z"])):
        taps = tuple(np.full_like(tape.h, np.nan) for _ in range(1 + (cell == "lstm")))
        check_bits(backward(kernel, problem, tape, taps=taps, out=out), backward(kernel, problem, tape))
        for tap, expected in zip(taps, whole_gradients(cell, problem), strict=True):
            assert distance(tap, expected) < TOLERANCE[dtype]


@pytest.mark.parametrize(("batch_sizes", "H"), SHAPES)
def test_gates_are_those_of_the_tape(cell: str, name: str, dtype: Any, batch_sizes: list[int], H: int) -> None:
    if cell == "rnn":
        pytest.skip("an RNN keeps no gates")
    kernel = module(cell, name)
    problem = PROBLEMS[cell](batch_sizes, H, dtype)
    tape = forward(kernel, problem, problem.inputs["z"])
    z, a = problem.inputs["z"].copy(), previous(tape.h, tape.h0, tape.batch_sizes) @ problem.inputs["w_hh"].T
    if cell == "lstm":
        z += a
        kernel.gates(z)
    else:
        assert distance(kernel.gates(z, a, problem.inputs["b_hn"]), tape.hn) < TOLERANCE[dtype]
    assert distance(z, tape.gates) < TOLERANCE[dtype]


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize(("N", "D", "H"), [(1, 1, 1), (1, 256, 256), (3, 7, 20), (9, 40, 33), (2, 5, 130)])
def test_a_step_is_forward_over_one_step(cell: str, name: str, dtype: Any, N: int, D: int, H: int, bias: bool) -> None:
    kernel = module(cell, name)
    problem = PROBLEMS[cell]([N], H, dtype)
    rng = np.random.default_rng(1)
    x, w_ih = (rng.standard_normal(shape).astype(dtype) for shape in ((N, D), (GATES[cell] * H, D)))
    w_ih /= np.sqrt(D, dtype=dtype)
    biases = [rng.standard_normal(GATES[cell] * H).astype(dtype) for _ in range(2)] if bias else [None, None]
    b = biases[0] + biases[1] if bias else np.zeros(GATES[cell] * H, dtype)
    if cell == "gru":
        b_hn = biases[1][2 * H :] if bias else np.zeros(H, dtype)
        problem.inputs["b_hn"] = b_hn
        b[2 * H :] -= b_hn
    tape = forward(kernel, problem, x @ w_ih.T + b)
    states = [problem.inputs[name].copy() for name in ("h0", "c0") if name in problem.inputs]
    given = [state.copy() for state in states]
    options = {"nonlinearity": tape.nonlinearity} if cell == "rnn" else {}
    after = kernel.step(x, *states, w_ih, problem.inputs["w_hh"], *biases, **options)
    for array, other in zip(after if cell == "lstm" else (after,), (tape.h, tape.c) if cell == "lstm" else (tape.h,), strict=True):
        assert array.shape == (N, H)
        assert array.dtype == dtype
        assert distance(array, other) < TOLERANCE[dtype]
    for state, before in zip(states, given, strict=True):
        np.testing.assert_array_equal(state, before)


@pytest.mark.parametrize(("batch_sizes", "H"), [(RAGGED, 17), ([1, 1, 1], 128), ([20, 13, 13, 2], 129), ([9] * 5, 256)])
def test_the_bits_do_not_depend_on_who_does_what(
    cell: str, name: str, dtype: Any, batch_sizes: list[int], H: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel, problem = module(cell, name), PROBLEMS[cell](batch_sizes, H, dtype)
    results = []
    for threads, by_units in ((1, False), (1, True), (2, False), (2, True), (5, False), (5, True)):
        monkeypatch.setattr(workers, "plan", lambda *sizes, plan=(threads, by_units, True): plan)
        tape = forward(kernel, problem, problem.inputs["z"])
        results.append((*tape, *backward(kernel, problem, tape)))
    for others in results[1:]:
        check_bits(others, results[0])


def test_the_bits_of_a_step_do_not_depend_on_the_threads(cell: str, name: str, dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, problem = module(cell, name), PROBLEMS[cell]([3], 70, dtype)
    w_hh, states = problem.inputs["w_hh"], [problem.inputs[name] for name in ("h0", "c0") if name in problem.inputs]
    x, w_ih = np.random.default_rng(0).standard_normal((3, 70)).astype(dtype), w_hh[:, ::-1].copy()
    results = []
    for threads in (1, 2, 5):
        monkeypatch.setattr(workers, "threads", lambda operations, threads=threads: threads)
        results += [kernel.step(x, *states, w_ih, w_hh)]
    for others in results[1:]:
        np.testing.assert_array_equal(others, results[0])
