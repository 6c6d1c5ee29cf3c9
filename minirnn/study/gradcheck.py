"""Gradients against finite differences: what back-propagation says, and what moving the inputs a little says.

For outputs y = f(x), a random cotangent u and a direction v, back-propagation gives g = u^T dy/dx and the two sides of

    <g, v>  =  d/ds <u, f(x + s v)>  at s = 0

are compared, along random directions and along every element of a small input. The right-hand side is measured with a step h:

    central difference   (<u, f(x + h v)> - <u, f(x - h v)>) / 2h    truncation ~ h^2, cancellation ~ eps / h
    complex step         Im <u, f(x + i h v)> / h, h = 1e-20          no cancellation: ~ eps; f must be analytic

with eps = 2.2e-16 the spacing of float64. h = 2^-17 makes both errors of the central difference about eps^(2/3) = 4e-11.
The complex step: W. Squire, G. Trapp, "Using complex variables to estimate derivatives of real functions", SIAM Review 40 (1998).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from minirnn.autograd import enable_grad, grad
from minirnn.device import array_module
from minirnn.random import Rng, generator
from minirnn.tensor import Tensor

Differentiable: TypeAlias = Callable[..., Tensor | Sequence[Tensor]]
FloatArray: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

MACHINE_EPS = float(np.finfo(np.float64).eps)
CENTRAL_STEP = 2.0**-17
COMPLEX_STEP = 1e-20
ABSOLUTE, RELATIVE = (
    1e2,
    1e4,
)  # how many times the method's own error a difference may be: f's derivatives and rounding are not all of size 1


class GradientError(AssertionError):
    """A gradient that is not the derivative; the message names the input, the index, what was expected and what was found."""


def gradcheck(
    f: Differentiable,
    inputs: Tensor | Sequence[Tensor],
    *,
    eps: float | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    directions: int = 3,
    elementwise: int = 64,
    complex_step: bool = False,
    rng: Rng = 0,
    raise_error: bool = True,
) -> bool:
    """True where the gradients of `f(*inputs)`, a Tensor or a sequence of Tensors, are its derivatives; else raise GradientError.

    inputs        leaves; those with `requires_grad` are checked, and must be float64. They are moved in place while f is looked at, so
                  the parameters that a module holds may be among them: `gradcheck(lambda x, *_: layer(x), [x, *layer.parameters()])`
    eps           the step h; 2^-17 for central differences, 1e-20 for the complex step
    rtol, atol    allowed difference atol + rtol |g v|; by default 1e4 e and 1e2 e |u (1 + |y|)|, with e = h^2 + 2.2e-16 / h for central
                  differences and e = 2.2e-16 for the complex step
    directions    random directions tried for each input
    elementwise   inputs with at most this many elements are also checked one by one
    complex_step  move along the imaginary axis: f must be analytic, work on complex128, and take all its floating tensors from `inputs`
    raise_error   False: return False instead of raising GradientError

    Raises TypeError or ValueError where the question makes no sense: float32, no input with requires_grad, an f that gives NaN or draws new
    random numbers at every call. Random directions see an error that is not lost in rtol |g v| over the whole input. At a kink (relu at 0)
    a function has no derivative: keep the inputs away from it.
    """
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    checked = _checkable(inputs)
    draws = generator(rng)
    outputs = _outputs(f, inputs)
    cotangents = [_normal(draws, y.shape) for y in outputs]
    _same_again(outputs, _outputs(f, inputs))
    probe = _Probe(f, inputs, cotangents, eps or (COMPLEX_STEP if complex_step else CENTRAL_STEP), complex_step)
    noise = MACHINE_EPS if complex_step else probe.step**2 + MACHINE_EPS / probe.step
    scale = math.sqrt(sum(float(np.square(u * (1 + np.abs(y.numpy()))).sum()) for u, y in zip(cotangents, outputs, strict=True)))
    probe.rtol = RELATIVE * noise if rtol is None else rtol
    probe.atol = ABSOLUTE * noise * scale if atol is None else atol
    try:
        for k, gradient in zip(checked, _gradients(outputs, inputs, checked, cotangents), strict=True):
            probe.check(k, gradient, directions, elementwise, draws)
    except GradientError:
        if raise_error:
            raise
        return False
    return True


def gradgradcheck(
    f: Differentiable,
    inputs: Tensor | Sequence[Tensor],
    *,
    eps: float | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    directions: int = 3,
    elementwise: int = 64,
    complex_step: bool = False,
    rng: Rng = 0,
    raise_error: bool = True,
) -> bool:
    """`gradcheck` of the gradient of f, as a function of the inputs and of dL/dy: second derivatives. Arguments as there.

    In a message, the inputs that follow those of f are the dL/dy of its outputs.
    """
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    checked = _checkable(inputs)
    draws = generator(rng)
    cotangents = [Tensor(_normal(draws, y.shape), requires_grad=True) for y in _outputs(f, inputs) if y.requires_grad]
    if not cotangents:
        raise ValueError("gradgradcheck: no output of f depends on an input with requires_grad=True")

    def gradient(*tensors: Tensor) -> list[Tensor]:
        xs, dys = tensors[: len(inputs)], tensors[len(inputs) :]
        ys = [y for y in _as_list(f(*xs)) if y.requires_grad]
        found = grad(ys, [xs[k] for k in checked], dys, create_graph=True, allow_unused=True)
        return [dx for dx in found if dx is not None]

    return gradcheck(
        gradient,
        [*inputs, *cotangents],
        eps=eps,
        rtol=rtol,
        atol=atol,
        directions=directions,
        elementwise=elementwise,
        complex_step=complex_step,
        rng=draws,
        raise_error=raise_error,
    )


@dataclass
class _Probe:
    """Moves an input of f and measures how <u, f> follows."""

    f: Differentiable
    inputs: Sequence[Tensor]
    cotangents: Sequence[FloatArray]
    step: float
    complex_step: bool
    rtol: float = 0.0
    atol: float = 0.0

    def check(self, k: int, gradient: FloatArray, directions: int, elementwise: int, rng: np.random.Generator) -> None:
        """Raise GradientError unless `gradient` is that of <u, f> with respect to input k."""
        for _ in range(directions if gradient.size else 0):
            v = _normal(rng, gradient.shape)
            if not self._agrees(k, v, gradient):
                raise self._error(k, self._culprit(k, v, gradient), gradient)
        for index in np.ndindex(gradient.shape) if gradient.size <= elementwise else ():
            if not self._agrees(k, _along(index, gradient), gradient):
                raise self._error(k, index, gradient)

    def slope(self, k: int, v: FloatArray) -> float:
        """d/ds <u, f(x + s v)> at s = 0, for input k."""
        if self.complex_step:
            return (
                sum(float((u * y).sum().imag) for u, y in zip(self.cotangents, self._values(k, 1j * self.step * v), strict=True))
                / self.step
            )
        ahead, behind = self._values(k, self.step * v), self._values(k, -self.step * v)
        return sum(float((u * (a - b)).sum()) for u, a, b in zip(self.cotangents, ahead, behind, strict=True)) / (2 * self.step)

    def _values(self, k: int, move: Any) -> list[Any]:
        """f's outputs with input k moved; all floating-point inputs are complex where the move is."""
        before = [t.data for t in self.inputs]
        try:
            for t in self.inputs:
                if self.complex_step and t.dtype == np.float64:
                    t.data = t.data.astype(np.complex128)
            moved = self.inputs[k]
            xp = array_module(moved.data)
            moved.data = xp.asarray(moved.data + xp.asarray(move))  # 0-d arrays would add up to a scalar
            return [y.numpy() for y in _outputs(self.f, self.inputs)]
        finally:
            for t, data in zip(self.inputs, before, strict=True):
                t.data = data

    def _agrees(self, k: int, v: FloatArray, gradient: FloatArray) -> bool:
        """Whether both sides agree along v. NaN agrees with nothing."""
        allowed = self.atol + self.rtol * float(np.linalg.norm(gradient * v))
        return abs(self.slope(k, v) - float((gradient * v).sum())) <= allowed

    def _culprit(self, k: int, v: FloatArray, gradient: FloatArray) -> tuple[int, ...]:
        """One element that is wrong, by halving the set of moved elements and going where the two sides differ more."""
        suspects = np.arange(gradient.size)
        while len(suspects) > 1:
            halves = np.array_split(suspects, 2)
            gaps = []
            for half in halves:
                part = np.zeros_like(v)
                part.flat[half] = v.flat[half]
                gap = abs(self.slope(k, part) - float((gradient * part).sum()))
                gaps.append(gap if gap == gap else math.inf)
            suspects = halves[int(np.argmax(gaps))]
        return tuple(int(i) for i in np.unravel_index(int(suspects[0]), gradient.shape))

    def _error(self, k: int, index: tuple[int, ...], gradient: FloatArray) -> GradientError:
        expected, found = self.slope(k, _along(index, gradient)), float(gradient[index])
        method = "complex step" if self.complex_step else "central difference"
        relative = abs(found - expected) / max(abs(expected), abs(found), self.atol)
        return GradientError(
            f"gradient of input {k} {gradient.shape} is wrong at index {index}: "
            f"expected {expected:.10g} ({method}, h = {self.step:.1e}), found {found:.10g}; relative error {relative:.1e}, "
            f"allowed {self.rtol:.1e} (and {self.atol:.1e} absolute)"
        )


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> FloatArray:
    return np.asarray(rng.standard_normal(shape))


