"""A model at work on one example, taken apart: one backward pass for each term of its loss, seen in every recurrent layer.

The forward pass runs once, inside a trace; the backward passes go through the same graph, one for the sum of all terms and one for each of
them alone. Gradients add up: those of the terms to that of the sum.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from minirnn._version import __version__
from minirnn.autograd import grad
from minirnn.device import beside, to_device
from minirnn.models.terms import Terms
from minirnn.study.example import Array, Attention, Axis, Example, Layer, Steps
from minirnn.study.trace import Trace, trace
from minirnn.tensor import Tensor

STATES = {"lstm": ("h", "c"), "gru": ("h",), "rnn": ("h",)}
GATES = {"lstm": ("i", "f", "g", "o"), "gru": ("r", "u", "n"), "rnn": ()}
WEIGHTS = ("w_ih", "w_hh", "b")
PART = re.compile(r"\.(l\d+)(?:_reverse)?$")
BYTES = 1_500_000  # of float32 numbers that are gradients by unit: 2 MB of the page


@dataclass(frozen=True)
class Subject:
    """What is to be taken apart, and how it is called.

    Args:
        title, text, note: of the page; see `Example`.
        model: its name on the command line.
        terms: lets the model work; called once.
        inputs: what the model is given, by the names in `Terms.inputs`; what attention looks at comes first.
        output: name of the axis of the loss steps.
        labels: (L,) what should come.
        say: what the model expected, (L,) texts or fewer, from `Terms.predicted`; None for numbers.
        expect: the same as numbers (T, D), beside the values of a series.
        under: the axis under the time of a layer, by the name of the module that holds it.
        starts: modules whose last states made the first state of another, by the name of that one.
    """

    title: str
    text: str
    model: str
    terms: Callable[[], Terms]
    inputs: Mapping[str, Axis]
    output: str
    labels: Sequence[str]
    under: Mapping[str, str]
    say: Callable[[Array], Sequence[str]] | None = None
    expect: Callable[[Array], Array] | None = None
    starts: Mapping[str, str] = field(default_factory=dict)
    note: str = ""


class Gradients:
    """What the backward passes leave of one layer, of the one sequence that there is: filled entry by entry.

    Args:
        layer: as in the trace.
        entries: L + 1.
        parts: the entries that are kept by unit.
        dtype: that of the model.
    """

    def __init__(self, layer: Any, entries: int, parts: Sequence[int], dtype: Any) -> None:
        self.layer, self.parts = layer, list(parts)
        T, H, states = layer.T, layer.H, STATES[layer.cell]
        self.backward = {f"d{state}": np.empty((len(parts), T, H), dtype) for state in states}
        self.norms = {name: np.empty((entries, T)) for name in (*self.backward, *WEIGHTS)}

    def take(self, entry: int) -> None:
        """Read the trace after the backward pass number `entry`."""
        for name, kept in self.backward.items():
            gradient = getattr(self.layer, name)[:, 0]  # (T, H)
            self.norms[name][entry] = np.linalg.norm(gradient.astype(np.float64), axis=-1)
            if entry in self.parts:
                kept[self.parts.index(entry)] = gradient
        for name in WEIGHTS:
            self.norms[name][entry] = self.layer.contribution(name, per_sequence=True)[:, 0]

    def result(self, name: str, axis: str, starts_from: Sequence[str]) -> Layer:
        layer, entries = self.layer, len(self.norms["dh"])
        forward = (*GATES[layer.cell], *reversed(STATES[layer.cell]))
        return Layer(
            name=name,
            cell=layer.cell,
            axis=axis,
            reverse=layer.reverse,
            starts_from=starts_from,
            forward={quantity: getattr(layer, quantity)[:, 0] for quantity in forward},
            backward=self.backward,
            parts=None if len(self.parts) == entries else self.parts,
            norms=self.norms,
            saturation={gate: layer.saturation(gate) for gate in GATES[layer.cell]},
        )


def examine(subject: Subject, run: str = "", progress: Callable[[int, int], None] | None = None) -> Example:
    """The example that a page shows, from the model at work.

    run       where the model comes from
    progress  told after each of the L + 1 backward passes how many are done, and of how many
    """
    with trace() as traced:
        terms = subject.terms()
        entries = len(terms.losses) + 1
        parts = _kept(traced, entries)
        layers = {name: Gradients(traced[name], entries, parts, terms.losses.dtype) for name in traced.layers}
        influence = {name: np.empty((entries, len(axis))) for name, axis in subject.inputs.items()}
        for entry in range(entries):
            seed = np.zeros(entries - 1, terms.losses.dtype)
            seed[slice(None) if entry == 0 else entry - 1] = 1
            seeds = Tensor(beside(seed, terms.losses.data))
            found = grad(terms.losses, list(terms.inputs.values()), seeds, retain_graph=True, allow_unused=True)
            for name, gradient in zip(terms.inputs, found, strict=True):
                influence[name][entry] = 0 if gradient is None else influences(gradient.numpy(), subject.inputs[name])
            for layer in layers.values():
                layer.take(entry)
            if progress is not None:
                progress(entry + 1, entries)
    return _example(subject, run, terms, layers, influence)


def influences(gradient: Array, axis: Axis) -> Array:
    """The norm of a gradient at each item of an axis (T,): of rows (T, .), or of a picture (1, 3, S, S) by patches."""
    squares = gradient.astype(np.float64) ** 2
    if axis.grid is None:
        return np.asarray(np.sqrt(squares.sum(-1)))
    rows, columns = (np.arange(count) * size // count for count, size in zip(axis.grid, gradient.shape[2:], strict=True))
    by_patch = np.add.reduceat(np.add.reduceat(squares.sum((0, 1)), rows, 0), columns, 1)
    return np.asarray(np.sqrt(by_patch)).reshape(-1)


def _kept(traced: Trace, entries: int) -> list[int]:
    """The entries that are kept by unit: all of them, or the whole loss and terms at equal distances, the last one included."""
    size = sum(4 * len(STATES[traced[name].cell]) * traced[name].T * traced[name].H for name in traced.layers)
    count = max(2, min(entries, BYTES // max(1, size)))
    return list(range(entries)) if count == entries else [0, *np.linspace(entries - 1, 1, count - 1).round().astype(int)[::-1].tolist()]


def _example(subject: Subject, run: str, terms: Terms, layers: Mapping[str, Gradients], influence: Mapping[str, Array]) -> Example:
    losses = terms.losses.numpy().astype(np.float64)
    predicted = to_device(terms.predicted, "cpu")
    said = [] if subject.say is None else list(subject.say(predicted))
    inputs = {name: _expected(axis, subject, predicted) for name, axis in subject.inputs.items()}
    found = []
    for name, layer in layers.items():
        module = _module(name)
        starts = [other for other in layers if _module(other) == subject.starts.get(module) and _depth(other) == _depth(name)]
        found.append(layer.result(name, subject.under[module], starts))
    notes = [subject.note] if subject.note else []
    short = next((layer.parts for layer in found if layer.parts is not None), None)
    if short is not None:
        notes.append(f"Gradients by unit are kept for the whole loss and {len(short) - 1} of {len(losses)} loss steps, norms for all.")
    first = next(iter(inputs.values()))  # what attention looks at
    look = [] if terms.attention is None else [Attention("attention", first.name, to_device(terms.attention, "cpu"))]
    return Example(
        title=subject.title,
        text=subject.text,
        model=subject.model,
        run=run,
        version=__version__,
        inputs=list(inputs.values()),
        outputs=Steps(
            labels=list(subject.labels),
            losses=losses,
            predicted=said and said + [""] * (len(losses) - len(said)),
            name=subject.output,
            whole=float(losses.sum()),
        ),
        layers=found,
        influence={inputs[name].name: values for name, values in influence.items()},
        attention=look,
        note=" ".join(notes),
    )


def _expected(axis: Axis, subject: Subject, predicted: Array) -> Axis:
    """The axis, and if it is a series what was expected of it."""
    return replace(axis, expected=subject.expect(predicted)) if axis.kind == "series" and subject.expect is not None else axis


def _module(name: str) -> str:
    """The module of a layer: "encoder" of "encoder.l0_reverse"; a cell has no parts."""
    return PART.sub("", name)


def _depth(name: str) -> str:
    """The number of a layer, whichever its direction: "l0" of "encoder.l0_reverse"."""
    return "".join(PART.findall(name))
