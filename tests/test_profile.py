"""The profiler names layer, operation, direction, step and kernel; its rows add up; what it counts is known beforehand."""

from __future__ import annotations

import itertools
import json
import time
from types import ModuleType

import numpy as np
import pytest

import minirnn as mr
from minirnn import Tensor, checkpoint, kernels, nn, no_grad, ops, profile
from minirnn.autograd import Function
from minirnn.diagnostics import Profile, Row
from minirnn.kernels import registry

T, N, D, H = 5, 3, 4, 6


def leaf(*shape: int, dtype: str = "f8") -> Tensor:
    return Tensor(np.random.default_rng(0).standard_normal(shape).astype(dtype), requires_grad=True)


class Slow(Function):
    """y = x, with a pause of 2 ms in either direction"""

    def forward(self, x):
        time.sleep(2e-3)
        return x * 1

    def backward(self, dy):
        time.sleep(2e-3)
        return dy * 1


class Model(nn.Module):
    def __init__(self, kernel: str | None = None):
        self.encoder = nn.LSTM(D, H, bidirectional=True, kernel=kernel, rng=0)
        self.head = nn.Linear(2 * H, 2, rng=0)

    def loss(self, x):
        return self.head(self.encoder(x)[0]).sum()


def step(model, batch, optimizer=None):
    model.loss(batch).backward()
    if optimizer is not None:
        optimizer.step(max_norm=1.0)
    return model


def find(cost: Profile, by: str = "place", **words: object) -> Row:
    """The one row with these words."""
    found = [row for row in cost.rows(by) if all(getattr(row, name) == value for name, value in words.items())]
    assert len(found) == 1, (words, cost.rows(by))
    return found[0]


def test_calls_seconds_and_bytes():
    x = leaf(10)
    ops.tanh(x)
    with profile() as cost:
        y = Slow.apply(Slow.apply(x)) * 2
        y.sum().backward()
    ops.tanh(x)
    calls = {(row.operation, row.direction): row.calls for row in cost.rows("operation")}
    times = {"Slow": 2, "Mul": 1, "Sum": 1, "Reshape": 1}
    assert calls == {(name, way): n for name, n in times.items() for way in ("forward", "backward")}
    for way in ("forward", "backward"):
        slow = find(cost, operation="Slow", direction=way)
        assert slow.seconds >= 4e-3
        assert slow.bytes == 2 * 80  # results, or gradients, of ten float64
        assert slow.layer == ""
    assert [row.operation for row in cost.rows()[:2]] == ["Slow", "Slow"]  # the dearest first


def test_a_layer_of_known_size_takes_exactly_its_operations():
    """Of an LSTM in two directions: x w_ih^T, h w_hh^T, and of each unit 4 of bias, 4 sums, 4 gates, 5; then back, without dx."""
    model, rows = Model(), T * N
    with profile() as cost:
        step(model, leaf(T, N, D, dtype="f4").detach())
    forward, backward = rows * (8 * (D + H) * H + 17 * H), rows * (8 * D * H + 16 * H * H + 4 * H + 24 * H)
    for layer in ("encoder.l0", "encoder.l0_reverse"):
        assert find(cost, layer=layer, operation="LSTMLayer", direction="forward").flops == forward
        assert find(cost, layer=layer, operation="LSTMLayer", direction="backward").flops == backward
    assert find(cost, layer="head", operation="Linear", direction="forward").flops == rows * (2 * 2 * H * 2 + 2)
    assert find(cost, layer="head", operation="Linear", direction="backward").flops == rows * (2 * 2 * 2 * H * 2 + 2)
    assert find(cost, operation="Sum", direction="forward").flops == rows * 2
    assert find(cost, "layer", layer="encoder.l0").flops == forward + backward  # the other operations there move numbers only


def test_kernels_are_rows_of_their_own_inside_layer_and_operation():
    model, rows = Model("numpy"), T * N
    with profile() as cost:
        step(model, leaf(T, N, D, dtype="f4").detach())
    inside = {"layer": "encoder.l0", "operation": "LSTMLayer"}
    forward = find(cost, "kernel", **inside, kernel="lstm numpy forward")
    backward = find(cost, "kernel", **inside, kernel="lstm numpy backward")
    assert (forward.direction, backward.direction) == ("forward", "backward")
    assert forward.flops == rows * (8 * H * H + 13 * H)
    assert backward.flops == rows * (16 * H * H + 24 * H)
    # z = gates, w_hh, h_0 = c_0, h_n, c_n, h, c, each once, and the sizes
    assert forward.bytes == 4 * (rows * 4 * H + 4 * H * H + 3 * N * H + 2 * rows * H) + 8 * T
    for way, kernel in (("forward", forward), ("backward", backward)):
        assert 0 < kernel.seconds < find(cost, **inside, direction=way).seconds


