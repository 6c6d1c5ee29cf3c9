"""Devices: names, the context, moves one way and back, and the words where one cannot be used."""

from __future__ import annotations

import gc
import importlib
import importlib.util
import subprocess
import sys
import types
from collections.abc import Iterator

import numpy as np
import pytest

import minirnn as mr
from minirnn import Tensor, nn, ops, tensor
from minirnn.device import array_module, beside, current_device, device_of, peek, synchronize, to_device
from minirnn.distributions import Bernoulli, Categorical, Gaussian
from minirnn.kernels import availability

needs_emulator = pytest.mark.skipif(
    availability.missing("emulated") is not None, reason=f"the emulated device: {availability.missing('emulated')}"
)


@pytest.fixture
def _asked_anew() -> Iterator[None]:
    """What is missing is found out again, and what the test pretends is forgotten."""
    availability._cuda.cache_clear()
    availability.emulator_lacks.cache_clear()
    yield
    availability._cuda.cache_clear()
    availability.emulator_lacks.cache_clear()


def test_the_function_and_the_module_have_one_name():
    module = importlib.import_module("minirnn.device")
    assert mr.device is module.device
    assert mr.device("cpu") == "cpu"


@pytest.mark.parametrize("name", ["tpu", "cuda:", "cuda:x", "cpu:0", "emulated:1", "", None])
def test_a_name_that_is_none(name):
    with pytest.raises(ValueError, match=r'device must be "cpu", "cuda", "cuda:<index>" or "emulated", got'):
        mr.device(name)
    with pytest.raises(ValueError, match=r"device must be"):
        to_device(np.ones(1), name)


@pytest.mark.usefixtures("_asked_anew")
def test_without_cupy(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "cupy" else find(name, *rest))
    words = r'device "cuda" cannot be used here: CuPy is not installed; pip install "minirnn\[cuda12\]" .*, and device "emulated" runs'
    with pytest.raises(RuntimeError, match=words):
        mr.device("cuda")
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    with pytest.raises(RuntimeError, match=words):
        tensor(1.0).to("cuda")


@pytest.mark.usefixtures("_asked_anew")
def test_without_a_gpu():
    pytest.importorskip("cupy", reason="needs CuPy, and no GPU")
    if availability.missing("cuda") is None:
        with pytest.raises(RuntimeError, match=r'device "cuda:99" cannot be used here: there are \d+ GPUs, numbered from 0'):
            mr.device("cuda:99")
    else:
        with pytest.raises(RuntimeError, match=r'device "cuda" cannot be used here: .*no GPU.*; device "emulated" runs the same kernels'):
            mr.device("cuda")


