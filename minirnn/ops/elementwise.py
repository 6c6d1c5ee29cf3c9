"""Operations on each element by itself. Operands broadcast as in NumPy; scalars take the dtype of a floating operand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from minirnn.autograd import Function, is_recording
from minirnn.device import Array, array_module, beside, here, is_array, is_floating, on_host, same_device, scalar, select
from minirnn.device import to_device as moved
from minirnn.kernels import registry
from minirnn.ops.broadcast import sum_to
from minirnn.random import Rng, generator
from minirnn.tensor import Tensor


class Elementwise(Function):
    """An operation whose operands broadcast: the gradient of an operand is summed over the axes along which it was repeated.

    `option` is what the operation is told beside its operands, `flops` how many operations a number of its result takes.
    """

    option: Any
    each: ClassVar[int]

    def __init_subclass__(cls, saves_output: bool = False, flops: int = 1) -> None:
        cls.saves_output, cls.each = saves_output, flops

    def flops(self) -> int:
        return self.each * math.prod(np.broadcast_shapes(*(t.shape for t in self.inputs)))

    def gradients(self, grads: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        found = zip(super().gradients(grads), self.inputs, self.needs, strict=True)
        return [sum_to(g, t.shape) if g is not None and needed else None for g, t, needed in found]

    def share(self, condition: Array, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """dy to the first operand where `condition` is true, to the second elsewhere."""
        return where(condition, dy, 0) if self.needs[0] else None, where(condition, 0, dy) if self.needs[1] else None


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


class Div(Elementwise, saves_output=True):
    """y = a / b        da = dy / b    db = -dy y / b"""

    def forward(self, a: Array, b: Array) -> Array:
        return a / b

    def backward(self, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        return dy / self.inputs[1] if self.needs[0] else None, -dy * self.output / self.inputs[1] if self.needs[1] else None


class Neg(Elementwise):
    """y = -x        dx = -dy"""

    def forward(self, x: Array) -> Array:
        return -x

    def backward(self, dy: Tensor) -> Tensor:
        return -dy


class Pow(Elementwise):
    """y = x^p, p = `option`        dx = dy p x^(p-1)"""

    def forward(self, x: Array) -> Array:
        return x**self.option

    def backward(self, dy: Tensor) -> Tensor:
        return dy * mul(self.option, pow(self.inputs[0], self.option - 1))


class Exp(Elementwise, saves_output=True):
    """y = e^x        dx = dy y"""

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


class Sqrt(Elementwise, saves_output=True):
    """y = x^(1/2)        dx = dy / 2y"""

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


class Tanh(Elementwise, saves_output=True):
    """y = tanh x        dx = dy (1 - y^2)"""

    def forward(self, x: Array) -> Array:
        return self.xp.tanh(x)

    def backward(self, dy: Tensor) -> Tensor:
        return dy * (1 - self.output * self.output)


class Sigmoid(Elementwise, saves_output=True):
    """y = 1 / (1 + e^-x) = (1 + tanh(x/2)) / 2        dx = dy y (1 - y)"""

    def forward(self, x: Array) -> Array:
        return (1 + self.xp.tanh(x * 0.5)) * 0.5

    def backward(self, dy: Tensor) -> Tensor:
        return dy * (self.output * (1 - self.output))


class Relu(Function):
    """y = max(x, 0)        dx = dy where x > 0

    One pass of a kernel in either direction, on the CPU; where a gradient is differentiated again, it is made of primitive operations.
    """

    def forward(self, x: Array) -> Array:
        return registry.fused("relu", x).forward(x) if on_host(x) else self.xp.maximum(x, 0)

    def backward(self, dy: Tensor) -> Tensor:
        x = self.inputs[0].data
        if on_host(x) and not is_recording():
            return Tensor(registry.fused("relu", x).backward(dy.data, x))
        return dy * Tensor((x > 0).astype(dy.dtype))

    def flops(self) -> int:
        return self.inputs[0].size

    backward_flops = flops


class Softplus(Elementwise):
    """y = ln(1 + e^x) = max(x, 0) + ln(1 + e^-|x|)        dx = dy sigmoid(x)"""

    def forward(self, x: Array) -> Array:
        return self.xp.maximum(x, 0) + self.xp.log1p(self.xp.exp(-self.xp.maximum(x, -x)))

    def backward(self, dy: Tensor) -> Tensor:
        return dy * sigmoid(self.inputs[0])


class Maximum(Elementwise):
    """y = max(a, b)        da = dy where a >= b    db = dy elsewhere"""

    def forward(self, a: Array, b: Array) -> Array:
        return self.xp.maximum(a, b)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        return self.share(self.inputs[0].data >= self.inputs[1].data, dy)


class Where(Elementwise, flops=0):
    """y = a where `option`, a condition, is true, b elsewhere        da = dy where it is    db = dy elsewhere"""

    def forward(self, a: Array, b: Array) -> Array:
        return select(self.option, a, b)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        return self.share(self.option, dy)


class Dropout(Elementwise):
    """y = x / (1 - p) where the mask of (p, key), the `option`, keeps x, 0 elsewhere        dx = dy / (1 - p) where it does"""

    def forward(self, x: Array) -> Array:
        return registry.fused("dropout", x).apply(x, *self.option)

    def backward(self, dy: Tensor) -> Tensor:
        return Dropout.apply(dy, option=self.option)


class Cast(Elementwise, flops=0):
    """y = x in another dtype, the `option`        dx = dy in x's"""

    def forward(self, x: Array) -> Array:
        return x.astype(self.option)

    def backward(self, dy: Tensor) -> Tensor:
        return cast(dy, self.inputs[0].dtype)


