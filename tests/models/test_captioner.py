"""Captioner: teacher forcing against the model run step by step, gradients against finite differences, searches against each other."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minirnn import decoding
from minirnn.data.vocabulary import BOS, EOS
from minirnn.models import CaptionBatch, Captioner, CaptionerConfig
from minirnn.optim import Adam
from minirnn.study import gradcheck

SMALL = CaptionerConfig(vocabulary_size=9, picture_size=12, channels=2, grid_features=6, embedding=4, hidden=6, word_weight=0.0)
VARIANTS: dict[str, dict[str, Any]] = {
    "none": {"attention": "none"},
    "dot": {"attention": "dot"},
    "general": {"attention": "general"},
    "additive": {"attention": "additive"},
    "groups": {"channels": 16, "normalisation": "group"},
    "three stages": {"picture_size": 17},
    "one place": {"picture_size": 2},
}
lengths = st.lists(st.integers(0, 5), min_size=1, max_size=4)


def batch_of(captions: list[int], size: int = 12, seed: int = 0) -> CaptionBatch:
    rng = np.random.default_rng(seed)
    return CaptionBatch(rng.integers(0, 256, (len(captions), 3, size, size), np.uint8), [rng.integers(3, 9, n) for n in captions])


def small(variant: str = "general", **changes: Any) -> Captioner:
    return Captioner(dataclasses.replace(SMALL, **{**VARIANTS[variant], **changes}), rng=1).to("float64")


@pytest.mark.parametrize("variant", VARIANTS)
@given(captions=lengths)
@settings(max_examples=10)
def test_teacher_forcing_gives_what_the_steps_give(variant: str, captions: list[int]) -> None:
    model = small(variant).eval()
    batch = batch_of(captions, model.config.picture_size)
    expected = []
    for image, caption in zip(batch.images, batch.captions, strict=True):
        state, total, token = model.start(image[None]), 0.0, BOS
        for wanted in (*caption, EOS):
            log_probs, state = model.step(np.array([token]), state)
            total, token = total + log_probs[0, wanted], wanted
        expected.append(total)
    np.testing.assert_allclose(model.log_likelihood(batch), expected, rtol=1e-11)
    np.testing.assert_allclose(model.loss(batch).item(), -sum(expected) / batch.tokens, rtol=1e-11)


@pytest.mark.parametrize("variant", ["none", "dot", "general", "additive"])
@given(captions=lengths)
@settings(max_examples=3)
def test_the_gradient_of_the_loss_is_its_derivative(variant: str, captions: list[int]) -> None:
    model = small(variant, label_smoothing=0.1, word_weight=0.7)
    batch = batch_of(captions)
    gradcheck(lambda *_: model.loss(batch), list(model.parameters()), directions=1, elementwise=4)


def test_the_words_of_a_caption_count_once_each_and_in_any_order() -> None:
    images = batch_of([1, 1]).images
    model, plain = small(word_weight=2.0), small()
    plain.load_state_dict(model.state_dict())

    def extra(*captions: list[int]) -> float:
        batch = CaptionBatch(images, [np.array(c, np.int64) for c in captions])
        return (model.loss(batch) - plain.loss(batch)).item() / 2

    assert extra([3, 4, 5], [6]) == pytest.approx(extra([5, 3, 3, 4], [6, 6]), rel=1e-12)
    alone = [extra([k], []) for k in range(9)]  # -ln p_k / 2
    assert sum(np.exp(-2 * np.array(alone))) == pytest.approx(1, rel=1e-11)
    assert extra([3, 7], []) == pytest.approx((alone[3] + alone[7]) / 2, rel=1e-11)


def test_the_same_seed_gives_the_same_bits() -> None:
    def loss(seed: int) -> float:
        return Captioner(dataclasses.replace(SMALL, dropout=0.4), rng=seed).loss(batch_of([4, 5, 0])).item()

    assert loss(3) == loss(3) != loss(4)


def test_nothing_is_random_in_evaluation_mode() -> None:
    model = small(dropout=0.4).eval()
    assert model.loss(batch_of([4])).item() == model.loss(batch_of([4])).item() != model.train().loss(batch_of([4])).item()


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_beam_of_one_is_greedy_and_a_wider_one_finds_no_less_likely_captions(variant: str) -> None:
    model = small(variant).eval()
    images = batch_of([1] * 6, model.config.picture_size).images
    greedy = model.caption(images, max_length=7)
    narrow = decoding.beam_search(model, model.start(images), 6, bos=BOS, eos=EOS, max_length=7, beam=1, length_penalty=0.0)
    assert [h.tokens.tolist() for h in greedy] == [h.tokens.tolist() for h in narrow]
    every = model.caption(images, max_length=2, beam=81, length_penalty=0.0)  # all that 9 pieces and two steps can be
    for image, best, first in zip(images, every, model.caption(images, max_length=2), strict=True):
        ends = [[], *([k] for k in range(9) if k != EOS)]
        likely = model.log_likelihood(CaptionBatch(np.repeat(image[None], len(ends), 0), [np.array(e, np.int64) for e in ends]))
        assert best.finished
        assert best.log_prob == pytest.approx(likely.max(), rel=1e-11)
        assert best.log_prob >= first.log_prob - 1e-11 or not first.finished


def test_the_search_restores_the_mode_and_keeps_the_order_of_many_batches() -> None:
    model = small(dropout=0.3)
    images = batch_of([1] * 5).images
    together = model.caption(images, batch_size=2)
    assert model.training
    assert model.dropout.training
    for image, found in zip(images, together, strict=True):
        (alone,) = model.caption(image[None])
        assert alone.tokens.tolist() == found.tokens.tolist()


def test_where_each_word_looked_is_a_distribution_over_the_picture() -> None:
    (found,) = small(picture_size=17).caption(batch_of([1], 17).images, max_length=5)
    assert found.attention is not None
    assert found.attention.shape == (len(found.tokens) + found.finished, 5, 5)  # 17 to 9 to 5 places on a side
    np.testing.assert_allclose(found.attention.sum((1, 2)), 1, rtol=1e-12)
    assert small("none").caption(batch_of([1]).images)[0].attention is None


def test_it_learns_where_a_square_is_and_which_colour_it_has() -> None:
    """Sixteen captions of two words, each as frequent as the others: saying the most frequent one is right in a sixteenth of all."""
    rng = np.random.default_rng(0)

    def scenes(count: int) -> CaptionBatch:
        images = rng.integers(0, 40, (count, 3, 16, 16), np.uint8)
        facts = rng.integers(0, 4, (count, 2))
        for image, (colour, place) in zip(images, facts, strict=True):
            top, left = 8 * (place // 2) + rng.integers(0, 4), 8 * (place % 2) + rng.integers(0, 4)
            lit = [[0], [1], [2], [0, 1, 2]][colour]
            image[lit, top : top + 5, left : left + 5] = 230
        return CaptionBatch(images, [np.array([4 + colour, 8 + place]) for colour, place in facts])

    model = Captioner(CaptionerConfig(12, 16, channels=8, grid_features=16, embedding=8, hidden=32), rng=0)
    optimizer = Adam(model.named_parameters(), lr=5e-3)
    for _ in range(120):
        batch = scenes(32)
        optimizer.zero_grad()
        model.loss(batch).backward()
        optimizer.step(max_norm=1.0)
    test = scenes(200)
    found = [h.tokens.tolist() for h in model.caption(test.images)]
    share = np.mean([f == c.tolist() for f, c in zip(found, test.captions, strict=True)])
    error = np.sqrt(1 / 16 * 15 / 16 / 200)
    assert share > 0.9 > 1 / 16 + 40 * error


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"channels": 0}, "channels must be at least 1, got 0"),
        ({"word_weight": -1.0}, "word_weight must not be negative, got -1.0"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        ({"attention": "dot", "hidden": 5}, "attention=dot compares states as they are, but a place has 6 features and the decoder 5"),
    ],
)
def test_a_configuration_that_cannot_be_built_says_why(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(SMALL, **changes)


def test_pictures_of_another_size_or_dtype_are_refused() -> None:
    model = small()
    for images in (batch_of([1], size=13).images, batch_of([1]).images.astype(np.float32), batch_of([1]).images[0]):
        with pytest.raises(ValueError, match=r"images must be uint8 \(N, 3, S, S\) with S = picture_size = 12, got"):
            model.caption(images)
    with pytest.raises(ValueError, match="2 pictures but 1 captions"):
        CaptionBatch(batch_of([1, 1]).images, [np.array([3])])
