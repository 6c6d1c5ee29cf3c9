"""Tensor: an array, its gradient, and the operation that made it. Operators only; the work is done in `minirnn.ops`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from minirnn.device import Array, device_of, to_device

if TYPE_CHECKING:
    from minirnn.autograd import Function

Axis: TypeAlias = int | tuple[int, ...] | None


class Tensor:
    """An array that remembers how it was computed.

    data            numpy.ndarray or cupy.ndarray
    grad            None, or a Tensor of the same shape and dtype: dL/d(this), deposited by `backward()` in leaves
    creator, slot   the Function that made it and which of its outputs it is; None for a leaf
    requires_grad   whether gradients flow into it
    """

    __slots__ = ("__weakref__", "creator", "data", "grad", "hooks", "requires_grad", "slot")
    __array_ufunc__ = None  # so that array * tensor asks the Tensor

    def __init__(self, data: Array, requires_grad: bool = False, creator: Function | None = None, slot: int = 0) -> None:
        if isinstance(data, Tensor):
            raise TypeError("Tensor(tensor): it is one already; use .detach() or .clone()")
        self.data = data if hasattr(data, "dtype") and hasattr(data, "ndim") else np.asarray(data)
        if requires_grad and self.data.dtype.kind not in "fc":
            raise TypeError(f"requires_grad needs a floating-point tensor, got {self.data.dtype}")
        self.grad: Tensor | None = None
        self.creator = creator
        self.slot = slot
        self.requires_grad = requires_grad
        self.hooks: list[Callable[[Tensor], Tensor | None]] = []

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape  # type: ignore[no-any-return]

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.data.dtype  # type: ignore[no-any-return]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return int(self.data.size)

    @property
    def device(self) -> str:
        return device_of(self.data)

    @property
    def is_leaf(self) -> bool:
        return self.creator is None

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
        return self + 0

    def requires_grad_(self, on: bool = True) -> Tensor:
        """Set `requires_grad` of a leaf, in place."""
        if self.creator is not None:
            raise RuntimeError("requires_grad_() is for leaves; this tensor was computed, use .detach() first")
        if on and self.dtype.kind not in "fc":
            raise TypeError(f"requires_grad needs a floating-point tensor, got {self.dtype}")
        self.requires_grad = on
        return self

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> Callable[[], None]:
        """Call `hook(grad)` when this tensor's gradient is complete; what it returns, unless None, replaces the gradient.

        Returns a function that removes the hook.
        """
        if not self.requires_grad:
            raise RuntimeError("register_hook: this tensor has requires_grad=False, no gradient will ever arrive")
        hooks = self.hooks if self.creator is None else self.creator.hooks.setdefault(self.slot, [])
        hooks.append(hook)
        return lambda: hooks.remove(hook)

    def retain_grad(self) -> Tensor:
        """Keep the gradient of a tensor that was computed in its `.grad`, too."""

        def keep(grad: Tensor) -> None:
            self.grad = grad if self.grad is None else self.grad + grad

        if self.creator is not None:
            self.register_hook(keep)
        return self

    def numpy(self) -> Any:
        """The data as a NumPy array: shared on the CPU, copied from a GPU."""
        return to_device(self.data, "cpu")

    def item(self) -> float:
        """The only element, as a Python number."""
        return self.data.item()  # type: ignore[no-any-return]

    def to(self, target: Any) -> Tensor:
        """On another device ("cpu", "cuda:0") or in another floating dtype; gradients flow back."""
        if isinstance(target, str) and target.partition(":")[0] in ("cpu", "cuda"):
            return ops.to_device(self, target)
        return ops.cast(self, np.dtype(target))

    def __repr__(self) -> str:
        made = f", creator={type(self.creator).__name__}" if self.creator else ", requires_grad=True" if self.requires_grad else ""
        return f"Tensor({np.array2string(self.numpy(), separator=', ', prefix='Tensor(', threshold=50)}, dtype={self.dtype}{made})"

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a 0-dimensional Tensor")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[k] for k in range(len(self)))

    def __float__(self) -> float:
        return float(self.item())

    def __bool__(self) -> bool:
        return bool(self.data)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __getitem__(self, index: Any) -> Tensor:
        return ops.getitem(self, index)

    def __neg__(self) -> Tensor:
        return ops.neg(self)

    def __add__(self, other: Any) -> Tensor:
        return ops.add(self, other)

    def __sub__(self, other: Any) -> Tensor:
        return ops.sub(self, other)

    def __mul__(self, other: Any) -> Tensor:
        return ops.mul(self, other)

    def __truediv__(self, other: Any) -> Tensor:
        return ops.div(self, other)

    def __pow__(self, exponent: Any) -> Tensor:
        return ops.pow(self, exponent)

    def __matmul__(self, other: Any) -> Tensor:
        return ops.matmul(self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return ops.sub(other, self)

    def __rtruediv__(self, other: Any) -> Tensor:
        return ops.div(other, self)

    def __rmatmul__(self, other: Any) -> Tensor:
        return ops.matmul(other, self)

    __radd__, __rmul__ = __add__, __mul__

    def __lt__(self, other: Any) -> Tensor:
        return Tensor(self.data < _data(other))

    def __le__(self, other: Any) -> Tensor:
        return Tensor(self.data <= _data(other))

    def __gt__(self, other: Any) -> Tensor:
        return Tensor(self.data > _data(other))

    def __ge__(self, other: Any) -> Tensor:
        return Tensor(self.data >= _data(other))

    def exp(self) -> Tensor:
        return ops.exp(self)

    def log(self) -> Tensor:
        return ops.log(self)

    def sqrt(self) -> Tensor:
        return ops.sqrt(self)

    def tanh(self) -> Tensor:
        return ops.tanh(self)

    def sigmoid(self) -> Tensor:
        return ops.sigmoid(self)

    def relu(self) -> Tensor:
        return ops.relu(self)

    def sum(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return ops.sum(self, axis, keepdims)

    def mean(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return ops.mean(self, axis, keepdims)

    def max(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return ops.max(self, axis, keepdims)

    def reshape(self, *shape: Any) -> Tensor:
        return ops.reshape(self, shape[0] if len(shape) == 1 and isinstance(shape[0], Sequence) else shape)

    def transpose(self, *axes: int) -> Tensor:
        return ops.transpose(self, axes or None)

    def swapaxes(self, a: int, b: int) -> Tensor:
        return ops.swapaxes(self, a, b)


def _data(x: Any) -> Any:
    return x.data if isinstance(x, Tensor) else x


def tensor(data: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """A new leaf from numbers, nested lists or an array (copied).

    Without `dtype`, Python floats become float32 and an array keeps its own dtype.
    """
    if isinstance(data, Tensor):
        data = data.data
    if dtype is None and not hasattr(data, "dtype") and np.asarray(data).dtype == np.float64:
        dtype = np.float32
    on_device = hasattr(data, "dtype") and not isinstance(data, (np.ndarray, np.generic))
    return Tensor(data.astype(dtype or data.dtype) if on_device else np.array(data, dtype=dtype), requires_grad)


# The operators need the operations and the operations need Tensor: Tensor first, then they.
from minirnn import autograd, ops  # noqa: E402
