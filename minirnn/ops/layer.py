"""One layer of a recurrence, in one direction, as one operation: the input projection and all that is recurrent.

    z = x w_ih^T + b,   h = recurrence(z)        dx = dz w_ih    dw_ih = dz^T x    db = sum of the rows of dz

z, the gates and dz are of one size, the largest there is. Where the kernel works in place they are one array: the gates are written over z,
and dz over the gates, unless the graph is kept. Steps whose gates are computed again keep x, h and c only. Both passes take those a piece
at a time, and the backward pass gets their gates from two products over all rows of the piece, since every h_{t-1} is known by then:

    a = x w_ih^T + b + h_{t-1} w_hh^T,   gates = sigmoid, tanh of a

In a truncated layer (`cut`) no gradient passes from a step t = cut, 2 cut, ... to the state before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from minirnn.autograd import FREED, is_recording
from minirnn.device import Array, array_module, beside, is_array, to_device
from minirnn.diagnostics import is_watched
from minirnn.kernels import flops, registry
from minirnn.kernels.contract import GRUTape, LSTMTape
from minirnn.kernels.packed import previous
from minirnn.ops.linalg import linear, product
from minirnn.ops.pieces import CUT, Piece, pieces
from minirnn.ops.recurrence import Recurrence, gru_unrolled, lstm_unrolled, rnn_unrolled
from minirnn.ops.shape import concatenate, reshape
from minirnn.place import here
from minirnn.recorder import Call, Recorder, recorder
from minirnn.tensor import Tensor

STEPPED = 2**16  # numbers of a state, at most, for which a step that packs nothing is the faster one
STEPS = 2**30  # as if of very many: a kernel that prepares something once per call prepares nothing for a step


class Layer(Recurrence):
    """A layer over x (..., D), whose leading axes are the packed rows in their order: (S, D), or (T, N, D) of a dense batch.

    Inputs: x, w_ih (G H, D), w_hh (G H, H), with `bias` b_ih and b_hh (G H,), with `stateful` the first states, else zeros. Outputs:
    h (..., H) and the last states; all states in `state_shape`, which is (N, H) but for axes of length 1.
    """

    cell: ClassVar[str]
    recurrence: ClassVar[Callable[..., tuple[Tensor, ...]]]
    states: ClassVar[int] = 1
    needs_bias: ClassVar[bool] = False
    bias: bool
    stateful: bool
    state_shape: tuple[int, ...]
    recompute: float
    cut: int
    call: Call | None = None  # where a trace is kept of this layer

    def cell_options(self) -> dict[str, Any]:
        """What the kernel needs to know beside arrays and batch sizes."""
        return {}

    def options(self) -> dict[str, Any]:
        own = {"bias": self.bias, "stateful": self.stateful, "state_shape": self.state_shape, "batch_sizes": self.batch_sizes}
        return {**own, "cut": self.cut, **self.cell_options()}

    @staticmethod
    def folded(biases: Sequence[Any], H: int, join: Callable[..., Any]) -> tuple[Any, ...]:
        """The bias of the projection, and what the recurrence takes for itself, from b_ih and b_hh; `join` concatenates."""
        return (biases[0] + biases[1],)

    @staticmethod
    def unfolded(db: Array, own: Sequence[Array], H: int, join: Callable[..., Any]) -> tuple[Array, Array]:
        """db_ih and db_hh, from the gradients of what `folded` gives."""
        return db, db

    def tape_again(self, z: Array, a: Array, own: Sequence[Array], h: Array, c: Array, first: Sequence[Array], batch_sizes: Array) -> Any:
        """The tape of some steps: z (S, G H) from their input, which is overwritten; a = h_{t-1} w_hh^T (S, G H); h, c (S, H)."""
        raise NotImplementedError

    def forward(self, x: Array, w_ih: Array, w_hh: Array, *others: Array) -> tuple[Array, ...]:
        xp, H, S, N = self.xp, w_hh.shape[1], x.size // x.shape[-1], int(self.batch_sizes[0])
        states = others[2 * self.bias :]
        self.rows = xp.ascontiguousarray(x.reshape(S, -1))  # (S, D)
        self.w_hh = xp.ascontiguousarray(w_hh)
        self.first = [xp.ascontiguousarray(s.reshape(N, H)) for s in states] or [xp.zeros((N, H), x.dtype)] * self.states
        self.pieces = pieces(self.batch_sizes, self.recompute, self.cut)
        self.tapes = []
        if (by := recorder()) is not None:
            options = {"stateful": self.stateful, **self.cell_options()}
            self.call = by.call(self.cell, self.place, self.batch_sizes, self.rows, w_ih, self.first, options)
        b, *own = self._folded(others, w_hh)
        running = [s.copy() for s in self.first] if len(self.pieces) > 1 else self.first
        whole = [xp.empty((S, H), x.dtype) for _ in running] if len(self.pieces) > 1 else []  # h, c
        for piece in self.pieces:
            n = piece.n
            z = self._projected(piece, w_ih, b)
            first = [s[:n].copy() for s in running] if whole else running  # a tape keeps what it started from
            tape = self.kernel.forward(z, self.w_hh, *own, *first, piece.batch_sizes, **self.cell_options(), **self._to(z))
            last = [getattr(tape, name) for name in ("h_n", "c_n")[: self.states]]
            if whole:
                for state, after in zip(running, last, strict=True):
                    state[:n] = after
                for all_rows, name in zip(whole, "hc", strict=False):
                    all_rows[piece.rows] = getattr(tape, name)
                    tape = tape._replace(**{name: all_rows[piece.rows]})  # kept once
            self.tapes.append(tape if piece.kept else None)
            if self.call is not None and hasattr(tape, "gates"):
                self.call.gates.append(tape.gates)
        self.whole = whole or [getattr(tape, name) for name in "hc"[: self.states]]
        if self.call is not None:
            self.call.states = self.whole
        last = running if whole else last
        return self.whole[0].reshape(*x.shape[:-1], H), *[s.reshape(self.state_shape) for s in last]

    def _folded(self, others: Sequence[Array], w_hh: Array) -> tuple[Any, ...]:
        biases = others[: 2 * self.bias]
        if not biases and self.needs_bias:
            biases = (self.xp.zeros(len(w_hh), w_hh.dtype),) * 2
        return self.folded(biases, w_hh.shape[1], self.xp.concatenate) if biases else (None,)

    def _projected(self, piece: Piece, w_ih: Array, b: Array | None) -> Array:
        """z (rows of the piece, G H)"""
        return product(self.xp, self.rows[piece.rows], w_ih.T, b)

    def _to(self, out: Array | None) -> dict[str, Array]:
        """The keyword that makes the kernel write to `out`, if it can."""
        return {"out": out} if out is not None and getattr(self.kernel, "in_place", False) else {}

    def differentiate(self, arrays: Sequence[Array], grads: Sequence[Array | None]) -> Sequence[Array | None]:
        if self.freed:
            raise RuntimeError(FREED.format(type(self).__name__))
        xp, needs = self.xp, self.needs
        x, w_ih, w_hh, *others = arrays
        b, *own = self._folded(others, w_hh)
        dh, *d_last = grads
        (S, H), N = self.whole[0].shape, len(self.first[0])
        dh = None if dh is None else dh.reshape(S, H)
        # (N, H) each: the rows of a sequence wait until its own last step
        d_states: list[Any] = [None if g is None else g.reshape(N, H) for g in d_last]
        if len(self.pieces) > 1:
            d_states = [xp.zeros((N, H), x.dtype) if g is None else g.copy() for g in d_states]
        dx = xp.empty(x.shape, x.dtype) if needs[0] else None
        totals: list[Any] = [None] * (3 + len(own))  # dw_ih, dw_hh, db, and of what the recurrence took
        call = None if self.call is None else self.call.differentiated()
        self.freed = self.last_pass  # should something fail from here on, nobody takes what is left for gates
        for k in reversed(range(len(self.pieces))):
            piece, n = self.pieces[k], self.pieces[k].n
            tape = self.tapes[k] if piece.kept else self._tape_again(piece, w_ih, b, own)
            scratch = getattr(tape, "gates", None) if self.last_pass or not piece.kept else None
            before = [None if g is None else g[:n] for g in d_states]
            given = [None if dh is None else dh[piece.rows], *[None] * (self.states - 1), *before]
            if call is None:
                dz, dw_hh, *rest = self.kernel.backward(tape, self.w_hh, *given, **self._to(scratch))
            else:
                dz, dw_hh, *rest = self._tapped(call, tape, given, piece.rows)
            d_own, d_first = rest[: len(own)], rest[len(own) :]
            if len(self.pieces) > 1:
                for g, d in zip(d_states, d_first, strict=True):
                    g[:n] = 0 if piece.cut else d
            else:
                d_states = d_first
            if dx is not None:
                product(xp, dz, w_ih, out=dx.reshape(S, -1)[piece.rows])
            db = xp.empty(dz.shape[1], dz.dtype) if self.bias and True in needs[3:5] else None
            if needs[1]:
                dw_ih = product(xp, dz.T, self.rows[piece.rows], sums=db)
            else:
                dw_ih, db = None, None if db is None else dz.sum(0)
            for j, part in enumerate((dw_ih, dw_hh if needs[2] else None, db, *d_own)):
                totals[j] = part if totals[j] is None else _added(totals[j], part)
        dw_ih, dw_hh, db, *d_own = totals
        dbs = [] if not self.bias else [None, None] if db is None else self.unfolded(db, d_own, H, xp.concatenate)
        firsts = [g.reshape(self.state_shape) for g in d_states] if self.stateful else []
        return [d if need else None for d, need in zip((dx, dw_ih, dw_hh, *dbs, *firsts), needs, strict=True)]

    def _tapped(self, call: Call, tape: Any, given: Sequence[Array | None], rows: slice) -> Sequence[Array]:
        """The kernel's gradients, with dz and the whole gradients of all states left in `call`; the gates stay as they are."""
        dz, taps = call.dz, call.taps
        if len(self.pieces) > 1:
            dz, taps = dz[rows], tuple([whole[rows] for whole in taps])
        options: dict[str, Any] = self._to(dz)
        if has_taps := getattr(self.kernel, "taps", False):
            options["taps"] = taps
        results: Sequence[Array] = self.kernel.backward(tape, self.w_hh, *given, **options)
        if results[0] is not dz:
            dz[...] = results[0]
        if not has_taps:
            self._tap(tape, given, taps)
        return results

    def _tap(self, tape: Any, given: Sequence[Array | None], taps: Sequence[Array]) -> None:
        """What a kernel that has no taps would have written there: the reference does it again."""
        on_host = [None if g is None else to_device(g, "cpu") for g in given]
        tape = tape._replace(**{k: to_device(a, "cpu") for k, a in tape._asdict().items() if is_array(a)})
        found = tuple([np.empty(tap.shape, tap.dtype) for tap in taps])
        registry.load(self.cell, "numpy").backward(tape, to_device(self.w_hh, "cpu"), *on_host, taps=found)
        for tap, rows in zip(taps, found, strict=True):
            tap[...] = beside(rows, tap)

    def _tape_again(self, piece: Piece, w_ih: Array, b: Array | None, own: Sequence[Array]) -> Any:
        """The tape of a piece whose gates were not kept."""
        states = zip(self.whole, self.first, strict=True)
        first = [s0[: piece.n] if piece.before < 0 else s[piece.before : piece.before + piece.n] for s, s0 in states]
        z = self._projected(piece, w_ih, b)
        if not hasattr(self.kernel, "gates"):
            return self.kernel.forward(z, self.w_hh, *own, *first, piece.batch_sizes, **self.cell_options(), **self._to(z))
        h, c = self.whole[0][piece.rows], self.whole[-1][piece.rows]
        a = product(self.xp, previous(h, first[0], piece.batch_sizes), self.w_hh.T)
        return self.tape_again(z, a, own, h, c, first, piece.batch_sizes)

    def flops(self) -> int:
        S, (wide, D), H = int(self.batch_sizes.sum()), self.inputs[1].shape, self.inputs[2].shape[1]
        return flops.product(S, D, wide) + self.has_bias * S * wide + flops.recurrence(self.cell, S, H)

    def differentiation_flops(self, asked: Sequence[bool]) -> int:
        """Those of the pieces that are computed again are in it; the sums over the pieces, and of the two biases, are not."""
        S, (wide, D), H, needs = int(self.batch_sizes.sum()), self.inputs[1].shape, self.inputs[2].shape[1], self.needs
        again = sum(int(piece.batch_sizes.sum()) for piece in self.pieces if not piece.kept)
        cost = flops.recurrence_gradient(self.cell, S, H, int(asked[0]), getattr(self, "nonlinearity", "") == "relu")
        cost += (needs[0] + needs[1]) * flops.product(S, D, wide) + (self.bias and True in needs[3:5]) * S * wide
        if again and hasattr(self.kernel, "gates"):
            product, added = flops.product(again, H, wide), again * wide if self.cell == "lstm" else 0  # z += a
            cost += product + added + flops.gates(self.cell, again, H)
        elif again:
            cost += flops.recurrence(self.cell, again, H)
        return cost + flops.product(again, D, wide) + self.has_bias * again * wide

    @property
    def has_bias(self) -> bool:
        """Whether the projection adds one."""
        return self.bias or self.needs_bias

    @classmethod
    def unrolled(
        cls,
        x: Tensor,
        w_ih: Tensor,
        w_hh: Tensor,
        *others: Tensor,
        batch_sizes: Array,
        bias: bool,
        stateful: bool,
        state_shape: tuple[int, ...],
        by: Recorder | None = None,
        **options: Any,
    ) -> tuple[Tensor, ...]:
        """The same function of operations: the projection, and the recurrence unrolled. `by`: who looks."""
        H, N = w_hh.shape[1], int(batch_sizes[0])
        biases = others[: 2 * bias]
        xp = array_module(x.data)
        if not biases and cls.needs_bias:
            biases = (Tensor(xp.zeros(len(w_hh), w_hh.dtype)),) * 2
        b, *own = cls.folded(biases, H, concatenate) if biases else (None,)
        first = [reshape(s, (N, H)) for s in others[2 * bias :]] or [Tensor(xp.zeros((N, H), x.dtype))] * cls.states
        rows = reshape(x, (-1, x.shape[-1]))
        z = linear(rows, w_ih, b)
        if by is not None:
            arrays = rows.data, w_ih.data, [s.data for s in first]
            options["call"] = call = by.call(cls.cell, here(), batch_sizes, *arrays, {"stateful": stateful, **options})
            call.states = [xp.empty((len(z), H), z.dtype) for _ in first]
        outputs = cls.recurrence(z, w_hh, *own, *first, batch_sizes, **options)
        h, last = outputs[0], outputs[-cls.states :]
        return reshape(h, (*x.shape[:-1], H)), *[reshape(s, state_shape) for s in last]


