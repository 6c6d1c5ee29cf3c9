"""The stand-in's `ndarray`: NumPy does the arithmetic, CuPy's rules are kept.

An array of the device is a type of its own. It never turns into a NumPy array unless asked to, it does not mix with one, and what comes out
of a reduction or an index is an array of the device again, of no dimensions. Whatever makes the host wait is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np

from minirnn.kernels.emulator import counts, device, memory, names

Array: TypeAlias = Any  # numpy.ndarray
SCALARS = (bool, int, float, complex, np.generic)
_REFUSED = "an array of the device becomes NumPy's only where it is told to: `.get()` copies it"
# These choose the size of their result by what is in the arrays, and the host waits to learn it.
_WAITING = {"compress", "nonzero"}
_HOST_INDICES = {"take", "choose", "put", "compress"}


def stored(dtype: Any) -> np.dtype[Any]:
    """The dtype, or a ValueError where CuPy stores no such numbers."""
    found: np.dtype[Any] = np.dtype(dtype)
    if (found.kind not in "biufc" and found.name != "bfloat16") or found.char in "gG":
        raise ValueError(f"Unsupported dtype {found}")
    return found


def on_host(value: Any) -> Any:
    """`value` with each array of the device, in lists and dictionaries as well, replaced by the NumPy array behind it.

    A TypeError for arrays that belong to the host, a ValueError for those of another device.
    """
    if isinstance(value, ndarray):
        if value._device != device.current():
            raise ValueError(
                f"Array device must be same as the current device: array device = {value._device} while current = {device.current()}"
            )
        return value._array
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    if isinstance(value, (list, tuple)):
        return type(value)(map(on_host, value))
    if isinstance(value, dict):
        return {key: on_host(each) for key, each in value.items()}
    return value


def on_device(result: Any) -> Any:
    """What NumPy returned, as CuPy returns it: scalars as arrays of no dimensions."""
    if isinstance(result, (np.ndarray, np.generic)):
        return ndarray._of(np.asarray(result))
    if isinstance(result, (list, tuple)):
        return (list if isinstance(result, list) else tuple)(map(on_device, result))
    return result


def _index(key: Any, why: str) -> tuple[Any, bool, bool]:
    """The key for NumPy, whether it holds arrays, and whether it holds a mask. CuPy copies an index of the host to the device."""
    parts = key if isinstance(key, tuple) else (key,)
    result, masked, arrays = [], False, False
    for part in parts:
        if isinstance(part, (list, np.ndarray)) and any(isinstance(each, ndarray) for each in part):
            raise IndexError("a list of arrays is no index; stack them")
        if isinstance(part, (ndarray, list, np.ndarray)):
            index = on_host(part) if isinstance(part, ndarray) else np.asarray(part, None if len(np.atleast_1d(part)) else np.int64)
            if not isinstance(part, ndarray):
                counts.copied_to_device(index.nbytes, why)
            masked, arrays = masked or index.dtype == bool, True
            result.append(index)
        elif part is None or part is Ellipsis or isinstance(part, (slice, int, np.integer)):
            result.append(part)
        else:
            raise IndexError(f"an index is an integer, a slice, None, ... or an array of integers or bools, not {part!r}")
    if not any(part is Ellipsis for part in result):
        result.append(Ellipsis)  # NumPy would return a scalar for a full index, CuPy a view of no dimensions
    return tuple(result), arrays, masked


class MemoryPointer:
    """`ndarray.data`: an address, which a kernel takes where the array itself would be refused for its layout."""

    def __init__(self, array: ndarray) -> None:
        self.ptr, self.device_id, self.mem = int(array._array.ctypes.data), array._device, array


class Flags:
    def __init__(self, array: Array) -> None:
        self.c_contiguous, self.f_contiguous, self.owndata = array.flags.c_contiguous, array.flags.f_contiguous, array.base is None
        self.fnc = self.f_contiguous and not self.c_contiguous
        self.forc = self.f_contiguous or self.c_contiguous

    def __getitem__(self, name: str) -> bool:
        return bool(getattr(self, name.lower()))

    def __repr__(self) -> str:
        return "\n".join(f"  {name} : {self[name]}" for name in ("C_CONTIGUOUS", "F_CONTIGUOUS", "OWNDATA"))


class ndarray:
    """`cupy.ndarray`."""

    __slots__ = ("__weakref__", "_array", "_device")
    __hash__ = None  # type: ignore[assignment]
    __array_priority__ = 100
    _array: Array
    _device: int

    def __init__(self, shape: Any, dtype: Any = float, memptr: Any = None, strides: Any = None, order: str = "C") -> None:
        if memptr is not None or strides is not None:
            raise NotImplementedError("an array over given memory exists in CuPy, but not in the stand-in")
        self._array, self._device = memory.empty(shape, stored(dtype), order), device.current()

    @classmethod
    def _of(cls, array: Array) -> ndarray:
        stored(array.dtype)
        self = object.__new__(cls)
        self._array, self._device = memory.owned(array), device.current()
        return self

    def _view(self, array: Array) -> ndarray:
        """Another view of the same memory, on the same device."""
        view = object.__new__(ndarray)
        view._array, view._device = array, self._device
        return view

    # NumPy's protocols

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise TypeError(_REFUSED)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *args: Any, **kwargs: Any) -> Any:
        from minirnn.kernels.emulator import stand_in

        if method != "__call__":
            return NotImplemented
        if isinstance(kwargs.get("out"), tuple) and len(kwargs["out"]) == 1:
            (kwargs["out"],) = kwargs["out"]
        return getattr(stand_in, ufunc.__name__)(*args, **kwargs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        from minirnn.kernels.emulator import stand_in

        home: Any = stand_in.linalg if func.__module__ == "numpy.linalg" else stand_in
        return getattr(home, func.__name__)(*args, **kwargs)

    # What it is

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._array.shape)

    @shape.setter
    def shape(self, shape: Any) -> None:
        self._array = self._array.reshape(shape, copy=False)

    @property
    def T(self) -> ndarray:
        return self._view(self._array.T)

    @property
    def mT(self) -> ndarray:
        return self._view(self._array.mT)

    @property
    def real(self) -> ndarray:
        return self._view(self._array.real)

    @property
    def imag(self) -> ndarray:
        return self._view(self._array.imag) if self._array.dtype.kind == "c" else on_device(self._array.imag)

    @property
    def flags(self) -> Flags:
        return Flags(self._array)

    @property
    def data(self) -> MemoryPointer:
        return MemoryPointer(self)

    @property
    def device(self) -> device.Device:
        return device.Device(self._device)

    @property
    def base(self) -> Any:
        """The array that this one is a view of, or None where the memory is its own, all of it."""
        root = self._array.base
        whole = root is None or (isinstance(root, memory.Memory) and self._array.nbytes == root.end - root.begin)
        return None if whole else root

    dtype = property(lambda self: self._array.dtype)
    ndim = property(lambda self: self._array.ndim)
    size = property(lambda self: self._array.size)
    nbytes = property(lambda self: self._array.nbytes)
    itemsize = property(lambda self: self._array.itemsize)
    strides = property(lambda self: self._array.strides)

    # To the host and back

    def _fetch(self, why: str) -> Array:
        """The numbers for the host, which waits for them."""
        counts.copied_to_host(self._array.nbytes, why)
        return self._array

    def get(self, stream: Any = None, order: Any = "C", out: Any = None, blocking: bool = True) -> Array:
        array = self._fetch("get()")
        if out is None:
            return array.copy(order)
        if type(out) is not np.ndarray or out.dtype != array.dtype or out.shape != array.shape:
            raise TypeError(f"out must be a numpy.ndarray of {array.dtype} and shape {array.shape}")
        out[...] = array
        return out

    def set(self, arr: Array, stream: Any = None) -> None:
        if not isinstance(arr, np.ndarray):
            raise TypeError("set() takes a numpy.ndarray")
        if arr.dtype != self.dtype:
            raise TypeError(f"set(): numbers of {arr.dtype} for an array of {self.dtype}")
        if arr.shape != self.shape:
            raise ValueError(f"set(): an array {arr.shape} for one of {self.shape}")
        counts.copied_to_device(arr.nbytes, "set()")
        self._array[...] = arr

    def item(self) -> Any:
        return self._fetch("item()").item()

    def tolist(self) -> Any:
        return self._fetch("tolist()").tolist()

    def tobytes(self, order: Any = "C") -> bytes:
        return bytes(self._fetch("tobytes()").tobytes(order))

    def __bool__(self) -> bool:
        return bool(self._fetch("bool()"))

    def __int__(self) -> int:
        return int(self._fetch("int()"))

    def __float__(self) -> float:
        return float(self._fetch("float()"))

    def __complex__(self) -> complex:
        return complex(self._fetch("complex()"))

    def __repr__(self) -> str:
        return repr(self._fetch("repr()"))

    def __str__(self) -> str:
        return str(self._fetch("str()"))

    def __format__(self, spec: str) -> str:
        return format(self._fetch("format()"), spec)

    def __reduce__(self) -> Any:
        return ndarray._of, (self.get(),)

    # Parts of it

    def __len__(self) -> int:
        return len(self._array)

    def __iter__(self) -> Iterator[ndarray]:
        if not self.ndim:
            raise TypeError("an array without axes has no elements to go through")
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key: Any) -> ndarray:
        index, arrays, masked = _index(key, "an index of the host")
        if masked:
            counts.synchronised("a mask as an index")
        if not arrays:
            return self._view(self._array[index])
        counts.operation()
        return ndarray._of(np.asarray(on_host(self)[index]))

    def __setitem__(self, key: Any, value: Any) -> None:
        index, arrays, masked = _index(key, "an index of the host")
        if isinstance(value, (list, tuple, np.ndarray)) and np.ndim(value):
            if not arrays:
                raise ValueError("fill() takes one number, and this is a numpy.ndarray of several")
            value = np.asarray(value)
            counts.copied_to_device(value.nbytes, "a value of the host")
        elif not isinstance(value, np.ndarray):
            value = on_host(value)
        if masked and np.size(value) > 1:
            counts.synchronised("a mask as an index")
        counts.operation()
        with np.errstate(all="ignore"):
            on_host(self)[index] = value

    # Methods

    def __getattr__(self, name: str) -> Any:
        if not names.known("ndarray", name):
            raise AttributeError(f"'cupy.ndarray' object has no attribute {name!r}")
        if not callable(getattr(self._array, name, None)):
            raise NotImplementedError(f"cupy.ndarray.{name} exists in CuPy, but not in the stand-in")

        def method(*args: Any, **kwargs: Any) -> Any:
            names.check_call("ndarray", name, args, kwargs)
            return self._call(name, args, kwargs)

        return method

    def _call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        from minirnn.kernels.emulator.functions import compute

        if name in _HOST_INDICES and args and isinstance(args[0], (list, np.ndarray)):
            indices = np.asarray(args[0])
            counts.copied_to_device(indices.nbytes, "an index of the host")
            args = (ndarray._of(indices), *args[1:])
        if name in _WAITING:
            counts.synchronised(f"{name}()")
        if name in ("argmax", "argmin"):
            kwargs.pop("dtype", None)
        method = getattr(type(self._array), name)
        result = compute(method, (self, *args), kwargs)
        if isinstance(result, ndarray) and result._array is self._array:
            return self
        return result

    def scatter_add(self, slices: Any, value: Any) -> None:
        self._scatter(np.add, slices, value)

    def scatter_max(self, slices: Any, value: Any) -> None:
        self._scatter(np.maximum, slices, value)

    def scatter_min(self, slices: Any, value: Any) -> None:
        self._scatter(np.minimum, slices, value)

    def _scatter(self, ufunc: np.ufunc, slices: Any, value: Any) -> None:
        index, _, masked = _index(slices, "an index of the host")
        if masked:
            counts.synchronised("a mask as an index")
        counts.operation()
        if ufunc is np.add and self.dtype.kind not in "iub":
            counts.atomic_operation()
        ufunc.at(on_host(self), index, on_host(value))

    def repeat(self, repeats: Any, axis: int | None = None) -> Any:
        if isinstance(repeats, np.ndarray):
            raise TypeError("repeats: a numpy.ndarray of counts must go to the device first, by cupy.array()")
        if isinstance(repeats, ndarray):
            counts.synchronised("repeat() by an array")
        return self._call("repeat", (repeats, axis), {})

    def fill(self, value: Any) -> None:
        if np.ndim(value._array if isinstance(value, ndarray) else value):
            raise ValueError(
                f"fill() takes one number, and this is a {'cupy' if isinstance(value, ndarray) else 'numpy'}.ndarray of several"
            )
        self[...] = value

    def __copy__(self) -> ndarray:
        return self.copy()  # type: ignore[no-any-return]

    def __deepcopy__(self, memo: Any) -> ndarray:
        return self.copy()  # type: ignore[no-any-return]


def _operator(name: str) -> Callable[..., Any]:
    """An operator of Python: both operands on the device, or one of them a number."""

    def operator(self: ndarray, *others: Any) -> Any:
        from minirnn.kernels.emulator.functions import compute

        for other in others:
            if getattr(other, "__array_ufunc__", ...) is None:
                return NotImplemented  # its own reflected operator does it, as NEP 13 has it
            if not isinstance(other, (ndarray, *SCALARS, type(None))):
                raise TypeError(f"Unsupported type {type(other)}")
        result = compute(getattr(np.ndarray, name), (self, *others), {}, name)
        return self if name.startswith("__i") and name != "__invert__" and result is not NotImplemented else result

    operator.__name__ = name
    return operator


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor", "lshift", "rshift", "divmod"):
    for _side in ("", "r", "i") if _name != "divmod" else ("", "r"):
        setattr(ndarray, f"__{_side}{_name}__", _operator(f"__{_side}{_name}__"))
for _name in ("lt", "le", "gt", "ge", "eq", "ne", "neg", "pos", "abs", "invert"):
    setattr(ndarray, f"__{_name}__", _operator(f"__{_name}__"))