class ToDevice(Elementwise, flops=0):
    """y = x on another device, the `option`        dx = dy on x's"""

    def forward(self, x: Array) -> Array:
        return moved(x, self.option)

    def backward(self, dy: Tensor) -> Tensor:
        return to_device(dy, self.inputs[0].device)


def as_tensor(x: Any, like: Tensor | None = None) -> Tensor:
    """x as a Tensor. Beside a floating `like`, a number, a list, or an array of integers or booleans takes its dtype and device.

    What is on the host goes to the device of `like`, or to the current one; what is on a device stays there.

    Scalars of NumPy count as Python numbers.
    """
    if isinstance(x, Tensor):
        return x
    x = _plain(x)
    if like is None:
        return Tensor(here(x if is_array(x) else np.asarray(x, dtype=np.float32 if isinstance(x, float) else None)))
    dtype = _common_dtype(like.dtype, x)
    if isinstance(x, (int, float, complex)):
        return Tensor(scalar(x, dtype, like.data))
    if is_array(x) and not isinstance(x, np.ndarray):
        return Tensor(x if x.dtype == dtype else x.astype(dtype))
    return Tensor(beside(np.asarray(x, dtype=dtype), like.data))


def pair(a: Any, b: Any) -> tuple[Tensor, Tensor]:
    """Both as Tensors, where at least one is one already. Integers and booleans take the dtype that NumPy's rules give for the two."""
    if isinstance(b, Tensor):
        if not isinstance(a, Tensor):
            b, a = pair(b, a)
        return a, b
    b = as_tensor(b, like=a)
    return (a if is_floating(a.dtype) else cast(a, b.dtype)), b


def _plain(x: Any) -> Any:
    return x.item() if isinstance(x, np.generic) else x


def _common_dtype(dtype: np.dtype[Any], x: Any) -> np.dtype[Any]:
    """The dtype of a tensor of `dtype` with x, which is none: floats win over integers, these over booleans; a Python float is float32."""
    typed = hasattr(x, "dtype")
    if is_floating(dtype):
        return x.dtype if typed and is_floating(x.dtype) else dtype
    own = np.dtype(x.dtype) if typed else np.asarray(x).dtype
    if is_floating(own):
        return np.dtype(np.float32) if not typed and own == np.float64 else own
    return dtype if not typed and dtype.kind in "iu" else np.result_type(dtype, own)


def add(a: Any, b: Any) -> Tensor:
    """a + b, element by element, broadcast."""
    return Add.apply(*pair(a, b))


def sub(a: Any, b: Any) -> Tensor:
    """a - b, element by element, broadcast."""
    return Sub.apply(*pair(a, b))


def mul(a: Any, b: Any) -> Tensor:
    """a b, element by element, broadcast."""
    return Mul.apply(*pair(a, b))


