"""A fused layer that gave a NaN or Inf runs once more, to see in which gate, state or gradient, and at which step, it began."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from minirnn.diagnostics.monitor import unwatched
from minirnn.diagnostics.table import titled
from minirnn.place import enter, leave
from minirnn.tensor import Tensor

if TYPE_CHECKING:
    from minirnn.autograd import Function
    from minirnn.ops.layer import Layer
    from minirnn.ops.recurrence import RecurrenceGrad
    from minirnn.study.trace import Traced

STEPS = 5  # of the table

Array = np.ndarray[Any, Any]


class First(NamedTuple):
    """Where the first NaN or Inf of a pass stands. Steps and sequences are those of the layer's input."""

    quantity: str
    step: int
    sequence: int
    unit: int

    def words(self, has_steps: bool) -> str:
        step = f" at time step {self.step}," if has_steps else " of"
        return f"in {self.quantity}{step} sequence {self.sequence} of the batch, unit {self.unit}"


class Inside(NamedTuple):
    """What a layer computes in a pass: (T, N, H) each, in the order in which a step computes them."""

    layer: Traced
    quantities: dict[str, Array]
    backward: bool
    start: int  # steps of the calls before this one, where a cell is called for one step after the other
    has_steps: bool  # whether these are known: of a single step from given states that nothing recorded has made it may be any

    def first(self) -> First | None:
        """The first number that is not finite, in the order in which the pass goes through time."""
        bad = {name: ~np.isfinite(x) & self._runs()[:, :, None] for name, x in self.quantities.items()}
        when = np.where(np.any([b.any(2) for b in bad.values()], axis=0), self._when(), self.layer.T)  # (T, N)
        step, sequence = (int(k) for k in np.unravel_index(when.argmin(), when.shape))
        for name, b in bad.items():
            if b[step, sequence].any():
                return First(name, self.start + step, sequence, int(b[step, sequence].argmax()))
        return None

    def table(self, at: First) -> str:
        """The steps of that sequence up to that one."""
        steps = [t for t in np.argsort(self._when()[:, at.sequence]).tolist() if t < self.layer.lengths[at.sequence]]
        end = steps.index(at.step - self.start) + 1
        rows = [
            [str(self.start + t), *(_range(x[t, at.sequence]) for x in self.quantities.values())] for t in steps[max(0, end - STEPS) : end]
        ]
        return titled(f"Inside it, step by step, of sequence {at.sequence}:", ["step", *self.quantities], rows)

    def _runs(self) -> Array:
        """(T, N) whether a sequence has that step."""
        return np.arange(self.layer.T)[:, None] < self.layer.lengths

    def _when(self) -> Array:
        """(T, N) how many steps the pass has gone when it comes to this one."""
        t: Array = np.arange(self.layer.T)[:, None] + 0 * self.layer.lengths
        t = self.layer.lengths - 1 - t if self.layer.reverse else t
        return self.layer.T - 1 - t if self.backward else t


def _range(x: Array) -> str:
    nans, infs = int(np.isnan(x).sum()), int(np.isinf(x).sum())
    if nans or infs:
        return ", ".join(f"{n} {what}" for n, what in ((nans, "NaN"), (infs, "Inf")) if n)
    return f"{x.min():.3g} .. {x.max():.3g}"


def look_inside(layer: Function, gradient: Function | None) -> Inside | None:
    """Inside of a recurrent layer, of its forward pass or of its `gradient`; None of any other operation."""
    from minirnn.ops.layer import Layer
    from minirnn.ops.recurrence import RecurrenceGrad

    if not isinstance(layer, Layer) or not (gradient is None or isinstance(gradient, RecurrenceGrad)):
        return None
    found = _again(layer, gradient)
    start = 0 if found.reverse else _steps_before(layer)
    has_steps = found.T > 1 or start > 0 or not layer.stateful
    gates, states = {"lstm": ("ifgo", "ch"), "gru": ("run", "h"), "rnn": ("", "h")}[found.cell]
    if gradient is None:
        names = {f"gate {gate}": gate for gate in gates} | {state: state for state in states}
        return Inside(found, {title: getattr(found, name) for title, name in names.items()}, False, start, has_steps)
    parts = np.split(found.dz, max(1, len(gates)), axis=-1)
    titles = [f"dz of gate {gate}" for gate in gates] or ["dz"]
    gradients = {f"d{state}": getattr(found, f"d{state}") for state in states[::-1]}
    return Inside(found, gradients | dict(zip(titles, parts, strict=True)), True, start, has_steps)


def _steps_before(layer: Layer) -> int:
    """How many steps the calls of the same layer have gone that hand on their states to this one, as far as they are recorded."""
    steps, creators = 0, _creators(layer)
    while creators:
        before = creators.pop()
        if type(before) is not type(layer) or before.place[:2] != layer.place[:2]:
            return steps
        steps += len(before.batch_sizes)
        creators = _creators(before)
    return steps


def _creators(layer: Any) -> list[Any]:
    """The operations that have made the first states of a recurrent layer."""
    states = layer.inputs[-layer.states :] if layer.stateful else ()
    return [t.creator for t in states if t.creator is not None]


def _again(layer: Layer, gradient: RecurrenceGrad | None) -> Traced:
    """The same call of the layer, and its backward pass, with a trace of it."""
    from minirnn.autograd import enable_grad, grad
    from minirnn.study.trace import trace

    inputs = [Tensor(t.data, requires_grad=True) for t in layer.inputs]
    options = {"recompute": layer.recompute, "kernel": layer.kernel, "cut": layer.cut, **layer.options()}
    token = enter(layer.place)
    try:
        with unwatched(), trace() as found, enable_grad(), np.errstate(all="ignore"):
            outputs = type(layer).apply_all(*inputs, **options)
            if gradient is not None:
                asked = [y for y, there in zip(outputs, gradient.asked, strict=True) if there]
                grad(asked, inputs, [t.detach() for t in gradient.inputs[gradient.arity :]])
    finally:
        leave(token)
    return found[found.layers[0]]
