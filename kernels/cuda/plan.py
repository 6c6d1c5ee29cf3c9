"""How a recurrence is launched: step by step, or whole sequences by one kernel that keeps its part of w_hh on chip; and why.

A plan follows from the sizes, the dtype and the device alone. What decides the order of sums, how the threads of a block share out the
product, follows from H and the dtype alone: N decides how many blocks there are and which form runs, never how a persistent kernel adds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from minirnn.kernels.cuda.devices import KIB, Device

GATES = {"lstm": 4, "gru": 3, "rnn": 1}
DIRECTIONS = ("forward", "backward")
FORMS = ("step", "persistent")

WARPS = 8  # these are slice.cuh's
THREADS = 32 * WARPS
UNITS = (8, 16)  # hidden units per block
VECTOR = 16  # bytes

# Tiles that one block takes one after the other in each step. Beyond it a library product, which spreads rows over all of the device and
# reads w_hh from registers, is taken to be quicker than a product that reads it from shared memory once per tile.
MOST_TILES = 8

_forced: ContextVar[str | None] = ContextVar("minirnn_cuda_form", default=None)


@dataclass(frozen=True)
class Plan:
    """One direction of one recurrence. In the step form, `grid` and `block` are those of the pointwise kernel at N rows."""

    cell: str
    direction: str
    H: int
    N: int
    dtype: str
    device: Device
    form: str  # "step" or "persistent"
    units: int  # hidden units per block; 0 in the step form
    rows: int  # sequences per batch tile; 0 in the step form
    grid: tuple[int, ...]
    block: tuple[int, ...]
    shared: int  # bytes of dynamic shared memory per block
    tensor_cores: bool  # of the kernel's own product
    why: str  # why not the other form, as a sentence without its subject; or why this one, where it was asked for

    @property
    def slices(self) -> int:
        """Blocks that share out the hidden units."""
        return self.grid[0] if self.form == "persistent" else 0

    @property
    def groups(self) -> int:
        """Blocks that share out the batch, for each slice."""
        return self.grid[1] if self.form == "persistent" else 0

    def blocks(self, n: int) -> tuple[int]:
        """The grid of the step form's pointwise kernel at a step of n rows."""
        return (-(-n * self.H // THREADS),)

    @property
    def barriers(self) -> int:
        """Grid barriers per time step."""
        return int(self.slices > 1)


@contextmanager
def form(name: str | None) -> Iterator[None]:
    """Inside the `with` block recurrences on a GPU run in this form, "step" or "persistent"; None: in the one that `plan` finds.

    Where the persistent form does not fit, planning raises a RuntimeError that says why.
    """
    if name is not None and name not in FORMS:
        raise ValueError(f'form must be "step" or "persistent", got {name!r}')
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


def forced() -> str | None:
    """The form that the innermost `with form(...)` asks for."""
    return _forced.get()


def plan(cell: str, direction: str, H: int, N: int, dtype: Any, device: Device) -> Plan:
    """The plan for N sequences of `cell` ("lstm", "gru", "rnn"), "forward" or "backward", with H hidden units on a device."""
    if cell not in GATES:
        raise ValueError(f"plan: cell must be one of {', '.join(GATES)}, got {cell!r}")
    if direction not in DIRECTIONS:
        raise ValueError(f"plan: direction must be one of {', '.join(DIRECTIONS)}, got {direction!r}")
    name = dtype if isinstance(dtype, str) else np.dtype(dtype).name  # NumPy knows "bfloat16" only once ml_dtypes is imported
    return _plan(cell, direction, H, N, name, device, _forced.get())


@lru_cache(maxsize=256)
def _plan(cell: str, direction: str, H: int, N: int, dtype: str, device: Device, forced: str | None) -> Plan:
    units, obstacle = _units(cell, direction, H, dtype, device)
    if forced == "persistent" and obstacle:
        raise RuntimeError(f"{cell} {direction}, H={H}, {dtype}: the persistent form cannot run on {device.name}: {obstacle}")
    tensor_cores = has_tensor_cores(dtype, device)
    rows = tile_rows(units, tensor_cores)
    slices = -(-H // units) if units else 0
    tiles = -(-N // rows) if rows else 0
    groups = min(tiles, device.multiprocessors // slices) if slices else 0
    slow = units and -(-tiles // groups) > MOST_TILES

    if forced == "step" or (forced is None and (obstacle or slow)):
        many = f"a block would take {-(-tiles // groups)} tiles in turn, and the library's product is quicker" if slow else ""
        why = obstacle or many or "the step form was asked for"
        grid = (max(1, -(-N * H // THREADS)),)
        return Plan(cell, direction, H, N, dtype, device, "step", 0, 0, grid, (THREADS,), 0, False, why)
    why = "the persistent form was asked for" if forced else "keeps w_hh on chip, and one launch serves all steps"
    shared = shared_bytes(cell, direction, H, units, dtype, tensor_cores)
    return Plan(cell, direction, H, N, dtype, device, "persistent", units, rows, (slices, groups), (THREADS,), shared, tensor_cores, why)


def _units(cell: str, direction: str, H: int, dtype: str, device: Device) -> tuple[int, str]:
    """Hidden units per block, and an empty string; or 0, and why no number of them fits.

    Of what fits the smallest spreads the arithmetic over the most blocks. Backward with 16 bits the largest is better: each block reads
    all of dz_t, and that traffic from L2, not the arithmetic of tensor cores, is what a step waits for.
    """
    tensor_cores = has_tensor_cores(dtype, device)
    order = sorted(UNITS, reverse=direction == "backward" and tensor_cores)
    obstacles = []
    for units in order:
        slices, shared = -(-H // units), shared_bytes(cell, direction, H, units, dtype, tensor_cores)
        if slices > device.multiprocessors:
            obstacles.append(f"with {units} hidden units each it needs {slices} blocks at once, the device holds {device.multiprocessors}")
        elif shared > device.shared_per_block:
            obstacles.append(
                f"with {units} hidden units a block needs {shared / KIB:.0f} KiB of shared memory for its slice of w_hh, "
                f"and can have {device.shared_per_block / KIB:.0f} KiB"
            )
        else:
            return units, ""
    return 0, "; ".join(obstacles)


def tile_rows(units: int, tensor_cores: bool) -> int:
    """Sequences of a batch tile; 0 where there are no blocks to take one."""
    return 0 if not units else THREADS // units if tensor_cores else 16


def has_tensor_cores(dtype: str, device: Device) -> bool:
    """Whether the persistent kernels multiply numbers of this dtype on tensor cores."""
    return dtype == "float16" or (dtype == "bfloat16" and device.has_bfloat16_tensor_cores)


def shared_bytes(cell: str, direction: str, H: int, units: int, dtype: str, tensor_cores: bool) -> int:
    """Dynamic shared memory of a block, as slice.cuh lays it out: the slice of w_hh, and a region for each warp."""
    gates = GATES[cell]
    M, K = (gates * units, H) if direction == "forward" else (units, gates * H)
    rows, size = tile_rows(units, tensor_cores), {"float64": 8, "float32": 4}.get(dtype, 2)
    if tensor_cores:
        stride, region = -(-K // 64) * 64, rows * M * 4
    else:
        lanes = {8: 2, 16: 4}.get(M, 8)  # of columns
        pad, chunk = 8 // lanes, 8  # vectors
        stride = (-(-K * size // (chunk * VECTOR)) * chunk + pad) * VECTOR // size
        region = max(rows * (chunk + pad) * VECTOR, 4 * (M // lanes) * 32 * max(size, 4))
    return M * stride * size + WARPS * region
