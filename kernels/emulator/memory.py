"""Where emulated arrays live: between red zones, and not yet written, as on a GPU.

An array that a kernel overruns by a few elements lies beside other data on a GPU, and nothing is noticed. Here it lies between zones of
0xFF bytes. A read that strays finds NaN, and a write that strays is found after the launch.
"""

from __future__ import annotations

import ctypes
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = Any
ALIGNMENT = 256  # bytes, as cudaMalloc gives
ZONE = 256
_sanitized = hasattr(ctypes.CDLL(None), "__asan_init") or hasattr(ctypes.CDLL(None), "__tsan_init")  # their own zones see reads as well


class Memory(np.ndarray):
    """The bytes of one allocation, zones included. A type of its own, so that an array's `base` leads to it."""

    begin: int  # the array's own bytes are [begin:end]
    end: int


def empty(shape: Any, dtype: Any, order: Any = "C") -> Array:
    """An array that nothing has been written to: floats are NaN, integers a large negative number."""
    array = _between_zones(np.empty(shape, np.dtype(dtype), order="F" if order == "F" else "C"))
    if array.dtype.kind in "iub":
        array[...] = np.frombuffer(b"\xc5" * array.itemsize, array.dtype)[0] if array.dtype.kind != "b" else True
    else:
        array.fill(np.nan)
    return array


def owned(array: Array) -> Array:
    """The same numbers between red zones: `array` itself where it lies there already, or is a view of one that does."""
    if isinstance(_root(array), Memory) or _sanitized:
        return array
    copy = _between_zones(array)
    copy[...] = array
    return copy


def _between_zones(like: Array) -> Array:
    if _sanitized:
        return np.empty_like(like, subok=False)
    memory = Memory(like.nbytes + 2 * ZONE + ALIGNMENT, np.uint8)
    at = ZONE + -(memory.ctypes.data + ZONE) % ALIGNMENT
    memory.begin, memory.end = at, at + like.nbytes
    memory[at - ZONE : at] = memory[memory.end : memory.end + ZONE] = 255
    order: Any = "F" if like.flags.f_contiguous and not like.flags.c_contiguous else "C"
    return np.ndarray(like.shape, like.dtype, memory, at, order=order)


def intact(array: Array) -> bool:
    """Whether both red zones around the allocation that `array` lies in are as they were."""
    memory = _root(array)
    if not isinstance(memory, Memory):
        return True
    before, after = memory[memory.begin - ZONE : memory.begin], memory[memory.end : memory.end + ZONE]
    return before.tobytes() == after.tobytes() == b"\xff" * ZONE


def _root(array: Array) -> Any:
    """The object at the end of the chain of bases that is still ours, or the array itself."""
    while isinstance(array, np.ndarray) and not isinstance(array, Memory) and array.base is not None:
        array = array.base
    return array
