"""Adam (Kingma and Ba 2015, algorithm 1) and AdamW (Loshchilov and Hutter 2019, algorithm 2), line by line.

g   <- scale dL/dparam                                                          (1)
g   <- g + weight_decay param           Adam                                    (2a)
param <- (1 - lr weight_decay) param    AdamW, `decoupled`                      (2b)
m   <- beta1 m + (1 - beta1) g                                                  (3)
v   <- beta2 v + (1 - beta2) g^2                                                (4)
param <- param - lr / (1 - beta1^t)  m / (sqrt(v / (1 - beta2^t)) + eps)        (5)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minirnn.kernels.contract import Array


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
    """Update `param`, `m` and `v` in place; `grad` is only read.

    param, grad, m, v: C-contiguous arrays of one shape and one dtype. m and v are the running means of g and g^2, zero before the first
    step. t counts the steps, from 1. scale multiplies the gradient (gradient clipping without a pass of its own).
    """
    g = scale * grad  # (1)
    if weight_decay and decoupled:
        param *= 1 - lr * weight_decay  # (2b)
    elif weight_decay:
        g += weight_decay * param  # (2a)
    m += (1 - beta1) * (g - m)  # (3)
    v += (1 - beta2) * (g * g - v)  # (4)
    param -= (lr / (1 - beta1**t)) * m / (np.sqrt(v) / math.sqrt(1 - beta2**t) + eps)  # (5)


def steps(parameters: Sequence[tuple[Array, Array, Array, Array, int]], *, scale: float = 1.0, **options: Any) -> None:
    """`step` for each of several parameters: (param, grad, m, v, t), all of one dtype."""
    for param, grad, m, v, t in parameters:
        step(param, grad, m, v, t=t, scale=scale, **options)
