"""Which array module, and moves between devices. The only file that knows NumPy from CuPy."""

from __future__ import annotations

import importlib
import sys
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = Any  # numpy.ndarray or cupy.ndarray


def is_array(x: Any) -> bool:
    """Whether x is a plain array of NumPy or CuPy: no scalar, and nothing derived from them, such as a memory map."""
    return type(x) is np.ndarray or _is_cupy(x)


def _is_cupy(x: Any) -> bool:
    cupy = sys.modules.get("cupy")  # an array of CuPy's cannot exist before CuPy is imported
    return cupy is not None and isinstance(x, cupy.ndarray)


def array_module(array: Array) -> Any:
    """The module, `numpy` or `cupy`, whose functions work on `array`."""
    if isinstance(array, (np.ndarray, np.generic)):
        return np
    if _is_cupy(array):
        return sys.modules["cupy"]
    raise TypeError(f"expected a NumPy or CuPy array, got {type(array).__name__}")


def device_of(array: Array) -> str:
    """ "cpu", or "cuda:i" for an array that lives on the i-th GPU."""
    return "cpu" if array_module(array) is np else f"cuda:{array.device.id}"


def to_device(array: Array, device: str) -> Array:
    """`array` on `device` ("cpu", "cuda" or "cuda:i"): itself where it already is, else a copy."""
    kind, _, index = device.partition(":")
    if kind == "cpu":
        return array if array_module(array) is np else array.get()
    if kind != "cuda":
        raise ValueError(f'device must be "cpu", "cuda" or "cuda:<index>", got {device!r}')
    cupy = import_cupy()
    with cupy.cuda.Device(int(index or 0)):
        return cupy.asarray(array)


def import_cupy() -> Any:
    """CuPy, or a RuntimeError that says how to install it."""
    try:
        return importlib.import_module("cupy")
    except ImportError as error:
        raise RuntimeError(
            f'device "cuda" needs CuPy, which cannot be imported here ({error}); pip install "minirnn[cuda12]" or "minirnn[cuda13]"'
        ) from error
