"""Losses that would cost several passes over the logits if they were composed."""

from __future__ import annotations

from typing import Literal

from minirnn.autograd import Function
from minirnn.device import Array, array_module
from minirnn.kernels import registry
from minirnn.ops.reduction import softmax
from minirnn.ops.shape import expand_dims, reshape
from minirnn.tensor import Tensor

Reduction = Literal["none", "mean", "sum"]


class CrossEntropy(Function):
    """loss_s = -sum_v q_sv ln p_sv        dx_s = (p_s - q_s) dloss_s

    p = softmax(x), q = (1 - label_smoothing) one-hot(target) + label_smoothing / V; logits x (S, V), targets (S,), loss (S,).
    """

    targets: Array
    label_smoothing: float

    def forward(self, x: Array) -> Array:
        loss, self.lse = registry.fused("cross_entropy", x).forward(x, self.targets, self.label_smoothing)
        return loss

    def backward(self, dloss: Tensor) -> Tensor:
        options = {"targets": self.targets, "label_smoothing": self.label_smoothing, "lse": self.lse}
        return CrossEntropyGrad.apply(self.inputs[0], dloss, **options)


class CrossEntropyGrad(Function):
    """dx_s = (p_s - q_s) dloss_s; its own backward, for second derivatives, is in primitive operations"""

    targets: Array
    label_smoothing: float
    lse: Array

    def forward(self, x: Array, dloss: Array) -> Array:
        return registry.fused("cross_entropy", x).backward(x, self.targets, self.lse, dloss, self.label_smoothing)

    def backward(self, d2x: Tensor) -> tuple[Tensor, Tensor]:
        x, dloss = self.inputs
        p = softmax(x)
        q = self.xp.full(x.shape, self.label_smoothing / x.shape[1], x.dtype)
        q[self.xp.arange(len(q)), self.targets] += 1 - self.label_smoothing
        return p * (d2x - (p * d2x).sum(1, keepdims=True)) * expand_dims(dloss, 1), ((p - Tensor(q)) * d2x).sum(1)


def reduce(losses: Tensor, reduction: Reduction, weights: Array | None = None) -> Tensor:
    """`losses` as they are ("none"), their "sum", or their "mean"; `weights` multiply them first and the mean divides by their sum.

    A mask is a weight of zeros and ones.
    """
    if weights is not None:
        weights = array_module(losses.data).asarray(weights, dtype=losses.dtype)
        if weights.shape != losses.shape:
            raise ValueError(f"weights must have one entry for each loss, {losses.shape}, got {weights.shape}")
        losses = losses * Tensor(weights)
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    if reduction == "mean":
        return losses.sum() / float(losses.size if weights is None else weights.sum())
    raise ValueError(f'reduction must be "none", "mean" or "sum", got {reduction!r}')


def cross_entropy(
    logits: Tensor, targets: Array, *, weights: Array | None = None, label_smoothing: float = 0.0, reduction: Reduction = "mean"
) -> Tensor:
    """-ln softmax(logits)[target], fused with the log-softmax.

    logits           (..., V)
    targets          (...) integers in 0..V-1
    weights          (...) or None: what each loss counts; 0 leaves a position out
    label_smoothing  share of the target's probability that is spread over all V classes
    reduction        "mean" (over the weights' sum), "sum", or "none" for the losses (...)
    """
    if targets.shape != logits.shape[:-1] or targets.dtype.kind not in "iu":
        raise ValueError(
            f"cross_entropy: targets must be integers {logits.shape[:-1]} for logits {logits.shape}, got {targets.dtype} {targets.shape}"
        )
    if targets.size and (targets.min() < 0 or targets.max() >= logits.shape[-1]):
        raise IndexError(f"cross_entropy: targets span {targets.min()}..{targets.max()}, the logits have classes 0..{logits.shape[-1] - 1}")
    rows = reshape(logits, (-1, logits.shape[-1]))
    losses = CrossEntropy.apply(rows, targets=targets.reshape(-1), label_smoothing=label_smoothing)
    return reduce(reshape(losses, targets.shape), reduction, weights)
