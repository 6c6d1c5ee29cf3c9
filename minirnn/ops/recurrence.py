"""The recurrences: fused kernels as single operations, and the same recurrences unrolled into primitive operations.

All work on packed rows (see `minirnn.kernels.contract`). A fused operation is differentiated by its own backward kernel; where its
gradient is differentiated again, the unrolled form is built and differentiated instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np

from minirnn.autograd import Function, enable_grad, grad, is_recording
from minirnn.device import Array
from minirnn.diagnostics import is_watched
from minirnn.kernels import flops, registry
from minirnn.kernels.contract import check_packed
from minirnn.ops.elementwise import relu, sigmoid, tanh
from minirnn.ops.linalg import linear
from minirnn.ops.shape import concatenate, split
from minirnn.place import at
from minirnn.recorder import Call
from minirnn.tensor import Tensor


def _locate(array: Array, batch_sizes: Array, backward: bool = False) -> str:
    """The time step of the first NaN or Inf, in the order in which the pass goes through time."""
    ends = np.cumsum(batch_sizes)
    if array.ndim == 3 and array.shape[0] * array.shape[1] == ends[-1]:
        array = array.reshape(ends[-1], -1)  # of a dense batch
    bad = np.argwhere(~np.isfinite(array))[-1 if backward else 0]
    if len(array) != ends[-1]:
        return f"index {tuple(bad.tolist())} of {array.shape}, which is summed over the steps or stands at their end"
    step = int(np.searchsorted(ends, bad[0], side="right"))
    return f"time step {step}, sequence {int(bad[0] - ends[step] + batch_sizes[step])} of the batch (longest first), unit {int(bad[1])}"


class Recurrence(Function):
    """A fused recurrence: `kernel` is a module of `minirnn.kernels`, `unrolled` the same function in primitive operations."""

    unrolled: ClassVar[Callable[..., tuple[Tensor, ...]]]
    cell: ClassVar[str]
    kernel: Any
    batch_sizes: Array
    tape: Any

    def options(self) -> dict[str, Any]:
        """What the kernel and `unrolled` need to know beside the arrays."""
        return {"batch_sizes": self.batch_sizes}

    def forward(self, *arrays: Array) -> tuple[Array, ...]:
        self.tape = self.kernel.forward(*map(self.xp.ascontiguousarray, arrays), **self.options())
        return tuple(getattr(self.tape, name) for name in ("h", "c", "h_n", "c_n") if hasattr(self.tape, name))

    def backward(self, *grads: Tensor | None) -> Sequence[Tensor | None]:
        given = [g for g in grads if g is not None]
        asked, found = [g is not None for g in grads], list[bool]()
        options = {"asked": asked, "arity": len(self.inputs), "found": found, "unrolled": type(self).unrolled, "options": self.options()}
        options["cost"] = self.differentiation_flops(asked) if is_watched() else 0
        made = iter(RecurrenceGrad.apply_all(*self.inputs, *given, differentiate=self.differentiate, **options))
        return [next(made) if there else None for there in found]

    def differentiate(self, arrays: Sequence[Array], grads: Sequence[Array | None]) -> Sequence[Array | None]:
        """The gradients of the inputs, `arrays`, from those of the outputs, on arrays; None where nobody asks."""
        return tuple(self.kernel.backward(self.tape, self.xp.ascontiguousarray(arrays[1]), *grads))

    def locate(self, array: Array) -> str:
        return _locate(array, self.batch_sizes)

    def flops(self) -> int:
        S, H = int(self.batch_sizes.sum()), self.inputs[1].shape[1]
        return flops.recurrence(self.cell, S, H)

    def differentiation_flops(self, asked: Sequence[bool]) -> int:
        """What `differentiate` takes, with the gradients of these outputs given."""
        S, H = int(self.batch_sizes.sum()), self.inputs[1].shape[1]
        given = asked[:2] if self.cell == "lstm" else asked[:1]
        return flops.recurrence_gradient(self.cell, S, H, given.count(True), getattr(self, "nonlinearity", "") == "relu")


class RecurrenceGrad(Function):
    """The backward pass of a recurrence as an operation; its own backward, for second derivatives, goes through the unrolled form.

    Its inputs are those of the recurrence, `arity` of them, and the gradients of the outputs that are `asked` for. `found` is filled with
    which inputs have a gradient among its outputs.
    """

    arity: int
    asked: list[bool]
    found: list[bool]
    differentiate: Callable[..., Sequence[Array | None]]
    unrolled: Callable[..., tuple[Tensor, ...]]
    options: dict[str, Any]
    cost: int  # operations

    def forward(self, *arrays: Array) -> tuple[Array, ...]:
        present = iter(arrays[self.arity :])
        grads = [self.xp.ascontiguousarray(next(present)) if there else None for there in self.asked]
        results = self.differentiate(arrays[: self.arity], grads)
        del self.differentiate  # and with it the tape
        self.found[:] = [dx is not None for dx in results]
        return tuple([dx for dx in results if dx is not None])

    def backward(self, *grads: Tensor | None) -> Sequence[Tensor | None]:
        create = is_recording()
        with enable_grad():
            inputs = [t[...] if create else t.detach().requires_grad_() for t in self.inputs]  # places of their own on the tape
            primals, cotangents = inputs[: self.arity], inputs[self.arity :]
            outputs = self.unrolled(*primals, **self.options)
            outputs = tuple(y for y, there in zip(outputs, self.asked, strict=True) if there)
            wanted = [x for x, there in zip(primals, self.found, strict=True) if there]
            first = grad(outputs, wanted, cotangents, create_graph=True, allow_unused=True, independent=True)
            chosen = [(dx, g) for dx, g in zip(first, grads, strict=True) if dx is not None and dx.requires_grad and g is not None]
            if not chosen:
                return (None,) * len(inputs)
            dxs, ddxs = [dx for dx, _ in chosen], [g for _, g in chosen]
            return grad(dxs, inputs, ddxs, create_graph=create, allow_unused=True, independent=True)

    def locate(self, array: Array) -> str:
        return _locate(array, self.options["batch_sizes"], backward=True)

    def flops(self) -> int:
        return self.cost


def _steps(z: Tensor, batch_sizes: Array) -> Iterator[tuple[int, int, Tensor]]:
    """t, n_t, and the rows of step t (n_t, ...)."""
    sizes = batch_sizes.tolist()
    yield from zip(range(len(sizes)), sizes, split(z, sizes, 0), strict=True)


def _first(x: Tensor, n: int) -> Tensor:
    """The rows of the sequences that are still running."""
    return x if len(x) == n else x[:n]


def _passed(state: Tensor, t: int, cut: int) -> Tensor:
    """What step t is given of the state before: at a cut, the numbers alone."""
    return state.detach() if cut and t and t % cut == 0 else state


def _last(states: Sequence[Tensor]) -> Tensor:
    """Of the states (n_t, H) of every step, those after each sequence's own last step: (N, H)."""
    running = [len(s) for s in states[1:]] + [0]
    return concatenate([s[n:] for s, n in zip(states, running, strict=True) if len(s) > n][::-1])


