"""Geometry of kernels that give one block to each row."""

from __future__ import annotations

WARP = 32
MOST = 256  # threads of a block
EACH = 4  # elements of a row that a thread should have before another warp joins in


def threads(columns: int) -> int:
    """The threads of the block that works on a row of so many elements: the order of its sums follows from the row's length alone."""
    warps = -(-columns // (WARP * EACH))
    return WARP * max(1, min(MOST // WARP, warps))
