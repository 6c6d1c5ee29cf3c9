"""The recurrences in CUDA C++, emulated: both forms against the reference, derivatives, each other, and what 16 bits allow."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from minirnn.kernels.availability import missing
from minirnn.kernels.cuda import launch, source
from minirnn.kernels.cuda import plan as planning
from minirnn.kernels.emulator import stand_in
from minirnn.kernels.lstm import numpy_ as lstm

from . import checks
from .emulated import Emulated
from .problems import RAGGED, Problem, check_central_difference, check_complex_step, lstm_problem
from .rounding import BACKWARD, FORWARD
from .test_gru import GRU
from .test_rnn import RELU, TANH

_reason = missing("emulated")
pytestmark = pytest.mark.skipif(_reason is not None, reason=f"needs the emulator: {_reason}")
CELLS = {"lstm": checks.Cell(lstm, lstm_problem, {}), "gru": GRU, "rnn": TANH, "rnn, relu": RELU}
EACH_CELL = pytest.mark.parametrize("name", CELLS)
EACH_FORM = pytest.mark.parametrize("which", ["step", "persistent"])
DTYPES = pytest.mark.parametrize("dtype", [np.float64, np.float32])
SMALL_DTYPES = pytest.mark.parametrize("dtype", ["float16", "bfloat16"])

SHAPES = [  # batch sizes, H, and the multiprocessors of the device
    ([1], 1, 16),  # T = N = H = 1
    ([1, 1, 1, 1, 1], 7, 16),  # N = 1; rows that start anywhere
    ([5], 3, 16),  # T = 1
    ([13, 7, 2, 1], 37, 16),  # primes; five blocks
    (RAGGED, 17, 16),  # three blocks, of which the last has one unit
    ([40, 33, 17, 5], 16, 16),  # three tiles of rows, each in blocks of its own; rows that start at 16 bytes
    ([40, 33, 17, 5], 16, 3),  # one after the other
    ([40, 33, 17, 5], 16, 4),  # dealt out to two groups
    ([3, 2], 40, 3),  # 16 units a block
    ([2, 2], 72, 16),  # more chunks of k than one
]
LONG = [([2, 1], 264, 33), ([6, 1], 268, 17)]  # every warp has several chunks; H, or 4 H and 3 H, beyond what is fetched ahead


def emulated(name: str, which: str | None, **more: Any) -> Emulated:
    return Emulated(name.split(",")[0], "cupy", which, **more)


@EACH_FORM
@EACH_CELL
@pytest.mark.parametrize(("batch_sizes", "H", "multiprocessors"), SHAPES)
@DTYPES
def test_equal_the_reference(name: str, which: str, batch_sizes: list[int], H: int, multiprocessors: int, dtype: Any) -> None:
    kernel, problem = emulated(name, which, multiprocessors=multiprocessors), CELLS[name].problem(batch_sizes, H, dtype)
    checks.agrees_with_the_reference(CELLS[name], kernel, problem)
    checks.taps_agree_with_the_reference(CELLS[name], kernel, problem)


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize(("batch_sizes", "H", "multiprocessors"), LONG)
@DTYPES
def test_long_sums_equal_the_reference(name: str, batch_sizes: list[int], H: int, multiprocessors: int, dtype: Any) -> None:
    kernel = emulated(name, "persistent", multiprocessors=multiprocessors, shared_memory=227 * 1024)
    checks.agrees_with_the_reference(CELLS[name], kernel, CELLS[name].problem(batch_sizes, H, dtype))


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
@pytest.mark.parametrize("seed", [0, 1, 3, 1009])
def test_the_schedule_changes_no_bit(name: str, which: str, seed: int) -> None:
    problem = CELLS[name].problem([18, 3, 1], 11, np.float32)
    expected = checks.arrays(*CELLS[name].run(emulated(name, which), problem))
    for key, array in checks.arrays(*CELLS[name].run(emulated(name, which, seed=seed), problem)).items():
        np.testing.assert_array_equal(array, expected[key])


@EACH_CELL
@DTYPES
def test_a_sequence_gets_the_same_bits_alone_and_in_a_batch(name: str, dtype: Any) -> None:
    checks.gives_each_sequence_what_it_gets_alone(CELLS[name], emulated(name, "persistent"), dtype)


@EACH_CELL
def test_a_nan_stays_in_its_sequence(name: str) -> None:
    for which in ("step", "persistent"):
        for where in ("z", "h0", "dh", "dh_n"):
            if name != "rnn, relu" or where[0] != "d":  # a relu that is closed lets no gradient through, not even NaN
                checks.keeps_a_nan_in_its_sequence(CELLS[name], emulated(name, which), where)


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


@EACH_CELL
def test_huge_inputs_saturate(name: str) -> None:
    for which in ("step", "persistent"):
        for huge in (1e30, -np.inf):
            problem = CELLS[name].problem([2] * 3, 5, np.float32)
            problem.inputs["z"][:] = huge if name != "rnn, relu" else np.sign(huge)
            for array in checks.arrays(*CELLS[name].run(emulated(name, which), problem)).values():
                assert np.isfinite(array).all()


# 16 bits


def small_problem(name: str, batch_sizes: list[int], H: int, dtype: str) -> Problem:
    """Random numbers that 16 bits can hold exactly, as arrays of 16 bits."""
    kind = np.dtype(dtype) if dtype == "float16" else pytest.importorskip("ml_dtypes", reason="bfloat16 needs ml_dtypes").bfloat16
    problem = CELLS[name].problem(batch_sizes, H)
    inputs, cotangents = ({key: array.astype(kind) for key, array in arrays.items()} for arrays in (problem.inputs, problem.cotangents))
    return Problem(inputs, problem.batch_sizes, cotangents)


def check_rounding(name: str, kernel: Any, problem: Problem, dtype: str, which: str) -> None:
    tape, grads = CELLS[name].run(kernel, problem)
    for array in checks.arrays(tape, grads).values():
        assert array.dtype in (problem.inputs["z"].dtype, problem.batch_sizes.dtype)
    FORWARD[name](tape, problem, dtype, which)
    BACKWARD[name](tape, grads, problem, dtype, which)


SMALL_SHAPES = [
    ([1, 1, 1], 1, 16),
    ([4, 3, 3, 1], 7, 16),  # rows that start anywhere
    ([40, 33, 5], 16, 4),  # three tiles for two groups
    ([18, 17, 2], 48, 3),  # 16 units a block
]


@EACH_FORM
@EACH_CELL
@SMALL_DTYPES
@pytest.mark.parametrize(("batch_sizes", "H", "multiprocessors"), SMALL_SHAPES)
def test_16_bits_are_rounded_once(name: str, which: str, dtype: str, batch_sizes: list[int], H: int, multiprocessors: int) -> None:
    kernel = emulated(name, which, multiprocessors=multiprocessors)
    check_rounding(name, kernel, small_problem(name, batch_sizes, H, dtype), dtype, which)


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_long_sums_of_16_bits(name: str) -> None:
    kernel = emulated(name, "persistent", multiprocessors=45)
    check_rounding(name, kernel, small_problem(name, [2, 1], 360, "float16"), "float16", "persistent")


@EACH_CELL
def test_the_check_of_rounding_notices_sums_and_carries_of_16_bits(name: str) -> None:
    """NumPy's float16 rounds after every operation."""
    problem = small_problem(name, [6] * 12, 24, "float16")
    tape, grads = CELLS[name].run(CELLS[name].reference, problem)
    with pytest.raises(AssertionError, match="times what rounding can do"):
        FORWARD[name](tape, problem, "float16", "persistent")
    with pytest.raises(AssertionError, match="times what rounding can do"):
        BACKWARD[name](tape, grads, problem, "float16", "persistent")


