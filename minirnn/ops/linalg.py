"""Matrix products, decompositions and linear systems. Leading axes are a batch, and broadcast."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minirnn.autograd import Function, is_recording
from minirnn.device import Array, array_module
from minirnn.kernels import flops, registry
from minirnn.kernels.matmul.sizes import pays
from minirnn.kernels.modules import cholesky as factor
from minirnn.ops.broadcast import sum_to
from minirnn.ops.elementwise import pair
from minirnn.ops.reduction import sum
from minirnn.ops.shape import diagonal, expand_dims, reshape, squeeze, swapaxes, transpose
from minirnn.tensor import Tensor


class MatMul(Function):
    """y = a b, over broadcast leading axes        da = dy b^T    db = a^T dy"""

    def forward(self, a: Array, b: Array) -> Array:
        if a.dtype.kind == "V" and max(a.ndim, b.ndim) > 2:  # CuPy 14 multiplies no stacks of bfloat16
            return self.xp.matmul(a.astype(np.float32), b.astype(np.float32)).astype(a.dtype)
        return product(self.xp, a, b)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b = self.inputs
        if not is_recording() and a.shape[:-2] == b.shape[:-2] and a.dtype.kind != "V":  # nothing to sum: the arrays will do
            return (
                Tensor(product(self.xp, dy.data, self.xp.swapaxes(b.data, -1, -2))) if self.needs[0] else None,
                Tensor(product(self.xp, self.xp.swapaxes(a.data, -1, -2), dy.data)) if self.needs[1] else None,
            )
        return (
            sum_to(dy @ swapaxes(b, -1, -2), a.shape) if self.needs[0] else None,
            sum_to(swapaxes(a, -1, -2) @ dy, b.shape) if self.needs[1] else None,
        )

    def flops(self) -> int:
        a, b = self.inputs
        (n, k), m = a.shape[-2:], b.shape[-1]
        return math.prod(np.broadcast_shapes(a.shape[:-2], b.shape[:-2])) * flops.product(n, k, m)

    def backward_flops(self) -> int:
        batch, total = math.prod(np.broadcast_shapes(*(t.shape[:-2] for t in self.inputs))), 0
        for t, need in zip(self.inputs, self.needs, strict=True):
            summed = batch * math.prod(t.shape[-2:]) if math.prod(t.shape[:-2]) < batch else 0  # over the axes along which it was repeated
            total += (self.flops() + summed) if need else 0
        return total


class Linear(Function):
    """y = x w^T + b        dx = dy w    dw = dy^T x    db = sum over rows of dy

    x (S, D), w (H, D), b (H,): one product over all rows.
    """

    def forward(self, x: Array, w: Array, b: Array) -> Array:
        return product(self.xp, x, w.T, b)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, w, _ = self.inputs
        if not is_recording():
            g = dy.data
            return (
                Tensor(product(self.xp, g, w.data)) if self.needs[0] else None,
                Tensor(product(self.xp, g.T, x.data)) if self.needs[1] else None,
                Tensor(g.sum(0)) if self.needs[2] else None,
            )
        return (
            dy @ w if self.needs[0] else None,
            dy.T @ x if self.needs[1] else None,
            dy.sum(0) if self.needs[2] else None,
        )

    def flops(self) -> int:
        (S, D), H = self.inputs[0].shape, len(self.inputs[1])
        return flops.product(S, D, H) + S * H

    def backward_flops(self) -> int:
        (S, D), H = self.inputs[0].shape, len(self.inputs[1])
        return self.needs[:2].count(True) * flops.product(S, D, H) + self.needs[2] * S * H


class Solve(Function):
    """y = a^-1 b        db = a^-T dy    da = -db y^T"""

    saves_output = True

    def forward(self, a: Array, b: Array) -> Array:
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])  # CuPy solves no systems that broadcast
        return self.xp.linalg.solve(*(self.xp.broadcast_to(x, batch + x.shape[-2:]) for x in (a, b)))

    def backward(self, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        a, b = self.inputs
        db = solve(swapaxes(a, -1, -2), dy)
        return (
            sum_to(-db @ swapaxes(self.output, -1, -2), a.shape) if self.needs[0] else None,
            sum_to(db, b.shape) if self.needs[1] else None,
        )

    def flops(self) -> int:
        a, b = self.inputs
        return math.prod(np.broadcast_shapes(a.shape[:-2], b.shape[:-2])) * flops.solve(*b.shape[-2:])


class Cholesky(Function):
    """y = the lower triangular matrix with y y^T = a        da = (s + s^T) / 2, s = y^-T phi(y^T dy) y^-1

    phi takes the lower triangle and halves its diagonal (Murray 2016, equation 10).
    """

    saves_output = True

    def forward(self, a: Array) -> Array:
        return factor(a)

    def backward(self, dy: Tensor) -> Tensor:
        n = dy.shape[-1]
        upper = swapaxes(self.output, -1, -2)
        phi = (upper @ dy) * Tensor(self.xp.tril(self.xp.ones((n, n), dy.dtype)) - self.xp.eye(n, dtype=dy.dtype) / 2)
        s = swapaxes(solve(upper, swapaxes(solve(upper, phi), -1, -2)), -1, -2)  # (y^-T (y^-T phi)^T)^T = y^-T phi y^-1
        return (s + swapaxes(s, -1, -2)) / 2

    def flops(self) -> int:
        x = self.inputs[0]
        return x.size * x.shape[-1] // 3


class LogAbsDet(Function):
    """y = ln |det a|        da = dy a^-T"""

    def forward(self, a: Array) -> Array:
        return self.xp.linalg.slogdet(a)[1]

    def backward(self, dy: Tensor) -> Tensor:
        return expand_dims(expand_dims(dy, -1), -1) * swapaxes(inv(self.inputs[0]), -1, -2)

    def flops(self) -> int:
        x = self.inputs[0]
        return 2 * x.size * x.shape[-1] // 3  # elimination


def matmul(a: Any, b: Any) -> Tensor:
    """The matrix product over the last two axes; leading axes broadcast, 1-D operands count as a row and a column."""
    a, b = pair(a, b)
    if a.ndim == 0 or b.ndim == 0 or a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
        raise ValueError(f"matmul: inner axes differ: a (..., n, k) = {a.shape}, b (..., k, m) = {b.shape}")
    if a.ndim == 1:
        return squeeze(matmul(expand_dims(a, 0), b), -2 if b.ndim > 1 else -1)
    if b.ndim == 1:
        return squeeze(matmul(a, expand_dims(b, 1)), -1)
    if b.ndim == 2 and a.ndim > 2:  # one product over all rows
        rows = reshape(a, (math.prod(a.shape[:-1]), a.shape[-1]))
        return reshape(MatMul.apply(rows, b), (*a.shape[:-1], b.shape[1]))
    return MatMul.apply(a, b)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x w^T + b over the last axis of x (..., D), with weight (H, D) and bias (H,)."""
    if weight.ndim != 2 or x.ndim == 0 or x.shape[-1] != weight.shape[1]:
        raise ValueError(f"linear: x must be (..., D) for weight (H, D) = {weight.shape}, got x {x.shape}")
    H, D = weight.shape
    if bias is not None and bias.shape != (H,):
        raise ValueError(f"linear: bias must be (H,) = ({H},) for weight (H, D) = {weight.shape}, got {bias.shape}")
    rows = reshape(x, (math.prod(x.shape[:-1]), D))
    y = MatMul.apply(rows, weight.T) if bias is None else Linear.apply(rows, weight, bias)
    return reshape(y, (*x.shape[:-1], H))


