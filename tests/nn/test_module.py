"""Modules: what they consist of, and how that is copied, moved, saved and shown."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minirnn as mr
from minirnn import Tensor, nn


class Tied(nn.Module):
    """An embedding and an output layer that share their weight, a list and a dict of layers, and two generators."""

    def __init__(self) -> None:
        self.embedding = nn.Embedding(5, 3, rng=0)
        self.output = nn.Linear(3, 5, rng=1)
        self.output.weight = self.embedding.weight
        self.layers = [nn.Dropout(0.5, rng=2), nn.Linear(3, 3, bias=False, rng=3)]
        self.heads = {"left": [nn.Linear(3, 1, rng=4)]}
        self.scale = nn.Parameter([1.0, 2.0, 3.0])
        self.noise = np.random.default_rng(5)

    def forward(self, ids: Any) -> Tensor:
        x = self.embedding(ids) * self.scale
        for layer in self.layers:
            x = layer(x)
        y: Tensor = self.output(x)
        return y


NAMES = ["embedding.weight", "output.weight", "output.bias", "layers.1.weight", "heads.left.0.weight", "heads.left.0.bias", "scale"]


def test_parameters_are_found_once_and_saved_under_every_name() -> None:
    model = Tied()
    assert [name for name, _ in model.named_parameters()] == [name for name in NAMES if name != "output.weight"]
    assert list(model.state_dict()) == NAMES
    assert model.num_parameters() == 15 + 5 + 9 + 3 + 1 + 3
    assert [name for name, _ in model.named_modules()] == ["", "embedding", "output", "layers.0", "layers.1", "heads.left.0"]
    assert len(list(model.modules())) == 6
    assert len(model.generators()) == 2
    assert {p.name for p in model.parameters()} == {"weight", "bias", "scale"}


def test_a_state_dict_is_a_copy_and_loading_is_in_place() -> None:
    model = Tied()
    state, array = model.state_dict(), model.scale.data
    state["scale"][:] = 7
    assert model.scale.data[0] == 1
    model.load_state_dict(state)
    assert model.scale.data is array
    assert array.tolist() == [7, 7, 7]


def test_a_state_dict_survives_the_file(tmp_path: Path) -> None:
    model, other = Tied(), Tied()
    for p in other.parameters():
        p.data[...] = 0
    mr.save(model, tmp_path / "model.safetensors")
    other.load_state_dict(mr.load(tmp_path / "model.safetensors"))
    for key, array in model.state_dict().items():
        np.testing.assert_array_equal(other.state_dict()[key], array)


def test_loading_lists_everything_that_is_wrong_and_then_loads_nothing() -> None:
    model = Tied()
    before = model.state_dict()
    state = {key: array + 1 for key, array in before.items()}
    del state["output.bias"]
    state["extra"] = state["scale"]
    state["layers.1.weight"] = np.zeros((3, 4))
    with pytest.raises(ValueError, match="nothing was loaded") as error:
        model.load_state_dict(state)
    words = str(error.value)
    assert words == (
        "load_state_dict of Tied, nothing was loaded: missing: output.bias; unexpected: extra; "
        "layers.1.weight is (3, 4) in the state and (3, 3) in the module"
    )
    with pytest.raises(ValueError, match=r"nothing was loaded: layers\.1\.weight is"):
        model.load_state_dict(state, strict=False)
    for key, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[key])
    del state["layers.1.weight"]
    model.load_state_dict(state, strict=False)
    assert model.scale.data[0] == before["scale"][0] + 1
    np.testing.assert_array_equal(model.output.bias.data, before["output.bias"])


def test_mode_gradients_and_dtype_reach_every_part() -> None:
    model = Tied()
    assert model.layers[0].training
    assert model.eval() is model
    assert not any(m.training for m in model.modules())
    model.train()
    assert all(m.training for m in model.modules())
    parameter = model.scale
    assert model.to("float64") is model
    assert {p.dtype for p in model.parameters()} == {np.dtype("float64")}
    assert model.scale is parameter
    assert model.output.weight is model.embedding.weight
    model(np.array([1, 2])).sum().backward()
    assert parameter.grad is not None
    model.to("float32")
    assert parameter.grad.dtype == np.float32
    model.zero_grad()
    assert all(p.grad is None for p in model.parameters())
    model.requires_grad_(False)
    assert not model(np.array([1])).requires_grad


@pytest.mark.parametrize("bits", [np.random.PCG64, np.random.MT19937, np.random.Philox, np.random.SFC64])
def test_random_state_goes_through_json(bits: Any) -> None:
    model = Tied()
    model.noise = np.random.Generator(bits(0))
    model.noise.random(3, dtype=np.float32)
    state = json.loads(json.dumps(model.rng_state()))
    assert set(state) == {"layers.0.rng", "noise"}
    ids = np.arange(5)
    first, drawn = model(ids).numpy(), model.noise.random(4)
    assert not np.array_equal(model(ids).numpy(), first)
    model.set_rng_state(state)
    np.testing.assert_array_equal(model(ids).numpy(), first)
    np.testing.assert_array_equal(model.noise.random(4), drawn)
    with pytest.raises(KeyError, match=r"generators layers\.0\.rng, noise, the state has none"):
        model.set_rng_state({})


def test_one_seed_makes_one_model() -> None:
    for make in (lambda rng: nn.LSTM(3, 4, 2, rng=rng), lambda rng: nn.Conv2d(1, 2, 3, rng=rng), lambda rng: nn.Embedding(4, 2, rng=rng)):
        a, b, c = make(0).state_dict(), make(0).state_dict(), make(1).state_dict()
        assert all(np.array_equal(a[key], b[key]) for key in a)
        assert not any(np.array_equal(a[key], c[key]) for key in a)
    mr.manual_seed(3)
    first = nn.Linear(2, 2).state_dict()
    mr.manual_seed(3)
    np.testing.assert_array_equal(nn.Linear(2, 2).state_dict()["weight"], first["weight"])


def test_a_deep_copy_is_independent() -> None:
    model = Tied()
    other = copy.deepcopy(model)
    other.scale.data[:] = 0
    assert model.scale.data[0] == 1
    assert other.output.weight is other.embedding.weight
    assert other.scale.requires_grad


def test_sequential_and_lists_are_numbered() -> None:
    model = nn.Sequential(nn.Linear(2, 3, rng=0), nn.Tanh(), nn.Linear(3, 1, rng=0))
    assert list(model.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert len(model) == 3
    assert isinstance(model[1], nn.Tanh)
    layers = nn.ModuleList([nn.Linear(2, 2, rng=0)]).append(nn.Dropout(0.1, rng=0))
    assert [name for name, _ in layers.named_modules()] == ["", "0", "1"]
    assert [type(layer) for layer in layers] == [nn.Linear, nn.Dropout]


def test_repr_shows_the_structure() -> None:
    model = nn.Sequential(nn.Linear(2, 3, rng=0), nn.Sequential(nn.LSTM(3, 4, 2, dropout=0.2, rng=0)), nn.Tanh())
    assert repr(model) == (
        "Sequential(\n"
        "  (0): Linear(2, 3)\n"
        "  (1): Sequential(\n"
        "    (0): LSTM(\n"
        "      3, 4, num_layers=2\n"
        "      (dropout): Dropout(p=0.2)\n"
        "    )\n"
        "  )\n"
        "  (2): Tanh()\n"
        ")"
    )


def test_a_parameter_of_a_tensor_is_a_leaf_with_its_numbers() -> None:
    p = nn.Parameter(mr.tensor([1.0, 2.0]) * 2)
    assert isinstance(p.data, np.ndarray)
    assert p.creator is None
    assert p.requires_grad
    assert p.data.tolist() == [2, 4]


def test_a_list_of_modules_may_hold_more_than_its_items() -> None:
    class Noisy(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Linear(2, 2, rng=0))
            self.scale = nn.Parameter([1.0])
            self.head = nn.Linear(2, 1, bias=False, rng=1)
            self.noise = np.random.default_rng(2)

    model = Noisy()
    assert [name for name, _ in model.named_parameters()] == ["0.weight", "0.bias", "scale", "head.weight"]
    assert [name for name, _ in model.named_modules()] == ["", "0", "head"]
    assert model.generators() == [model.noise]
