"""The float64 reference, and every library's layer against it: dense, ragged, several layers, both directions, with and without states."""

from __future__ import annotations

import importlib
from dataclasses import replace

import numpy as np
import pytest

from minirnn.bench.cases import CELLS, Case, draw
from minirnn.bench.libraries.layer import PRODUCTS
from minirnn.bench.reference import forward_alone, reference
from minirnn.bench.validation import compare

SHAPES = [
    Case("lstm", 7, 5, 3, 4),
    Case("lstm", 7, 5, 3, 4, ragged=True),
    Case("lstm", 1, 1, 1, 1),
    Case("lstm", 6, 4, 3, 5, ragged=True, layers=2, bidirectional=True),
]
CASES = [replace(shape, cell=cell) for cell in CELLS for shape in SHAPES]


@pytest.mark.parametrize("cell", CELLS)
def test_its_gradients_are_derivatives_of_its_outputs(cell: str) -> None:
    case = replace(SHAPES[3], cell=cell, dtype="float64")
    arrays = draw(case)
    found = reference(case, arrays, states=True)

    def loss() -> float:
        now = reference(case, arrays, states=True)
        lasts = [name for name in now if name.endswith("_n")]
        return float((now["output"] * arrays["output_gradient"]).sum() + sum((now[n] * arrays[f"{n}_gradient"]).sum() for n in lasts))

    rng = np.random.default_rng(2)
    for name in [name.removeprefix("gradient of ") for name in found if name.startswith("gradient")]:
        direction = rng.standard_normal(arrays[name].shape)
        kept, step = arrays[name], 1e-6
        arrays[name] = kept + step * direction
        above = loss()
        arrays[name] = kept - step * direction
        slope = (above - loss()) / (2 * step)
        arrays[name] = kept
        assert slope == pytest.approx((found[f"gradient of {name}"] * direction).sum(), rel=1e-6), name


# JAX decides about float64 once for a process, so it is compared in float32 alone.
LIBRARIES = [("minirnn_", "float32"), ("minirnn_", "float64"), ("torch_", "float32"), ("torch_", "float64"), ("flax_", "float32")]


@pytest.mark.parametrize(("library", "dtype"), LIBRARIES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_library_agrees_with_it(library: str, case: Case, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    its = importlib.import_module(f"minirnn.bench.libraries.{library}")
    if (reason := its.why_not()) is not None:
        pytest.skip(reason)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    case = replace(case, dtype=dtype)
    arrays = draw(case)
    for name in its.names(case):
        layer = its.make(name, case, arrays)
        for states in (False, True):
            expected = reference(case, arrays, states)
            assert [d.fault() for d in compare(case, layer.results(states), expected) if not d.right] == []
        np.testing.assert_allclose(layer.output_alone(), expected_output(case), rtol=0, atol=1e-5)
    products = its.make(PRODUCTS, case, arrays)
    products.forward()
    products.both()


def expected_output(case: Case) -> np.ndarray:
    return forward_alone(case, draw(case))["output"]


@pytest.mark.parametrize("library", ["minirnn_", "torch_", "flax_"])
@pytest.mark.parametrize("cell", CELLS)
def test_step_by_step_as_well(library: str, cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    its = importlib.import_module(f"minirnn.bench.libraries.{library}")
    if (reason := its.why_not()) is not None:
        pytest.skip(reason)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    case = Case(cell, 6, 2, 3, 4, stepwise=True)
    for name in its.names(case):
        layer = its.make(name, case, draw(case))
        assert [d.fault() for d in compare(case, layer.results(False), forward_alone(case, draw(case))) if not d.right] == []
