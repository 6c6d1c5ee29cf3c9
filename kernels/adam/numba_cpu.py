"""Adam and AdamW fused: one pass that reads four arrays and writes three, and allocates nothing; threads share it.

Seven accesses of an element are all it costs, so the floor is memory: 28 bytes per float32 parameter. Equation numbers are numpy_.py's.
"""

from __future__ import annotations

import math

import numpy as np

from minirnn.kernels import workers
from minirnn.kernels.compiling import compiled
from minirnn.kernels.contract import Array

OPERATIONS = 100  # what an element costs, counted as `workers` does: the traffic is the price, not the arithmetic


def step(
    param: Array,
    grad: Array,
    m: Array,
    v: Array,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
    t: int,
    scale: float = 1.0,
) -> None:
    """Update `param`, `m` and `v` in place, float32 or float64; the arguments are numpy_.step's."""
    for name, array in (("param", param), ("grad", grad), ("m", m), ("v", v)):
        if not array.flags.c_contiguous:
            raise ValueError(f"adam: {name} must be C-contiguous; np.ascontiguousarray makes it so")
        if array.shape != param.shape or array.dtype != param.dtype:
            raise ValueError(f"adam: {name} is {array.dtype} {array.shape} and param is {param.dtype} {param.shape}; they must agree")
    coefficients = np.array(
        [
            scale,
            0.0 if decoupled else weight_decay,
            1 - lr * weight_decay if decoupled else 1.0,
            1 - beta1,
            1 - beta2,
            lr / (1 - beta1**t),
            1 / math.sqrt(1 - beta2**t),
            eps,
        ],
        param.dtype,
    )
    flat_param, flat_grad, flat_m, flat_v = param.reshape(-1), grad.reshape(-1), m.reshape(-1), v.reshape(-1)
    size = param.size
    P = workers.groups(size, OPERATIONS * size)

    def part(p: int) -> None:
        own = slice(p * size // P, (p + 1) * size // P)
        _update(flat_param[own], flat_grad[own], flat_m[own], flat_v[own], coefficients)

    workers.share(part, P)


@compiled(error_model="numpy", fastmath={"contract"})
def _update(param: Array, grad: Array, m: Array, v: Array, coefficients: Array) -> None:
    scale, coupled_decay, keep, new_m, new_v = coefficients[0], coefficients[1], coefficients[2], coefficients[3], coefficients[4]
    rate, correction, eps = coefficients[5], coefficients[6], coefficients[7]
    for j in range(param.size):
        g = scale * grad[j] + coupled_decay * param[j]  # (1), (2a)
        m[j] += new_m * (g - m[j])  # (3)
        v[j] += new_v * (g * g - v[j])  # (4)
        param[j] = keep * param[j] - rate * m[j] / (np.sqrt(v[j]) * correction + eps)  # (2b), (5)