def test_operations_and_their_kernel_count_the_same():
    with profile() as cost, mr.kernel("numpy"):
        ops.layer_norm(leaf(3, 4), 4, leaf(4), leaf(4)).sum().backward()
        ops.group_norm(leaf(2, 4, 3), 2, leaf(4)).sum().backward()
        ops.cross_entropy(leaf(4, 5), np.array([1, 0, 3, 3]), label_smoothing=0.1, reduction="none").sum().backward()
        ops.relu(leaf(7)).sum().backward()
        ops.dropout(leaf(7), 0.5, rng=0).sum().backward()
        ops.take_rows(leaf(4, 3), np.array([3, 0, 3])).sum().backward()
        ops.conv2d(leaf(2, 2, 5, 4), leaf(3, 2, 2, 2), leaf(3), stride=2, padding=1).sum().backward()
        ops.max_pool2d(leaf(2, 2, 5, 4), 2).sum().backward()
        context, weights = ops.attend(leaf(5, 4), leaf(3, 2, 4), np.array([2, 0, 2, 1, 2]), np.array([[1, 1], [0, 0], [0, 1]], bool))
        (context.sum() + weights.sum()).backward()
        sizes = np.array([3, 2, 2])
        ops.rnn(leaf(7, 2), leaf(2, 2), leaf(3, 2), sizes, nonlinearity="relu")[0].sum().backward()
        ops.gru(leaf(7, 6), leaf(6, 2), leaf(2), leaf(3, 2), sizes)[1].sum().backward()
        ops.lstm(leaf(7, 8), leaf(8, 2), leaf(3, 2), leaf(3, 2), sizes)[1].sum().backward()
        series, eye = np.ones((2, 4, 1)), Tensor(np.eye(2), requires_grad=True)
        one, two = Tensor(np.ones((1, 1)), requires_grad=True), leaf(2)
        ops.kalman_log_likelihood(eye, eye, leaf(1, 2), one, two, leaf(1), two, eye, y=series, lengths=np.array([4, 2])).sum().backward()
    of_kernels = {(row.operation, row.direction): row.flops for row in cost.rows("kernel")}
    assert len(of_kernels) == 2 * 13 - 1  # an embedding has one in its backward pass alone
    of_operations = {(row.operation, row.direction): row.flops for row in cost.rows("operation")}
    assert {key: of_operations[key] for key in of_kernels} == of_kernels


def test_the_latent_recurrences_are_kernels_too():
    shapes = [(4, 3), (4, 3), (3, 2), (3, 2), (4, 3), (4,), (4, 3), (4,), (2, 2)]
    with profile() as cost:
        outputs = ops.latent_residual(*[leaf(*shape) for shape in shapes], noise=np.zeros((4, 2)), batch_sizes=np.array([2, 1, 1]))
        outputs[0].sum().backward()
    found = {(row.kernel, row.direction): row.flops for row in cost.rows("kernel") if row.kernel.startswith("residual")}
    assert found == {(f"residual {way}", way): find(cost, operation="Residual", direction=way).flops for way in ("forward", "backward")}


def test_a_step_by_step_recurrence_is_told_step_by_step():
    model = Model("unrolled")
    with profile() as cost:
        step(model, leaf(T, N, D, dtype="f4").detach())
    tanh = [row for row in cost.rows("step") if (row.layer, row.operation, row.direction) == ("encoder.l0", "Tanh", "forward")]
    assert [(row.step, row.calls, row.flops) for row in tanh] == [(t, 2, 2 * N * H) for t in range(T)]
    assert find(cost, layer="encoder.l0", operation="Tanh", direction="forward").calls == 2 * T
    steps = [row.step for row in cost.rows("step") if row.layer == "encoder.l0"]
    assert steps == sorted(steps, key=lambda t: -1 if t is None else t)
    with profile() as fused:
        step(Model(), leaf(T, N, D, dtype="f4").detach())
    assert {row.step for row in fused.rows("step")} == {None}


