"""What concerns a whole model at once: its gradients, its mode."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import numpy as np

from minirnn.device import Array, array_module, on_host
from minirnn.kernels import registry
from minirnn.nn.module import Module
from minirnn.tensor import Tensor

Norm: TypeAlias = "float | Tensor"  # a Tensor without axes where it lives on a device: float(norm) waits for it and gives the number


@contextmanager
def evaluating(model: Module) -> Iterator[None]:
    """The model in evaluation mode, and afterwards each of its modules as it was."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


def grad_norm(parameters: Iterable[Tensor] | Tensor, norm_type: float = 2.0) -> Norm:
    """The norm of all gradients as one vector: Euclidean (2) or the largest magnitude (`math.inf`).

    Parameters without a gradient are left out. A number; on a device a Tensor, for which nobody has waited yet.
    """
    if norm_type not in (2.0, math.inf):
        raise ValueError(f"grad_norm: norm_type must be 2 or math.inf, got {norm_type}")
    grads = [p.grad.data for p in _listed(parameters) if p.grad is not None and p.grad.size]
    if grads and not on_host(grads[0]):
        return Tensor(_norm_on_device(grads, norm_type))
    if norm_type == math.inf:
        return max((float(abs(g).max()) for g in grads), default=0.0)
    alike = [[g for g in grads if g.dtype == dtype] for dtype in dict.fromkeys(g.dtype for g in grads)]
    return math.sqrt(sum(registry.fused("squares", some[0]).total(some) for some in alike))


def _norm_on_device(grads: list[Array], norm_type: float) -> Array:
    """The norm as an array without axes, in float64. Squares of 16 bits are taken in float32: in float16, 2^-13 squared is 0."""
    xp = array_module(grads[0])
    if norm_type == math.inf:
        return xp.stack([abs(g).max() for g in grads]).max().astype(np.float64)
    wide = [g.astype(np.float32) if g.dtype.itemsize == 2 else g for g in grads]
    return xp.sqrt(xp.stack([xp.vdot(g, g).real for g in wide]).sum(dtype=np.float64))


def clip_grad_norm_(
    parameters: Iterable[Tensor] | Tensor, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> Norm:
    """Scale all gradients by one factor, so that their norm is at most `max_norm`; returns the norm that they had.

    Each `.grad` that changes is replaced, never written to: other tensors may share its array. Where the norm is not finite, raises
    FloatingPointError if `error_if_nonfinite`, for which the host waits for a device, and otherwise scales as PyTorch does, which leaves
    zeros or NaN.
    """
    parameters = _listed(parameters)
    norm = grad_norm(parameters, norm_type)
    if error_if_nonfinite and not math.isfinite(norm):
        norm = float(norm)
        named = ((getattr(p, "name", "") or f"parameter {k}", p) for k, p in enumerate(parameters))
        raise FloatingPointError(f"clip_grad_norm_: {nonfinite_message(named, norm)}")
    if isinstance(norm, Tensor):
        factor = array_module(norm.data).minimum(max_norm / (norm.data + 1e-6), 1)
        for p in parameters:
            if p.grad is not None:
                p.grad = Tensor(p.grad.data * factor.astype(p.grad.dtype))
        return norm
    scale = max_norm / (norm + 1e-6)
    if not scale >= 1:
        for p in parameters:
            if p.grad is not None:
                p.grad = Tensor(p.grad.data * p.grad.dtype.type(scale))
    return norm


def _listed(parameters: Iterable[Tensor] | Tensor) -> list[Tensor]:
    return [parameters] if isinstance(parameters, Tensor) else list(parameters)


def nonfinite_message(named: Iterable[tuple[str, Tensor]], norm: float) -> str:
    """Which gradients are not finite, or that only their norm is not. The host waits for those of a device."""
    grads = [(name, p.grad.data) for name, p in named if p.grad is not None]
    bad = [f"{name} {g.shape}" for name, g in grads if not array_module(g).isfinite(g).all()]
    which = f"the gradients of {', '.join(bad)} are not finite" if bad else "the gradients are finite, but their squares overflow"
    return f"the norm of the gradients is {norm}: {which}; minirnn.detect_anomaly() finds the operation and the step"
