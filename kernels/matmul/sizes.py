"""Which products are worth packing for. A rule on sizes alone: nothing else decides a result's bits, and Numba is not loaded to ask."""

from __future__ import annotations

FEWEST_ROWS = 2  # one is a product of a matrix and a vector, where the library does best
FEWEST_COLUMNS = 32  # with fewer, the sums of a tile are too few to keep the multipliers busy
FEW = 16  # times as many k's as rows, or more: a transpose is multiplied as it lies
ENOUGH = 512  # k's: for more, few rows are as many as for these
LEAST = 2**18  # multiply-adds; beyond, the library takes several threads, which then spin for 60 ms in the way of ours


def pays(M: int, K: int, N: int) -> bool:
    """Whether (M, K) @ (K, N) is left to `numba_cpu.py`'s blocks, and not to NumPy's library."""
    return M >= FEWEST_ROWS and N >= FEWEST_COLUMNS and M * K * N > LEAST


def is_few(M: int, K: int) -> bool:
    """Whether M rows of length K are few enough not to pack a transpose for them."""
    return min(K, ENOUGH) // M >= FEW
