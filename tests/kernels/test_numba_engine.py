"""The engine that runs Numba-CUDA kernels on a CPU: right kernels pass, and each planted mistake is found whatever the schedule."""

from __future__ import annotations

import inspect
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from minirnn.kernels.cuda.devices import A100, H100
from minirnn.kernels.emulator import numba_engine, stand_in
from minirnn.kernels.emulator.numba_engine import BarrierError, LaunchError, load, on, schedule
from minirnn.kernels.emulator.numba_memory import OutOfBoundsError, PromotionError, RaceError, ReadOnlyError

from .small_kernels import HEAD, REVERSE, ROTATE, SEEDS, kernel, line_of, numbers

pytestmark = pytest.mark.skipif(numba_engine.missing() is not None, reason=str(numba_engine.missing()))

# Right kernels


@pytest.mark.parametrize("seed", SEEDS)
def test_threads_of_a_block_meet_at_syncthreads(seed: int) -> None:
    x, y = numbers(256), np.full(256, np.nan, np.float32)
    with schedule(seed):
        kernel(REVERSE, "reverse")[4, 64](x, y)
    np.testing.assert_array_equal(y, x.reshape(4, 64)[:, ::-1].ravel())


@pytest.mark.parametrize("seed", SEEDS)
def test_all_blocks_meet_at_the_grid_barrier(seed: int) -> None:
    x = numbers(12)
    with schedule(seed):
        kernel(ROTATE, "rotate")[3, 4](x, 5)
    np.testing.assert_array_equal(x, np.roll(numbers(12), 5))


@pytest.mark.parametrize("seed", SEEDS)
def test_warp_primitives(seed: int) -> None:
    source = """
    @cuda.jit
    def warps(x, sums, votes):
        i = cuda.grid(1)
        v = x[i]
        for distance in (16, 8, 4, 2, 1):
            v += cuda.shfl_xor_sync(0xffffffff, v, distance)
        sums[i] = v
        votes[i, 0] = cuda.ballot_sync(0xffffffff, x[i] > float32(3.0))
        votes[i, 1] = cuda.any_sync(0xffffffff, x[i] > float32(3.0))
        votes[i, 2] = cuda.all_sync(0xffffffff, x[i] > float32(3.0))
        votes[i, 3] = cuda.laneid
        votes[i, 4] = int32(cuda.shfl_up_sync(0xffffffff, x[i], 1))
        votes[i, 5] = int32(cuda.shfl_down_sync(0xffffffff, x[i], 1))
        votes[i, 6] = int32(cuda.shfl_sync(0xffffffff, x[i], 7))
        votes[i, 7] = cuda.syncthreads_count(i % 2)
    """
    x, sums, votes = numbers(64), np.zeros(64, np.float32), np.zeros((64, 8), np.int64)
    with schedule(seed):
        kernel(source, "warps")[1, 64](x, sums, votes)
    np.testing.assert_array_equal(sums, np.repeat([x[:32].sum(), x[32:].sum()], 32))
    np.testing.assert_array_equal(votes[:, 0], np.repeat([2**32 - 16, 2**32 - 1], 32))
    np.testing.assert_array_equal(votes[:, 1:3].min(0), [1, 0])
    np.testing.assert_array_equal(votes[:, 3], np.tile(np.arange(32), 2))
    np.testing.assert_array_equal(votes[1:4, 4], [0, 1, 2])
    np.testing.assert_array_equal(votes[29:32, 5], [30, 31, 31])
    np.testing.assert_array_equal(votes[[0, 40], 6], [7, 39])
    np.testing.assert_array_equal(votes[:, 7], 32)


