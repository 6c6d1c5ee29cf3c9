"""The stand-in's functions. A function of CuPy's is NumPy's function of that name, called with CuPy's parameters on arrays of the device;
below are the ones that differ."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from minirnn.kernels.emulator import counts, names
from minirnn.kernels.emulator.arrays import SCALARS, Array, ndarray, on_device, on_host, stored

# Sums of 16-bit numbers are taken in float32 and rounded once, as CuPy and cuBLAS do.
_SUMS = {
    *("sum", "mean", "prod", "cumsum", "cumprod", "var", "std", "trace", "average", "nansum", "nanmean"),
    *("dot", "matmul", "__matmul__", "__rmatmul__", "einsum", "tensordot", "inner", "convolve", "norm"),
}
# The size of the result depends on the numbers, or the numbers are checked: the host waits.
_WAITING = {
    *("argwhere", "bincount", "compress", "delete", "digitize", "extract", "flatnonzero", "histogram", "intersect1d", "interp", "nonzero"),
    *(
        "place",
        "setdiff1d",
        "setxor1d",
        "trim_zeros",
        "union1d",
        "unique",
        "unique_all",
        "unique_counts",
        "unique_inverse",
        "unique_values",
    ),
}
_PRODUCTS = {"matmul", "__matmul__", "__rmatmul__"}
_VIEWS = {"broadcast_to", "diagonal", "expand_dims", "moveaxis", "ravel", "reshape", "rollaxis", "squeeze", "swapaxes", "transpose", "view"}
_ARRAY_PARAMETERS = {"a", "A", "ar", "ar1", "arr", "array", "ary", "x"}
_OF_ANYTHING = {
    "can_cast",
    "get_array_module",
    "isscalar",
    "iscomplexobj",
    "isrealobj",
    "min_scalar_type",
    "ndim",
    "result_type",
    "shape",
    "size",
}
_JOINING = {"column_stack", "concat", "concatenate", "dstack", "hstack", "row_stack", "stack", "vstack"}


def compute(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], name: str = "") -> Any:
    """NumPy's function on what lies behind the arrays; quietly, for a GPU warns of no overflow."""
    name = name or function.__name__
    if name not in _VIEWS:
        counts.operation()
    arguments, keywords = on_host(args), on_host(kwargs)
    narrow, out = _narrow_dtype(arguments, keywords), kwargs.get("out")
    if name in _PRODUCTS and narrow is not None and narrow.kind == "V" and max(each.ndim for each in _arrays(arguments)) > 2:
        raise TypeError(f"CuPy has no batched product of {narrow}")
    with np.errstate(all="ignore"):
        if narrow is None or out is not None:
            result = function(*arguments, **keywords)
        elif name in _SUMS:
            if name in _PRODUCTS and all(each.ndim == 2 for each in arguments) and arguments[0].shape[0] == arguments[1].shape[-1] == 1:
                arguments = (arguments[0] * arguments[1].T, np.ones_like(arguments[1]))  # of one number CuPy adds up the rounded products
            result = _rounded(function(*_widened(arguments), **keywords), narrow)
        else:
            result = _rounded(_with_loops(function, arguments, keywords), narrow)
    return out if isinstance(out, ndarray) else on_device(result)


def _narrow_dtype(arguments: Any, keywords: dict[str, Any]) -> Any:
    """The 16-bit floating dtype that all floating arrays among the arguments have, or None, as where a dtype is asked for."""
    if keywords.get("dtype") is not None or any(isinstance(each, (type, np.dtype)) for each in arguments):
        return None
    dtypes = {each.dtype for each in _arrays(arguments) if each.dtype.kind not in "biu"}
    (dtype,) = dtypes if len(dtypes) == 1 else (None,)
    return dtype if dtype is not None and dtype.itemsize == 2 else None


def _arrays(arguments: Any) -> list[Array]:
    found: list[Array] = []
    for each in arguments:
        if isinstance(each, (np.ndarray, np.generic)):
            found.append(each)
        elif isinstance(each, (list, tuple)):
            found += _arrays(each)
    return found