def einsum(subscripts: str, *operands: Tensor) -> Tensor:
    """The sum of products that the letters spell out: einsum("nth,nsh->nts", q, k).

    Each operand has its letters, one for each axis; letters that the output lacks are summed over. Two operands at a time, from the left,
    as one (batched) matrix product. A letter stands once in an operand: for a trace, take `diagonal` first.
    """
    letters, output = _parse(subscripts, operands)
    have, y = letters[0], operands[0]
    for k in range(1, len(operands)):
        have, y = _contract(have, y, letters[k], operands[k], output + "".join(letters[k + 1 :]))
    return _arranged(y, have, output)


def _parse(subscripts: str, operands: tuple[Tensor, ...]) -> tuple[list[str], str]:
    """The letters of each operand, and of the output."""
    left, arrow, output = subscripts.replace(" ", "").partition("->")
    letters = left.split(",")
    every = "".join(letters)
    if not arrow:
        output = "".join(sorted(c for c in set(every) if every.count(c) == 1))
    shapes = ", ".join(str(x.shape) for x in operands)
    if not (every + output + "a").isalpha():
        raise ValueError(f"einsum {subscripts!r}: axes are letters, commas stand between operands and -> before the output")
    if len(letters) != len(operands) or any(len(mine) != x.ndim for mine, x in zip(letters, operands, strict=True)):
        raise ValueError(f"einsum {subscripts!r}: there must be one letter for each axis of each operand, got shapes {shapes}")
    if any(len(set(part)) < len(part) for part in (*letters, output)):
        raise ValueError(f"einsum {subscripts!r}: a letter stands twice in one operand, or in the output; take the diagonal first")
    if not set(output) <= set(every):
        raise ValueError(f"einsum {subscripts!r}: the output has letters that no operand has")
    sizes: dict[str, int] = {}
    for letter, n in ((letter, n) for mine, x in zip(letters, operands, strict=True) for letter, n in zip(mine, x.shape, strict=True)):
        if sizes.setdefault(letter, n) != n:
            raise ValueError(f"einsum {subscripts!r}: {letter} is {sizes[letter]} in one operand and {n} in another, got shapes {shapes}")
    return letters, output


def _arranged(x: Tensor, letters: str, wanted: str) -> Tensor:
    """x with the axes of `letters` that are `wanted`, in that order; the others are summed over."""
    extra = tuple(k for k, letter in enumerate(letters) if letter not in wanted)
    x = sum(x, extra) if extra else x
    kept = [letter for letter in letters if letter in wanted]
    return x if kept == list(wanted) else transpose(x, [kept.index(letter) for letter in wanted])


