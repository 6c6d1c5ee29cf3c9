"""Products of step Jacobians, by formula, by back-propagation of unit seeds and by finite differences, and their bounds."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minirnn as mr
from minirnn import Tensor, nn
from minirnn.study import jacobian, jacobian_norms
from minirnn.study.steps import Steps

LAYERS = {
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "rnn tanh": nn.RNN,
    "rnn relu": nn.RNN,
}
CELLS = {nn.LSTM: nn.LSTMCell, nn.GRU: nn.GRUCell, nn.RNN: nn.RNNCell}


class Case(NamedTuple):
    name: str
    H: int
    D: int
    T: int
    from_t: int
    to_t: int
    bias: bool
    scale: float  # of the weights

    def layer(self, **options: Any) -> Any:
        """With large weights and inputs, so that no gate is just half open."""
        extra = {"nonlinearity": "relu"} if self.name == "rnn relu" else {}
        layer = LAYERS[self.name](self.D, self.H, bias=self.bias, rng=1, **extra, **options).to("float64")
        for p in layer.parameters():
            p.data *= self.scale
        return layer

    def x(self) -> Any:
        return normal(self.T, self.D)

    @property
    def count(self) -> int:
        """Of states."""
        return 2 if self.name == "lstm" else 1


@st.composite
def cases(draw: Any) -> Case:
    T = draw(st.integers(1, 8))
    from_t = draw(st.integers(0, T - 1))
    sizes = draw(st.sampled_from([1, 2, 5])), draw(st.sampled_from([1, 3])), T
    return Case(draw(st.sampled_from(list(LAYERS))), *sizes, from_t, draw(st.integers(from_t, T - 1)), draw(st.booleans()), draw(scales))


scales = st.sampled_from([0.5, 1.0, 3.0])


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


def states(last: Any) -> tuple[Tensor, ...]:
    return last if isinstance(last, tuple) else (last,)


def one(parts: Any) -> Any:
    return parts if len(parts) > 1 else parts[0]


def by_unit_seeds(layer: Any, case: Case) -> Any:
    """dstate_to/dstate_from: as many copies of the sequence as the state has numbers, one unit seed each, in one backward pass."""
    S, x = case.count * case.H, Tensor(case.x())
    _, at = layer(x[: case.from_t + 1, None])  # (1, 1, H) each
    leaves = [Tensor(np.repeat(s.numpy(), S, 1), requires_grad=True) for s in states(at)]  # (1, S, H)
    if case.from_t == case.to_t:
        return np.eye(S)
    between = np.repeat(case.x()[case.from_t + 1 : case.to_t + 1, None], S, 1)
    _, last = layer(Tensor(between), one(tuple(leaves)))
    seeds = [Tensor(s.T.copy()[None]) for s in np.split(np.eye(S), case.count)]  # copy j is asked for number j
    return np.concatenate([g.numpy()[0] for g in mr.grad(states(last), leaves, seeds)], axis=1)


@settings(max_examples=60)
@given(cases(), st.sampled_from(["unrolled", "numpy", "numba"]))
def test_the_formulas_are_what_backpropagation_gives(case: Case, kernel: str) -> None:
    """Of the unrolled graph, and of every fused kernel."""
    found = jacobian(case.layer(), case.x(), case.from_t, case.to_t)
    assert_same(found.whole, by_unit_seeds(case.layer(kernel=kernel), case))


def assert_same(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-13 * max(1.0, np.abs(expected).max()))


def moved(layer: Any, case: Case, start: Any) -> Any:
    """The state after `to` from that after `from`, both (S,)."""
    given = one(tuple(Tensor(s[None, None]) for s in np.split(start, case.count)))
    _, last = layer(Tensor(case.x()[case.from_t + 1 : case.to_t + 1, None]), given)
    return np.concatenate([s.numpy()[0, 0] for s in states(last)])


@given(cases().filter(lambda case: case.from_t < case.to_t and case.name != "rnn relu"))
def test_and_what_finite_differences_give(case: Case) -> None:
    layer, h = case.layer(kernel="numpy"), 2.0**-17
    _, at = layer(Tensor(case.x()[: case.from_t + 1, None]))
    start = np.concatenate([s.numpy()[0, 0] for s in states(at)])
    columns = [(moved(layer, case, start + h * e) - moved(layer, case, start - h * e)) / (2 * h) for e in np.eye(len(start))]
    found = jacobian(layer, case.x(), case.from_t, case.to_t).whole
    # truncation ~ h^2 = 6e-11 times third derivatives, which grow with the cube of the weights: 3^3 a step
    np.testing.assert_allclose(found, np.array(columns).T, rtol=1e-5, atol=1e-7 * max(1.0, np.abs(found).max()))


@given(cases())
def test_norms_and_singular_values_are_those_of_the_matrix(case: Case) -> None:
    """At every distance on the way."""
    layer, x = case.layer(), case.x()
    found = jacobian(layer, x, case.from_t, case.to_t)
    values = np.linalg.svd(found.h, compute_uv=False)
    np.testing.assert_allclose(found.singular_values, values, rtol=1e-9, atol=1e-13 * values[0])
    for k, t in enumerate(range(case.from_t, case.to_t + 1)):
        norm = np.linalg.norm(jacobian(layer, x, case.from_t, t).h, 2)
        np.testing.assert_allclose(found.norms[k], norm, rtol=1e-10)
    if case.name == "lstm":
        assert_same(found.c, found.whole[case.H :, case.H :])


@settings(max_examples=100)
@given(cases())
def test_no_norm_exceeds_its_bounds(case: Case) -> None:
    """ln(1 + 1e-12) is rounding's share."""
    found = jacobian(case.layer(), case.x(), case.from_t, case.to_t)
    assert (found.log_norms <= found.log_gate_bound + 1e-12).all()
    if case.name.startswith("rnn"):
        assert found.log_bound is not None
        assert (found.log_gate_bound <= found.log_bound + 1e-12).all()
        W = case.layer().weight_hh_l0.numpy()
        np.testing.assert_allclose(found.log_bound, np.arange(len(found.log_norms)) * np.log(np.linalg.norm(W, 2)), rtol=1e-12)
    else:
        assert found.log_bound is None