def test_all_ways_of_adding_give_the_same_and_no_more_than_the_time_spent():
    model, x = Model("unrolled"), leaf(T, N, D, dtype="f4").detach()
    with profile() as cost:
        start = time.perf_counter()
        step(model, x)
        elapsed = time.perf_counter() - start
    totals = [sum(cost.rows(by), Row()) for by in ("place", "layer", "operation", "step")]
    assert len({(row.calls, row.bytes, row.flops) for row in totals}) == 1
    for row in totals:
        assert row.seconds == pytest.approx(totals[0].seconds)
        assert row.seconds <= min(elapsed, cost.seconds)


def test_what_runs_inside_a_backward_pass_counts_there():
    x = leaf(10)
    with profile() as cost:
        (ops.tanh(x) ** 3).sum().backward()
    assert {row.operation for row in cost.rows()} == {"Tanh", "Pow", "Sum", "Reshape"}  # and no Mul, though the backward passes multiply
    assert find(cost, operation="Tanh", direction="backward").flops == 30  # dy (1 - y y)


def test_what_a_checkpoint_runs_again_counts_for_itself():
    layer, x = nn.Linear(4, 4, rng=0), leaf(3, 4, dtype="f4")
    with profile() as cost:
        checkpoint(lambda x: ops.tanh(layer(Slow.apply(x))), x).sum().backward()
    calls = {(row.operation, row.direction): row.calls for row in cost.rows("operation")}
    for name in ("Tanh", "Linear", "Slow"):
        assert [calls.get((name, way)) for way in ("forward", "again", "backward")] == [1, 1, 1]
    whole = find(cost, operation="_Checkpoint", direction="backward")
    assert whole.flops == find(cost, operation="Tanh", direction="again").flops * 0
    assert sum(row.seconds for row in cost.rows()) <= cost.seconds


def test_kernels_of_a_checkpoint_are_those_of_what_runs_in_it():
    layer, x = nn.LSTM(D, H, kernel="numpy", rng=0), leaf(T, N, D, dtype="f4")
    with profile() as cost:
        checkpoint(lambda x: layer(x)[0], x).sum().backward()
    found = {(row.layer, row.operation, row.direction, row.kernel) for row in cost.rows("kernel") if row.kernel.startswith("lstm")}
    ways = (("forward", "forward"), ("again", "forward"), ("backward", "backward"))
    assert found == {("l0", "LSTMLayer", way, f"lstm numpy {name}") for way, name in ways}


def test_the_profiler_leaves_its_own_time_out(monkeypatch):
    """By a clock that ticks when it is read. An operation reads it when the profiler comes, begins, ends and goes: one tick is its own."""
    ticks = itertools.count()
    monkeypatch.setattr("minirnn.diagnostics.profiling.perf_counter", lambda: float(next(ticks)))
    x = leaf(4)
    with profile() as cost:
        y = ops.tanh(-x)
    assert [row.seconds for row in cost.rows()] == [1, 1]
    assert cost.seconds == 9 - 2 * 2  # it began at 0, ended at 9, and the profiler took two ticks of each operation
    with profile() as cost:
        y.backward(Tensor(np.ones(4)))
    tanh, neg = (find(cost, operation=name, direction="backward").seconds for name in ("Tanh", "Neg"))
    assert tanh == 1 + 3 * 2  # dy (1 - y y): a tick of each of three operations, and one after each
    assert neg == 1 + 1 * 2


def test_the_optimiser_runs_in_no_operation():
    model = Model()
    optimizer = mr.optim.Adam(model.named_parameters())
    with profile() as cost:
        step(model, leaf(T, N, D, dtype="f4").detach(), optimizer)
    row = next(row for row in cost.rows("kernel") if row.kernel.startswith("adam"))
    assert (row.layer, row.operation, row.direction) == ("", "", "")
    assert row.flops == 14 * sum(p.size for p in model.parameters())
    assert "adam" in str(cost)


def test_a_backward_pass_alone_is_seen_with_its_kernels():
    model = Model("numpy")
    loss = model.loss(leaf(T, N, D, dtype="f4").detach())
    with profile() as cost:
        loss.backward()
    assert {row.direction for row in cost.rows("kernel")} == {"backward"}
    assert find(cost, "kernel", layer="encoder.l0", kernel="lstm numpy backward").calls == 1


