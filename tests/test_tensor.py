"""Tensor: what it says about itself, and operators that give what NumPy gives."""

from __future__ import annotations

import copy
import operator
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays, mutually_broadcastable_shapes

import minirnn as mr
from minirnn import Tensor, tensor

NUMBERS = st.floats(0.5, 4)


@given(mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=4), st.data())
def test_operators_are_numpys(shapes, data):
    a, b = (data.draw(arrays(np.float64, shape, elements=NUMBERS)) for shape in shapes.input_shapes)
    for op in (operator.add, operator.sub, operator.mul, operator.truediv):
        for x, y in ((Tensor(a), Tensor(b)), (Tensor(a), b), (a, Tensor(b))):
            result = op(x, y)
            assert isinstance(result, Tensor)
            np.testing.assert_array_equal(result.numpy(), op(a, b))
    for op in (operator.lt, operator.le, operator.gt, operator.ge):
        np.testing.assert_array_equal(op(Tensor(a), Tensor(b)).numpy(), op(a, b))
        np.testing.assert_array_equal(op(Tensor(a), b).numpy(), op(a, b))
        assert not op(Tensor(a, requires_grad=True), b).requires_grad


@pytest.mark.parametrize("number", [2, 0.5, True, np.int64(3), np.float64(3)])
@pytest.mark.parametrize("op", [operator.add, operator.sub, operator.mul, operator.truediv])
def test_a_number_takes_the_dtype_of_its_tensor(op, number):
    a = np.array([1.0, 2.0])
    for dtype in (np.float32, np.float64):
        left, right = op(tensor(a, dtype), number), op(number, tensor(a, dtype))
        assert left.dtype == right.dtype == dtype
        np.testing.assert_allclose(left.numpy(), op(a, float(number)), rtol=1e-6)
        np.testing.assert_allclose(right.numpy(), op(float(number), a), rtol=1e-6)
    with pytest.raises(TypeError, match=r"operand 0 \(2,\) is float32 on cpu, operand 1 \(\) is float64 on cpu"):
        op(tensor(a, np.float32), np.array(3.0))


def test_methods_and_unary_operators():
    a = np.array([[0.25, 1.0, 4.0], [0.5, 2.0, 3.0]])
    t = Tensor(a)
    for name in ("exp", "log", "sqrt", "tanh"):
        np.testing.assert_allclose(getattr(t, name)().numpy(), getattr(np, name)(a), rtol=1e-15)
    np.testing.assert_allclose(t.sigmoid().numpy(), 1 / (1 + np.exp(-a)), rtol=1e-15)
    np.testing.assert_array_equal((t - 1).relu().numpy(), np.maximum(a - 1, 0))
    np.testing.assert_array_equal((-t).numpy(), -a)
    np.testing.assert_allclose((t**3).numpy(), a**3, rtol=1e-15)
    np.testing.assert_array_equal((t @ a.T).numpy(), a @ a.T)
    np.testing.assert_array_equal((a @ t.T).numpy(), a @ a.T)
    for name in ("sum", "mean", "max"):
        for axis in (None, 0, (0, 1), -1):
            np.testing.assert_allclose(getattr(t, name)(axis, keepdims=True).numpy(), getattr(a, name)(axis, keepdims=True), rtol=1e-15)
    np.testing.assert_array_equal(t.reshape(3, 2).numpy(), a.reshape(3, 2))
    np.testing.assert_array_equal(t.reshape((3, -1)).numpy(), a.reshape(3, 2))
    np.testing.assert_array_equal(t.transpose().numpy(), a.T)
    np.testing.assert_array_equal(t.swapaxes(0, -1).numpy(), a.T)


def test_indexing_takes_what_numpy_takes_and_tensors_too():
    a = np.arange(24.0).reshape(2, 3, 4)
    t = Tensor(a)
    for index in (0, -1, (1, 2), slice(1, None), (..., 0), (None, 1), (slice(None, None, -1), [0, 2, 0]), a > 5, np.array([1, 0])):
        np.testing.assert_array_equal(t[index].numpy(), a[index])
    np.testing.assert_array_equal(t[Tensor(np.array([1, 0]))].numpy(), a[[1, 0]])
    np.testing.assert_array_equal(t[t > 5].numpy(), a[a > 5])
    np.testing.assert_array_equal(np.stack([row.numpy() for row in t]), a)


def test_what_it_says_about_itself():
    t = tensor([[1, 2, 3], [4, 5, 6]], dtype=np.float32)
    assert (t.shape, t.ndim, t.size, len(t), t.dtype, t.device) == ((2, 3), 2, 6, 2, np.dtype(np.float32), "cpu")
    assert tensor(2.5).item() == 2.5
    assert float(tensor(2.5)) == 2.5
    assert bool(tensor(1) > 0)
    assert np.asarray(t) is not None
    assert np.asarray(t).dtype == np.float32
    np.testing.assert_array_equal(np.array(t, dtype=np.float64), t.data)
    assert repr(tensor([1.0, 2.0], requires_grad=True)) == "Tensor([1., 2.], dtype=float32, requires_grad=True)"
    assert repr(tensor([1.0], requires_grad=True) * 2) == "Tensor([2.], dtype=float32, creator=Mul)"
    assert t == t
    assert len({t, t, tensor([1.0])}) == 2
    with pytest.raises(TypeError):
        len(tensor(1.0))
    with pytest.raises(ValueError, match="ambiguous"):
        bool(t)


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (1.5, "float32"),
        ([1.5, 2], "float32"),
        ([[1, 2]], "int64"),
        (True, "bool"),
        (np.float64(2), "float64"),
        (np.ones(2), "float64"),
        (np.ones(2, np.float16), "float16"),
        (1j, "complex128"),
        (Tensor(np.ones(2)), "float64"),
    ],
)
def test_tensor_keeps_the_dtype_of_arrays_and_makes_floats_float32(data, dtype):
    assert tensor(data).dtype == dtype
    assert tensor(data, dtype=np.complex128).dtype == np.complex128