def test_gates_that_pass_everything_on_have_no_bound_below_one() -> None:
    """u = 1 of a GRU, f = 1 of an LSTM: the Jacobian is the identity, whatever w_hh is."""
    x = normal(200, 2)
    for kind, gate, block in ((nn.GRU, 1, "h"), (nn.LSTM, 1, "c")):
        layer = kind(2, 4, rng=0).to("float64")
        layer.bias_ih_l0.data[gate * 4 : (gate + 1) * 4] = 60
        found = jacobian(layer, x, 0, 199)
        if kind is nn.LSTM:
            layer.bias_ih_l0.data[:4] = -60  # and nothing else comes in
            found = jacobian(layer, x, 0, 199)
        np.testing.assert_allclose(getattr(found, block), np.eye(4), atol=1e-12)


@pytest.mark.parametrize("s", [2.0, 0.5, 1.5])
def test_products_of_thousands_of_steps_are_held(s: float) -> None:
    """A rectifier that stays open and W = s Q, Q a permutation, give s^k Q^k: of 3000 steps far outside what a float64 can hold."""
    layer = nn.RNN(1, 3, nonlinearity="relu", bias=False, rng=0).to("float64")
    layer.weight_hh_l0.data[...] = s * np.roll(np.eye(3), 1, 0)
    layer.weight_ih_l0.data[...] = 1e-300
    T = 3001 if s < 1 else 600  # a state that grows must itself be held
    found = jacobian(layer, np.ones((T, 1)), 0, T - 1)
    np.testing.assert_allclose(found.log_norms, np.arange(T) * np.log(s), rtol=1e-12)
    np.testing.assert_allclose(found.log_singular_values, (T - 1) * np.log(s), rtol=1e-12)
    assert found.log_bound is not None
    np.testing.assert_allclose(found.log_bound, found.log_norms, rtol=1e-12)


