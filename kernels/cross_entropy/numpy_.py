"""Cross entropy of softmax(x) with a smoothed target, for each row x of the logits, line by line.

The target distribution is q = (1 - e) onehot(y) + e / V (Szegedy et al. 2016, section 7, with e the label smoothing), and so

    m    = max_k x_k                                                                (1)
    lse  = m + log sum_k exp(x_k - m)                                               (2)
    loss = - sum_k q_k log softmax(x)_k
         = (lse - m) - (1 - e) (x_y - m) - e / V sum_k (x_k - m)                    (3)
    dx_k = dloss (exp(x_k - lse) - q_k)                                             (4)

A class whose logit is -inf has probability zero; its loss, as a target or under smoothing, is inf. A NaN or +inf makes the loss of its own
row NaN. A row whose dloss is 0 gets zeros, whatever its logits are. The caller has checked that every target is a class.
"""

from __future__ import annotations

import numpy as np

from minirnn.kernels.contract import Array


def forward(logits: Array, targets: Array, label_smoothing: float = 0.0) -> tuple[Array, Array]:
    """logits (S, V) real or complex, targets (S,) int in [0, V), label_smoothing in [0, 1) -> loss (S,), lse (S,)"""
    m = logits.real.max(axis=1, keepdims=True)  # (S, 1)                            (1)
    with np.errstate(invalid="ignore"):  # inf - inf is the NaN that the caller is to see
        x = logits - m  # (S, V)
    log_sum = np.log(np.exp(x).sum(axis=1))  # (S,)
    target = np.take_along_axis(x, targets[:, None], axis=1)[:, 0]  # (S,)
    loss = log_sum - (1 - label_smoothing) * target  # (S,)                         (3)
    if label_smoothing:
        loss -= label_smoothing * x.mean(axis=1)
    return loss, m[:, 0] + log_sum  #                                               (2)


def backward(logits: Array, targets: Array, lse: Array, dloss: Array, label_smoothing: float = 0.0) -> Array:
    """logits (S, V), targets (S,), lse (S,) from `forward`, dloss (S,) -> dlogits (S, V)"""
    q = np.full_like(logits, label_smoothing / logits.shape[1])  # (S, V)
    q[np.arange(len(q)), targets] += 1 - label_smoothing
    dlogits = dloss[:, None] * (np.exp(logits - lse[:, None]) - q)  # (S, V)        (4)
    dlogits[dloss == 0] = 0
    return dlogits
