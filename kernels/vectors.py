"""Whole registers as values of Numba functions: what the compiler's own vectoriser would not make of the loops of a recurrence.

It gives up where a result is written to the array that an argument is read from, and prefers registers of half the width. So a loop over
the H units of a row takes L at a time (L fills a register),

    x, y = load(a, at), load(b, at)             Vectors: + - * / with one another and with numbers, and `at_most`
    store(c, at, x * y + 1, None)

and the last few, where H is no multiple of L, with `left`: how many are left, which is a type of its own (None: all are there), so that
the function which holds the equations is compiled for both. Arrays are C-contiguous, `at` is the index of an element in that order. In
place of an array stands its `pointer` wherever a loop hands it to a function: Numba counts the references to an array, in a number that
all threads share, and counting takes longer than arithmetic.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import extending, njit, types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature

from minirnn.kernels.tile import VECTOR
from minirnn.kernels.tile import _Lanes as Lanes

_extending: Any = extending
_types: Any = types
_overload: Callable[..., Callable[[Any], Any]] = extending.overload
_intrinsic: Callable[[Any], Any] = extending.intrinsic
_infer: Any = infer_global
_typed: Any = signature
_type: Any = types.Type
_template: Any = AbstractTemplate


class Vector(_type):  # type: ignore[misc]
    """A register full of numbers of one dtype."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        super().__init__(name=f"vector({dtype})")

    @property
    def lanes(self) -> int:
        return int(VECTOR * 8 // self.dtype.bitwidth)


@_extending.register_model(Vector)
class _VectorModel(_extending.models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, vector: Any) -> None:
        super().__init__(manager, vector, ir.VectorType(manager.lookup(vector.dtype).get_value_type(), vector.lanes))


def _operands(context: Any, builder: Any, signature: Any, values: Any) -> tuple[Lanes, list[Any]]:
    """All arguments as vectors of the result's type."""
    of = Lanes(context, builder, signature.return_type.dtype)
    pairs = zip(signature.args, values, strict=True)
    return of, [value if isinstance(kind, Vector) else of.everywhere(value) for kind, value in pairs]


def _arithmetic(operation: Any, instruction: str) -> None:
    """One of + - * / for two vectors, or a vector and a number, or a sign. A product and a sum may become one multiply-add."""

    class Template(_template):  # type: ignore[misc]
        def generic(self, args: Any, kws: Any) -> Any:
            vectors = [kind for kind in args if isinstance(kind, Vector)]
            if vectors:
                return _typed(vectors[0], *[kind if isinstance(kind, Vector) else vectors[0].dtype for kind in args])
            return None

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        _, operands = _operands(context, builder, signature, values)
        return getattr(builder, instruction)(*operands, flags=("contract",))

    _infer(operation)(Template)
    for kinds in ((Vector, Vector), (Vector, types.Float), (types.Float, Vector), (Vector,)):
        _extending.lower_builtin(operation, *kinds)(generate)


_arithmetic(operator.add, "fadd")
_arithmetic(operator.sub, "fsub")
_arithmetic(operator.mul, "fmul")
_arithmetic(operator.truediv, "fdiv")
_arithmetic(operator.neg, "fneg")


def _place(context: Any, builder: Any, signature: Any, values: Any) -> tuple[Lanes, Any, Any]:
    """Of (array, at, ..., left): the lanes, the address of the element, and the mask of those that are left, or None."""
    of = Lanes(context, builder, signature.args[0].dtype)
    at = builder.gep(_start(of, signature.args[0], values[0]), [values[1]])
    return of, at, None if isinstance(signature.args[-1], types.NoneType) else of.first(values[-1])


def _left(left: Any) -> Any:
    return left if isinstance(left, types.NoneType) else types.intp


@_intrinsic
def pointer(context: Any, array: Any) -> Any:
    """Where an array begins."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return Lanes(context, builder, array.dtype).pointer(array, values[0])

    return _types.CPointer(array.dtype)(array), generate


def _start(of: Lanes, kind: Any, value: Any) -> Any:
    return of.pointer(kind, value) if isinstance(kind, types.Array) else value


@_intrinsic
def load(context: Any, array: Any, at: Any, left: Any) -> Any:
    """The L numbers from element `at`; of the last `left` of a row the rest of the register is 0."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        of, place, mask = _place(context, builder, signature, values)
        return of.load(place) if mask is None else of.load_where(mask, place)

    return Vector(array.dtype)(array, types.intp, _left(left)), generate


@_intrinsic
def store(context: Any, array: Any, at: Any, vector: Any, left: Any) -> Any:
    """Write a vector, or its first `left` numbers, from element `at` on."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        of, place, mask = _place(context, builder, signature, values)
        if mask is None:
            builder.store(values[2], builder.bitcast(place, of.vector.as_pointer()), align=of.align)
        else:
            of.store_where(mask, values[2], place)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector, _left(left)), generate


@_intrinsic
def fetch(context: Any, array: Any, at: Any) -> Any:
    """Begin to bring element `at` into the caches; it need not exist."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        of, number = Lanes(context, builder, array.dtype), ir.IntType(32)
        name, pointer = "llvm.prefetch.p0", ir.IntType(8).as_pointer()
        known = builder.module.globals.get(name)
        function = known or ir.Function(builder.module, ir.FunctionType(ir.VoidType(), [pointer, number, number, number]), name)
        place = builder.bitcast(builder.gep(_start(of, array, values[0]), [values[1]]), pointer)
        builder.call(function, [place, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


@_intrinsic
def zeros(context: Any, array: Any) -> Any:
    """A register of zeros, of an array's dtype."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return Lanes(context, builder, array.dtype).zero

    return Vector(array.dtype)(array), generate


@_intrinsic
def total(context: Any, vector: Any) -> Any:
    """The sum of the numbers in a register: of its halves, then of their halves, and so on."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        (x,), number = values, ir.IntType(32)
        half = vector.lanes
        while half > 1:
            half //= 2
            low, high = (ir.Constant(ir.VectorType(number, half), list(range(k, k + half))) for k in (0, half))
            x = builder.fadd(builder.shuffle_vector(x, x, low), builder.shuffle_vector(x, x, high))
        return builder.extract_element(x, number(0))

    return vector.dtype(vector), generate


@_intrinsic
def _vector_at_most(context: Any, x: Any, bound: Any, low: Any, other: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        _, (x, bound, low, other) = _operands(context, builder, signature, values)
        return builder.select(builder.fcmp_ordered("<=", x, bound), low, other)

    first = next(kind for kind in (x, bound, low, other) if isinstance(kind, Vector))
    return first(*[kind if isinstance(kind, Vector) else first.dtype for kind in (x, bound, low, other)]), generate


def at_most(x: Any, bound: Any, low: Any, other: Any) -> Any:
    """`low` where x <= bound, `other` elsewhere and where x is NaN. Of numbers or vectors. For Numba functions."""
    return low if x <= bound else other


@_overload(at_most, strict=False)
def _at_most(x: Any, bound: Any, low: Any, other: Any) -> Any:
    if any(isinstance(kind, Vector) for kind in (x, bound, low, other)):
        return lambda x, bound, low, other: _vector_at_most(x, bound, low, other)
    return lambda x, bound, low, other: low if x <= bound else other


@_intrinsic
def shifted_bits(context: Any, x: Any, offset: Any, bits: Any) -> Any:
    """The vector whose bits are those of x, as integers, plus `offset`, shifted to the left."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        lanes = ir.VectorType(ir.IntType(x.dtype.bitwidth), x.lanes)

        def all_lanes(value: Any) -> Any:
            return of.everywhere(builder.trunc(value, lanes.element) if value.type.width > lanes.element.width else value)

        of = Lanes(context, builder, x.dtype)
        whole = builder.add(builder.bitcast(values[0], lanes), all_lanes(values[1]))
        return builder.bitcast(builder.shl(whole, all_lanes(values[2])), values[0].type)

    return x(x, types.int64, types.int64), generate


@njit(error_model="numpy")
def lanes_of(array: Any) -> int:
    """L for the dtype of an array."""
    return int(VECTOR // array.itemsize)
