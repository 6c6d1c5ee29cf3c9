"""A strict stand-in for the module `cupy`, on a machine without a GPU.

    import minirnn.kernels.emulator.stand_in as xp
    xp.arange(3) + 1

It answers to the names that the real CuPy has (`cupy_names.json`), takes the parameters that the real one takes, and refuses what the real
one refuses: an implicit conversion to NumPy, an array of the host among those of the device, a wrong type in a launch. NumPy does the
arithmetic; kernels of RawModule and RawKernel are compiled by the C++ compiler and run thread by thread. Importing it compiles nothing.

What is not CuPy's: `counting()`, `launches`, `device_properties()`, `schedule()` and `installed()`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from minirnn.kernels.emulator import arrays, functions, names
from minirnn.kernels.emulator.counts import Counts, counting
from minirnn.kernels.emulator.counts import log as launches
from minirnn.kernels.emulator.device import MemoryPool, device_properties
from minirnn.kernels.emulator.launch import RawKernel, RawModule, schedule
from minirnn.kernels.emulator.namespaces import cuda, lib, linalg, lookup, random
from minirnn.kernels.emulator.translate import EmulatorError

__all__ = [
    "Counts",
    "EmulatorError",
    "RawKernel",
    "RawModule",
    "counting",
    "cuda",
    "device_properties",
    "get_array_module",
    "get_default_memory_pool",
    "installed",
    "is_available",
    "launches",
    "lib",
    "linalg",
    "ndarray",
    "random",
    "schedule",
]

__version__ = names.frozen()["version"] + "+emulated"
ndarray = arrays.ndarray
_pool = MemoryPool()


def get_array_module(*args: Any) -> Any:
    return sys.modules[__name__] if any(isinstance(each, ndarray) for each in args) else np


def get_default_memory_pool() -> MemoryPool:
    return _pool


def is_available() -> bool:
    return True


def __getattr__(name: str) -> Any:
    found = lookup("module", np, functions, name)
    globals()[name] = found
    return found


@contextmanager
def installed() -> Iterator[None]:
    """Make `import cupy` give the stand-in, for code that asks for CuPy by name."""
    before = {name: sys.modules.get(name) for name in ("cupy", "cupy.cuda")}
    sys.modules.update({"cupy": sys.modules[__name__], "cupy.cuda": cuda})
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
