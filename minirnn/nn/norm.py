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
        """x (..., *normalized_shape); y like x."""
        axes = len(self.normalized_shape)
        if not isinstance(x, Tensor) or x.shape[max(x.ndim - axes, 0) :] != self.normalized_shape:
            came = x.shape if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"LayerNorm: input must be a Tensor whose last axes are normalized_shape={self.normalized_shape}, got {came}")
        return ops.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def describe(self) -> str:
        return f"{self.normalized_shape}"


class GroupNorm(Module):
    """y = weight (x - mean) / sqrt(var + eps) + bias, mean and variance over each of the groups of channels (Wu and He 2018).

    x (N, C, *), C = num_channels; a group is C / num_groups channels with all that comes after. Unlike batch normalisation it keeps no
    running statistics, and what else is in a batch makes no difference. weight (C,), at first ones, and bias (C,), at first zeros.
    """

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True) -> None:
        if num_groups < 1 or num_channels % num_groups:
            raise ValueError(f"GroupNorm: num_channels={num_channels} must be divisible by num_groups={num_groups}")
        self.num_groups, self.num_channels, self.eps = num_groups, num_channels, eps
        self.weight = Parameter(np.ones(num_channels, np.float32)) if affine else None
        self.bias = Parameter(np.zeros(num_channels, np.float32)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, ...); y like x."""
        if not isinstance(x, Tensor) or x.ndim < 2 or x.shape[1] != self.num_channels:
            came = x.shape if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"GroupNorm: input must be a Tensor (N, C, ...) with C = num_channels = {self.num_channels}, got {came}")
        return ops.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def describe(self) -> str:
        return f"{self.num_groups}, {self.num_channels}"
