"""The recurrences in Numba-CUDA, run by the engine on a CPU: both forms against derivatives, the reference and each other."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from minirnn.kernels.cuda.devices import A100, H100
from minirnn.kernels.cuda.numba_plan import geometry
from minirnn.kernels.emulator import numba_engine, stand_in
from minirnn.kernels.emulator.numba_memory import RaceError
from minirnn.kernels.emulator.translate import EmulatorError
from minirnn.kernels.lstm import numpy_ as lstm

from . import checks
from .emulated import Emulated
from .problems import RAGGED, check_central_difference, check_complex_step, lstm_problem
from .test_gru import GRU
from .test_rnn import RELU, TANH

pytestmark = pytest.mark.skipif(numba_engine.missing() is not None, reason=str(numba_engine.missing()))
CELLS = {"lstm": checks.Cell(lstm, lstm_problem, {}), "gru": GRU, "rnn": TANH, "rnn, relu": RELU}
EACH_CELL = pytest.mark.parametrize("name", CELLS)
EACH_FORM = pytest.mark.parametrize("which", ["step", "persistent"])
DTYPES = pytest.mark.parametrize("dtype", [np.float64, np.float32])

SHAPES = [  # batch sizes, H, and the multiprocessors of the device
    ([1], 1, 16),  # T = N = H = 1
    ([1, 1, 1, 1, 1], 7, 16),  # N = 1
    ([5], 3, 16),  # T = 1
    ([5, 3, 1], 37, 16),  # primes; five blocks, two chunks of k
    (RAGGED, 17, 16),  # three blocks, of which the last has one unit
    ([40, 33, 5], 9, 16),  # two tiles of rows, each in blocks of its own
    ([40, 33, 5], 9, 2),  # two tiles of rows, one after the other
    ([3, 2], 37, 3),  # 16 units a block
    ([3, 2], 37, 2),  # 32 units a block
    ([2, 1], 67, 16),  # three chunks of k
]
CASES = [(name, *shape) for name in CELLS for shape in (SHAPES if name in ("lstm", "gru", "rnn") else SHAPES[:6:2])]


SHARED = "minirnn.kernels.cuda.numba_rows"


def emulated(name: str, which: str, **more: Any) -> Emulated:
    return Emulated(name.split(",")[0], "numba-cuda", which, **more)


@EACH_FORM
@pytest.mark.parametrize(("name", "batch_sizes", "H", "multiprocessors"), CASES)
@DTYPES
def test_equal_the_reference(name: str, which: str, batch_sizes: list[int], H: int, multiprocessors: int, dtype: Any) -> None:
    kernel = emulated(name, which, multiprocessors=multiprocessors)
    problem = CELLS[name].problem(batch_sizes, H, dtype)
    checks.agrees_with_the_reference(CELLS[name], kernel, problem)
    checks.taps_agree_with_the_reference(CELLS[name], kernel, problem)


@EACH_FORM
@EACH_CELL
def test_gradients_are_the_complex_step(name: str, which: str) -> None:
    problem = CELLS[name].problem(RAGGED, 3)
    check_complex_step(CELLS[name].forward, CELLS[name].gradients(emulated(name, which), problem), problem)


@EACH_FORM
@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
def test_gradients_are_central_differences_of_the_kernel_itself(name: str, which: str) -> None:
    kernel, problem = emulated(name, which), CELLS[name].problem([2, 1], 2)
    check_central_difference(kernel.forward, CELLS[name].gradients(kernel, problem), problem)


@EACH_FORM
@EACH_CELL
@pytest.mark.parametrize("seed", [0, 1, 1009])
def test_the_schedule_changes_no_bit(name: str, which: str, seed: int) -> None:
    problem = CELLS[name].problem([5, 3, 1], 9, np.float32)
    expected = checks.arrays(*CELLS[name].run(emulated(name, which), problem))
    for key, array in checks.arrays(*CELLS[name].run(emulated(name, which, seed=seed), problem)).items():
        np.testing.assert_array_equal(array, expected[key])


@EACH_CELL
@DTYPES
def test_a_sequence_gets_the_same_bits_alone_and_in_a_batch(name: str, dtype: Any) -> None:
    checks.gives_each_sequence_what_it_gets_alone(CELLS[name], emulated(name, "persistent"), dtype, H=9)


@EACH_FORM
@EACH_CELL
def test_a_nan_stays_in_its_sequence(name: str, which: str) -> None:
    problem = CELLS[name].problem([2], 2)
    for where in (*problem.inputs.keys() & {"z", "h0", "c0"}, *(f"d{output}" for output in problem.cotangents)):
        if name != "rnn, relu" or where[0] != "d":  # a relu that is closed lets no gradient through, not even NaN
            checks.keeps_a_nan_in_its_sequence(CELLS[name], emulated(name, which), where, H=9)


@EACH_FORM
@EACH_CELL
def test_arguments_are_only_read(name: str, which: str) -> None:
    checks.writes_to_no_argument(CELLS[name], emulated(name, which))


@EACH_FORM
@EACH_CELL
def test_no_gradient_means_zero(name: str, which: str) -> None:
    cell, kernel = CELLS[name], emulated(name, which)
    problem = cell.problem(RAGGED, 6)
    tape, _ = cell.run(kernel, problem)
    given = list(problem.cotangents.values())
    for mask in [*np.eye(len(given), dtype=bool), np.ones(len(given), bool)]:
        none = [None if absent else gradient for absent, gradient in zip(mask, given, strict=True)]
        zero = [0 * gradient if absent else gradient for absent, gradient in zip(mask, given, strict=True)]
        expected = checks.arrays(kernel.backward(tape, problem.inputs["w_hh"], *zero))
        for key, array in checks.arrays(kernel.backward(tape, problem.inputs["w_hh"], *none)).items():
            np.testing.assert_array_equal(array, expected[key])


@EACH_FORM
@EACH_CELL
def test_gradients_may_lie_in_any_order(name: str, which: str) -> None:
    checks.reads_gradients_of_any_strides(CELLS[name], emulated(name, which))


# Which form runs


def planted(cell: str, module: str, right: str, wrong: str) -> ModuleType:
    """The cell's module, with `wrong` in place of `right` in one of the modules that it is made of."""
    source = Path(numba_engine.load(module).__file__ or "").read_text(encoding="utf-8")
    assert right in source
    return numba_engine.load(f"minirnn.kernels.{cell}.numba_cuda", {module: source.replace(right, wrong)})


