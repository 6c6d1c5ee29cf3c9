"""Convolution and pooling of images (N, C, H, W)."""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np

from minirnn import ops
from minirnn.nn import init
from minirnn.nn.module import Module, Parameter
from minirnn.random import Rng, generator
from minirnn.tensor import Tensor

Pair: TypeAlias = int | tuple[int, int]


class Conv2d(Module):
    """y[n, f] = bias_f + sum over c of weight[f, c] * x[n, c], * the cross-correlation; x (N, C, H, W), y (N, F, P, Q).

    weight (out_channels, in_channels / groups, I, J), bias (out_channels,): both uniform on +-1 / sqrt(in_channels / groups I J).
    kernel_size, stride, padding (zeros) and dilation are one number, or one for the rows and one for the columns.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Pair = 0,
        dilation: Pair = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        rng: Rng = None,
    ) -> None:
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(f"Conv2d: in_channels={in_channels} and out_channels={out_channels} must be divisible by groups={groups}")
        rng = generator(rng)
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        self.stride, self.padding, self.dilation = stride, padding, dilation
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        bound = 1 / math.sqrt(math.prod(shape[1:]))
        self.weight = init.uniform_(Parameter(np.empty(shape, np.float32)), -bound, bound, rng)
        self.bias = init.uniform_(Parameter(np.empty(out_channels, np.float32)), -bound, bound, rng) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, H, W); y (N, F, P, Q), P = (H + 2 padding - dilation (I - 1) - 1) // stride + 1, Q from W and J."""
        if not isinstance(x, Tensor) or x.ndim != 4 or x.shape[1] != self.in_channels:
            came = x.shape if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"Conv2d: input must be a Tensor (N, C, H, W) with C = in_channels = {self.in_channels}, got {came}")
        options = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}
        return ops.conv2d(x, self.weight, self.bias, groups=self.groups, **options)

    def describe(self) -> str:
        options = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1}
        said = [f", {name}={getattr(self, name)}" for name, usual in options.items() if getattr(self, name) != usual]
        return f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}" + "".join(said)


class MaxPool2d(Module):
    """The largest element of every window of x (N, C, H, W). `stride` is the window's size unless given; padding never wins."""

    def __init__(self, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0) -> None:
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, H, W); y (N, C, P, Q), P = (H + 2 padding - kernel_size) // stride + 1, and Q from W."""
        return ops.max_pool2d(x, self.kernel_size, self.stride, self.padding)

    def describe(self) -> str:
        return f"kernel_size={self.kernel_size}"