def test_nobody_keeps_what_stands_in_for_a_kernel():
    model, x, image = Model("numpy"), leaf(T, N, D, dtype="f4"), leaf(1, 2, 4, 4, dtype="f4")
    with profile():
        loss, pooled = model.loss(x), ops.max_pool2d(ops.conv2d(image, leaf(3, 2, 2, 2, dtype="f4")), 2)
        assert not isinstance(registry.fused("relu", x.data), ModuleType)
    stack, seen = [loss, pooled], 0
    while stack:
        node = stack.pop().creator
        if node is not None:
            stack += node.inputs
            if hasattr(node, "kernel"):
                seen += 1
                assert isinstance(node.kernel, ModuleType)
    assert seen >= 4
    for found in (registry.fused("relu", x.data), registry.recurrence("lstm", T, N, H, x.data), kernels.load("lstm", "numpy")):
        assert isinstance(found, ModuleType)
    loss.backward()


def test_results_are_the_same_bits_as_without():
    x, gradients = leaf(T, N, D, dtype="f4").detach(), []
    for watched in (False, True):
        model = Model()
        if watched:
            with profile():
                step(model, x)
        else:
            step(model, x)
        gradients.append([p.grad.numpy().tobytes() for p in model.parameters()])
    assert gradients[0] == gradients[1]


def test_an_operation_that_fails_leaves_the_rest_right():
    with profile() as cost:
        with pytest.raises(ValueError, match="broadcast"):
            leaf(2) + leaf(3)
        leaf(2) + leaf(2)
    assert find(cost, operation="Add").calls == 1


def test_an_operation_that_does_not_say_what_it_takes():
    with profile() as cost:
        (Slow.apply(leaf(2)) * 2).sum()
    assert find(cost, operation="Slow").flops is None
    assert find(cost, "layer", layer="").flops is None  # a sum with something unknown in it
    line = next(line for line in str(cost).splitlines() if "Slow" in line)
    assert line.split()[-2:] == ["-", "-"]


def test_nothing_is_kept_of_the_model():
    import gc
    import weakref

    model = Model()
    gone = weakref.ref(model)
    with profile() as cost:
        step(model, leaf(T, N, D, dtype="f4").detach())
    del model
    gc.collect()
    assert gone() is None
    assert find(cost, layer="head", operation="Linear", direction="forward").calls == 1


def test_two_profiles_see_the_same():
    with profile() as outer, profile() as inner:
        step(Model("numpy"), leaf(T, N, D, dtype="f4").detach())
    calls = [{(row.layer, row.operation, row.direction): row.calls for row in cost.rows()} for cost in (outer, inner)]
    assert calls[0] == calls[1]


def test_the_table():
    cost = Profile(
        0.002,
        _rows=[
            Row("a.l0", "Cheap", "forward", None, None, 1, 0.0001, 10**6, 50_000),
            Row("b", "Dear", "backward", None, None, 2, 0.0005, 3 * 10**6, None),
            Row("b", "Dear", "backward", None, "matmul numba multiply", 2, 0.0002, 10**6, 10**6),
        ],
    )
    operations, kernels = (part.splitlines() for part in str(cost).split("\n\n"))
    assert operations[0].split() == ["layer", "operation", "direction", "calls", "ms", "%", "MB", "MFLOP", "GFLOP/s"]
    assert operations[1].split() == ["b", "Dear", "backward", "2", "0.50", "25.0", "3.00", "-", "-"]
    assert operations[2].split() == ["a.l0", "Cheap", "forward", "1", "0.10", "5.0", "1.00", "0.050", "0.50"]
    assert operations[3].split() == ["total", "3", "0.60", "30.0", "4.00", "-", "-"]
    assert operations[4].split() == ["not", "in", "operations", "1.40", "70.0"]
    assert kernels[1].split() == ["b", "Dear", "backward", "matmul", "numba", "multiply", "2", "0.20", "10.0", "1.00", "1.000", "5.00"]
    assert len({len(line) for line in operations}) == 1
    assert cost.table(most=1).splitlines()[2].split() == ["1", "more", "1", "0.10", "5.0", "1.00", "0.050", "0.50"]
    assert str(Profile()).splitlines()[1].split()[0] == "total"
    with pytest.raises(ValueError, match="by must be one of place, layer, operation, step, kernel, got 'time'"):
        cost.rows("time")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="by must be one of"):
        cost.table("time")  # type: ignore[arg-type]


def test_json():
    with profile() as cost, no_grad():
        Model("numpy").loss(leaf(T, N, D, dtype="f4"))
    found = json.loads(json.dumps(cost.as_dict()))
    assert found.keys() == {"seconds", "operations", "kernels"}
    assert sum(row["calls"] for row in found["operations"]) == sum(row.calls for row in cost.rows())
    assert {"layer", "operation", "direction", "step", "kernel", "calls", "seconds", "bytes", "flops"} == found["kernels"][0].keys()
