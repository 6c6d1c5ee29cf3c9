"""What the GRU and the plain recurrence must both satisfy, written once for any cell whose kernels keep the contract."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

from .problems import RAGGED, Array, Problem, check_complex_step, distance, rows_of

TOLERANCE = {np.float64: 1e-10, np.float32: 1e-5}  # thousands of roundings of 1e-16 and dozens of 6e-8, relative to the array's largest


class Cell(NamedTuple):
    reference: ModuleType
    problem: Callable[..., Problem]  # (batch_sizes, H, dtype, seed)
    options: dict[str, Any]  # of forward

    @property
    def forward(self) -> Callable[..., Any]:
        return partial(self.reference.forward, **self.options)

    def run(self, kernel: Any, problem: Problem) -> tuple[Any, Any]:
        tape = kernel.forward(*problem.inputs.values(), problem.batch_sizes, **self.options)
        return tape, kernel.backward(tape, problem.inputs["w_hh"], *problem.cotangents.values())

    def gradients(self, kernel: Any, problem: Problem) -> dict[str, Array]:
        """By argument: the field of the gradient of x is dx."""
        grads = self.run(kernel, problem)[1]
        return {name: getattr(grads, f"d{name}") for name in problem.inputs}


def arrays(*results: Any) -> dict[str, Array]:
    """The arrays of tapes and gradients by name."""
    return {name: value for result in results for name, value in result._asdict().items() if isinstance(value, np.ndarray)}


def agrees_with_the_reference(cell: Cell, kernel: Any, problem: Problem) -> None:
    """Every array of the tape and every gradient equals the reference's."""
    expected = arrays(*cell.run(cell.reference, problem))
    for name, array in arrays(*cell.run(kernel, problem)).items():
        assert distance(array, expected[name]) < TOLERANCE[problem.inputs["z"].dtype.type], name


def taps_agree_with_the_reference(cell: Cell, kernel: Any, problem: Problem) -> None:
    """The whole gradients of every state equal the reference's, and asking for them changes no bit of anything else."""
    tape, plain = cell.run(kernel, problem)
    given = problem.inputs["w_hh"], *problem.cotangents.values()
    taps, expected = (tuple(np.full_like(tape.h, np.nan) for _ in range(1 + hasattr(tape, "c"))) for _ in range(2))
    for array, other in zip(kernel.backward(tape, *given, taps=taps), plain, strict=True):
        np.testing.assert_array_equal(array, other)
    cell.reference.backward(tape, *given, taps=expected)
    for tap, right in zip(taps, expected, strict=True):
        assert distance(tap, right) < TOLERANCE[problem.inputs["z"].dtype.type]


def notices_the_mistake(cell: Cell, right: str, wrong: str) -> None:
    """With `wrong` in place of `right` in the reference, the checks against derivatives and against the reference fail."""
    source = inspect.getsource(cell.reference)
    assert right in source
    module: dict[str, Any] = {"__name__": "mistaken"}
    exec(compile(source.replace(right, wrong), "mistaken", "exec"), module)
    mistaken = SimpleNamespace(forward=cell.reference.forward, backward=module["backward"])
    problem = cell.problem(RAGGED, 3)
    with pytest.raises(AssertionError):
        check_complex_step(cell.forward, cell.gradients(mistaken, problem), problem)
    with pytest.raises(AssertionError):
        agrees_with_the_reference(cell, mistaken, cell.problem(RAGGED, 3, np.float32))


def alone(problem: Problem, n: int) -> tuple[Problem, list[int]]:
    """The problem of sequence n by itself, and its rows in the batch."""
    rows = rows_of(n, problem.batch_sizes.tolist())
    own = {"z": rows, "h": rows, "c": rows, "h0": [n], "c0": [n], "h_n": [n], "c_n": [n]}

    def pick(named: dict[str, Array]) -> dict[str, Array]:
        return {name: array[own[name]] if name in own else array for name, array in named.items()}

    return Problem(pick(problem.inputs), np.ones(len(rows), np.int64), pick(problem.cotangents)), rows


def gives_each_sequence_what_it_gets_alone(cell: Cell, kernel: Any, dtype: Any, H: int = 20) -> None:
    """To the bit in kernels that do their own products, where the sum behind each number has one order; to rounding in the others."""
    problem = cell.problem([9, 9, 7, 4, 1], H, dtype)
    batched = arrays(*cell.run(kernel, problem))
    summed = {name: np.zeros_like(batched[name]) for name in ("dw_hh", "db_hn") if name in batched}
    for n in range(problem.batch_sizes[0]):
        single, rows = alone(problem, n)
        for name, array in arrays(*cell.run(kernel, single)).items():
            if name in summed:
                summed[name] += array
            elif name != "batch_sizes":
                ours = batched[name][rows if len(batched[name]) == len(problem.inputs["z"]) else [n]]
                assert distance(ours, array) < TOLERANCE[dtype]
                assert kernel is cell.reference or np.array_equal(ours, array), name
    for name, array in summed.items():
        assert distance(batched[name], array) < TOLERANCE[dtype]


