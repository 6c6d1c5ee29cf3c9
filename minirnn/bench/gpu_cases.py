"""What `minirnn bench gpu` runs: the awkward shapes that must be right, and the grids of shapes that are timed."""

from __future__ import annotations

from typing import NamedTuple

CELLS = ("lstm", "gru", "rnn")
DTYPES = ("float16", "bfloat16", "float32", "float64")

# Batch sizes of each step, and H. On a device with more multiprocessors the same H needs more blocks, so several are large.
AWKWARD: tuple[tuple[tuple[int, ...], int], ...] = (
    ((1,), 1),  # T = N = H = 1
    ((1, 1, 1, 1, 1), 7),  # N = 1
    ((5,), 3),  # T = 1
    ((4, 3, 3, 1), 8),  # ragged, one block
    ((13, 13, 7, 2, 1), 37),  # primes
    ((40, 33, 20, 5), 64),  # ragged, several tiles of the batch, several blocks
    ((17, 16, 16, 1), 129),  # one row more than a tile, one unit more than whole vectors
    ((33, 33, 33), 512),
    ((16,) * 6, 768),  # the shape of FlashRNN's figures
    ((130, 129, 7), 1000),  # more tiles than a block likes
    ((8, 8, 5, 5), 1024),
)
TINY_AWKWARD = (AWKWARD[0], AWKWARD[2], AWKWARD[3], ((18, 17, 1), 17))  # what an emulated device does in seconds


class Case(NamedTuple):
    """One layer, dense: T steps of N sequences, D features in, H hidden units."""

    T: int
    N: int
    D: int
    H: int

    def __str__(self) -> str:
        return f"T={self.T} N={self.N} D={self.D} H={self.H}"


class Grid(NamedTuple):
    """Shapes, and the dtypes that they are timed in."""

    source: str
    cases: tuple[Case, ...]
    dtypes: tuple[str, ...]


# FlashRNN (Poeppel, Beck and Hochreiter 2024, arXiv:2412.07752), the three experiments behind its figures: the hidden size grows as the
# number of heads shrinks, 768 in all (its LSTM and Haste baselines run one head, and so do we); the batch; and the length.
_HIDDEN = tuple(Case(1024, 16, H, H) for H in (16, 32, 64, 128, 256, 768))
_BATCH = tuple(Case(1024, N, H, H) for H in (64, 768) for N in (2, 8, 16, 32, 64, 128, 256))
_LENGTH = tuple(Case(T, 16, H, H) for H in (64, 768) for T in (256, 512, 1024, 2048))

# Haste (LMNT 2020), benchmarks/benchmark_lstm.cc: 50 steps, every batch with every hidden and every input size.
_HASTE = tuple(
    Case(50, N, D, H) for N in (1, 16, 32, 64, 128) for H in (128, 256, 512, 768, 1024, 1536, 2048, 3072, 4096) for D in (64, 128, 256, 512)
)

GRIDS = {
    "flashrnn": Grid("FlashRNN, arXiv:2412.07752", tuple(dict.fromkeys(_HIDDEN + _BATCH + _LENGTH)), ("float16", "bfloat16", "float32")),
    "haste": Grid("Haste, benchmarks/benchmark_lstm.cc", _HASTE, ("float32",)),
    "quick": Grid("one shape of each", (Case(1024, 16, 768, 768), Case(50, 64, 512, 512)), ("float16", "float32")),
}
TINY = Grid("tiny, for an emulated device", (Case(3, 2, 4, 8), Case(2, 18, 3, 17)), ("float32",))
