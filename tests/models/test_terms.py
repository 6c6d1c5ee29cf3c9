"""The terms of one example: they add up to what the model says of it whole, and hang on the inputs that they are said to hang on."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest

import minirnn as mr
from minirnn.data import TranslationBatch
from minirnn.data.vocabulary import BOS
from minirnn.models import (
    SRNN,
    AutoregressiveConfig,
    AutoregressiveLSTM,
    CaptionBatch,
    Captioner,
    CaptionerConfig,
    NeuralSSM,
    NeuralSSMConfig,
    Seq2Seq,
    Seq2SeqConfig,
    SequenceVAE,
    SequenceVAEConfig,
    SRNNConfig,
)
from minirnn.models.terms import Terms

SOURCE, TARGET = np.array([4, 7, 4, 5]), np.array([6, 4, 8])
EXACT = 1e-10  # of float64


def double(model: Any) -> Any:
    return model.to("float64").eval()


def translator(attention: Literal["none", "dot", "general", "additive"] = "general", **options: Any) -> Seq2Seq:
    sizes = {"source_size": 9, "target_size": 10, "embedding": 5, "encoder_hidden": 4, "decoder_hidden": 8}
    found: Seq2Seq = double(Seq2Seq(Seq2SeqConfig(**{**sizes, "attention": attention, "label_smoothing": 0.1, **options}), rng=0))
    return found


def gradient(terms: Terms, term: int, name: str) -> np.ndarray[Any, Any]:
    seed = np.zeros(terms.losses.shape)
    seed[term] = 1
    (found,) = mr.grad(terms.losses, terms.inputs[name], mr.tensor(seed), retain_graph=True)
    return np.asarray(found.numpy())


@pytest.mark.parametrize("attention", ["none", "dot", "general", "additive"])
def test_a_translation_is_as_probable_as_its_words(attention: Any) -> None:
    model = translator(attention, layers=2)
    terms, batch = model.terms(SOURCE, TARGET), TranslationBatch([SOURCE], [TARGET])
    assert terms.losses.shape == (4,)
    assert float(terms.losses.sum()) == pytest.approx(-model.log_likelihood(batch)[0], rel=EXACT)
    plain = translator(attention, layers=2, label_smoothing=0.0)
    assert float(terms.losses.mean()) == pytest.approx(float(plain.loss(batch)), rel=EXACT)
    np.testing.assert_array_equal(terms.predicted, model.logits(batch).numpy().argmax(1))


@pytest.mark.parametrize("attention", ["dot", "general", "additive"])
def test_a_translation_looks_where_the_decoder_looked(attention: Any) -> None:
    model = translator(attention)
    (found,) = model.translate([SOURCE])
    terms = model.terms(SOURCE, found.tokens)
    assert terms.attention is not None
    np.testing.assert_allclose(terms.attention[: len(found.attention)], found.attention, rtol=EXACT)
    np.testing.assert_allclose(terms.attention.sum(1), 1, rtol=EXACT)
    np.testing.assert_array_equal(terms.predicted[: len(found.tokens)], found.tokens)


def test_what_a_word_did_is_the_gradient_of_its_embedding() -> None:
    """A word that comes twice has the sum of what both did."""
    model = translator()
    terms = model.terms(SOURCE, TARGET)
    terms.losses[2].backward(retain_graph=True)
    for name, module, words in (("source", model.source_embedding, SOURCE), ("target", model.target_embedding, np.insert(TARGET, 0, BOS))):
        summed = np.zeros(module.weight.shape)
        np.add.at(summed, words, gradient(terms, 2, name))
        np.testing.assert_allclose(summed, module.weight.grad.numpy(), atol=EXACT)
    assert not gradient(terms, 2, "target")[3:].any()  # words yet to come
    assert gradient(terms, 2, "target")[:3].any(axis=1).all()


@pytest.mark.parametrize("attention", ["none", "general", "additive"])
def test_a_caption_is_as_probable_as_its_words(attention: Any) -> None:
    config = CaptionerConfig(vocabulary_size=10, picture_size=16, channels=4, grid_features=6, embedding=5, hidden=7, attention=attention)
    model = double(Captioner(config, rng=0))
    image = np.random.default_rng(0).integers(0, 256, (3, 16, 16), np.uint8)
    terms = model.terms(image, TARGET)
    assert float(terms.losses.sum()) == pytest.approx(-model.log_likelihood(CaptionBatch(image[None], [TARGET]))[0], rel=EXACT)
    pixel, h = (0, 1, 5, 9), 1e-5
    x = terms.inputs["picture"].numpy().copy()
    shifted = []
    for step in (h, -h):
        moved = x.copy()
        moved[pixel] += step
        grid, top, h0, c0 = model._encode(mr.tensor(moved))
        logits = model._said(model.decoder(model._shifted([TARGET]), (h0, c0))[0], grid, top)
        shifted.append(mr.ops.log_softmax(logits).numpy()[1, TARGET[1]])
    difference = (shifted[1] - shifted[0]) / (2 * h)
    assert gradient(terms, 1, "picture")[pixel] == pytest.approx(difference, rel=1e-5, abs=1e-8)  # h^2 and rounding / h
    if attention == "none":
        assert terms.attention is None
    else:
        (found,) = model.caption(image[None], max_length=5)
        look = model.terms(image, found.tokens).attention
        np.testing.assert_allclose(look[: len(found.attention)], found.attention.reshape(-1, look.shape[1]), rtol=EXACT)


@pytest.mark.parametrize("latent", [0, 3])
def test_a_sentence_is_as_probable_as_its_words_and_its_kl(latent: int) -> None:
    sizes = {"vocabulary_size": 10, "embedding": 5, "encoder_hidden": 4, "decoder_hidden": 6, "layers": 2, "bidirectional": True}
    model = double(SequenceVAE(SequenceVAEConfig(**sizes, latent=latent), rng=0))
    for sentence in (SOURCE, SOURCE[:1]):
        terms = model.terms(sentence, rng=1)
        whole = model.elbo([sentence], rng=1).bound[0] if latent else model.log_likelihood([sentence])[0]
        assert terms.losses.shape == (len(sentence) + 1 + bool(latent),)
        assert float(terms.losses.sum()) == pytest.approx(-whole, rel=EXACT)
        assert len(terms.predicted) == len(sentence) + 1
        if latent:
            assert gradient(terms, len(sentence) + 1, "read").any()
            assert not gradient(terms, len(sentence) + 1, "written").any()  # the KL does not know how it is written


def series_model(name: str, missing: bool) -> Any:
    sizes = {"observed": 2, "hidden": 5, "missing": missing}
    if name == "lstm":
        return double(AutoregressiveLSTM(AutoregressiveConfig(**sizes, layers=2), rng=0))
    if name == "srnn":
        return double(SRNN(SRNNConfig(**sizes, latent=2, encoder_hidden=4, combiner=3, emission_hidden=3), rng=0))
    return double(NeuralSSM(NeuralSSMConfig(**sizes, latent=2, encoder_hidden=4, combiner=3, emission_hidden=3, posterior=name), rng=0))


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("name", ["lstm", "srnn", "filtering", "smoothing"])
def test_a_series_is_as_probable_as_its_frames(name: str, missing: bool) -> None:
    model, x = series_model(name, missing), np.random.default_rng(0).standard_normal((6, 2))
    if missing:
        x[2], x[4, 0] = np.nan, np.nan
    terms = model.terms(x, rng=3)
    assert terms.losses.shape == (6,)
    assert terms.predicted.shape == (6, 2)
    assert float(terms.losses.sum()) == pytest.approx(-model.log_likelihood([x], rng=3)[0], rel=EXACT)
    assert float(terms.losses.mean()) == pytest.approx(float(model.loss([x], 10**9, rng=np.random.default_rng(3))), rel=EXACT)
    s, h = 1, 1e-5
    found = np.array([gradient(terms, t, "series")[s, 1] for t in range(6)])
    before, after = x.copy(), x.copy()
    before[s, 1] -= h
    after[s, 1] += h
    change = (model.terms(after, rng=3).losses.numpy() - model.terms(before, rng=3).losses.numpy()) / (2 * h)
    others = np.arange(6) != s  # term s also knows x_s as what is to be said
    np.testing.assert_allclose(found[others], change[others], rtol=1e-5, atol=1e-8)
    if name in ("lstm", "filtering"):
        assert not found[:s].any()
