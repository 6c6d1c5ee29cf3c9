"""The anomaly detector names the operation and the time step, and does not cry wolf; monitors see all that runs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from minirnn import Tensor, checkpoint, detect_anomaly, ops
from minirnn.autograd import Function
from minirnn.diagnostics import AnomalyError, Monitor, monitored

LENGTHS = [5, 3, 3, 1]
BATCH_SIZES = np.array([sum(n > t for n in LENGTHS) for t in range(max(LENGTHS))])
STARTS = np.cumsum([0, *BATCH_SIZES])
S, N, H = sum(LENGTHS), len(LENGTHS), 3

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


def leaf(*shape: int, seed: int = 0) -> Tensor:
    return Tensor(np.asarray(np.random.default_rng(seed).standard_normal(shape)), requires_grad=True)


def run(cell: str, kernel: str, z: Tensor, w_scale: float = 0.3) -> tuple[Tensor, ...]:
    """One recurrence over the ragged batch."""
    h0, batch_sizes = leaf(N, H, seed=2), BATCH_SIZES
    gates = {"lstm": 4, "gru": 3, "rnn": 1}[cell]
    w_hh = Tensor(leaf(gates * H, H, seed=1).data * w_scale, requires_grad=True)
    match cell:
        case "lstm":
            return ops.lstm(z, w_hh, h0, leaf(N, H, seed=3), batch_sizes, kernel=kernel)
        case "gru":
            return ops.gru(z, w_hh, leaf(H, seed=3), h0, batch_sizes, kernel=kernel)
        case _:
            return ops.rnn(z, w_hh, h0, batch_sizes, nonlinearity="relu", kernel=kernel)


def message(f: Callable[[], object]) -> str:
    with pytest.raises(AnomalyError) as caught, detect_anomaly():
        f()
    return str(caught.value)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize(("step", "sequence"), [(0, 3), (2, 1), (4, 0)])
def test_a_fused_recurrence_names_the_step_and_the_sequence(cell, step, sequence):
    gates = {"lstm": 4, "gru": 3, "rnn": 1}[cell]
    z = leaf(S, gates * H)
    z.data[STARTS[step] + sequence, -1] = np.nan
    said = message(lambda: run(cell, "numpy", z))
    assert said.startswith(f"{cell.upper()} forward: first NaN or Inf at ")
    assert f"time step {step}, sequence {sequence} of the batch (longest first), unit {H - 1}" in said
    assert f"NaN or Inf came in with operand 0 ({S}, {gates * H})" in said


def test_an_unrolled_recurrence_names_the_step_too():
    z = leaf(S, 4 * H)
    z.data[STARTS[2] + 1, 0] = np.inf
    said = message(lambda: run("lstm", "unrolled", z))
    assert "Split forward: first NaN or Inf at output 2, index (1, 0)" in said  # z is cut into its steps first


@pytest.mark.parametrize("kernel", ["numpy", "unrolled"])
def test_an_overflow_in_the_middle_of_a_recurrence_is_found_in_its_step(kernel):
    w = np.full((1, 1), 1e120)
    inputs = Tensor(np.zeros((8, 1))), Tensor(w), Tensor(np.array([[1e-300], [1.0]]))
    sizes = np.array([2, 2, 2, 1, 1])  # the second sequence goes 1e120, 1e240, Inf
    said = message(lambda: ops.rnn(*inputs, sizes, nonlinearity="relu", kernel=kernel))
    if kernel == "numpy":
        assert "RNN forward: first NaN or Inf at output 0, time step 2, sequence 1 of the batch" in said
    else:
        assert "forward in time step 2: first NaN or Inf at index (1, 0)" in said
    assert "its operands are finite" in said


@pytest.mark.parametrize("kernel", ["numpy", "unrolled"])
def test_a_gradient_that_explodes_is_found_in_its_step(kernel):
    """h = 1e-180, 1e-60, 1e60, 1e180, 1e300 is finite; dL/dh_4, ..., dL/dh_1 = 1, 1e120, 1e240, Inf is not."""
    z = Tensor(np.zeros((5, 1)), requires_grad=True)
    w, h0 = Tensor(np.full((1, 1), 1e120), requires_grad=True), Tensor(np.full((1, 1), 1e-300), requires_grad=True)
    with detect_anomaly():
        h, _ = ops.rnn(z, w, h0, np.ones(5, dtype=np.int64), nonlinearity="relu", kernel=kernel)
        last = h[4].sum()
        with pytest.raises(AnomalyError) as caught:
            last.backward()
    said = str(caught.value)
    if kernel == "numpy":
        assert said.startswith("RNN backward (its RecurrenceGrad): first NaN or Inf at output 0, time step 1, sequence 0")
    else:
        assert "backward in time step 2" in said  # the product of step 2, which makes dL/dh_1
    assert z.grad is None


def test_a_nan_that_only_the_backward_pass_makes():
    x = Tensor(np.array([4.0, 0.0]), requires_grad=True)
    said = message(lambda: ops.sqrt(x).sum().backward())
    assert said.startswith("Sqrt backward (its Div): first NaN or Inf at index (1,) of (2,); its operands are finite: (2,) in [")


def test_a_backward_pass_on_arrays_is_looked_at_too():
    class Broken(Function):
        def forward(self, x):
            return x * 2

        def backward(self, dy):
            return Tensor(dy.data * np.inf)

    assert message(lambda: Broken.apply(leaf(2, 3)).sum().backward()).startswith(
        "Broken backward: first NaN or Inf at index (0, 0) of (2, 3)"
    )


def test_the_first_operation_is_named_and_its_operands_are_described():
    x = Tensor(np.array([1.0, -2.0, 3.0]), requires_grad=True)
    said = message(lambda: ops.exp(ops.log(x) * 2))
    assert said == "Log forward: first NaN or Inf at index (1,) of (3,); its operands are finite: (3,) in [-2, 3]"
    poisoned = Tensor(np.array([1.0, np.inf]))
    assert "Mul forward: first NaN or Inf at index (1,) of (2,); NaN or Inf came in with operand 1 (2,)" in message(
        lambda: leaf(2) * poisoned
    )
    assert "Sum forward" in message(lambda: Tensor(np.full(3, 1e308)).sum())
    assert "index (0,) of ()" in message(lambda: Tensor(np.array(0.0)).log())


def test_an_anomaly_in_a_checkpoint_names_the_operation():
    x = Tensor(np.array([4.0, 0.0]), requires_grad=True)
    assert "Sqrt backward" in message(lambda: checkpoint(lambda x: ops.sqrt(x) * 2, x).sum().backward())
    assert "Log forward" in message(lambda: checkpoint(lambda x: ops.log(x - 1), x))


@pytest.mark.parametrize("kernel", ["numpy", "unrolled"])
def test_masks_padding_and_ends_of_range_do_not_cry_wolf(kernel):
    with detect_anomaly():
        scores, mask = leaf(2, 4), np.array([[True, True, False, False], [False] * 4])
        (ops.softmax(scores, mask=mask) * leaf(2, 4, seed=1)).sum().backward()
        ops.cross_entropy(leaf(3, 5), np.array([0, 4, 1]), weights=np.array([1.0, 0.0, 0.0])).backward()
        ops.sigmoid(Tensor(np.array([-1e4, 1e4]), requires_grad=True)).sum().backward()
        ops.log_softmax(Tensor(np.array([-1e4, 1e4]), requires_grad=True)).sum().backward()
        ops.softplus(Tensor(np.array([-1e4, 1e4]), requires_grad=True)).sum().backward()
        ops.where(np.array([True, False]), leaf(2), 0.0).sum().backward()
        for cell, gates in (("lstm", 4), ("gru", 3), ("rnn", 1)):
            (run(cell, kernel, leaf(S, gates * H))[0] ** 2).sum().backward()
        assert (leaf(3) > 0).dtype == bool


def test_nothing_is_watched_outside_the_context():
    with pytest.raises(AnomalyError), detect_anomaly():
        ops.log(Tensor(np.array([-1.0])))
    assert np.isnan(ops.log(Tensor(np.array([-1.0]))).item())


def test_monitors_nest_and_may_change_nothing():
    seen: list[str] = []

    class Log(Monitor):
        def __init__(self, name: str) -> None:
            self.name = name

        def watch(self, function, direction, compute):
            seen.append(f"{self.name} {type(function).__name__} {direction}")
            return compute()

    x = leaf(2)
    with monitored(Log("outer")), monitored(Log("inner")):
        y = -x
    with monitored(Log("only")):
        y.backward(np.ones(2))
    assert set(seen[:2]) == {"outer Neg forward", "inner Neg forward"}
    assert seen[2:] == ["only Neg backward", "only Neg forward"]
    assert x.grad.numpy().tolist() == [-1, -1]
