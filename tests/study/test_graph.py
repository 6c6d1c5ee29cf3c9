"""The drawn graph is the recorded one: as many nodes, edges and shapes as were computed, and a picture that can be read."""

from __future__ import annotations

import re
import shutil
import subprocess
from itertools import combinations, pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minirnn as mr
from minirnn import nn, ops
from minirnn.study import graph
from minirnn.study.drawing import HEIGHT, ranks


class Translator(nn.Module):
    """Everything that a picture must cope with: layers, both directions, ragged rows, states handed on, a module called twice."""

    def __init__(self, kernel=None):
        self.embed = nn.Embedding(10, 3, rng=0)
        self.encoder = nn.LSTM(3, 4, bidirectional=True, kernel=kernel, rng=0)
        self.decoder = nn.LSTM(3, 4, num_layers=2, kernel=kernel, rng=0)
        self.out = nn.Linear(4, 10, rng=0)

    def forward(self, x, y, lengths=(5, 3)):
        _, state = self.encoder(self.embed(x), lengths=lengths)
        output, _ = self.decoder(self.embed(y), state)
        return ops.cross_entropy(self.out(output).reshape(-1, 10), y.reshape(-1))


def loss_of(kernel=None):
    words = np.arange(24) % 10
    return Translator(kernel)(mr.tensor(words[:10].reshape(5, 2)), mr.tensor(words[10:].reshape(7, 2)))


def functions(root):
    """Every operation below a tensor, found by a walk of the test's own."""
    found, stack = {}, [root.creator]
    while stack:
        node = stack.pop()
        if node is not None and id(node) not in found:
            found[id(node)] = node
            stack += [t.creator for t in node.inputs]
    return list(found.values())


def layer(cell, T, N, kernel=None, lengths=None):
    module = getattr(nn, cell)(3, 4, kernel=kernel, rng=0)
    output, _ = module(mr.tensor(np.ones((T, N, 3), np.float32), requires_grad=True), lengths=lengths)
    return output


@settings(max_examples=15)
@given(cell=st.sampled_from(["LSTM", "GRU", "RNN"]), T=st.integers(1, 6), N=st.integers(1, 3))
def test_a_fused_layer_has_a_cell_for_each_step(cell, T, N):
    drawn = graph(layer(cell, T, N).sum())
    cells = [node for node in drawn.nodes if node.kind == "cell"]
    assert [node.column for node in cells] == list(range(T))
    assert {node.label for node in cells} == {cell}
    in_time = [edge for edge in drawn.edges if edge.in_time]
    assert [(edge.source, edge.target) for edge in in_time] == [(a.key, b.key) for a, b in pairwise(cells)]
    assert {edge.shape for edge in in_time} <= {("h, c " if cell == "LSTM" else "h ") + f"({N}, 4)"}
    assert drawn.columns == [f"step {t}" for t in range(T)]


def stepped(cell, T, feeds_back=False):
    """A cell that is called step by step, and what is done with each of its states."""
    module, out, x = getattr(nn, f"{cell}Cell")(3, 4, rng=0), nn.Linear(4, 3, rng=0), mr.tensor(np.ones((T, 2, 3), np.float32))
    state, outputs = None, []
    for t in range(T):
        state = module(outputs[-1] if feeds_back and t else x[t], state)
        outputs.append(out(state[0] if cell == "LSTM" else state))
    return ops.stack(outputs).sum()


@settings(max_examples=15)
@given(cell=st.sampled_from(["LSTM", "GRU", "RNN"]), T=st.integers(2, 8), feeds_back=st.booleans())
def test_the_calls_of_a_cell_have_a_column_each(cell, T, feeds_back):
    drawn = graph(stepped(cell, T, feeds_back))
    assert drawn.columns == [f"step {t}" for t in range(T)]
    for label in (cell, "Linear"):
        assert sorted(node.column for node in drawn.nodes if node.label == label) == list(range(T))
    cells = sorted([node for node in drawn.nodes if node.kind == "cell"], key=lambda node: node.column)
    states = [(e.source, e.target, e.shape) for e in drawn.edges if e.in_time and e.source in {node.key for node in cells}]
    shape = ("h, c " if cell == "LSTM" else "h ") + "(2, 4)"
    assert sorted(states) == sorted((a.key, b.key, shape) for a, b in pairwise(cells))
    bars = {node.label for node in drawn.nodes if node.column is None and node.kind == "operation"}
    assert bars == {"Concatenate", "Sum", "Reshape"}  # what needs all steps
    rank = ranks(drawn.nodes, drawn.edges)
    assert len({rank[node.key] for node in cells}) == (2 if feeds_back and T > 1 else 1)  # the first one's input stands below it


