"""How many floating-point operations a call of a kernel takes, from the shapes of its arguments.

Counted are the operations of the equations, whatever an implementation does to get there:

    each number that +, -, *, /, a power, a root, a maximum or an elementary function gives     1     exp, ln, tanh, sigmoid, softplus too
    a product (m, k) by (k, n)                                                                  2 m k n
    a sum, or the largest, of n numbers                                                         n
    choosing, copying, comparing, drawing, casting, integers                                    0

An elementary function costs a processor ten to twenty operations: FLOP/s of a kernel that consists of them are to be read so.

`CALLS` has a count for each function of each kernel that an operation or an optimiser calls. It takes the arguments of the call; of arrays
it asks for the shape alone, except for those that say which numbers there are (a mask, lengths).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minirnn.kernels.contract import Array

# Operations per row and hidden unit beside the products; gates G.
#         G  forward                          backward, to which 1 comes for dh and 1 for dc
_UNIT = {
    "lstm": (4, 13, 23),  # z + 4, gates 4, c 3, h 2        tanh 1, da_o 4, dc 5, da_i 4, da_f 4, da_g 4, dc_{t-1} 1
    "gru": (3, 11, 18),  # r 2, u 2, hn 1, n 3, h 3         dz_n 5, dz_u 5, dz_r 4, da 1, dh_{t-1} 2, db_hn 1
    "rnn": (1, 2, 3),  # z + 1, phi 1                       dz 3
}


def product(m: int, k: int, n: int) -> int:
    """(m, k) by (k, n)."""
    return 2 * m * k * n


def recurrence(cell: str, S: int, H: int) -> int:
    """All that is recurrent, of S rows and H hidden units, forward: h w_hh^T and what each unit does."""
    G, forward, _ = _UNIT[cell]
    return S * (product(1, H, G * H) + forward * H)


def recurrence_gradient(cell: str, S: int, H: int, given: int = 1, relu: bool = False) -> int:
    """Its backward pass: dz w_hh, dz^T h, and what each unit does; `given`: how many of dh and dc come for every row."""
    G, _, backward = _UNIT[cell]
    return S * (2 * product(1, G * H, H) + (1 if relu else backward) * H + given * H)


def gates(cell: str, S: int, H: int) -> int:
    """The gates of all rows at once, from their input and from h w_hh^T (a GRU) or the sum of both (an LSTM)."""
    return S * H * {"lstm": 4, "gru": 8}[cell]


def solve(n: int, k: int) -> int:
    """a (n, n) y = b (n, k): elimination, and two substitutions."""
    return 2 * n**3 // 3 + product(n, n, k)


def normalise(numbers: int, groups: int, parameters: int) -> int:
    """Mean and spread of groups of numbers, and each number less the one, over the other; `parameters`: how many of weight and bias are."""
    return (5 + parameters) * numbers + 5 * groups


def normalise_gradient(numbers: int, groups: int, weight: bool, affine: bool) -> int:
    """n (2), g n and its sum, the sum of g, dx (4), and with `weight` g; with `affine` dweight and dbias."""
    return (9 + weight + 3 * affine) * numbers + 2 * groups


def attention(pairs: int, D: int) -> int:
    """Scores, softmax and mean of that many pairs of a query and a key (D,)."""
    return 2 * product(pairs, D, 1) + 5 * pairs


def attention_gradient(pairs: int, D: int, weights: bool) -> int:
    """da, ds, dq and dk; `weights`: whether the weights have a gradient of their own."""
    return 4 * product(pairs, D, 1) + (4 + weights) * pairs


def pairs(owners: Array, there: Array | None, G: int) -> int:
    """How many pairs of a query and a key of its sequence there are."""
    return len(owners) * G if there is None else int(there.sum(1)[owners].sum())


def cross_entropy(S: int, V: int, label_smoothing: float) -> int:
    """The largest, less it, e^ and sum of V; ln, the target's share and two sums; and with smoothing the mean of V."""
    return S * (4 * V + 4 + (V + 3 if label_smoothing else 0))


def convolution(w: tuple[int, ...], places: int) -> int:
    """The products of weights (F, C, U, V) with that many windows; so many are its dx and its dw, too."""
    return product(w[0], math.prod(w[1:]), places)


