"""Losses: with weights (a mask is one), and reduced to a number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from minirnn.autograd import Function
from minirnn.device import Array, array_module, beside, is_array, on_host
from minirnn.kernels import flops, registry
from minirnn.ops.broadcast import fits
from minirnn.ops.elementwise import exp, pair, softplus, where
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

    def flops(self) -> int:
        S, V = self.inputs[0].shape
        return flops.cross_entropy(S, V, self.label_smoothing)


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
        dx = p * (d2x - (p * d2x).sum(1, keepdims=True)) * expand_dims(dloss, 1)
        return where(dloss.data[:, None] != 0, dx, 0), ((p - Tensor(q)) * d2x).sum(1)

    def flops(self) -> int:
        S, V = self.inputs[0].shape
        return S * (4 * V + 1)


class Weights(NamedTuple):
    """What each loss counts."""

    values: Array  # of the shape of the losses, beside them
    total: float | Tensor  # their sum: a number where they came from the host, else a Tensor that nobody has looked at


def _weights(name: str, weights: Array | None, shape: tuple[int, ...], like: Tensor) -> Weights | None:
    """The weights of losses of `shape`, repeated to it, in the dtype of the prediction."""
    if weights is None:
        return None
    if not fits(weights.shape, shape):
        raise ValueError(f"{name}: weights must have a shape that broadcasts to the losses {shape}, got {weights.shape}")
    xp = array_module(like.data)
    values = xp.broadcast_to(beside(weights, like.data).astype(like.dtype, copy=False), shape)
    return Weights(values, _total(weights, shape, like.dtype) if on_host(weights) else Tensor(values.sum()))


def _total(weights: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> float:
    """The sum of weights repeated to `shape`, in float64 for 16-bit numbers: in theirs, bfloat16's would stop growing at 256."""
    repeated = np.broadcast_to(weights.astype(dtype, copy=False), shape)
    return float(repeated.sum(dtype=np.float64 if dtype.itemsize == 2 else None))


def _reduce(name: str, losses: Tensor, reduction: Reduction, weights: Weights | None) -> Tensor:
    """`losses` as they are ("none"), their "sum", or their "mean"; `weights` multiply them first and the mean divides by their sum.

    A mask is a weight of zeros and ones. A loss of weight 0 is left out, be it NaN. Weights that add up to 0 leave nothing to average:
    an error, or NaN where they live on a device, since nobody waits there to look at them.
    """
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f'{name}: reduction must be "none", "mean" or "sum", got {reduction!r}')
    if weights is not None:
        losses = where(weights.values != 0, losses, 0) * Tensor(weights.values)
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    total = losses.size if weights is None else weights.total
    if not isinstance(total, Tensor) and not total:
        raise ValueError(f"{name}: there is nothing to average: the losses are {losses.shape} and their weights add up to 0")
    return losses.sum() / total


def cross_entropy(
    logits: Tensor, targets: Any, *, weights: Array | None = None, label_smoothing: float = 0.0, reduction: Reduction = "mean"
) -> Tensor:
    """-ln softmax(logits)[target], fused with the log-softmax.

    logits           (..., V)
    targets          (...) integers in 0..V-1: an array, a Tensor or a list. Those of the host are checked, and moved to the logits' device;
                     those on a device are not, since the host would have to wait for them
    weights          None or an array that broadcasts to (...): what each loss counts; 0 leaves a position out, whatever its logits are
    label_smoothing  share of the target's probability that is spread over all V classes
    reduction        "mean" (over the weights' sum), "sum", or "none" for the losses (...)
    """
    targets = targets.data if isinstance(targets, Tensor) else targets if is_array(targets) else np.asarray(targets)
    if targets.shape != logits.shape[:-1] or targets.dtype.kind not in "iu":
        raise ValueError(
            f"cross_entropy: targets must be integers {logits.shape[:-1]} for logits {logits.shape}, got {targets.dtype} {targets.shape}"
        )
    if on_host(targets) and targets.size and (targets.min() < 0 or targets.max() >= logits.shape[-1]):
        raise IndexError(f"cross_entropy: targets span {targets.min()}..{targets.max()}, the logits have classes 0..{logits.shape[-1] - 1}")
    rows = reshape(logits, (-1, logits.shape[-1]))
    losses = CrossEntropy.apply(rows, targets=beside(targets, logits.data).reshape(-1), label_smoothing=label_smoothing)
    return _reduce("cross_entropy", reshape(losses, targets.shape), reduction, _weights("cross_entropy", weights, targets.shape, logits))


def mse_loss(x: Tensor, target: Tensor | Array, *, weights: Array | None = None, reduction: Reduction = "mean") -> Tensor:
    """(x - target)^2, element by element. Weights and reduction as in `cross_entropy`; weights broadcast."""
    x, target = _alike("mse_loss", x, target)
    counts = _weights("mse_loss", weights, x.shape, x)
    x, target = _counted(counts, x, target)
    return _reduce("mse_loss", (x - target) ** 2, reduction, counts)


def gaussian_nll_loss(
    mean: Tensor, log_std: Tensor, target: Tensor | Array, *, weights: Array | None = None, reduction: Reduction = "mean"
) -> Tensor:
    """-ln N(target; mean, std^2) = ((target - mean) / std)^2 / 2 + ln std + ln(2 pi) / 2, element by element. `log_std` broadcasts.

    Weights and reduction as in `cross_entropy`; weights broadcast.
    """
    mean, target = _alike("gaussian_nll_loss", mean, target)
    counts = _weights("gaussian_nll_loss", weights, np.broadcast_shapes(mean.shape, log_std.shape), mean)
    mean, log_std, target = _counted(counts, mean, log_std, target)
    losses = ((target - mean) * exp(-log_std)) ** 2 * 0.5 + log_std + 0.5 * math.log(2 * math.pi)
    return _reduce("gaussian_nll_loss", losses, reduction, counts)


def binary_cross_entropy_with_logits(
    logits: Tensor, targets: Tensor | Array, *, weights: Array | None = None, reduction: Reduction = "mean"
) -> Tensor:
    """-t ln p - (1 - t) ln(1 - p) = ln(1 + e^x) - t x, with p = sigmoid(x), element by element; targets t in [0, 1].

    Weights and reduction as in `cross_entropy`; weights broadcast.
    """
    logits, targets = _alike("binary_cross_entropy_with_logits", logits, targets)
    counts = _weights("binary_cross_entropy_with_logits", weights, logits.shape, logits)
    logits, targets = _counted(counts, logits, targets)
    return _reduce("binary_cross_entropy_with_logits", softplus(logits) - targets * logits, reduction, counts)


def _alike(name: str, x: Tensor, target: Tensor | Array) -> tuple[Tensor, Tensor]:
    """Both as Tensors of one shape: a target that broadcast would be a mistake that nobody sees."""
    x, target = pair(x, target)
    if target.shape != x.shape:
        raise ValueError(f"{name}: the target must have the shape of the prediction, {x.shape}, got {target.shape}")
    return x, target


def _counted(weights: Weights | None, *operands: Tensor) -> Sequence[Tensor]:
    """The operands, zero where the weight is: a NaN there would reach the gradient, since 0 times NaN is NaN."""
    return operands if weights is None else [where(weights.values != 0, t, 0) for t in operands]