def div(a: Any, b: Any) -> Tensor:
    """a / b, element by element, broadcast."""
    return Div.apply(*pair(a, b))


def neg(x: Tensor) -> Tensor:
    """-x"""
    return Neg.apply(x)


def pow(x: Tensor, exponent: Any) -> Tensor:
    """x to the power of a number, or of a Tensor where x > 0."""
    if isinstance(exponent, Tensor):
        return exp(exponent * log(x))
    exponent = _plain(exponent)
    x = x if is_floating(x.dtype) else cast(x, _common_dtype(x.dtype, exponent))
    if exponent == 0:  # one everywhere, and its gradient zero everywhere: p x^(p-1) would be NaN at 0
        return where(array_module(x.data).zeros(x.shape, bool), x, 1)
    return x if exponent == 1 else Pow.apply(x, option=exponent)


def exp(x: Any) -> Tensor:
    """e^x"""
    return Exp.apply(as_tensor(x))


def log(x: Any) -> Tensor:
    """ln x"""
    return Log.apply(as_tensor(x))


def sqrt(x: Any) -> Tensor:
    """The square root of x, element by element."""
    return Sqrt.apply(as_tensor(x))


def abs(x: Any) -> Tensor:
    """|x|, with gradient 0 at 0."""
    return Abs.apply(as_tensor(x))


def tanh(x: Any) -> Tensor:
    """tanh x"""
    return Tanh.apply(as_tensor(x))


def sigmoid(x: Any) -> Tensor:
    """1 / (1 + e^-x)"""
    return Sigmoid.apply(as_tensor(x))


def log_sigmoid(x: Any) -> Tensor:
    """ln sigmoid(x), without overflow."""
    return -softplus(-as_tensor(x))


def relu(x: Any) -> Tensor:
    """max(x, 0)"""
    return Relu.apply(as_tensor(x))


def softplus(x: Any) -> Tensor:
    """ln(1 + e^x), without overflow."""
    return Softplus.apply(as_tensor(x))


def maximum(a: Any, b: Any) -> Tensor:
    """The larger of a and b, element by element; where they are equal a gets the gradient."""
    return Maximum.apply(*pair(a, b))


def minimum(a: Any, b: Any) -> Tensor:
    """The smaller of a and b, element by element; where they are equal a gets the gradient."""
    a, b = pair(a, b)
    if not is_floating(a.dtype):  # -x wraps around in unsigned integers
        return where(a.data <= b.data, a, b)
    return -maximum(-a, -b)


def clip(x: Tensor, low: float, high: float) -> Tensor:
    """x kept within [low, high]; no gradient outside."""
    if low > high:
        raise ValueError(f"clip: low must be at most high, got low={low}, high={high}")
    return minimum(maximum(x, low), high)


def where(condition: Any, a: Any, b: Any) -> Tensor:
    """a where `condition` (a boolean array or Tensor), b elsewhere. At least one of a and b is a Tensor."""
    condition = condition.data if isinstance(condition, Tensor) else condition
    a, b = pair(a, b)
    return Where.apply(a, b, option=beside(condition if is_array(condition) else np.asarray(condition), a.data))


def cast(x: Tensor, dtype: Any) -> Tensor:
    """x in another dtype."""
    return x if x.dtype == dtype else Cast.apply(x, option=np.dtype(dtype))


def to_device(x: Tensor, target: str) -> Tensor:
    """x on "cpu", "cuda", "cuda:<index>" or "emulated"; the gradient comes back to where x is."""
    return x if same_device(x.device, target) else ToDevice.apply(x, option=target)


def dropout(x: Tensor, p: float = 0.5, *, rng: Rng = None) -> Tensor:
    """Each element 0 with probability p, and divided by 1 - p otherwise, so that its mean is x (Srivastava et al. 2014).

    One integer of 64 bits is drawn from `rng`; the mask is a function of it and of each element's place (see
    `minirnn.kernels.dropout`), the same on every device.
    """
    if not 0 <= p < 1:
        raise ValueError(f"dropout: p is a probability in [0, 1), got {p}")
    if p == 0:
        return x
    return Dropout.apply(x, option=(p, int(generator(rng).integers(2**64, dtype=np.uint64))))
