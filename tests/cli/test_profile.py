"""`minirnn profile`: the tables of a model's training step, from the outside."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from minirnn import serialization

from .conftest import SMALL, Call


def test_a_model_by_layer_operation_and_kernel(call: Call, phrases: Path) -> None:
    shown = call("profile", "seq2seq", "--data", phrases, "--steps", 2, "--set", *SMALL)
    assert shown.code == 0, shown
    first, operations, kernels = shown.out.split("\n\n")
    assert first.startswith(f"seq2seq on {phrases}: 2 steps of ")
    rows = [line.split() for line in operations.splitlines()]
    assert rows[0] == ["layer", "operation", "direction", "calls", "ms", "%", "MB", "MFLOP", "GFLOP/s"]
    assert {tuple(row[:4]) for row in rows} >= {
        (layer, "LSTMLayer", way, "2") for layer in ("encoder.l0", "encoder.l0_reverse", "decoder.l0") for way in ("forward", "backward")
    }
    assert rows[-1][:3] == ["not", "in", "operations"]
    assert "adam" in kernels
    assert not Path("runs").exists()


def test_one_table_and_json(call: Call, phrases: Path) -> None:
    given = ("profile", "seq2seq", "--data", phrases, "--steps", 1, "--set", *SMALL)
    layers = call(*given, "--by", "layer").out.split("\n\n")
    assert len(layers) == 2
    assert layers[1].split()[0] == "layer"
    found = json.loads(call(*given, "--json").out)
    assert (found["model"], found["steps"]) == ("seq2seq", 1)
    assert found["tokens"] > 0
    assert {row["kernel"] is None for row in found["operations"]} == {True}


def test_a_run_keeps_its_weights(call: Call, trained: Path) -> None:
    before = serialization.load(trained / "model.safetensors")
    files = sorted(trained.iterdir())
    assert "decoder.l0" in call("profile", trained, "--steps", 1).out
    after = serialization.load(trained / "model.safetensors")
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert sorted(trained.iterdir()) == files


def test_what_cannot_be_done_is_said_in_a_line(call: Call, trained: Path) -> None:
    assert "leave out --data, --set" in call("profile", trained, "--data", "cldr", "--set", "lr=1").complaint
    assert "seq3seq" in call("profile", "seq3seq").complaint
    assert "--steps" in call("profile", "seq2seq", "--steps", 0).complaint
