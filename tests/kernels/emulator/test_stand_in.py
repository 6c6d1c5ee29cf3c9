"""The arrays of the stand-in: NumPy's numbers, CuPy's rules."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minirnn.kernels.emulator import names
from minirnn.kernels.emulator import stand_in as xp


@pytest.fixture
def n() -> Any:
    return np.arange(1.0, 7).reshape(2, 3)


@pytest.mark.parametrize(
    "compute",
    [
        lambda m, x: x + 2 * x - x / 3,
        lambda m, x: x @ x.T,
        lambda m, x: m.einsum("ij,kj->ik", x, x),
        lambda m, x: m.exp(x).sum(axis=1, keepdims=True),
        lambda m, x: x[m.asarray([1, 0, 1])],
        lambda m, x: x[:, ::-1].T.reshape(-1),
        lambda m, x: m.where(x > 2, x, 0.0),
        lambda m, x: m.concatenate([x, x[:1]]),
        lambda m, x: m.linalg.slogdet(x @ x.T)[1],
        lambda m, x: m.linalg.solve(m.eye(2) * 3, x),
        lambda m, x: m.linalg.cholesky(m.eye(2) * 4),
        lambda m, x: m.cumsum(x, axis=1),
        lambda m, x: m.argmax(x, axis=1),
        lambda m, x: m.sort(-x, axis=0),
        lambda m, x: m.tensordot(x, x, 2),
        lambda m, x: m.maximum(x, 2.5) ** 2 // 1,
        lambda m, x: m.add.reduce(x, axis=1),
        lambda m, x: m.add.outer(x[0], x[1]),
        lambda m, x: m.asarray([x, x]).transpose(1, 2, 0),
        lambda m, x: m.take_along_axis(x, m.argsort(x, axis=1), axis=1),
        lambda m, x: x.astype(m.float32).var(axis=0),
    ],
)
def test_numbers_are_numpy_s(n: Any, compute: Callable[[Any, Any], Any]) -> None:
    expected, got = compute(np, n), compute(xp, xp.asarray(n))
    assert type(got) is xp.ndarray
    assert got.dtype == np.asarray(expected).dtype
    np.testing.assert_array_equal(got.get(), expected)


def test_what_has_no_dimensions_stays_an_array_of_the_device(n: Any) -> None:
    x = xp.asarray(n)
    for scalar in (x.sum(), x[0, 0], x.max() + 1, xp.linalg.norm(x), xp.asarray(3.0), np.float32(2) * x.sum(), abs(x.min()), x.mean() > 0):
        assert type(scalar) is xp.ndarray
        assert scalar.shape == ()
    x[0, 0][...] = 42  # a view, where NumPy would give a copy
    assert float(x[0, 0]) == 42


def test_arithmetic_in_place_keeps_the_array(n: Any) -> None:
    x = xp.asarray(n)
    before, view = x, x[0]
    x += 1
    x *= xp.asarray([[2.0], [1.0]])
    assert x is before
    np.testing.assert_array_equal(view.get(), 2 * (n[0] + 1))
    out = xp.empty((2, 3))
    assert xp.exp(x, out=out) is out
    assert xp.sum(x, axis=0, out=out[0]) is not None
    np.testing.assert_array_equal(out[0].get(), x.get().sum(0))


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda x, n: np.asarray(x), r"becomes NumPy's only where it is told to: `.get\(\)` copies it"),
        (lambda x, n: x + n, "Unsupported type <class 'numpy.ndarray'>"),
        (lambda x, n: n + x, "Unsupported type <class 'numpy.ndarray'>"),
        (lambda x, n: x == n, "Unsupported type <class 'numpy.ndarray'>"),
        (lambda x, n: x * [1, 2, 3], "Unsupported type <class 'list'>"),
        (lambda x, n: xp.tanh(n), "Unsupported type <class 'numpy.ndarray'>"),
        (lambda x, n: xp.tanh([1.0]), "Unsupported type <class 'list'>"),
        (lambda x, n: xp.where(x > 0, x, n), "Unsupported type <class 'numpy.ndarray'>"),
        (lambda x, n: xp.concatenate([x, n]), "every part must be a cupy.ndarray"),
        (lambda x, n: xp.concatenate([[1.0], [2.0]]), "every part must be a cupy.ndarray"),
        (lambda x, n: xp.einsum("ij,ij", x, n), "Unsupported type <class 'numpy.ndarray'>"),
        (lambda x, n: xp.add(x, x, out=n), "out must be a cupy.ndarray, got <class 'numpy.ndarray'>"),
        (lambda x, n: xp.mean([1.0, 2.0]), "mean\\(\\) takes a cupy.ndarray, got <class 'list'>"),
        (lambda x, n: xp.add.at(x, 0, n[0]), "Unsupported type <class 'numpy.ndarray'>"),
        (
            lambda x, n: xp.sum(x, where=x > 0),
            r"sum\(\) got an unexpected keyword argument 'where'; CuPy has sum\(a, axis, dtype, out, keepdims\)",
        ),
        (lambda x, n: x.sum(0, None, None, False, 1), "too many positional arguments; CuPy has sum"),
        (lambda x, n: range(xp.asarray(3)), "cannot be interpreted as an integer"),
    ],
)
def test_host_and_device_do_not_mix(n: Any, use: Callable[[Any, Any], Any], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        use(xp.asarray(n), n)


def test_unknown_names_and_those_left_out() -> None:
    with pytest.raises(AttributeError, match=r"module 'cupy' has no attribute 'longdouble'"):
        xp.longdouble  # noqa: B018
    with pytest.raises(AttributeError, match=r"module 'cupy.linalg' has no attribute 'nothing'"):
        xp.linalg.nothing  # noqa: B018
    with pytest.raises(AttributeError, match=r"'cupy.ndarray' object has no attribute 'ctypes'"):
        xp.zeros(1).ctypes  # noqa: B018
    with pytest.raises(NotImplementedError, match=r"cupy.ElementwiseKernel exists in CuPy, but not in the stand-in"):
        xp.ElementwiseKernel  # noqa: B018
    assert not hasattr(xp, "no_such_name")


def test_every_ufunc_of_cupy_that_numpy_has_is_there() -> None:
    x = xp.asarray([0.25, 0.5])
    for name in names.frozen()["ufuncs"]:
        if isinstance(getattr(np, name, None), np.ufunc):
            assert getattr(xp, name).nin == getattr(np, name).nin
    np.testing.assert_array_equal(xp.hypot(x, 1).get(), np.hypot(x.get(), 1))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sums_of_16_bits_are_taken_in_float32(dtype: str) -> None:
    """2^12 ones and more in sequence: a sum in 11 bits, or in 8, would stop at 2048, or at 256."""
    kind = np.dtype(np.float16)
    if dtype == "bfloat16":
        kind = np.dtype(pytest.importorskip("ml_dtypes", reason="bfloat16 needs ml_dtypes").bfloat16)
    x = xp.ones((1, 4096), kind)
    for total in (x.sum(), x @ x.T, xp.einsum("ij,kj->ik", x, x), x.mean() * 4096, xp.cumsum(x)[-1], np.add(x, 0).sum()):
        assert total.dtype == kind
        assert float(total.reshape(())) == 4096
    assert x.sum(0, np.float32).dtype == x.astype(np.float32).dtype == (x * np.float32(2)).dtype == np.float32
    assert (xp.tanh(x) * 2 + x.T).dtype == kind
    assert xp.clip(x, 0, 0.5).dtype == kind
    assert float(xp.maximum(x, 3)[0, 0]) == 3


def test_a_matrix_that_cannot_be_factorised_gives_nan_and_no_error() -> None:
    stack = xp.asarray(np.stack([np.eye(2), np.zeros((2, 2)), np.eye(2)]))
    for result in (
        xp.linalg.solve(stack, stack),
        xp.linalg.inv(stack),
        xp.linalg.cholesky(stack - 0.5 * (stack == 0) * (stack.sum((1, 2), keepdims=True) == 0)),
    ):
        broken = np.isnan(result.get()).reshape(3, 4).any(1)
        assert broken.tolist() == [False, True, False]
    for wrong in (lambda: xp.linalg.solve(xp.eye(2), xp.ones(3)), lambda: xp.linalg.solve(stack, xp.ones((2, 2)))):
        with pytest.raises(ValueError, match="a must be"):
            wrong()
    with pytest.raises(TypeError, match="linear algebra takes no float16"):
        xp.linalg.inv(xp.eye(2, dtype=np.float16))


def test_nothing_is_said_of_overflow_and_division_by_zero() -> None:
    with np.errstate(all="raise"):
        x = xp.asarray([0.0, 1e308]) * 10
        assert np.isinf((1 / x).get()[0])


def test_arrays_belong_to_a_device() -> None:
    with xp.device_properties(count=2):
        first = xp.ones(3, np.float32)
        with xp.cuda.Device(1):
            second = xp.ones(3, np.float32)
            assert (second + second).device == xp.cuda.Device(1)
        for mixed in (lambda: first + second, lambda: xp.concatenate([first, second]), lambda: xp.exp(second), lambda: second.sum()):
            with pytest.raises(ValueError, match="array device = 1 while current = 0"):
                mixed()
        moved = xp.asarray(second)
        assert moved is not second
        assert moved.device.id == 0
        kernel = xp.RawKernel('extern "C" __global__ void one(float* x) { x[0] = 1; }', "one")
        with pytest.raises(xp.EmulatorError, match="argument 0 is on device 1, the kernel runs on device 0"):
            kernel((1,), (1,), (second,))
        assert xp.cuda.runtime.getDeviceCount() == 2
    with pytest.raises(RuntimeError, match="cudaErrorInvalidDevice"):
        xp.cuda.Device(1)


def test_the_device_describes_itself() -> None:
    device = xp.cuda.Device(0)
    assert device.compute_capability == "86"
    assert device.attributes["MaxSharedMemoryPerBlockOptin"] == 99 * 1024
    assert device.mem_info[1] == xp.cuda.runtime.getDeviceProperties(0)["totalGlobalMem"]
    with xp.device_properties(compute_capability="90", multiprocessors=132, shared_memory=227 * 1024):
        assert device.attributes["MaxSharedMemoryPerMultiprocessor"] == 228 * 1024
        assert device.attributes["ComputeCapabilityMajor"] == 9


def test_random_numbers_repeat_and_have_cupy_s_parameters() -> None:
    first, second = xp.random.default_rng(3), xp.random.default_rng(3)
    drawn = first.standard_normal((2, 3), dtype=np.float32)
    assert drawn.dtype == np.float32
    np.testing.assert_array_equal(drawn.get(), second.standard_normal((2, 3), dtype=np.float32).get())
    assert first.integers(0, 10, size=4).shape == (4,)
    with pytest.raises(AttributeError, match="'Generator' object has no attribute 'normal'"):
        first.normal()


def test_copies_are_copies(n: Any) -> None:
    x = xp.asarray(n)
    for other in (x.copy(), copy.copy(x), copy.deepcopy(x), pickle.loads(pickle.dumps(x)), xp.array(x), x.astype(x.dtype)):
        assert type(other) is xp.ndarray
        other += 1
    np.testing.assert_array_equal(x.get(), n)
    n[0, 0] = 99  # nor does the host see into the device
    assert float(x[0, 0]) == 1
    assert xp.asarray(x) is x
    assert x.astype(x.dtype, copy=False) is x


def test_indices_beyond_the_end_are_errors(n: Any) -> None:
    """CuPy lets an array of indices wrap around; a program that counts on it is a mistake here."""
    with pytest.raises(IndexError, match="out of bounds"):
        xp.asarray(n)[xp.asarray([2])]


def test_what_cupy_does_otherwise_with_16_bits() -> None:
    """`where` promotes bfloat16, stacks of it are not multiplied, and a sum of products that is one number adds up rounded ones."""
    bfloat16 = pytest.importorskip("ml_dtypes", reason="bfloat16 needs ml_dtypes").bfloat16
    x = xp.ones((2, 3, 3), bfloat16)
    assert xp.where(x > 0, x, 0).dtype == np.float32
    with pytest.raises(TypeError, match="no batched product of bfloat16"):
        x @ x
    assert (x[0] @ x[0]).dtype == bfloat16
    tiny = xp.full((1, 64), 2.0**-13, np.float16)  # its square is no number of float16
    assert float(xp.vdot(tiny, tiny)) == float((tiny @ tiny.T)[0, 0]) == 0
    assert float((xp.concatenate([tiny, tiny]) @ tiny.T)[0, 0]) == 2.0**-20