def launched(kernel: Emulated, problem: Any, cell: checks.Cell) -> list[str]:
    stand_in.launches.clear()
    cell.run(kernel, problem)
    return [launch.name for launch in stand_in.launches]


@EACH_CELL
def test_one_launch_runs_the_whole_sequence_where_w_hh_stays_on_chip(name: str) -> None:
    cell, short = CELLS[name], name.split(",")[0]
    sums = ["column_sum"] * (short == "gru")
    problem = cell.problem([2, 2, 1], 9)
    assert launched(emulated(name, None), problem, cell) == [
        f"{short}_persistent_forward",
        f"{short}_persistent_backward",
        "gather_previous",
        *sums,
    ]
    assert launched(emulated(name, None, multiprocessors=1, shared_memory=1024), problem, cell) == [
        *[f"{short}_step_forward"] * 3,
        *[f"{short}_step_backward"] * 3,
        "gather_previous",
        *sums,
    ]


def test_a_persistent_form_that_does_not_fit_is_refused_with_the_reason() -> None:
    problem = lstm_problem([2], 70)
    with pytest.raises(
        RuntimeError, match=r"lstm forward, H=70, float64: the persistent form cannot run on .*: with 8 hidden units each it needs 9"
    ):
        CELLS["lstm"].run(emulated("lstm", "persistent", multiprocessors=1), problem)
    with pytest.raises(
        RuntimeError, match=r"with 8 hidden units a block needs 19 KiB of shared memory for its slice of w_hh, and has 10 KiB"
    ):
        CELLS["lstm"].run(emulated("lstm", "persistent", shared_memory=10 * 1024), problem)


