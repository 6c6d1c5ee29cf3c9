"""Every tap of a trace against the same recurrence written out here, one sequence and one step at a time, with hooks on its tensors."""

from __future__ import annotations

import copy
import gc
import weakref
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minirnn as mr
from minirnn import ops
from minirnn.device import to_device
from minirnn.kernels import kernels, load
from minirnn.kernels.lstm import numpy_ as lstm_numpy
from minirnn.recorder import recorder
from minirnn.study.trace import GATES, STATES, Trace
from tests.devices import DEVICE, NEEDED

Array = np.ndarray[Any, Any]
LAYERS = {"lstm": mr.nn.LSTM, "gru": mr.nn.GRU, "rnn": mr.nn.RNN}
CELLS = {"lstm": mr.nn.LSTMCell, "gru": mr.nn.GRUCell, "rnn": mr.nn.RNNCell}
KERNELS = ["numpy", "numba", "unrolled"]
ROUNDING = {np.dtype(np.float64): 1e-10, np.dtype(np.float32): 1e-5}  # hundreds of roundings of what is of the size of the array's largest


class Written:
    """What the recurrence written out here has: notes[layer][what][t, n], from tensors and from hooks on them."""

    def __init__(self) -> None:
        self.notes: dict[str, dict[str, dict[tuple[int, int], Array]]] = defaultdict(lambda: defaultdict(dict))

    def note(self, layer: str, what: str, t: int, n: int, tensor: mr.Tensor) -> None:
        self.notes[layer][what][t, n] = tensor.data[0]
        if what in "hcz":
            tensor.register_hook(lambda grad: self.notes[layer]["d" + what].__setitem__((t, n), grad.data[0]))

    def step(self, cell: str, x: mr.Tensor, state: Sequence[mr.Tensor], weights: Sequence[mr.Tensor], note: Callable[..., None]) -> Any:
        w_ih, w_hh, b_ih, b_hh = weights
        z, a, H = x @ w_ih.T + b_ih, state[0] @ w_hh.T + b_hh, w_hh.shape[1]
        note("z", z)
        if cell == "rnn":
            after = ((z + a).tanh(),)
        elif cell == "gru":
            r, u = ops.sigmoid(z[:, :H] + a[:, :H]), ops.sigmoid(z[:, H : 2 * H] + a[:, H : 2 * H])
            n = (z[:, 2 * H :] + r * a[:, 2 * H :]).tanh()
            after = ((1 - u) * n + u * state[0],)
            gates = {"r": r, "u": u, "n": n}
        else:
            i, f, g, o = (phi((z + a)[:, k * H : (k + 1) * H]) for k, phi in enumerate((ops.sigmoid, ops.sigmoid, ops.tanh, ops.sigmoid)))
            c = f * state[1] + i * g
            after = (o * c.tanh(), c)
            gates = {"i": i, "f": f, "g": g, "o": o}
        for name, gate in gates.items() if cell != "rnn" else ():
            note(name, gate)
        for name, tensor in zip("hc", after, strict=False):
            note(name, tensor)
        return after

    def run(self, cell: str, model: Any, x: mr.Tensor, lengths: Sequence[int], first: Sequence[mr.Tensor] | None) -> Any:
        """The outputs, by sequence, and the last states, by layer and direction, of all sequences."""
        outputs, last = [], []
        for n, length in enumerate(lengths):
            rows = [x[t : t + 1, n] for t in range(length)]
            lasts = []
            for k in range(model.num_layers):
                found = []
                for suffix in model._suffixes(k):
                    backwards = suffix.endswith("reverse")
                    zeros = mr.Tensor(np.zeros((1, model.hidden_size), x.dtype))
                    state = [s[len(lasts), n : n + 1] for s in first] if first else [zeros] * len(STATES[cell])
                    hs: list[Any] = [None] * length
                    for t in reversed(range(length)) if backwards else range(length):
                        state = self.step(
                            cell,
                            rows[t],
                            state,
                            model._weights(suffix),
                            lambda what, tensor, t=t, n=n, name=suffix[1:]: self.note(name, what, t, n, tensor),
                        )
                        hs[t] = state[0]
                    found.append(hs)
                    lasts.append(state)
                rows = [ops.concatenate(list(both), 1) for both in zip(*found, strict=True)]
            outputs.append(rows)
            last.append(lasts)
        return outputs, last


