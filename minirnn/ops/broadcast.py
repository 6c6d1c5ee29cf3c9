"""Repeating a tensor along axes, and summing it over them: each is the other's derivative."""

from __future__ import annotations

from minirnn.autograd import Function
from minirnn.device import Array
from minirnn.tensor import Tensor


class BroadcastTo(Function):
    """y = x repeated to `shape` (a view)        dx = dy summed over the repeats"""

    shape: tuple[int, ...]

    def forward(self, x: Array) -> Array:
        return self.xp.broadcast_to(x, self.shape)

    def backward(self, dy: Tensor) -> Tensor:
        return sum_to(dy, self.inputs[0].shape)

    def flops(self) -> int:
        return 0


class SumTo(Function):
    """y = x summed over the axes along which `shape` would be broadcast to x's        dx = dy repeated"""

    shape: tuple[int, ...]

    def forward(self, x: Array) -> Array:
        lead = x.ndim - len(self.shape)
        stretched = [lead + k for k, n in enumerate(self.shape) if n == 1 and x.shape[lead + k] != 1]
        return x.sum((*range(lead), *stretched), keepdims=True).reshape(self.shape)

    def backward(self, dy: Tensor) -> Tensor:
        return broadcast_to(dy, self.inputs[0].shape)

    def flops(self) -> int:
        return self.inputs[0].size


def broadcast_to(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """x repeated along new leading axes and along its axes of length 1."""
    if x.shape == shape:
        return x
    if not fits(x.shape, shape):
        raise ValueError(f"broadcast_to: x {x.shape} cannot be repeated to {shape}: its axes must be equal to the last of these, or 1")
    return BroadcastTo.apply(x, shape=shape)


def sum_to(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The sum over the axes along which a tensor of `shape` would be broadcast to x."""
    if x.shape == shape:
        return x
    if not fits(shape, x.shape):
        raise ValueError(f"sum_to: shape {shape} must be one that broadcasts to x {x.shape}")
    return SumTo.apply(x, shape=shape)


def fits(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Whether an array of `shape` can be broadcast to `target`."""
    ahead = len(target) - len(shape)
    return ahead >= 0 and all(n in (1, m) for n, m in zip(shape, target[ahead:], strict=True))
