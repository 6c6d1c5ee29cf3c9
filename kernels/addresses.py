"""Many arrays for one compiled function: as a table of their addresses. For Numba functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from numba import extending, types

from minirnn.kernels.compiling import compiled
from minirnn.kernels.contract import Array

_intrinsic: Callable[[Any], Any] = extending.intrinsic
_types: Any = types
_numba: Any = numba
carray = _numba.carray


@_intrinsic
def pointer(context: Any, address: Any, like: Any) -> Any:
    """The address of numbers of the dtype of the array `like`, as a pointer for `numba.carray(pointer, shape)`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return _types.CPointer(like.dtype)(address, like), generate


def address(array: Array) -> int:
    """Where a dense array's numbers begin; `array.ctypes.data`, which takes a microsecond, in a quarter."""
    return _address(array.ravel("K"))  # type: ignore[no-any-return]


@compiled()
def _address(flat: Array) -> Any:
    return flat.ctypes.data