def _added(total: Array, part: Array) -> Array:
    total += part
    return total


class LSTMLayer(Layer):
    """a = x w_ih^T + b_ih + h_{t-1} w_hh^T + b_hh    i, f, o = sigmoid(a), g = tanh(a)    c_t = f c_{t-1} + i g    h_t = o tanh c_t"""

    cell = "lstm"
    recurrence = staticmethod(lstm_unrolled)
    states = 2

    def tape_again(self, z: Array, a: Array, own: Sequence[Array], h: Array, c: Array, first: Sequence[Array], batch_sizes: Array) -> Any:
        z += a
        self.kernel.gates(z)
        h0, c0 = first
        return LSTMTape(h, c, z, None, None, h0, c0, batch_sizes)


class GRULayer(Layer):
    """r, u = sigmoid(a)    n = tanh(x w_in^T + b_in + r (h_{t-1} w_hn^T + b_hn))    h_t = (1 - u) n + u h_{t-1}"""

    cell = "gru"
    recurrence = staticmethod(gru_unrolled)
    needs_bias = True

    @staticmethod
    def folded(biases: Sequence[Any], H: int, join: Callable[..., Any]) -> tuple[Any, ...]:
        b_ih, b_hh = biases  # the reset gate multiplies b_hn, which therefore stays with the recurrence
        return join([b_ih[: 2 * H] + b_hh[: 2 * H], b_ih[2 * H :]]), b_hh[2 * H :]

    @staticmethod
    def unfolded(db: Array, own: Sequence[Array], H: int, join: Callable[..., Any]) -> tuple[Array, Array]:
        return db, join([db[: 2 * H], own[0]])

    def tape_again(self, z: Array, a: Array, own: Sequence[Array], h: Array, c: Array, first: Sequence[Array], batch_sizes: Array) -> Any:
        hn = self.kernel.gates(z, a, *own)
        return GRUTape(h, z, hn, None, first[0], batch_sizes)


