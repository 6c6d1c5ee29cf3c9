"""The modules inside the stand-in: `linalg`, `lib`, `random` and `cuda`; and how a name is looked up in any of them."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from minirnn.kernels.emulator import device, functions, names
from minirnn.kernels.emulator.arrays import ndarray


def lookup(section: str, home: Any, own: Any, name: str) -> Any:
    """What CuPy calls `name` in `section`: what the stand-in has under this name in `own`, or what is made of NumPy's in `home`."""
    module = "cupy" if section == "module" else f"cupy.{section}"
    if name.startswith("__") or not names.known(section, name):
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    mine = getattr(own, name, None)
    if mine is not None:
        return mine
    theirs = getattr(home, name, None)
    if theirs is None:
        raise NotImplementedError(f"{module}.{name} exists in CuPy, but not in the stand-in")
    if isinstance(theirs, np.ufunc) and name in names.frozen()["ufuncs"]:
        return functions.ufunc(name)
    if not callable(theirs) or isinstance(theirs, type):
        return theirs
    return functions.function(section, home, name)


class Namespace(ModuleType):
    def __init__(self, section: str, home: Any, own: dict[str, Any]) -> None:
        super().__init__(f"{__name__.rpartition('.')[0]}.stand_in.{section}")
        self._section, self._home = section, home
        self.__dict__.update(own)

    def __getattr__(self, name: str) -> Any:
        found = lookup(self._section, self._home, None, name)
        setattr(self, name, found)
        return found


# linalg. cuSOLVER reports a matrix that it cannot factorise in a variable on the device, which CuPy does not read: the host would have to
# wait. The result is NaN then, and nothing is raised.


def _matrices(*matrices: Any) -> None:
    for matrix in matrices:
        if not isinstance(matrix, ndarray):
            raise np.linalg.LinAlgError(f"cupy.linalg only supports cupy.ndarray, got {type(matrix)}")
        if matrix.dtype.itemsize == 2:
            raise TypeError(f"linear algebra takes no {matrix.dtype}")
    if matrices[0].ndim < 2 or matrices[0].shape[-1] != matrices[0].shape[-2]:
        raise np.linalg.LinAlgError(f"the last two axes must be those of a square matrix, got {matrices[0].shape}")


def _each(function: Callable[..., Any], result: Any, *stacks: Any) -> Any:
    """The function of each matrix in the stacks, into `result`; NaN where NumPy raises."""
    for index in np.ndindex(stacks[0].shape[:-2]):
        try:
            result[index] = function(*(stack[index] for stack in stacks))
        except np.linalg.LinAlgError:
            result[index] = np.nan
    return result


def _solve(a: Any, b: Any) -> Any:
    _matrices(a, b)
    if b.ndim == 0 or (b.shape != a.shape[-1:] if b.ndim == 1 else a.shape[:-1] != b.shape[:-1]):
        raise ValueError(f"solve: a must be (..., n, n) and b (n,) or (..., n, k), got {a.shape} and {b.shape}")

    def solve(a: Any, b: Any) -> Any:
        b = np.broadcast_to(b, a.shape[:-1]) if b.ndim == 1 else b
        return _each(np.linalg.solve, np.empty(b.shape, np.result_type(a, b, np.float32)), a, b)

    return functions.compute(solve, (a, b), {})


def _of_one(function: Callable[..., Any]) -> Callable[[Any], Any]:
    def call(a: Any) -> Any:
        _matrices(a)
        return functions.compute(
            lambda a: _each(function, np.empty(a.shape, np.result_type(a, np.float32)), a), (a,), {}, function.__name__
        )

    return call


def _sliding_window_view(x: Any, window_shape: Any, axis: Any = None, *, subok: bool = False, writeable: bool = False) -> Any:
    return x._view(np.lib.stride_tricks.sliding_window_view(x._array, window_shape, axis))


class lib:
    stride_tricks = Namespace("stride_tricks", np.lib.stride_tricks, {"sliding_window_view": _sliding_window_view})


linalg = Namespace(
    "linalg",
    np.linalg,
    {"solve": _solve, "cholesky": _of_one(np.linalg.cholesky), "inv": _of_one(np.linalg.inv), "LinAlgError": np.linalg.LinAlgError},
)


class Generator:
    """`cupy.random.Generator`: fewer methods than NumPy's. Its numbers are others than those of a GPU."""

    def __init__(self, bit_generator: Any = None) -> None:
        self._generator = np.random.Generator(np.random.PCG64(bit_generator))

    def __getattr__(self, name: str) -> Any:
        if not names.known("Generator", name):
            raise AttributeError(f"'Generator' object has no attribute {name!r}")

        def draw(*args: Any, **kwargs: Any) -> Any:
            names.check_call("Generator", name, args, kwargs)
            dtype = kwargs.pop("dtype", None) if name == "uniform" else None
            drawn = functions.compute(getattr(self._generator, name), args, kwargs, name)
            drawn = functions.to_device(np.asarray(drawn)) if not isinstance(drawn, ndarray) else drawn
            return drawn.astype(dtype) if dtype is not None else drawn

        return draw


def _default_rng(seed: Any = None) -> Generator:
    return Generator(seed)


random = Namespace("random", np.random, {"Generator": Generator, "default_rng": _default_rng})

cuda = Namespace(
    "cuda",
    None,
    {
        "Device": device.Device,
        "Stream": device.Stream,
        "Event": device.Event,
        "MemoryPool": device.MemoryPool,
        "runtime": device.runtime,
        "is_available": lambda: True,
        "get_device_id": device.current,
        "get_elapsed_time": device.get_elapsed_time,
        "get_current_stream": lambda device_id=-1: device.Stream.null,
    },
)
