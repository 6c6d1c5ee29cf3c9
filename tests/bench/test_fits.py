from __future__ import annotations

import numpy as np
import pytest

from minirnn.bench.curves import spread_out
from minirnn.bench.fits import larger_half, line, power


@pytest.mark.parametrize("exponent", [-1.0, 0.0, 1.0, 1.5, 2.0])
def test_a_power_law_is_found_exactly(exponent: float) -> None:
    x = [16.0, 32.0, 100.0, 4096.0]
    found = power(x, [3 * value**exponent for value in x])
    assert found is not None
    assert found.exponent == pytest.approx(exponent, abs=1e-12)
    assert found.factor == pytest.approx(3)
    assert found.error == pytest.approx(0, abs=1e-7)


def test_the_standard_error_is_that_of_repeated_measurements(rng: np.random.Generator) -> None:
    """The exponents of many noisy measurements scatter by as much as each one says, on average of the squares."""
    x = 2.0 ** np.arange(4, 15)
    found = [power(list(x), list(x * np.exp(0.1 * rng.standard_normal(len(x))))) for _ in range(500)]
    exponents = np.array([p.exponent for p in found if p is not None])
    said = np.sqrt(np.mean([p.error**2 for p in found if p is not None and p.error is not None]))
    assert len(exponents) == 500
    assert exponents.mean() == pytest.approx(1, abs=4 * said / np.sqrt(500))
    assert exponents.std() == pytest.approx(said, rel=0.2)  # six standard deviations of the estimate from 500


def test_constant_costs_lie_in_the_smaller_half() -> None:
    x = [2.0**k for k in range(4, 15)]
    y = [1000 + value for value in x]
    half = larger_half(x)
    assert half == [5, 6, 7, 8, 9, 10]
    asymptotic, whole = power([x[k] for k in half], [y[k] for k in half]), power(x, y)
    assert asymptotic is not None
    assert whole is not None
    assert whole.exponent < asymptotic.exponent < 1


def test_few_points() -> None:
    assert line([1], [2]) is None
    assert line([1, 1], [2, 3]) is None
    assert line([1, 3], [2, 8]) == (3, -1, None)
    assert larger_half([5, 1]) == [0, 1]
    assert larger_half([4, 1, 2, 8]) == [0, 2, 3]


def test_names_do_not_overlap() -> None:
    places = [0.1, 0.5, 0.51, 0.52, 0.9]
    spread = spread_out(places, 0.1)
    assert np.diff(spread).min() >= 0.1 - 1e-12
    assert spread[0] == 0.1
    assert spread[1:4] == pytest.approx([0.41, 0.51, 0.61])
    assert spread[4] == 0.9
    assert spread_out([], 0.1) == []
