"""The text of a CUDA C++ file as it is compiled, in one piece: a cache of compiled code does not see what another file includes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

KERNELS = Path(__file__).parent.parent
_INCLUDE = re.compile(r'^#include "([^"]+)"[^\n]*\n', re.MULTILINE)


@dataclass(frozen=True)
class Unit:
    """One .cu file, and the dtypes it is compiled for; each is a module of its own."""

    path: str  # below kernels/
    dtypes: tuple[str, ...]


REAL = ("float32", "float64")
STORED = (*REAL, "float16", "bfloat16")

UNITS = (
    Unit("cuda/packed.cu", STORED),
    Unit("lstm/lstm.cu", STORED),
    Unit("gru/gru.cu", STORED),
    Unit("rnn/rnn.cu", STORED),
    Unit("embedding/embedding.cu", STORED),
    Unit("cross_entropy/cross_entropy.cu", STORED),
    Unit("adam/adam.cu", STORED),
    Unit("dropout/dropout.cu", STORED),
    Unit("layer_norm/layer_norm.cu", STORED),
)


@cache
def read(path: str) -> str:
    """The file at `path` below kernels/, each local `#include "x"` replaced by what it names, where it stands first."""
    return _read(KERNELS / path, set())


def text(path: Path) -> str:
    """One file, as it is on disk."""
    return path.read_text()


def _read(path: Path, seen: set[Path]) -> str:
    def included(match: re.Match[str]) -> str:
        other = (path.parent / match[1]).resolve()
        return "\n" if other in seen else _read(other, seen)

    seen.add(path.resolve())
    return _INCLUDE.sub(included, text(path))


def options(dtype: str) -> tuple[str, ...]:
    """What the compiler is told: the language, and the dtype that types.cuh makes `Real` of.

    CuPy itself adds -ftz=true: in every kernel, float32 numbers below 2^-126 in magnitude are zero.
    """
    return ("--std=c++17", f"-DREAL_IS_{dtype.upper()}")
