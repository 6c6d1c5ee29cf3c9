"""Every Function states how many operations on numbers it takes, and an array that counts them finds the same."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from math import comb, prod
from types import ModuleType

import numpy as np
import pytest

from minirnn import checkpoint, nn, ops
from minirnn.autograd import Function, grad
from minirnn.checkpointing import _Checkpoint
from minirnn.diagnostics import Direction, Monitor, Results, monitored
from minirnn.kernels import flops, load
from minirnn.kernels.registry import CELLS, OPERATIONS, shown
from minirnn.ops.attention import Attend
from minirnn.ops.conv import Conv2d, MaxPool2d
from minirnn.ops.kalman import KalmanLogLikelihood
from minirnn.ops.latent import Gain
from minirnn.ops.layer import GRULayer, Layer, LSTMLayer
from minirnn.ops.linalg import Cholesky, LogAbsDet, Solve
from minirnn.tensor import Tensor

from .cases import CASES, Case
from .counting import Counting, counting

NOT_IN_NUMPY = {Solve, Cholesky, LogAbsDet, KalmanLogLikelihood, MaxPool2d}  # LAPACK, and comparisons: below, by closed formulas
EVERY = [
    pytest.param(function, case, id=f"{function.__name__}-{k}")
    for function, cases in CASES.items()
    if function not in NOT_IN_NUMPY | {_Checkpoint}
    for k, case in enumerate(cases)
]


class Count(Monitor):
    """What each operation states, and what is counted while it runs, but for what is beyond its equations."""

    def __init__(self) -> None:
        self.found: list[tuple[Function, Direction, int | None, int]] = []
        self.parts: list[int | None] = []

    def watch(self, function: Function, direction: Direction, compute: Callable[[], Results]) -> Results:
        self.parts.append(0)
        before = Counting.total
        results = compute()
        counted, inside = Counting.total - before, self.parts.pop()
        stated = function.flops() if direction == "forward" else function.backward_flops()
        if direction == "backward" and stated is None:  # it is made of operations
            stated = inside
        if self.parts:
            above = self.parts[-1]
            self.parts[-1] = None if stated is None or above is None else above + stated
        self.found.append((function, direction, stated, counted - beyond(function, direction)))
        return results

    def of(self, function: type[Function]) -> list[tuple[Function, Direction, int | None, int]]:
        return [found for found in self.found if type(found[0]) is function]


def beyond(function: Function, direction: Direction) -> int:
    """What the NumPy implementation does beside the equations."""
    if isinstance(function, Layer) and function.has_bias:
        H = function.inputs[2].shape[1]
        folded = {GRULayer: 2, LSTMLayer: 4}.get(type(function), 1) * H  # b_ih + b_hh, in either pass
    else:
        folded = 0
    if isinstance(function, Layer) and direction == "backward":  # the gradients of the weights, summed over the pieces
        own = function.inputs[2].shape[1] if isinstance(function, GRULayer) else 0
        each = sum(t.size for t in function.inputs[1:3]) + len(function.inputs[1]) * function.bias + own
        return folded + (len(function.pieces) - 1) * each
    if isinstance(function, Conv2d) and direction == "backward" and function.needs[0]:
        x, w = function.inputs[:2]
        return prod(w.shape[1:]) * len(x) * prod(function.window.places(x.shape))  # its products' results, summed over the windows
    if isinstance(function, Attend) and direction == "backward":
        k, there = function.inputs[1], function.there
        seen = [k.shape[1] if there is None else int(there[n].sum()) for n in set(function.owners.tolist())]
        return sum(seen) * k.shape[2]  # dk: two products, added
    if isinstance(function, Gain) and direction == "forward":
        (S, _), Z, H = function.inputs[0].shape, function.inputs[-1].shape[1], function.inputs[1].shape[1]
        return S * (3 * H + 5 * Z)  # tanh(x) as 2 sigmoid(2 x) - 1, and softplus in six operations
    return folded


def in_numpy(module: ModuleType) -> ModuleType:
    """The NumPy implementation of the same: compiled code does not count."""
    return import_module(module.__name__.replace("numba_cpu", "numpy_"))


def run(case: Case, monitor: Monitor) -> None:
    with counting(), monitored(monitor), shown(in_numpy), np.errstate(all="ignore"):
        inputs = [Tensor(np.asarray(x, float), requires_grad=True) for x in case.inputs]
        outputs = case.f(*inputs)
        outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
        grad(outputs, inputs, [Tensor(np.ones(y.shape)) for y in outputs], allow_unused=True)


@pytest.mark.parametrize(("function", "case"), EVERY)
def test_what_a_function_states_is_what_an_array_counts(function: type[Function], case: Case) -> None:
    seen = Count()
    run(case, seen)
    assert seen.of(function)
    for _, direction, stated, counted in seen.of(function):
        assert stated == counted, (function.__name__, direction)


def test_the_check_finds_a_wrong_count(monkeypatch: pytest.MonkeyPatch) -> None:
    tanh, case = ops.elementwise.Tanh, CASES[ops.elementwise.Tanh][0]
    monkeypatch.setattr(tanh, "each", 2)
    with pytest.raises(AssertionError):
        test_what_a_function_states_is_what_an_array_counts(tanh, case)
    monkeypatch.undo()
    monkeypatch.setattr(tanh, "flops", Function.flops)
    with pytest.raises(AssertionError):
        test_what_a_function_states_is_what_an_array_counts(tanh, case)


def test_every_function_has_a_count() -> None:
    """A new Function is in CASES (see test_gradients.py); this is about those that the counting array does not see."""
    for function in NOT_IN_NUMPY | {_Checkpoint}:
        seen = Count()
        run(CASES[function][0], seen)
        assert all(stated is not None for _, _, stated, _ in seen.of(function)), function.__name__


def test_every_kernel_has_counts() -> None:
    """... of each function that operations call."""
    called = {"forward", "backward", "step", "steps", "gates", "multiply", "apply", "total", "filter", "smooth", "score"}
    for cell in (*CELLS, *OPERATIONS):
        names = {(cell, name) for name in called if hasattr(load(cell, "numpy"), name)}
        assert names
        assert names <= flops.CALLS.keys(), f"no count in minirnn.kernels.flops for {names - flops.CALLS.keys()}"


def cost(f: Callable[..., object], *shapes: tuple[int, ...]) -> int:
    """Of the operations of f, forward."""
    seen = Count()
    with monitored(seen):
        f(*[Tensor(np.ones(shape) + np.eye(*shape[-2:]) if len(shape) > 1 else np.ones(shape)) for shape in shapes])
    return sum(stated or 0 for _, direction, stated, _ in seen.found if direction == "forward")


@pytest.mark.parametrize("n", [1, 2, 7, 40])
def test_elimination_by_counting_its_steps(n: int) -> None:
    """A multiply-add for each element right of and below a pivot, of the leading order: the sum of j^2 is n^3 / 3."""
    steps = 2 * sum((n - 1 - k) ** 2 for k in range(n))
    assert abs(cost(ops.slogdet, (n, n)) - steps) <= 2 * comb(n, 2) + n
    assert abs(2 * cost(ops.cholesky, (n, n)) - steps) <= 2 * comb(n, 2) + n  # one half of the matrix
    solved = steps + 3 * 2 * sum(range(n)) * 2  # two triangles for each of three columns
    assert abs(cost(ops.solve, (n, n), (n, 3)) - solved) <= 2 * comb(n, 2) + 7 * n


def test_pooling_compares_all_that_a_window_sees() -> None:
    assert cost(lambda x: ops.max_pool2d(x, (2, 3), (2, 1)), (2, 3, 4, 5)) == 2 * 3 * (2 * 3) * (2 * 3)


@pytest.mark.parametrize(("n", "p"), [(30, 20), (20, 30)])
def test_the_kalman_filter_is_its_products(n: int, p: int) -> None:
    """Of the products of the NumPy filter, symmetric results in full, the count is somewhat less, and more than half."""
    rng = np.random.default_rng(0)
    shapes = {"A": (n, n), "Q": (n, n), "C": (p, n), "R": (p, p), "b": (n,), "d": (p,), "m0": (n,), "P0": (n, n)}
    arrays = [rng.standard_normal(shape) / 10 + (np.eye(*shape) if name in "QRP0" else 0) for name, shape in shapes.items()]
    arrays = [a @ a.T if name in ("Q", "R", "P0") else a for name, a in zip(shapes, arrays, strict=True)]
    case = Case(lambda *x: ops.kalman_log_likelihood(*x, y=np.ones((1, 3, p)), kernel="numpy"), arrays)
    seen = Count()
    run(case, seen)
    assert len(seen.of(KalmanLogLikelihood)) == 2
    for _, _, stated, counted in seen.of(KalmanLogLikelihood):
        assert counted / 2 < (stated or 0) < counted * 1.1  # the inverse and the solves are LAPACK's, which is not counted


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("lengths", [[1], [3, 2, 2], [5, 5, 4, 1]])
def test_a_fused_layer_takes_what_its_primitive_operations_take(name: str, lengths: list[int]) -> None:
    """Forward, but for a GRU: its biases are summed by an operation, and (1 - u) n + u h takes one more than n + u (h - n)."""
    kind = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[name]
    T, H, totals = max(lengths), 4, []
    for implementation in ("numpy", "unrolled"):
        layer = kind(3, H, kernel=implementation, bias=name == "gru", rng=0)
        seen = Count()
        with monitored(seen):
            layer(Tensor(np.ones((T, len(lengths), 3), "f")), lengths=np.array(lengths))
        totals.append(sum(stated or 0 for _, direction, stated, _ in seen.found if direction == "forward"))
    assert totals[1] - totals[0] == (2 * H + sum(lengths) * H if name == "gru" else 0)


def test_a_layer_by_hand() -> None:
    """T = 20 steps of N = 16, D = 64, H = 32: 2 (64 + 32) 4 H of products a row; 4 H of bias, 4 H sums, 4 H gates, 5 H more; and back."""
    T, N, D, H = 20, 16, 64, 32
    rows, seen = T * N, Count()
    layer, x = nn.LSTM(D, H, rng=0), Tensor(np.ones((T, N, D), "f"))
    with monitored(seen):
        layer(x)[0].sum().backward()
    assert seen.of(LSTMLayer)[0][2] == rows * (2 * (D + H) * 4 * H + 4 * H + 13 * H)
    assert seen.of(LSTMLayer)[1][2] == rows * (2 * D * 4 * H + 2 * 2 * H * 4 * H + 4 * H + 24 * H)  # no dx: dw_ih, dw_hh and dz w_hh


def test_the_products_are_those_that_pytorch_counts() -> None:
    torch = pytest.importorskip("torch", reason="compares with PyTorch's FlopCounterMode")
    from torch.utils.flop_counter import FlopCounterMode

    x, w, v = (np.random.default_rng(k).standard_normal(shape) for k, shape in enumerate([(5, 3, 8, 8), (4, 3, 3, 3), (6, 144)]))

    def theirs() -> int:
        with FlopCounterMode(display=False) as counter:
            a, b, c = (torch.tensor(array, requires_grad=True) for array in (x, w, v))
            (torch.conv2d(a, b).reshape(5, 144) @ c.T).sum().backward()
        return int(counter.get_total_flops())

    products = Count()
    with monitored(products):
        a, b, c = (Tensor(array, requires_grad=True) for array in (x, w, v))
        (ops.conv2d(a, b).reshape(5, 144) @ c.T).sum().backward()
    ours = [stated for node, _, stated, _ in products.found if type(node).__name__ in ("Conv2d", "MatMul")]
    assert sum(n or 0 for n in ours) == theirs()


def test_a_checkpoint_is_what_runs_in_it() -> None:
    x, seen = Tensor(np.ones((2, 3)), requires_grad=True), Count()
    with monitored(seen):
        checkpoint(lambda x: ops.tanh(x), x).sum().backward()
    stated = {(type(node).__name__, direction): stated for node, direction, stated, _ in seen.found}
    assert stated["_Checkpoint", "forward"] == 0
    assert stated["_Checkpoint", "backward"] == 6 + 18  # tanh again, and dy (1 - y y)
