"""Every Function of the package: its gradient and the gradient of its gradient are its derivatives, in every dtype it is asked in."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import numpy as np
import pytest

import minirnn
from minirnn.autograd import Function, grad
from minirnn.diagnostics import monitored
from minirnn.ops.elementwise import Elementwise
from minirnn.study.gradcheck import gradcheck, gradgradcheck
from minirnn.tensor import Tensor

from .arrays import leaves
from .cases import CASES, Case
from .seen import Seen

EVERY = [pytest.param(function, case, id=f"{function.__name__}-{k}") for function, cases in CASES.items() for k, case in enumerate(cases)]


def final_subclasses(base: type) -> set[type]:
    """The classes below `base` that have none below themselves: the others are abstract."""
    below = base.__subclasses__()
    return set().union(*map(final_subclasses, below)) if below else {base}


def test_every_function_has_a_case() -> None:
    for module in pkgutil.walk_packages(minirnn.__path__, "minirnn."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    unchecked = {f for f in final_subclasses(Function) if f.__module__.startswith("minirnn.")} - set(CASES)
    assert not unchecked, f"no gradient check in tests/ops/cases.py for {', '.join(sorted(f.__qualname__ for f in unchecked))}"


@pytest.mark.parametrize(("function", "case"), EVERY)
def test_first_derivative(function: type[Function], case: Case) -> None:
    seen = Seen()
    with monitored(seen):
        assert gradcheck(case.f, leaves(*case.inputs), complex_step=case.analytic)
    assert function in seen.functions


@pytest.mark.parametrize(("function", "case"), EVERY)
def test_second_derivative(function: type[Function], case: Case) -> None:
    assert gradgradcheck(case.f, leaves(*case.inputs), complex_step=case.analytic)


@pytest.mark.parametrize(("function", "case"), [p for p in EVERY if p.values[1].float32])
def test_float32_stays_float32(function: type[Function], case: Case) -> None:
    """... and differs from float64 by rounding: 1e-7 for each of some hundred dependent operations, relative to the largest number."""
    results = []
    for dtype in (np.float32, np.float64):
        inputs = leaves(*(x.astype(dtype) for x in case.inputs))
        outputs = case.f(*inputs)
        outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
        gradients = grad(outputs, inputs, [Tensor(np.ones_like(y.data)) for y in outputs], allow_unused=True)
        results.append([t for t in (*outputs, *gradients) if t is not None])
        assert {t.dtype for t in results[-1]} == {np.dtype(dtype)}
    for single, double in zip(*results, strict=True):
        np.testing.assert_allclose(single.numpy(), double.numpy(), rtol=0, atol=1e-5 * max(1, np.abs(double.numpy()).max(initial=0)))


@pytest.mark.parametrize("operation", sorted(final_subclasses(Elementwise), key=lambda f: f.__name__))
def test_an_elementwise_operation_is_its_equation_and_six_lines(operation: type[Function]) -> None:
    lines = [line for line in inspect.getsource(operation).splitlines() if line.strip()]
    assert len(lines) <= 6
    assert "=" in (operation.__doc__ or "")
    assert lines[1].count('"""') == 2
