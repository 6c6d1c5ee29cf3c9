"""Every model on a GPU, emulated or real: what it learns and what it gives its users are the CPU's, and a step waits for nothing.

Both devices do the same operations on numbers of the same dtype and differ in the order of sums alone. A gradient comes out of a chain of
at most CHAIN operations that sum at most TERMS numbers: T <= 7 steps forward and as many back, through a few layers. Rounding in either
order is at most TERMS eps of what is summed (Higham 2002, section 4.2), so of the gradient CHAIN TERMS eps. Little amplifies it:
activations have a slope of 1 at most, and what normalisations and Gaussians divide by is of order 1. The gradient is clipped to norm 1, and
3 steps of SGD with momentum 0.9 multiply what was added to it by at most lr (1 + 1.9 + 2.71).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

from minirnn import optim
from minirnn.data.batches import TranslationBatch
from minirnn.device import numbers
from minirnn.kernels.availability import missing
from minirnn.models import (
    SRNN,
    AutoregressiveConfig,
    AutoregressiveLSTM,
    CaptionBatch,
    Captioner,
    CaptionerConfig,
    LinearGaussianConfig,
    LinearGaussianSSM,
    NeuralSSM,
    NeuralSSMConfig,
    Seq2Seq,
    Seq2SeqConfig,
    SequenceVAE,
    SequenceVAEConfig,
    SRNNConfig,
)
from minirnn.nn import Module
from minirnn.tensor import Tensor

needs_emulator = pytest.mark.skipif(missing("emulated") is not None, reason=f"the emulated device: {missing('emulated')}")
DEVICES = [pytest.param("emulated", marks=needs_emulator), pytest.param("cuda", marks=pytest.mark.gpu)]

CHAIN, TERMS = 40, 32
LR, STEPS = 0.1, 3
GROWTH = LR * (1 + 1.9 + 2.71)

draws = np.random.default_rng(0)
SENTENCES = [draws.integers(4, 9, n) for n in (3, 5, 2)]
TRANSLATIONS = [draws.integers(4, 9, n) for n in (4, 1, 3)]
SERIES = [draws.standard_normal((n, 2)) for n in (4, 6, 3)]
GAPPY = [x.copy() for x in SERIES]
GAPPY[1][2], GAPPY[0][1, 0] = np.nan, np.nan
ROLLS = [(draws.random((n, 3)) < 0.4).astype(float) for n in (4, 6, 3)]
PICTURES = draws.integers(0, 256, (2, 3, 16, 16)).astype(np.uint8)
SMALL: dict[str, Any] = {"observed": 2, "latent": 2, "emission_hidden": 3, "hidden": 3, "encoder_hidden": 3, "combiner": 3, "dropout": 0.1}


def seq2seq(**options: Any) -> Seq2Seq:
    sizes = {"source_size": 9, "target_size": 9, "embedding": 4, "encoder_hidden": 3, "decoder_hidden": 4}
    return Seq2Seq(Seq2SeqConfig(**{**sizes, "dropout": 0.1, "word_dropout": 0.2, "label_smoothing": 0.1, **options}), rng=0)


def captioner(**options: Any) -> Captioner:
    sizes = {"vocabulary_size": 9, "picture_size": 16, "channels": 4, "grid_features": 3, "embedding": 3, "hidden": 4}
    return Captioner(CaptionerConfig(**sizes, dropout=0.1, **options), rng=0)


def vae(**options: Any) -> SequenceVAE:
    sizes = {"vocabulary_size": 9, "embedding": 4, "encoder_hidden": 3, "decoder_hidden": 4, "latent": 2}
    return SequenceVAE(SequenceVAEConfig(**{**sizes, "dropout": 0.1, "word_dropout": 0.2, **options}), rng=0)


def ssm(**options: Any) -> NeuralSSM:
    return NeuralSSM(NeuralSSMConfig(**{**SMALL, **options}), rng=0)


def srnn(**options: Any) -> SRNN:
    return SRNN(SRNNConfig(**{**SMALL, **options}), rng=0)


def lstm(**options: Any) -> AutoregressiveLSTM:
    return AutoregressiveLSTM(AutoregressiveConfig(**{"observed": 2, "hidden": 4, "dropout": 0.1, **options}), rng=0)


def kalman(**options: Any) -> LinearGaussianSSM:
    return LinearGaussianSSM(LinearGaussianConfig(**{"states": 3, "observations": 2, **options}), rng=0)


# what makes it, a batch, and how often a step waits for the device
CASES: dict[str, tuple[Callable[[], Module], Any, int]] = {
    "seq2seq": (lambda: seq2seq(layers=2), TranslationBatch(SENTENCES, TRANSLATIONS), 0),
    "seq2seq, additive": (lambda: seq2seq(attention="additive", tie_embeddings=True), TranslationBatch(SENTENCES, TRANSLATIONS), 0),
    "seq2seq, none": (lambda: seq2seq(attention="none", bidirectional=False), TranslationBatch(SENTENCES, TRANSLATIONS), 0),
    "captioner": (lambda: captioner(normalisation="group"), CaptionBatch(PICTURES, TRANSLATIONS[:2]), 0),
    "vae": (vae, SENTENCES, 0),
    "vae, language model": (lambda: vae(latent=0), SENTENCES, 0),
    "vae, aggressive": (lambda: vae(aggressive=True), SENTENCES, 6),  # the host decides which half learns next
    "ssm": (ssm, SERIES, 0),
    "ssm, smoothing": (lambda: ssm(posterior="smoothing", missing=True), GAPPY, 0),
    "ssm, iwae": (lambda: ssm(objective="iwae", samples=2), SERIES, 0),
    "ssm, fivo": (lambda: ssm(objective="fivo", samples=3), SERIES, 6),  # at each step the host draws the particles that survive
    "srnn": (lambda: srnn(observed=3, observation="binary"), ROLLS, 0),
    "lstm": (lambda: lstm(missing=True), GAPPY, 0),
    "kalman": (kalman, SERIES, 0),
    "kalman, diffuse": (lambda: kalman(states=2, diffuse=True), SERIES, 0),
    "kalman, gaps": (kalman, GAPPY, 0),
}
IN_SINGLE = [name for name in CASES if not name.startswith("kalman")]  # which computes in float64 by itself


def loss_of(model: Module, batch: Any, step: int) -> Tensor:
    steps = {} if isinstance(model, (Seq2Seq, Captioner, LinearGaussianSSM)) else {"step": step}
    loss: Tensor = model.loss(batch, **steps)  # type: ignore[attr-defined]
    return loss


def trained(model: Module, batch: Any) -> tuple[list[list[float]], dict[str, Any]]:
    """Loss and gradient norm of each step, and the parameters after the last."""
    optimizer = optim.SGD(model.named_parameters(), lr=LR, momentum=0.9)
    told = []
    for step in range(STEPS):
        loss = loss_of(model, batch, step)
        loss.backward()
        norm = optimizer.step(max_norm=1.0)
        optimizer.zero_grad()
        told.append(numbers(loss.data, norm.data if isinstance(norm, Tensor) else np.array(norm)))
    return told, model.state_dict()


def bound(dtype: Any) -> float:
    return float(CHAIN * TERMS * np.finfo(dtype).eps)


@pytest.mark.parametrize("where", DEVICES)
@pytest.mark.parametrize(("name", "dtype"), [(name, "float32") for name in IN_SINGLE] + [(name, "float64") for name in CASES])
def test_it_learns_what_it_learns_on_the_cpu(name: str, dtype: str, where: str) -> None:
    make, batch, _ = CASES[name]
    (here, learnt_here), (there, learnt_there) = (trained(make().to(dtype).to(device), batch) for device in ("cpu", where))
    np.testing.assert_allclose(there, here, rtol=bound(dtype))
    for key, expected in learnt_here.items():
        np.testing.assert_allclose(learnt_there[key], expected, rtol=bound(dtype), atol=GROWTH * bound(dtype), err_msg=key)


@needs_emulator
def test_the_comparison_sees_a_gradient_that_is_wrong_by_a_thousandth(monkeypatch: pytest.MonkeyPatch) -> None:
    embedding = importlib.import_module("minirnn.kernels.embedding.cupy_")
    right = embedding.backward
    monkeypatch.setattr(embedding, "backward", lambda *arguments: right(*arguments) * 1.001)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        test_it_learns_what_it_learns_on_the_cpu("seq2seq", "float64", "emulated")


@needs_emulator
@pytest.mark.parametrize("name", CASES)
def test_a_step_waits_for_nothing_and_moves_nothing_twice(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the start of the loss to the end of the update; then one transfer reads loss and norm."""
    stand_in = importlib.import_module("minirnn.kernels.emulator.stand_in")
    module = importlib.import_module("minirnn.device")
    make, batch, waits = CASES[name]
    model = make().to("emulated")
    optimizer = optim.Adam(model.named_parameters(), lr=0.01)
    move, moved = module.to_device, []

    def watched(array: Any, device: str) -> Any:
        if device != "cpu" and isinstance(array, np.ndarray) and (array.dtype.kind == "f" or array.dtype == np.uint8) and array.size > 1:
            moved.append(array.tobytes())
        return move(array, device)

    monkeypatch.setattr(module, "to_device", watched)
    for step in range(2):
        moved.clear()
        with stand_in.counting() as counts:
            loss = loss_of(model, batch, step)
            loss.backward()
            norm = optimizer.step(max_norm=1.0)
        assert counts.synchronisations == waits, counts.places
        assert counts.atomics == 0
        assert counts.launches
        assert isinstance(norm, Tensor)
        with stand_in.counting() as counts:
            assert np.isfinite(numbers(loss.data, norm.data)).all()
        assert counts.synchronisations == 1
        optimizer.zero_grad()
        if not name.startswith(("vae, aggressive", "ssm, fivo")):
            assert len(set(moved)) == len(moved)


