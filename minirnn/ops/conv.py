"""Convolution and pooling of images (N, C, H, W): a window slides over the last two axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from minirnn.autograd import Function, is_recording
from minirnn.device import Array, array_module, on_host, peek
from minirnn.kernels import flops, registry
from minirnn.kernels.conv.numpy_ import Geometry
from minirnn.kernels.max_pool.numpy_ import winners as find_winners
from minirnn.ops.indexing import put_along_axis, take_along_axis
from minirnn.ops.linalg import matmul
from minirnn.ops.reduction import mean
from minirnn.ops.shape import reshape, transpose
from minirnn.tensor import Tensor

Pair: TypeAlias = int | tuple[int, int]


class Window(NamedTuple):
    """What slides over an image, and how: everything as (rows, columns)."""

    size: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)

    @property
    def geometry(self) -> Geometry:
        """How it slides, in the kernels' terms."""
        return Geometry(self.stride, self.padding, self.dilation)

    @property
    def span(self) -> tuple[int, ...]:
        """Rows and columns from the first element to the last."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.size, self.dilation, strict=True))

    def places(self, image: tuple[int, ...]) -> tuple[int, int]:
        """P, Q: how many positions there are in an image (..., H, W)."""
        P, Q = ((n + 2 * p - k) // s + 1 for n, p, k, s in zip(image[-2:], self.padding, self.span, self.stride, strict=True))
        return P, Q

    def views(self, x: Array, outside: float = 0.0) -> Array:
        """What each position sees of x (N, C, H, W): a view (N, C, P, Q, U, V) of x, or of a copy where there is padding."""
        xp = array_module(x)
        if any(self.padding):
            x = xp.pad(x, ((0, 0), (0, 0), *((p, p) for p in self.padding)), constant_values=outside)
        every = xp.lib.stride_tricks.sliding_window_view(x, self.span, axis=(2, 3))
        return every[:, :, :: self.stride[0], :: self.stride[1], :: self.dilation[0], :: self.dilation[1]]


class Im2Col(Function):
    """y[c, u, v, n, p, q] = x[n, c, s p + d u - padding, s q + d v - padding], 0 outside        dx = Col2Im(dy)

    x (N, C, H, W), y (C, U, V, N, P, Q): for each element (u, v) of the window the image that it sees; s the stride, d the dilation.
    """

    window: Window

    def forward(self, x: Array) -> Array:
        return self.xp.ascontiguousarray(self.window.views(x).transpose(1, 4, 5, 0, 2, 3))

    def backward(self, dy: Tensor) -> Tensor:
        return Col2Im.apply(dy, window=self.window, image=self.inputs[0].shape)

    def flops(self) -> int:
        return 0


class Col2Im(Function):
    """y[n, c, h, w] = sum of x[c, u, v, n, p, q] over the (u, v, p, q) that see h, w        dx = Im2Col(dy)"""

    window: Window
    image: tuple[int, int, int, int]

    def forward(self, x: Array) -> Array:
        N, C, H, W = self.image
        _, U, V, _, P, Q = x.shape
        _, (s, r), (top, left), (d, e) = self.window
        y = self.xp.zeros((C, N, H + 2 * top, W + 2 * left), x.dtype)
        for u in range(U):
            for v in range(V):
                y[:, :, d * u : d * u + s * P : s, e * v : e * v + r * Q : r] += x[:, u, v]
        return y[:, :, top : top + H, left : left + W].transpose(1, 0, 2, 3)

    def backward(self, dy: Tensor) -> Tensor:
        return Im2Col.apply(dy, window=self.window)

    def flops(self) -> int:
        return self.inputs[0].size


class Conv2d(Function):
    """y[n, f, p, q] = b_f + sum over c, u, v of w[f, c, u, v] x[n, c, s p + d u - padding, s q + d v - padding]        dw = Y X^T

    dX = w^T Y, dx = Col2Im(dX), db = the sum of Y over places; X (K, M) the windows of x as columns, Y (F, M) the columns of dy.
    x (N, C, H, W), w (F, C, U, V), b (F,) or none. One kernel in either direction, on the CPU; where a gradient is differentiated again, it
    is made of primitive operations.
    """

    window: Window
    kernel: Any  # the one that ran forward, which knows what it kept
    kept: Array

    def forward(self, x: Array, w: Array, b: Array | None = None) -> Array:
        self.kernel = registry.fused("conv", x)
        y, self.kept = self.kernel.forward(x, w, b, self.window.geometry)
        return y

    def backward(self, dy: Tensor) -> Sequence[Tensor | None]:
        x, w, *b = self.inputs
        if is_recording():
            return self._recorded(dy, x, w)[: len(self.inputs)]
        needs = (*self.needs[:2], bool(b) and self.needs[2])
        found = self.kernel.backward(dy.data, w.data, self.kept, self.window.geometry, x.shape[2:], needs)
        return [None if g is None else Tensor(g) for g in found[: len(self.inputs)]]

    def _recorded(self, dy: Tensor, x: Tensor, w: Tensor) -> Sequence[Tensor]:
        F, C, U, V = w.shape
        N, _, P, Q = dy.shape
        columns = reshape(Im2Col.apply(x, window=self.window), (C * U * V, N * P * Q))  # (K, M)
        rows = reshape(transpose(dy, (1, 0, 2, 3)), (F, N * P * Q))  # (F, M)
        windows = reshape(matmul(reshape(w, (F, C * U * V)).T, rows), (C, U, V, N, P, Q))
        return Col2Im.apply(windows, window=self.window, image=x.shape), reshape(matmul(rows, columns.T), w.shape), rows.sum(1)

    def flops(self) -> int:
        w, places = self.inputs[1], self._places()
        return flops.convolution(w.shape, places) + (len(self.inputs) - 2) * len(w) * places

    def backward_flops(self) -> int:
        w, places = self.inputs[1], self._places()
        return self.needs[:2].count(True) * flops.convolution(w.shape, places) + self.needs[2:].count(True) * len(w) * places

    def _places(self) -> int:
        x = self.inputs[0]
        return len(x) * math.prod(self.window.places(x.shape))


class MaxPool2d(Function):
    """y[n, c, p, q] = the largest x that the window sees        dx = dy at the first such pixel, summed over the windows

    One kernel in either direction, on the CPU; where a gradient is differentiated again, it is made of primitive operations.
    """

    window: Window
    kernel: Any
    winners: Array  # (N, C, P, Q)  where in a flattened image

    def forward(self, x: Array) -> Array:
        self.kernel = registry.fused("max_pool", x)
        y, self.winners = self.kernel.forward(x, self.window.size, self.window.stride, self.window.padding)
        return y

    def backward(self, dy: Tensor) -> Tensor:
        (N, C, H, W), (P, Q) = self.inputs[0].shape, dy.shape[2:]
        if not is_recording():
            return Tensor(self.kernel.backward(dy.data, self.winners, (H, W)))
        dx = put_along_axis(reshape(dy, (N, C, P * Q)), self.winners.reshape(N, C, P * Q), H * W, 2)
        return reshape(dx, (N, C, H, W))

    def flops(self) -> int:
        return int(self.winners.size) * math.prod(self.window.size)

    def backward_flops(self) -> int:
        return int(self.winners.size)


def conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, stride: Pair = 1, padding: Pair = 0, dilation: Pair = 1, groups: int = 1
) -> Tensor:
    """y[n, f, p, q] = b_f + sum over c, u, v of w[f, c, u, v] x[n, c, s p + d u - padding, s q + d v - padding]: (N, F, P, Q).

    x                           (N, C, H, W)
    weight                      (F, C / groups, U, V): each of the groups of output channels sees its own group of input channels
    bias                        (F,) or None
    stride, padding, dilation   one number, or one for the rows and one for the columns; the padding is zeros

    On the CPU a kernel does it (see `minirnn.kernels.conv`), whose y has its channels last in memory. Elsewhere, and for groups, all
    windows are laid out as columns, and one matrix product (for each group) does the rest.
    """
    if x.ndim != 4 or weight.ndim != 4 or groups < 1 or weight.shape[0] % groups or x.shape[1] != weight.shape[1] * groups:
        raise ValueError(
            f"conv2d: x must be (N, C, H, W) and weight (F, C / groups, U, V), C and F divisible by groups={groups}, "
            f"got x {x.shape} and weight {weight.shape}"
        )
    F, _, U, V = weight.shape
    if bias is not None and bias.shape != (F,):
        raise ValueError(f"conv2d: bias must be (F,) = ({F},) for weight (F, C / groups, U, V) = {weight.shape}, got {bias.shape}")
    window = _window("conv2d", x, (U, V), stride, padding, dilation)
    if groups == 1 and on_host(x.data):
        return Conv2d.apply(x, weight, *([] if bias is None else [bias]), window=window)
    columns = Im2Col.apply(x, window=window)  # (C, U, V, N, P, Q)
    places = columns.shape[3:]
    flat = reshape(columns, (groups, weight.size // F, x.shape[0] * places[1] * places[2]))
    y = matmul(reshape(weight, (groups, F // groups, weight.size // F)), flat)  # (groups, F / groups, N P Q)
    y = transpose(reshape(y, (F, *places)), (1, 0, 2, 3))
    return y if bias is None else y + reshape(bias, (F, 1, 1))


def max_pool2d(x: Tensor, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0) -> Tensor:
    """The largest element of every window of x (N, C, H, W): (N, C, P, Q). Of several equal ones the first gets the gradient.

    `stride` is the window's size unless given; padding counts as -inf.
    """
    window = _pooling_window("max_pool2d", x, kernel_size, stride, padding)
    if on_host(x.data):
        return MaxPool2d.apply(x, window=window)
    (N, C, H, W), xp = x.shape, array_module(x.data)
    P, Q = window.places(x.shape)
    unordered = peek(xp.isnan(x.data).any(), otherwise=True)  # whether the slower comparison is needed
    winners = find_winners(xp, window.views(x.data, -xp.inf), (H, W), window.stride, window.padding, unordered)
    apart = all(s >= k for s, k in zip(window.stride, window.size, strict=True))
    y = take_along_axis(reshape(x, (N, C, H * W)), winners.reshape(N, C, P * Q), 2, unique=apart)
    return reshape(y, (N, C, P, Q))


def avg_pool2d(x: Tensor, kernel_size: Pair, stride: Pair | None = None, padding: Pair = 0) -> Tensor:
    """The mean of every window of x (N, C, H, W): (N, C, P, Q). `stride` is the window's size unless given; padding counts as zeros."""
    columns = Im2Col.apply(x, window=_pooling_window("avg_pool2d", x, kernel_size, stride, padding))  # (C, U, V, N, P, Q)
    return transpose(mean(columns, (1, 2)), (1, 0, 2, 3))


