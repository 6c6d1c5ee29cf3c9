"""What recurrent layers hand over while somebody looks: here they leave it, `minirnn.study.trace` reads it.

Nothing is copied on the way that would stay as it is: a `Call` keeps the arrays that the layer itself has made, packed rows in the order in
which it goes through time (see `minirnn.kernels.contract`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar, Token
from functools import partial
from typing import TYPE_CHECKING, Any

from minirnn.device import Array, array_module
from minirnn.place import Place

if TYPE_CHECKING:
    from minirnn.tensor import Tensor


class Passes:
    """The backward passes of a recording, one after the other."""

    def __init__(self) -> None:
        self.number = 0
        self.is_open = True
        self.is_last = True  # whether the one that runs frees what it goes through
        self.inside = False
        self._weights: dict[int, tuple[int, Array, Array]] = {}

    def kept(self, weight: Array) -> Array:
        """A weight as it is in this backward pass: an optimiser will change it in place."""
        number, _, copy = self._weights.get(id(weight), (0, weight, weight))
        if number != self.number:
            copy = weight.copy()
            self._weights[id(weight)] = self.number, weight, copy
        return copy


class _Pass:
    """The context of one backward pass. Written out, as `contextmanager` takes a microsecond."""

    def __init__(self, passes: Passes, retain: bool) -> None:
        self.passes, self.retain = passes, retain

    def __enter__(self) -> None:
        passes = self.passes
        self.before = passes.inside, passes.is_last
        passes.number += not passes.inside
        passes.is_last = not self.retain and (passes.is_last or not passes.inside)
        passes.inside = True

    def __exit__(self, *_: object) -> None:
        self.passes.inside, self.passes.is_last = self.before


class Recorder:
    """The calls of recurrent layers, in their order. A call does not know it: no cycle keeps its arrays longer than somebody looks."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.passes = Passes()
        self._again: Iterator[Call] = iter(())  # calls that are made once more, in a backward pass
        self._listening: list[list[Call]] = []

    def call(
        self, cell: str, place: Place, batch_sizes: Array, x: Array, w_ih: Array, first: Sequence[Array], options: dict[str, Any]
    ) -> Call:
        """A record for a call that begins; one that is made once more gets its old record."""
        call = next(self._again, None)
        if call is None:
            call = Call()
            self.calls.append(call)
        call.passes, call.cell, call.place, call.batch_sizes, call.options = self.passes, cell, place, batch_sizes, options
        call.x, call.w_ih, call.first, call.gates, call._rows = x, w_ih, first, [], 0
        for made in self._listening:
            made.append(call)
        return call

    @contextmanager
    def listening(self) -> Iterator[list[Call]]:
        """The calls of this context."""
        made: list[Call] = []
        self._listening.append(made)
        try:
            yield made
        finally:
            self._listening = [other for other in self._listening if other is not made]

    @contextmanager
    def again(self, calls: Sequence[Call]) -> Iterator[None]:
        """What is called in this context are these calls, made once more."""
        before, self._again = self._again, iter(calls)
        try:
            yield
        finally:
            self._again = before


class Call:
    """One call of a recurrent layer in one direction: T steps, N sequences, S rows, G gates."""

    passes: Passes
    cell: str  # "lstm", "gru" or "rnn"
    place: Place
    batch_sizes: Array  # (T,)
    options: dict[str, Any]  # stateful: whether the first states were given; an RNN's nonlinearity
    x: Array  # (S, D)
    w_ih: Array  # (G H, D)
    first: Sequence[Array]  # (N, H) each: h0, c0
    states: Sequence[Array]  # (S, H) each: h, c
    gates: list[Array]  # (S, G H), of some steps in a row each
    number = 0  # of the backward pass that the following are from, 0: there was none
    is_last = False  # no other backward pass can follow
    dz: Array  # (S, G H)
    taps: tuple[Array, ...]  # (S, H) each: whole dL/dh_t, dL/dc_t
    _rows: int  # that steps of primitive operations have filled

    @property
    def is_complete(self) -> bool:
        """Whether it has its states: one that failed on the way has none."""
        return hasattr(self, "states")

    def differentiated(self) -> Call | None:
        """Itself, with room for the gradients of a backward pass that begins; None where nobody looks any longer."""
        if not self.passes.is_open:
            return None
        h = self.states[0]
        xp = array_module(h)
        self.number, self.is_last = self.passes.number, self.passes.is_last
        self.w_ih = self.passes.kept(self.w_ih)
        self.dz = xp.empty((len(self.x), len(self.w_ih)), h.dtype)
        self.taps = tuple([xp.empty(h.shape, h.dtype) for _ in self.states])
        return self

    def step(self, z: Tensor, gates: Sequence[Array], states: Sequence[Tensor]) -> None:
        """Take what the next step of primitive operations has and, when they are known, the gradients of z and its states, (n, ...)."""
        rows = slice(self._rows, self._rows + len(z))
        self._rows = rows.stop
        if gates:
            self.gates.append(array_module(z.data).concatenate(gates, axis=1))
        for whole, state in zip(self.states, states, strict=True):
            whole[rows] = state.data
        for k, tensor in enumerate((z, *states)):
            if tensor.requires_grad:
                tensor.register_hook(partial(self._got, k, rows))

    def _got(self, k: int, rows: slice, grad: Tensor) -> None:
        if not self.passes.is_open:
            return
        if self.number != self.passes.number:  # the first that this pass brings; what it does not reach has no gradient
            self.differentiated()
            for whole in (self.dz, *self.taps):
                whole.fill(0)
        (self.dz, *self.taps)[k][rows] = grad.data


_recorder: ContextVar[Recorder | None] = ContextVar("recorder", default=None)


recorder: Callable[[], Recorder | None] = _recorder.get  # who looks, if anybody


def begin(by: Recorder) -> Token[Recorder | None]:
    """From now on, and until `end`, recurrent layers leave what they have with `by`."""
    return _recorder.set(by)


def end(by: Recorder, token: Token[Recorder | None]) -> None:
    _recorder.reset(token)
    by.passes.is_open = False


_NOTHING = nullcontext()


def backward_pass(retain: bool) -> AbstractContextManager[None]:
    """The context in which a backward pass runs. One inside another is a part of it."""
    by = _recorder.get()
    return _NOTHING if by is None else _Pass(by.passes, retain)
