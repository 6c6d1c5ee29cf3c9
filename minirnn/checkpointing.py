"""Gradient checkpointing: store the inputs of a computation only, and compute it again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minirnn.autograd import Function, alias, enable_grad, grad, is_recording, no_grad
from minirnn.device import Array
from minirnn.diagnostics import Monitor, monitored
from minirnn.tensor import Tensor


class _LeafCollector(Monitor):
    def __init__(self) -> None:
        self.leaves: dict[int, Tensor] = {}

    def begin(self, function: Function) -> None:
        self.leaves.update((id(t), t) for t in function.inputs if t.requires_grad and t.creator is None)


class _Checkpoint(Function):
    """y = f(x), keeping only x        dx: f again, this time recorded, and back through it"""

    f: Callable[..., Any]
    arity: int
    generators: Sequence[np.random.Generator]
    states: Sequence[Any]
    arrays: tuple[Array, ...]

    def forward(self, *arrays: Array) -> tuple[Array, ...]:
        computed, self.arrays = self.arrays, ()
        return computed

    def backward(self, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        create = is_recording()
        now = [g.bit_generator.state for g in self.generators]
        for generator, state in zip(self.generators, self.states, strict=True):
            generator.bit_generator.state = state
        with enable_grad():
            copies = [alias(t) for t in self.inputs[: self.arity]]
            result = self.f(*copies)
        for generator, state in zip(self.generators, now, strict=True):
            generator.bit_generator.state = state
        outputs = [result] if isinstance(result, Tensor) else list(result)
        asked = [(y, dy) for y, dy in zip(outputs, grads, strict=True) if dy is not None and y.requires_grad]
        wrt = [t for t, needed in zip([*copies, *self.inputs[self.arity :]], self.needs, strict=True) if needed]
        found = iter(grad([y for y, _ in asked], wrt, [dy for _, dy in asked], create_graph=create, allow_unused=True))
        return tuple(next(found) if needed else None for needed in self.needs)


def checkpoint(f: Callable[..., Any], *inputs: Tensor, generators: Sequence[np.random.Generator] = ()) -> Any:
    """`f(*inputs)`, storing only `inputs`: what f computes on the way is computed again in the backward pass.

    f returns a Tensor or a sequence of Tensors; parameters that it closes over get their gradients too. If f draws random numbers, name its
    `generators`, so that the second run draws the same ones (those of a Module are found by themselves).
    """
    generators = [*generators, *(f.generators() if hasattr(f, "generators") else ())]
    states = [g.bit_generator.state for g in generators]
    collector = _LeafCollector()
    with no_grad(), monitored(collector):
        result = f(*inputs)
    single = isinstance(result, Tensor)
    arrays = tuple(t.data for t in ([result] if single else result))
    closed_over = [t for key, t in collector.leaves.items() if key not in {id(t) for t in inputs}]
    options = {"f": f, "arity": len(inputs), "generators": generators, "states": states, "arrays": arrays}
    outputs = _Checkpoint.apply_all(*inputs, *closed_over, **options)
    return outputs[0] if single else outputs
