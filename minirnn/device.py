"""Which array module, and moves between devices. The only file of minirnn/ that knows one array module from another.

    "cpu"             numpy.ndarray
    "cuda", "cuda:i"  cupy.ndarray on the first or the i-th GPU
    "emulated"        arrays of `minirnn.kernels.emulator.stand_in`, which does on a CPU what CuPy and the CUDA kernels do on a GPU, slowly

On a GPU, work is queued: the host goes on before it is done, and waits only where it reads a number back. What a training step needs of the
host is therefore written so that it never reads: `beside` moves arrays one way, and `peek` looks only where looking is free.
"""

from __future__ import annotations

import importlib
import re
import sys
from contextvars import ContextVar, Token
from functools import lru_cache
from typing import Any, TypeAlias
from weakref import finalize

import numpy as np

from minirnn.kernels.availability import missing

Array: TypeAlias = Any  # numpy.ndarray, cupy.ndarray, or one of the emulator's

STAND_IN = "minirnn.kernels.emulator.stand_in"
MODULES = {"cuda": "cupy", "emulated": STAND_IN}
NAMES = '"cpu", "cuda", "cuda:<index>" or "emulated"'

_current: ContextVar[str] = ContextVar("device", default="cpu")
_moved: dict[tuple[int, str], Array] = {}  # what `beside` has moved, by the address of a read-only array and the device


class Device(str):
    """The name of a device that can be used here. In `with device(name):` new tensors live on it."""

    def __enter__(self) -> Device:
        entered: list[tuple[Token[str], Any]] = self.__dict__.setdefault("_entered", [])
        on_gpu = module_of(self).cuda.Device(_index(self)) if kind_of(self) == "cuda" else None  # where kernels run and arrays are made
        if on_gpu is not None:
            on_gpu.__enter__()
        entered.append((_current.set(str(self)), on_gpu))
        return self

    def __exit__(self, *error: object) -> None:
        token, on_gpu = self.__dict__["_entered"].pop()
        _current.reset(token)
        if on_gpu is not None:
            on_gpu.__exit__(*error)


def device(name: str) -> Device:
    """The device "cpu", "cuda", "cuda:<index>" or "emulated": an argument for `.to(...)`, and a context for new tensors.

        with mr.device("emulated"):
            lstm = mr.nn.LSTM(3, 4)        # parameters, zeros, `mr.tensor(...)` and data that operations convert

    What is computed from arrays of a GPU other than the first belongs into its context, since CuPy computes on the current GPU.

    Raises ValueError for another name, and RuntimeError, with the fix, where the device cannot be used here.
    """
    _checked(name)
    reason = missing(name)
    if reason is not None:
        raise RuntimeError(f'device "{name}" cannot be used here: {reason}')
    return Device(name)


def current_device() -> str:
    """Where new tensors live: "cpu" outside of every `with device(...):`."""
    return _current.get()


def is_array(x: Any) -> bool:
    """Whether x is a plain array of one of the modules: no scalar, and nothing derived from them, such as a memory map."""
    return type(x) is np.ndarray or _device_module(x) is not None


def _device_module(x: Any) -> Any:
    """The module whose device array x is, or None. It is imported already: its arrays cannot exist before."""
    for name in MODULES.values():
        module = sys.modules.get(name)
        if module is not None and isinstance(x, module.ndarray):
            return module
    return None


def array_module(array: Array) -> Any:
    """The module whose functions work on `array`: `numpy`, `cupy`, or the emulator's stand-in for it."""
    if on_host(array):
        return np
    module = _device_module(array)
    if module is None:
        raise TypeError(f"expected a NumPy or CuPy array, got {type(array).__name__}")
    return module


def module_of(device: str) -> Any:
    """The array module of a device, imported on first use. RuntimeError, with the fix, where it cannot be."""
    kind = kind_of(device)
    if kind == "cpu":
        return np
    if (reason := missing(device)) is not None:
        raise RuntimeError(f'device "{device}" cannot be used here: {reason}')
    return importlib.import_module(MODULES[kind])


def device_of(array: Array) -> str:
    """ "cpu", "emulated", or "cuda:i" for an array that lives on the i-th GPU."""
    module = array_module(array)
    return "cpu" if module is np else "emulated" if module is sys.modules.get(STAND_IN) else f"cuda:{array.device.id}"


