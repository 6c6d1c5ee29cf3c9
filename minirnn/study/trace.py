"""Inside back-propagation through time: every gate, state and gradient of every recurrent layer, step by step, from the kernels themselves.

    with mr.study.trace() as t:
        model.loss(batch).backward()
    t["encoder.l0"].dh[3]        # dL/dh_3 of all sequences (N, H)

L is the loss. `dh` and `dc` are the whole gradients of a state, all that the loss reads from it now or later, (2.2) and (2.5) of
`kernels/lstm/README.md`; `dz` is that of the pre-activations. A layer keeps what it has computed anyway, and nothing more is done until
somebody asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from minirnn.device import to_device
from minirnn.kernels.packed import last_rows, previous
from minirnn.nn.packing import Packing
from minirnn.recorder import Call, Recorder, begin, end

Array: TypeAlias = np.ndarray[Any, Any]
Weight: TypeAlias = Literal["w_ih", "w_hh", "b", "b_ih", "b_hh"]

GATES = {"lstm": "ifgo", "gru": "run", "rnn": ""}
STATES = {"lstm": "hc", "gru": "h", "rnn": "h"}
TANH = {"lstm": "g", "gru": "n", "rnn": "h"}  # between -1 and 1; the other gates between 0 and 1


def trace() -> AbstractContextManager[Trace]:
    """Record every recurrent layer that is called in this context, of any model, and every backward pass through it.

    Gives a `Trace`, which can be read in the context and after it. What is called elsewhere is not recorded, nor is a backward pass that
    runs after the end. A trace inside another one has its part to itself. Arrays are kept until the `Trace` is dropped: beside what a
    training step needs anyway, dz, dL/dh and dL/dc of every step, and gates that it would have computed again. A decoder's single step
    keeps no gates, and is computed once more for them. Of a kernel without taps (`minirnn.kernels.contract`) the reference finds them.
    """
    return _Tracing()


class _Tracing:
    """The context of a trace. Written out, as `contextmanager` takes a microsecond."""

    def __enter__(self) -> Trace:
        self.by = Recorder()
        self.token = begin(self.by)
        return Trace(self.by)

    def __exit__(self, *_: object) -> None:
        end(self.by, self.token)


class Trace(Mapping[str, "Traced"]):
    """The recurrent layers of a run by name, as "encoder.l0", "encoder.l0_reverse", or "l0" for a layer that no module holds.

    `t[name]` is the layer's last call, `t.passes(name)` are all of them, `t.layers` the names in the order of their first calls. It is a
    mapping: `for name, layer in t.items()` goes through all layers.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._count = 0
        self._found: dict[str, list[Traced]] = {}

    @property
    def layers(self) -> list[str]:
        """The names there are, in the order in which the layers were first called."""
        return list(self._all())

    def __getitem__(self, name: str) -> Traced:
        return self.passes(name)[-1]

    def passes(self, name: str) -> list[Traced]:
        """All calls of a layer in their order; those that carry on the states of the one before, or of some of its sequences, joined along
        time."""
        found = self._all()
        if name not in found:
            there = f"there are: {', '.join(found)}" if found else "no recurrent layer was called inside the trace"
            raise KeyError(f"trace: no layer {name!r}; {there}")
        return found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def __repr__(self) -> str:
        layers = "; ".join(repr(passes[-1]) for passes in self._all().values())
        return f"Trace({layers or 'no recurrent layer was called'})"

    def _all(self) -> dict[str, list[Traced]]:
        calls = [call for call in self._recorder.calls if call.is_complete]
        if len(calls) != self._count:
            by_layer: dict[Any, list[Call]] = {}
            for call in calls:
                by_layer.setdefault((id(call.place.module), call.place.part, call.cell), []).append(call)
            found: dict[str, list[Traced]] = {}
            for of_layer in by_layer.values():
                name = _free(of_layer[0].place.name or of_layer[0].cell, found)
                passes = _joined(of_layer)
                found[name] = [Traced(name, parts, len(passes)) for parts in passes]
            self._found, self._count = found, len(calls)
        return self._found