def test_dynamic_shared_memory_is_one_piece_that_slices_divide() -> None:
    source = """
    @cuda.jit
    def halves(y):
        memory = cuda.shared.array(0, y.dtype)
        first, second = memory[: cuda.blockDim.x], memory[cuda.blockDim.x :]
        i = cuda.threadIdx.x
        first[i] = y.dtype.type(i)
        second[i] = y.dtype.type(-i)
        cuda.syncthreads()
        y[i, 0], y[i, 1] = memory[i], memory[cuda.blockDim.x + i]
    """
    for dtype in (np.float32, np.float64):
        y = np.zeros((5, 2), dtype)
        kernel(source, "halves")[1, 5, 0, 10 * y.itemsize](y)
        np.testing.assert_array_equal(y, np.stack([np.arange(5), -np.arange(5)], axis=1))


def test_shared_memory_of_a_block_that_ended_is_not_that_of_the_next() -> None:
    x, y = numbers(64 * 64), np.zeros(64 * 64, np.float32)
    kernel(REVERSE, "reverse")[64, 64](x, y)
    np.testing.assert_array_equal(y, x.reshape(64, 64)[:, ::-1].ravel())


def test_local_arrays_constants_atomics_and_three_axes() -> None:
    source = """
    TABLE = np.array([3, 1, 2])

    @cuda.jit(device=True)
    def entry(i):
        return cuda.const.array_like(TABLE)[i]

    @cuda.jit
    def kernel(counts, largest, places):
        mine = cuda.local.array(3, int32)
        for i in range(3):
            mine[i] = entry(i)
        cuda.atomic.add(counts, mine[cuda.threadIdx.z], 1)
        cuda.atomic.max(largest, 0, cuda.blockIdx.y * 10 + cuda.threadIdx.x)
        x, y, z = cuda.grid(3)
        places[x, y, z] = cuda.gridsize(3)[0]
    """
    counts, largest, places = np.zeros(4, np.int32), np.zeros(1, np.int64), np.zeros((4, 6, 3), np.int64)
    kernel(source, "kernel")[(2, 3), (2, 2, 3)](counts, largest, places)
    np.testing.assert_array_equal(counts, [0, 24, 24, 24])
    assert largest == 21
    assert (places == 4).all()


def test_float32_stays_float32() -> None:
    source = """
    @cuda.jit
    def kernel(x, y):
        i = cuda.grid(1)
        y[i] = x[i] * x[i] + math.exp(x[i])
    """
    x, y = np.linspace(-3, 3, 32, dtype=np.float32), np.zeros(32, np.float32)
    kernel(source, "kernel")[1, 32](x, y)
    np.testing.assert_array_equal(y, x * x + np.exp(x.astype(float)).astype(np.float32))


def test_one_seed_is_one_order_and_another_is_another() -> None:
    source = """
    @cuda.jit
    def kernel(next_place, order):
        order[cuda.atomic.add(next_place, 0, 1)] = cuda.grid(1)
    """

    def order(seed: int) -> list[int]:
        order = np.zeros(64, np.int64)
        with schedule(seed):
            kernel(source, "kernel")[4, 16](np.zeros(1, np.int64), order)
        return list(order)

    assert order(1) == order(1)
    assert len({tuple(order(seed)) for seed in range(4)}) == 4
    assert sorted(order(1)) == list(range(64))


def test_a_thread_that_spins_lets_others_run() -> None:
    source = """
    @cuda.jit
    def kernel(flag, out):
        if cuda.blockIdx.x == 0:
            while cuda.atomic.add(flag, 0, 0) == 0:
                cuda.nanosleep(100)
            out[0] = 1
        else:
            cuda.atomic.add(flag, 0, 1)
    """
    for seed in SEEDS:
        out = np.zeros(1, np.int64)
        with schedule(seed):
            kernel(source, "kernel")[2, 1](np.zeros(1, np.int64), out)
        assert out == 1


# Planted mistakes; races have a file of their own

DIVERGENT = {
    "in a branch that some threads take": ("cuda.syncthreads()", "if i < 2:\n        cuda.syncthreads()"),
    "after an early return": ("cuda.syncthreads()", "if i == 1:\n        return\n    cuda.syncthreads()"),
    "at two lines": ("cuda.syncthreads()", "if i < 2:\n        cuda.syncthreads()\n    else:\n        cuda.syncthreads()"),
}