def test_calls_of_a_cell_that_are_left_out_are_one_box():
    drawn = graph(stepped("GRU", 20))
    assert drawn.columns == ["step 0", "step 1", "step 2", "step 3", "13 more", "step 17", "step 18", "step 19"]
    for kind, count in (("cell", 7), ("more", 1), ("input", 8)):
        assert len([node for node in drawn.nodes if node.kind == kind]) == count
    drawn.svg(), drawn.dot()


def test_chunks_go_on_in_time():
    module, x, state, loss = nn.LSTM(3, 4, num_layers=2, rng=0), mr.tensor(np.ones((6, 2, 3), np.float32)), None, 0
    for start in (0, 2, 4):
        output, state = module(x[start : start + 2], state)
        loss = loss + output.sum()
    cells = [node for node in graph(loss).nodes if node.kind == "cell"]
    assert sorted((node.layer, node.column) for node in cells) == [(part, t) for part in ("l0", "l1") for t in range(6)]


def test_edges_carry_the_rows_of_their_step():
    drawn = graph(layer("LSTM", 4, 3, lengths=[4, 2, 1]).sum())
    cells = {node.key: node.column for node in drawn.nodes if node.kind == "cell"}
    into = {cells[e.target]: e.shape for e in drawn.edges if e.target in cells and e.source not in cells}
    assert into == {0: "(3, 3)", 1: "(2, 3)", 2: "(1, 3)", 3: "(1, 3)"}
    out = {cells[e.source]: e.shape for e in drawn.edges if e.source in cells and e.target not in cells}
    assert out == {0: "(3, 4)", 1: "(2, 4)", 2: "(1, 4)", 3: "(1, 4)"}
    assert [e.shape for e in drawn.edges if e.in_time] == ["h, c (2, 4)", "h, c (1, 4)", "h, c (1, 4)"]


def test_the_reverse_direction_runs_from_right_to_left():
    drawn = graph(loss_of())
    cells = {node.key: node for node in drawn.nodes if node.kind == "cell"}
    steps = {}
    for e in drawn.edges:
        if e.in_time:
            steps.setdefault(cells[e.source].layer, set()).add(cells[e.target].column - cells[e.source].column)
    assert steps == {"encoder.l0": {1}, "encoder.l0_reverse": {-1}, "decoder.l0": {1}, "decoder.l1": {1}}
    first = [
        e for e in drawn.edges if e.target in cells and not e.in_time and cells[e.target].layer == "decoder.l0" and "1, 2, 4" in e.shape
    ]
    assert len(first) == 2  # h_0 and c_0
    assert {cells[e.target].column for e in first} == {0}


@pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN"])
def test_primitive_operations_are_all_there(cell):
    output = layer(cell, 3, 2, kernel="unrolled").sum()
    drawn = graph(output)
    found = functions(output)
    assert sorted(node.label for node in drawn.nodes if node.kind == "operation") == sorted(type(f).__name__ for f in found)
    links = {(id(t.creator), id(f)) for f in found for t in f.inputs if t.creator is not None}
    operations = {node.key for node in drawn.nodes if node.kind == "operation"}
    assert len([e for e in drawn.edges if e.source in operations]) == len(links)
    columns = {node.key: node.column for node in drawn.nodes}
    assert {columns[e.target] - columns[e.source] for e in drawn.edges if e.in_time} == {1}


def test_parameters_are_drawn_when_asked_for():
    module = nn.LSTM(3, 4, rng=0)
    output, _ = module(mr.tensor(np.ones((2, 1, 3), np.float32)))
    names = {"weight_ih_l0\n(16, 3)", "weight_hh_l0\n(16, 4)", "bias_ih_l0\n(16,)", "bias_hh_l0\n(16,)"}
    assert {node.label for node in graph(output.sum(), parameters=True).nodes if node.kind == "parameter"} == names
    assert not [node for node in graph(output.sum()).nodes if node.kind == "parameter"]
    assert any("weight_hh_l0 (16, 4)" in node.note for node in graph(output.sum()).nodes)


@pytest.mark.parametrize("kernel", [None, "unrolled"])
def test_folded_a_layer_is_one_node_with_a_loop(kernel):
    drawn = graph(loss_of(kernel), fold=True)
    loops = {e.source for e in drawn.edges if e.source == e.target}
    assert {node.layer for node in drawn.nodes if node.key in loops} == {"encoder.l0", "encoder.l0_reverse", "decoder.l0", "decoder.l1"}
    layers = [node.layer for node in drawn.nodes if node.layer.count(".")]
    assert len(layers) == len(set(layers))
    order = {node.key: k for k, node in enumerate(drawn.nodes)}
    rank = ranks(drawn.nodes, drawn.edges)
    assert all(rank[e.source] < rank[e.target] for e in drawn.edges if not e.in_time), order


