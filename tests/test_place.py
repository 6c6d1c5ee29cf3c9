"""Where operations run: modules find their own names, and operations remember where they were applied."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import minirnn as mr
from minirnn import nn
from minirnn.place import NOWHERE, Place, at, here


class Pair(nn.Module):
    def __init__(self):
        self.encoder = nn.LSTM(3, 4, num_layers=2, bidirectional=True, rng=0)
        self.cells = [nn.LSTMCell(8, 5, rng=0), nn.LSTMCell(5, 5, rng=0)]
        self.heads = {"word": nn.Linear(5, 2, rng=0)}
        self.block = nn.Sequential(nn.Linear(2, 2, rng=0))

    def loss(self, x):
        output, _ = self.encoder(x)
        state = None
        for t in range(len(x)):
            with at(step=t):
                state = self.cells[0](output[t], state)
        h, _ = self.cells[1](state[0])
        return self.block(self.heads["word"](h)).sum()


def places(root):
    """The places of all operations below a tensor."""
    found, stack, seen = [], [root.creator], set()
    while stack:
        node = stack.pop()
        if node is not None and id(node) not in seen:
            seen.add(id(node))
            found.append((type(node).__name__, node.place))
            stack += [t.creator for t in node.inputs]
    return found


def test_a_module_is_named_by_the_one_that_holds_it():
    model = Pair()
    assert model.path() == ""
    assert model.encoder.path() == "encoder"
    assert model.cells[1].path() == "cells.1"
    assert model.heads["word"].path() == "heads.word"
    assert model.block[0].path() == "block.0"
    twin = copy.deepcopy(model)
    assert twin.cells[0].path() == "cells.0"
    assert nn.Linear(1, 1, rng=0).path() == ""


def test_names_agree_with_named_modules():
    model = Pair()
    assert {name: m.path() for name, m in model.named_modules()} == {name: name for name, _ in model.named_modules()}


def test_operations_know_layer_and_step():
    model = Pair()
    found = places(model.loss(mr.tensor(np.ones((2, 1, 3), np.float32))))
    layers = [str(place) for kind, place in found if kind == "LSTMLayer"]
    assert sorted(layers) == sorted(
        ["encoder.l0", "encoder.l0_reverse", "encoder.l1", "encoder.l1_reverse", "cells.0, time step 0", "cells.0, time step 1", "cells.1"]
    )
    assert {place.name for kind, place in found if kind == "Linear"} == {"heads.word", "block.0"}
    assert [place for kind, place in found if kind == "Sum"] == [NOWHERE]


def test_unrolled_operations_know_their_step():
    lstm = nn.LSTM(3, 4, kernel="unrolled", rng=0)
    output, _ = lstm(mr.tensor(np.ones((3, 1, 3), np.float32)))
    steps = [place.step for kind, place in places(output) if kind == "Tanh"]
    assert sorted(steps) == [0, 0, 1, 1, 2, 2]
    assert {place.name for kind, place in places(output) if kind == "Tanh"} == {"l0"}


def test_a_backward_pass_is_at_the_place_of_what_it_differentiates():
    layer, seen = nn.Linear(3, 2, rng=0), []

    class Spy(mr.autograd.Function):
        def forward(self, x):
            return x.copy()

        def backward(self, dy):
            seen.append(here())
            return dy

    class Outer(nn.Module):
        def __init__(self):
            self.inner = layer

        def forward(self, x):
            with at(step=7):
                return Spy.apply(self.inner(x))

    Outer()(mr.tensor(np.ones((1, 3), np.float32))).sum().backward()
    assert [(place.module.path(), place.step) for place in seen] == [("", 7)]
    assert here() == NOWHERE


def test_the_place_is_left_when_a_call_fails():
    with pytest.raises(ValueError, match="input_size"):
        nn.LSTM(3, 4, rng=0)(mr.tensor(np.ones((2, 1, 5), np.float32)))
    assert here() == NOWHERE


def test_a_root_without_parts_is_named_by_its_class():
    assert Place(nn.LSTMCell(2, 2, rng=0)).name == "LSTMCell"
    assert str(Place(None, "l0", 3)) == "l0, time step 3"
    assert NOWHERE.name == ""
