"""Which products are worth packing for. A rule on sizes alone: nothing else decides a result's bits, and Numba is not loaded to ask."""

from __future__ import annotations

FEWEST_ROWS = 4  # with fewer, a copy of b costs as much as the product
FEWEST_COLUMNS = 32  # with fewer, the sums of a tile are too few to keep the multipliers busy
MOST_ROWS = 24  # for which a transpose is not packed
LEAST = 2**18  # multiply-adds; beyond, the library takes several threads, which then spin for 60 ms in the way of ours


def pays(M: int, K: int, N: int) -> bool:
    """Whether (M, K) @ (K, N) is left to `numba_cpu.py`'s blocks, and not to NumPy's library."""
    return M >= FEWEST_ROWS and N >= FEWEST_COLUMNS and M * K * N > LEAST


def is_few(M: int) -> bool:
    """Whether a matrix that lies as its transpose is multiplied by M rows as it lies."""
    return M <= MOST_ROWS
