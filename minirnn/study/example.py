"""What a page shows of a model at work on one example: arrays and words alone, without the model that they come from.

    T time steps of an axis, L loss steps, H units, D values of a series a step

The loss is made of L parts, one a word, frame or note. Everything that depends on which part is differentiated has L + 1 entries along its
first axis: entry 0 belongs to the whole loss, entry l = 1..L to part l alone. What is there by unit may be kept for some entries only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Row = Mapping[str, float]  # numbers by name, "step" (updates so far) among them
Kind = Literal["tokens", "patches", "series"]


@dataclass(frozen=True)
class Axis:
    """What a model reads, one item a time step.

    Args:
        name: unlike that of every other axis, such as "source".
        kind: "tokens", "patches" of a picture, or frames of a "series".
        labels: T texts, one an item: the token, or what else names the item ("row 2, column 3", "1874").
        values: (T, D) of a series, NaN where one is missing; not for other kinds.
        expected: (T, D) of a series, what the model expected of each frame, where that is known.
        columns: D names of the values, or none.
        image: (3, S, S) uint8, red, green and blue, of patches; not for other kinds.
        grid: (rows, columns) of the patches, which lie row by row: T = rows * columns.

    Raises:
        ValueError: where a shape does not fit the others.
    """

    name: str
    kind: Kind
    labels: Sequence[str]
    values: Array | None = None
    expected: Array | None = None
    columns: Sequence[str] = ()
    image: Array | None = None
    grid: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        where = f"Axis {self.name!r}"
        _require(self.kind in get_args(Kind), where, f"kind must be one of {', '.join(get_args(Kind))}, got {self.kind!r}")
        _require(len(self.labels) > 0, where, "labels must name at least one item, got none")
        _require((self.values is not None) == (self.kind == "series"), where, "a series, and nothing else, has values (T, D)")
        _require(self.expected is None or self.values is not None, where, "a series, and nothing else, has values that are expected")
        patches = self.kind == "patches"
        _require(
            (self.image is not None) == patches == (self.grid is not None), where, "patches, and nothing else, have an image and a grid"
        )
        if self.values is not None:
            _shape(where, "values", self.values, ("T", len(self)), ("D", None))
            D = np.shape(self.values)[-1]
            _require(
                len(self.columns) in (0, D), where, f"columns must name the D = {D} values of a frame, or none, got {len(self.columns)}"
            )
            if self.expected is not None:
                _shape(where, "expected", self.expected, ("T", len(self)), ("D", D))
        if self.image is not None and self.grid is not None:
            size = np.shape(self.image)[-1]
            _shape(where, "image", self.image, ("", 3), ("S", size), ("S", size))
            _require(self.image.dtype == np.uint8, where, f"image must be uint8, got {self.image.dtype}")
            rows, columns = self.grid
            _require(
                rows * columns == len(self), where, f"a grid of {rows} x {columns} patches has {rows * columns} labels, got {len(self)}"
            )

    def __len__(self) -> int:
        """T."""
        return len(self.labels)


@dataclass(frozen=True)
class Steps:
    """The parts of the loss, one a step: "which inputs made this word?"

    Args:
        labels: L texts: what should come, such as the words of the reference.
        losses: (L,) the parts of the loss, in nats.
        predicted: L texts: what the model would have said, empty where a part is none that it says; or no texts at all.
        name: the axis of layers whose time is that of the loss, unlike the name of every `Axis`.
        whole: the whole loss, where it is known. It need not be the sum of the parts: a mean, or another term beside them.
    """

    labels: Sequence[str]
    losses: Array
    predicted: Sequence[str] = ()
    name: str = "output"
    whole: float | None = None

    def __post_init__(self) -> None:
        _shape("Steps", "losses", self.losses, ("L", len(self)))
        known = len(self.predicted) in (0, len(self))
        _require(known, "Steps", f"predicted must hold one text for each of the L = {len(self)} labels, or none, got {len(self.predicted)}")

    def __len__(self) -> int:
        """L."""
        return len(self.labels)


@dataclass(frozen=True)
class Layer:
    """A recurrent layer in one direction.

    Args:
        name: as in `trace`: "encoder.l0", "encoder.l0_reverse".
        cell: "lstm", "gru" or "rnn".
        axis: name of the `Axis`, or of the `Steps`, that lies under the layer's time.
        reverse: whether the layer reads its input from the end. Its time is that of the input all the same.
        starts_from: names of the layers whose last states its first state was made from; in a translator, the encoder's.
        forward: (T, H) by name: of an LSTM i, f, g, o, c, h; of a GRU r, u, n, h; of an RNN h.
        backward: (L + 1, T, H) by name: dh, dc, and what else there is.
        parts: of the entries 0..L those that `backward` holds, (len(parts), T, H), in rising order and 0 among them; None: all of them.
        norms: (L + 1, T) by name: "dh", "dc", the Euclidean norm over the units of what is in `backward`; "w_ih", "w_hh", "b", that of a
            step's own contribution to the gradient of a weight.
        saturation: (T, 2) by gate: the share of units near the lower end of the gate's range and near the upper one.
    """

    name: str
    cell: str
    axis: str
    reverse: bool = False
    starts_from: Sequence[str] = ()
    forward: Mapping[str, Array] = field(default_factory=dict)
    backward: Mapping[str, Array] = field(default_factory=dict)
    parts: Sequence[int] | None = None
    norms: Mapping[str, Array] = field(default_factory=dict)
    saturation: Mapping[str, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class Attention:
    """Where each step of the output looked.

    Args:
        name: such as "attention".
        axis: name of the `Axis` that was looked at.
        weights: (L, T), not negative; a row adds up to 1.
    """

    name: str
    axis: str
    weights: Array


@dataclass(frozen=True)
class Example:
    """Everything that a page shows.

    Args:
        title: of the page.
        text: one line: what is shown.
        model: its name on the command line, such as "seq2seq".
        run: where it was loaded from.
        version: of minirnn.
        note: what was left out to keep the page small, and what else one should know before one trusts what is shown; may be empty.
        inputs: what the model reads, in the order of reading.
        outputs: the parts of the loss.
        layers: in the order of their first calls.
        influence: (L + 1, T) by name of an `Axis`: the Euclidean norm of the gradient at each item (an embedding, a patch, a frame).
        attention: where the model looked.
        history: "train" and "valid": lines of `metrics.jsonl`, each a flat mapping with "step" in it (loss, norm, lr; scores by name).

    Raises:
        ValueError: where a shape does not fit the others, a name is used twice, or a name is not known.
    """

    title: str
    text: str
    model: str
    run: str
    version: str
    inputs: Sequence[Axis]
    outputs: Steps
    layers: Sequence[Layer] = ()
    influence: Mapping[str, Array] = field(default_factory=dict)
    attention: Sequence[Attention] = ()
    history: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    note: str = ""

    def __post_init__(self) -> None:
        axes = self.lengths()
        _unique("inputs and outputs", [axis.name for axis in self.inputs] + [self.outputs.name])
        _unique("layers", [layer.name for layer in self.layers])
        steps = len(self.outputs)
        for layer in self.layers:
            self._check(layer, axes, steps)
        for name, norm in self.influence.items():
            _known("influence", "an input", name, [axis.name for axis in self.inputs])
            _shape("influence", repr(name), norm, ("L + 1", steps + 1), ("T", axes[name]))
        for attention in self.attention:
            where = f"Attention {attention.name!r}"
            _known(where, "an axis", attention.axis, [axis.name for axis in self.inputs])
            _shape(where, "weights", attention.weights, ("L", steps), ("T", axes[attention.axis]))
        for kind, rows in self.history.items():
            _known("history", "a kind of row", kind, ["train", "valid"])
            _require(all("step" in row for row in rows), "history", f'every row of {kind!r} must have "step" in it')

    def lengths(self) -> dict[str, int]:
        """T of every axis by its name; the outputs' is L."""
        return {axis.name: len(axis) for axis in self.inputs} | {self.outputs.name: len(self.outputs)}

    def _check(self, layer: Layer, axes: Mapping[str, int], steps: int) -> None:
        where = f"Layer {layer.name!r}"
        _known(where, "an axis", layer.axis, axes)
        for name in layer.starts_from:
            _known(where, "a layer", name, [other.name for other in self.layers])
        time, parts, kept = ("T", axes[layer.axis]), ("L + 1", steps + 1), ("L + 1", steps + 1)
        if layer.parts is not None:
            entries = list(layer.parts)
            rising = entries == sorted(set(entries)) and entries[:1] == [0] and entries[-1] <= steps
            _require(rising, where, f"parts must be entries of 0..L = 0..{steps}, rising, 0 first, got {entries}")
            kept = ("parts", len(entries))
        for name, array in layer.forward.items():
            _shape(where, f"forward[{name!r}]", array, time, ("H", None))
        for name, array in layer.backward.items():
            _shape(where, f"backward[{name!r}]", array, kept, time, ("H", None))
        for name, array in layer.norms.items():
            _shape(where, f"norms[{name!r}]", array, parts, time)
        for name, array in layer.saturation.items():
            _shape(where, f"saturation[{name!r}]", array, time, ("", 2))


def _require(met: bool, where: str, what: str) -> None:
    if not met:
        raise ValueError(f"{where}: {what}")


def _shape(where: str, name: str, array: Array, *axes: tuple[str, int | None]) -> None:
    """Raise where an axis is not as long as it must be; None leaves its length open."""
    shape = np.shape(array)
    if len(shape) != len(axes) or any(length not in (None, got) for (_, length), got in zip(axes, shape, strict=True)):
        letters = ", ".join(letter or str(length) for letter, length in axes)
        lengths = ", ".join("any" if length is None else str(length) for _, length in axes)
        raise ValueError(f"{where}: {name} must have shape ({letters}) = ({lengths}), got {shape}")


def _known(where: str, what: str, name: str, names: Sequence[str] | Mapping[str, Any]) -> None:
    _require(name in names, where, f"{name!r} is not the name of {what}; there are: {', '.join(map(repr, names)) or 'none'}")


def _unique(where: str, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    _require(not twice, where, f"each must have a name of its own, got {', '.join(map(repr, twice))} twice")
