"""z, the gates and dz share their memory: nobody who holds an array may notice, and none grows with the number of steps."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from minirnn import Tensor, grad, nn, ops

KINDS = [nn.LSTM, nn.GRU, nn.RNN]
KERNELS = ["numpy", "numba"]
LENGTHS = [5, 2, 4]


def draw(*shape: int, seed: int = 1) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


def states_of(last: Any) -> tuple[Tensor, ...]:
    return last if isinstance(last, tuple) else (last,)


def made(kind: Any, kernel: str, **options: Any) -> Any:
    return kind(3, 4, 2, bidirectional=True, kernel=kernel, rng=0, **options).to("float64")


@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_graph_that_is_kept_gives_the_same_again_and_last(kind: Any, kernel: str, lengths: Any) -> None:
    """Twice with the graph kept, then once with dz written over the gates: the same bits."""
    layer, x = made(kind, kernel), Tensor(draw(5, 3, 3), requires_grad=True)
    output, last = layer(x, lengths=lengths)
    loss = (output * output).sum() + sum((s * s * s).sum() for s in states_of(last))
    wanted = [x, *layer.parameters()]
    found = [grad(loss, wanted, retain_graph=keep) for keep in (True, True, False)]
    for first, second, third in zip(*found, strict=True):
        np.testing.assert_array_equal(first.data, second.data)
        np.testing.assert_array_equal(first.data, third.data)
    with pytest.raises(RuntimeError, match="freed by an earlier backward"):
        grad(loss, wanted)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_the_caller_holds_is_never_written_to(kind: Any, kernel: str) -> None:
    """Input, states, weights, the output, the last states, and the gradients passed in, before and after the backward pass."""
    layer = kind(3, 4, kernel=kernel, rng=0).to("float64")
    first = [Tensor(draw(1, 3, 4, seed=k), requires_grad=True) for k in range(len(layer.state_names))]
    x, seed = Tensor(draw(5, 3, 3), requires_grad=True), Tensor(draw(5, 3, 4, seed=9))
    output, last = layer(x, tuple(first) if len(first) > 1 else first[0])
    held = [x, seed, output, *first, *states_of(last), *layer.parameters()]
    copies = [t.data.copy() for t in held]
    output.backward(seed)
    for t, copy in zip(held, copies, strict=True):
        np.testing.assert_array_equal(t.data, copy)
    gradients = [t.grad.data for t in (x, *first, *layer.parameters())]
    for k, a in enumerate(gradients):  # each leaf may change its own in place
        assert not any(np.shares_memory(a, b) for b in gradients[k + 1 :])
        assert not any(np.shares_memory(a, t.data) for t in held)


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_output_is_used_after_its_graph_is_gone(kernel: str) -> None:
    layer, x = nn.RNN(3, 4, kernel=kernel, rng=0).to("float64"), Tensor(draw(5, 3, 3))
    output, _ = layer(x)
    copy = output.numpy().copy()
    output.sum().backward()
    layer(Tensor(draw(5, 3, 3, seed=7)))[0].sum().backward()
    np.testing.assert_array_equal(output.numpy(), copy)


@pytest.mark.parametrize("kind", KINDS)
def test_a_backward_pass_that_failed_half_way_is_not_taken_for_whole(kind: Any) -> None:
    """The gates may be overwritten already: going through the graph again is refused, as for one that was freed."""
    layer, x = kind(3, 4, kernel="numba", rng=0), Tensor(draw(5, 3, 3).astype("f"), requires_grad=True)
    h = layer(x)[0]
    node: Any = h.creator
    backward = node.kernel.backward

    class Failing:
        in_place = True

        @staticmethod
        def backward(*arguments: Any, **options: Any) -> Any:
            backward(*arguments, **options)
            raise MemoryError("planted")

    kernel, node.kernel = node.kernel, Failing
    with pytest.raises(MemoryError, match="planted"):
        h.sum().backward()
    node.kernel = kernel
    with pytest.raises(RuntimeError, match="freed by an earlier backward"):
        h.sum().backward()


@pytest.mark.parametrize("recompute", [0.0, 1.0])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_no_more_allocations_for_more_steps(kind: Any, recompute: float) -> None:
    """Blocks that are alive after a forward pass, and the most bytes in either pass beyond those that belong to rows."""
    layer = kind(16, 16, kernel="numba", recompute=recompute, rng=0)

    def blocks(T: int) -> int:
        x = Tensor(np.ones((T, 4, 16), "f"), requires_grad=True)
        layer(x)[0].sum().backward()  # what is made once is made
        layer.zero_grad()
        tracemalloc.start()
        output, last = layer(x)
        snapshot = tracemalloc.take_snapshot()
        tracemalloc.stop()
        assert output is not None
        assert last is not None
        return sum(
            trace.count
            for trace in snapshot.filter_traces([tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)]).statistics("lineno")
        )

    assert blocks(200) == blocks(100) > 0


def test_a_frozen_layer_makes_no_gradient_of_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    products = []
    from minirnn.ops import layer as operation

    product = operation.product
    monkeypatch.setattr(
        operation, "product", lambda xp, a, b, *rest, **named: products.append(a.shape) or product(xp, a, b, *rest, **named)
    )
    lstm, x = nn.LSTM(3, 4, rng=0), draw(5, 2, 3).astype("f")
    for weights, of_input, count in ((True, True, 3), (True, False, 2), (False, True, 2)):
        products.clear()
        lstm.requires_grad_(weights)
        lstm(Tensor(x, of_input))[0].sum().backward()
        assert len(products) == count  # z, and of dx and dw_ih those that somebody needs
    lstm.zero_grad()
    lstm.requires_grad_(False)
    ops.sum(lstm(Tensor(x, True))[0]).backward()
    assert all(p.grad is None for p in lstm.parameters())