def kalman_filter(p: int, n: int) -> int:
    """One step, p observed and n states. Products and solves alone; what is computed below the diagonal alone counts half."""
    predict = 3 * n**3  # A P, and half of (A P) A^T
    return predict + 2 * n**2 * p + n * p**2 + p**3 // 3 + 2 * n * p**2 + 2 * n**2 * p + 3 * n**3 + 2 * n * p**2 + n**2 * p


def kalman_smoother(n: int) -> int:
    """One step of it, in the same way."""
    return 2 * n**3 + n**3 // 3 + 2 * n**3 + 2 * n**3 + 3 * n**3 + 3 * n**3 + 2 * n**3


def kalman_score(p: int, n: int) -> int:
    """One step of it, in the same way."""
    innovation = 2 * n**2 * p + n * p**2 + p**3 // 3 + 2 * n * p**2
    precision = 2 * p**3 // 3  # S^-1
    E, dC, G = 2 * n**2 * p + n * p**2, 2 * n**3 + 2 * n**2 * p, 2 * n * p**2 + n**2 * p + 2 * n**2 * p + 3 * n**3
    return innovation + precision + E + dC + G + 2 * n**3 + 2 * n**3 + 3 * n**3  # A P, G (A P), A^T G A


def gain(S: int, Z: int, H: int, C: int) -> int:
    """`minirnn.kernels.latent.gain`, S rows: W, P, V and U; (1) 13 H, (2) 2 Z, (3) 2 C, (4) 2 Z, (5) 7 Z, (6) 3 Z."""
    return S * (_gain_products(Z, H, C) + 13 * H + 2 * C + 14 * Z)


def gain_gradient(S: int, Z: int, H: int, C: int) -> int:
    return S * (2 * _gain_products(Z, H, C) + 28 * H + 3 * C + 21 * Z)


def _gain_products(Z: int, H: int, C: int) -> int:
    return product(1, Z + H, 4 * H) + product(1, H, 2 * Z) + product(1, H + Z, C) + product(1, C, 2 * Z)


def residual(S: int, Z: int, C: int) -> int:
    """`minirnn.kernels.latent.residual`, S rows: B and W, P and Q; u and v 2 C each, p and q 2 Z each, (3) 4 Z."""
    return S * (_residual_products(Z, C) + 4 * C + 8 * Z)


def residual_gradient(S: int, Z: int, C: int) -> int:
    return S * (2 * _residual_products(Z, C) + 6 * C + 11 * Z)


def _residual_products(Z: int, C: int) -> int:
    return product(1, Z, 2 * C) + 2 * product(1, C, 2 * Z)


# From here on, the same by the arguments of a call.

Call = Callable[..., int]


def _recurrent(cell: str) -> dict[tuple[str, str], Call]:
    def forward(z: Array, w_hh: Array, *_: Any, **options: Any) -> int:
        return recurrence(cell, len(z), w_hh.shape[1])

    def backward(tape: Any, w_hh: Array, *grads: Array | None, **options: Any) -> int:
        given = sum(g is not None for g in grads[: 2 if cell == "lstm" else 1])  # dh, dc
        return recurrence_gradient(cell, len(tape.h), w_hh.shape[1], given, getattr(tape, "nonlinearity", "") == "relu")

    def step(x: Array, h: Array, *others: Any, nonlinearity: str = "") -> int:
        weights = others[cell == "lstm" :]
        (N, D), H, wide = x.shape, h.shape[1], len(weights[0])
        biased = len(weights) > 2 and weights[2] is not None
        return int(product(N, D, wide) + biased * 2 * N * wide + recurrence(cell, N, H))

    return {(cell, "forward"): forward, (cell, "backward"): backward, (cell, "step"): step}


def _normal(kernel: str) -> dict[tuple[str, str], Call]:
    def forward(x: Array, *arguments: Any) -> int:
        *groups, weight, bias, _ = arguments
        return normalise(x.size, len(x) * math.prod(groups), (weight is not None) + (bias is not None))

    def backward(dy: Array, x: Array, weight: Array | None, mean: Array, r: Array, affine: bool = True) -> int:
        return normalise_gradient(x.size, mean.size, weight is not None, affine)

    return {(kernel, "forward"): forward, (kernel, "backward"): backward}


def _adam(param: Array, *_: Array, weight_decay: float, decoupled: bool, **options: Any) -> int:
    return int(param.size) * (14 + (0 if not weight_decay else 1 if decoupled else 2))


def _many_adam(parameters: Sequence[tuple[Any, ...]], *, scale: float = 1.0, **options: Any) -> int:
    return sum(_adam(*arrays[:4], **options) for arrays in parameters)