def lstm_unrolled(
    z: Tensor, w_hh: Tensor, h0: Tensor, c0: Tensor, batch_sizes: Array, cut: int = 0, call: Call | None = None
) -> tuple[Tensor, ...]:
    """The LSTM one step at a time, in primitive operations: for study, and for second derivatives.

    With a `cut` no gradient passes from a step t = cut, 2 cut, ... to the state before it; `call` is where each step leaves what it has. So
    in the others.
    """
    check_packed("LSTM", 4, z.data, w_hh.data, batch_sizes, h0=h0.data, c0=c0.data)
    h, c = h0, c0
    hs, cs = [], []
    for t, n, z_t in _steps(z, batch_sizes):
        with at(step=t):
            h, c = (_passed(s, t, cut) for s in (h, c))
            a_i, a_f, a_g, a_o = split(z_t + linear(_first(h, n), w_hh), 4)  # (n, H) each
            i, f, g, o = sigmoid(a_i), sigmoid(a_f), tanh(a_g), sigmoid(a_o)
            c = f * _first(c, n) + i * g
            h = o * tanh(c)
        if call is not None:
            call.step(z_t, [gate.data for gate in (i, f, g, o)], (h, c))
        hs.append(h)
        cs.append(c)
    return concatenate(hs), concatenate(cs), _last(hs), _last(cs)