@pytest.mark.parametrize("mistake", DIVERGENT)
def test_a_divergent_barrier(mistake: str) -> None:
    source = REVERSE.replace(*DIVERGENT[mistake])
    for seed in SEEDS:
        with schedule(seed), pytest.raises((BarrierError, RaceError)) as caught:
            kernel(source, "reverse")[1, 4](numbers(4), numbers(4))
        assert "planted.py" in str(caught.value)


def test_a_divergent_barrier_says_what_happened() -> None:
    early = REVERSE.replace("    part[i]", "    if i == 1:\n        return\n    part[i]")
    with pytest.raises(BarrierError, match=r"3 threads wait at syncthreads, 1 have returned, such as block \(0, 0, 0\) thread \(1, 0, 0\)"):
        kernel(early, "reverse")[1, 4](numbers(4), numbers(4))
    two = REVERSE.replace("    cuda.syncthreads()", "    if i == 0:\n        cuda.syncthreads()\n    else:\n        cuda.syncthreads()")
    with pytest.raises(BarrierError, match="syncthreads reached at different lines"):
        kernel(two, "reverse")[1, 4](numbers(4), numbers(4))


def test_a_grid_barrier_that_some_blocks_do_not_reach() -> None:
    skipping = ROTATE.replace("    for t", "    if cuda.blockIdx.x == 1:\n        return\n    for t")
    for seed in SEEDS:
        with schedule(seed), pytest.raises((BarrierError, RaceError)):
            kernel(skipping, "rotate")[3, 4](numbers(12), 1)
    waiting = """
    @cuda.jit
    def kernel():
        grid = cuda.cg.this_grid()
        if cuda.grid(1) == 0:
            cuda.syncthreads()
        else:
            grid.sync()
    """
    with pytest.raises(BarrierError, match=r"no thread can go on: .*1 threads wait for syncthreads"):
        kernel(waiting, "kernel")[2, 2]()


def test_warp_primitives_that_some_lanes_do_not_reach() -> None:
    source = """
    @cuda.jit
    def kernel(x):
        i = cuda.threadIdx.x
        if WHO:
            x[i] = cuda.shfl_xor_sync(MASK, x[i], 1)
    """
    cases = [
        ("i < 31", "0xffffffff", "no thread can go on: 31 threads wait for a warp primitive.* 1 threads of these blocks have returned"),
        ("True", "0x7fffffff", "lane 31 calls a warp primitive whose mask 0x7fffffff does not name it"),
        ("i < 31", "0x7fffffff", "shuffle from lane 31, which does not take part"),
    ]
    for who, mask, message in cases:
        with pytest.raises(BarrierError, match=message):
            kernel(source.replace("WHO", who).replace("MASK", mask), "kernel")[1, 32](np.arange(32))


def test_a_thread_that_spins_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba_engine, "PATIENCE", 50)
    source = """
    @cuda.jit
    def kernel(flag):
        while flag[0] == 0:
            cuda.nanosleep(100)
    """
    with pytest.raises(BarrierError, match="no thread can go on: 2 threads wait for nanosleep"):
        kernel(source, "kernel")[1, 2](np.zeros(1, np.int64))


@pytest.mark.parametrize(
    ("index", "shown"),
    [("x[i + 1]", "x[4]"), ("x[i - 1]", "x[-1]"), ("x[2:9][0]", "x[2:9]"), ("y[i, 2]", "y[0, 2]"), ("y[-1, 0]", "y[-1, 0]")],
)
def test_an_index_out_of_bounds(index: str, shown: str) -> None:
    source = f"""
    @cuda.jit
    def kernel(x, y, out):
        i = cuda.threadIdx.x
        out[i] = {index}
    """
    with pytest.raises(OutOfBoundsError) as caught:
        kernel(source, "kernel")[1, 4](numbers(4), numbers(4, 2), numbers(4))
    assert f"planted.py:{line_of(source, 'out[i]')}: {shown.split('[')[0]}[" in str(caught.value)
    with pytest.raises(OutOfBoundsError):
        store = source.replace(f"out[i] = {index}", f"{index} = out[i]")
        kernel(store, "kernel")[1, 4](numbers(4), numbers(4, 2), numbers(4))