@pytest.mark.usefixtures("_asked_anew")
def test_without_a_compiler(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(RuntimeError, match=r'device "emulated" cannot be used here: .*no-such-compiler'):
        mr.device("emulated")


def test_arrays_only():
    with pytest.raises(TypeError, match="expected a NumPy or CuPy array, got list"):
        array_module([1.0])


@needs_emulator
def test_new_tensors_live_on_the_device_of_the_context():
    emulated = mr.device("emulated")
    with emulated:
        made = [tensor([1.0, 2.0]), tensor(np.arange(3)), mr.ops.exp([0.0]), *nn.LSTM(2, 3, rng=0).parameters()]
        made.append(mr.distributions.standard_normal((2, 3)).mean)
        with mr.device("cpu"):
            assert tensor(1.0).device == current_device() == "cpu"
        with emulated:  # the same object, inside itself
            assert current_device() == "emulated"
        assert current_device() == "emulated"
    assert {t.device for t in made} == {"emulated"}
    assert tensor(1.0).device == current_device() == "cpu"
    assert tensor(made[0]).device == "emulated"


@needs_emulator
def test_the_context_ends_with_an_error():
    with pytest.raises(ZeroDivisionError), mr.device("emulated"):
        raise ZeroDivisionError
    assert current_device() == "cpu"


@needs_emulator
def test_there_and_back_with_its_gradient():
    x = tensor([[1.0, -2.0]], requires_grad=True)
    y = x.to("emulated")
    assert y.device == device_of(y.data) == "emulated"
    assert y.to("emulated") is y
    (y * 3).to("cpu").sum().backward()
    assert x.grad is not None
    assert x.grad.device == "cpu"
    np.testing.assert_array_equal(x.grad.numpy(), [[3, 3]])
    np.testing.assert_array_equal(y.numpy(), x.numpy())
    assert "device=emulated" in repr(y)


@needs_emulator
def test_devices_do_not_mix():
    x = tensor([1.0, 2.0])
    with pytest.raises(TypeError, match=r"operand 0 \(2,\) is float32 on cpu, operand 1 \(2,\) is float32 on emulated; .*\.to\(device\)"):
        _ = x + x.to("emulated")


@needs_emulator
def test_numbers_and_host_arrays_come_along():
    a = np.array([1.0, -2.0], np.float32)
    x = Tensor(a).to("emulated")
    for y, expected in [(x * 2, a * 2), (-0.0 * x, -0.0 * a), (x + a, a + a), (x - [1, 2], a - [1, 2]), (np.float32(3) / x, 3 / a)]:
        assert (y.device, y.dtype) == ("emulated", np.float32)
        np.testing.assert_array_equal(y.numpy(), expected.astype(np.float32))
        np.testing.assert_array_equal(np.signbit(y.numpy()), np.signbit(expected))
    assert (x > a - 1).numpy().all()
    assert (x < 0).numpy().tolist() == [False, True]


@needs_emulator
def test_a_read_only_array_is_moved_once():
    like = Tensor(np.zeros(1)).to("emulated").data
    ids = np.arange(3)
    assert beside(ids, like) is not beside(ids, like)
    ids.flags.writeable = False
    kept = beside(ids, like)
    assert beside(ids, like) is kept
    assert beside(kept, like) is kept
    view = np.arange(4)[:3]  # somebody may write to what it looks at
    view.flags.writeable = False
    assert beside(view, like) is not beside(view, like)
    moved = importlib.import_module("minirnn.device")._moved
    before = len(moved)
    del ids
    gc.collect()
    assert len(moved) == before - 1
    assert beside(view, np.zeros(1)) is view


@needs_emulator
def test_peek_looks_at_the_host_alone():
    assert peek(np.array(True), otherwise=False)
    assert not peek(np.array(False), otherwise=True)
    on_device = Tensor(np.array(True)).to("emulated").data
    assert peek(on_device, otherwise=True)
    assert not peek(on_device, otherwise=False)
    synchronize("emulated")
    synchronize()


@needs_emulator
def test_a_module_moves_and_its_state_with_it():
    with mr.device("emulated"):
        there = nn.GRU(2, 3, rng=1)
    here = nn.GRU(2, 3, rng=1)
    for (name, a), b in zip(there.state_dict().items(), here.state_dict().values(), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)
    here.to("emulated")
    assert {p.device for p in here.parameters()} == {"emulated"}
    here.load_state_dict({name: p.data for name, p in there.named_parameters()})
    there.load_state_dict(here.to("cpu").state_dict())
    assert {p.device for p in here.parameters()} == {"cpu"}


def test_asking_about_the_cpu_imports_no_cupy():
    code = (
        "import sys, minirnn as mr; mr.device('cpu'); mr.kernels.choose('lstm', dtype='float32'); mr.kernels.explain(2, 2, 2, 2);"
        "loaded = {'cupy', 'numba', 'minirnn.kernels.emulator'} & set(sys.modules); assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def _two_gpus(monkeypatch, _asked_anew) -> Iterator[None]:
    """The emulator's stand-in under CuPy's own name, with two GPUs: the code for "cuda" runs."""
    stand_in = importlib.import_module("minirnn.kernels.emulator.stand_in")
    monkeypatch.setattr(importlib.import_module("minirnn.device"), "STAND_IN", "")
    with stand_in.installed(), stand_in.device_properties(count=2):
        yield


@needs_emulator
@pytest.mark.usefixtures("_two_gpus")
def test_several_gpus():
    first = tensor([1.0, 2.0]).to("cuda")
    with mr.device("cuda:1") as second:
        x = tensor([1.0, 2.0], requires_grad=True)
        layer = nn.Linear(2, 3, rng=0)
        assert {p.device for p in layer.parameters()} == {x.device} == {second} == {"cuda:1"}
        (layer(x) * 2 + [1.0, 2.0, 3.0]).sum().backward()
        assert x.grad.device == "cuda:1"
        with mr.device("cuda:0"):
            assert tensor(0.0).device == "cuda:0"
        assert tensor(0.0).device == "cuda:1"
    assert first.device == "cuda:0"
    assert first.to("cuda:0") is first.to("cuda") is first
    with pytest.raises(TypeError, match=r"operand 0 \(2,\) is float32 on cuda:0, operand 1 \(2,\) is float32 on cuda:1"):
        _ = first + x
    np.testing.assert_array_equal(first.to("cuda:1").to("cpu").numpy(), [1, 2])
    assert first.to("cuda:1").device == "cuda:1"
    ids = np.arange(2)
    ids.flags.writeable = False
    assert [device_of(beside(ids, t.data)) for t in (first, x)] == ["cuda:0", "cuda:1"]
    synchronize("cuda:1")
    with pytest.raises(RuntimeError, match=r'device "cuda:2" cannot be used here: there are 2 GPUs, numbered from 0'):
        mr.device("cuda:2")


# Distributions, decoding, and watching a run


@needs_emulator
def test_distributions_draw_the_same_on_every_device():
    mean, log_std, logits = (np.random.default_rng(k).standard_normal((3, 4)) for k in range(3))
    results = []
    for device in ("cpu", "emulated"):
        m, s, lo = (Tensor(a).to(device) for a in (mean, log_std, logits))
        gaussian, bernoulli, categorical = Gaussian(m, s), Bernoulli(lo), Categorical(lo)
        drawn = [gaussian.sample(rng=1), Tensor(bernoulli.sample(2)), Tensor(categorical.sample(3))]
        assert {t.device for t in drawn} == {device}
        results.append(
            [
                *drawn,
                gaussian.log_prob(drawn[0]),
                gaussian.entropy(),
                gaussian.kl(Gaussian(s, m)),
                bernoulli.log_prob(drawn[1]),
                bernoulli.kl(Bernoulli(m)),
                categorical.log_prob(drawn[2]),
                categorical.entropy(),
                categorical.kl(Categorical(m)),
                mr.distributions.standard_normal_kl(gaussian),
            ]
        )
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(b.numpy(), a.numpy(), rtol=1e-12, atol=1e-14)


class Chain:
    """A model of the next token for the decoders: it depends on the last one alone, and looks at one of two places."""

    def __init__(self, device: str) -> None:
        self.table = ops.log_softmax(Tensor(np.random.default_rng(0).standard_normal((6, 6))).to(device))

    def step(self, tokens, state):
        attention = ops.softmax(self.table[tokens][:, :2]).data
        return self.table[tokens].data, types.SimpleNamespace(rows=state.rows, attention=attention)

    def select(self, state, rows):
        return types.SimpleNamespace(rows=state.rows[rows], attention=None)


@needs_emulator
def test_decoding_reads_each_step_once_and_finds_the_same():
    found = []
    for device in ("cpu", "emulated"):
        model, state = Chain(device), types.SimpleNamespace(rows=np.arange(2))
        options = {"bos": 0, "eos": 1, "max_length": 7}
        with importlib.import_module("minirnn.kernels.emulator.stand_in").counting() as counts:
            searched = [
                *mr.decoding.greedy(model, state, 2, **options),
                *mr.decoding.sample(model, state, 2, rng=4, **options),
                *mr.decoding.beam_search(model, state, 2, beam=3, coverage_penalty=0.1, **options),
            ]
        assert counts.synchronisations <= 2 * 3 * 7  # log-probabilities and attention, at most seven steps, three searches
        found.append(searched)
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a.tokens, b.tokens)
        assert a.score == pytest.approx(b.score, rel=1e-12)
        np.testing.assert_allclose(a.attention, b.attention, rtol=1e-12)


@needs_emulator
def test_a_checkpoint_is_the_computation_itself():
    with mr.device("emulated"):
        lstm = nn.Sequential(nn.Linear(2, 3, rng=0), nn.Dropout(0.5, rng=1))
    x = Tensor(np.random.default_rng(0).standard_normal((4, 2)).astype(np.float32)).to("emulated")
    gradients = []
    for run in (lambda x: lstm(x), lambda x: mr.checkpoint(lstm, x)):
        lstm.items[1].rng = np.random.default_rng(1)
        lstm.zero_grad()
        (run(x) ** 2).sum().backward()
        gradients.append([p.grad.numpy() for p in lstm.parameters()])
    for a, b in zip(*gradients, strict=True):
        np.testing.assert_array_equal(a, b)
    drawn = np.random.default_rng(0)
    y = mr.checkpoint(lambda x: x * drawn.standard_normal(2).astype(np.float32), x.detach().requires_grad_())
    with pytest.raises(RuntimeError, match="f gave another result in the backward pass"):
        y.sum().backward()


@needs_emulator
def test_the_anomaly_detector_names_the_operation_and_the_place():
    x = Tensor(np.array([[1.0, 4.0], [0.0, -1.0]])).to("emulated").requires_grad_()
    with mr.detect_anomaly(), pytest.raises(mr.diagnostics.AnomalyError, match=r"Sqrt forward: first NaN or Inf at index \(1, 1\)"):
        x.sqrt()
    with mr.device("emulated"):
        lstm = nn.LSTM(2, 3, rng=0)
    bad = np.ones((4, 2, 2), np.float32)
    bad[2, 1] = np.inf
    with mr.detect_anomaly(), pytest.raises(mr.diagnostics.AnomalyError, match="NaN or Inf"):
        lstm(Tensor(bad).to("emulated"))
    lstm.weight_hh_l0.data[4, 1] = np.nan
    broken = "LSTMLayer forward in l0: first NaN or Inf in gate f at time step 0, sequence 0 of the batch, unit 1"
    with mr.detect_anomaly(), pytest.raises(mr.diagnostics.AnomalyError, match=broken):
        lstm(Tensor(np.ones((4, 2, 2), np.float32)).to("emulated"))


@needs_emulator
def test_the_profiler_waits_so_that_times_are_their_own():
    x = Tensor(np.ones((3, 3))).to("emulated").requires_grad_()
    with importlib.import_module("minirnn.kernels.emulator.stand_in").counting() as counts, mr.profile() as profile:
        (x @ x).sum().backward()
    assert counts.synchronisations >= 2 * 2
    assert [(row.operation, row.calls) for row in profile.rows("operation") if row.operation == "MatMul"] == [("MatMul", 1)] * 2


@needs_emulator
@pytest.mark.parametrize("kernel", ["cupy", "numba-cuda"])
def test_the_profiler_names_the_kernels_of_a_device(kernel: str):
    with mr.device("emulated"):
        lstm = nn.LSTM(2, 3, kernel=kernel, rng=0)
        x = Tensor(np.ones((4, 2, 2), np.float32)).to("emulated")
    with mr.profile() as profile:
        lstm(x)[0].sum().backward()
    found = {row.kernel: row.flops for row in profile.rows("kernel")}
    assert found == {f"lstm {kernel} forward": 8 * (8 * 9 + 13 * 3), f"lstm {kernel} backward": 8 * (16 * 9 + 24 * 3)}