def _widened(arguments: Any) -> Any:
    """Every 16-bit array as float32."""
    if isinstance(arguments, np.ndarray):
        return arguments.astype(np.float32) if arguments.dtype.itemsize == 2 and arguments.dtype.kind not in "iu" else arguments
    return type(arguments)(map(_widened, arguments)) if isinstance(arguments, (list, tuple)) else arguments


def _rounded(result: Any, dtype: Any) -> Any:
    if isinstance(result, tuple):
        return tuple(_rounded(each, dtype) for each in result)
    return np.asarray(result).astype(dtype) if getattr(result, "dtype", None) == np.float32 else result


def _with_loops(function: Callable[..., Any], arguments: Any, keywords: dict[str, Any]) -> Any:
    """The function of 16-bit arrays; where NumPy has no loop for bfloat16, of float32."""
    try:
        return function(*arguments, **keywords)
    except TypeError:
        return function(*_widened(arguments), **keywords)


def function(section: str, home: Any, name: str) -> Callable[..., Any]:
    """CuPy's function `name`, made of NumPy's in the module `home`."""
    numpy_function = getattr(home, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        names.check_call(section, name, args, kwargs)
        if name in _OF_ANYTHING:
            return numpy_function(*_behind(args), **kwargs)
        _check_arrays(section, name, args, kwargs)
        if name in _WAITING:
            counts.synchronised(f"{name}()")
        kwargs.pop("blocking", None)
        return compute(numpy_function, args, kwargs, name)

    call.__name__ = name
    return call


def _behind(args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(each._array if isinstance(each, ndarray) else each for each in args)


def _check_arrays(section: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """CuPy's functions take arrays of the device, and no lists in their place."""
    if name in _JOINING:
        joined = args[0] if args else kwargs.get("tup")
        if isinstance(joined, ndarray) or not all(isinstance(each, ndarray) for each in joined or ()):
            raise TypeError("every part must be a cupy.ndarray")
    signature = names.signature(section, name)
    first = next(iter(signature.parameters), "") if signature else ""
    if args and first in _ARRAY_PARAMETERS and not isinstance(args[0], ndarray):
        raise TypeError(f"{name}() takes a cupy.ndarray, got {type(args[0])}")


def to_device(value: Any, dtype: Any = None, order: Any = None, why: str = "asarray()") -> ndarray:
    """A new array of the device from anything: arrays of the host, numbers, and lists of them or of arrays of the device."""
    if isinstance(value, np.ndarray):
        source = value
    elif isinstance(value, ndarray):
        source = value._array  # arrays of other devices may be copied
    else:
        source = on_host(value)
    array = np.array(source, dtype=dtype, order=order or "K")
    stored(array.dtype)
    if not isinstance(value, ndarray) and not (isinstance(value, (list, tuple)) and value and isinstance(value[0], ndarray)):
        counts.copied_to_device(array.nbytes, why)
    counts.operation()
    return ndarray._of(array)


def array(
    obj: Any, dtype: Any = None, copy: Any = True, order: Any = "K", subok: bool = False, ndmin: int = 0, *, blocking: bool = False
) -> Any:
    if not copy and isinstance(obj, ndarray) and obj.ndim >= ndmin and dtype in (None, obj.dtype):
        return obj
    result = to_device(obj, dtype, order, "array()")
    return result.reshape((1,) * max(0, ndmin - result.ndim) + result.shape)


def asarray(a: Any, dtype: Any = None, order: Any = None, *, copy: Any = None, blocking: bool = False) -> Any:
    here = isinstance(a, ndarray) and a.device.id == ndarray(()).device.id
    if here and (dtype is None or np.dtype(dtype) == a.dtype) and not copy and order in (None, "K", "A"):
        return a
    return to_device(a, dtype, order)


def asanyarray(a: Any, dtype: Any = None, order: Any = None, *, copy: Any = None, blocking: bool = False) -> Any:
    return asarray(a, dtype, order, copy=copy)


def ascontiguousarray(a: Any, dtype: Any = None) -> Any:
    if isinstance(a, ndarray) and a.flags.c_contiguous and dtype in (None, a.dtype):
        return a
    return to_device(a, dtype, "C", "ascontiguousarray()")


def asfortranarray(a: Any, dtype: Any = None) -> Any:
    return to_device(a, dtype, "F", "asfortranarray()")


def asnumpy(a: Any, stream: Any = None, order: Any = "C", out: Any = None, *, blocking: bool = True) -> Array:
    return a.get(order=order, out=out) if isinstance(a, ndarray) else np.asarray(a, order=order)


def empty(shape: Any, dtype: Any = float, order: Any = "C") -> ndarray:
    return ndarray(on_host(shape), dtype, order=order)


def empty_like(prototype: Any, dtype: Any = None, order: Any = "K", subok: Any = None, shape: Any = None) -> ndarray:
    array = prototype._array if isinstance(prototype, ndarray) else prototype
    if order in "KA":
        order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    return ndarray(array.shape if shape is None else shape, array.dtype if dtype is None else dtype, order=order)


def full(shape: Any, fill_value: Any, dtype: Any = None, order: Any = "C") -> ndarray:
    value = fill_value._array if isinstance(fill_value, ndarray) else fill_value
    result = empty(shape, np.result_type(np.asarray(value)) if dtype is None else dtype, order)
    result.fill(fill_value)
    return result


def full_like(a: Any, fill_value: Any, dtype: Any = None, order: Any = "K", subok: Any = None, shape: Any = None) -> ndarray:
    result = empty_like(a, dtype, order, subok, shape)
    result.fill(fill_value)
    return result


def zeros(shape: Any, dtype: Any = float, order: Any = "C") -> ndarray:
    return full(shape, 0, dtype, order)


def ones(shape: Any, dtype: Any = float, order: Any = "C") -> ndarray:
    return full(shape, 1, dtype, order)


def zeros_like(a: Any, dtype: Any = None, order: Any = "K", subok: Any = None, shape: Any = None) -> ndarray:
    return full_like(a, 0, dtype, order, subok, shape)


def ones_like(a: Any, dtype: Any = None, order: Any = "K", subok: Any = None, shape: Any = None) -> ndarray:
    return full_like(a, 1, dtype, order, subok, shape)


def where(condition: Any, x: Any = None, y: Any = None) -> Any:
    if x is None and y is None:
        counts.synchronised("where() of one argument")
        return compute(np.where, (condition,), {})
    for each in (condition, x, y):
        if not isinstance(each, (ndarray, *SCALARS)):
            raise TypeError(f"Unsupported type {type(each)}")
    result = compute(np.where, (condition, x, y), {})
    return result.astype(np.float32) if result.dtype.kind == "V" else result  # CuPy has no loop of it for bfloat16


def vdot(a: Any, b: Any) -> Any:
    """The products are rounded to what the arrays hold, and then added."""
    product = _array("vdot", a).ravel().conj() * _array("vdot", b).ravel()
    return product.sum()


def _array(name: str, a: Any) -> ndarray:
    if not isinstance(a, ndarray):
        raise TypeError(f"{name}() takes a cupy.ndarray, got {type(a)}")
    return a


def take(a: Any, indices: Any, axis: Any = None, out: Any = None) -> Any:
    return _array("take", a).take(indices, axis=axis, out=out)


def repeat(a: Any, repeats: Any, axis: Any = None) -> Any:
    return _array("repeat", a).repeat(repeats, axis)


def argmax(a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Any:
    return _array("argmax", a).argmax(axis=axis, out=out, keepdims=keepdims)


def argmin(a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Any:
    return _array("argmin", a).argmin(axis=axis, out=out, keepdims=keepdims)


def _splitting(name: str) -> Callable[..., Any]:
    """Sections and indices are the host's: their number is the number of arrays that come out."""

    def call(ary: Any, indices_or_sections: Any, axis: int = 0) -> Any:
        if isinstance(indices_or_sections, ndarray):
            raise TypeError("an array of the device is no integer; int() reads it")
        return compute(getattr(np, name), (_array(name, ary), _listed(indices_or_sections), axis), {}, name)

    return call


def _listed(indices: Any) -> Any:
    return indices.tolist() if isinstance(indices, np.ndarray) else indices


split, array_split = _splitting("split"), _splitting("array_split")


def array_equal(a1: Any, a2: Any, equal_nan: bool = False) -> Any:
    return compute(lambda x, y: np.asarray(np.array_equal(x, y, equal_nan)), (a1, a2), {}, "array_equal")


def allclose(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Any:
    return compute(lambda x, y: np.asarray(np.allclose(x, y, rtol, atol, equal_nan)), (a, b), {}, "allclose")


def shares_memory(a: Any, b: Any, max_work: Any = None) -> bool:
    return np.shares_memory(*on_host((a, b)))


def may_share_memory(a: Any, b: Any, max_work: Any = None) -> bool:
    return np.may_share_memory(*on_host((a, b)))


def fuse(*args: Any, **kwargs: Any) -> Any:
    """`cupy.fuse`: several operations in one kernel, which changes no result."""
    return args[0] if args and callable(args[0]) else lambda function: function


class Ufunc:
    """`cupy.ufunc`: fewer methods than NumPy's, and those that add are atomic."""

    def __init__(self, name: str) -> None:
        self._ufunc: np.ufunc = getattr(np, name)
        self.name, self.__name__ = f"cupy_{name}", name
        self.nin, self.nout, self.nargs = self._ufunc.nin, self._ufunc.nout, self._ufunc.nargs
        self.types = names.frozen()["ufuncs"].get(name, [])

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if unknown := set(kwargs) - {"out", "dtype", "casting", "where"}:
            raise TypeError(f"{self.name} takes no arguments named {', '.join(sorted(unknown))}")
        if not self.nin <= len(args) <= self.nargs:
            raise TypeError(f"{self.name} takes {self.nin} arguments, or {self.nargs} with its outputs, got {len(args)}")
        for each in args:
            if not isinstance(each, (ndarray, *SCALARS)):
                raise TypeError(f"Unsupported type {type(each)}")
        if "where" in kwargs and kwargs.get("out") is None:
            return self._where(kwargs.pop("where"), args, kwargs)
        out = kwargs.get("out", args[self.nin] if len(args) > self.nin else None)
        if not isinstance(out, (ndarray, tuple, type(None))):
            raise TypeError(f"out must be a cupy.ndarray, got {type(out)}")
        result = compute(self._ufunc, args, kwargs, self.__name__)
        return out if isinstance(out, ndarray) else result

    def _where(self, condition: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result where the condition holds; elsewhere it is what was in that memory before."""
        result = self(*args, **kwargs)
        return where(condition, result, empty(result.shape, result.dtype))

    def _only(self, method: str, *allowed: str) -> None:
        if self.__name__ not in allowed:
            raise NotImplementedError(f"CuPy has no {method} of {self.__name__}")

    def reduce(self, array: Any, axis: Any = 0, dtype: Any = None, out: Any = None, keepdims: bool = False) -> Any:
        self._only("reduce", "add", "multiply")
        return {"add": array.sum, "multiply": array.prod}[self.__name__](axis, dtype, out, keepdims)

    def accumulate(self, array: Any, axis: Any = 0, dtype: Any = None, out: Any = None) -> Any:
        self._only("accumulate", "add", "multiply")
        return {"add": array.cumsum, "multiply": array.cumprod}[self.__name__](axis, dtype, out)

    def outer(self, A: Any, B: Any, **kwargs: Any) -> Any:
        return compute(self._ufunc.outer, (A, B), kwargs, self.__name__)

    def at(self, a: ndarray, indices: Any, b: Any = None) -> None:
        self._only("at", "add", "subtract", "maximum", "minimum", "bitwise_and", "bitwise_or", "bitwise_xor")
        if self.__name__ == "subtract" and a.dtype not in (np.int32, np.uint32):
            raise TypeError(f"subtract.at: CuPy takes int32 and uint32, got {a.dtype}")
        a._scatter(self._ufunc, indices, b)


@cache
def ufunc(name: str) -> Ufunc:
    return Ufunc(name)