def _contract(left: str, a: Tensor, right: str, b: Tensor, wanted: str) -> tuple[str, Tensor]:
    """The product of a and b, summed over the letters that are not wanted any more; its letters, and it."""
    batch = "".join(c for c in left if c in right and c in wanted)
    inner = "".join(c for c in left if c in right and c not in wanted)
    rows = "".join(c for c in left if c not in right and c in wanted)
    columns = "".join(c for c in right if c not in left and c in wanted)
    a = _arranged(a, left, batch + rows + inner)
    b = _arranged(b, right, batch + inner + columns)
    shape = a.shape[: len(batch) + len(rows)] + b.shape[len(batch) + len(inner) :]
    split_a, split_b = len(batch) + len(rows), len(batch) + len(inner)
    n, m, k = (math.prod(part) for part in (a.shape[len(batch) : split_a], b.shape[split_b:], a.shape[split_a:]))
    y = matmul(reshape(a, (*a.shape[: len(batch)], n, k)), reshape(b, (*b.shape[: len(batch)], k, m)))
    return batch + rows + columns, reshape(y, shape)


def solve(a: Tensor, b: Tensor) -> Tensor:
    """y with a y = b: a (..., n, n), b (..., n, k) or (n,). Raises LinAlgError where a is singular; on a device nobody waits to see it."""
    _check_square("solve", a)
    if b.ndim == 0 or b.shape[-2 if b.ndim > 1 else 0] != a.shape[-1]:
        raise ValueError(f"solve: b must be (..., n, k) or (n,) for a (..., n, n) = {a.shape}, got {b.shape}")
    return squeeze(Solve.apply(a, expand_dims(b, 1)), -1) if b.ndim == 1 else Solve.apply(a, b)


def inv(a: Tensor) -> Tensor:
    """The inverse of a (..., n, n). To multiply by it, `solve` is cheaper and more accurate."""
    _check_square("inv", a)
    return solve(a, Tensor(array_module(a.data).eye(a.shape[-1], dtype=a.dtype)))


def cholesky(a: Tensor) -> Tensor:
    """The lower triangular L (..., n, n) with L L^T = a, for a symmetric and positive definite; only a's lower triangle is read.

    Raises LinAlgError where a is not; on a device, where the host does not wait, such a matrix gives NaN.
    """
    _check_square("cholesky", a)
    try:
        return Cholesky.apply(a)
    except np.linalg.LinAlgError:
        raise np.linalg.LinAlgError(
            f"cholesky: a {a.shape} is not positive definite; for a covariance that is so but for rounding, add a little to the diagonal"
        ) from None


def slogdet(a: Tensor) -> tuple[Array, Tensor]:
    """The sign of det a, an array without gradient, and ln |det a|, both (...), of a (..., n, n)."""
    _check_square("slogdet", a)
    return array_module(a.data).linalg.slogdet(a.data)[0], LogAbsDet.apply(a)


def logdet(a: Tensor) -> Tensor:
    """ln det a (...), for a (..., n, n) symmetric and positive definite, by its Cholesky factor."""
    return 2 * sum(diagonal(cholesky(a)).log(), -1)


def _check_square(name: str, a: Tensor) -> None:
    if a.ndim < 2 or a.shape[-1] != a.shape[-2]:
        raise ValueError(f"{name}: a must be (..., n, n), got {a.shape}")


def product(
    xp: Any,
    a: Array,
    b: Array,
    bias: Array | None = None,
    out: Array | None = None,
    accumulate: bool = False,
    sums: Array | None = None,
) -> Array:
    """a b (+ bias), by the kernel of large matrices on the CPU, else by the array module.

    `out`, if there is one, gets the result, which is added to what it was with `accumulate`; `sums` get the sums of the rows of a.
    """
    on_cpu = xp is np and a.ndim == b.ndim == 2 and a.dtype == b.dtype and a.dtype in (np.float32, np.float64)
    if on_cpu and pays(a.shape[0], a.shape[1], b.shape[1]):
        return registry.fused("matmul", a).multiply(a, b, bias, out, accumulate, sums)
    if sums is not None:
        a.sum(1, out=sums)
    a, b = _fit_for_blas(xp, a), _fit_for_blas(xp, b)
    if accumulate:
        out += xp.matmul(a, b)
    else:
        out = xp.matmul(a, b, out=out)
    if bias is not None:
        out += bias
    return out


def _fit_for_blas(xp: Any, a: Array) -> Array:
    """a, or a copy of one whose matrices lie neither row by row nor column by column: NumPy before 2.3 has only a slow loop for those."""
    (n, m), (down, right), size = a.shape[-2:], a.strides[-2:], a.itemsize
    by_rows, by_columns = right == size and down >= m * size, down == size and right >= n * size
    return a if by_rows or by_columns else xp.ascontiguousarray(a)