def agree(found: Any, expected: Any, tolerance: float) -> None:
    """All that a model gives its users is a NumPy array, a number, or made of them."""
    if isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            agree(one, other, tolerance)
    elif hasattr(expected, "__dataclass_fields__"):
        for field in expected.__dataclass_fields__:
            agree(getattr(found, field), getattr(expected, field), tolerance)
    elif expected is None or isinstance(expected, bool):
        assert found is expected
    else:
        assert isinstance(found, (np.ndarray, np.generic, float, int)), type(found)
        assert np.asarray(found).dtype == np.asarray(expected).dtype
        if np.asarray(expected).dtype.kind in "iub":
            np.testing.assert_array_equal(found, expected)
        else:
            np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def translations(model: Seq2Seq) -> Any:
    beam = {"beam": 3, "length_penalty": 0.8, "coverage_penalty": 0.1}
    pairs = TranslationBatch(SENTENCES, TRANSLATIONS)
    return model.translate(SENTENCES), model.translate(SENTENCES, **beam), model.eval().log_likelihood(pairs)


def captions(model: Captioner) -> Any:
    pairs = CaptionBatch(PICTURES, TRANSLATIONS[:2])
    return model.caption(PICTURES, max_length=5), model.caption(PICTURES, beam=2, max_length=5), model.eval().log_likelihood(pairs)