def _free(name: str, taken: dict[str, Any]) -> str:
    """Two models of one trace may use one name: "l0", then "l0 (2)"."""
    names = (name if k == 1 else f"{name} ({k})" for k in range(1, len(taken) + 2))
    return next(name for name in names if name not in taken)


class Part(NamedTuple):
    """A call, and which of the sequences of its pass are in it."""

    call: Call
    sequences: Array


def _joined(calls: Sequence[Call]) -> list[list[Part]]:
    """The calls of a layer, those together that begin with the very states that the one before ended with."""
    passes: list[list[Part]] = []
    for call in calls:
        going_on = _going_on(call, passes[-1][-1].call) if passes else None
        if going_on is None:
            passes.append([Part(call, np.arange(call.batch_sizes[0]))])
        else:
            passes[-1].append(Part(call, passes[-1][-1].sequences[going_on]))
    return passes


def _going_on(call: Call, before: Call) -> Array | None:
    """Which sequences of the call before this one carries on, in their order: their last states are its first. None if it does not."""
    if not call.options.get("stateful") or _from_the_end(call):
        return None
    packing, last = _packing(before), last_rows(before.batch_sizes)
    ends = np.concatenate([_host(s)[last] for s in before.states], axis=1)[packing.inverse]
    begins = np.concatenate([_host(s) for s in call.first], axis=1)[_packing(call).inverse]
    if np.array_equal(begins, ends):
        found = np.arange(len(ends))
    else:  # some have ended
        rest = iter(range(len(ends)))
        found = np.array([next((n for n in rest if np.array_equal(ends[n], begin)), -1) for begin in begins])
    return found if found.min() >= 0 and (packing.lengths[found] == packing.T).all() else None