def check(t: Trace, written: Written) -> None:
    """Everything that was noted stands in the trace, and nothing else."""
    assert set(t.layers) == set(written.notes)
    for name, notes in written.notes.items():
        layer = t[name]
        H = layer.H
        z = {f"d{what}": notes[f"d{what}"] for what in (*STATES[layer.cell], "z")}
        for what in (*GATES[layer.cell], *STATES[layer.cell], *z):
            found, expected = getattr(layer, what), notes[what]
            assert found.shape == (layer.T, layer.N, H if what != "dz" else found.shape[2])
            scale = max(np.abs(value).max() for value in expected.values())
            for step in np.ndindex(layer.T, layer.N):
                if step in expected:
                    assert np.abs(found[step] - expected[step]).max() <= ROUNDING[found.dtype] * scale, (name, what, step)
                else:
                    assert np.isnan(found[step]).all(), (name, what, step)


def model_of(cell: str, kernel: str, D: int, H: int, dtype: Any = np.float64, **options: Any) -> Any:
    if cell == "rnn":
        options.pop("recompute", None)
    return LAYERS[cell](D, H, kernel=kernel, rng=3, **options).to(dtype)


def problem(model: Any, lengths: Sequence[int], dtype: Any = np.float64, seed: int = 0, stateful: bool = True) -> Any:
    """x (T, N, D), first states, and the gradients of the outputs and of the last states."""
    rng = np.random.default_rng(seed)
    T, N, K, H = max(lengths), len(lengths), model.num_layers * (1 + model.bidirectional), model.hidden_size

    def draw(*shape: int) -> mr.Tensor:
        return mr.Tensor(rng.standard_normal(shape).astype(dtype), requires_grad=True)

    first = [draw(K, N, H) for _ in model.state_names] if stateful else None
    return draw(T, N, model.input_size), first, draw(T, N, H * (1 + model.bidirectional)), [draw(K, N, H) for _ in model.state_names]


def loss_of(model: Any, x: mr.Tensor, lengths: Sequence[int], first: Any, dy: mr.Tensor, d_last: Sequence[mr.Tensor]) -> mr.Tensor:
    state = None if first is None else first[0] if len(first) == 1 else tuple(first)
    y, last = model(x, state, lengths=list(lengths))
    last = (last,) if isinstance(last, mr.Tensor) else last
    return sum(((s * d.detach()).sum() for s, d in zip(last, d_last, strict=True)), (y * dy.detach()).sum())


def written_out(cell: str, model: Any, x: mr.Tensor, lengths: Sequence[int], first: Any, dy: mr.Tensor, d_last: Any) -> Written:
    written = Written()
    outputs, last = written.run(cell, model, x.detach(), lengths, first and [s.detach() for s in first])
    total = 0
    for n, rows in enumerate(outputs):
        total = sum(((h * dy.data[t, n]).sum() for t, h in enumerate(rows)), total)
        total = sum(((s * d.data[k, n]).sum() for k, state in enumerate(last[n]) for s, d in zip(state, d_last, strict=True)), total)
    total.backward()
    return written


def traced(cell: str, kernel: str, lengths: Sequence[int], D: int = 3, H: int = 4, stateful: bool = True, **options: Any) -> Any:
    model = model_of(cell, kernel, D, H, **options)
    given = problem(model, lengths, stateful=stateful)
    with mr.study.trace() as t:
        loss_of(model, given[0], lengths, *given[1:]).backward()
    return t, model, given


lengths_of_sequences = st.lists(st.integers(1, 5), min_size=1, max_size=4)


@given(
    st.sampled_from(list(LAYERS)),
    st.sampled_from(KERNELS),
    lengths_of_sequences,
    st.sampled_from([1, 2, 3, 9]),
    st.integers(1, 2),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0.0, 0.5, True]),
)
def test_every_tap_is_that_of_the_recurrence_written_out(
    cell: str, kernel: str, lengths: list[int], H: int, layers: int, bidirectional: bool, stateful: bool, recompute: float
) -> None:
    options = {"num_layers": layers, "bidirectional": bidirectional} | ({} if cell == "rnn" else {"recompute": recompute})
    t, model, given_ = traced(cell, kernel, lengths, 3, H, stateful, **options)
    check(t, written_out(cell, model, given_[0], lengths, *given_[1:]))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("cell", LAYERS)