def kind_of(device: str) -> str:
    """ "cpu", "cuda" or "emulated", without an index."""
    return device.partition(":")[0]


def same_device(a: str, b: str) -> bool:
    return kind_of(a) == kind_of(b) and _index(a) == _index(b)


def is_device_name(name: Any) -> bool:
    return isinstance(name, str) and re.fullmatch(r"cpu|emulated|cuda(:\d+)?", name) is not None


def to_device(array: Array, device: str) -> Array:
    """`array` on a device: itself where it already is, else a copy. From a device to the CPU it waits until the array is computed."""
    _checked(device)
    here = device_of(array)
    if same_device(here, device):
        return array
    if kind_of(device) == "cpu":
        return array.get()
    xp = module_of(device)
    host = array.get() if here != "cpu" and kind_of(here) != kind_of(device) else array
    with xp.cuda.Device(_index(device)):
        return xp.array(host)


def here(array: Array) -> Array:
    """A host array, on the device that new tensors live on; a device array as it is."""
    return to_device(array, current_device()) if isinstance(array, np.ndarray) and current_device() != "cpu" else array


def beside(array: Array, like: Array) -> Array:
    """`array` (indices, a mask, lengths, from the host) on the device of `like`; a device array as it is.

    A read-only array that owns its numbers, as those of a Packing do, is moved once, and kept on the device for as long as it lives.
    """
    if on_host(like) or not on_host(array):
        return array
    device = device_of(like)
    array = np.asarray(array)
    if array.flags.writeable or array.base is not None:
        return to_device(array, device)
    key = id(array), device
    if key not in _moved:
        _moved[key] = to_device(array, device)
        finalize(array, _moved.pop, key, None).atexit = False
    return _moved[key]


def is_floating(dtype: np.dtype[Any]) -> bool:
    """Whether numbers of this dtype have gradients: the floating and complex ones, bfloat16 among them, which NumPy counts as no number."""
    return dtype.kind in "fc" or (dtype.kind == "V" and dtype.name == "bfloat16")


def on_host(array: Array) -> bool:
    """Whether looking at the numbers costs nothing: a NumPy array."""
    return isinstance(array, (np.ndarray, np.generic))


def scalar(value: complex, dtype: Any, like: Array) -> Array:
    """A number as an array without axes, beside `like`; on a device those that were asked for last are kept."""
    if on_host(like):
        return np.asarray(value, dtype)
    return _constant(value, str(value), np.dtype(dtype), device_of(like))


@lru_cache(maxsize=256)
def _constant(value: complex, text: str, dtype: np.dtype[Any], device: str) -> Array:
    """`text` tells -0 from 0."""
    xp = module_of(device)
    with xp.cuda.Device(_index(device)):
        return xp.full((), value, dtype)


def select(condition: Array, a: Array, b: Array | float) -> Array:
    """a where the condition holds, b elsewhere, in the dtype of a: CuPy's `where` has no loop for bfloat16 and makes it float32."""
    return array_module(a).where(condition, a, b).astype(a.dtype, copy=False)


def peek(condition: Array, otherwise: bool) -> bool:
    """The truth of an array of one boolean where looking is free, on the host; `otherwise` on a device, where it would wait."""
    return bool(condition) if on_host(condition) else otherwise


def numbers(*arrays: Array) -> list[float]:
    """Arrays of one number each as Python numbers: those of one device together, in one transfer, for which the host waits once."""
    there = [array.reshape(()).astype(np.float64) for array in arrays if not on_host(array)]
    read = iter(to_device(array_module(there[0]).stack(there), "cpu").tolist() if there else [])
    return [float(array.item()) if on_host(array) else next(read) for array in arrays]


def synchronize(device: str | None = None) -> None:
    """Wait until all work that was queued on a device (None: the current one) is done. On the CPU there is nothing to wait for."""
    device = current_device() if device is None else _checked(device)
    if device != "cpu":
        module_of(device).cuda.Device(_index(device)).synchronize()


def _checked(name: str) -> str:
    if not is_device_name(name):
        raise ValueError(f"device must be {NAMES}, got {name!r}")
    return name


def _index(device: str) -> int:
    return int(device.partition(":")[2] or 0)