def _matmul(
    a: Array, b: Array, bias: Array | None = None, out: Array | None = None, accumulate: bool = False, sums: Array | None = None
) -> int:
    (M, K), N = a.shape, b.shape[1]
    return int(product(M, K, N) + ((bias is not None) + accumulate) * M * N + (sums is not None) * M * K)


def _conv_forward(x: Array, w: Array, b: Array | None, geometry: Any) -> int:
    places = len(x) * math.prod(geometry.places(x.shape[2:], w.shape[2:]))
    return int(convolution(w.shape, places) + (b is not None) * len(w) * places)


def _conv_backward(dy: Array, w: Array, kept: Any, geometry: Any, image: Any, needs: tuple[bool, bool, bool]) -> int:
    return (needs[0] + needs[1]) * convolution(w.shape, dy.size // len(w)) + needs[2] * int(dy.size)


def _max_pool(x: Array, size: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]) -> int:
    P, Q = ((n + 2 * pad - k) // s + 1 for n, k, s, pad in zip(x.shape[2:], size, stride, padding, strict=True))
    return int(math.prod(x.shape[:2]) * P * Q * math.prod(size))


def _attention(q: Array, k: Array, owners: Array, there: Array | None) -> int:
    return attention(pairs(owners, there, k.shape[1]), q.shape[1])


def _attention_backward(dc: Array, da: Array | None, q: Array, k: Array, owners: Array, there: Array | None, a: Array) -> int:
    return attention_gradient(pairs(owners, there, k.shape[1]), q.shape[1], da is not None)


def _kalman_filter(parameters: Any, y: Array, lengths: Array | None = None) -> int:
    steps = y.shape[0] * y.shape[1] if lengths is None else int(np.sum(lengths))
    return steps * kalman_filter(y.shape[2], parameters.A.shape[-1])


CALLS: dict[tuple[str, str], Call] = {
    **_recurrent("lstm"),
    **_recurrent("gru"),
    **_recurrent("rnn"),
    ("lstm", "gates"): lambda a: gates("lstm", len(a), a.shape[1] // 4),
    ("gru", "gates"): lambda z, a, b_hn: gates("gru", len(z), len(b_hn)),
    ("matmul", "multiply"): _matmul,
    ("relu", "forward"): lambda x: int(x.size),
    ("relu", "backward"): lambda dy, x: int(x.size),
    ("dropout", "apply"): lambda x, p, key: int(x.size),
    ("embedding", "backward"): lambda dy, ids, rows: int(dy.size),
    ("cross_entropy", "forward"): lambda logits, targets, smoothing=0.0: cross_entropy(len(logits), logits.shape[1], smoothing),
    ("cross_entropy", "backward"): lambda logits, *others: 4 * logits.size + len(logits),
    **_normal("layer_norm"),
    **_normal("group_norm"),
    ("attention", "forward"): _attention,
    ("attention", "backward"): _attention_backward,
    ("conv", "forward"): _conv_forward,
    ("conv", "backward"): _conv_backward,
    ("max_pool", "forward"): _max_pool,
    ("max_pool", "backward"): lambda dy, winners, image: int(dy.size),
    ("kalman", "filter"): _kalman_filter,
    ("kalman", "smooth"): lambda q, filtered: int(filtered.lengths.sum()) * kalman_smoother(q.A.shape[-1]),
    ("kalman", "score"): lambda q, y, filtered, weights: int(filtered.lengths.sum()) * kalman_score(y.shape[2], q.A.shape[-1]),
    ("gain", "forward"): lambda hint, w_hh, *others, **options: gain(len(hint), others[-1].shape[1], w_hh.shape[1], hint.shape[1]),
    ("gain", "backward"): lambda tape, w_hh, *grads: gain_gradient(len(tape.u), tape.es.shape[1] // 2, w_hh.shape[1], tape.u.shape[1]),
    ("residual", "forward"): lambda past, *others, **options: residual(len(past), others[-1].shape[1], past.shape[1]),
    ("residual", "backward"): lambda tape, *others: residual_gradient(len(tape.uv), tape.z0.shape[1], tape.uv.shape[1] // 2),
    ("adam", "step"): _adam,
    ("adam", "steps"): _many_adam,
    ("squares", "total"): lambda arrays: sum(2 * int(x.size) for x in arrays),
}
