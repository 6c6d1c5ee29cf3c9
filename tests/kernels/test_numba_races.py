"""Races in Numba-CUDA kernels: found under every schedule, and only where there is one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from minirnn.kernels.emulator import numba_engine
from minirnn.kernels.emulator.numba_engine import schedule
from minirnn.kernels.emulator.numba_memory import RaceError
from minirnn.kernels.emulator.translate import EmulatorError

from .small_kernels import REVERSE, ROTATE, SEEDS, kernel, line_of, numbers

pytestmark = pytest.mark.skipif(numba_engine.missing() is not None, reason=str(numba_engine.missing()))

PROGRAM = """
@cuda.jit
def interpret(program, barriers, cells, out):
    # program[p, thread] = 4 cell + (0 nothing, 1 read, 2 write, 3 atomic) in phase p; barriers[p] after it:
    # 0 none, 1 warp, 2 block, 3 grid, -1 a shuffle, at which threads wait for each other although it orders nothing
    i = cuda.grid(1)
    grid = cuda.cg.this_grid()
    for p in range(len(barriers)):
        what, cell = program[p, i] % 4, program[p, i] // 4
        if what == 1:
            out[i] = cells[cell]
        elif what == 2:
            cells[cell] = i
        elif what == 3:
            cuda.atomic.add(cells, cell, 1)
        if barriers[p] == -1:
            cuda.shfl_sync(0xffffffff, i, 0)
        elif barriers[p] == 1:
            cuda.syncwarp()
        elif barriers[p] == 2:
            cuda.syncthreads()
        elif barriers[p] == 3:
            grid.sync()
