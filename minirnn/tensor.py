"""Tensor: an array, its gradient, and the operation that made it. Operators only; the work is done in `minirnn.ops`."""

from __future__ import annotations

import importlib
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias
from weakref import ref

import numpy as np

from minirnn.device import NAMES, Array, beside, device_of, here, is_array, is_device_name, is_floating, to_device

if TYPE_CHECKING:
    from minirnn.autograd import Function

Axis: TypeAlias = int | tuple[int, ...] | None
Hook: TypeAlias = Callable[["Tensor"], "Tensor | None"]


def _operator(name: str, reflected: bool = False) -> Callable[..., Tensor]:
    """The method that applies the operation `minirnn.ops.<name>`, with its two operands exchanged if `reflected`."""
    if reflected:
        return lambda self, other: getattr(ops, name)(other, self)
    return lambda self, *others: getattr(ops, name)(self, *others)


def _function(name: str) -> Callable[..., Tensor]:
    """The method without operands that applies the operation `minirnn.ops.<name>`."""

    def method(self: Tensor) -> Tensor:
        return getattr(ops, name)(self)  # type: ignore[no-any-return]

    method.__name__, method.__doc__ = name, f"See `minirnn.ops.{name}`."
    return method


def _comparison(compare: Callable[[Any, Any], Any]) -> Callable[..., Tensor]:
    """The method that compares element by element: a Tensor of booleans, which has no gradient."""
    return lambda self, other: Tensor(compare(self.data, other.data if isinstance(other, Tensor) else _operand(other, self.data)))


def _operand(other: Any, like: Array) -> Any:
    return beside(other, like) if is_array(other) else other


