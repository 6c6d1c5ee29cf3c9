"""Adam and AdamW on a GPU: adam.cu, one launch for each parameter.

`scale` may be a 0-d device array. The host then never waits for the norm of the gradients, and where the scale is not finite the device
leaves param, m and v as they are. t has counted that step all the same: the corrections of (5) are those of one step more.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minirnn.kernels.contract import Array
from minirnn.kernels.cuda.arrays import module_of
from minirnn.kernels.cuda.launch import function, wide

UNIT = "adam/adam.cu"
BLOCK = 256


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
    scale: Any = 1.0,
) -> None:
    """Update `param`, `m` and `v` in place; the arguments are numpy_.step's, but that scale may be a 0-d array of the same device.

    float32, float64, float16 or bfloat16. The small ones are computed in float32 and rounded to what the arrays hold: a step of less than
    half a unit in the last place of a parameter is lost.
    """
    for name, array in (("param", param), ("grad", grad), ("m", m), ("v", v)):
        if not array.flags.c_contiguous:
            raise ValueError(f"adam: {name} must be C-contiguous; ascontiguousarray makes it so")
        if array.shape != param.shape or array.dtype != param.dtype:
            raise ValueError(f"adam: {name} is {array.dtype} {array.shape} and param is {param.dtype} {param.shape}; they must agree")
    if not param.size:
        return
    xp = module_of(param)
    real = wide(param.dtype)
    on_device = isinstance(scale, xp.ndarray)
    coefficients = (
        0.0 if decoupled else weight_decay,
        1 - lr * weight_decay if decoupled else 1.0,
        1 - beta1,
        1 - beta2,
        lr / (1 - beta1**t),
        1 / math.sqrt(1 - beta2**t),
        eps,
    )
    arguments = (
        *(param, grad, m, v, np.int64(param.size)),
        scale.astype(real, copy=False) if on_device else real(scale),
        *map(real, coefficients),
    )
    name = "adam_step_clipped" if on_device else "adam_step"
    function(xp, UNIT, name, param.dtype)((-(-param.size // BLOCK),), (BLOCK,), arguments)
