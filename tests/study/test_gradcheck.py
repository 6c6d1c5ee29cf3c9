"""The checker is checked: right gradients pass, and every planted error is caught."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from minirnn import no_grad, ops, study
from minirnn.autograd import Function
from minirnn.study.gradcheck import GradientError, gradcheck, gradgradcheck
from minirnn.tensor import Tensor


class Cube(Function):
    """y = x^3, whose derivatives a test can plant: `slope(x)` is taken for 3 x^2, `curvature(x)` for 6 x."""

    slope: Callable[[Tensor], Tensor]
    curvature: Callable[[Tensor], Tensor]

    def forward(self, x: Any) -> Any:
        return x**3

    def backward(self, dy: Tensor) -> Tensor:
        return dy * Slope.apply(self.inputs[0], slope=self.slope, curvature=self.curvature)


class Slope(Function):
    slope: Callable[[Tensor], Tensor]
    curvature: Callable[[Tensor], Tensor]

    def forward(self, x: Any) -> Any:
        return self.slope(Tensor(x)).data

    def backward(self, dy: Tensor) -> Tensor:
        return dy * self.curvature(self.inputs[0])


def true_slope(x: Tensor) -> Tensor:
    return 3 * x * x


def true_curvature(x: Tensor) -> Tensor:
    return 6 * x


def cube(slope: Callable[[Tensor], Tensor] = true_slope, curvature: Callable[[Tensor], Tensor] = true_curvature) -> Any:
    return lambda x: Cube.apply(x, slope=slope, curvature=curvature)


def leaf(*shape: int, seed: int = 0) -> Tensor:
    return Tensor(np.asarray(np.random.default_rng(seed).standard_normal(shape)), requires_grad=True)


def one_element(x: Tensor, factor: float) -> Tensor:
    """A gradient that is right but for its last element."""
    wrong = np.ones(x.shape)
    wrong.flat[-1] = factor
    return true_slope(x) * Tensor(wrong)


@given(shape=array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4), complex_step=st.booleans())
def test_right_derivatives_pass(shape, complex_step):
    x = leaf(*shape)
    assert gradcheck(cube(), x, complex_step=complex_step)
    assert gradgradcheck(cube(), x, complex_step=complex_step)


@pytest.mark.parametrize("complex_step", [False, True])
def test_several_inputs_and_outputs(complex_step):
    def f(x: Tensor, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        y = ops.tanh(x @ w + b)
        return y, (y * y).sum()

    inputs = leaf(3, 4), leaf(4, 2, seed=1), leaf(2, seed=2)
    assert gradcheck(f, inputs, complex_step=complex_step)
    assert gradgradcheck(f, inputs, complex_step=complex_step)


PLANTED = {
    "times 1.001": lambda x: true_slope(x) * 1.001,
    "one element times 1.001": lambda x: one_element(x, 1.001),
    "one sign": lambda x: one_element(x, -1),
    "one element missing": lambda x: one_element(x, 0),
    "shifted by one step": lambda x: Tensor(np.roll(true_slope(x).data, 1, axis=0)),
    "zero": lambda x: Tensor(np.zeros(x.shape)),
    "NaN": lambda x: one_element(x, np.nan),
}


@pytest.mark.parametrize("shape", [(5, 1), (6, 5), (40, 30)])  # looked at element by element, and in random directions only
@pytest.mark.parametrize("error", PLANTED)
@pytest.mark.parametrize("complex_step", [False, True])
def test_a_planted_error_is_caught(error, shape, complex_step):
    with pytest.raises(GradientError, match="gradient of input 0"):
        gradcheck(cube(PLANTED[error]), leaf(*shape), complex_step=complex_step)
    assert not gradcheck(cube(PLANTED[error]), leaf(*shape), complex_step=complex_step, raise_error=False)


def test_one_wrong_element_among_many_is_found_without_looking_at_each():
    with pytest.raises(GradientError, match=r"at index \(199, 49\)"):
        gradcheck(cube(lambda x: one_element(x, 1.5)), leaf(200, 50), elementwise=0, directions=1)


def test_an_element_is_looked_at_even_if_no_direction_is():
    with pytest.raises(GradientError, match=r"at index \(5, 4\)"):
        gradcheck(cube(lambda x: one_element(x, 1.001)), leaf(6, 5), directions=0)


def test_a_missing_path_is_caught():
    with pytest.raises(GradientError, match=r"input 1 \(3,\) is wrong .* found 0;"):
        gradcheck(lambda a, b: a * ops.tanh(b.detach()), [leaf(3), leaf(3, seed=1)])
    with pytest.raises(GradientError, match="input 0"):
        gradcheck(lambda a: (ops.tanh(a), a.detach() * 2), leaf(3))


def test_a_gradient_of_a_recurrence_that_forgets_one_step_is_caught():
    class Cumulate(Function):
        """y_t = x_1 + ... + x_t, with the last step left out of the gradient"""

        def forward(self, x):
            return np.cumsum(x, axis=0)

        def backward(self, dy):
            return Tensor(np.concatenate((np.cumsum(dy.data[:-1][::-1], axis=0)[::-1], 0 * dy.data[-1:])))

    with pytest.raises(GradientError):
        gradcheck(Cumulate.apply, leaf(7, 2))


@pytest.mark.parametrize("curvature", [lambda x: 6.006 * x, lambda x: -6 * x, lambda x: Tensor(np.zeros(x.shape))])
def test_a_wrong_second_derivative_of_a_right_gradient_is_caught(curvature):
    assert gradcheck(cube(curvature=curvature), leaf(4, 3))
    with pytest.raises(GradientError, match="gradient of input 0"):
        gradgradcheck(cube(curvature=curvature), leaf(4, 3))


def test_a_second_derivative_that_is_missing_is_caught():
    class Square(Function):
        """y = x^2, with a gradient that cannot be differentiated"""

        def forward(self, x):
            return x * x

        def backward(self, dy):
            return Tensor(2 * dy.data * self.inputs[0].data)

    assert gradcheck(Square.apply, leaf(3))
    with pytest.raises((GradientError, ValueError)):
        gradgradcheck(Square.apply, leaf(3))


def test_a_gradient_of_another_shape_or_dtype_is_an_error():
    class Transposed(Function):
        def forward(self, x):
            return x * 2

        def backward(self, dy):
            return Tensor(2 * dy.data.T)

    class Narrowed(Function):
        def forward(self, x):
            return x * 2

        def backward(self, dy):
            return Tensor((2 * dy.data).astype(np.float32))

    with pytest.raises(ValueError, match=r"Transposed.backward is \(3, 2\) float64, the tensor that it belongs to is \(2, 3\) float64"):
        gradcheck(Transposed.apply, leaf(2, 3))
    with pytest.raises(ValueError, match=r"Narrowed.backward is \(2, 3\) float32"):
        gradcheck(Narrowed.apply, leaf(2, 3))


def test_the_message_names_input_index_expected_found_and_error():
    x = Tensor(np.array([[1.0, 2.0]]), requires_grad=True)
    with pytest.raises(GradientError) as caught:
        gradcheck(lambda a, b: b * cube(lambda x: one_element(x, 1.5))(a), [x, Tensor(np.ones((1, 2)))], directions=0)
    message = str(caught.value)
    assert message.startswith("gradient of input 0 (1, 2) is wrong at index (0, 1): expected ")
    assert "(central difference, h = 7.6e-06), found " in message
    assert "relative error 3.3e-01, allowed 8.7e-07" in message
    assert issubclass(GradientError, AssertionError)


def test_the_right_difference_is_what_a_message_expects():
    x = Tensor(np.array([3.0]), requires_grad=True)
    for complex_step in (False, True):
        with pytest.raises(GradientError) as caught:
            gradcheck(lambda x: cube(lambda x: 2 * true_slope(x))(x).sum(), x, complex_step=complex_step)
        expected, found = (float(part.split()[1].rstrip(";")) for part in str(caught.value).split(": ")[1].split("), "))
        assert found == pytest.approx(2 * expected, rel=1e-6)


def test_float32_is_refused():
    with pytest.raises(TypeError, match=r"input 1 \(2,\) is float32, .* check in float64"):
        gradcheck(lambda a, b: a, [leaf(2), Tensor(np.ones(2, np.float32), requires_grad=True)])
    with pytest.raises(TypeError, match=r"output 0 .* is float32; compute in float64"):
        gradcheck(lambda x: x.to(np.float32), leaf(2))


def test_questions_that_make_no_sense():
    with pytest.raises(ValueError, match="no input has requires_grad=True"):
        gradcheck(ops.tanh, Tensor(np.ones(2)))
    with pytest.raises(ValueError, match="not finite"), np.errstate(divide="ignore"):
        gradcheck(ops.log, Tensor(np.zeros(2), requires_grad=True))
    with pytest.raises(ValueError, match="pass a leaf"):
        gradcheck(ops.tanh, leaf(2) * 2)
    with pytest.raises(ValueError, match="no output of f depends on an input"):
        gradgradcheck(lambda x: x.detach(), leaf(2))
    noise = np.random.default_rng(0)
    with pytest.raises(ValueError, match="two results for the same inputs"):
        gradcheck(lambda x: x * Tensor(noise.random(x.shape)), leaf(2))


def test_integers_and_constants_may_be_among_the_inputs():
    rows = Tensor(np.array([2, 0, 2]))
    assert gradcheck(lambda w, i, s: w[i] * s, [leaf(4, 2), rows, Tensor(np.full(2, 3.0))], complex_step=True)


def test_parameters_that_f_closes_over_are_checked_where_they_are():
    x, w = leaf(3, 4), leaf(4, 4, seed=1)
    before = x.data.copy(), w.data.copy()
    assert gradcheck(lambda x, _: ops.tanh(x @ w), [x, w])
    with pytest.raises(GradientError, match="input 1"):
        gradcheck(lambda x, _: ops.tanh(x @ w.detach()), [x, w])
    np.testing.assert_array_equal(x.data, before[0])
    np.testing.assert_array_equal(w.data, before[1])
    assert x.grad is None
    assert w.grad is None


def test_the_inputs_are_put_back_when_f_fails():
    x = leaf(3)
    data, calls = x.data, []

    def fails_when_moved(x: Tensor) -> Tensor:
        calls.append(x)
        if len(calls) > 2:
            raise ZeroDivisionError
        return x * 2

    with pytest.raises(ZeroDivisionError):
        gradcheck(fails_when_moved, x)
    assert x.data is data


def test_one_seed_one_verdict_and_a_public_name():
    assert study.gradcheck is gradcheck
    messages = []
    for _ in range(2):
        with pytest.raises(GradientError) as caught:
            gradcheck(cube(PLANTED["times 1.001"]), leaf(20, 20), rng=3)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_checks_inside_no_grad():
    x = Tensor(np.array([0.5, 2.0]), requires_grad=True)
    with no_grad():
        assert gradcheck(ops.tanh, x)
        assert gradgradcheck(ops.tanh, x)