def sentences(model: SequenceVAE) -> Any:
    if not model.config.latent:
        return model.log_likelihood(SENTENCES), model.sample(3, max_length=5, rng=1)
    return (
        model.sample(3, max_length=5, rng=1),
        model.reconstruct(SENTENCES, "beam", 2),
        model.interpolate(*SENTENCES[:2], steps=3),
        model.elbo(SENTENCES, rng=0),
        model.importance_weighted(SENTENCES, 3, rng=0),
    )


def of_series(model: Any) -> Any:
    series = ROLLS if model.config.observation == "binary" else GAPPY if model.config.missing else SERIES
    model.start_from(series)
    found = [
        model.log_likelihood(series, 2, rng=0),
        model.sample(4, 2, rng=0, temperature=0.5),
        model.forecast(series[0], 3, 4, rng=0),
        model.filter(series[0], samples=8, rng=0),
        [p.numpy() for p in model.parameters()],
    ]
    if model.config.missing:
        found.append(model.impute(series[0], 2, rng=0))
    if not isinstance(model, AutoregressiveLSTM):
        found += [model.log_likelihood(series, 3, rng=0, bound=bound) for bound in ("iwae", "fivo")]
        found.append(model.elbo_terms(series, 2, rng=0))
    return found


def gaussian(model: LinearGaussianSSM) -> Any:
    learnt = model.em(SERIES, 2)  # changes the model
    found = [learnt, model.matrices(), model.filter(GAPPY if not model.config.diffuse else SERIES), model.smooth(SERIES)]
    found += [model.forecast(SERIES, 3), model.log_likelihood(SERIES)]
    return found if model.config.diffuse else [*found, model.sample(4, 2, rng=0)]