def test_published_devices_hold_these_sizes() -> None:
    assert geometry("lstm", 1024, 16, 4, H100) == (8, 16, 128, 1, 4 * (4 * 1024 * 8 + 16 * 33))
    assert geometry("lstm", 832, 64, 8, H100)[:3] == (8, 32, 104)
    assert geometry("rnn", 1536, 4, 4, H100)[:3] == (16, 4, 96)
    assert "needs 128 blocks at once, and the device holds 108" in geometry("lstm", 1024, 16, 4, A100)
    units = {geometry("gru", 300, N, 4, A100).units for N in (1, 2, 33, 1000)}
    assert len(units) == 1, "the order of sums must not depend on the batch"


def test_shared_memory_beyond_the_default_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba_engine, "DEFAULT_SHARED", 1024)
    kernel, problem = emulated("lstm", "persistent"), lstm_problem([2, 1], 9)
    checks.agrees_with_the_reference(CELLS["lstm"], kernel, problem)
    asks = "driver.cuKernelSetAttribute(shared"
    kernel.module = planted("lstm", SHARED, asks, "print(shared")
    with pytest.raises(RuntimeError, match="2 blocks must run at once, and the device holds 0"):
        CELLS["lstm"].run(kernel, problem)


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
def test_only_arrays_of_a_device_are_taken(name: str) -> None:
    problem = CELLS[name].problem(RAGGED, 3)
    module = emulated(name, None).module
    with pytest.raises(TypeError, match=r"expected an array on a device, got numpy\.ndarray"):
        module.forward(*problem.inputs.values(), problem.batch_sizes)
    with pytest.raises(ValueError, match=rf"{name.upper()}: h0 must be \(N, H\) = \(4, 3\), got \(4, 2\)"):
        wrong = {**problem.inputs, "h0": problem.inputs["h0"][:, :2].copy()}
        emulated(name, None).forward(*wrong.values(), problem.batch_sizes)


# Planted mistakes in the kernels themselves: what stands there, what takes its place, and whether a race tells (or a wrong number)


OWN = "minirnn.kernels.{}.numba_cuda"
MISTAKES = {
    "no barrier before h is read": ("lstm", OWN, "cuda.cg.this_grid().sync()  # h_t is there for all", "pass", True),
    "no barrier before dz is read": ("lstm", OWN, "cuda.cg.this_grid().sync()  # dz_t is there for all", "pass", True),
    "no barrier before da is read": ("gru", OWN, "cuda.cg.this_grid().sync()  # da_t is there for all", "pass", True),
    "a barrier of the block alone": ("rnn", OWN, "cuda.cg.this_grid().sync()  # h_t is there for all", "cuda.syncthreads()", True),
    "w is used before it is there": ("rnn", SHARED, "cuda.syncthreads()  # w is there, and what this block wrote to x", "pass", True),
    "a chunk replaced while it is used": ("gru", SHARED, "cuda.syncwarp()  # the chunk before has been used", "pass", True),
    "a chunk used before it is there": ("gru", SHARED, "    cuda.syncwarp()\n    return width", "    return width", True),
    "a bound forgotten": ("lstm", OWN, "if sequence < n and j < H:", "if sequence < n:", False),
    "the step before the wrong one": ("lstm", OWN, "before = first[t - 1] if t > 0 else 0", "before = first[t] if t > 0 else 0", False),
    "a path through c dropped": ("lstm", OWN, "return dc_t * f  # (2.9)", "return dc_t", False),
    "gates in another order": (
        "gru",
        OWN,
        "gates[row, 0 * H + j] = r\n    gates[row, 1 * H + j] = u",
        "gates[row, 0 * H + j] = u\n    gates[row, 1 * H + j] = r",
        False,
    ),
    "the last states lost": ("rnn", OWN, "if sequence >= going_on:", "if sequence > going_on:", False),
    "the last sum left out": ("gru", SHARED, "range(1, SUMMANDS)", "range(1, SUMMANDS - 1)", False),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_kernel_is_found(mistake: str) -> None:
    cell, module, right, wrong, race = MISTAKES[mistake]
    for seed in (0, 1, 5) if race else (2,):
        kernel = emulated(cell, "persistent", seed=seed)
        kernel.module = planted(cell, module.format(cell), right, wrong)
        with pytest.raises(RaceError if race else (AssertionError, EmulatorError)):
            checks.agrees_with_the_reference(CELLS[cell], kernel, CELLS[cell].problem([9, 5, 2], 35 if "chunk" in mistake else 9))
