"""How many arrays are allocated, and not only how many are left at the end: what NumPy asks its allocator for, and Numba its own.

    allocated = count(run)       # during run(), None where they cannot be counted

NumPy lets whoever wants take the place of its allocator (https://numpy.org/doc/stable/reference/c-api/data_memory.html). The one here
counts, and then asks the C library as NumPy's own does; it serves the thread that calls `count`. Numba counts by itself what compiled
functions allocate, in every thread.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

CAPSULE = b"mem_handler"  # the name that NumPy looks for
SET_HANDLER = 304  # the place of PyDataMem_SetHandler in NumPy's table of functions, which is part of its binary interface


def count(run: Callable[[], Any]) -> int | None:
    """Arrays that `run()` allocates, NumPy's and those of compiled functions; None on a Python that is not CPython or without glibc."""
    if sys.implementation.name != "cpython" or not sys.platform.startswith("linux"):
        return None
    before = _numba()
    counter, _ = _handler()
    counter[0] = 0
    with _counting():
        run()
    return counter[0] + _numba() - before


class _Allocator(ctypes.Structure):
    """PyDataMemAllocator of numpy/ndarraytypes.h"""

    _fields_ = (
        ("ctx", ctypes.c_void_p),
        ("malloc", ctypes.c_void_p),
        ("calloc", ctypes.c_void_p),
        ("realloc", ctypes.c_void_p),
        ("free", ctypes.c_void_p),
    )


class _Handler(ctypes.Structure):
    """PyDataMem_Handler, version 1"""

    _fields_ = (("name", ctypes.c_char * 127), ("version", ctypes.c_uint8), ("allocator", _Allocator))


@cache
def _handler() -> tuple[list[int], Any]:
    """The counter and the capsule with the handler; both stay for good, as arrays that were made under it are freed through it."""
    c = ctypes.CDLL(None)
    for function in (c.malloc, c.calloc, c.realloc):
        function.restype = ctypes.c_void_p
    c.malloc.argtypes = (ctypes.c_size_t,)
    c.calloc.argtypes = (ctypes.c_size_t, ctypes.c_size_t)
    c.realloc.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    c.free.argtypes = (ctypes.c_void_p,)
    counter = [0]

    def malloc(ctx: int, size: int) -> Any:
        counter[0] += 1
        return c.malloc(size)

    def calloc(ctx: int, number: int, size: int) -> Any:
        counter[0] += 1
        return c.calloc(number, size)

    def realloc(ctx: int, pointer: int, size: int) -> Any:
        counter[0] += 1
        return c.realloc(pointer, size)

    def free(ctx: int, pointer: int, size: int) -> None:
        c.free(pointer)

    pointer, number = ctypes.c_void_p, ctypes.c_size_t
    callbacks = (
        ctypes.PYFUNCTYPE(pointer, pointer, number)(malloc),
        ctypes.PYFUNCTYPE(pointer, pointer, number, number)(calloc),
        ctypes.PYFUNCTYPE(pointer, pointer, pointer, number)(realloc),
        ctypes.PYFUNCTYPE(None, pointer, pointer, number)(free),
    )
    addresses = [ctypes.cast(callback, pointer).value for callback in callbacks]
    handler = _Handler(b"minirnn_counting", 1, _Allocator(None, *addresses))
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, (pointer, ctypes.c_char_p, pointer)
    capsule = new(ctypes.addressof(handler), CAPSULE, None)
    _kept.append((callbacks, handler, capsule))
    return counter, capsule


_kept: list[Any] = []


@contextmanager
def _counting() -> Iterator[None]:
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    table = ctypes.cast(get(np._core._multiarray_umath._ARRAY_API, None), ctypes.POINTER(ctypes.c_void_p))  # type: ignore[attr-defined]
    set_handler = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(table[SET_HANDLER])
    _, capsule = _handler()
    usual = set_handler(capsule)
    try:
        yield
    finally:
        set_handler(usual)


def _numba() -> int:
    """What compiled functions have allocated so far; 0 where none has been loaded."""
    if "numba" not in sys.modules:
        return 0
    runtime = sys.modules["numba.core.runtime"]
    runtime._nrt_python.memsys_enable_stats()
    return int(runtime.rtsys.get_allocation_stats().alloc)