class Traced:
    """One recurrent layer in one direction: T steps of N sequences, H units, G gates.

    Gates and states are `i f g o c h` of an LSTM, `r u n h` of a GRU (u, update, is PyTorch's z), `h` of an RNN; `dh` and `dc` the whole
    gradients of the states; all (T, N, H). `dz` (T, N, G H) is the gradient of the pre-activations, gates beside each other in this order,
    `dx` (T, N, D) that of the input. Gradients are those of the latest backward pass.

    Step t is step t of the layer's input, in the reverse direction too, and sequence n is the n-th of the batch that the layer was given.
    NaN stands where a sequence has ended. One sequence (T, D), without an axis N, has N = 1 here.

    Of a backward pass through a gradient (`create_graph`) what comes through the layer's outputs is here; what comes through the gradient
    itself is not.
    """

    def __init__(self, name: str, parts: Sequence[Part], passes: int = 1) -> None:
        first = parts[0].call
        self.name = name
        self.cell = first.cell
        self.reverse = _from_the_end(first)
        self._elsewhere = f"; this is one of {passes} passes, see trace.passes({name!r})" if passes > 1 else ""
        self._a = "a gru" if self.cell == "gru" else f"an {self.cell}"
        self._parts, self._calls = parts, [part.call for part in parts]
        self._kept: dict[str, tuple[int, Array]] = {}

    @property
    def lengths(self) -> Array:
        """(N,) steps of each sequence."""
        lengths = np.zeros(self.N, np.int64)
        for call, sequences in self._parts:
            lengths[sequences] += _packing(call).lengths
        return lengths

    @property
    def T(self) -> int:
        """How many steps there are, of all calls together."""
        return sum(len(call.batch_sizes) for call in self._calls)

    @property
    def N(self) -> int:
        """How many sequences there are."""
        return int(self._calls[0].batch_sizes[0])

    @property
    def H(self) -> int:
        """How many units there are."""
        return int(self._calls[0].states[0].shape[1])

    def __getattr__(self, name: str) -> Array:
        """i, f, g, o of an LSTM; r, u, n of a GRU; h, and of an LSTM c."""
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in GATES[self.cell] + STATES[self.cell]:
            there = " ".join(GATES[self.cell] + STATES[self.cell])
            raise AttributeError(f"{name!r}: the trace of {self._a} layer has {there}, dh, {'dc, ' * (self.cell == 'lstm')}dz and dx")
        return self._read(name, lambda call: _forward(call, name))

    def __dir__(self) -> list[str]:
        """What a notebook offers."""
        own = {name for name in super().__dir__() if name != "dc" or self.cell == "lstm"}
        return sorted({*own, *GATES[self.cell], *STATES[self.cell]})

    @property
    def dh(self) -> Array:
        """(T, N, H) dL/dh_t, from everything that the loss reads from h_t, now or later."""
        return self._gradient("dh", lambda call: call.taps[0])

    @property
    def dc(self) -> Array:
        """(T, N, H) dL/dc_t, from everything that the loss reads from c_t, now or later."""
        if self.cell != "lstm":
            raise AttributeError  # __getattr__ says what there is
        return self._gradient("dc", lambda call: call.taps[1])

    @property
    def dz(self) -> Array:
        """(T, N, G H) dL/dz_t of the pre-activations z_t = w_ih x_t + b_ih + b_hh, the gates beside each other."""
        return self._gradient("dz", lambda call: call.dz)

    @property
    def dx(self) -> Array:
        """(T, N, D) dL/dx_t = dz_t w_ih, what comes out of this layer and direction alone."""
        return self._gradient("dx", lambda call: _host(call.dz) @ _host(call.w_ih))

    def contribution(self, weight: Weight, per_sequence: bool = False) -> Array:
        """The norm of what each step adds to the gradient of a weight (T,); with `per_sequence` of what it adds for each sequence (T, N).

        weight: "w_ih" (dz_t^T x_t), "w_hh" (dz_t^T h_{t-1}; the rows of a GRU's candidate times r_t), "b_ih" = "b", or "b_hh". The norm is
        Frobenius's, of all numbers of the matrix. See `step_gradient` for the matrix.
        """
        da, read = self._factors("contribution", weight)
        if per_sequence:  # |a b^T| = |a| |b|
            return np.linalg.norm(da, axis=2) * np.linalg.norm(read, axis=2)  # type: ignore[no-any-return]
        return np.array([np.linalg.norm(_outer(da[t], read[t])) for t in range(self.T)])

    def step_gradient(self, weight: Weight, t: int) -> Array:
        """What step t, 0 .. T-1, adds to the gradient of a weight (G H, D), (G H, H) or (G H,): the sum over t is all of it."""
        if not 0 <= t < self.T:
            raise IndexError(f"step_gradient: t must be a step of {self.name}, 0 .. {self.T - 1}, got {t}")
        da, read = self._factors("step_gradient", weight)
        matrix = _outer(da[t], read[t])
        return matrix[:, 0] if weight.startswith("b") else matrix

    def saturation(self, gate: str, below: float = 0.05, above: float = 0.95) -> Array:
        """(T, 2) the shares of a gate's units that are nearly shut (< below) and nearly open (> above), of all sequences that are running.

        Of what goes through tanh, "g" of an LSTM, "n" of a GRU and "h" of an RNN, those below -above and those above `above`.
        """
        tanh = TANH[self.cell]
        if gate not in GATES[self.cell] + tanh:
            raise ValueError(f"saturation: gate must be one of {', '.join(GATES[self.cell] or tanh)} of {self._a} layer, got {gate!r}")
        if self._calls[0].options.get("nonlinearity") == "relu":
            raise ValueError("saturation: relu saturates at no value but 0; (t[name].h == 0) says where")
        values = getattr(self, gate)  # (T, N, H)
        running = np.maximum(1, (~np.isnan(values[..., 0])).sum(1) * self.H)  # (T,)
        low = values < (-above if gate == tanh else below)
        return np.stack([low.sum((1, 2)) / running, (values > above).sum((1, 2)) / running], axis=1)

    def _factors(self, who: str, weight: str) -> tuple[Array, Array]:
        """da (T, N, G H) and what the weight multiplies (T, N, ...), zero where there is no step: the gradient is the sum of da^T of it."""
        if weight not in ("w_ih", "w_hh", "b", "b_ih", "b_hh"):
            raise ValueError(f'{who}: weight must be "w_ih", "w_hh", "b", "b_ih" or "b_hh", got {weight!r}')
        dz = np.nan_to_num(self.dz)
        if self.cell == "gru" and weight.endswith("hh"):  # (2.6) of kernels/gru/README.md
            dz[..., 2 * self.H :] *= np.nan_to_num(self.r)
        read = {"w_ih": lambda call: call.x, "w_hh": _before}.get(weight, lambda call: np.ones((len(call.x), 1), dz.dtype))
        return dz, np.nan_to_num(_spread(self._parts, read))

    def _gradient(self, name: str, rows: Callable[[Call], Any]) -> Array:
        number = max(call.number for call in self._calls)
        if not number:
            raise RuntimeError(
                f"{self.name}.{name}: no backward pass has gone through this layer inside the trace; call .backward() on the loss before "
                f"the `with` block ends, and outside no_grad(){self._elsewhere}"
            )

        def latest(call: Call) -> Any:
            """A call that this pass could have gone through, and did not, has no gradient in it."""
            found = rows(call) if call.number else None
            if found is not None and (call.number == number or call.is_last):
                return found
            return np.zeros((len(call.x), width), call.states[0].dtype)

        width = next(rows(call).shape[1] for call in self._calls if call.number)
        return self._read(name, latest, number)

    def _read(self, name: str, rows: Callable[[Call], Any], number: int = 0) -> Array:
        kept = self._kept.get(name)
        if kept is None or kept[0] != number:
            kept = self._kept[name] = number, _spread(self._parts, rows)
        return kept[1]

    def __repr__(self) -> str:
        return f"{self.name}: {self.cell}, T={self.T} N={self.N} H={self.H}"