class RNNLayer(Layer):
    """h_t = phi(x w_ih^T + b_ih + h_{t-1} w_hh^T + b_hh), phi = tanh or relu"""

    cell = "rnn"
    recurrence = staticmethod(rnn_unrolled)
    nonlinearity: str

    def cell_options(self) -> dict[str, Any]:
        return {"nonlinearity": self.nonlinearity}


LAYERS: dict[str, type[Layer]] = {layer.cell: layer for layer in (LSTMLayer, GRULayer, RNNLayer)}


def recurrent_layer(
    cell: str,
    x: Tensor,
    weights: Sequence[Tensor | None],
    states: Sequence[Tensor] | None,
    batch_sizes: Array,
    *,
    kernel: str | None = None,
    recompute: float = 0.0,
    state_shape: tuple[int, ...] | None = None,
    **options: Any,
) -> tuple[Tensor, ...]:
    """h (..., H) and the last states of a layer of "lstm", "gru" or "rnn" over x (..., D), packed rows in their order.

    weights      w_ih (G H, D), w_hh (G H, H), b_ih, b_hh (G H,), the last two None for no bias; G = 4 for an LSTM, 3, 1
    states       the first states, (N, H) each, zeros if None
    batch_sizes  (T,) sequences running at each step (see `minirnn.kernels.contract`)
    kernel       names an implementation
    recompute    the share of the rows, 0 to 1, whose gates are computed again in the backward pass and not kept
    state_shape  of all states, in place of (N, H): with axes of length 1 anywhere
    options      an RNN's nonlinearity

    Inside `minirnn.study.truncated(k)` no gradient passes from a step t = k, 2 k, ... to the state before it.
    """
    w_ih, w_hh, *biases = [w for w in weights if w is not None]
    N, H = int(batch_sizes[0]), w_hh.data.shape[1]
    operation = LAYERS[cell]
    inputs = (x, w_ih, w_hh, *biases, *(states or ()))
    options |= {"bias": bool(biases), "stateful": states is not None, "state_shape": state_shape or (N, H), "batch_sizes": batch_sizes}
    cut = CUT.get()
    options["cut"] = cut if cut < len(batch_sizes) else 0
    module = registry.recurrence(cell, len(batch_sizes), N, H, x.data, kernel)
    if module is None:
        return operation.unrolled(*inputs, by=recorder(), **options)
    return operation.apply_all(*inputs, kernel=module, recompute=recompute, **options)


def recurrent_step(
    cell: str, x: Array, weights: Sequence[Tensor | None], states: Sequence[Array], *, kernel: str | None = None, **options: Any
) -> tuple[Array, ...] | None:
    """The states after one step, arrays (N, H), of x (N, D) and the states before, without a tape and with little else.

    None where `recurrent_layer` should do it: operations are recorded or watched, the sequences are many, dtypes differ, or the kernel has
    no `step`. The last word on arguments is its.
    """
    N, H = states[0].shape
    if is_recording() or is_watched() or N * H > STEPPED:
        return None
    module = registry.recurrence(cell, STEPS, N, H, x, kernel)
    step = getattr(module, "step", None)
    arrays = [x, *states, *[None if w is None else w.data for w in weights]]
    if step is None or any(a is not None and (a.dtype != x.dtype or not a.flags.c_contiguous) for a in arrays):
        return None
    results = step(*arrays, **options)
    after: tuple[Array, ...] = results if isinstance(results, tuple) else (results,)
    if (by := recorder()) is not None:
        with by.listening() as calls:  # the same once more, by one that leaves its gates
            recurrent_layer(cell, Tensor(x), weights, [Tensor(s) for s in states], np.array([N]), kernel=kernel, **options)
        calls[0].states = after
    return after