USES: dict[type[Any], Callable[[Any], Any]] = {
    Seq2Seq: translations,
    Captioner: captions,
    SequenceVAE: sentences,
    NeuralSSM: of_series,
    SRNN: of_series,
    AutoregressiveLSTM: of_series,
    LinearGaussianSSM: gaussian,
}


@pytest.mark.parametrize("where", DEVICES)
@pytest.mark.parametrize("name", [name for name in CASES if "aggressive" not in name and "gaps" not in name])
def test_its_users_get_what_they_get_on_the_cpu(name: str, where: str) -> None:
    """And on the host. Computed in float64, in which no rounding decides between two words, or whether a particle survives."""
    make = CASES[name][0]
    models = [make().to("float64").to(device).eval() for device in ("cpu", where)]
    here, there = (USES[type(model)](model) for model in models)
    agree(there, here, bound("float64"))


@needs_emulator
@pytest.mark.parametrize("options", [{}, {"beam": 3}])
def test_decoding_waits_once_a_step(options: dict[str, Any]) -> None:
    stand_in = importlib.import_module("minirnn.kernels.emulator.stand_in")
    model = seq2seq().to("emulated")
    steps, step = [], model.step

    def counted(*arguments: Any) -> Any:
        with stand_in.counting() as counts:
            result = step(*arguments)
        steps.append(counts.synchronisations)
        return result

    model.step = counted  # type: ignore[method-assign]
    with stand_in.counting() as counts:
        model.translate(SENTENCES, **options)
    assert len(steps) > 3
    assert not any(steps)
    assert counts.synchronisations == len(steps), counts.places


@needs_emulator
def test_em_without_digits_goes_on_by_square_roots() -> None:
    """A likelihood that is NaN is how the device says that a covariance is not positive definite."""
    x = np.repeat(np.random.default_rng(0).standard_normal((1, 6, 1)), 2, axis=2)  # both columns alike, seen almost without noise
    C, R = np.array([[1.0, 1.0], [1.0, 1.0 + 1e-9]]), 1e-20 * np.eye(2)
    here, there = (LinearGaussianSSM.from_matrices(np.diag([1, 0.5]), C, Q=np.eye(2), R=R).to(device) for device in ("cpu", "emulated"))
    for model in (here, there):
        with pytest.raises(np.linalg.LinAlgError, match="not positive definite") if model is here else nullcontext():
            assert np.isnan(model.log_likelihood(x)).all()
    np.testing.assert_array_equal(there.em(x, 2, learn={"Q"}), here.em(x, 2, learn={"Q"}))


@needs_emulator
def test_forms_of_the_cpu_alone_say_so() -> None:
    model = kalman().to("emulated")
    with pytest.raises(ValueError, match=r'form=parallel runs on the CPU alone, the model is on emulated; \.to\("cpu"\) moves it'):
        model.filter(SERIES, form="parallel")