def keeps_a_nan_in_its_sequence(cell: Cell, kernel: Any, where: str, H: int = 20) -> None:
    """`where` is an input or, with a d before it, the gradient of an output."""
    sizes, sick = [7, 7, 5, 2], 3  # sequence 3 has three steps
    problem = cell.problem(sizes, H, np.float32)
    healthy = arrays(*cell.run(kernel, problem))
    rows = rows_of(sick, sizes)
    array = problem.cotangents[where[1:]] if where[0] == "d" else problem.inputs[where]
    array[rows[0] if where in ("z", "dh", "dc") else sick] = np.nan
    got = arrays(*cell.run(kernel, problem))
    other_rows, others = np.setdiff1d(np.arange(sum(sizes)), rows), np.setdiff1d(np.arange(sizes[0]), [sick])
    for name in ("h", "dz"):
        np.testing.assert_array_equal(got[name][other_rows], healthy[name][other_rows])
    for name in ("h_n", "dh0"):
        np.testing.assert_array_equal(got[name][others], healthy[name][others])
    if where[0] == "d":
        assert np.isnan(got["dh0"][sick]).any(), "a NaN must not be lost on its way back"
    else:
        assert np.isnan(got["h_n"][sick]).all(), "a NaN must not be lost on its way forward"


def repeats_itself_to_the_bit(cell: Cell, kernel: Any, dtype: Any) -> None:
    problem = cell.problem([40, 33, 20, 5], 37, dtype)
    first = arrays(*cell.run(kernel, problem))
    for name, array in arrays(*cell.run(kernel, problem)).items():
        np.testing.assert_array_equal(array, first[name])


def writes_to_no_argument(cell: Cell, kernel: Any) -> None:
    problem = cell.problem(RAGGED, 6)
    for array in (*problem.inputs.values(), *problem.cotangents.values(), problem.batch_sizes):
        array.flags.writeable = False
    tape, _ = cell.run(kernel, problem)
    before = {name: array.copy() for name, array in arrays(tape).items()}
    kernel.backward(tape, problem.inputs["w_hh"], *problem.cotangents.values())
    for name, array in arrays(tape).items():
        np.testing.assert_array_equal(array, before[name])


def takes_no_gradient_for_zero(cell: Cell, kernel: Any) -> None:
    problem = cell.problem(RAGGED, 6)
    tape, _ = cell.run(kernel, problem)
    w_hh, (dh, dh_n) = problem.inputs["w_hh"], problem.cotangents.values()
    for none, zero in [((None, dh_n), (0 * dh, dh_n)), ((dh, None), (dh, 0 * dh_n)), ((None, None), (0 * dh, 0 * dh_n))]:
        expected = arrays(kernel.backward(tape, w_hh, *zero))
        for name, array in arrays(kernel.backward(tape, w_hh, *none)).items():
            np.testing.assert_array_equal(array, expected[name])


def reads_gradients_of_any_strides(cell: Cell, kernel: Any) -> None:
    problem = cell.problem(RAGGED, 6)
    tape, expected = cell.run(kernel, problem)
    strided = [np.asfortranarray(gradient) for gradient in problem.cotangents.values()]
    for array, other in zip(kernel.backward(tape, problem.inputs["w_hh"], *strided), expected, strict=True):
        np.testing.assert_array_equal(array, other)


def agrees_with_pytorch(cell: Cell, kernel: Any, dtype: Any, layer: Callable[..., Any], project: Callable[..., Array]) -> None:
    """`layer(D, H, dtype=)` is theirs; `project(x, w_ih, b_ih, b_hh)` is the z that their biases lead to."""
    import torch

    H, D = 19, 5
    problem = cell.problem([4, 4, 2, 1], H, dtype)
    inputs = problem.inputs
    x = np.random.default_rng(2).standard_normal((len(inputs["z"]), D)).astype(dtype)
    theirs = layer(D, H, dtype=torch.from_numpy(x).dtype)
    with torch.no_grad():
        theirs.weight_hh_l0.copy_(torch.from_numpy(inputs["w_hh"]))
        if "b_hn" in inputs:
            theirs.bias_hh_l0[2 * H :] = torch.from_numpy(inputs["b_hn"])
    w_ih, b_ih, b_hh = (p.detach().numpy() for p in (theirs.weight_ih_l0, theirs.bias_ih_l0, theirs.bias_hh_l0))
    inputs["z"] = project(x, w_ih, b_ih, b_hh)
    ours = arrays(*cell.run(kernel, problem))

    x_, h0_ = (torch.from_numpy(array).clone().requires_grad_() for array in (x, inputs["h0"]))
    output, h_n = theirs(torch.nn.utils.rnn.PackedSequence(x_, torch.from_numpy(problem.batch_sizes)), h0_[None])
    torch.autograd.backward([output.data, h_n[0]], [torch.from_numpy(gradient) for gradient in problem.cotangents.values()])

    pairs = [
        (ours["h"], output.data),
        (ours["h_n"], h_n[0]),
        (ours["dz"] @ w_ih, x_.grad),
        (ours["dz"].sum(0), theirs.bias_ih_l0.grad),
        (ours["dw_hh"], theirs.weight_hh_l0.grad),
        (ours["dh0"], h0_.grad),
    ]
    if "b_hn" in inputs:
        pairs.append((ours["db_hn"], theirs.bias_hh_l0.grad[2 * H :]))
    for array, other in pairs:
        assert distance(array, other.detach().numpy()) < TOLERANCE[dtype]
