"""Kernels to break: Numba-CUDA source as text, so that a test can plant a mistake in it before it is run."""

from __future__ import annotations

from textwrap import dedent
from typing import Any

import numpy as np

from minirnn.kernels.emulator.numba_engine import load

SEEDS = range(8)
HEAD = """
import math
import numpy as np
from numba import cuda, float32, int32
"""

REVERSE = """
@cuda.jit
def reverse(x, y):
    # each block turns its part of x around, through shared memory
    i, last = cuda.threadIdx.x, cuda.blockDim.x - 1
    part = cuda.shared.array(64, float32)
    part[i] = x[cuda.grid(1)]
    cuda.syncthreads()
    y[cuda.grid(1)] = part[last - i]
"""
ROTATE = """
@cuda.jit
def rotate(x, steps):
    # x moves on by one place, through the whole grid, `steps` times
    i, n = cuda.grid(1), cuda.gridsize(1)
    grid = cuda.cg.this_grid()
    for t in range(steps):
        value = x[(i + n - 1) % n]
        grid.sync()
        x[i] = value
        grid.sync()
"""


def kernel(source: str, name: str) -> Any:
    return getattr(load("planted", {"planted": HEAD + dedent(source)}), name)


def numbers(*shape: int) -> Any:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def line_of(source: str, words: str) -> int:
    return (HEAD + dedent(source)).splitlines().index(next(line for line in (HEAD + dedent(source)).splitlines() if words in line)) + 1
