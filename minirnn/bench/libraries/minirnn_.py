"""minirnn's layers on any of its kernels, for the benchmark of recurrent layers (see `layer` beside this file)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minirnn import nn
from minirnn.autograd import no_grad
from minirnn.bench.allocations import count
from minirnn.bench.cases import Array, Arrays, Case, weight_shapes
from minirnn.bench.libraries.layer import PRODUCTS, Layer, Products, last_states, operands, step_through
from minirnn.kernels import kernels
from minirnn.tensor import Tensor

TITLE = "minirnn"
LAYERS: dict[str, Any] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
CELLS: dict[str, Any] = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "rnn": nn.RNNCell}


def why_not() -> str | None:
    return None


def environment(dtype: str) -> dict[str, str]:
    return {}


def names(case: Case) -> list[str]:
    """Of the kernels that can run, the preferred one first. Step by step the layer's own choice runs, in a layer and in a cell."""
    if case.stepwise:
        return ["cell", "layer"]
    return [kernel.name for kernel in kernels(case.cell) if kernel.why_not(case.dtype, "cpu") is None]


def make(name: str, case: Case, arrays: Arrays) -> Layer | Products:
    if name == PRODUCTS:
        return _Products(case)
    return _Steps(name, case, arrays) if case.stepwise else _Whole(name, case, arrays)


def count_allocations(run: Callable[[], Any]) -> int | None:
    return count(run)


class _Whole:
    """One call for all steps."""

    def __init__(self, kernel: str, case: Case, arrays: Arrays) -> None:
        self.case, self.arrays = case, arrays
        made = LAYERS[case.cell](case.D, case.H, case.layers, bidirectional=case.bidirectional, kernel=kernel, rng=0).to(case.dtype)
        made.load_state_dict({weight: arrays[weight] for weight in weight_shapes(case)})
        self.layer: Any = made
        self.x = Tensor(arrays["input"], requires_grad=True)  # (T, N, D)
        self.lengths = case.lengths if case.ragged else None
        self.output_gradient = Tensor(arrays["output_gradient"])

    def forward(self) -> Any:
        with no_grad():
            return self.layer(self.x, lengths=self.lengths)

    def both(self) -> Any:
        self.x.grad = None
        self.layer.zero_grad()
        output, last = self.layer(self.x, lengths=self.lengths)
        output.backward(self.output_gradient)
        return output, last

    def output_alone(self) -> Array:
        output, _ = self.forward()
        return np.asarray(output.numpy())

    def results(self, states: bool) -> Arrays:
        first = {name: Tensor(self.arrays[name], requires_grad=True) for name in self.arrays if name.endswith("_0")} if states else {}
        if states:
            self.x.grad = None
            self.layer.zero_grad()
            given = tuple(first.values())
            output, last = self.layer(self.x, given if len(given) > 1 else given[0], lengths=self.lengths)
            loss = (output * self.output_gradient).sum()
            for name, state in last_states(self.case, last).items():
                loss = loss + (state * Tensor(self.arrays[f"{name}_gradient"])).sum()
            loss.backward()
        else:
            output, last = self.both()
        gradients = {"input": self.x.grad, **{name: p.grad for name, p in self.layer.named_parameters()}}
        gradients |= {name: state.grad for name, state in first.items()}
        found = {"output": output, **last_states(self.case, last)}
        return {name: t.numpy() for name, t in (found | {f"gradient of {name}": g for name, g in gradients.items()}).items()}


class _Steps:
    """One call for each step, without gradients: of a cell, or of a layer whose sequences have one step."""

    def __init__(self, name: str, case: Case, arrays: Arrays) -> None:
        self.case = case
        kind = {"cell": CELLS, "layer": LAYERS}[name][case.cell]
        self.module = kind(case.D, case.H, rng=0).to(case.dtype)
        suffix = "_l0" if name == "layer" else ""
        self.module.load_state_dict({weight.removesuffix("_l0") + suffix: arrays[weight] for weight in weight_shapes(case)})
        self.is_layer = name == "layer"
        x = arrays["input"]  # (T, N, D)
        self.steps = [Tensor(np.ascontiguousarray(x[t : t + 1] if self.is_layer else x[t])) for t in range(case.T)]

    def forward(self) -> Any:
        with no_grad():
            return step_through(self.module, self.is_layer, self.case.cell, self.steps)

    def both(self) -> Any:
        raise NotImplementedError("steps have no gradients here")

    def output_alone(self) -> Array:
        return self.results(states=False)["output"]

    def results(self, states: bool) -> Arrays:
        outputs, last = self.forward()
        shape = (self.case.T, self.case.N, self.case.H)
        found = {"output": np.stack([output.numpy() for output in outputs]).reshape(shape)}
        return found | {name: state.numpy().reshape(1, *shape[1:]) for name, state in last_states(self.case, last).items()}


class _Products:
    """NumPy's, into memory that is there already."""

    def __init__(self, case: Case) -> None:
        self.passes = {
            pass_: [(a, b, np.empty((product.m, product.n), a.dtype)) for a, b, product in operands(case, pass_)] for pass_ in case.passes
        }

    def forward(self) -> None:
        for a, b, out in self.passes["forward"]:
            np.matmul(a, b, out)

    def both(self) -> None:
        for a, b, out in self.passes["both"]:
            np.matmul(a, b, out)
