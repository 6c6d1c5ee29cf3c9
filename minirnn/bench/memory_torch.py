"""What PyTorch's `nn.LSTM` keeps for the backward pass, by itself and with checkpoints; runs in a process of its own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

from minirnn.bench.memory_case import PARAMETERS, Between, Bytes, Case, Step, rises
from minirnn.bench.timing import turn


class Inputs:
    """What a step starts from: the layer, x and dy."""

    def __init__(self, case: Case) -> None:
        drawn = {name: torch.from_numpy(array) for name, array in case.draw().items()}
        self.case = case
        self.x, self.dy = drawn["x"].requires_grad_(), drawn["dy"]
        self.lstm = torch.nn.LSTM(case.D, case.H, dtype=drawn["x"].dtype)
        self.lstm.load_state_dict({name: drawn[name] for name in PARAMETERS})
        self.parameters = [getattr(self.lstm, name) for name in PARAMETERS]
        self.starts: list[torch.Tensor] = []  # the states that segments start from

    def gradients(self, outputs: Sequence[torch.Tensor], dys: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        return dict(zip(("x", *PARAMETERS), torch.autograd.grad(outputs, [self.x, *self.parameters], dys), strict=True))


def store(inputs: Inputs, between: Between) -> dict[str, torch.Tensor]:
    """As the layer wants it."""
    output, _ = inputs.lstm(inputs.x)
    between([output])
    return inputs.gradients([output], [inputs.dy])


def checkpointed(inputs: Inputs, between: Between) -> dict[str, torch.Tensor]:
    """Of each segment its first state is kept, and the segment runs once more when its gradients are due."""
    case, outputs = inputs.case, []
    state = tuple(torch.zeros(1, case.N, case.H, dtype=inputs.x.dtype) for _ in range(2))
    inputs.starts = []
    for piece in case.pieces(case.segment):
        inputs.starts += state
        output, state = checkpoint(inputs.lstm, inputs.x[piece], state, use_reentrant=False)
        outputs.append(output)
    del state
    between(outputs)
    return inputs.gradients(outputs, [inputs.dy[piece] for piece in case.pieces(case.segment)])


WAYS = {"store": store, "checkpoint": checkpointed}


def make(case: Case, way: str) -> tuple[Inputs, Step]:
    inputs = Inputs(case)
    return inputs, partial(WAYS[way], inputs)


# What the parent asks for, as in minirnn.bench.memory_minirnn.


def keep(case: dict[str, Any], way: str) -> dict[str, int]:
    """Bytes between the passes that autograd has saved, by storage, with the output and the states that segments start from.

    oneDNN's workspace is a saved tensor, and counted. What PyTorch would keep elsewhere is not; `peak` sees it.
    """
    inputs, step = make(Case(**case), way)
    found = Bytes([t.untyped_storage().data_ptr() for t in (inputs.x, inputs.dy, *inputs.parameters)])

    def add(t: torch.Tensor) -> torch.Tensor:
        found.add(t.untyped_storage().data_ptr(), t.untyped_storage().nbytes())
        return t

    kept = []

    def count(outputs: Sequence[torch.Tensor]) -> None:
        for t in (*outputs, *inputs.starts):
            add(t)
        kept.append(found.total())

    with torch.autograd.graph.saved_tensors_hooks(add, lambda t: t):
        step(count)
    return {"kept": max(kept)}


def peak(case: dict[str, Any], way: str) -> dict[str, int | None]:
    return rises(make(Case(**case), way)[1])


def gradients(case: dict[str, Any], way: str, file: str) -> None:
    _, step = make(Case(**case), way)
    np.savez(file, **{name: t.numpy().astype(np.float64) for name, t in step(lambda outputs: None).items()})


_prepared: dict[str, Step] = {}


def prepare(case: dict[str, Any], way: str) -> None:
    _prepared[way] = make(Case(**case), way)[1]


def seconds(way: str) -> float:
    return turn(lambda: _prepared[way](lambda outputs: None))
