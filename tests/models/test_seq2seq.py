"""Seq2Seq: teacher forcing against the model run step by step, gradients against finite differences, and PyTorch."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirnn.data import TranslationBatch
from minirnn.data.vocabulary import BOS, EOS
from minirnn.models import Seq2Seq, Seq2SeqConfig
from minirnn.optim import Adam
from minirnn.study import gradcheck

SMALL = Seq2SeqConfig(source_size=9, target_size=11, embedding=4, encoder_hidden=3, decoder_hidden=6, dropout=0.0)
VARIANTS: dict[str, dict[str, Any]] = {
    "none": {"attention": "none"},
    "dot": {"attention": "dot"},
    "general": {"attention": "general"},
    "additive": {"attention": "additive"},
    "one direction": {"bidirectional": False},
    "two layers": {"layers": 2},
    "tied": {"tie_embeddings": True},
}
lengths = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 5)), min_size=1, max_size=4)


def batch_of(pairs: list[tuple[int, int]], seed: int = 0) -> TranslationBatch:
    rng = np.random.default_rng(seed)
    return TranslationBatch([rng.integers(3, 9, s) for s, _ in pairs], [rng.integers(3, 11, t) for _, t in pairs])


def small(variant: str = "general", **changes: Any) -> Seq2Seq:
    return Seq2Seq(dataclasses.replace(SMALL, **{**VARIANTS.get(variant, {}), **changes}), rng=1).to("float64")


@pytest.mark.parametrize("variant", VARIANTS)
@given(pairs=lengths)
def test_teacher_forcing_gives_what_the_steps_give(variant: str, pairs: list[tuple[int, int]]) -> None:
    model, batch = small(variant).eval(), batch_of(pairs)
    expected = []
    for source, target in zip(batch.source, batch.target, strict=True):
        state, total, token = model.start([source]), 0.0, BOS
        for wanted in (*target, EOS):
            log_probs, state = model.step(np.array([token]), state)
            total, token = total + log_probs[0, wanted], wanted
        expected.append(total)
    np.testing.assert_allclose(model.log_likelihood(batch), expected, rtol=1e-12)
    np.testing.assert_allclose(model.loss(batch).item(), -sum(expected) / batch.tokens, rtol=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_gradient_of_the_loss_is_its_derivative(variant: str) -> None:
    model, batch = small(variant, label_smoothing=0.1), batch_of([(3, 2), (1, 4), (5, 0)])
    gradcheck(lambda *_: model.loss(batch), list(model.parameters()), directions=2, elementwise=12)


def test_dropout_of_units_and_of_words_comes_from_the_seed() -> None:
    def loss(seed: int) -> float:
        model = Seq2Seq(dataclasses.replace(SMALL, dropout=0.4, word_dropout=0.4), rng=seed)
        return model.loss(batch_of([(4, 5), (6, 3)])).item()

    assert loss(3) == loss(3) != loss(4)


def test_nothing_is_random_in_evaluation_mode() -> None:
    model = Seq2Seq(dataclasses.replace(SMALL, dropout=0.4, word_dropout=0.4), rng=0).eval()
    batch = batch_of([(4, 5), (6, 3)])
    assert model.loss(batch).item() == model.loss(batch).item()


def test_word_dropout_replaces_the_share_of_words_that_was_asked_for() -> None:
    model = Seq2Seq(dataclasses.replace(SMALL, word_dropout=0.3), rng=0)
    seen: list[np.ndarray] = []
    lookup = model.source_embedding.forward
    model.source_embedding.forward = lambda ids: (seen.append(ids), lookup(ids))[1]  # type: ignore[func-returns-value]
    for k in range(40):
        model.loss(batch_of([(50, 1)], seed=k))
    share = float(np.mean([(ids == 3).mean() for ids in seen]))
    chance = 1 / 6  # a drawn word that is <unk> already
    assert share == pytest.approx(chance + 0.3 * (1 - chance), abs=5 * 0.5 / np.sqrt(2000))


@given(pairs=lengths, order=st.randoms(use_true_random=False))
def test_batch_order_and_company_change_nothing_but_rounding(pairs: list[tuple[int, int]], order: Any) -> None:
    model, batch = small().eval(), batch_of(pairs)
    shuffled = list(range(len(pairs)))
    order.shuffle(shuffled)
    again = model.translate([batch.source[k] for k in shuffled], beam=3)
    together = model.translate(batch.source, beam=3)
    for place, k in enumerate(shuffled):
        (alone,) = model.translate([batch.source[k]], beam=3)
        assert again[place].tokens.tolist() == together[k].tokens.tolist() == alone.tokens.tolist()
        assert alone.score == pytest.approx(together[k].score, rel=1e-12)


def test_attention_never_looks_past_the_end_of_a_sentence() -> None:
    model, batch = small().eval(), batch_of([(2, 1), (6, 1)])
    short, _ = model.translate(batch.source)
    assert short.attention is not None
    assert short.attention.shape[1] == 2
    np.testing.assert_allclose(short.attention.sum(1), 1, rtol=1e-12)


def test_translating_leaves_every_module_in_its_mode() -> None:
    model = small()
    model.encoder.eval()
    model.translate([np.array([4, 5])])
    assert (model.training, model.dropout.training, model.encoder.training) == (True, True, False)


@pytest.mark.parametrize("attention", ["none", "general"])
def test_it_learns_to_reverse_its_input(attention: str) -> None:
    rng = np.random.default_rng(0)
    sources = [rng.integers(4, 9, rng.integers(1, 5)) for _ in range(60)]
    batch = TranslationBatch(sources, [s[::-1] for s in sources])
    config = Seq2SeqConfig(9, 9, 16, 16, 32, attention=attention, dropout=0.0)  # type: ignore[arg-type]
    model = Seq2Seq(config, rng=0)
    optimizer = Adam(model.named_parameters(), lr=2e-2)
    for _ in range(120):
        optimizer.zero_grad()
        model.loss(batch).backward()
        optimizer.step(max_norm=1.0)
    found = model.translate(sources)
    assert [h.tokens.tolist() for h in found] == [s[::-1].tolist() for s in sources]
    assert model.training


def test_tied_embeddings_are_one_parameter() -> None:
    model = small("tied")
    names = dict(model.named_parameters())
    assert "output.weight" not in names
    assert model.output.weight is model.target_embedding.weight


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"embedding": 0}, "embedding must be at least 1, got 0"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        ({"attention": "dot", "decoder_hidden": 5}, "attention=dot compares states as they are, but the encoder has 6 features"),
    ],
)
def test_a_configuration_that_cannot_be_built_says_why(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(SMALL, **changes)