def test_float32_and_many_pieces(cell: str, kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from minirnn.ops import pieces

    monkeypatch.setattr(pieces, "ROWS", 3)
    for recompute in (0.0, 0.6):
        model = model_of(cell, kernel, 3, 5, np.float32, bidirectional=True, **({} if cell == "rnn" else {"recompute": recompute}))
        lengths = [7, 2, 5]
        x, *rest = problem(model, lengths, np.float32)
        with mr.study.trace() as t:
            loss_of(model, x, lengths, *rest).backward()
        assert t["l0"].dh.dtype == np.float32
        check(t, written_out(cell, model, x, lengths, *rest))


def planted(change: Callable[[Any, tuple[Array, ...]], None]) -> Callable[..., Any]:
    right = lstm_numpy.backward

    def backward(tape: Any, *arrays: Any, taps: Any = None, **options: Any) -> Any:
        results = right(tape, *arrays, taps=taps, **options)
        change(tape, taps)
        return results

    return backward


def scaled(tape: Any, taps: tuple[Array, ...]) -> None:
    taps[0][...] *= 1.001


def shifted(tape: Any, taps: tuple[Array, ...]) -> None:
    taps[1][3:] = taps[1][:-3].copy()


def before_2_5(tape: Any, taps: tuple[Array, ...]) -> None:
    H = tape.h.shape[1]
    taps[1][...] -= taps[0] * tape.gates[:, 3 * H :] * (1 - np.tanh(tape.c) ** 2)


@pytest.mark.parametrize("mistake", [scaled, shifted, before_2_5])
def test_the_check_catches(mistake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = [4, 4, 4]
    t, model, given_ = traced("lstm", "numpy", lengths)
    written = written_out("lstm", model, given_[0], lengths, *given_[1:])
    check(t, written)
    monkeypatch.setattr(lstm_numpy, "backward", planted(mistake))
    t, *_ = traced("lstm", "numpy", lengths)
    with pytest.raises(AssertionError):
        check(t, written)


@pytest.mark.parametrize("cell", LAYERS)
def test_a_kernel_without_taps_can_be_traced(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load(cell, "numba"), "taps", False)
    lengths = [5, 2, 3]
    t, model, given_ = traced(cell, "numba", lengths, num_layers=2, bidirectional=True)
    check(t, written_out(cell, model, given_[0], lengths, *given_[1:]))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("cell", LAYERS)
def test_contributions_add_up_to_the_gradients(cell: str, kernel: str) -> None:
    lengths = [5, 2, 4]
    t, model, (x, *_) = traced(cell, kernel, lengths, num_layers=2, bidirectional=True, dropout=0.5)
    for name in t.layers:
        layer = t[name]
        weights = dict(zip(("w_ih", "w_hh", "b_ih", "b_hh"), model._weights("_" + name), strict=True))
        for weight, parameter in weights.items():
            matrices = np.array([layer.step_gradient(weight, k) for k in range(layer.T)])  # (T, ...)
            np.testing.assert_allclose(matrices.sum(0), parameter.grad.data, rtol=1e-10, atol=1e-12)
            norms = np.sqrt((matrices**2).reshape(layer.T, -1).sum(1))
            np.testing.assert_allclose(layer.contribution(weight), norms, rtol=1e-10, atol=1e-14)
        for n in range(layer.N):  # of one sequence alone
            alone = np.linalg.norm(layer.dz[: lengths[n], n, :, None] * np.ones(1), axis=(1, 2))
            np.testing.assert_allclose(layer.contribution("b", per_sequence=True)[: lengths[n], n], alone, rtol=1e-10)
            assert not layer.contribution("b", per_sequence=True)[lengths[n] :, n].any()
        np.testing.assert_array_equal(layer.contribution("b"), layer.contribution("b_ih"))
    dx = np.nan_to_num(t["l0"].dx + t["l0_reverse"].dx)
    np.testing.assert_allclose(dx, x.grad.data, rtol=1e-10, atol=1e-12)


def test_contributions_of_each_sequence_are_norms_of_outer_products() -> None:
    lengths = [4, 2, 3]
    t, _, (x, first, *_) = traced("lstm", "numba", lengths)
    layer = t["l0"]
    before = np.concatenate([first[0].data, layer.h[:-1]])  # (T, N, H)
    for weight, read in (("w_ih", x.data), ("w_hh", before)):
        found = layer.contribution(weight, per_sequence=True)
        for step, n in np.ndindex(layer.T, layer.N):
            expected = np.linalg.norm(np.outer(layer.dz[step, n], read[step, n])) if step < lengths[n] else 0
            assert abs(found[step, n] - expected) <= 1e-10 * max(1, expected)


def results(run: Callable[[], mr.Tensor], parameters: Sequence[Any]) -> list[Array]:
    for p in parameters:
        p.grad = None
    loss = run()
    loss.backward()
    return [loss.data, *(p.grad.data for p in parameters if p.grad is not None)]


@pytest.mark.parametrize("recompute", [0.0, 0.5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("cell", LAYERS)
def test_results_have_the_same_bits_with_a_trace_and_without(cell: str, kernel: str, dtype: Any, recompute: float) -> None:
    options = {} if cell == "rnn" else {"recompute": recompute}
    model = model_of(cell, kernel, 3, 9, dtype, num_layers=2, bidirectional=True, **options)
    lengths = [6, 1, 4]
    x, first, *rest = problem(model, lengths, dtype)
    leaves = [x, *first, *model.parameters()]
    off = results(lambda: loss_of(model, x, lengths, first, *rest), leaves)
    with mr.study.trace():
        on = results(lambda: loss_of(model, x, lengths, first, *rest), leaves)
    for a, b in zip(on, off, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("cell", LAYERS)
def test_steps_without_gradients_are_traced_and_have_the_same_bits(cell: str, kernel: str, rng: np.random.Generator) -> None:
    model = model_of(cell, kernel, 3, 4, num_layers=2)
    xs = [mr.Tensor(rng.standard_normal((1, 2, 3))) for _ in range(4)]

    def decode() -> list[Array]:
        state, outputs = None, []
        with mr.no_grad():
            for x in xs:
                y, state = model(x, state)
                outputs.append(y.data)
        return outputs

    off = decode()
    with mr.study.trace() as t:
        on = decode()
    np.testing.assert_array_equal(on, off)
    layer = t["l1"]
    assert len(t.passes("l1")) == 1
    assert layer.T == 4
    np.testing.assert_array_equal(layer.h, np.concatenate(off))
    with mr.study.trace() as again:
        model(ops.concatenate(xs))
    for name in (*GATES[cell], *STATES[cell]):
        np.testing.assert_allclose(getattr(layer, name), getattr(again["l1"], name), rtol=1e-10, atol=1e-13)
    with pytest.raises(RuntimeError, match=r"l1\.dh: no backward pass has gone through this layer inside the trace; call \.backward\(\)"):
        _ = layer.dh


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("cell", CELLS)
def test_the_calls_of_a_cell_are_joined_along_time(cell: str, kernel: str) -> None:
    layers = model_of(cell, kernel, 3, 4)
    single = CELLS[cell](3, 4, kernel=kernel).to(np.float64)
    single.load_state_dict({name.removesuffix("_l0"): value for name, value in layers.state_dict().items()})
    x, _, dy, _ = problem(layers, [5, 5], stateful=False)
    with mr.study.trace() as whole:
        (layers(x)[0] * dy.detach()).sum().backward()
    holder = mr.nn.Sequential(single)
    with mr.study.trace() as t:
        for _ in range(2):
            state, total = None, 0
            for step in range(5):
                state = single(x[step], state)
                total += ((state if isinstance(state, mr.Tensor) else state[0]) * dy.data[step]).sum()
            total.backward()
    (name,) = t.layers
    assert name == single.path() != ""
    assert holder is not None
    assert [found.T for found in t.passes(name)] == [5, 5]
    for what in (*GATES[cell], *STATES[cell], *("d" + s for s in STATES[cell]), "dz", "dx"):
        np.testing.assert_allclose(getattr(t[name], what), getattr(whole["l0"], what), rtol=1e-10, atol=1e-13, err_msg=what)
    np.testing.assert_allclose(t[name].contribution("w_hh"), whole["l0"].contribution("w_hh"), rtol=1e-10, atol=1e-13)


def test_sequences_that_have_ended_may_be_left_out() -> None:
    """As a decoder does, step by step, and truncated back-propagation over a ragged batch."""
    model = model_of("lstm", "numba", 3, 4)
    lengths = [2, 5, 1, 4]
    x, _, dy, _ = problem(model, lengths, stateful=False)
    with mr.study.trace() as whole:
        y, _ = model(x, lengths=lengths)
        (y * dy.detach()).sum().backward()
    with mr.study.trace() as t:
        live, state, total = np.arange(4), None, 0
        for step in range(5):
            going = np.array([lengths[n] > step for n in live])
            state = state and tuple(s[:, going] for s in state)
            live = live[going]
            y, state = model(x[step : step + 1, live], state)
            total += (y * dy.data[step : step + 1, live]).sum()
        total.backward()
    layer = t["l0"]
    assert len(t.passes("l0")) == 1
    assert list(layer.lengths) == lengths
    for what in ("i", "f", "g", "o", "h", "c", "dh", "dc", "dz", "dx"):
        np.testing.assert_allclose(getattr(layer, what), getattr(whole["l0"], what), rtol=1e-10, atol=1e-13, err_msg=what)
    np.testing.assert_allclose(layer.contribution("w_hh"), whole["l0"].contribution("w_hh"), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("single", [False, True])
def test_gradients_are_those_of_the_latest_backward_pass(kernel: str, single: bool) -> None:
    """Each loss alone: nothing comes to the steps after it, whatever an earlier pass has left there."""
    model = mr.nn.LSTMCell(3, 4, kernel=kernel, rng=0) if single else mr.nn.LSTM(3, 4, kernel=kernel, rng=0)
    x = mr.Tensor(np.random.default_rng(0).standard_normal((5, 2, 3)).astype(np.float32))
    with mr.study.trace() as t:
        if single:
            states: list[Any] = [model(x[0])]
            for step in range(1, 5):
                states.append(model(x[step], states[-1]))
            losses = [h.sum() for h, _ in states]
        else:
            h, _ = model(x)
            losses = [h[step].sum() for step in range(5)]
        for step in (4, 2, 3):
            losses[step].backward(retain_graph=True)
            layer = t[t.layers[0]]
            dh = layer.dh
            assert dh[: step + 1].any(axis=(1, 2)).all()
            assert not dh[step + 1 :].any()
            np.testing.assert_array_equal(dh[step], np.ones((2, 4)))
        kept = layer.dh.copy()
        losses[4].backward()
        np.testing.assert_array_equal(dh, kept)  # what was read stays
        assert layer.dh[4].any()


def test_truncated_chunks_are_joined_and_keep_their_own_gradients() -> None:
    model = model_of("lstm", "numba", 3, 4)
    x, _, dy, _ = problem(model, [6, 6], stateful=False)
    with mr.study.trace() as t:
        state = None
        for k in (0, 2, 4):
            y, state = model(x[k : k + 2], state)
            (y * dy.data[k : k + 2]).sum().backward()
            state = tuple(s.detach() for s in state)
    with mr.study.trace() as cut, mr.study.truncated(2):
        (model(x)[0] * dy.detach()).sum().backward()
    assert len(t.passes("l0")) == 1
    for what in ("h", "c", "dh", "dc", "dz"):
        np.testing.assert_allclose(getattr(t["l0"], what), getattr(cut["l0"], what), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_layer_that_is_computed_again_appears_once(kernel: str) -> None:
    model = model_of("lstm", kernel, 3, 4, num_layers=2)
    x, _, dy, _ = problem(model, [4, 4], stateful=False)

    def run(x: mr.Tensor) -> mr.Tensor:
        inner = mr.checkpoint(lambda x: model(x)[0], x)
        return inner * 2

    with mr.study.trace() as t:
        (mr.checkpoint(run, x) * dy.detach()).sum().backward()
        model(x)
    with mr.study.trace() as plain:
        (run(x) * dy.detach()).sum().backward()
    assert [len(t.passes(name)) for name in t.layers] == [2, 2]
    for name in ("l0", "l1"):
        for what in ("i", "h", "dh", "dc", "dz"):
            np.testing.assert_allclose(getattr(t.passes(name)[0], what), getattr(plain[name], what), rtol=1e-10, atol=1e-13)


def test_second_derivatives_are_traced_as_the_first_pass() -> None:
    model = model_of("lstm", "numba", 3, 4)
    x, *rest = problem(model, [3, 3])
    with mr.study.trace() as t:
        loss = loss_of(model, x, [3, 3], *rest)
        (dx,) = mr.grad(loss, x, create_graph=True)
        (dx * dx).sum().backward()
    assert len(t.passes("l0")) == 1
    np.testing.assert_allclose(t["l0"].dx, dx.data, rtol=1e-10, atol=1e-13)


def test_weights_that_change_inside_the_trace_change_nothing_in_it() -> None:
    model = model_of("lstm", "numba", 3, 4)
    x, *rest = problem(model, [3, 3])
    with mr.study.trace() as t:
        loss_of(model, x, [3, 3], *rest).backward()
        mr.optim.SGD(model.parameters(), lr=0.5).step()
    np.testing.assert_allclose(t["l0"].dx, x.grad.data, rtol=1e-10, atol=1e-13)


def test_nothing_is_recorded_outside() -> None:
    model = model_of("lstm", "numba", 3, 4)
    x, *rest = problem(model, [3, 2])
    assert recorder() is None
    with mr.study.trace() as t:
        loss = loss_of(model, x, [3, 2], *rest)
    assert recorder() is None
    loss.backward()
    y, _ = model(x, lengths=[3, 2])
    assert len(t.passes("l0")) == 1
    with pytest.raises(RuntimeError, match="no backward pass has gone through this layer inside the trace"):
        _ = t["l0"].dz
    node = y.creator
    while node is not None and not hasattr(node, "tapes"):
        node = node.inputs[0].creator
    assert node is not None
    assert node.call is None


def test_layers_have_the_names_of_the_model() -> None:
    from minirnn.models.seq2seq import Seq2Seq, Seq2SeqConfig, TranslationBatch

    model = Seq2Seq(Seq2SeqConfig(source_size=7, target_size=6, embedding=3, encoder_hidden=4, decoder_hidden=4), rng=0)
    with mr.study.trace() as t:
        model.loss(TranslationBatch([np.array([4, 5, 6]), np.array([4])], [np.array([4, 5]), np.array([5, 4, 4])])).backward()
    assert t.layers == ["encoder.l0", "encoder.l0_reverse", "decoder.l0"]
    assert t["encoder.l0_reverse"].reverse
    assert list(t["encoder.l0_reverse"].lengths) == [3, 1]
    total = sum(t["decoder.l0"].step_gradient("w_hh", k) for k in range(t["decoder.l0"].T))
    np.testing.assert_allclose(total, model.decoder.weight_hh_l0.grad.data, rtol=1e-4, atol=1e-7)


def test_a_call_that_fails_leaves_nothing() -> None:
    model = model_of("lstm", "numba", 3, 4)
    with mr.study.trace() as t, pytest.raises(TypeError):
        model(mr.Tensor(np.zeros((2, 1, 3), np.float32)))
    assert t.layers == []


def test_saturation_counts_units_near_the_ends() -> None:
    t, *_ = traced("lstm", "numba", [5, 3, 1], H=6)
    layer = t["l0"]
    for gate, below, above in (("i", 0.4, 0.6), ("g", 0.5, 0.2)):
        found = layer.saturation(gate, below, above)
        assert found.shape == (5, 2)
        low = -above if gate == "g" else below
        for step, running in enumerate(([0, 1, 2], [0, 1], [0, 1], [0], [0])):
            values = getattr(layer, gate)[step, running]
            np.testing.assert_allclose(found[step], [(values < low).mean(), (values > above).mean()])


def test_what_it_says_where_it_cannot() -> None:
    t, *_ = traced("gru", "numba", [3, 2], bidirectional=True)
    with pytest.raises(KeyError, match=r"trace: no layer 'encoder\.l0'; there are: l0, l0_reverse"):
        t["encoder.l0"]
    with mr.study.trace() as empty, pytest.raises(KeyError, match="no layer 'l0'; no recurrent layer was called inside the trace"):
        empty["l0"]
    with pytest.raises(AttributeError, match="'f': the trace of a gru layer has r u n h, dh, dz and dx"):
        _ = t["l0"].f
    with pytest.raises(AttributeError, match="'dc': the trace of a gru layer has r u n h, dh, dz and dx"):
        _ = t["l0"].dc
    with pytest.raises(ValueError, match='weight must be "w_ih", "w_hh", "b", "b_ih" or "b_hh", got \'w\''):
        t["l0"].contribution("w")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="saturation: gate must be one of r, u, n of a gru layer, got 'i'"):
        t["l0"].saturation("i")
    layer, x = mr.nn.LSTM(3, 4, rng=0), mr.Tensor(np.ones((2, 1, 3), np.float32))
    with mr.study.trace() as t:
        layer(x)[0].sum().backward()
        with mr.no_grad():
            layer(x)
    with pytest.raises(RuntimeError, match=r"this is one of 2 passes, see trace\.passes\('l0'\)"):
        _ = t["l0"].dh
    assert t.passes("l0")[0].dh.shape == (2, 1, 4)
    relu = mr.nn.RNN(3, 4, nonlinearity="relu", rng=0)
    with mr.study.trace() as t:
        relu(mr.Tensor(np.ones((2, 1, 3), np.float32)))
    with pytest.raises(ValueError, match="relu saturates at no value but 0"):
        t["l0"].saturation("h")


def test_it_is_a_mapping_and_notebooks_can_complete_its_names() -> None:
    t, *_ = traced("gru", "numba", [3, 2], bidirectional=True)
    assert {name: layer.reverse for name, layer in t.items()} == {"l0": False, "l0_reverse": True}
    assert t.get("l1") is None
    assert list(dict(t)) == t.layers
    assert {"r", "u", "n", "h", "dh", "dz", "dx"} <= set(dir(t["l0"]))
    assert not {"dc", "c", "i"} & set(dir(t["l0"]))
    np.testing.assert_array_equal(copy.copy(t["l0"]).dh, t["l0"].dh)


def test_a_step_that_there_is_not_has_no_gradient() -> None:
    t, *_ = traced("lstm", "numba", [3, 2])
    for step in (-1, 3):
        with pytest.raises(IndexError, match=rf"step_gradient: t must be a step of l0, 0 \.\. 2, got {step}"):
            t["l0"].step_gradient("w_hh", step)
    with pytest.raises(ValueError, match="step_gradient: weight must be"):
        t["l0"].step_gradient("w", 0)  # type: ignore[arg-type]


def test_two_models_of_one_trace() -> None:
    first, second = mr.nn.LSTM(3, 4, rng=0), mr.nn.GRU(3, 5, rng=0)
    x = mr.Tensor(np.ones((2, 1, 3), np.float32))
    with mr.study.trace() as t:
        first(x), second(x), first(x)
    assert t.layers == ["l0", "l0 (2)"]
    assert [t[name].cell for name in t] == ["lstm", "gru"]
    assert len(t.passes("l0")) == 2
    assert "l0" in t
    assert len(t) == 2
    assert repr(t) == "Trace(l0: lstm, T=2 N=1 H=4; l0 (2): gru, T=2 N=1 H=5)"


def check_lstm_gradients(layer: Any) -> None:
    """(2.4) to (2.9) between what was recorded: dc from dh and the dc of the step after, dz from both."""
    i, f, g, o, c, dh, dc = (getattr(layer, name) for name in ("i", "f", "g", "o", "c", "dh", "dc"))
    after = np.zeros_like(dc)
    after[:-1] = np.nan_to_num(dc[1:] * f[1:])
    np.testing.assert_allclose(dc, after + dh * o * (1 - np.tanh(c) ** 2), rtol=1e-9, atol=1e-12)
    before = np.concatenate([np.zeros_like(c[:1]), c[:-1]])
    expected = dc * g * i * (1 - i), dc * before * f * (1 - f), dc * i * (1 - g**2), dh * np.tanh(c) * o * (1 - o)
    np.testing.assert_allclose(layer.dz, np.concatenate(expected, 2), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("kind", "posterior"), [("ssm", "smoothing"), ("ssm", "filtering"), ("srnn", "")])
def test_state_space_models(kind: str, posterior: str, rng: np.random.Generator) -> None:
    sizes = {"observed": 2, "latent": 3, "hidden": 4, "encoder_hidden": 5, "combiner": 4}
    if kind == "ssm":
        from minirnn.models.neural_ssm import NeuralSSM, NeuralSSMConfig

        model: Any = NeuralSSM(NeuralSSMConfig(**sizes, posterior=posterior), rng=0).to(np.float64)  # type: ignore[arg-type]
    else:
        from minirnn.models.srnn import SRNN, SRNNConfig

        model = SRNN(SRNNConfig(**sizes), rng=0).to(np.float64)
    series = [rng.standard_normal((length, 2)) for length in (3, 6, 4)]
    with mr.study.trace() as t:
        model.loss(series).backward()
    assert t.layers == (["encoder.l0", "transition"] if kind == "ssm" else ["past.l0", "encoder.l0"])
    for name in t.layers:
        layer = t[name]
        assert list(layer.lengths) == [3, 6, 4]
        module, _, part = name.partition(".")
        weights = getattr(model, module)._weights(f"_{part}" if part else "")
        for weight, parameter in zip(("w_ih", "w_hh", "b_ih", "b_hh"), weights, strict=True):
            total = sum(layer.step_gradient(weight, k) for k in range(layer.T))
            np.testing.assert_allclose(total, parameter.grad.data, rtol=1e-9, atol=1e-12)
        if name != "encoder.l0" or posterior == "filtering":  # the others run from the end
            check_lstm_gradients(layer)


def test_time_is_that_of_the_series_where_a_model_turns_them(rng: np.random.Generator) -> None:
    """The encoder of a smoothing posterior reads from the end: what it sees of a step stands at that step."""
    from minirnn.nn import pack_sequence

    x = pack_sequence([rng.standard_normal((length, 2)) for length in (2, 4)])
    model = model_of("lstm", "numba", 2, 3)
    with mr.study.trace() as t:
        h = model(x.turned())[0].turned().unpack()
    np.testing.assert_array_equal(np.nan_to_num(t["l0"].h), h.data)
    assert t["l0"].reverse


@NEEDED
@pytest.mark.parametrize("kernel", ["cupy", "numba-cuda"])
@pytest.mark.parametrize("cell", LAYERS)
def test_layers_on_a_device(cell: str, kernel: str) -> None:
    (chosen,) = (k for k in kernels(cell) if k.name == kernel)
    if (why := chosen.why_not(np.float64, DEVICE)) is not None:
        pytest.skip(why)
    lengths = [3, 1]
    model = model_of(cell, kernel, 3, 4, bidirectional=True)
    x, *rest = problem(model, lengths)
    written = written_out(cell, model, x, lengths, *rest)
    moved = model.to(DEVICE)
    x, dy = (mr.Tensor(to_device(a.data, DEVICE)) for a in (x, rest[1]))
    first, d_last = ([mr.Tensor(to_device(s.data, DEVICE)) for s in states] for states in (rest[0], rest[2]))
    with mr.study.trace() as t:
        loss_of(moved, x, lengths, first, dy, d_last).backward()
    check(t, written)


def test_a_trace_goes_as_soon_as_nobody_looks() -> None:
    """Without the help of the collector of cycles, which may come many steps later, each with arrays of its own."""
    gc.disable()
    try:
        for kernel in KERNELS:
            t, *_ = traced("lstm", kernel, [3, 2])
            call = weakref.ref(t._recorder.calls[0])
            assert call() is not None
            del t, _
            assert call() is None
    finally:
        gc.enable()
