"""One case or more for every Function: what `test_gradients.py` checks to second order.

A case is a function of Tensors that runs the operation (the gradient of an operation counts: its own case runs it in the second order), and
the inputs to try it at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from minirnn import checkpoint, ops
from minirnn.autograd import Function
from minirnn.checkpointing import _Checkpoint
from minirnn.device import beside
from minirnn.kernels import load
from minirnn.ops import attention, broadcast, conv, elementwise, indexing, kalman, latent, layer, linalg, loss, recurrence, reduction, shape
from minirnn.tensor import Tensor

from .arrays import Array, apart, normal, positive


class Case(NamedTuple):
    f: Callable[..., Tensor | Sequence[Tensor]]
    inputs: Sequence[Array]
    analytic: bool = True  # works on complex numbers, without conjugates or absolute values
    float32: bool = True  # computes in the dtype of its inputs


def _symmetric(x: Tensor) -> Tensor:
    """x x^T + 1/2, positive definite."""
    return x @ x.swapaxes(-1, -2) + 0.5 * np.eye(x.shape[-1], dtype=x.dtype)


IDS = np.array([3, 0, 3, 1, 3])
MASK = np.array([[True, False, True, True], [False, False, False, False], [True, True, True, False]])
OWNERS = np.array([2, 0, 2, 1, 2])
KEYS = np.array([[True, True], [False, False], [False, True]])
ALONG = np.array([[2, 2, 0], [1, 0, 1]])
STRIDED = conv.Window((2, 3), (2, 1), (1, 0), (1, 2))
DILATED = conv.Window((2, 2), (1, 2), (0, 1), (2, 1))
BATCH_SIZES = np.array([3, 2, 2, 1])
S, N, H = 8, 3, 2


def _recurrence(name: str, kernel: str) -> Callable[..., tuple[Tensor, ...]]:
    """On a device, the kernel there that is written in the same way."""
    operation = {"lstm": recurrence.LSTM, "gru": recurrence.GRU, "rnn": recurrence.RNN}[name]
    options: dict[str, Any] = {"batch_sizes": BATCH_SIZES}
    if name == "rnn":
        options["nonlinearity"] = "tanh"

    def f(*inputs: Tensor) -> tuple[Tensor, ...]:
        device = inputs[0].device
        named = kernel if device == "cpu" else {"numpy": "cupy", "numba": "numba-cuda"}[kernel]
        return operation.apply_all(*inputs, kernel=load(name, named, device), **options)

    return f


def _recurrences(name: str) -> list[Case]:
    gates = {"lstm": 4, "gru": 3, "rnn": 1}[name]
    biases = [normal(H)] if name == "gru" else []
    states = [normal(N, H, seed=k) for k in range(2 if name == "lstm" else 1)]
    inputs = [normal(S, gates * H), normal(gates * H, H), *biases, *states]
    return [Case(_recurrence(name, "numpy"), inputs), Case(_recurrence(name, "numba"), inputs, analytic=False)]


def _layer(cell: str, stateful: bool, kernel: str, **options: Any) -> Case:
    """A dense batch (T, N, D) = (2, 3, 2), the first states given and in one axis more, or packed rows (S, D) from zeros."""
    sizes, rows, shape = (np.array([N, N]), (2, N), (1, N, H)) if stateful else (BATCH_SIZES, (S,), None)
    gates = {"lstm": 4, "gru": 3, "rnn": 1}[cell]
    bias = options.pop("bias", True)
    weights = [
        normal(gates * H, 2),
        normal(gates * H, H, seed=1),
        *([normal(gates * H, seed=2), normal(gates * H, seed=3)] if bias else []),
    ]
    states = [normal(1, N, H, seed=4 + k) for k in range(2 if cell == "lstm" else 1)] if stateful else []

    def f(x: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        w = [*others[: len(weights)], None, None][:4]
        first = others[len(weights) :] if stateful else None
        named = kernel if x.device == "cpu" else {"numpy": "cupy", "numba": "numba-cuda"}[kernel]
        return ops.recurrent_layer(cell, x, w, first, sizes, state_shape=shape, kernel=named, **options)

    return Case(f, [normal(*rows, 2, seed=8), *weights, *states], analytic=kernel == "numpy")


SERIES = np.array([[[0.3, np.nan], [1.0, -0.4], [np.nan, np.nan], [0.2, 0.7]], [[-0.5, 0.1], [np.nan, 2.0], [0.0, 0.0], [0.0, 0.0]]])


def _kalman(kernel: str) -> Case:
    """Two sequences, of 4 and 2 steps; covariances as products, so that they stay symmetric."""

    def f(A: Tensor, B: Tensor, C: Tensor, D: Tensor, b: Tensor, d: Tensor, m0: Tensor, B0: Tensor) -> Tensor:
        y = SERIES.astype(A.dtype)
        Q, R, P0 = _symmetric(B), _symmetric(D), _symmetric(B0)
        named = kernel if A.device == "cpu" else "cupy"
        return ops.kalman_log_likelihood(A, Q, C, R, b, d, m0, P0, y=y, lengths=np.array([4, 2]), kernel=named)

    inputs = [normal(3, 3), normal(3, 3, seed=1), normal(2, 3), normal(2, 2), normal(4, 3), normal(2), normal(2, 3), normal(3, 3)]
    return Case(f, inputs, analytic=False)


C, Z = 3, 2
NOISE = normal(S, Z, seed=5)


def _latent_gain(*inputs: Tensor) -> tuple[Tensor, ...]:
    return ops.latent_gain(*inputs, noise=NOISE.astype(inputs[0].dtype), batch_sizes=BATCH_SIZES)


def _latent_residual(*inputs: Tensor) -> tuple[Tensor, ...]:
    return ops.latent_residual(*inputs, noise=NOISE.astype(inputs[0].dtype), batch_sizes=BATCH_SIZES)


GAIN = [(S, C), (4 * H, H), (4 * H, Z), (4 * H,), (2 * Z, H), (2 * Z,), (C, H + Z), (2 * Z, C), (2 * Z,), (N, Z)]
RESIDUAL = [(S, C), (S, C), (C, Z), (C, Z), (2 * Z, C), (2 * Z,), (2 * Z, C), (2 * Z,), (N, Z)]
TARGETS = np.array([1, 0, 3, 3])

CASES: dict[type[Function], list[Case]] = {
    _Checkpoint: [Case(lambda x, y: checkpoint(lambda a, b: [a.tanh() * b, a * a], x, y), [normal(3), normal(2, 3)], analytic=False)],
    # element by element
    elementwise.Add: [Case(ops.add, [normal(2, 3), normal(3)]), Case(lambda x: 2 + x, [normal(3)])],
    elementwise.Sub: [Case(ops.sub, [normal(2, 1), normal(3)]), Case(lambda x: 2 - x, [normal(3)])],
    elementwise.Mul: [Case(ops.mul, [normal(2, 3), normal(1, 3)]), Case(lambda x: x * x, [normal(3)])],
    elementwise.Div: [Case(ops.div, [normal(2, 3), positive(2, 1)]), Case(lambda x: 2 / x, [positive(3)])],
    elementwise.Neg: [Case(lambda x: -x, [normal(2, 3)])],
    elementwise.Pow: [
        Case(lambda x: x**3, [normal(5)]),
        Case(lambda x: x**2, [np.zeros(2)]),
        Case(lambda x: x**-0.5, [positive(5)]),
    ],
    elementwise.Exp: [Case(ops.exp, [normal(5)]), Case(lambda x, p: x**p, [positive(2, 3), normal(3)])],
    elementwise.Log: [Case(ops.log, [positive(5)])],
    elementwise.Sqrt: [Case(ops.sqrt, [positive(5)])],
    elementwise.Abs: [Case(ops.abs, [apart(5)], analytic=False)],
    elementwise.Tanh: [Case(ops.tanh, [normal(5)])],
    elementwise.Sigmoid: [Case(ops.sigmoid, [normal(5)])],
    elementwise.Relu: [Case(ops.relu, [apart(6)])],
    elementwise.Softplus: [Case(ops.softplus, [apart(6) * 30])],
    elementwise.Maximum: [
        Case(ops.maximum, [apart(2, 3), apart(3) + 0.02]),
        Case(ops.minimum, [apart(2, 3), apart(3) + 0.02]),
        Case(lambda x: ops.clip(x, -0.2, 0.11), [apart(8)]),
    ],
    elementwise.Where: [Case(lambda a, b: ops.where(MASK, a, b), [normal(3, 4), normal(4)])],
    elementwise.Dropout: [Case(lambda x: ops.dropout(x, 0.4, rng=7), [normal(3, 5)])],
    elementwise.Cast: [Case(lambda x: x.to(np.longdouble).to(np.float64), [normal(3)], analytic=False, float32=False)],
    elementwise.ToDevice: [Case(lambda x: elementwise.ToDevice.apply(x, option="cpu"), [normal(3)])],
    # arrangement
    broadcast.BroadcastTo: [Case(lambda x: ops.broadcast_to(x, (2, 3, 4)), [normal(3, 1)])],
    broadcast.SumTo: [Case(lambda x: ops.sum_to(x, (3, 1)), [normal(2, 3, 4)])],
    shape.Reshape: [Case(lambda x: x.reshape(3, -1), [normal(2, 3)])],
    shape.Transpose: [Case(lambda x: x.transpose(2, 0, 1), [normal(2, 3, 4)])],
    shape.Concatenate: [Case(lambda a, b: ops.concatenate([a, b, a], 1), [normal(2, 3), normal(2, 1)])],
    shape.Split: [
        Case(lambda x: ops.split(x, [2, 0, 3], 1), [normal(2, 5)]),
        Case(lambda x: ops.split(x * x, 3, 0)[1], [normal(6, 2)]),
    ],
    shape.Pad: [Case(lambda x: ops.pad(x, [(1, 0), (0, 2)]), [normal(2, 3)])],
    # reductions
    reduction.Sum: [Case(lambda x: x.sum((0, 2)), [normal(2, 3, 4)]), Case(lambda x: ops.sum(x, 1, mask=MASK), [normal(3, 4)])],
    reduction.Max: [Case(lambda x: x.max(1), [apart(3, 4)]), Case(lambda x: ops.min(x, keepdims=True), [apart(3, 4)])],
    reduction.LogSumExp: [Case(lambda x: ops.logsumexp(x, (0, 2)), [normal(2, 3, 4)])],
    reduction.Softmax: [Case(lambda x: ops.softmax(x, 0), [normal(3, 4)]), Case(lambda x: ops.softmax(x, 1, MASK), [normal(3, 4)])],
    reduction.LogSoftmax: [Case(lambda x: ops.log_softmax(x, 1), [normal(3, 4)])],
    reduction.Standardize: [
        Case(lambda x: reduction.Standardize.apply_all(x, axes=(1, 2), eps=1e-5), [normal(2, 3, 2)]),
    ],
    reduction.LayerNorm: [
        Case(lambda x, w, b: ops.layer_norm(x, 4, w, b), [normal(3, 4), normal(4), normal(4, seed=1)]),
        Case(lambda x, w: ops.layer_norm(x, (3, 2), w), [normal(2, 2, 3, 2), normal(3, 2)]),
        Case(lambda x: ops.layer_norm(x, 4), [normal(3, 4)]),
    ],
    reduction.GroupNorm: [
        Case(lambda x, w, b: ops.group_norm(x, 2, w, b), [normal(2, 4, 3, 2), normal(4), normal(4, seed=1)]),
        Case(lambda x: ops.group_norm(x, 2), [normal(3, 6)]),
        Case(lambda x, w: ops.group_norm(x, 1, w), [normal(2, 3, 2), normal(3)], analytic=False),
    ],
    # picking
    indexing.GetItem: [Case(lambda x: x[1:, ::-2, None], [normal(3, 4)]), Case(lambda x: x[IDS, 1], [normal(4, 3)])],
    indexing.PutItem: [Case(lambda x: indexing.PutItem.apply(x, index=(beside(IDS, x.data),), shape=(4, 2), unique=False), [normal(5, 2)])],
    indexing.TakeRows: [Case(lambda w: ops.take_rows(w, IDS), [normal(4, 3)])],
    indexing.PutRows: [Case(lambda x: ops.put_rows(x, IDS, 4), [normal(5, 2)]), Case(lambda x: ops.put_rows(x, IDS, 4), [normal(5)])],
    indexing.TakeAlongAxis: [Case(lambda x: ops.take_along_axis(x, ALONG, 1), [normal(2, 4)])],
    indexing.PutAlongAxis: [Case(lambda x: ops.put_along_axis(x, ALONG, 4, 1), [normal(2, 3)])],
    # matrices
    linalg.MatMul: [
        Case(ops.matmul, [normal(2, 3), normal(3, 4)]),
        Case(ops.matmul, [normal(2, 1, 2, 3), normal(4, 3, 2)]),
        Case(lambda a, b, c: ops.einsum("nth,nsh,s->nt", a, b, c), [normal(2, 3, 2), normal(2, 4, 2), normal(4)]),
    ],
    linalg.Linear: [Case(ops.linear, [normal(2, 3, 4), normal(5, 4), normal(5)])],
    linalg.Solve: [
        Case(ops.solve, [normal(3, 3), normal(2, 3, 2)]),
        Case(ops.solve, [normal(2, 3, 3), normal(3)]),
        Case(ops.inv, [normal(3, 3)]),
    ],
    linalg.Cholesky: [
        Case(lambda x: ops.cholesky(_symmetric(x)), [normal(2, 3, 3)], analytic=False),
        Case(lambda x: ops.logdet(_symmetric(x)), [normal(3, 3)], analytic=False),
    ],
    linalg.LogAbsDet: [Case(lambda x: ops.slogdet(x)[1], [normal(2, 3, 3)], analytic=False)],
    kalman.KalmanLogLikelihood: [_kalman("numpy"), _kalman("numba")],
    # recurrences that draw
    latent.Gain: [Case(_latent_gain, [normal(*shape, seed=k) for k, shape in enumerate(GAIN)], analytic=False)],
    latent.Residual: [Case(_latent_residual, [normal(*shape, seed=k) for k, shape in enumerate(RESIDUAL)], analytic=False)],
    # images
    conv.Conv2d: [
        Case(lambda x, w, b: ops.conv2d(x, w, b, stride=(2, 1), padding=(0, 1)), [normal(2, 2, 5, 3), normal(3, 2, 3, 2), normal(3)]),
        Case(lambda x, w: ops.conv2d(x, w, dilation=2, padding=1), [normal(1, 2, 4, 5), normal(2, 2, 2, 2)], analytic=False),
    ],
    conv.MaxPool2d: [
        Case(lambda x: ops.max_pool2d(x, (2, 3), (1, 2), (1, 1)), [apart(2, 2, 3, 5)]),
        Case(lambda x: ops.max_pool2d(x, 2), [apart(1, 3, 4, 5)], analytic=False),
    ],
    conv.Im2Col: [
        Case(lambda x: conv.Im2Col.apply(x, window=STRIDED), [normal(2, 2, 4, 6)]),
        Case(lambda x: ops.avg_pool2d(x, 3, 2, 1), [normal(1, 2, 5, 4)]),
        Case(lambda x, w, b: ops.conv2d(x, w, b, stride=(2, 1), padding=1, groups=2), [normal(2, 4, 3, 3), normal(2, 2, 3, 2), normal(2)]),
    ],
    conv.Col2Im: [Case(lambda x: conv.Col2Im.apply(x, window=DILATED, image=(1, 2, 4, 3)), [normal(2, 2, 2, 1, 2, 2)])],
    # attention
    attention.Attend: [
        Case(lambda q, k: ops.attend(q, k, OWNERS), [normal(5, 4), normal(3, 2, 4, seed=1)], analytic=False),
        Case(lambda q, k: ops.attend(q, k, OWNERS, KEYS)[0], [normal(5, 4), normal(3, 2, 4, seed=1)], analytic=False),
        Case(lambda q, k: ops.attend(q, k, OWNERS, KEYS)[1], [normal(5, 4), normal(3, 2, 4, seed=1)], analytic=False),
    ],
    # losses
    loss.CrossEntropy: [
        Case(lambda x: ops.cross_entropy(x, TARGETS), [normal(4, 5)], analytic=False),
        Case(lambda x: ops.cross_entropy(x, TARGETS, reduction="none"), [normal(4, 5)]),
    ],
    loss.CrossEntropyGrad: [
        Case(lambda x: ops.cross_entropy(x, TARGETS, label_smoothing=0.1, reduction="none"), [normal(4, 5)]),
        Case(lambda x: ops.cross_entropy(x, TARGETS, label_smoothing=0.1, reduction="none"), [normal(4, 5)], analytic=False),
    ],
    # recurrences
    layer.LSTMLayer: [
        _layer("lstm", True, "numpy"),
        _layer("lstm", False, "numba"),
        _layer("lstm", False, "numpy", recompute=1.0),
        _layer("lstm", True, "numba", recompute=0.5, bias=False),
    ],
    layer.GRULayer: [
        _layer("gru", True, "numpy"),
        _layer("gru", False, "numba", recompute=1.0),
        _layer("gru", False, "numpy", recompute=0.5, bias=False),
    ],
    layer.RNNLayer: [
        _layer("rnn", True, "numpy", nonlinearity="tanh"),
        _layer("rnn", False, "numba", nonlinearity="tanh", bias=False),
    ],
    recurrence.LSTM: _recurrences("lstm"),
    recurrence.GRU: _recurrences("gru"),
    recurrence.RNN: _recurrences("rnn"),
    recurrence.RecurrenceGrad: [case for name in ("lstm", "gru", "rnn") for case in _recurrences(name)[:1]],
}
