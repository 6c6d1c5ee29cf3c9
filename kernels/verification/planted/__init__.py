"""Bugs to plant in the kernels, and harmless changes, by subject; `everything()` has them all."""

from __future__ import annotations

from minirnn.kernels.verification.planted.change import Change


def everything() -> tuple[Change, ...]:
    from minirnn.kernels.verification.planted import cells, numba_cuda, operations, product

    return (*cells.CHANGES, *product.CHANGES, *operations.CHANGES, *numba_cuda.CHANGES)
