"""Operations on each element by itself. Operands broadcast as in NumPy; scalars take the other operand's dtype."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minirnn import device
from minirnn.autograd import Function
from minirnn.device import Array
from minirnn.ops.reduction import sum_to
from minirnn.tensor import Tensor


def as_tensor(x: Any, like: Tensor | None = None) -> Tensor:
    """x as a Tensor. A Python number, or an integer array beside a floating `like`, takes the dtype and device of `like`."""
    if isinstance(x, Tensor):
        return x
    if like is None:
        return Tensor(np.asarray(x, dtype=np.float32 if isinstance(x, float) else None))
    xp = device.array_module(like.data)
    dtype = like.dtype if not hasattr(x, "dtype") or x.dtype.kind in "biu" else None
    return Tensor(xp.asarray(x, dtype=dtype))


def pair(a: Any, b: Any) -> tuple[Tensor, Tensor]:
    """Both as Tensors, where at least one is one already."""
    return (a, as_tensor(b, like=a)) if isinstance(a, Tensor) else (as_tensor(a, like=b), as_tensor(b))


class Elementwise(Function):
    """An operation whose operands broadcast: the gradient of an operand is summed over the axes along which it was repeated."""

    def gradients(self, grads: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        found = zip(super().gradients(grads), self.inputs, self.needs, strict=True)
        return [sum_to(g, t.shape) if g is not None and needed else None for g, t, needed in found]


class Add(Elementwise):
    """y = a + b        da = dy    db = dy"""

    def forward(self, a: Array, b: Array) -> Array:
        return a + b

    def backward(self, dy: Tensor) -> tuple[Tensor, Tensor]:
        return dy, dy


class Sub(Elementwise):
    """y = a - b        da = dy    db = -dy"""

    def forward(self, a: Array, b: Array) -> Array:
        return a - b

    def backward(self, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        return dy, -dy if self.needs[1] else None


class Mul(Elementwise):
    """y = a b        da = dy b    db = dy a"""

    def forward(self, a: Array, b: Array) -> Array:
        return a * b

    def backward(self, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        return dy * self.inputs[1] if self.needs[0] else None, dy * self.inputs[0] if self.needs[1] else None


class Div(Elementwise):
    """y = a / b        da = dy / b    db = -dy y / b"""

    saves_output = True

    def forward(self, a: Array, b: Array) -> Array:
        return a / b

    def backward(self, dy: Tensor) -> tuple[Tensor, Tensor | None]:
        return dy / self.inputs[1], -dy * self.output / self.inputs[1] if self.needs[1] else None


class Neg(Elementwise):
    """y = -x        dx = -dy"""

    def forward(self, x: Array) -> Array:
        return -x

    def backward(self, dy: Tensor) -> Tensor:
        return -dy


class Pow(Elementwise):
    """y = x^p, p a number        dx = p x^(p-1) dy"""

    p: float

    def forward(self, x: Array) -> Array:
        return x**self.p

    def backward(self, dy: Tensor) -> Tensor:
        return dy * (self.p * self.inputs[0] ** (self.p - 1))


class Exp(Elementwise):
    """y = e^x        dx = dy y"""

    saves_output = True

    def forward(self, x: Array) -> Array:
        return self.xp.exp(x)

    def backward(self, dy: Tensor) -> Tensor:
        return dy * self.output


class Log(Elementwise):
    """y = ln x        dx = dy / x"""

    def forward(self, x: Array) -> Array:
        return self.xp.log(x)

    def backward(self, dy: Tensor) -> Tensor:
        return dy / self.inputs[0]


class Sqrt(Elementwise):
    """y = x^(1/2)        dx = dy / 2y"""

    saves_output = True

    def forward(self, x: Array) -> Array:
        return self.xp.sqrt(x)

    def backward(self, dy: Tensor) -> Tensor:
        return dy / (2 * self.output)


class Abs(Elementwise):
    """y = |x|        dx = dy sign x"""

    def forward(self, x: Array) -> Array:
        return self.xp.abs(x)

    def backward(self, dy: Tensor) -> Tensor:
        return dy * Tensor(self.xp.sign(self.inputs[0].data))


class Tanh(Elementwise):
    """y = tanh x        dx = dy (1 - y^2)"""

    saves_output = True

    def forward(self, x: Array) -> Array:
        return self.xp.tanh(x)

    def backward(self, dy: Tensor) -> Tensor:
        return dy * (1 - self.output * self.output)


class Sigmoid(Elementwise):
    """y = 1 / (1 + e^-x) = (1 + tanh(x/2)) / 2        dx = dy y (1 - y)"""

    saves_output = True

    def forward(self, x: Array) -> Array:
        return (1 + self.xp.tanh(x / 2)) / 2

    def backward(self, dy: Tensor) -> Tensor:
        return dy * (self.output * (1 - self.output))


class Relu(Elementwise):
    """y = max(x, 0)        dx = dy where x > 0"""

    def forward(self, x: Array) -> Array:
        return x * (x > 0)

    def backward(self, dy: Tensor) -> Tensor:
        return dy * Tensor((self.inputs[0].data > 0).astype(dy.dtype))


class Softplus(Elementwise):
    """y = ln(1 + e^x)        dx = dy sigmoid(x)"""

    def forward(self, x: Array) -> Array:
        return self.xp.logaddexp(x, 0)

    def backward(self, dy: Tensor) -> Tensor:
        return dy * sigmoid(self.inputs[0])


class Maximum(Elementwise):
    """y = max(a, b)        da = dy where a >= b    db = dy elsewhere"""

    def forward(self, a: Array, b: Array) -> Array:
        return self.xp.maximum(a, b)

    def backward(self, dy: Tensor) -> tuple[Tensor, Tensor]:
        a_wins = Tensor((self.inputs[0].data >= self.inputs[1].data).astype(dy.dtype))
        return dy * a_wins, dy * (1 - a_wins)


class Where(Elementwise):
    """y = a where condition, b elsewhere        da = dy where condition    db = dy elsewhere"""

    condition: Array

    def forward(self, a: Array, b: Array) -> Array:
        return self.xp.where(self.condition, a, b)

    def backward(self, dy: Tensor) -> tuple[Tensor, Tensor]:
        return where(self.condition, dy, 0), where(self.condition, 0, dy)


class Cast(Function):
    """y = x in another dtype        dx = dy in x's"""

    dtype: np.dtype[Any]

    def forward(self, x: Array) -> Array:
        return x.astype(self.dtype)

    def backward(self, dy: Tensor) -> Tensor:
        return cast(dy, self.inputs[0].dtype)


