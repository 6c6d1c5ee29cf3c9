"""Row arithmetic of the packed layout on a device: what `minirnn.kernels.packed` does with NumPy, and an ordered sum over rows."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from minirnn.kernels.contract import Array
from minirnn.kernels.cuda.launch import function
from minirnn.kernels.packed import starts

UNIT = "cuda/packed.cu"
ROWS = 8  # of a block of gather_previous
COLUMNS = 32  # of a block of column_sum


def device_starts(xp: Any, batch_sizes: Array) -> Array:
    """First row of every step, and S after the last: (T + 1,) int32 on the current device.

    They move once per batch: those of the last few batches are kept, so all layers and both directions share them.
    """
    first = starts(batch_sizes)  # (T+1,)
    if first[-1] > np.iinfo(np.int32).max:
        raise ValueError(f"a batch can have at most 2^31 - 1 rows over all its steps, this one has {first[-1]}; split it")
    return _moved(xp, xp.cuda.Device().id, first.astype(np.int32).tobytes())


@lru_cache(maxsize=32)
def _moved(xp: Any, device: int, content: bytes) -> Array:
    return xp.asarray(np.frombuffer(content, np.int32))


def previous(xp: Any, state: Array, state0: Array, first: Array) -> Array:
    """The state that each row started from: row (t, n) holds state_{t-1} of sequence n, and state0 at t = 0.

    state (S, H), state0 (N, H), first (T+1,) of `device_starts` -> (S, H)
    """
    before = xp.empty_like(state)  # (S, H)
    gather = function(xp, UNIT, "gather_previous", state.dtype)
    S, H = state.shape
    gather((-(-S // ROWS),), (32 * ROWS,), (state, state0, first, before, np.int32(len(first) - 1), np.int32(H)))
    return before


def column_sum(xp: Any, x: Array, columns: int) -> Array:
    """Sums over all rows of the last `columns` columns, in one order: x (S, width) -> (columns,)"""
    S, width = x.shape
    out = xp.empty(columns, x.dtype)
    add = function(xp, UNIT, "column_sum", x.dtype)
    arguments = (x, out, np.int32(S), np.int32(width), np.int32(width - columns), np.int32(columns))
    add((-(-columns // COLUMNS),), (1024,), arguments)
    return out
