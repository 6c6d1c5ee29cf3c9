"""Every layer computes what PyTorch's computes: outputs and gradients against vectors that make_reference.py stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minirnn import Tensor, nn, ops

FOLDER = Path(__file__).parent / "reference"
CASES = sorted(path.stem for path in FOLDER.glob("*.npz"))


class Case:
    def __init__(self, name: str) -> None:
        with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as arrays:
            self.arrays = dict(arrays)
        about = json.loads(str(self.arrays["about"]))
        self.kind: str = about["layer"]
        self.arguments = {key: tuple(v) if isinstance(v, list) else v for key, v in about["arguments"].items()}
        self.lengths: list[int] | None = about["lengths"]

    def part(self, prefix: str) -> dict[str, np.ndarray[Any, Any]]:
        return {key.removeprefix(prefix + "."): a for key, a in self.arrays.items() if key.startswith(prefix + ".")}

    def layer(self, dtype: str) -> nn.Module:
        layer: nn.Module = getattr(nn, self.kind)(**self.arguments).to(dtype)
        layer.load_state_dict(self.part("state"))
        return layer

    def run(self, layer: nn.Module, inputs: list[Any]) -> list[Tensor]:
        x, *states = inputs
        state = None if not states else tuple(states) if len(states) > 1 else states[0]
        if self.kind.endswith("Cell"):
            after = layer(x, state)
            return list(after) if isinstance(after, tuple) else [after]
        if self.kind in ("LSTM", "GRU", "RNN"):
            output, last = layer(x, state, lengths=self.lengths)
            return [output, *(last if isinstance(last, tuple) else [last])]
        return [layer(x)]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
@pytest.mark.parametrize("name", CASES)
def test_outputs_and_gradients_are_pytorchs(name: str, dtype: str, tolerance: float) -> None:
    case = Case(name)
    layer = case.layer(dtype)
    arrays = list(case.part("input").values())
    inputs: list[Any] = [Tensor(a.astype(dtype), requires_grad=True) if a.dtype.kind == "f" else a for a in arrays]
    outputs = case.run(layer, inputs)
    expected = case.part("output")
    assert len(outputs) == len(expected)
    for y, reference in zip(outputs, expected.values(), strict=True):
        np.testing.assert_allclose(y.numpy(), reference, rtol=tolerance, atol=tolerance)
        assert y.dtype == dtype
    cotangents = [Tensor(a.astype(dtype)) for a in case.part("cotangent").values()]
    terms = [(y * dy).sum() for y, dy in zip(outputs, cotangents, strict=True)]
    sum(terms[1:], terms[0]).backward()
    found = {f"input.{k}": t.grad for k, t in enumerate(inputs) if isinstance(t, Tensor)}
    found |= {f"state.{key}": p.grad for key, p in layer.named_parameters()}
    expected = case.part("grad")
    assert found.keys() == expected.keys()
    for key, reference in expected.items():
        grad = found[key]
        assert grad is not None
        np.testing.assert_allclose(grad.numpy(), reference, rtol=tolerance, atol=10 * tolerance, err_msg=key)


@pytest.mark.parametrize("name", CASES)
def test_the_state_dict_comes_back_as_it_went_in(name: str) -> None:
    case = Case(name)
    state = case.part("state")
    returned = case.layer("float64").state_dict()
    assert returned.keys() == state.keys()
    for key, array in returned.items():
        np.testing.assert_array_equal(array, state[key])


def test_every_layer_has_a_reference() -> None:
    layers = {"LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell"}
    layers |= {"Linear", "Embedding", "Conv2d", "MaxPool2d", "LayerNorm", "GroupNorm"}
    assert {Case(name).kind for name in CASES} == layers


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
def test_kernels_give_what_the_reference_has(kind: str) -> None:
    """The fused kernels and the unrolled graph, each asked for by name."""
    case = Case(f"{kind}_deep")
    inputs = [Tensor(a) for a in case.part("input").values()]
    for kernel in ("numpy", "numba", "unrolled"):
        case.arguments["kernel"] = kernel
        for y, reference in zip(case.run(case.layer("float64"), inputs), case.part("output").values(), strict=True):
            np.testing.assert_allclose(y.numpy(), reference, rtol=1e-12, atol=1e-12, err_msg=kernel)


def test_unrolled_and_fused_have_the_same_second_derivative() -> None:
    from minirnn import grad

    case = Case("lstm_deep")
    found = []
    for kernel in ("numpy", "unrolled"):
        case.arguments["kernel"] = kernel
        layer = case.layer("float64")
        x = Tensor(case.arrays["input.0"], requires_grad=True)
        output, _ = layer(x, lengths=case.lengths)
        (dx,) = grad((output * output).sum(), x, create_graph=True)
        ops.sum(dx * dx).backward()
        found.append({key: p.grad.numpy() for key, p in layer.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for key, reference in found[1].items():
        np.testing.assert_allclose(found[0][key], reference, rtol=1e-9, atol=1e-11, err_msg=key)
