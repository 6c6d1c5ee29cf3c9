"""Whether arrays can live on a device here and, if not, what is missing and what would help. Asking about the CPU imports nothing."""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache

EMULATED = 'device "emulated" runs the same kernels on a CPU'


def missing(device: str) -> str | None:
    """Why "cuda", "cuda:<index>" or "emulated" cannot be used, and the fix; None if it can, as "cpu" always can."""
    kind, _, index = device.partition(":")
    if kind == "cpu":
        return None
    return emulator_lacks("build") if kind == "emulated" else _cuda(int(index or 0))


@cache
def emulator_lacks(part: str) -> str | None:
    """What a part of `minirnn.kernels.emulator`, "build" or "numba_engine", says that it lacks; None if it can run."""
    reason: str | None = importlib.import_module(f"minirnn.kernels.emulator.{part}").missing()
    return reason


def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


@cache
def _cuda(index: int) -> str | None:
    if not installed("cupy"):
        return f'CuPy is not installed; pip install "minirnn[cuda12]" or "minirnn[cuda13]" installs it, and {EMULATED}'
    try:
        cupy = importlib.import_module("cupy")
    except ImportError as error:
        return f'CuPy cannot be imported ({error}); pip install "minirnn[cuda12]" or "minirnn[cuda13]" installs it, and {EMULATED}'
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"there is no GPU that CuPy can use ({error}); {EMULATED}"
    if not count:
        return f"CuPy finds no GPU; {EMULATED}"
    return None if index < count else f"there are {count} GPUs, numbered from 0"
