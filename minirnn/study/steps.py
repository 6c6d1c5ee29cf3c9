"""The step Jacobians of a recurrent layer, dstate_t/dstate_{t-1}, from the gates of its forward pass, and bounds on their norms.

Rows are outputs, columns inputs. Letters are those of the kernels' READMEs; products and powers of vectors go by element, and diag(d) W
is W with its rows times d:

    RNN    J = diag(phi') W                                         phi' = 1 - h_t^2, or [h_t > 0] of a rectifier

    GRU    J = diag(u) + diag((1-u) (1-n^2) r) W_n + diag((h_{t-1}-n) u (1-u)) W_u + diag((1-u) (1-n^2) hn r (1-r)) W_r

    LSTM   dc_t/dc = diag(f)        dc_t/dh = diag(g i (1-i)) W_i + diag(c_{t-1} f (1-f)) W_f + diag(i (1-g^2)) W_g
           dh_t/dc = diag(p f)      dh_t/dh = diag(p) dc_t/dh + diag(tanh(c_t) o (1-o)) W_o        p = o (1 - tanh(c_t)^2)

An LSTM's state is (h, c), its J the (2H, 2H) of these four blocks. By |diag(d) W| <= max|d| |W| and the triangle inequality, in spectral
norms, a block of J is at most

    RNN    max phi' |W|
    GRU    max u + max|(1-u) (1-n^2) r| |W_n| + max|(h_{t-1}-n) u (1-u)| |W_u| + max|(1-u) (1-n^2) hn r (1-r)| |W_r|
    LSTM   cc: max f        ch: max|g i (1-i)| |W_i| + max|c_{t-1} f (1-f)| |W_f| + max|i (1-g^2)| |W_g|
           hc: max p f      hh: max p ch + max|tanh(c_t) o (1-o)| |W_o|

and as |(A B)_ij| <= sum_k |A_ik| |B_kj| for blocks, the products of these numbers, of an LSTM as matrices ((hh, hc), (ch, cc)), bound the
blocks of a product of step Jacobians.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from minirnn.device import Array as AnyArray
from minirnn.device import is_array, to_device
from minirnn.kernels import registry
from minirnn.kernels.packed import previous
from minirnn.nn.packing import Packed
from minirnn.nn.recurrent import Cell, Layered
from minirnn.ops.layer import LAYERS
from minirnn.tensor import Tensor

Array: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Steps:
    """T steps of N sequences, in the order in which the layer takes them.

    Args:
        weights: (G, H, H) the parts of w_hh.
        factors: (G, T, N, H) what multiplies their rows.
        direct: (T, N, H) diag of the way past the weights: u of a GRU, f of an LSTM; None for an RNN.
        outward: (T, N, H) p of an LSTM; else None.
        reverse: whether the first of these steps is the last of the input.
    """

    cell: str
    weights: Array
    factors: Array
    direct: Array | None
    outward: Array | None
    reverse: bool

    @property
    def T(self) -> int:
        return int(self.factors.shape[1])

    @property
    def N(self) -> int:
        return int(self.factors.shape[2])

    @property
    def size(self) -> int:
        """S, numbers of the whole state: H, of an LSTM 2H."""
        return int(self.weights.shape[1]) * (2 if self.outward is not None else 1)

    def only(self, n: int) -> Steps:
        """Of one sequence."""
        direct, outward = (None if d is None else d[:, n : n + 1] for d in (self.direct, self.outward))
        return Steps(self.cell, self.weights, self.factors[:, :, n : n + 1], direct, outward, self.reverse)

    def jacobian(self, t: int) -> Array:
        """dstate_t/dstate_{t-1} (N, S, S)"""
        parts: Array = self.factors[:, t, :, :, None] * self.weights[:, None]  # (G, N, H, H)
        if self.direct is None:
            return np.asarray(parts[0])
        direct: Array = self.direct[t, :, :, None] * np.eye(self.weights.shape[1])  # (N, H, H)
        if self.outward is None:
            return np.asarray(direct + parts.sum(0))
        p, ch = self.outward[t, :, :, None], parts[:3].sum(0)
        return np.concatenate([np.concatenate([p * ch + parts[3], p * direct], 2), np.concatenate([ch, direct], 2)], 1)

    def bounds(self) -> Array:
        """Of every step what no block of its Jacobian exceeds: (T, N, B, B), B = 2 blocks of an LSTM, else 1."""
        norms = np.linalg.norm(self.weights, 2, axis=(1, 2))  # (G,)
        parts = np.abs(self.factors).max(3) * norms[:, None, None]  # (G, T, N)
        if self.direct is None:
            return np.asarray(parts[0, :, :, None, None])
        direct = self.direct.max(2)  # (T, N)
        if self.outward is None:
            return np.asarray((direct + parts.sum(0))[:, :, None, None])
        ch, hc = parts[:3].sum(0), (self.outward * self.direct).max(2)
        hh = self.outward.max(2) * ch + parts[3]
        return np.stack([np.stack([hh, hc], -1), np.stack([ch, direct], -1)], -2)


def steps_of(layer: Layered | Cell, x: Any, part: str = "l0", state: Any = None) -> Steps:
    """The steps of one part of a layer, "l0", "l0_reverse", "l1", ..., over x (T, D) or (T, N, D); the parts below it run as they are.

    In float64 by the NumPy kernel, whatever the layer's own are, and without dropout. `state`: the first states, as the layer takes them.
    """
    if not isinstance(layer, Layered | Cell):
        raise TypeError(f"jacobian: layer must be an nn.RNN, GRU, LSTM or a cell of them, got {type(layer).__name__}")
    if isinstance(x, Packed):
        raise TypeError("jacobian: x must be (T, D) or (T, N, D), not a Packed; unpack it, and look at a sequence's own steps")
    x = _float64(x)
    if x.ndim not in (2, 3) or x.shape[-1] != layer.input_size or not x.size:
        raise ValueError(f"jacobian: x must be (T, D) or (T, N, D) with D = {layer.input_size}, the layer's input_size, got {x.shape}")
    levels = [[""]] if isinstance(layer, Cell) else [list(layer._suffixes(k)) for k in range(layer.num_layers)]
    names = [suffix[1:] or "l0" for level in levels for suffix in level]
    if part not in names:
        raise ValueError(f"jacobian: part must be one of {', '.join(names)}, got {part!r}")
    first = _first_states(layer, state, len(names), x.shape[1:-1])
    for name, array in {"x": x, "state": first, **{name: p.data for name, p in layer.named_parameters()}}.items():
        if not np.isfinite(_float64(array)).all():
            raise ValueError(f"jacobian: {name} has NaN or Inf in it")
    x, done = x.reshape(len(x), -1, layer.input_size), 0  # (T, N, D)
    for level in levels:
        outputs = []
        for suffix in level:
            reverse = suffix.endswith("reverse")
            tape, w_hh = _forward(layer, suffix, x[::-1] if reverse else x, [s[done] for s in first])
            if names[done] == part:
                return _steps(layer.cell, tape, w_hh, reverse)
            h = tape.h.reshape(*x.shape[:2], -1)  # (T, N, H)
            outputs.append(h[::-1] if reverse else h)
            done += 1
        x = np.concatenate(outputs, axis=-1)
    raise AssertionError("every part belongs to a level")


def _float64(x: Any) -> Array:
    x = x.data if isinstance(x, Tensor) else x
    return np.asarray(to_device(x, "cpu") if is_array(x) else x, np.float64)


def _first_states(layer: Layered | Cell, state: Any, parts: int, batch: tuple[int, ...]) -> list[Array]:
    """h_0, and c_0 of an LSTM, (parts, N, H) each."""
    H, names = layer.hidden_size, layer.state_names
    given = [np.zeros((parts, *batch, H))] * len(names) if state is None else [state] if len(names) == 1 else list(state)
    expected = (*batch, H) if isinstance(layer, Cell) and state is not None else (parts, *batch, H)
    arrays = [_float64(s) for s in given]
    if [s.shape for s in arrays] != [expected] * len(names):
        raise ValueError(f"jacobian: state must be ({', '.join(names)}), {expected} each, got {', '.join(str(s.shape) for s in arrays)}")
    return [s.reshape(parts, -1, H) for s in arrays]


def _forward(layer: Layered | Cell, suffix: str, x: Array, first: Sequence[Array]) -> tuple[Any, Array]:
    """The NumPy kernel's tape over x (T, N, D), and w_hh."""
    w_ih, w_hh, *biases = [None if w is None else _float64(w) for w in layer._weights(suffix)]
    assert w_ih is not None
    assert w_hh is not None
    (T, N, D), H, operation = x.shape, layer.hidden_size, LAYERS[layer.cell]
    if biases[0] is None:
        biases = [np.zeros(len(w_hh))] * 2
    b, *own = operation.folded(biases, H, np.concatenate)
    kernel: Any = registry.load(layer.cell, "numpy")
    z = x.reshape(T * N, D) @ w_ih.T + b
    return kernel.forward(z, w_hh, *own, *first, np.full(T, N), **layer._cell_options()), w_hh