class Tensor:
    """An array that remembers how it was computed.

    data            numpy.ndarray, cupy.ndarray, or an emulated one (see minirnn.device)
    grad            None, or a Tensor of the same shape and dtype: dL/d(this), deposited by `backward()` in leaves
    creator, slot   the Function that made it and which of its outputs it is; None for a leaf
    requires_grad   whether gradients flow into it

    Operators and methods are NumPy's. `==` and `hash` go by identity; compare `.data` for equal numbers.
    """

    __slots__ = ("__weakref__", "creator", "data", "grad", "hooks", "requires_grad", "slot")
    __array_ufunc__ = None  # so that array * tensor asks the Tensor

    def __init__(self, data: Array, requires_grad: bool = False, creator: Function | None = None, slot: int = 0) -> None:
        if type(data) is not np.ndarray:  # the usual case first: this is called for every result
            if isinstance(data, Tensor):
                raise TypeError("Tensor(tensor): it is one already; use .detach() or .clone()")
            data = data if is_array(data) else np.asarray(data)
        if requires_grad and not is_floating(data.dtype):
            raise TypeError(f"requires_grad needs a floating-point tensor, got {data.dtype}")
        self.data = data
        self.grad: Tensor | None = None
        self.creator = creator
        self.slot = slot
        self.requires_grad = requires_grad
        self.hooks: list[Hook] = []

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each axis."""
        return self.data.shape  # type: ignore[no-any-return]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the elements, as NumPy names it."""
        return self.data.dtype  # type: ignore[no-any-return]

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.data.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return int(self.data.size)

    @property
    def device(self) -> str:
        """Where the data live: "cpu", "cuda:<index>" or "emulated"."""
        return device_of(self.data)

    @property
    def T(self) -> Tensor:
        """The transpose: the axes in reverse order."""
        return ops.transpose(self)

    def backward(self, grad: Tensor | Array | None = None, *, retain_graph: bool | None = None, create_graph: bool = False) -> None:
        """Add the gradient of this scalar to `.grad` of every leaf it was computed from.

        grad          dL/d(this), for a tensor that is not a scalar
        retain_graph  keep what the operations saved, so that the graph can be gone through again (default: only with create_graph)
        create_graph  record the backward pass itself, so that the gradients can be differentiated
        """
        autograd.backward(self, None if grad is None else ops.as_tensor(grad, like=self), retain_graph, create_graph)

    def detach(self) -> Tensor:
        """The same data (shared), outside the graph: the end of the path for gradients, as between two chunks of truncated BPTT."""
        return Tensor(self.data)

    def clone(self) -> Tensor:
        """A copy, still on the tape."""
        return self + False  # zero in every dtype, booleans stay booleans

    def requires_grad_(self, on: bool = True) -> Tensor:
        """Set `requires_grad` of a leaf, in place."""
        if self.creator is not None:
            raise RuntimeError("requires_grad_() is for leaves; this tensor was computed, use .detach() first")
        self.requires_grad = Tensor(self.data, on).requires_grad
        return self

    def register_hook(self, hook: Hook) -> Callable[[], None]:
        """Call `hook(grad)` when this tensor's gradient is complete; what it returns, unless None, replaces the gradient.

        Returns a function that removes the hook.
        """
        if not self.requires_grad:
            raise RuntimeError("register_hook: this tensor has requires_grad=False, no gradient will ever arrive")
        hooks = self.hooks if self.creator is None else self.creator.hooks.setdefault(self.slot, [])
        hooks.append(hook)
        return lambda: hooks.remove(hook)

    def retain_grad(self) -> Tensor:
        """Keep the gradient of a tensor that was computed in its `.grad`, as it is kept for a leaf."""
        here = ref(self)  # the hook belongs to the creator: with a strong reference tensor and creator would keep each other alive

        def keep(grad: Tensor) -> None:
            if (tensor := here()) is not None:
                tensor.grad = grad.clone() if tensor.grad is None else tensor.grad + grad

        if self.creator is not None:
            self.register_hook(keep)
        return self

    def numpy(self) -> Any:
        """The data as a NumPy array: shared on the CPU, copied from another device, for which it waits."""
        return to_device(self.data, "cpu")

    def item(self) -> float:
        """The only element, as a Python number."""
        return self.data.item()  # type: ignore[no-any-return]

    def to(self, target: Any) -> Tensor:
        """On another device ("cpu", "cuda", "cuda:0", "emulated") or in another floating dtype; gradients flow back.

        "bfloat16" is for devices: NumPy stores it, and computes what it meets beside a number in float32.
        """
        if is_device_name(target):
            return ops.to_device(self, target)
        return ops.cast(self, _dtype(target))

    def __repr__(self) -> str:
        made = f", creator={type(self.creator).__name__}" if self.creator else ", requires_grad=True" if self.requires_grad else ""
        made = made if self.device == "cpu" else f", device={self.device}{made}"
        return f"Tensor({np.array2string(self.numpy(), separator=', ', prefix='Tensor(', threshold=50)}, dtype={self.dtype}{made})"

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[k] for k in range(len(self)))

    def __float__(self) -> float:
        return float(self.data)

    def __bool__(self) -> bool:
        return bool(self.data)

    def __format__(self, spec: str) -> str:
        """One number formats as it does in Python."""
        return format(self.item(), spec) if spec and self.size == 1 else format(str(self), spec)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __getitem__(self, index: Any) -> Tensor:
        return ops.getitem(self, index)

    __neg__ = _operator("neg")
    __add__ = __radd__ = _operator("add")
    __sub__, __rsub__ = _operator("sub"), _operator("sub", reflected=True)
    __mul__ = __rmul__ = _operator("mul")
    __truediv__, __rtruediv__ = _operator("div"), _operator("div", reflected=True)
    __matmul__, __rmatmul__ = _operator("matmul"), _operator("matmul", reflected=True)
    __pow__ = _operator("pow")

    __lt__, __le__ = _comparison(operator.lt), _comparison(operator.le)
    __gt__, __ge__ = _comparison(operator.gt), _comparison(operator.ge)

    exp, log, sqrt = _function("exp"), _function("log"), _function("sqrt")
    tanh, sigmoid, relu = _function("tanh"), _function("sigmoid"), _function("relu")

    def sum(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """See `minirnn.ops.sum`."""
        return ops.sum(self, axis, keepdims)

    def mean(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """See `minirnn.ops.mean`."""
        return ops.mean(self, axis, keepdims)

    def max(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """See `minirnn.ops.max`."""
        return ops.max(self, axis, keepdims)

    def reshape(self, *shape: Any) -> Tensor:
        """The same elements, in C order, in another shape, of which one number may be -1: `x.reshape(2, -1)`, or a tuple."""
        return ops.reshape(self, shape[0] if len(shape) == 1 and isinstance(shape[0], Sequence) else shape)

    def transpose(self, *axes: int) -> Tensor:
        """The axes in another order, reversed if none is given: `x.transpose(1, 0)`, or a tuple."""
        return ops.transpose(self, axes or None)

    def swapaxes(self, a: int, b: int) -> Tensor:
        """With the axes a and b in each other's place."""
        return ops.swapaxes(self, a, b)


def _dtype(target: Any) -> np.dtype[Any]:
    """The dtype that `.to(target)` means."""
    dtype: np.dtype[Any] | None = None
    with suppress(TypeError, ImportError):
        dtype = np.dtype(importlib.import_module("ml_dtypes").bfloat16 if target == "bfloat16" else target)
    if dtype is None or not (dtype.kind in "biu" or is_floating(dtype)):
        package = "; bfloat16 needs the package ml_dtypes, pip install ml_dtypes" if target == "bfloat16" else ""
        raise TypeError(f"to: {target!r} is neither a device ({NAMES}) nor a dtype of numbers{package}")
    return dtype


def tensor(data: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """A new leaf from numbers, nested lists or an array (copied).

    Without `dtype`, Python floats become float32 and an array keeps its own dtype. It lives on the device of the innermost
    `with minirnn.device(...):`, the CPU outside of all; an array of another device stays where it is.
    """
    array = data.data if isinstance(data, Tensor) else data if is_array(data) else np.asarray(data)
    if dtype is None:
        dtype = np.float32 if array.dtype == np.float64 and not hasattr(data, "dtype") else array.dtype
    return Tensor(here(array.astype(dtype)), requires_grad)


# The operators need the operations and the operations need Tensor: Tensor first, then they.
from minirnn import autograd, ops  # noqa: E402