def _host(array: Any) -> Array:
    host: Array = to_device(array, "cpu")
    return host


def _forward(call: Call, name: str) -> Array:
    """A gate or a state of every row (S, H)."""
    if name in STATES[call.cell]:
        return _host(call.states[STATES[call.cell].index(name)])
    H, k = call.states[0].shape[1], GATES[call.cell].index(name)
    return np.concatenate([_host(piece)[:, k * H : (k + 1) * H] for piece in call.gates])


def _before(call: Call) -> Array:
    """h_{t-1} of every row (S, H)."""
    return previous(_host(call.states[0]), _host(call.first[0]), call.batch_sizes)  # type: ignore[no-any-return]


def _packing(call: Call) -> Packing:
    """How the call's rows lie: as its layer knew, or, where rows were given, in the order of their lengths."""
    packing = call.place.packing
    if packing is not None and np.array_equal(packing.batch_sizes, call.batch_sizes):
        return packing
    return Packing((call.batch_sizes[:, None] > np.arange(call.batch_sizes[0])).sum(0))


def _from_the_end(call: Call) -> bool:
    """Whether the layer runs against time: its reverse direction, or the other one over rows that stand turned."""
    return call.place.part.endswith("reverse") is not _packing(call).backwards


def _spread(parts: Sequence[Part], rows: Callable[[Call], Any]) -> Array:
    """Rows (S, F) of each call as one (T, N, F), NaN where a sequence has ended."""
    N, pieces = len(parts[0].sequences), []
    for call, sequences in parts:
        values, packing = _host(rows(call)), _packing(call)
        if _from_the_end(call):
            values = values[packing.reverse]
        piece = np.full((packing.T, N, values.shape[1]), np.nan, values.dtype)
        piece[packing.time, sequences[packing.sequence]] = values
        pieces.append(piece)
    return np.concatenate(pieces) if len(pieces) > 1 else pieces[0]


def _outer(da: Array, read: Array) -> Array:
    """The sum over sequences of da (N, G H) times what was read (N, ...)."""
    outer: Array = da.T @ read
    return outer
