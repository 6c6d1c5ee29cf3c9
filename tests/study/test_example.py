"""What an example for a page refuses, in the words that a user reads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from minirnn.study.example import Attention, Axis, Example, Layer, Steps
from tests.study import made_up


@pytest.mark.parametrize("make", [made_up.translator, made_up.captioner, made_up.forecaster])
def test_what_fits_is_taken(make: Any) -> None:
    example: Example = make()
    assert example.lengths()[example.outputs.name] == len(example.outputs)
    for layer in example.layers:
        for name, gradient in layer.backward.items():
            np.testing.assert_allclose(layer.norms[name], np.linalg.norm(gradient, axis=-1))


def test_an_example_without_loss_steps_layers_or_history_is_one() -> None:
    axis = Axis("source", "tokens", ["one"])
    example = Example("t", "", "vae", "runs/x", "0", [axis], Steps([], np.zeros(0)), influence={"source": np.ones((1, 1))})
    assert example.lengths() == {"source": 1, "output": 0}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"kind": "words"}, "Axis 'x': kind must be one of tokens, patches, series, got 'words'"),
        ({"labels": []}, "Axis 'x': labels must name at least one item, got none"),
        ({"kind": "series"}, "Axis 'x': a series, and nothing else, has values (T, D)"),
        ({"kind": "series", "values": np.zeros((3, 1))}, "Axis 'x': values must have shape (T, D) = (2, any), got (3, 1)"),
        ({"expected": np.zeros((2, 1))}, "Axis 'x': a series, and nothing else, has values that are expected"),
        (
            {"kind": "series", "values": np.zeros((2, 3)), "expected": np.zeros((2, 1))},
            "Axis 'x': expected must have shape (T, D) = (2, 3), got (2, 1)",
        ),
        (
            {"kind": "series", "values": np.zeros((2, 3)), "columns": ["a", "b"]},
            "Axis 'x': columns must name the D = 3 values of a frame, or none, got 2",
        ),
        ({"grid": (1, 2)}, "Axis 'x': patches, and nothing else, have an image and a grid"),
        (
            {"kind": "patches", "image": np.zeros((3, 4, 4), np.uint8), "grid": (2, 2)},
            "Axis 'x': a grid of 2 x 2 patches has 4 labels, got 2",
        ),
        ({"kind": "patches", "image": np.zeros((3, 4, 4)), "grid": (1, 2)}, "Axis 'x': image must be uint8, got float64"),
        (
            {"kind": "patches", "image": np.zeros((3, 4, 5), np.uint8), "grid": (1, 2)},
            "Axis 'x': image must have shape (3, S, S) = (3, 5, 5), got (3, 4, 5)",
        ),
    ],
)
def test_an_axis_whose_parts_do_not_fit_is_refused(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        Axis(**{"name": "x", "kind": "tokens", "labels": ["a", "b"]} | arguments)
    assert str(caught.value) == words


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"layers": [Layer("a", "lstm", "sauce")]},
            "Layer 'a': 'sauce' is not the name of an axis; there are: 'source', 'output'",
        ),
        ({"layers": [Layer("a", "rnn", "source")] * 2}, "layers: each must have a name of its own, got 'a' twice"),
        (
            {"layers": [Layer("a", "rnn", "source", starts_from=["b"])]},
            "Layer 'a': 'b' is not the name of a layer; there are: 'a'",
        ),
        (
            {"layers": [Layer("a", "rnn", "source", forward={"h": np.zeros((7, 3))})]},
            "Layer 'a': forward['h'] must have shape (T, H) = (8, any), got (7, 3)",
        ),
        (
            {"layers": [Layer("a", "rnn", "source", backward={"dh": np.zeros((8, 8, 3))})]},
            "Layer 'a': backward['dh'] must have shape (L + 1, T, H) = (9, 8, any), got (8, 8, 3)",
        ),
        (
            {"layers": [Layer("a", "rnn", "source", parts=[0, 4], backward={"dh": np.zeros((9, 8, 3))})]},
            "Layer 'a': backward['dh'] must have shape (parts, T, H) = (2, 8, any), got (9, 8, 3)",
        ),
        (
            {"layers": [Layer("a", "rnn", "source", parts=[0, 9])]},
            "Layer 'a': parts must be entries of 0..L = 0..8, rising, 0 first, got [0, 9]",
        ),
        (
            {"layers": [Layer("a", "rnn", "source", parts=[1, 2])]},
            "Layer 'a': parts must be entries of 0..L = 0..8, rising, 0 first, got [1, 2]",
        ),
        (
            {"layers": [Layer("a", "rnn", "output", norms={"dh": np.zeros(8)})]},
            "Layer 'a': norms['dh'] must have shape (L + 1, T) = (9, 8), got (8,)",
        ),
        (
            {"layers": [Layer("a", "rnn", "output", saturation={"h": np.zeros((8, 3))})]},
            "Layer 'a': saturation['h'] must have shape (T, 2) = (8, 2), got (8, 3)",
        ),
        ({"influence": {"output": np.zeros((9, 8))}}, "influence: 'output' is not the name of an input; there are: 'source'"),
        ({"influence": {"source": np.zeros((8, 8))}}, "influence: 'source' must have shape (L + 1, T) = (9, 8), got (8, 8)"),
        (
            {"attention": [Attention("looking", "source", np.zeros((8, 9)))]},
            "Attention 'looking': weights must have shape (L, T) = (8, 8), got (8, 9)",
        ),
        ({"history": {"test": []}}, "history: 'test' is not the name of a kind of row; there are: 'train', 'valid'"),
        ({"history": {"train": [{"loss": 1.0}]}}, "history: every row of 'train' must have \"step\" in it"),
        ({"inputs": [Axis("output", "tokens", ["a"])]}, "inputs and outputs: each must have a name of its own, got 'output' twice"),
    ],
)
def test_an_example_whose_parts_do_not_fit_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        replace(made_up.translator(), **change)
    assert str(caught.value) == words


def test_gradients_by_unit_may_be_there_for_some_steps_only() -> None:
    made = made_up.translator()
    kept = [replace(layer, parts=(0, 3, 8), backward={n: g[[0, 3, 8]] for n, g in layer.backward.items()}) for layer in made.layers]
    assert replace(made, layers=kept, note="by unit for 2 of 8 words").layers[0].backward["dh"].shape == (3, 8, 12)


def test_steps_whose_parts_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Steps: losses must have shape \(L\) = \(2\), got \(3,\)"):
        Steps(["a", "b"], np.zeros(3))
    with pytest.raises(ValueError, match="Steps: predicted must hold one text for each of the L = 2 labels, or none, got 1"):
        Steps(["a", "b"], np.zeros(2), ["a"])