def _along(index: tuple[int, ...], like: FloatArray) -> FloatArray:
    unit = np.zeros_like(like)
    unit[index] = 1
    return unit


def _as_list(outputs: Tensor | Sequence[Tensor]) -> list[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


def _outputs(f: Differentiable, inputs: Sequence[Tensor]) -> list[Tensor]:
    """The outputs of f that can have a gradient."""
    with enable_grad():
        outputs = [y for y in _as_list(f(*inputs)) if y.dtype.kind in "fc"]
    for k, y in enumerate(outputs):
        if y.dtype not in (np.float64, np.complex128):
            raise TypeError(f"gradcheck: output {k} {y.shape} of f is {y.dtype}; compute in float64")
        if not np.isfinite(y.numpy()).all():
            raise ValueError(f"gradcheck: output {k} {y.shape} of f is not finite; check at inputs where it is")
    return outputs


def _checkable(inputs: Sequence[Tensor]) -> list[int]:
    """The positions of the inputs to check."""
    checked = [k for k, t in enumerate(inputs) if t.requires_grad]
    if not checked:
        raise ValueError("gradcheck: no input has requires_grad=True, there is nothing to check")
    for k in checked:
        if inputs[k].dtype != np.float64:
            raise TypeError(
                f"gradcheck: input {k} {inputs[k].shape} is {inputs[k].dtype}, whose rounding drowns a small difference; "
                "check in float64 (tensor(..., dtype=np.float64), module.to(np.float64))"
            )
        if inputs[k].creator is not None:
            raise ValueError(f"gradcheck: input {k} {inputs[k].shape} was computed; pass a leaf, e.g. x.detach().requires_grad_()")
    return checked


def _same_again(first: Sequence[Tensor], second: Sequence[Tensor]) -> None:
    if len(first) != len(second) or any(not np.array_equal(a.numpy(), b.numpy()) for a, b in zip(first, second, strict=True)):
        raise ValueError(
            "gradcheck: f gave two results for the same inputs; seed its random numbers inside f, or switch dropout off with .eval()"
        )


def _gradients(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor], checked: Sequence[int], cotangents: Sequence[FloatArray]
) -> list[FloatArray]:
    """What back-propagation says; zero for an input that it does not reach."""
    reached = [(y, Tensor(array_module(y.data).asarray(u))) for y, u in zip(outputs, cotangents, strict=True) if y.requires_grad]
    wanted = [inputs[k] for k in checked]
    found = grad([y for y, _ in reached], wanted, [u for _, u in reached], allow_unused=True) if reached else [None] * len(wanted)
    for k, t, g in zip(checked, wanted, found, strict=True):
        if g is not None and (g.shape != t.shape or g.dtype != t.dtype):
            raise GradientError(f"gradient of input {k} is {g.shape} {g.dtype}, the input is {t.shape} {t.dtype}")
    return [np.zeros(t.shape) if g is None else g.numpy() for t, g in zip(wanted, found, strict=True)]
