"""Compiled kernels, each compiled once for a device and a dtype, and how they are launched."""

from __future__ import annotations

from typing import Any

import numpy as np

from minirnn.kernels.contract import Array
from minirnn.kernels.cuda import source

NULL = np.uintp(0)  # a pointer to nothing: the gradient that is None
STATIC = 48 * 1024  # bytes of shared memory that a block may have without asking for more


class _Module:
    """A compiled file, and of its kernels those that were asked for: looking one up goes through the driver."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.kernels: dict[str, Any] = {}
        self.shared: dict[str, int] = {}  # bytes of dynamic shared memory that a kernel may have; more is never taken back

    def kernel(self, name: str, shared: int) -> Any:
        if name not in self.kernels:
            self.kernels[name] = self.module.get_function(name)
        if shared > self.shared.get(name, STATIC):
            self.kernels[name].max_dynamic_shared_size_bytes = self.shared[name] = shared
        return self.kernels[name]


_modules: dict[tuple[Any, ...], _Module] = {}  # compiling takes a second


def wide(dtype: Any) -> Any:
    """The type that a kernel takes sums in: `Wide` of types.cuh."""
    return np.float64 if dtype == np.float64 else np.float32


def function(xp: Any, unit: str, name: str, dtype: Any, *, cooperative: bool = False, shared: int = 0) -> Any:
    """The kernel `name` of a .cu file (its path below kernels/), to be called as f(grid, block, arguments, shared_mem=bytes).

    xp      the array module: cupy, or the stand-in
    dtype   of the arrays: `Real` in the file
    cooperative   for a kernel with a grid barrier. CuPy then launches every kernel of the module that way, so the others come from another
    shared  bytes of dynamic shared memory that launches will ask for

    Scalar arguments must be NumPy scalars of the very type that the kernel declares: a Python float would be passed as eight bytes.
    """
    key = xp.__name__, xp.cuda.Device().id, unit, np.dtype(dtype).name, cooperative
    if key not in _modules:
        options = source.options(np.dtype(dtype).name)
        _modules[key] = _Module(xp.RawModule(code=source.read(unit), options=options, enable_cooperative_groups=cooperative))
    return _modules[key].kernel(name, shared)


def contiguous(xp: Any, gradient: Array | None) -> Array | None:
    """A gradient as kernels read it, rows one after the other; None stays None."""
    return None if gradient is None else xp.ascontiguousarray(gradient)