@pytest.fixture
def without_tensor_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU that has none for the dtype: bfloat16 before compute capability 8.0."""
    options = source.options
    monkeypatch.setattr(source, "options", lambda dtype: (*options(dtype), "-DTENSOR_CORES=0"))
    monkeypatch.setattr(planning, "has_tensor_cores", lambda dtype, device: False)
    monkeypatch.setattr(launch, "_modules", {})
    planning._plan.cache_clear()
    yield
    planning._plan.cache_clear()


@pytest.mark.usefixtures("without_tensor_cores")
def test_bfloat16_without_tensor_cores() -> None:
    for batch_sizes, H, multiprocessors in SMALL_SHAPES:
        kernel = emulated("lstm", "persistent", multiprocessors=multiprocessors)
        check_rounding("lstm", kernel, small_problem("lstm", batch_sizes, H, "bfloat16"), "bfloat16", "persistent")


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
def test_16_bits_are_the_same_alone_and_in_a_batch(name: str) -> None:
    kernel, problem = emulated(name, "persistent"), small_problem(name, [18, 17, 2], 24, "float16")
    batched = checks.arrays(*CELLS[name].run(kernel, problem))
    first = np.concatenate(([0], np.cumsum(problem.batch_sizes)))[:-1]
    for n in (0, 17):  # of different tiles
        at = first[problem.batch_sizes > n] + n

        def pick(arrays: dict[str, Any], n: int = n, at: Any = at) -> dict[str, Any]:
            return {k: v[at] if k in ("z", "h", "c") else v[[n]] if k in ("h0", "c0", "h_n", "c_n") else v for k, v in arrays.items()}

        single = Problem(pick(problem.inputs), np.ones(len(at), np.int64), pick(problem.cotangents))
        alone = checks.arrays(*CELLS[name].run(kernel, single))
        np.testing.assert_array_equal(alone["h"], batched["h"][at])
        np.testing.assert_array_equal(alone["dz"], batched["dz"][at])
        np.testing.assert_array_equal(alone["dh0"], batched["dh0"][[n]])


# Launches and barriers


def launched(kernel: Emulated, problem: Problem, cell: checks.Cell) -> list[str]:
    stand_in.launches.clear()
    cell.run(kernel, problem)
    return [one.name for one in stand_in.launches]


@EACH_CELL
def test_one_launch_runs_the_whole_sequence_where_w_hh_stays_on_chip(name: str) -> None:
    cell, short = CELLS[name], name.split(",")[0]
    problem = cell.problem([2, 2, 1], 17)
    after = ["gather_previous", *["column_sum"] * (short == "gru")]
    persistent = [f"{short}_persistent_forward", f"{short}_persistent_backward", *after]
    assert launched(emulated(name, None), problem, cell) == persistent
    stepwise = [*[f"{short}_step_forward"] * 3, *[f"{short}_step_backward"] * 3, *after]
    assert launched(emulated(name, None, multiprocessors=1), problem, cell) == stepwise


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize(("H", "forward", "backward"), [(9, 3, 4), (8, 0, 0)])  # two blocks, and one
def test_one_barrier_a_step(name: str, H: int, forward: int, backward: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the steps, and backward before what is left for h0; counted by the first thread."""
    read, barrier = source.read, "cooperative_groups::this_grid().sync()"
    counter = '__device__ int passed;\nextern "C" __global__ void barriers(int* out) { *out = passed; passed = 0; }\n'
    counted = f"({barrier}, passed += threadIdx.x + blockIdx.x + blockIdx.y == 0)"
    monkeypatch.setattr(source, "read", lambda path: counter + read(path).replace(barrier, counted))
    monkeypatch.setattr(launch, "_modules", {})
    problem = CELLS[name].problem([18, 18, 17, 1], H)
    kernel, out = emulated(name, "persistent"), stand_in.zeros(1, np.int32)

    def passed() -> int:
        launch.function(stand_in, kernel.module.UNIT, "barriers", np.float64, cooperative=True)((1,), (1,), (out,))
        return int(out[0])

    assert barrier in read(kernel.module.UNIT)
    tape = kernel.forward(*problem.inputs.values(), problem.batch_sizes)
    assert passed() == forward
    kernel.backward(tape, problem.inputs["w_hh"], *problem.cotangents.values())
    assert passed() == backward


