"""Convolution of images, forward and backward, line by line: windows are laid out as columns, and matrix products do the rest.

    y[n, f, p, q] = b_f + sum over c, u, v of w[f, c, u, v] x[n, c, s p + d u - a, r q + e v - z]       (1)

x is 0 outside; (s, r) is the stride, (a, z) the padding, (d, e) the dilation. With columns X (K, M), K = C U V elements of a window,
M = N P Q places, and dy laid out as Y (F, M):

    dw = Y X^T                                                                      (2)
    db = sum over places of Y                                                       (3)
    dX = w^T Y, and dx is the sum of dX over the windows that see a pixel           (4)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minirnn.kernels.contract import Array

Pair = tuple[int, int]


class Geometry(NamedTuple):
    """How a window slides: (rows, columns) of each."""

    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)

    def places(self, image: Pair, window: Pair) -> Pair:
        """P, Q: the positions of a window (U, V) in an image (H, W)."""
        P, Q = (
            (n + 2 * pad - d * (k - 1) - 1) // s + 1
            for n, k, s, pad, d in zip(image, window, self.stride, self.padding, self.dilation, strict=True)
        )
        return P, Q


def forward(x: Array, w: Array, b: Array | None, geometry: Geometry) -> tuple[Array, Array]:
    """x (N, C, H, W), w (F, C, U, V), b (F,) or None, of any dtype -> y (N, F, P, Q), and what `backward` needs"""
    (s, r), (top, left), (d, e) = geometry
    F, _, U, V = w.shape
    padded = np.pad(x, ((0, 0), (0, 0), (top, top), (left, left)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (d * (U - 1) + 1, e * (V - 1) + 1), axis=(2, 3))
    windows = windows[:, :, ::s, ::r, ::d, ::e]  # (N, C, P, Q, U, V)
    N, C, P, Q, _, _ = windows.shape
    columns = windows.transpose(1, 4, 5, 0, 2, 3).reshape(C * U * V, N * P * Q)  # (K, M)
    y = w.reshape(F, -1) @ columns  # (F, M)                                        (1)
    if b is not None:
        y += b[:, None]
    return y.reshape(F, N, P, Q).transpose(1, 0, 2, 3), columns


def backward(
    dy: Array, w: Array, kept: Array, geometry: Geometry, image: Pair, needs: tuple[bool, bool, bool]
) -> tuple[Array | None, Array | None, Array | None]:
    """dy (N, F, P, Q), w (F, C, U, V), `kept` from `forward`, image (H, W) -> dx (N, C, H, W), dw (F, C, U, V), db (F,)

    needs: which of them are wanted; the others are None.
    """
    (s, r), (top, left), (d, e) = geometry
    (N, F, P, Q), (_, C, U, V), (H, W) = dy.shape, w.shape, image
    rows = dy.transpose(1, 0, 2, 3).reshape(F, -1)  # (F, M)
    dx = None
    if needs[0]:
        windows = (w.reshape(F, -1).T @ rows).reshape(C, U, V, N, P, Q)
        padded = np.zeros((C, N, H + 2 * top, W + 2 * left), dy.dtype)
        for u in range(U):
            for v in range(V):  #                                                   (4)
                padded[:, :, d * u : d * u + s * P : s, e * v : e * v + r * Q : r] += windows[:, u, v]
        dx = padded[:, :, top : top + H, left : left + W].transpose(1, 0, 2, 3)
    dw = (rows @ kept.T).reshape(w.shape) if needs[1] else None  #                  (2)
    return dx, dw, rows.sum(axis=1) if needs[2] else None  #                        (3)
