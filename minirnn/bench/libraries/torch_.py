"""PyTorch's layers, for the benchmark of recurrent layers (see `layer` beside this file). A ragged batch goes through a packed sequence."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from minirnn.bench.cases import Array, Arrays, Case, Product, weight_shapes
from minirnn.bench.libraries.layer import PRODUCTS, Layer, Products, last_states, operands, step_through

TITLE = "PyTorch"


def why_not() -> str | None:
    return None if importlib.util.find_spec("torch") else "PyTorch is not installed"


def environment(dtype: str) -> dict[str, str]:
    return {}


def names(case: Case) -> list[str]:
    return ["cell", "layer"] if case.stepwise else ["layer"]


def make(name: str, case: Case, arrays: Arrays) -> Layer | Products:
    torch = _torch()
    if name == PRODUCTS:
        return _Products(torch, case)
    return _Steps(torch, name, case, arrays) if case.stepwise else _Whole(torch, case, arrays)


def count_allocations(run: Callable[[], Any]) -> int | None:
    """What its allocator is asked for, by its profiler."""
    torch = _torch()
    with _no_chatter(), torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    try:
        return int(sum(e.name() == "[memory]" and e.nbytes() > 0 for e in profile.profiler.kineto_results.events()))
    except AttributeError:  # another release, another way to ask
        return None


@contextmanager
def _no_chatter() -> Iterator[None]:
    """The profiler tells standard error that it begins and ends."""
    said, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(said, 2)
        os.close(said)
        os.close(nowhere)


def _torch() -> Any:
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    return torch


class _Whole:
    def __init__(self, torch: Any, case: Case, arrays: Arrays) -> None:
        self.torch, self.case, self.arrays = torch, case, arrays
        kind = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}[case.cell]
        self.layer = kind(case.D, case.H, case.layers, bidirectional=case.bidirectional, dtype=getattr(torch, case.dtype))
        self.layer.load_state_dict({weight: torch.tensor(arrays[weight]) for weight in weight_shapes(case)})
        self.x = torch.tensor(arrays["input"], requires_grad=True)  # (T, N, D)
        self.lengths = torch.tensor(case.lengths) if case.ragged else None
        self.output_gradient = torch.tensor(arrays["output_gradient"])

    def forward(self) -> Any:
        with self.torch.no_grad():
            return self._run()

    def both(self) -> Any:
        self._forget()
        output, last = self._run()
        output.backward(self.output_gradient)
        return output, last

    def output_alone(self) -> Array:
        output, _ = self.forward()
        return np.asarray(output.numpy())

    def results(self, states: bool) -> Arrays:
        first = {name: self.torch.tensor(self.arrays[name], requires_grad=True) for name in self.arrays if name.endswith("_0")}
        if states:
            self._forget()
            given = tuple(first.values())
            output, last = self._run(given if len(given) > 1 else given[0])
            loss = (output * self.output_gradient).sum()
            for name, state in last_states(self.case, last).items():
                loss = loss + (state * self.torch.tensor(self.arrays[f"{name}_gradient"])).sum()
            loss.backward()
        else:
            output, last = self.both()
        gradients = {"input": self.x.grad, **{name: p.grad for name, p in self.layer.named_parameters()}}
        gradients |= {name: state.grad for name, state in first.items()} if states else {}
        found = {"output": output, **last_states(self.case, last)}
        return {name: t.detach().numpy() for name, t in (found | {f"gradient of {name}": g for name, g in gradients.items()}).items()}

    def _run(self, state: Any = None) -> tuple[Any, Any]:
        if self.lengths is None:
            output, last = self.layer(self.x, state)
            return output, last
        rnn = self.torch.nn.utils.rnn
        packed = rnn.pack_padded_sequence(self.x, self.lengths, enforce_sorted=False)
        output, last = self.layer(packed, state)
        return rnn.pad_packed_sequence(output, total_length=self.case.T)[0], last

    def _forget(self) -> None:
        self.x.grad = None
        self.layer.zero_grad(set_to_none=True)


class _Steps:
    """One call for each step, without gradients: of a cell, or of a layer whose sequences have one step."""

    def __init__(self, torch: Any, name: str, case: Case, arrays: Arrays) -> None:
        self.torch, self.case, self.is_layer = torch, case, name == "layer"
        layers = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}
        cells = {"lstm": torch.nn.LSTMCell, "gru": torch.nn.GRUCell, "rnn": torch.nn.RNNCell}
        self.module = (layers if self.is_layer else cells)[case.cell](case.D, case.H, dtype=getattr(torch, case.dtype))
        suffix = "_l0" if self.is_layer else ""
        weights = {weight.removesuffix("_l0") + suffix: torch.tensor(arrays[weight]) for weight in weight_shapes(case)}
        self.module.load_state_dict(weights)
        x = torch.tensor(arrays["input"])  # (T, N, D)
        self.steps = [x[t : t + 1] if self.is_layer else x[t] for t in range(case.T)]

    def forward(self) -> Any:
        with self.torch.no_grad():
            return step_through(self.module, self.is_layer, self.case.cell, self.steps)

    def both(self) -> Any:
        raise NotImplementedError("steps have no gradients here")

    def output_alone(self) -> Array:
        return self.results(states=False)["output"]

    def results(self, states: bool) -> Arrays:
        outputs, last = self.forward()
        shape = (self.case.T, self.case.N, self.case.H)
        found = {"output": self.torch.stack(outputs).reshape(shape).numpy()}
        return found | {name: state.reshape(1, *shape[1:]).numpy() for name, state in last_states(self.case, last).items()}


class _Products:
    """Its own, into memory that is there already."""

    def __init__(self, torch: Any, case: Case) -> None:
        self.torch = torch
        self.passes = {pass_: [self._ready(*made) for made in operands(case, pass_)] for pass_ in case.passes}

    def _ready(self, a: Array, b: Array, product: Product) -> tuple[Any, Any, Any]:
        left, right = self.torch.from_numpy(a), self.torch.from_numpy(b.T).T
        return left, right, left.new_empty(product.m, product.n)

    def forward(self) -> None:
        self._run("forward")

    def both(self) -> None:
        self._run("both")

    def _run(self, pass_: str) -> None:
        with self.torch.no_grad():
            for a, b, out in self.passes[pass_]:
                self.torch.mm(a, b, out=out)
