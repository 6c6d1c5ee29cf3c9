"""Many arrays for one compiled function: as a table of their addresses. For Numba functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from numba import extending, types

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