def test_saturated_units_pass_nothing_on() -> None:
    """phi' = 0 exactly: the logarithm is -inf, and nothing is NaN."""
    layer = nn.RNN(1, 3, nonlinearity="relu", rng=0)
    layer.bias_ih_l0.data[...] = -100
    found = jacobian(layer, np.ones((5, 1)), 0, 4)
    assert found.log_norms.tolist() == [0] + [-np.inf] * 4
    assert (found.log_singular_values == -np.inf).all()
    assert not found.h.any()


@pytest.mark.parametrize("kind", CELLS)
def test_a_cell_is_its_layer(kind: Any) -> None:
    layer, cell = kind(3, 4, rng=0), CELLS[kind](3, 4, rng=1)
    cell.load_state_dict({name.removesuffix("_l0"): array for name, array in layer.state_dict().items()})
    x, first = normal(6, 3), [normal(4, seed=2 + k) for k in range(len(layer.state_names))]
    of_cell = jacobian(cell, Tensor(x), 1, 5, state=one([Tensor(s) for s in first]))
    of_layer = jacobian(layer, x, 1, 5, state=one([s[None] for s in first]))
    assert np.array_equal(of_cell.whole, of_layer.whole)


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("part", ["l0", "l0_reverse", "l1", "l1_reverse"])
def test_every_part_of_a_deep_layer(kind: Any, part: str) -> None:
    """It is a layer of its own over what the parts below give, and the reverse direction one over the sequence turned round."""
    H, T = 3, 7
    deep = kind(2, H, 2, bidirectional=True, rng=0).to("float64")
    x = normal(T, 4, 2)
    first = [normal(4, 4, H, seed=5 + k) for k in range(len(deep.state_names))]  # (parts, N, H)
    below = kind(2, H, bidirectional=True, rng=0).to("float64")
    below.load_state_dict({name: array for name, array in deep.state_dict().items() if "_l0" in name})
    inputs = x if part.startswith("l0") else below(Tensor(x), one(tuple(Tensor(s[:2]) for s in first)))[0].numpy()
    alone = kind(inputs.shape[-1], H, rng=0).to("float64")
    own = [name for name in deep.state_dict() if name.endswith("_" + part)]
    alone.load_state_dict({name.replace("_" + part, "_l0"): deep.state_dict()[name] for name in own})
    k, reverse = ["l0", "l0_reverse", "l1", "l1_reverse"].index(part), part.endswith("reverse")
    given_state = one([s[k : k + 1, 2] for s in first])
    expected = jacobian(alone, inputs[::-1, 2] if reverse else inputs[:, 2], 1, 5, state=given_state)
    ends = (5, 1) if reverse else (1, 5)
    found = jacobian(deep, x, *ends, sequence=2, part=part, state=one(first))
    np.testing.assert_allclose(found.whole, expected.whole, rtol=1e-10, atol=1e-14)


def test_norms_of_several_layers_side_by_side() -> None:
    layers = {"small": nn.RNN(2, 3, rng=0), "gated": nn.LSTM(2, 3, rng=0)}
    x = normal(6, 4, 2)
    found = jacobian_norms(layers, x, from_t=1)
    assert list(found) == ["small", "gated"]
    for name, norms in found.items():
        assert norms.distance.tolist() == [0, 1, 2, 3, 4]
        for n in range(4):
            alone = jacobian(layers[name], x, 1, 5, sequence=n)
            np.testing.assert_allclose(norms.log_norms[n], alone.log_norms, rtol=1e-10, atol=1e-12)
            np.testing.assert_allclose(norms.log_gate_bound[n], alone.log_gate_bound, rtol=1e-10, atol=1e-12)
    assert found["gated"].log_bound is None


