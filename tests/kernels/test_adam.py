"""Adam and AdamW against their published algorithms, against PyTorch, and the fused pass against the reference."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirnn.kernels.adam import numba_cpu, numpy_

KERNELS = pytest.mark.parametrize("kernel", [numpy_, numba_cpu], ids=["numpy", "numba"])
PLAIN = {"lr": 1e-2, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0, "decoupled": False}


def draw(rng: np.random.Generator, shape: Any, dtype: Any) -> list[np.ndarray]:
    param, grad, m, v = (np.array(rng.standard_normal(shape), dtype) for _ in range(4))
    return [param, grad, m, np.array(v**2)]


@KERNELS
def test_the_first_step_moves_every_weight_by_the_learning_rate_against_the_sign_of_its_gradient(kernel: ModuleType) -> None:
    grad = np.array([3.0, -1e-3, 400.0, -7.0])
    param, m, v = np.zeros(4), np.zeros(4), np.zeros(4)
    kernel.step(param, grad, m, v, **{**PLAIN, "eps": 0.0}, t=1)
    np.testing.assert_allclose(param, -1e-2 * np.sign(grad), rtol=1e-14)
    np.testing.assert_allclose(m, 0.1 * grad, rtol=1e-14)
    np.testing.assert_allclose(v, 1e-3 * grad**2, rtol=1e-12)


@KERNELS
def test_ten_steps_are_those_of_the_published_algorithm(kernel: ModuleType, rng: np.random.Generator) -> None:
    """One weight in plain Python numbers, in the form in which the papers print the algorithm: with the corrected means written out."""
    w, m, v = 0.7, 0.0, 0.0
    param, means, squares = np.array([w]), np.zeros(1), np.zeros(1)
    for t, g in enumerate(rng.standard_normal(10).tolist(), start=1):
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g * g
        m_hat, v_hat = m / (1 - 0.9**t), v / (1 - 0.999**t)
        w = w - 1e-2 * (m_hat / (math.sqrt(v_hat) + 1e-8) + 0.05 * w)
        kernel.step(param, np.array([g]), means, squares, **{**PLAIN, "weight_decay": 0.05, "decoupled": True}, t=t)
    assert param[0] == pytest.approx(w, rel=1e-12)


@KERNELS
@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_twenty_steps_are_those_of_pytorch(kernel: ModuleType, decoupled: bool, weight_decay: float, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    optimiser = torch.optim.AdamW if decoupled else torch.optim.Adam
    param = rng.standard_normal((5, 3))
    theirs = torch.nn.Parameter(torch.tensor(param))
    opt = optimiser([theirs], lr=3e-3, betas=(0.8, 0.95), eps=1e-6, weight_decay=weight_decay)
    m, v = np.zeros_like(param), np.zeros_like(param)
    for t in range(1, 21):
        grad = rng.standard_normal(param.shape)
        theirs.grad = torch.tensor(0.25 * grad)
        opt.step()
        kernel.step(
            param, grad, m, v, lr=3e-3, beta1=0.8, beta2=0.95, eps=1e-6, weight_decay=weight_decay, decoupled=decoupled, t=t, scale=0.25
        )
    np.testing.assert_allclose(param, theirs.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(m, opt.state[theirs]["exp_avg"].numpy(), rtol=1e-12)
    np.testing.assert_allclose(v, opt.state[theirs]["exp_avg_sq"].numpy(), rtol=1e-12)


@given(
    shape=st.lists(st.integers(0, 13), max_size=3).map(tuple),
    dtype=st.sampled_from([np.float32, np.float64]),
    decoupled=st.booleans(),
    weight_decay=st.sampled_from([0.0, 0.3]),
    t=st.integers(1, 1000),
    scale=st.floats(1e-3, 10),
)
def test_the_fused_pass_is_the_reference(
    shape: tuple[int, ...], dtype: Any, decoupled: bool, weight_decay: float, t: int, scale: float
) -> None:
    arrays = draw(np.random.default_rng(t), shape, dtype)
    options = {**PLAIN, "weight_decay": weight_decay, "decoupled": decoupled, "t": t, "scale": scale}
    expected = [a.copy() for a in arrays]
    numpy_.step(*expected, **options)
    grad = arrays[1].copy()
    numba_cpu.step(*arrays, **options)
    np.testing.assert_array_equal(arrays[1], grad)
    for got, want in zip(arrays, expected, strict=True):
        # each entry is a handful of roundings of numbers no larger than those that enter
        np.testing.assert_allclose(got, want, rtol=16 * np.finfo(dtype).eps, atol=16 * np.finfo(dtype).eps * max(1, scale**2))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.usefixtures("groups")
def test_a_parameter_that_threads_share_gets_the_same_bits_as_its_pieces(dtype: Any, rng: np.random.Generator) -> None:
    whole = draw(rng, 200_003, dtype)
    pieces = [a.copy() for a in whole]
    numba_cpu.step(*whole, **PLAIN, t=3)
    for piece in range(0, 200_003, 1009):
        numba_cpu.step(*(a[piece : piece + 1009] for a in pieces), **PLAIN, t=3)
    for a, b in zip(whole, pieces, strict=True):
        np.testing.assert_array_equal(a, b)


@KERNELS
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.usefixtures("groups")
def test_many_parameters_at_once_get_the_same_bits_as_one_by_one(kernel: ModuleType, dtype: Any, rng: np.random.Generator) -> None:
    many = [(draw(rng, shape, dtype), t) for shape, t in [((3, 5), 1), ((), 7), (0, 2), (1000, 7), ((1, 2, 3), 1)]]
    alone = [[a.copy() for a in arrays] for arrays, _ in many]
    kernel.steps([(*arrays, t) for arrays, t in many], scale=0.5, **PLAIN)
    for (arrays, t), single in zip(many, alone, strict=True):
        kernel.step(*single, **PLAIN, t=t, scale=0.5)
        for a, b in zip(arrays, single, strict=True):
            np.testing.assert_array_equal(a, b)


@KERNELS
def test_a_nan_stays_in_its_element(kernel: ModuleType, rng: np.random.Generator) -> None:
    arrays = draw(rng, 100, np.float32)
    arrays[1][41] = np.nan
    kernel.step(*arrays, **PLAIN, t=1)
    for a in arrays:
        assert np.flatnonzero(np.isnan(a)).tolist() == [41]


def test_arrays_that_cannot_be_updated_in_place_are_refused(rng: np.random.Generator) -> None:
    arrays = draw(rng, (4, 6), np.float32)
    with pytest.raises(ValueError, match="adam: grad must be C-contiguous"):
        numba_cpu.step(arrays[0], np.asfortranarray(arrays[1]), *arrays[2:], **PLAIN, t=1)
    with pytest.raises(ValueError, match=r"adam: m is float64 \(4, 6\) and param is float32 \(4, 6\)"):
        numba_cpu.step(*arrays[:2], arrays[2].astype(np.float64), arrays[3], **PLAIN, t=1)