"""
BLOCK = 64
ACTIVE = [0, 1, 33, BLOCK, BLOCK + 1, BLOCK + 63]  # two lanes of a warp and one of another, in each of two blocks


def races(program: Any, barriers: list[int]) -> bool:
    """Whether any two accesses to one cell, not both reads and not both atomic, have no barrier between them that both threads pass."""
    accesses = [(p, i, program[p, i] % 4, program[p, i] // 4) for p in range(len(barriers)) for i in ACTIVE if program[p, i] % 4]
    for p, i, what, cell in accesses:
        for q, j, other_what, other_cell in accesses:
            if i == j or cell != other_cell or q < p or (what == other_what and what != 2):
                continue
            reach = 3 - (i // BLOCK == j // BLOCK) - (i // 32 == j // 32)  # the least barrier that orders these threads
            if not any(barrier >= reach for barrier in barriers[p:q]):
                return True
    return False


@settings(max_examples=60)
@given(st.data())
def test_a_race_is_found_exactly_where_there_is_one(data: st.DataObject) -> None:
    barriers = data.draw(st.lists(st.integers(-1, 3), min_size=1, max_size=3))
    program = np.zeros((len(barriers), 2 * BLOCK), np.int64)
    for _ in range(data.draw(st.integers(2, 4))):
        place = data.draw(st.integers(0, len(barriers) - 1)), data.draw(st.sampled_from(ACTIVE))
        program[place] = data.draw(st.sampled_from([1, 1, 2, 3, 4 + 1, 4 + 2]))
    launch = kernel(PROGRAM, "interpret")[2, BLOCK]
    arrays = program, np.array(barriers), np.zeros(2, np.int64), np.zeros(2 * BLOCK, np.int64)
    with schedule(data.draw(st.integers(0, 9))):
        event(f"race: {races(program, barriers)}")
        if races(program, barriers):
            with pytest.raises(RaceError):
                launch(*arrays)
        else:
            launch(*arrays)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_write_races_with_the_other_reader_when_the_writer_read_too(seed: int) -> None:
    program, barriers = np.zeros((2, 2 * BLOCK), np.int64), np.array([-1, 0])
    program[0, :2], program[1, 0] = 1, 2  # lanes 0 and 1 read, and lane 0 writes
    with schedule(seed), pytest.raises(RaceError):
        kernel(PROGRAM, "interpret")[2, BLOCK](program, barriers, np.zeros(1, np.int64), np.zeros(2 * BLOCK, np.int64))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_missing_syncthreads(seed: int) -> None:
    with (
        schedule(seed),
        pytest.raises(RaceError, match=r"race: (read|write) at planted.py:\d+ by block .* thread .*(read|write) at planted.py:\d+"),
    ):
        kernel(REVERSE.replace("cuda.syncthreads()", "pass"), "reverse")[2, 8](numbers(16), numbers(16))


def test_a_race_names_both_lines_and_both_threads() -> None:
    source = REVERSE.replace("cuda.syncthreads()", "pass")
    with pytest.raises(RaceError) as caught:
        kernel(source, "reverse")[1, 2](numbers(2), numbers(2))
    message = str(caught.value)
    for words in ("part[i] = x", "part[last - i]"):
        assert f"planted.py:{line_of(source, words)} by block (0, 0, 0) thread (" in message


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("instead", ["pass", "cuda.syncthreads()"])
def test_a_missing_grid_barrier(seed: int, which: int, instead: str) -> None:
    parts = ROTATE.split("grid.sync()")
    parts[which : which + 2] = [parts[which] + instead + parts[which + 1]]
    with schedule(seed), pytest.raises(RaceError):
        kernel("grid.sync()".join(parts), "rotate")[3, 4](numbers(12), 3)


def test_a_shuffle_orders_no_memory_and_syncwarp_does() -> None:
    source = """
    @cuda.jit
    def kernel(x):
        i = cuda.threadIdx.x
        part = cuda.shared.array(64, int32)
        part[i] = x[i]
        BARRIER
        x[i] = part[i ^ 1]
    """
    kernel(source.replace("BARRIER", "cuda.syncwarp()"), "kernel")[1, 64](np.arange(64))
    with pytest.raises(RaceError):
        kernel(source.replace("BARRIER", "cuda.shfl_sync(0xffffffff, i, 0)"), "kernel")[1, 64](np.arange(64))
    with pytest.raises(RaceError):  # of other warps
        kernel(source.replace("BARRIER", "cuda.syncwarp()").replace("^ 1", "^ 32"), "kernel")[1, 64](np.arange(64))


def test_a_sum_that_is_not_atomic() -> None:
    source = """
    @cuda.jit
    def kernel(x, total):
        total[0] += x[cuda.grid(1)]
    """
    for seed in SEEDS:
        with schedule(seed), pytest.raises(RaceError):
            kernel(source, "kernel")[2, 2](np.arange(4), np.zeros(1, np.int64))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("grid", "block"), [(1, 2), (2, 1), (2, 2)])
def test_an_atomic_sum_read_without_a_barrier(seed: int, grid: int, block: int) -> None:
    """Whether or not all threads have added before the first one reads."""
    source = """
    @cuda.jit
    def kernel(x, total, out):
        cuda.atomic.add(total, 0, x[cuda.grid(1)])
        BARRIER
        if cuda.grid(1) == 0:
            out[0] = total[0]
    """
    arrays = np.arange(grid * block), np.zeros(1, np.int64), np.zeros(1, np.int64)
    with schedule(seed), pytest.raises(RaceError, match="atomic operation"):
        kernel(source.replace("BARRIER", "pass" if grid == 1 else "cuda.syncthreads()"), "kernel")[grid, block](*arrays)
    arrays[1][0] = 0
    with schedule(seed):
        kernel(source.replace("BARRIER", "cuda.cg.this_grid().sync()"), "kernel")[grid, block](*arrays)
    assert arrays[2] == arrays[0].sum()


def test_a_float_atomic_is_refused() -> None:
    source = """
    @cuda.jit
    def kernel(x):
        cuda.atomic.add(x, 0, x.dtype.type(1))
    """
    with pytest.raises(EmulatorError, match="would depend on the order of the threads"):
        kernel(source, "kernel")[1, 1](numbers(1))
