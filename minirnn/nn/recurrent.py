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
from minirnn.autograd import is_recording
from minirnn.device import array_module
from minirnn.nn import init
from minirnn.nn.dropout import Dropout
from minirnn.nn.module import Module, Parameter, check_features
from minirnn.nn.packing import Packed, Packing, dense, pack
from minirnn.place import Place, at, enter, here, leave
from minirnn.random import Rng, generator
from minirnn.recorder import recorder
from minirnn.tensor import Tensor


class Recurrence(Module):
    """What layers and cells share. A recurrence defines its `cell`, its number of `gates` and its `state_names`."""

    cell: ClassVar[str]
    gates: ClassVar[int]
    state_names: ClassVar[tuple[str, ...]] = ("h_0",)
    input_size: int
    hidden_size: int
    bias: bool
    kernel: str | None

    recompute: float = 0.0

    def scan(
        self, x: Tensor, weights: list[Any], state: Sequence[Tensor] | None, batch_sizes: Any, state_shape: tuple[int, ...] | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """h (..., H) and the last states from x (..., D), packed rows; weights w_ih, w_hh, b_ih, b_hh; the first states, or zeros if None.

        States are (N, H) each, or in `state_shape`.
        """
        options = {"kernel": self.kernel, "recompute": self.recompute, "state_shape": state_shape, **self._cell_options()}
        h, *last = ops.recurrent_layer(self.cell, x, weights, state, batch_sizes, **options)
        return h, tuple(last)

    def step(self, x: Any, weights: list[Any], state: Sequence[Any]) -> tuple[Any, ...] | None:
        """The states after one step, arrays (N, H) as x (N, D) and the states before; None where `scan` should do it."""
        return ops.recurrent_step(self.cell, x, weights, state, kernel=self.kernel, **self._cell_options())

    def _cell_options(self) -> dict[str, Any]:
        return {}

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

    def _states(self, state: Any, shape: tuple[int, ...], symbols: str) -> tuple[Tensor, ...] | None:
        """The first states as given; None for zeros."""
        if state is None:
            return None
        name = type(self).__name__
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
    cell = "lstm"
    gates = 4
    state_names = ("h_0", "c_0")


class GRURecurrence(Recurrence):
    cell = "gru"
    gates = 3


class RNNRecurrence(Recurrence):
    cell = "rnn"
    gates = 1
    nonlinearity: str

    def _set_nonlinearity(self, nonlinearity: str) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f'{type(self).__name__}: nonlinearity must be "tanh" or "relu", got {nonlinearity!r}')
        self.nonlinearity = nonlinearity

    def _cell_options(self) -> dict[str, Any]:
        return {"nonlinearity": self.nonlinearity}


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
        recompute: float = False,
        rng: Rng = None,
    ) -> None:
        self._check_sizes(input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        if not 0 <= recompute <= 1:
            raise ValueError(f"{type(self).__name__}: recompute must be True, False or a share of the steps, 0 to 1, got {recompute!r}")
        rng = generator(rng)
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.bidirectional, self.kernel = bias, batch_first, bidirectional, kernel
        self.recompute = float(recompute)
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
        K, H = self.num_layers * (1 + self.bidirectional), self.hidden_size
        if isinstance(x, Packed):
            check_features(self, x.rows, self.input_size, "input_size", "(S, D)")
            if lengths is not None:
                raise ValueError(f"{name}: a Packed knows its lengths, pass lengths=None")
            first = self._states(state, (K, x.packing.N, H), "(K*directions, N, H)")
            rows, last = self._run(x.rows, first, x.packing, (1, x.packing.N, H))
            return Packed(rows, x.packing), last if len(last) > 1 else last[0]
        alone = isinstance(x, Tensor) and x.ndim == 2
        symbols = "(T, D)" if alone else "(N, T, D)" if self.batch_first else "(T, N, D)"
        check_features(self, x, self.input_size, "input_size", symbols)
        if x.ndim not in (2, 3) or (alone and lengths is not None):
            raise ValueError(
                f"{name}: input must be (T, N, D), (N, T, D) with batch_first, or one sequence (T, D) without lengths, got {x.shape}"
            )
        if alone:
            first = self._states(state, (K, H), "(K*directions, H)")
            output, last = self._run(x, first, dense(len(x), 1), (1, H))
            return output, last if len(last) > 1 else last[0]
        if self.batch_first:
            x = x.swapaxes(0, 1)  # (T, N, D)
        T, N, _ = x.shape
        first = self._states(state, (K, N, H), "(K*directions, N, H)")
        if T == 1 and lengths is None and (stepped := self._stepped(x, first)) is not None:
            return stepped
        if lengths is None:
            output, last = self._run(x, first, dense(T, N), (1, N, H))
        else:
            packed = pack(x, lengths)
            rows, last = self._run(packed.rows, first, packed.packing, (1, N, H))
            output = Packed(rows, packed.packing).unpack(T)  # (T, N, H directions)
        return output.swapaxes(0, 1) if self.batch_first else output, last if len(last) > 1 else last[0]

    def _stepped(self, x: Tensor, first: tuple[Tensor, ...] | None) -> tuple[Tensor, Any] | None:
        """What `forward` gives for one step x (1, N, D), by `step`; None where that cannot be."""
        if is_recording() or self.bidirectional or (self.dropout is not None and self.training):
            return None
        rows, after = x.data[0], []
        shape = len(self.state_names), self.num_layers, x.shape[1], self.hidden_size
        states = array_module(rows).zeros(shape, rows.dtype) if first is None else [s.data for s in first]  # (K, N, H) each
        for layer in range(self.num_layers):
            arguments = rows, self._weights(f"_l{layer}"), [s[layer] for s in states]
            if recorder() is None:
                stepped = self.step(*arguments)
            else:
                with at(part=f"l{layer}"):
                    stepped = self.step(*arguments)
            if stepped is None:
                return None
            rows = stepped[0]
            after.append(stepped)
        output = Tensor(rows[None] if not self.batch_first else rows[:, None])
        last = tuple([Tensor(s[0][None] if len(s) == 1 else array_module(rows).stack(s)) for s in zip(*after, strict=True)])
        return output, last if len(last) > 1 else last[0]

    def _run(
        self, x: Tensor, first: tuple[Tensor, ...] | None, packing: Packing, shape: tuple[int, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The output and the last states, (K directions, ...) each, from packed rows x (..., D); `shape` is of one state, (1, ...)."""
        finals: list[tuple[Tensor, ...]] = []
        where = here()
        for layer in range(self.num_layers):
            if layer and self.dropout is not None:
                x = self.dropout(x)
            outputs = []
            for suffix in self._suffixes(layer):
                state = None if first is None else [packing.sort(_layer(s, len(finals)), axis=1) for s in first]
                backwards = suffix.endswith("reverse")
                token = enter(Place(where.module, suffix.removeprefix("_"), where.step, packing))
                try:
                    turned = self._turned(x, packing) if backwards else x
                    h, last = self.scan(turned, self._weights(suffix), state, packing.batch_sizes, shape)
                finally:
                    leave(token)
                outputs.append(self._turned(h, packing) if backwards else h)
                finals.append(tuple(packing.unsort(s, axis=1) for s in last))
            x = ops.concatenate(outputs, axis=-1) if len(outputs) > 1 else outputs[0]
        return x, finals[0] if len(finals) == 1 else tuple(ops.concatenate(states) for states in zip(*finals, strict=True))

    @staticmethod
    def _turned(x: Tensor, packing: Packing) -> Tensor:
        """The rows (..., D) of every sequence in reverse order."""
        rows = ops.take_rows(x.reshape(-1, x.shape[-1]), packing.reverse, unique=True)
        return rows.reshape(x.shape)

    def describe(self) -> str:
        options = {"num_layers": 1, "bias": True, "batch_first": False, "bidirectional": False, "kernel": None, "recompute": 0.0}
        said = [f"{name}={getattr(self, name)!r}" for name, usual in options.items() if getattr(self, name) != usual]
        return ", ".join([str(self.input_size), str(self.hidden_size), *said])


def _layer(states: Tensor, k: int) -> Tensor:
    """Of the states (K directions, ...) of all layers those of layer k: (1, ...)."""
    return states if len(states) == 1 else states[k : k + 1]


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
        first = self._states(state, shape, "(N, H)" if x.ndim == 2 else "(H,)")
        if x.ndim == 2 and not is_recording():
            zeros = [array_module(x.data).zeros(shape, x.dtype)] * len(self.state_names) if first is None else []
            stepped = self.step(x.data, self._weights(""), zeros or [s.data for s in first or ()])
            if stepped is not None:
                return tuple([Tensor(s) for s in stepped]) if len(stepped) > 1 else Tensor(stepped[0])
        _, after = self.scan(x, self._weights(""), first, dense(1, x.size // self.input_size).batch_sizes, shape)
        return after if len(after) > 1 else after[0]

    def describe(self) -> str:
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else ", bias=False")


class LSTM(LSTMRecurrence, Layered):
    """i, f, o = sigmoid(.), g = tanh(.) of W_ih x_t + b_ih + W_hh h_{t-1} + b_hh;   c_t = f c_{t-1} + i g;   h_t = o tanh c_t

        output, (h_n, c_n) = lstm(x, (h_0, c_0), lengths=None)

    input_size     D
    hidden_size    H
    num_layers     K, each fed with the one below
    bias           whether there are biases
    batch_first    dense batches are (N, T, D), and so are the outputs
    dropout        the probability with which an output is dropped between layers, in training
    bidirectional  a second recurrence runs from each sequence's end to its beginning
    kernel         the name of an implementation (see `minirnn.kernels.registry`), None for the best one that can run
    recompute      True keeps x, h and c only for the backward pass, which computes the gates again: less than half the memory for a third
                   more arithmetic; a number from 0 to 1 does so for that share of the steps, the last ones. Gradients are the same but
                   for rounding
    rng            a seed, or a generator

    Raises ValueError for a size below 1 and a `recompute` out of range.

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
