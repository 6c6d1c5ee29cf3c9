"""The Kalman filter, smoother and score on the emulated device: the CPU's numbers, and nothing waits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minirnn import Tensor, ops
from minirnn.kernels import load
from minirnn.kernels.availability import missing
from minirnn.kernels.kalman.contract import Parameters

from .gaussian import definite, drawn

_reason = missing("emulated")
pytestmark = pytest.mark.skipif(_reason is not None, reason=f"needs the emulator: {_reason}")


def put(array: Any) -> Any:
    return Tensor(array).to("emulated").data


def on_device(parameters: Parameters) -> Parameters:
    return Parameters(*(None if array is None else put(array) for array in parameters))


@pytest.mark.parametrize(("N", "T", "n", "p"), [(1, 1, 1, 1), (4, 6, 3, 2), (5, 4, 2, 3)])
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 2e-4)])
def test_the_cpus_numbers(N: int, T: int, n: int, p: int, ragged: bool, dtype: type, tolerance: float) -> None:
    """The steps are the same; sums over sequences have another order in a ragged batch. float32 goes through T conditioned updates."""
    from minirnn.kernels.emulator import stand_in

    rng = np.random.default_rng(N)
    parameters, y = drawn(rng, N, T, n, p, missing=0.2)
    parameters = Parameters(*(None if x is None else x.astype(dtype) for x in parameters))
    y, weights = y.astype(dtype), rng.standard_normal(N).astype(dtype)
    lengths = rng.integers(1, T + 1, N) if ragged else None
    host, device = load("kalman", "numpy"), load("kalman", "cupy", "emulated")
    there, y_there, weights_there = on_device(parameters), put(y), put(weights)
    filtered = host.filter(parameters, y, lengths)
    with stand_in.counting() as counts:
        found = device.filter(there, y_there, lengths)
        smoothed, score = device.smooth(there, found), device.score(there, y_there, found, weights_there)
    assert not counts.synchronisations, counts.places
    assert not counts.atomics
    for a, b in (
        (found, filtered),
        (smoothed, host.smooth(parameters, filtered)),
        (score, host.score(parameters, y, filtered, weights)),
    ):
        for name, x, expected in zip(b._fields, a, b, strict=True):
            if name == "lengths" or expected is None:
                continue
            assert x.dtype == dtype
            np.testing.assert_allclose(x.get(), expected, rtol=0, atol=tolerance * max(1.0, np.abs(expected).max()), err_msg=name)


def test_what_is_not_definite_is_nan_in_its_own_sequence_alone() -> None:
    rng = np.random.default_rng(0)
    parameters, y = drawn(rng, 3, 4, 2, 2, missing=0.0)
    P0 = np.stack([definite(rng, 2) for _ in range(3)])
    P0[1] -= 50 * np.eye(2)  # no covariance
    parameters = parameters._replace(P0=P0)
    with pytest.raises(np.linalg.LinAlgError, match="not positive definite at step 0 of sequence 1"):
        load("kalman", "numpy").filter(parameters, y)
    found = load("kalman", "cupy", "emulated").filter(on_device(parameters), put(y)).log_likelihood.get()
    assert np.isnan(found[1])
    keep = np.array([0, 2])
    others = parameters._replace(b=parameters.b[keep], d=parameters.d[keep], P0=P0[keep])
    np.testing.assert_allclose(found[keep], load("kalman", "numpy").filter(others, y[keep]).log_likelihood, rtol=1e-12)


def test_the_operation_moves_the_observations() -> None:
    rng = np.random.default_rng(1)
    parameters, y = drawn(rng, 2, 3, 2, 2, missing=0.3)
    inputs = [Tensor(put(array)) for array in parameters[:8]]
    likelihood = ops.kalman_log_likelihood(*inputs, y=y, lengths=np.array([3, 2]))
    expected = load("kalman", "numpy").filter(parameters, y, np.array([3, 2])).log_likelihood
    assert likelihood.device == "emulated"
    np.testing.assert_allclose(likelihood.numpy(), expected, rtol=1e-12)