def test_norms_count_steps_as_the_input_does_in_both_directions() -> None:
    layer, x = nn.GRU(2, 3, bidirectional=True, rng=0), normal(6, 2)
    for from_t, distances in ((None, 6), (5, 6), (3, 4), (0, 1)):
        found = jacobian_norms({"a": layer}, x, from_t=from_t, part="l0_reverse")["a"]
        assert found.distance.tolist() == list(range(distances))
        alone = jacobian(layer, x, 5 if from_t is None else from_t, 0, part="l0_reverse")
        np.testing.assert_allclose(found.log_norms[0], alone.log_norms, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("fault", ["a factor", "no way through c"])
def test_a_wrong_formula_is_noticed(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Steps.jacobian

    def wrong(self: Steps, t: int) -> Any:
        J = right(self, t).copy()
        if fault == "a factor":
            return J * 1.001
        J[:, :3, 3:] = 0
        return J

    monkeypatch.setattr(Steps, "jacobian", wrong)
    case = Case("lstm", 3, 2, 5, 1, 3, True, 1.0)
    with pytest.raises(AssertionError):
        assert_same(jacobian(case.layer(), case.x(), 1, 3).whole, by_unit_seeds(case.layer(), case))


def test_errors_say_what_there_is() -> None:
    layer, x = nn.LSTM(2, 3, rng=0), normal(5, 2)
    both, broken = nn.GRU(2, 3, bidirectional=True, rng=0), nn.RNN(2, 3, rng=0)
    broken.weight_hh_l0.data[0, 0] = np.inf
    for call, words in (
        (lambda: jacobian(nn.Linear(2, 3, rng=0), x, 0, 1), "layer must be an nn.RNN, GRU, LSTM or a cell of them, got Linear"),
        (
            lambda: jacobian(layer, normal(5, 3), 0, 1),
            r"x must be \(T, D\) or \(T, N, D\) with D = 2, the layer's input_size, got \(5, 3\)",
        ),
        (lambda: jacobian(layer, x, 0, 5), "to_t must be a step of x, 0 .. 4, got 5"),
        (lambda: jacobian(layer, x, -1, 4), "from_t must be a step of x, 0 .. 4, got -1"),
        (lambda: jacobian(layer, x, 3, 1), "needs from_t <= to_t; got from_t=3, to_t=1"),
        (lambda: jacobian(both, x, 1, 3, part="l0_reverse"), "needs from_t >= to_t, as the reverse direction begins at the end"),
        (lambda: jacobian(layer, x, 0, 1, sequence=1), "sequence must be one of x, 0 .. 0, got 1"),
        (lambda: jacobian(both, x, 0, 1, part="l1"), "part must be one of l0, l0_reverse, got 'l1'"),
        (
            lambda: jacobian(layer, x, 0, 1, state=(normal(1, 3), normal(3))),
            r"state must be \(h_0, c_0\), \(1, 3\) each, got \(1, 3\), \(3,\)",
        ),
        (lambda: jacobian(layer, x, 0, 1, sequence="a"), "sequence must be one of x, 0 .. 0, got 'a'"),  # type: ignore[arg-type]
        (lambda: jacobian(layer, x * np.nan, 0, 1), "x has NaN or Inf in it"),
        (lambda: jacobian(layer, nn.pack(mr.Tensor(normal(5, 1, 2)), [5]), 0, 1), "not a Packed; unpack it"),
        (lambda: jacobian_norms([layer], x), "layers must be a dict of layers by any names, got list"),  # type: ignore[arg-type]
        (lambda: jacobian_norms({"a": broken}, x), "weight_hh_l0 has NaN or Inf in it"),
    ):
        with pytest.raises((ValueError, TypeError), match=words):
            call()
    with pytest.raises(AttributeError, match=r"only an LSTM has a c, this is of a layer of cell 'gru'; \.h is dh_to/dh_from"):
        _ = jacobian(both, x, 0, 1).c