def gru_unrolled(
    z: Tensor, w_hh: Tensor, b_hn: Tensor, h0: Tensor, batch_sizes: Array, cut: int = 0, call: Call | None = None
) -> tuple[Tensor, ...]:
    """The GRU one step at a time."""
    check_packed("GRU", 3, z.data, w_hh.data, batch_sizes, b_hn=b_hn.data, h0=h0.data)
    h, hs = h0, []
    for t, k, z_t in _steps(z, batch_sizes):
        with at(step=t):
            h = _first(_passed(h, t, cut), k)
            zr, zu, zn = split(z_t, 3)  # (n, H) each
            ar, au, an = split(linear(h, w_hh), 3)
            r, u = sigmoid(zr + ar), sigmoid(zu + au)
            n = tanh(zn + r * (an + b_hn))
            h = (1 - u) * n + u * h
        if call is not None:
            call.step(z_t, [gate.data for gate in (r, u, n)], (h,))
        hs.append(h)
    return concatenate(hs), _last(hs)


def rnn_unrolled(
    z: Tensor, w_hh: Tensor, h0: Tensor, batch_sizes: Array, nonlinearity: str = "tanh", cut: int = 0, call: Call | None = None
) -> tuple[Tensor, ...]:
    """The plain RNN one step at a time."""
    check_packed("RNN", 1, z.data, w_hh.data, batch_sizes, h0=h0.data)
    phi = {"tanh": tanh, "relu": relu}[nonlinearity]
    h, hs = h0, []
    for t, n, z_t in _steps(z, batch_sizes):
        with at(step=t):
            h = phi(z_t + linear(_first(_passed(h, t, cut), n), w_hh))
        if call is not None:
            call.step(z_t, (), (h,))
        hs.append(h)
    return concatenate(hs), _last(hs)


class LSTM(Recurrence):
    """i, f, o = sigmoid(z_t + h_{t-1} w_hh^T)    g = tanh(.)    c_t = f c_{t-1} + i g    h_t = o tanh c_t"""

    cell = "lstm"
    unrolled = staticmethod(lstm_unrolled)


class GRU(Recurrence):
    """r, u = sigmoid(z_t + h_{t-1} w^T)    n = tanh(z_n + r (h_{t-1} w_hn^T + b_hn))    h_t = (1 - u) n + u h_{t-1}"""

    cell = "gru"
    unrolled = staticmethod(gru_unrolled)


class RNN(Recurrence):
    """h_t = phi(z_t + h_{t-1} w_hh^T), phi = tanh or relu"""

    cell = "rnn"
    unrolled = staticmethod(rnn_unrolled)
    nonlinearity: str

    def options(self) -> dict[str, Any]:
        return {"batch_sizes": self.batch_sizes, "nonlinearity": self.nonlinearity}


def _run(cell: str, operation: type[Recurrence], inputs: Sequence[Tensor], kernel: str | None, **options: Any) -> tuple[Tensor, ...]:
    h0, batch_sizes = inputs[-1], options["batch_sizes"]
    N, H = h0.shape
    module = registry.recurrence(cell, len(batch_sizes), N, H, h0.data, kernel)
    if module is None:
        return operation.unrolled(*inputs, **options)
    return operation.apply_all(*inputs, kernel=module, **options)


def lstm(z: Tensor, w_hh: Tensor, h0: Tensor, c0: Tensor, batch_sizes: Array, kernel: str | None = None) -> tuple[Tensor, ...]:
    """h (S, H), c (S, H), h_n (N, H), c_n (N, H) of an LSTM over packed rows.

    z (S, 4H) input projection with biases, w_hh (4H, H), h0 and c0 (N, H), batch_sizes (T,); `kernel` names an implementation.
    """
    return _run("lstm", LSTM, (z, w_hh, h0, c0), kernel, batch_sizes=batch_sizes)


def gru(z: Tensor, w_hh: Tensor, b_hn: Tensor, h0: Tensor, batch_sizes: Array, kernel: str | None = None) -> tuple[Tensor, ...]:
    """h (S, H), h_n (N, H) of a GRU over packed rows: z (S, 3H), w_hh (3H, H), b_hn (H,), h0 (N, H), batch_sizes (T,)."""
    return _run("gru", GRU, (z, w_hh, b_hn, h0), kernel, batch_sizes=batch_sizes)


def rnn(
    z: Tensor, w_hh: Tensor, h0: Tensor, batch_sizes: Array, nonlinearity: str = "tanh", kernel: str | None = None
) -> tuple[Tensor, ...]:
    """h (S, H), h_n (N, H) of a plain RNN over packed rows: z (S, H), w_hh (H, H), h0 (N, H), batch_sizes (T,)."""
    return _run("rnn", RNN, (z, w_hh, h0), kernel, batch_sizes=batch_sizes, nonlinearity=nonlinearity)