def test_batch_sizes_move_to_the_device_once() -> None:
    """For all layers and both directions of a batch."""
    problem = lstm_problem([3, 3, 3, 2, 2, 2, 1], 5, np.float32)
    kernel = emulated("lstm", "persistent").module
    inputs, cotangents = ([stand_in.array(a) for a in arrays.values()] for arrays in (problem.inputs, problem.cotangents))
    with stand_in.counting() as counts:
        for _ in range(2):
            tape = kernel.forward(*inputs, problem.batch_sizes.copy())
            kernel.backward(tape, inputs[1], *cotangents)
    assert counts.to_device == 1
    assert not counts.synchronisations


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
def test_only_arrays_of_a_device_are_taken(name: str) -> None:
    problem = CELLS[name].problem(RAGGED, 3)
    module = emulated(name, None).module
    with pytest.raises(TypeError, match=r"expected an array on a device, got numpy\.ndarray"):
        module.forward(*problem.inputs.values(), problem.batch_sizes)
    with pytest.raises(ValueError, match=rf"{name.upper()}: h0 must be \(N, H\) = \(4, 3\), got \(4, 2\)"):
        wrong = {**problem.inputs, "h0": problem.inputs["h0"][:, :2].copy()}
        emulated(name, None).forward(*wrong.values(), problem.batch_sizes)


def test_every_equation_of_the_reference_stands_in_the_kernel() -> None:
    """Both can be read beside each other: what numpy_.py numbers, the .cu file or the launches beside it number too."""
    for cell in ("lstm", "gru", "rnn"):
        folder = source.KERNELS / cell
        numbers = re.compile(r"\((\d\.\d+)\)")
        ours = set(numbers.findall((folder / f"{cell}.cu").read_text() + (folder / "cupy_.py").read_text()))
        assert set(numbers.findall((folder / "numpy_.py").read_text())) <= ours