def test_a_shared_array_that_is_too_small() -> None:
    with pytest.raises(OutOfBoundsError, match=r"shared\[63\] is out of bounds, its shape is \(63,\)"):
        kernel(REVERSE.replace("array(64", "array(63"), "reverse")[1, 64](numbers(64), numbers(64))


def test_memory_begins_as_nan() -> None:
    source = """
    @cuda.jit
    def kernel(out):
        out[0] = cuda.shared.array(4, float32)[1]
        out[1] = cuda.local.array(4, float32)[1]
        out[2] = cuda.shared.array(0, float32)[1]
    """
    out = numbers(3)
    kernel(source, "kernel")[1, 1, 0, 16](out)
    assert np.isnan(out).all()


def test_a_write_to_what_is_read_only() -> None:
    x = numbers(8)
    x.flags.writeable = False
    with pytest.raises(ReadOnlyError, match=r"planted.py:\d+: write to y, which is read-only"):
        kernel(REVERSE, "reverse")[1, 8](numbers(8), x)


@pytest.mark.parametrize(
    "expression", ["x[i] * 0.5", "1 - x[i]", "x[i] / 2", "-1.0 * x[i]", "x[i] + i / 2", "math.exp(0.5 * i)", "half(x[i])"]
)
def test_a_float32_that_numba_would_promote(expression: str) -> None:
    source = f"""
    @cuda.jit(device=True)
    def half(x):
        x *= 0.5
        return x

    @cuda.jit
    def kernel(x, y):
        i = cuda.grid(1)
        y[i] = {expression}
    """
    with pytest.raises(PromotionError, match=r"planted.py:\d+: .*float64"):
        kernel(source, "kernel")[1, 4](numbers(4), numbers(4))
    kernel(source, "kernel")[1, 4](numbers(4).astype(np.float64), numbers(4).astype(np.float64))


def test_launches_that_no_device_accepts() -> None:
    reverse, x = kernel(REVERSE, "reverse"), numbers(64)
    with on(H100):
        for grid, block, message in [
            (1, 1025, "at most"),
            (1, (32, 33), "has 1056 threads"),
            (0, 1, "at least 1"),
            ((1, 65536), 1, "at most"),
            (1, (1, 1, 65), "at most"),
        ]:
            with pytest.raises(LaunchError, match=message):
                reverse[grid, block](x, x)
        with pytest.raises(LaunchError, match="more than 49152 must be asked for"):
            reverse[1, 64, 0, 50_000](x, x)
        with pytest.raises(LaunchError, match=f"a block of H100 has {H100.shared_per_block}"):
            reverse[1, 64, 0, 240_000](x, x)
        with pytest.raises(LaunchError, match="a block has 49152"):
            reverse[1, 64, 0, 49_000](x, x)
        with pytest.raises(TypeError, match="takes 2 arguments, got 1"):
            reverse[1, 64](x)
        with pytest.raises(LaunchError, match="launched with"):
            reverse(x, x)
    with pytest.raises(TypeError, match="the engine does not know fast"):
        kernel("@cuda.jit(fast=True)\ndef kernel(): pass", "kernel")