def _steps(cell: str, tape: Any, w_hh: Array, reverse: bool) -> Steps:
    T, (N, H) = len(tape.batch_sizes), tape.h0.shape
    before = previous(tape.h, tape.h0, tape.batch_sizes)  # (S, H) h_{t-1}
    weights = w_hh.reshape(-1, H, H)
    direct = outward = None
    if cell == "rnn":
        factors = [1 - tape.h**2 if tape.nonlinearity == "tanh" else np.where(tape.h > 0, 1.0, 0.0)]
    elif cell == "gru":
        r, u, n = np.split(tape.gates, 3, axis=1)
        weights, direct, d = weights[[2, 1, 0]], u, (1 - u) * (1 - n**2)
        factors = [d * r, (before - n) * u * (1 - u), d * tape.hn * r * (1 - r)]
    else:
        i, f, g, o = np.split(tape.gates, 4, axis=1)
        c, tanh_c = previous(tape.c, tape.c0, tape.batch_sizes), np.tanh(tape.c)
        direct, outward = f, o * (1 - tanh_c**2)
        factors = [g * i * (1 - i), c * f * (1 - f), i * (1 - g**2), tanh_c * o * (1 - o)]

    def by_step(rows: AnyArray) -> Array:
        return np.asarray(rows).reshape(T, N, H)

    direct, outward = (None if d is None else by_step(d) for d in (direct, outward))
    return Steps(cell, weights, np.stack([by_step(d) for d in factors]), direct, outward, reverse)