class ToDevice(Function):
    """y = x on another device        dx = dy on x's"""

    device: str

    def forward(self, x: Array) -> Array:
        return device.to_device(x, self.device)

    def backward(self, dy: Tensor) -> Tensor:
        return to_device(dy, self.inputs[0].device)


def add(a: Any, b: Any) -> Tensor:
    return Add.apply(*pair(a, b))


def sub(a: Any, b: Any) -> Tensor:
    return Sub.apply(*pair(a, b))


def mul(a: Any, b: Any) -> Tensor:
    return Mul.apply(*pair(a, b))


def div(a: Any, b: Any) -> Tensor:
    return Div.apply(*pair(a, b))


def neg(x: Tensor) -> Tensor:
    return Neg.apply(x)


def pow(x: Tensor, exponent: Any) -> Tensor:
    """x to the power of a number, or of a Tensor where x > 0."""
    if isinstance(exponent, Tensor):
        return exp(exponent * log(x))
    return Pow.apply(x, p=exponent)


def exp(x: Any) -> Tensor:
    return Exp.apply(as_tensor(x))


def log(x: Any) -> Tensor:
    return Log.apply(as_tensor(x))


def sqrt(x: Any) -> Tensor:
    return Sqrt.apply(as_tensor(x))


def abs(x: Any) -> Tensor:
    return Abs.apply(as_tensor(x))


def tanh(x: Any) -> Tensor:
    return Tanh.apply(as_tensor(x))


def sigmoid(x: Any) -> Tensor:
    return Sigmoid.apply(as_tensor(x))


def relu(x: Any) -> Tensor:
    return Relu.apply(as_tensor(x))


def softplus(x: Any) -> Tensor:
    return Softplus.apply(as_tensor(x))


def maximum(a: Any, b: Any) -> Tensor:
    return Maximum.apply(*pair(a, b))


def minimum(a: Any, b: Any) -> Tensor:
    return -maximum(-a, -b)


def clip(x: Tensor, low: float, high: float) -> Tensor:
    """x kept within [low, high]; no gradient outside."""
    return minimum(maximum(x, low), high)


def where(condition: Any, a: Any, b: Any) -> Tensor:
    """a where `condition` (a boolean array or Tensor), b elsewhere."""
    condition = condition.data if isinstance(condition, Tensor) else condition
    return Where.apply(*pair(a, b), condition=condition)


def cast(x: Tensor, dtype: Any) -> Tensor:
    return x if x.dtype == dtype else Cast.apply(x, dtype=np.dtype(dtype))


def to_device(x: Tensor, target: str) -> Tensor:
    return x if x.device == target else ToDevice.apply(x, device=target)
