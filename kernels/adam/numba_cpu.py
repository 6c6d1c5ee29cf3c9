"""Adam and AdamW fused: one pass that reads four arrays and writes three, and allocates nothing; threads share it.

Seven accesses of an element are all it costs, so the floor is memory: 28 bytes per float32 parameter. All parameters of a model are one
call (small ones would cost more to call than to update), so the compiled function gets a table of addresses. Equation numbers are
numpy_.py's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minirnn.kernels import workers
from minirnn.kernels.addresses import address, carray, pointer
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
    options: dict[str, Any] = {"lr": lr, "beta1": beta1, "beta2": beta2, "eps": eps, "weight_decay": weight_decay, "decoupled": decoupled}
    steps([(param, grad, m, v, t)], scale=scale, **options)


def steps(
    parameters: Sequence[tuple[Array, Array, Array, Array, int]],
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
    scale: float = 1.0,
) -> None:
    """`step` for each of several parameters: (param, grad, m, v, t), all float32 or all float64."""
    if not parameters:
        return
    dtype = parameters[0][0].dtype
    for *arrays, _ in parameters:
        shape = arrays[0].shape
        for name, array in zip(("param", "grad", "m", "v"), arrays, strict=True):
            if not array.flags.c_contiguous:
                raise ValueError(f"adam: {name} must be C-contiguous; np.ascontiguousarray makes it so")
            if array.shape != shape or array.dtype != dtype:
                raise ValueError(f"adam: {name} is {array.dtype} {array.shape} and param is {dtype} {shape}; they must agree")
    table = np.array([[*map(address, arrays), arrays[0].size] for *arrays, _ in parameters])  # (K, 5)
    rates = {t: (lr / (1 - beta1**t), 1 / math.sqrt(1 - beta2**t)) for *_, t in parameters}
    first = (scale, 0.0 if decoupled else weight_decay, 1 - lr * weight_decay if decoupled else 1.0, 1 - beta1, 1 - beta2)
    coefficients = np.array([(*first, *rates[t], eps) for *_, t in parameters], dtype)  # (K, 8)
    size = int(table[:, 4].sum())
    workers.run(_steps, workers.groups(size, OPERATIONS * size), table, coefficients)


@compiled(error_model="numpy")
def _steps(p: int, P: int, table: Array, coefficients: Array) -> None:
    """Thread p's share of all elements, as if the parameters were one array after the other."""
    total = 0
    for k in range(len(table)):
        total += table[k, 4]
    first, last, begin = p * total // P, (p + 1) * total // P, 0
    for k in range(len(table)):
        size = table[k, 4]
        own = slice(max(first - begin, 0), max(0, min(last - begin, size)))
        begin += size
        if own.start < own.stop:
            param, grad = carray(pointer(table[k, 0], coefficients), size), carray(pointer(table[k, 1], coefficients), size)
            m, v = carray(pointer(table[k, 2], coefficients), size), carray(pointer(table[k, 3], coefficients), size)
            _update(param[own], grad[own], m[own], v[own], coefficients[k])


@compiled(error_model="numpy", fastmath={"contract"})
def _update(param: Array, grad: Array, m: Array, v: Array, coefficients: Array) -> None:
    scale, coupled_decay, keep, new_m, new_v = coefficients[0], coefficients[1], coefficients[2], coefficients[3], coefficients[4]
    rate, correction, eps = coefficients[5], coefficients[6], coefficients[7]
    for j in range(param.size):
        g = scale * grad[j] + coupled_decay * param[j]  # (1), (2a)
        m[j] += new_m * (g - m[j])  # (3)
        v[j] += new_v * (g * g - v[j])  # (4)
        param[j] = keep * param[j] - rate * m[j] / (np.sqrt(v[j]) * correction + eps)  # (2b), (5)
