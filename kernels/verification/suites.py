"""The cases of each tier: shapes that are ragged, of several tiles and of several blocks at once, and the smallest ones.

A persistent kernel in CUDA C++ works on tiles of 16 sequences, gives 8 or 16 hidden units to a block and shares out K, in chunks of 128
bytes, among 8 warps; one in Numba-CUDA takes up to 32 rows to a tile. The shapes below are the smallest ones that leave none of it out.
"""

from __future__ import annotations

from collections.abc import Iterator

from minirnn.kernels.cuda.source import REAL, STORED
from minirnn.kernels.registry import CELLS
from minirnn.kernels.verification.cases import Case, Options
from minirnn.kernels.verification.process import ADDRESS, THREAD

OPERATIONS = ("embedding", "cross_entropy", "adam", "dropout", "layer_norm")
ONE = ((1,), 1)  # T = N = H = 1
ONE_STEP, ONE_SEQUENCE, ONE_UNIT = ((5,), 3), ((1, 1, 1), 9), ((3, 2), 1)
RAGGED = ((19, 17, 3, 1), 11)  # two tiles, the second ragged and then gone; two blocks of units, the second with three
ONE_BLOCK = ((19, 3), 5)  # one block of units, so no grid barrier, and several tiles
ALIGNED = ((5, 5, 2), 16)  # rows that start at 16 bytes; two blocks of units, both full
CHUNKS = ((3, 3, 2), 33)  # float64: K = 4 H is more than one chunk to a warp; five blocks of units
WIDE = ((2, 1), 259)  # float16: K = 4 H is more than four chunks to a warp, which are fetched together
FEW_BLOCKS = (("multiprocessors", 2),)  # tiles are taken in turn, and a block of units has 16
MANY_ROWS = (131, 5)  # more than one block of layer_norm_columns sums
MANY_BLOCKS = (("multiprocessors", 40),)


def recurrence(cell: str, dtype: str) -> Iterator[Case]:
    """In CUDA C++: short enough for the sanitizers."""
    options: list[Options] = [(("nonlinearity", name),) for name in ("tanh", "relu")] if cell == "rnn" else [()]
    for chosen in options:
        for form in ("persistent", "step"):
            yield Case(cell, dtype, RAGGED, form, options=chosen)
    without = ("h", "h_n") if cell != "lstm" else ("h", "c", "h_n", "c_n")
    yield Case(cell, dtype, ONE, "persistent", options=options[-1])
    yield Case(cell, dtype, ONE, "step", options=options[-1])
    for sizes in ONE_STEP, ONE_SEQUENCE, ONE_UNIT:
        yield Case(cell, dtype, sizes, "persistent", options=options[-1])
    yield Case(cell, dtype, ((19, 18, 2), 20), "persistent", options=options[-1], device=FEW_BLOCKS, without=without[:1])
    yield Case(cell, dtype, ONE_BLOCK, "persistent", options=options[-1])
    yield Case(cell, dtype, ALIGNED, "persistent", options=options[-1])
    yield Case(cell, dtype, CHUNKS, "persistent", options=options[-1], without=without[1:])
    yield Case(cell, dtype, ((3, 2), 6), "step", options=options[-1], without=without)


def wide(cell: str, dtype: str) -> Case:
    """Too many blocks for the sanitizers."""
    return Case(cell, dtype, WIDE, "persistent", device=MANY_BLOCKS)


def operation(name: str, dtype: str) -> Iterator[Case]:
    if name == "embedding":
        yield Case(name, dtype, (20, 33, 2))
        yield Case(name, dtype, (1, 1, 1))
    elif name == "cross_entropy":
        yield Case(name, dtype, (3, 300), options=(("label_smoothing", 0.1),))
        yield Case(name, dtype, (5, 40))
        yield Case(name, dtype, (1, 1))
    elif name == "adam":
        yield Case(name, dtype, (300,))
        yield Case(name, dtype, (257,), options=(("scale", 0.5), ("on_device", True), ("decoupled", True)))
        yield Case(name, dtype, (1,))
    elif name == "dropout":
        yield Case(name, dtype, (1030,))
        yield Case(name, dtype, (9,), options=(("offset", 1),))
        yield Case(name, dtype, (1,))
    else:
        yield Case(name, dtype, MANY_ROWS)
        yield Case(name, dtype, (3, 300))
        yield Case(name, dtype, (1, 1))
        yield Case(name, dtype, (2, 33), options=(("plain", True),))


def numba_cuda(cell: str, dtype: str) -> Iterator[Case]:
    """In Numba-CUDA, whose engine takes Python's time for every number that a thread reads."""
    relu = (("nonlinearity", "relu"),) if cell == "rnn" else ()
    tanh = (("nonlinearity", "tanh"),) if cell == "rnn" else ()
    yield Case(cell, dtype, ((5, 3, 1), 9), "persistent", "numba-cuda", options=tanh)
    yield Case(cell, dtype, ((5, 3, 1), 9), "step", "numba-cuda", options=relu)
    yield Case(cell, dtype, ONE, "persistent", "numba-cuda", options=tanh)
    yield Case(cell, dtype, ONE, "step", "numba-cuda", options=tanh)
    for sizes in ONE_STEP, ONE_SEQUENCE, ONE_UNIT:
        yield Case(cell, dtype, sizes, "persistent", "numba-cuda", options=tanh)
    yield Case(cell, dtype, ((35, 33, 2), 9), "persistent", "numba-cuda", options=relu, device=FEW_BLOCKS, without=("h",))
    yield Case(cell, dtype, ((6, 3, 1), 3), "persistent", "numba-cuda", options=tanh)
    yield Case(cell, dtype, ((2, 2), 35), "persistent", "numba-cuda", options=relu, without=("h_n",))


def emulated() -> dict[str, list[Case]]:
    """Everything, in groups for one process each."""
    groups = sanitized(ADDRESS)
    for cell in CELLS:
        groups[cell] += [wide(cell, dtype) for dtype in STORED if dtype != "float64"]  # whose slice would not fit
        groups[f"{cell} in Numba-CUDA"] = [case for dtype in REAL for case in numba_cuda(cell, dtype)]
    return groups


def sanitized(sanitizer: str) -> dict[str, list[Case]]:
    """All kernels in CUDA C++, in groups for one process each.

    The thread sanitizer needs half a millisecond for each thread of a launch beyond those that it has seen in the launches before, so it
    gets the case with the most threads once.
    """
    groups = {cell: [case for dtype in STORED for case in recurrence(cell, dtype)] for cell in CELLS}
    fused = [case for name in OPERATIONS for dtype in STORED for case in operation(name, dtype)]
    groups["operations"] = [case for case in fused if sanitizer != THREAD or case.dtype == "float32" or case.sizes != MANY_ROWS]
    return groups
