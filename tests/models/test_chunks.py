"""Batches read in chunks: against a loop by hand that runs every sequence alone and carries its states on detached."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minirnn import Tensor, grad, no_grad, ops
from minirnn.data import TranslationBatch
from minirnn.data.vocabulary import BOS, EOS
from minirnn.models import AutoregressiveConfig, AutoregressiveLSTM, Seq2Seq, Seq2SeqConfig, SequenceVAE, SequenceVAEConfig
from minirnn.models.chunks import Chunk, Reader, chunks
from minirnn.nn import LSTM, Packed, Packing

steps = st.integers(1, 12)


@given(st.integers(1, 40), steps, st.integers(0, 12))
def test_chunks_count_every_step_once(T: int, k1: int, more: int) -> None:
    k2 = k1 + more
    found = chunks(T, k1, k2)
    counted = [t for chunk in found for t in range(chunk.counted, chunk.end)]
    assert counted == list(range(T))
    for chunk, following in zip(found, [*found[1:], None], strict=True):
        assert chunk.end - chunk.counted == (k1 if following else T - chunk.counted)
        assert chunk.begin == max(0, chunk.counted - more)
        assert chunk.begin <= chunk.keep <= chunk.end
        assert following is None or following.begin == chunk.keep
    assert found[0].begin == 0


class Case(NamedTuple):
    """A model, a batch of it, and for each sequence alone: its inputs (T, 1, D), its first state, and the loss of some of its steps."""

    model: Any
    batch: Any
    layer: LSTM
    lengths: list[int]
    inputs: Callable[[int], Tensor]
    first: Callable[[int], Any]
    cost: Callable[[int, Tensor, slice], Tensor]
    unit: float


def autoregressive(lengths: list[int], layers: int, missing: bool = False) -> Case:
    config = AutoregressiveConfig(observed=2, hidden=4, layers=layers, missing=missing)
    model = AutoregressiveLSTM(config, kernel="numpy", rng=0).to("float64")
    rng = np.random.default_rng(1)
    batch = [rng.standard_normal((n, 2)) for n in lengths]
    if missing:
        for x in batch:
            x[::3, 0] = np.nan
    seen = [~np.isnan(x) for x in batch]
    zero = [np.nan_to_num(x) for x in batch]

    def inputs(n: int) -> Tensor:
        x = np.concatenate([zero[n], seen[n]], axis=1) if missing else zero[n]
        return Tensor(np.concatenate([np.zeros((1, x.shape[1])), x[:-1]])[:, None])

    def cost(n: int, h: Tensor, at: slice) -> Tensor:
        return -model.emission.log_prob(h, zero[n][at], seen[n][at] if missing else None).sum()

    return Case(model, batch, model.lstm, lengths, inputs, lambda n: None, cost, 1.0)


def language(lengths: list[int], layers: int) -> Case:
    """An end more than words in each sentence."""
    config = SequenceVAEConfig(vocabulary_size=9, embedding=3, decoder_hidden=4, layers=layers, latent=0, dropout=0.0)
    model = SequenceVAE(config, kernel="numpy", rng=0).to("float64")
    rng = np.random.default_rng(1)
    batch = [rng.integers(4, 9, n - 1) for n in lengths]

    def inputs(n: int) -> Tensor:
        return model.embedding(np.concatenate([[BOS], batch[n]]).astype(int)).reshape(lengths[n], 1, 3)

    def cost(n: int, h: Tensor, at: slice) -> Tensor:
        logits = model.output(ops.tanh(model.readout(h)))
        return ops.cross_entropy(logits, np.append(batch[n], EOS)[at], reduction="sum")

    return Case(model, batch, model.decoder, lengths, inputs, lambda n: None, cost, len(lengths) / sum(lengths))


def translation(lengths: list[int], layers: int, attention: Any) -> Case:
    config = Seq2SeqConfig(
        source_size=9, target_size=9, embedding=3, encoder_hidden=2, decoder_hidden=4, layers=layers, attention=attention, dropout=0.0
    )
    model = Seq2Seq(config, kernel="numpy", rng=0).to("float64")
    rng = np.random.default_rng(1)
    sources = [rng.integers(4, 9, 1 + k % 3) for k in range(len(lengths))]
    targets = [rng.integers(4, 9, n - 1) for n in lengths]

    def first(n: int) -> Any:
        return model._encode(model._read([sources[n]]))[2:]

    def inputs(n: int) -> Tensor:
        return model.target_embedding(np.concatenate([[BOS], targets[n]]).astype(int)).reshape(lengths[n], 1, 3)

    def cost(n: int, h: Tensor, at: slice) -> Tensor:
        memory, mask, *_ = model._encode(model._read([sources[n]]))
        logits = model._said(Packed(h, Packing([len(h)])), memory, mask)
        return ops.cross_entropy(logits, np.append(targets[n], EOS)[at], reduction="sum")

    return Case(model, TranslationBatch(sources, targets), model.decoder, lengths, inputs, first, cost, 1.0)


CASES: dict[str, Callable[[list[int], int], Case]] = {
    "series": autoregressive,
    "series with gaps": lambda lengths, layers: autoregressive(lengths, layers, missing=True),
    "sentences": language,
    "translation": lambda lengths, layers: translation(lengths, layers, "none"),
    "translation with attention": lambda lengths, layers: translation(lengths, layers, "general"),
    "translation with additive attention": lambda lengths, layers: translation(lengths, layers, "additive"),
}


def by_hand(case: Case, chunk: Chunk, states: dict[int, Any]) -> tuple[Tensor, dict[int, Any]]:
    """The loss of one chunk, and the states before the next, of each sequence by its number; none of those that start anew."""
    total, count, kept = 0, 0, {}
    for n, length in enumerate(case.lengths):
        if length <= chunk.begin:
            continue
        x, first = case.inputs(n), states.get(n) or case.first(n)
        h, _ = case.layer(x[chunk.begin : chunk.end], first)
        at = slice(chunk.counted, min(chunk.end, length))
        if at.stop > at.start:
            total = total + case.cost(n, h[at.start - chunk.begin : at.stop - chunk.begin, 0], at)
            count += at.stop - at.start
        with no_grad():
            if chunk.begin < chunk.keep < length:
                kept[n] = case.layer(x[chunk.begin : chunk.keep], first)[1]
            elif chunk.keep == chunk.begin and n in states:
                kept[n] = states[n]
    return total / (count * case.unit), kept


@settings(max_examples=12)
@pytest.mark.parametrize("name", CASES)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(1, 10), st.integers(0, 5), st.integers(1, 2), st.booleans())
def test_chunk_after_chunk_is_the_loop_by_hand(name: str, lengths: list[int], k1: int, more: int, layers: int, between: bool) -> None:
    """Losses and all gradients; with and without an update of the weights between the chunks."""
    case = CASES[name](lengths, layers)
    reader: Reader = case.model.reader(case.batch)
    assert max(lengths) == reader.T
    parameters, state, states = list(case.model.parameters()), None, {}
    for chunk in chunks(max(lengths), k1, k1 + more):
        loss, state = reader.loss(chunk, state)
        expected, states = by_hand(case, chunk, states)
        assert reader.size(chunk) == sum(max(0, min(n, chunk.end) - chunk.counted) for n in lengths)
        np.testing.assert_allclose(loss.item(), expected.item(), rtol=1e-11)
        found, wanted = (grad(y, parameters, allow_unused=True) for y in (loss, expected))
        for p, a, b in zip(parameters, found, wanted, strict=True):
            zero = np.zeros(p.shape)
            np.testing.assert_allclose(zero if a is None else a.numpy(), zero if b is None else b.numpy(), rtol=1e-9, atol=1e-12)
            if between and a is not None:
                p.data -= 0.3 * a.data


@pytest.mark.parametrize("name", CASES)
def test_one_chunk_is_the_whole_batch(name: str) -> None:
    case = CASES[name]([3, 7, 5], 1)
    (chunk,) = chunks(7, 9, 9)
    loss, _ = case.model.reader(case.batch).loss(chunk, None)
    np.testing.assert_allclose(loss.item(), case.model.loss(case.batch).item(), rtol=1e-12)


def test_a_model_with_an_encoder_of_whole_sentences_has_no_reader() -> None:
    model = SequenceVAE(SequenceVAEConfig(vocabulary_size=9, embedding=3, encoder_hidden=2, decoder_hidden=4, latent=2), rng=0)
    with pytest.raises(ValueError, match="with latent=2 the encoder reads whole sentences; only latent=0 reads in chunks"):
        model.reader([np.array([4, 5])])