def test_tensor_copies_and_Tensor_shares():
    a = np.zeros(3)
    copied, shared = tensor(a), Tensor(a)
    a += 1
    assert copied.numpy().tolist() == [0, 0, 0]
    assert shared.numpy().tolist() == [1, 1, 1]
    assert shared.detach().data is a
    assert shared.clone().data is not a


def test_scalars_and_memory_maps_become_plain_arrays(tmp_path):
    np.save(tmp_path / "x.npy", np.ones(3))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert type(Tensor(mapped).data) is np.ndarray
    assert type(Tensor(np.float64(1)).data) is np.ndarray
    assert (Tensor(mapped) * Tensor(np.float64(2))).numpy().tolist() == [2, 2, 2]
    assert type(Tensor(np.ones(2)).sum().data) is np.ndarray


def test_gradients_need_floating_point():
    for data in (np.array([1, 2]), np.array([True])):
        with pytest.raises(TypeError, match=f"requires_grad needs a floating-point tensor, got {data.dtype}"):
            Tensor(data, requires_grad=True)
        with pytest.raises(TypeError, match="requires_grad needs a floating-point tensor"):
            Tensor(data).requires_grad_()
    with pytest.raises(RuntimeError, match=r"was computed, use .detach\(\) first"):
        (tensor(1.0, requires_grad=True) * 2).requires_grad_(False)
    frozen = tensor(1.0, requires_grad=True).requires_grad_(False)
    assert not (frozen * 2).requires_grad


def test_a_tensor_of_a_tensor_is_refused():
    with pytest.raises(TypeError, match="it is one already"):
        Tensor(tensor(1.0))


def test_integer_results_of_differentiable_tensors_have_no_gradient():
    x = tensor([1.5, 2.5], requires_grad=True)
    assert not x.to(np.int64).requires_grad
    assert x.to(np.int64).to(np.float32).requires_grad is False


@pytest.mark.parametrize("op", [operator.add, operator.matmul])
def test_mixed_dtypes_are_refused_by_naming_both_operands(op):
    a, b = tensor(np.ones((2, 2)), np.float32), tensor(np.ones((2, 2)), np.float64)
    with pytest.raises(TypeError) as caught:
        op(a, b)
    message = str(caught.value)
    assert "operand 0 (2, 2) is float32 on cpu, operand 1 (2, 2) is float64 on cpu" in message
    assert "must share dtype and device, convert with .to(dtype) or .to(device)" in message
    np.testing.assert_array_equal(op(a.to(np.float64), b).numpy(), op(a.data, b.data))


def test_to_another_dtype_lets_gradients_back():
    x = tensor([1.0, 2.0], requires_grad=True)
    (x.to("float64") * 3).sum().backward()
    assert x.grad.dtype == np.float32
    assert x.grad.numpy().tolist() == [3, 3]
    assert x.to("cpu") is x
    assert x.to(np.float32) is x


@pytest.mark.parametrize("target", ["gpu", "floaty", "U3", object])
def test_to_something_that_is_neither_device_nor_dtype(target):
    words = r"to: .* is neither a device \(\"cpu\", \"cuda\", \"cuda:<index>\" or \"emulated\"\) nor a dtype of numbers"
    with pytest.raises(TypeError, match=words):
        tensor(1.0).to(target)


def test_bfloat16_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(
        TypeError, match=r"to: 'bfloat16' is neither a device .*; bfloat16 needs the package ml_dtypes, pip install ml_dtypes"
    ):
        tensor(1.0).to("bfloat16")


def test_one_number_formats_as_one():
    assert f"{tensor(2.5):.2f} {tensor([[1.0]]):6.1e}" == "2.50 1.0e+00"
    assert f"{tensor([1.0, 2.0])}" == str(tensor([1.0, 2.0]))
    with pytest.raises(ValueError, match="format"):
        f"{tensor([1.0, 2.0]):.2f}"


def test_public_names_all_exist():
    for name in mr.__all__:
        assert getattr(mr, name) is not None
    assert set(mr.__all__) <= set(dir(mr))
    with pytest.raises(AttributeError, match="module 'minirnn' has no attribute 'nothing'"):
        _ = mr.nothing


def test_a_deep_copy_of_a_leaf_is_a_leaf_of_its_own():
    x = tensor([1.0, 2.0], requires_grad=True)
    (x * x).sum().backward()
    twin = copy.deepcopy(x)
    twin.data *= 10
    assert x.numpy().tolist() == [1, 2]
    assert twin.requires_grad
    assert twin.creator is None
    assert twin.grad.numpy().tolist() == [2, 4]
    (twin * 3).sum().backward()
    assert x.grad.numpy().tolist() == [2, 4]


def test_importing_minirnn_loads_and_prints_nothing_that_is_not_needed():
    heavy = ("numba", "cupy", "matplotlib", "rich", "safetensors", "hypothesis", "scipy", "sacrebleu")
    program = f"import sys, minirnn; print([name for name in {heavy} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
    assert run.stderr == ""