def _pair(name: str, what: str, value: Pair, least: int) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or min(pair) < least:
        raise ValueError(f"{name}: {what} must be a number >= {least}, or one for the rows and one for the columns, got {value!r}")
    return pair[0], pair[1]


def _window(name: str, x: Tensor, size: Pair, stride: Pair, padding: Pair, dilation: Pair = 1) -> Window:
    window = Window(
        _pair(name, "kernel size", size, 1),
        _pair(name, "stride", stride, 1),
        _pair(name, "padding", padding, 0),
        _pair(name, "dilation", dilation, 1),
    )
    if x.ndim != 4:
        raise ValueError(f"{name}: x must be (N, C, H, W), got {x.shape}; one image alone needs a batch axis, x[None]")
    if min(window.places(x.shape)) < 1:
        raise ValueError(
            f"{name}: a window that spans {window.span} does not fit into x (N, C, H, W) = {x.shape} with padding {window.padding}; "
            "pad more, or make the window smaller"
        )
    return window


def _pooling_window(name: str, x: Tensor, size: Pair, stride: Pair | None, padding: Pair) -> Window:
    window = _window(name, x, size, size if stride is None else stride, padding)
    if any(2 * p > k for p, k in zip(window.padding, window.size, strict=True)):
        raise ValueError(
            f"{name}: padding {window.padding} is more than half of the window {window.size}; some windows would see nothing else"
        )
    return window