def test_a_decoder_that_is_called_step_by_step_folds_to_one_node():
    class Stepwise(nn.Module):
        def __init__(self):
            self.cell, self.out = nn.LSTMCell(4, 4, rng=0), nn.Linear(4, 4, rng=0)

        def forward(self, x):
            state = None
            for _ in range(5):
                state = self.cell(x, state)
                x = self.out(state[0])
            return x.sum()

    drawn = graph(Stepwise()(mr.tensor(np.ones((2, 4), np.float32))), fold=True)
    assert [node.layer for node in drawn.nodes if node.layer in ("cell", "out")] == ["cell", "out"]


def test_steps_in_the_middle_are_left_out():
    for kernel in (None, "unrolled"):
        drawn = graph(layer("LSTM", 100, 1, kernel).sum(), steps=5)
        assert drawn.columns == ["step 0", "step 1", "96 more", "step 98", "step 99"]
        assert [node.column for node in drawn.nodes if node.kind == "more"] == [2]
        assert {node.column for node in drawn.nodes} == {None, 0, 1, 2, 3, 4}


def parsed(drawn):
    """The boxes of an SVG: (x, y, width) of each, and the size of the picture."""
    root = ElementTree.fromstring(drawn.svg())
    boxes = [tuple(float(rect.get(a)) for a in ("x", "y", "width")) for rect in root.iter("{http://www.w3.org/2000/svg}rect")]
    return boxes, float(root.get("width")), float(root.get("height")), root


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("parameters", [False, True])
@pytest.mark.parametrize("kernel", [None, "unrolled"])
def test_the_picture_shows_every_node_and_nothing_overlaps(kernel, parameters, fold):
    drawn = graph(loss_of(kernel), fold=fold, parameters=parameters)
    boxes, width, height, root = parsed(drawn)
    assert len(boxes) == len(drawn.nodes)
    for x, y, w in boxes:
        assert x >= 0
        assert y >= 0
        assert x + w <= width
        assert y + HEIGHT <= height
    for (x, y, w), (x2, y2, w2) in combinations(boxes, 2):
        assert abs(y - y2) >= HEIGHT or x + w <= x2 + 0.2 or x2 + w2 <= x + 0.2
    written = "".join(root.itertext())
    assert all(word in written for node in drawn.nodes for word in node.label.split("\n"))


def test_columns_go_from_left_to_right():
    drawn = graph(loss_of())
    boxes, *_ = parsed(drawn)
    for one, other in combinations(zip(drawn.nodes, boxes, strict=True), 2):
        (a, (x, _, w)), (b, (x2, _, w2)) = one, other
        if a.column is not None and b.column is not None and a.column < b.column:
            assert x + w <= x2
        if a.column is not None and b.column is not None and a.column > b.column:
            assert x2 + w2 <= x


def test_labels_are_escaped(tmp_path):
    class Odd(nn.Module):
        def __init__(self):
            self.parts = {'a"<&\\': nn.Linear(2, 2, rng=0)}

        def forward(self, x):
            return next(iter(self.parts.values()))(x).sum()

    drawn = graph(Odd()(mr.tensor(np.ones((1, 2), np.float32))), fold=True)
    _, _, _, root = parsed(drawn)
    assert 'parts.a"<&\\' in "".join(root.itertext())
    assert r"parts.a\"<&\\" in drawn.dot()


def test_dot_names_every_node_and_edge(tmp_path):
    drawn = graph(loss_of(), parameters=True)
    text = drawn.save(tmp_path / "loss.dot").read_text()
    declared = set(re.findall(r'^ +"(n[^"]*)" \[label', text, re.M))
    assert declared == {node.key for node in drawn.nodes}
    assert set(re.findall(r'"(n[^"]*)" -> "(n[^"]*)"', text)) == {(e.source, e.target) for e in drawn.edges}
    assert text.count("subgraph cluster_") == len(drawn.columns)
    if shutil.which("dot"):
        assert subprocess.run(["dot", "-Tsvg"], input=text, capture_output=True, text=True, check=True).stdout.startswith("<?xml")


def test_the_same_graph_gives_the_same_picture(tmp_path):
    assert graph(loss_of()).svg() == graph(loss_of()).svg()
    assert graph(loss_of()).save(tmp_path / "a.svg").read_text() == graph(loss_of())._repr_svg_()


def test_what_cannot_be_drawn_is_refused(tmp_path):
    output = layer("LSTM", 3, 1).sum()
    output.backward()
    with pytest.raises(ValueError, match=r"freed this graph; draw it before backward\(\)"):
        graph(output)
    with pytest.raises(ValueError, match=r"tensor 0 \(2,\) has no graph"):
        graph(mr.tensor([1.0, 2.0]))
    kept = layer("LSTM", 3, 1)
    with pytest.raises(ValueError, match="steps must be at least 3, got 2"):
        graph(kept, steps=2)
    with pytest.raises(ValueError, match=r"must end in \.svg or \.dot, got 'a\.png'"):
        graph(kept).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="too many to look at; pass fold=True"):
        graph(layer("LSTM", 200, 1, "unrolled"), steps=200)
