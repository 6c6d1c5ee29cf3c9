"""Normalisation."""

from __future__ import annotations

import numpy as np

from minirnn import ops
from minirnn.nn.module import Module, Parameter
from minirnn.tensor import Tensor


class LayerNorm(Module):
    """y = weight (x - mean) / sqrt(var + eps) + bias, mean and variance over the last axes, `normalized_shape` (Ba et al. 2016).

    weight, at first ones, and bias, at first zeros, have the shape `normalized_shape`; without elementwise_affine there are none.
    """

    def __init__(
        self, normalized_shape: int | tuple[int, ...], eps: float = 1e-5, elementwise_affine: bool = True, bias: bool = True
    ) -> None:
        self.normalized_shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.eps = eps
        self.weight = Parameter(np.ones(self.normalized_shape, np.float32)) if elementwise_affine else None
        self.bias = Parameter(np.zeros(self.normalized_shape, np.float32)) if elementwise_affine and bias else None

    def forward(self, x: Tensor) -> Tensor:
        axes = len(self.normalized_shape)
        if not isinstance(x, Tensor) or x.shape[max(x.ndim - axes, 0) :] != self.normalized_shape:
            came = x.shape if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"LayerNorm: input must be a Tensor whose last axes are normalized_shape={self.normalized_shape}, got {came}")
        return ops.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def describe(self) -> str:
        return f"{self.normalized_shape}"
