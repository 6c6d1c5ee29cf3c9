"""LSTM, GRU and RNN: layers over whole sequences, and cells that take one step.

All work on packed rows (see `minirnn.nn.packing`): for each layer and direction one matrix product projects the rows of all steps,
biases included, and a kernel does what is recurrent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from minirnn import ops
from minirnn.device import array_module
from minirnn.nn import init
from minirnn.nn.dropout import Dropout
from minirnn.nn.module import Module, Parameter, check_features
from minirnn.nn.packing import Packed, Packing, pack
from minirnn.random import Rng, generator
from minirnn.tensor import Tensor


class Recurrence(Module):
    """What layers and cells share. A recurrence defines its `gates`, its `state_names` and `scan`."""

    gates: ClassVar[int]
    state_names: ClassVar[tuple[str, ...]] = ("h_0",)
    input_size: int
    hidden_size: int
    bias: bool
    kernel: str | None

    def scan(self, x: Tensor, weights: list[Any], state: Sequence[Tensor], batch_sizes: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
        """h (S, H) and the last states, (N, H) each, from x (S, D), weights w_ih, w_hh, b_ih, b_hh, and the first states."""
        raise NotImplementedError

    def _check_sizes(self, **sizes: int) -> None:
        for argument, value in sizes.items():
            if value < 1:
                raise ValueError(f"{type(self).__name__}: {argument} must be at least 1, got {value}")

    def _add_weights(self, suffix: str, input_size: int, rng: np.random.Generator) -> None:
        """w_ih (GH, D), w_hh (GH, H), b_ih (GH,), b_hh (GH,), all uniform on +-1 / sqrt(H)."""
        rows, bound = self.gates * self.hidden_size, 1 / math.sqrt(self.hidden_size)
        shapes = {"weight_ih": (rows, input_size), "weight_hh": (rows, self.hidden_size), "bias_ih": (rows,), "bias_hh": (rows,)}
        for name, shape in shapes.items():
            if self.bias or name.startswith("weight"):
                setattr(self, name + suffix, init.uniform_(Parameter(np.empty(shape, np.float32)), -bound, bound, rng))

    def _weights(self, suffix: str) -> list[Any]:
        return [getattr(self, name + suffix, None) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]

    def _states(self, state: Any, shape: tuple[int, ...], symbols: str, like: Tensor) -> tuple[Tensor, ...]:
        """The first states as given, or zeros."""
        name = type(self).__name__
        if state is None:
            return (Tensor(array_module(like.data).zeros(shape, like.dtype)),) * len(self.state_names)
        given = (state,) if isinstance(state, Tensor) else tuple(state)
        if len(given) != len(self.state_names):
            raise ValueError(f"{name}: the state is ({', '.join(self.state_names)}), got {len(given)} of them")
        for what, tensor in zip(self.state_names, given, strict=True):
            if not isinstance(tensor, Tensor):
                raise TypeError(f"{name}: {what} must be a Tensor {symbols}, got {type(tensor).__name__}")
            if tensor.shape != shape:
                raise ValueError(f"{name}: {what} must be {symbols} = {shape}, got {tensor.shape}")
        return given


class LSTMRecurrence(Recurrence):
    gates = 4
    state_names = ("h_0", "c_0")

    def scan(self, x: Tensor, weights: list[Any], state: Sequence[Tensor], batch_sizes: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
        w_ih, w_hh, b_ih, b_hh = weights
        z = ops.linear(x, w_ih, b_ih + b_hh if self.bias else None)  # (S, 4H)
        h, _, h_n, c_n = ops.lstm(z, w_hh, state[0], state[1], batch_sizes, self.kernel)
        return h, (h_n, c_n)


class GRURecurrence(Recurrence):
    gates = 3

    def scan(self, x: Tensor, weights: list[Any], state: Sequence[Tensor], batch_sizes: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
        w_ih, w_hh, b_ih, b_hh = weights
        H = self.hidden_size
        if self.bias:  # the reset gate multiplies b_hn, which therefore stays with the recurrence
            b, b_hn = b_ih + ops.pad(b_hh[: 2 * H], [(0, H)]), b_hh[2 * H :]
        else:
            b, b_hn = None, Tensor(array_module(x.data).zeros(H, x.dtype))
        h, h_n = ops.gru(ops.linear(x, w_ih, b), w_hh, b_hn, state[0], batch_sizes, self.kernel)
        return h, (h_n,)


class RNNRecurrence(Recurrence):
    gates = 1
    nonlinearity: str

    def _set_nonlinearity(self, nonlinearity: str) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f'{type(self).__name__}: nonlinearity must be "tanh" or "relu", got {nonlinearity!r}')
        self.nonlinearity = nonlinearity

    def scan(self, x: Tensor, weights: list[Any], state: Sequence[Tensor], batch_sizes: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
        w_ih, w_hh, b_ih, b_hh = weights
        z = ops.linear(x, w_ih, b_ih + b_hh if self.bias else None)  # (S, H)
        h, h_n = ops.rnn(z, w_hh, state[0], batch_sizes, self.nonlinearity, self.kernel)
        return h, (h_n,)


class Layered(Recurrence):
    """Layers and directions of one recurrence over dense, ragged or packed batches."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        kernel: str | None = None,
        rng: Rng = None,
    ) -> None:
        self._check_sizes(input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        rng = generator(rng)
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.bidirectional, self.kernel = bias, batch_first, bidirectional, kernel
        self.dropout = Dropout(dropout, rng=rng) if dropout else None
        for layer in range(num_layers):
            for suffix in self._suffixes(layer):
                self._add_weights(suffix, input_size if layer == 0 else hidden_size * (1 + bidirectional), rng)

    def _suffixes(self, layer: int) -> tuple[str, ...]:
        return (f"_l{layer}", f"_l{layer}_reverse")[: 1 + self.bidirectional]

    def forward(self, x: Tensor | Packed, state: Any = None, lengths: Any = None) -> tuple[Any, Any]:
        """The hidden states of the last layer at every step, and the last states of every layer.

        x        (T, N, D); (N, T, D) with batch_first; (T, D) for one sequence; or a Packed
        state    the first states, (K directions, N, H) each, a pair (h_0, c_0) for an LSTM; zeros if None; gradients flow into them
        lengths  (N,) steps of each sequence, in any order, or a Packing: what comes after is never computed, and the output there is zero

        Returns the output, laid out as x is, (T, N, H directions), and the last states, (K directions, N, H) each, taken
        after each sequence's own last step (its first step in the reverse direction). One sequence (T, D) has no axis N in them.
        """
        name = type(self).__name__
        directions = 1 + self.bidirectional
        if isinstance(x, Packed):
            check_features(self, x.rows, self.input_size, "input_size", "(S, D)")
            if lengths is not None:
                raise ValueError(f"{name}: a Packed knows its lengths, pass lengths=None")
            packed, alone = x, False
        else:
            alone = isinstance(x, Tensor) and x.ndim == 2
            symbols = "(T, D)" if alone else "(N, T, D)" if self.batch_first else "(T, N, D)"
            check_features(self, x, self.input_size, "input_size", symbols)
            if x.ndim not in (2, 3) or (alone and lengths is not None):
                raise ValueError(
                    f"{name}: input must be (T, N, D), (N, T, D) with batch_first, or one sequence (T, D) without lengths, got {x.shape}"
                )
            x = ops.expand_dims(x, 1) if alone else x.swapaxes(0, 1) if self.batch_first else x  # (T, N, D)
            packed = pack(x, np.full(x.shape[1], x.shape[0]) if lengths is None else lengths)
        packing, H, K = packed.packing, self.hidden_size, self.num_layers * directions
        if alone:
            first = self._states(state, (K, H), "(K*directions, H)", packed.rows)
            first = tuple(ops.expand_dims(s, 1) for s in first)
        else:
            first = self._states(state, (K, packing.N, H), "(K*directions, N, H)", packed.rows)
        rows, last = self._run(packed.rows, first, packing)
        if alone:
            last = tuple(s.reshape((K, H)) for s in last)
        final = last if len(last) > 1 else last[0]
        if isinstance(x, Packed):
            return Packed(rows, packing), final
        output = Packed(rows, packing).unpack(x.shape[0])  # (T, N, H directions)
        return output[:, 0] if alone else output.swapaxes(0, 1) if self.batch_first else output, final

    def _run(self, rows: Tensor, first: tuple[Tensor, ...], packing: Packing) -> tuple[Tensor, tuple[Tensor, ...]]:
        finals: list[tuple[Tensor, ...]] = []
        for layer in range(self.num_layers):
            if layer and self.dropout is not None:
                rows = self.dropout(rows)
            outputs = []
            for suffix in self._suffixes(layer):
                state = [packing.sort(s[len(finals)]) for s in first]  # (N, H) each
                backwards = suffix.endswith("reverse")
                x = ops.take_rows(rows, packing.reverse, unique=True) if backwards else rows  # (S, D)
                h, last = self.scan(x, self._weights(suffix), state, packing.batch_sizes)
                outputs.append(ops.take_rows(h, packing.reverse, unique=True) if backwards else h)
                finals.append(tuple(packing.unsort(s) for s in last))
            rows = ops.concatenate(outputs, axis=1) if len(outputs) > 1 else outputs[0]
        return rows, tuple(ops.stack(states) for states in zip(*finals, strict=True))

    def describe(self) -> str:
        options = {"num_layers": 1, "bias": True, "batch_first": False, "bidirectional": False, "kernel": None}
        said = [f"{name}={getattr(self, name)!r}" for name, usual in options.items() if getattr(self, name) != usual]
        return ", ".join([str(self.input_size), str(self.hidden_size), *said])


class Cell(Recurrence):
    """One step of one recurrence."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, *, kernel: str | None = None, rng: Rng = None) -> None:
        self._check_sizes(input_size=input_size, hidden_size=hidden_size)
        self.input_size, self.hidden_size, self.bias, self.kernel = input_size, hidden_size, bias, kernel
        self._add_weights("", input_size, generator(rng))

    def forward(self, x: Tensor, state: Any = None) -> Any:
        """The states after one step, (N, H) each: h and c for an LSTM, else h. x (N, D) or (D,); state as returned, zeros if None."""
        check_features(self, x, self.input_size, "input_size", "(N, D)")
        if x.ndim not in (1, 2):
            raise ValueError(f"{type(self).__name__}: input must be (N, D), or (D,) for one sequence, got {x.shape}")
        shape = (*x.shape[:-1], self.hidden_size)
        first = self._states(state, shape, "(N, H)" if x.ndim == 2 else "(H,)", x)
        rows = x.reshape((-1, self.input_size))  # (N, D)
        _, last = self.scan(rows, self._weights(""), [s.reshape((-1, self.hidden_size)) for s in first], np.array([len(rows)]))
        after = tuple(s.reshape(shape) for s in last)
        return after if len(after) > 1 else after[0]

    def describe(self) -> str:
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else ", bias=False")


class LSTM(LSTMRecurrence, Layered):
    """i, f, o = sigmoid(.), g = tanh(.) of W_ih x_t + b_ih + W_hh h_{t-1} + b_hh;   c_t = f c_{t-1} + i g;   h_t = o tanh c_t

        output, (h_n, c_n) = lstm(x, (h_0, c_0), lengths=None)

    input_size D, hidden_size H; num_layers K, each fed with the one below; bias; batch_first: dense batches are (N, T, D);
    dropout: probability, between layers, in training; bidirectional: a second recurrence runs from each sequence's end to its beginning;
    kernel: the name of an implementation (see `minirnn.kernels.registry`), None for the best one that can run; rng: seed or generator.

    Parameters, for layer k: weight_ih_lk (4H, D), weight_hh_lk (4H, H), bias_ih_lk (4H,), bias_hh_lk (4H,), and the same with `_reverse`,
    gates in the order i, f, g, o, all uniform on +-1 / sqrt(H). Names, shapes and values are those of torch.nn.LSTM.
    """


class GRU(GRURecurrence, Layered):
    """r, u = sigmoid(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)

    n = tanh(W_in x_t + b_in + r (W_hn h_{t-1} + b_hn));   h_t = (1 - u) n + u h_{t-1}

        output, h_n = gru(x, h_0, lengths=None)

    Arguments and parameters are LSTM's with 3H for 4H, gates in the order r, u, n (PyTorch calls u z).
    """


class RNN(RNNRecurrence, Layered):
    """h_t = phi(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh), phi = tanh or relu

        output, h_n = rnn(x, h_0, lengths=None)

    nonlinearity: "tanh" or "relu"; the other arguments and the parameters are LSTM's with H for 4H.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        kernel: str | None = None,
        rng: Rng = None,
    ) -> None:
        self._set_nonlinearity(nonlinearity)
        super().__init__(input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, kernel=kernel, rng=rng)


class LSTMCell(LSTMRecurrence, Cell):
    """One step of an LSTM: `h, c = cell(x, (h, c))`. Parameters as LSTM's, named weight_ih, weight_hh, bias_ih, bias_hh."""


class GRUCell(GRURecurrence, Cell):
    """One step of a GRU: `h = cell(x, h)`."""


class RNNCell(RNNRecurrence, Cell):
    """One step of a plain RNN: `h = cell(x, h)`."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        *,
        kernel: str | None = None,
        rng: Rng = None,
    ) -> None:
        self._set_nonlinearity(nonlinearity)
        super().__init__(input_size, hidden_size, bias, kernel=kernel, rng=rng)
