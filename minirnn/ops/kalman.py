"""The log-likelihood of a linear Gaussian state-space model as one operation, and the same unrolled into primitive operations.

    z_1 ~ N(m0, P0),   z_t = A z_{t-1} + b_t + N(0, Q),   x_t = C z_t + d_t + N(0, R)

`minirnn.kernels.kalman` filters, and its score is the derivative: Fisher's identity, E[d ln p(x, z) / d theta | x], in a form that inverts
neither Q nor R. Where a gradient is differentiated again, the unrolled form is built and differentiated instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minirnn.autograd import Function, grad, is_recording
from minirnn.device import Array, array_module, beside, device_of, kind_of, to_device
from minirnn.kernels import flops, registry
from minirnn.kernels.kalman.contract import Parameters, whole_lengths
from minirnn.ops.broadcast import broadcast_to, sum_to
from minirnn.ops.linalg import cholesky, solve
from minirnn.ops.reduction import sum
from minirnn.ops.shape import diagonal, expand_dims, stack, swapaxes
from minirnn.place import at
from minirnn.tensor import Tensor


class KalmanLogLikelihood(Function):
    """L_n = sum_t ln p(x_t | x_<t) of sequence n        d theta = sum_n dL_n E[d ln p(x, z) / d theta | x of sequence n]"""

    kernel: Any
    y: Array  # (N, T, p)
    lengths: Array | None
    filtered: Any

    def forward(self, *arrays: Array) -> Array:
        self.filtered = self.kernel.filter(Parameters(*arrays), self.y, self.lengths)
        return self.filtered.log_likelihood

    def backward(self, dy: Tensor) -> Sequence[Tensor | None]:
        if is_recording():
            return self._recorded(dy)
        score = self.kernel.score(Parameters(*(t.data for t in self.inputs)), self.y, self.filtered, dy.data)
        return [sum_to(Tensor(g), t.shape) if needed else None for g, t, needed in zip(score, self.inputs, self.needs, strict=True)]

    def _recorded(self, dy: Tensor) -> Sequence[Tensor | None]:
        inputs = [t[...] for t in self.inputs]  # places of their own on the tape
        total = sum(kalman_unrolled(*inputs, y=self.y, lengths=self.lengths) * dy)
        wanted = [t for t in inputs if t.requires_grad]
        found = iter(grad(total, wanted, create_graph=True, allow_unused=True, independent=True))
        return [next(found) if t.requires_grad else None for t in inputs]

    def locate(self, array: Array) -> str:
        if not hasattr(self, "filtered") or array.shape != self.filtered.lengths.shape:
            return super().locate(array)
        sequence, step = np.argwhere(~np.isfinite(to_device(self.filtered.log_likelihoods, "cpu")))[0]
        return f"time step {step}, sequence {sequence} of the batch"

    def flops(self) -> int:
        return int(self.filtered.lengths.sum()) * flops.kalman_filter(self.y.shape[2], len(self.inputs[0]))

    def backward_flops(self) -> int:
        return int(self.filtered.lengths.sum()) * flops.kalman_score(self.y.shape[2], len(self.inputs[0]))


def kalman_log_likelihood(
    A: Tensor,
    Q: Tensor,
    C: Tensor,
    R: Tensor,
    b: Tensor,
    d: Tensor,
    m0: Tensor,
    P0: Tensor,
    *,
    y: Array,
    lengths: Array | None = None,
    kernel: str | None = None,
) -> Tensor:
    """ln p(x_1..x_T) of every sequence, (N,), differentiable in all parameters.

    A (n, n); Q (n, n); C (p, n); R (p, p); b (n,), (T, n) or (N, T, n); d (p,), (T, p) or (N, T, p); m0 (n,) or (N, n); P0 (n, n) or
    (N, n, n); y (N, T, p), an array, NaN where nothing was observed; lengths (N,), None: all of T. `kernel` names an implementation.
    Q, R and P0 are symmetric, and gradients are those along symmetric changes: make them as B B^T.

    On a device, to which y is moved, an observation whose covariance is not positive definite makes NaN and raises nothing.
    """
    inputs = (A, Q, C, R, b, d, m0, P0)
    where, y = kind_of(device_of(A.data)), beside(y, A.data)
    chosen = registry.choose("kalman", dtype=A.dtype, device=where, kernel=kernel, T=y.shape[1], N=len(y), H=A.shape[-1])
    module = registry.load("kalman", chosen.name, where)
    if not hasattr(module, "score"):
        raise RuntimeError(f"the kalman kernel {chosen.name!r} has no derivative; filter and smooth with it, and learn with another")
    return KalmanLogLikelihood.apply(*inputs, kernel=module, y=y, lengths=lengths)


def kalman_unrolled(
    A: Tensor, Q: Tensor, C: Tensor, R: Tensor, b: Tensor, d: Tensor, m0: Tensor, P0: Tensor, *, y: Array, lengths: Array | None = None
) -> Tensor:
    """`kalman_log_likelihood` one step at a time, in primitive operations. Equation numbers are those of README.md in kernels/kalman."""
    y = beside(y, A.data)
    (N, T, p), n, xp = y.shape, len(A), array_module(y)
    inside = beside(np.arange(T) < whole_lengths(lengths, N, T)[:, None], y)  # (N, T)
    there = ~xp.isnan(y) & inside[:, :, None]  # (N, T, p)
    observed = xp.where(there, y, 0)
    b, d = broadcast_to(b, (N, T, n)), broadcast_to(d, (N, T, p))
    m, P = broadcast_to(m0, (N, n)), broadcast_to(P0, (N, n, n))  # (1.1)
    AT, CT = swapaxes(A, 0, 1), swapaxes(C, 0, 1)
    terms = []
    for t in range(T):
        with at(step=t):
            if t > 0:
                m = m @ AT + b[:, t]  # (N, n)                                                    (2.1)
                P = A @ P @ AT + Q  # (N, n, n)                                                   (2.2)
            seen = there[:, t].astype(y.dtype)  # (N, p)
            v = Tensor(seen) * (Tensor(observed[:, t]) - m @ CT - d[:, t])  # (N, p)              (2.3)
            CP = Tensor(seen[:, :, None]) * (C @ P)  # (N, p, n)
            both, missing = seen[:, :, None] * seen[:, None, :], (1 - seen)[:, :, None] * xp.eye(p, dtype=y.dtype)
            S = Tensor(both) * (C @ P @ CT + R) + Tensor(missing)  # (N, p, p)                    (2.4)
            L = cholesky(S)
            white = solve(L, expand_dims(v, -1))  # (N, p, 1)
            gain = solve(L, CP)  # (N, p, n)  K = gain^T L^-1                                     (2.5)
            m = m + sum(gain * white, 1)  # (N, n)                                                (2.6)
            P = P - swapaxes(gain, 1, 2) @ gain  # (N, n, n)                                      (2.7)
            log_det = 2 * sum(diagonal(L).log(), -1)  # (N,)
            terms.append(-0.5 * (sum(white * white, (1, 2)) + log_det) - Tensor(0.5 * math.log(2 * math.pi) * seen.sum(1)))  # (2.8)
    return sum(stack(terms), 0)