@pytest.mark.parametrize(("device", "blocks"), [(A100, 108), (H100, 132)])
def test_a_cooperative_grid_must_fit_at_once(device: Any, blocks: int) -> None:
    source = """
    @cuda.jit
    def kernel():
        cuda.cg.this_grid().sync()
    """
    waits = kernel(source, "kernel")
    waits.allowed_shared = device.shared_per_block
    with on(device):
        waits[blocks, 1, 0, device.shared_per_block]()
        assert waits.max_cooperative_grid_blocks(1, device.shared_per_block) == blocks
        with pytest.raises(LaunchError, match=f"holds {blocks} of them at once"):
            waits[blocks + 1, 1, 0, device.shared_per_block]()


def test_only_device_arrays_become_device_arrays() -> None:
    cuda = load("planted", {"planted": HEAD}).cuda
    x = stand_in.arange(4, dtype=np.float32)
    seen = cuda.as_cuda_array(x, sync=False)
    kernel(REVERSE, "reverse")[1, 4](seen, seen)
    np.testing.assert_array_equal(x.get(), [3, 2, 1, 0])
    with pytest.raises(TypeError, match="ndarray has no CUDA array interface"):
        cuda.as_cuda_array(numbers(4))


def test_what_the_engine_lacks_is_an_error() -> None:
    with pytest.raises(AttributeError, match="no_such_thing"):
        kernel("@cuda.jit\ndef kernel():\n    cuda.no_such_thing()", "kernel")[1, 1]()
    with pytest.raises(ImportError, match=r"the engine has no numba\.typed"):
        load("planted", {"planted": "import numba.typed"})
    with pytest.raises(ModuleNotFoundError, match="no module named 'no_such_module'"):
        load("no_such_module")


def test_the_real_numba_is_left_alone() -> None:
    module = load("minirnn.kernels.lstm.numba_cuda")
    assert module is load("minirnn.kernels.lstm.numba_cuda")
    assert sys.modules.get("minirnn.kernels.lstm.numba_cuda") is not module
    assert "numba.cuda" not in sys.modules or sys.modules["numba.cuda"] is not module.cuda


def test_an_error_in_a_kernel_says_which_thread() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        kernel("@cuda.jit\ndef kernel():\n    1 // (cuda.threadIdx.x - 3)", "kernel")[1, 4]()
    assert caught.value.__notes__ == ["in kernel, block (0, 0, 0) thread (3, 0, 0)"]


def test_without_greenlet_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba_engine.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match="it needs the package greenlet"):
        load("minirnn.kernels.lstm.numba_cuda")


def test_every_name_that_the_engine_offers_is_numbas() -> None:
    """With the parameters that the kernels and their launches use."""
    pytest.importorskip("numba_cuda", reason="compares with numba-cuda")
    import numba
    from numba import cuda
    from numba.cuda import dispatcher
    from numba.cuda.core import config
    from numba.cuda.cudadrv import driver

    ours = load("planted", {"planted": HEAD + "import numba"})
    for mine, theirs in [(ours.numba, numba), (ours.cuda, cuda)]:
        for name in vars(mine).keys() - {"__name__", "__doc__", "__package__", "__loader__", "__spec__"}:
            assert hasattr(theirs, name), name
            for inner in vars(getattr(mine, name)) if isinstance(getattr(mine, name), SimpleNamespace) else ():
                assert hasattr(getattr(theirs, name), inner), f"{name}.{inner}"
    assert config.CUDA_LOW_OCCUPANCY_WARNINGS == 1
    assert dispatcher.config is config
    assert "sync" in inspect.signature(cuda.as_cuda_array).parameters
    assert list(inspect.signature(cuda.external_stream).parameters) == ["ptr"]
    assert list(inspect.signature(dispatcher.CUDADispatcher.specialize).parameters) == ["self", "args"]
    assert list(inspect.signature(dispatcher._Kernel.max_cooperative_grid_blocks).parameters) == ["self", "blockdim", "dynsmemsize"]
    assert "_codelibrary" in inspect.getsource(dispatcher._Kernel)
    assert driver.binding.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES.value == 8
    assert "driver.cuKernelSetAttribute(attr, carveout, self.handle, self.device.id)" in inspect.getsource(driver.CudaPythonFunction)
