"""What `detect_anomaly` says of a planted NaN or Inf: layer, time step, gate or gradient, and the numbers that went before."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable

import numpy as np
import pytest

from minirnn import Tensor, detect_anomaly, nn, no_grad, ops, study
from minirnn.diagnostics import AnomalyError
from minirnn.place import at

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

LENGTHS = np.array([4, 6, 2])
T, N, D, H = 6, 3, 3, 4


class Model(nn.Module):
    def __init__(self, kind: type = nn.LSTM, **options: object):
        self.encoder = kind(D, H, num_layers=2, bidirectional=True, rng=0, **options)
        self.head = nn.Linear(2 * H, 2, rng=0)

    def loss(self, x: Tensor) -> Tensor:
        return (self.head(self.encoder(x, lengths=LENGTHS)[0]) ** 2).sum()


def batch() -> Tensor:
    return Tensor(np.random.default_rng(0).standard_normal((T, N, D)).astype(np.float32))


def anomaly(f: Callable[[], object]) -> AnomalyError:
    with pytest.raises(AnomalyError) as caught, detect_anomaly():
        f()
    return caught.value


def tables(error: AnomalyError) -> dict[str, list[list[str]]]:
    """The cells of each table, by its title; cells stand two spaces apart."""
    found = {}
    for part in error.table.split("\n\n"):
        title, *lines = part.splitlines()
        found[title] = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines]
    return found


@pytest.mark.parametrize("kernel", ["numpy", "numba"])
@pytest.mark.parametrize(("kind", "gates", "gate"), [(nn.LSTM, "ifgo", k) for k in range(4)] + [(nn.GRU, "run", k) for k in range(3)])
def test_a_weight_that_is_nan_is_named_with_the_gate_that_it_breaks(kind, gates, gate, kernel):
    """h_{-1} = 0, and 0 NaN is NaN: the first step breaks, in the unit whose row it is."""
    model = Model(kind, kernel=kernel)
    model.encoder.weight_hh_l1.data[gate * H + 2, 1] = np.nan
    error = anomaly(lambda: model.loss(batch()))
    where = f"in gate {gates[gate]} at time step 0, sequence 0 of the batch, unit 2"
    said = f"{kind.__name__}Layer forward in encoder.l1: first NaN or Inf {where}"
    assert str(error) == f"{said}; NaN or Inf came in with weight_hh_l1 ({len(gates) * H}, {H})"
    inside = tables(error)["Inside it, step by step, of sequence 0:"]
    assert inside[0][: 1 + len(gates)] == ["step", *(f"gate {name}" for name in gates)]
    assert inside[1][1 + gate] == "1 NaN"
    assert ".." in inside[1][1 + (gate + 1) % len(gates)] or kind is nn.GRU  # n reads r


def test_a_direction_that_goes_backwards_begins_at_the_last_step_of_each_sequence():
    model = Model()
    model.encoder.weight_hh_l1_reverse.data[0, 0] = np.nan
    said = str(anomaly(lambda: model.loss(batch())))
    assert "LSTMLayer forward in encoder.l1_reverse: first NaN or Inf in gate i at time step 1, sequence 2 of the batch, unit 0" in said


def growing(bidirectional: bool = False) -> tuple[nn.RNN, Tensor]:
    """h_t = 1e9 h_{t-1} in float32, and h_{-1} 0 of all sequences but number 1: 1e-37, then 1e-28, ..., 1e35, Inf."""
    layer = nn.RNN(1, 1, nonlinearity="relu", bias=False, bidirectional=bidirectional, rng=0)
    for name, weight in layer.named_parameters():
        weight.data[...] = 1e9 if "hh" in name and name.endswith("reverse") is bidirectional else 0
    h0 = np.zeros((1 + bidirectional, 3, 1), np.float32)
    h0[-1, 1] = 1e-37
    return layer, Tensor(h0)


def test_the_steps_before_show_how_the_numbers_grew():
    layer, h0 = growing()
    error = anomaly(lambda: layer(Tensor(np.ones((10, 3, 1), np.float32)), h0))
    assert "RNNLayer forward in l0: first NaN or Inf in h at time step 8, sequence 1 of the batch, unit 0" in str(error)
    sizes = ["1e+08", "1e+17", "1e+26", "1e+35"]
    rows = [[str(t), f"{size} .. {size}"] for t, size in enumerate(sizes, 4)]
    assert tables(error)["Inside it, step by step, of sequence 1:"] == [["step", "h"], *rows, ["8", "1 Inf"]]


def test_steps_and_sequences_are_those_of_the_input():
    """Of sequences of 4, 11 and 2 steps, the longest, from its end: the ninth step is number 2. Inside, it is the first of the batch."""
    layer, h0 = growing(bidirectional=True)
    error = anomaly(lambda: layer(Tensor(np.ones((11, 3, 1), np.float32)), h0, lengths=np.array([4, 11, 2])))
    assert "RNNLayer forward in l0_reverse: first NaN or Inf in h at time step 2, sequence 1 of the batch, unit 0" in str(error)
    assert [row[0] for row in tables(error)["Inside it, step by step, of sequence 1:"]] == ["step", "6", "5", "4", "3", "2"]


def test_a_gradient_that_explodes_goes_from_step_to_step():
    layer, h0 = growing()
    error = anomaly(lambda: layer(Tensor(np.ones((8, 3, 1), np.float32)), h0)[0][5].sum().backward())
    assert "RNNLayer backward in l0: first NaN or Inf in dh at time step 0, sequence 1 of the batch, unit 0" in str(error)
    sizes = ["1e+09", "1e+18", "1e+27", "1e+36"]
    rows = [[str(t), *[f"{size} .. {size}"] * 2] for t, size in zip((4, 3, 2, 1), sizes, strict=True)]
    assert tables(error)["Inside it, step by step, of sequence 1:"] == [["step", "dh", "dz"], *rows, ["0", "1 Inf", "1 Inf"]]


@pytest.mark.parametrize("recompute", [0.0, 1.0])
def test_a_gradient_is_named_by_its_gate(recompute):
    """dz_f = dc c f (1 - f): dc = 1e15 and c = 1e30 are finite in float32, and their product is not."""
    layer = nn.LSTM(D, H, rng=0)
    layer.recompute = recompute
    c0 = np.zeros((1, N, H), np.float32)
    c0[0, 2, 3] = 1e30
    dc = np.full((1, N, H), 1e15, np.float32)
    error = anomaly(lambda: layer(batch(), (Tensor(np.zeros_like(c0)), Tensor(c0)))[1][1].backward(Tensor(dc)))
    said = "LSTMLayer backward in l0: first NaN or Inf in dz of gate f at time step 5, sequence 2 of the batch, unit 3"
    assert str(error).startswith(f"{said}; its operands are finite")
    header, row = tables(error)["Inside it, step by step, of sequence 2:"]
    assert header == ["step", "dh", "dc", "dz of gate i", "dz of gate f", "dz of gate g", "dz of gate o"]
    assert row[0] == "5"
    assert row[4] == "1 Inf"
    assert all(".." in cell for k, cell in enumerate(row) if k not in (0, 4))


def test_a_cell_that_is_called_step_by_step():
    class Decoder(nn.Module):
        def __init__(self) -> None:
            self.cell = nn.LSTMCell(D, H, rng=0)

        def forward(self, x: Tensor) -> Tensor:
            state = None
            for t in range(len(x)):
                with at(step=t):
                    state = self.cell(x[t], state)
                if t == 2:
                    self.cell.weight_hh.data[2 * H + 1, 0] = np.nan
            return state[0]

    with no_grad():
        error = anomaly(lambda: Decoder()(batch()))
    assert str(error).startswith("LSTMLayer forward in cell, time step 3: first NaN or Inf in gate g of sequence 0 of the batch, unit 1; ")
    steps = [row[2] for row in tables(error)["The last operations, and the range of what each gave:"] if "LSTMLayer forward" in row]
    assert steps == ["0", "1", "2", "3"]


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_the_step_of_a_cell_is_found_by_the_states_that_it_was_given(kind):
    cell, x = kind(D, H, rng=0), batch()
    x.data[4, 1] = np.nan
    steps = [Tensor(x_t) for x_t in x.data]

    def run() -> None:
        state = None
        for x_t in steps:
            state = cell(x_t, state)

    first = "h" if kind is nn.RNNCell else "gate i" if kind is nn.LSTMCell else "gate r"
    error = anomaly(run)
    assert f"first NaN or Inf in {first} at time step 4, sequence 1 of the batch, unit 0" in str(error)
    assert tables(error)["Inside it, step by step, of sequence 1:"][-1][0] == "4"
    with no_grad():
        assert f"first NaN or Inf in {first} of sequence 1 of the batch, unit 0" in str(anomaly(run))


def test_an_unrolled_layer_names_layer_and_step_of_each_operation():
    layer, h0 = growing()
    layer.kernel = "unrolled"
    error = anomaly(lambda: layer(Tensor(np.ones((10, 3, 1), np.float32)), h0))
    assert str(error).startswith("MatMul forward in l0, time step 8: first NaN or Inf at index (1, 0) of (3, 1); its operands are finite")
    rows = tables(error)["The last operations, and the range of what each gave:"]
    relu = [(row[0], row[2], row[-1]) for row in rows if row[1] == "Relu forward"]
    assert relu == [("l0", "5", "1e+17"), ("l0", "6", "1e+26"), ("l0", "7", "1e+35")]
    assert rows[-1][:3] == ["l0", "MatMul forward", "8"]
    assert rows[-1][-1] == "inf"


def test_the_last_operations_with_their_ranges_and_the_operands_with_their_counts():
    x = Tensor(np.array([[4.0, -1.0, 0.0], [1.0, -3.0, 0.0]]), requires_grad=True)
    error = anomaly(lambda: ops.log(ops.tanh(x) * 2))
    found = tables(error)
    rows = found["The last operations, and the range of what each gave:"]
    assert rows[0] == ["layer", "operation", "step", "shape", "low", "high"]
    assert rows[1:3] == [["-", "Tanh forward", "-", "(2, 3)", "-0.995", "0.999"], ["-", "Mul forward", "-", "(2, 3)", "-1.99", "2"]]
    assert rows[3] == ["-", "Log forward", "-", "(2, 3)", "nan", "nan"]
    assert found["Operands and results of Log:"] == [
        ["shape", "low", "high", "NaN", "Inf"],
        ["x", "(2, 3)", "-1.99", "2", "0", "0"],
        ["result", "(2, 3)", "0.421", "0.692", "2", "2"],
    ]


def test_operations_of_a_backward_pass_say_whose_they_are():
    x = Tensor(np.array([4.0, 0.0]), requires_grad=True)
    rows = tables(anomaly(lambda: ops.sqrt(x).sum().backward()))["The last operations, and the range of what each gave:"]
    assert [row[1] for row in rows[-2:]] == ["Sqrt backward (its Mul)", "Sqrt backward (its Div)"]
    assert rows[-1][-1] == "inf"


def test_the_error_is_one_line_and_a_traceback_shows_the_tables():
    error = anomaly(lambda: ops.log(Tensor(np.array([-1.0]))))
    assert "\n" not in str(error)
    shown = "".join(traceback.format_exception(error))
    assert shown.index(str(error)) < shown.index("The last operations, and the range of what each gave:")


def test_a_fault_that_does_not_come_again_is_said_to_be_so(monkeypatch):
    from minirnn.kernels.lstm import numpy_

    forward, calls = numpy_.forward, []

    def broken(*arguments, **options):
        tape = forward(*arguments, **options)
        calls.append(tape)
        if len(calls) == 1:
            tape.h[7, 2] = np.nan
        return tape

    monkeypatch.setattr(numpy_, "forward", broken)
    error = anomaly(lambda: nn.LSTM(D, H, kernel="numpy", rng=0)(batch()))
    assert "LSTMLayer forward in l0: first NaN or Inf at output 0, time step 2, sequence 1 of the batch" in str(error)
    assert error.table.endswith("It has run once more, and all that is inside it was finite this time.")
    assert len(calls) == 2


def test_a_trace_around_it_sees_the_layers_once():
    model = Model()
    with study.trace() as found, detect_anomaly():
        model.loss(batch()).backward()
    plain = copy.deepcopy(model)
    with study.trace() as expected:
        plain.loss(batch()).backward()
    assert found.layers == expected.layers == ["encoder.l0", "encoder.l0_reverse", "encoder.l1", "encoder.l1_reverse"]
    assert [len(found.passes(name)) for name in found.layers] == [1] * 4
    np.testing.assert_array_equal(found["encoder.l0"].dh, expected["encoder.l0"].dh)
    model.encoder.weight_hh_l1.data[0, 0] = np.nan
    with study.trace() as broken, pytest.raises(AnomalyError, match="gate i"), detect_anomaly():
        model.loss(batch())
    assert [len(broken.passes(name)) for name in broken.layers] == [1] * 3
