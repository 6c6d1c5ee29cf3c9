"""How the recurrences in Numba-CUDA are launched: what `plan.py` is to CUDA C++. Nothing here needs Numba."""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

from minirnn.kernels.contract import Array
from minirnn.kernels.cuda.devices import KIB, Device, here
from minirnn.kernels.cuda.plan import GATES, MOST_TILES, forced

CHUNK = 32  # numbers of a row of x that are on chip at a time
PITCH = CHUNK + 1  # from one row to the next: rows that are read together lie in different banks
WARP = 32
THREADS = 256  # of a block, at most
UNITS = (8, 16, 32)  # hidden units of a block: a row of a tile never leaves its warp


class Geometry(NamedTuple):
    """Of a persistent kernel. `units` follows from H, dtype and device; `rows` and `groups` share out the batch, and change no bit."""

    units: int  # hidden units of a block
    rows: int  # sequences of a tile
    blocks: int  # ceil(H / units)
    groups: int  # of batch tiles
    shared: int  # bytes

    @property
    def grid(self) -> tuple[int, int]:
        return self.blocks, self.groups

    @property
    def block(self) -> tuple[int, int]:
        return self.units, self.rows


def geometry(cell: str, H: int, N: int, itemsize: int, device: Device) -> Geometry | str:
    """How the persistent kernels of a cell are launched, or why they cannot be: all blocks must run at once, each with its slice on chip.

    Of the numbers of units that fit, the smallest spreads the arithmetic over the most blocks.
    """
    obstacles = []
    for units in UNITS:
        rows = min(THREADS // units, max(WARP // units, 1 << (N - 1).bit_length()))  # whole warps, and no more rows than the batch needs
        shared = (GATES[cell] * H * units + rows * PITCH) * itemsize
        blocks = -(-H // units)
        if shared > device.shared_per_block:
            obstacles.append(
                f"with {units} hidden units a block needs {shared / KIB:.0f} KiB of shared memory for its slice of w_hh, "
                f"and has {device.shared_per_block / KIB:.0f} KiB"
            )
        elif blocks > device.multiprocessors:  # its registers, too, are meant for one block
            obstacles.append(
                f"with {units} hidden units each it needs {blocks} blocks at once, and the device holds {device.multiprocessors}"
            )
        else:
            return Geometry(units, rows, blocks, min(-(-N // rows), device.multiprocessors // blocks), shared)
    return "; ".join(obstacles)


def persistent(xp: ModuleType, cell: str, direction: str, state0: Array) -> Geometry | None:
    """The geometry of the persistent form, for a batch that begins with state0 (N, H); None where the step form is to run.

    Raises RuntimeError where `with form("persistent")` asks for what does not fit.
    """
    (N, H), asked, device = state0.shape, forced(), here(xp)
    found = geometry(cell, H, N, state0.dtype.itemsize, device)
    if asked == "step":
        return None
    if isinstance(found, str):
        if asked is None:
            return None
        what = f"{cell} {direction}, H={H}, {state0.dtype}"
        raise RuntimeError(f"{what}: the persistent form cannot run on {device.name}: {found}")
    tiles = -(-N // (found.rows * found.groups))  # that a block takes one after the other in each step
    return found if asked or tiles <= MOST_TILES else None
