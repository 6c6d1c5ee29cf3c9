"""Decoding, held against exhaustive search over a model small enough for it."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirnn.decoding import Hypothesis, beam_search, greedy, sample

BOS, EOS = 1, 0


class State(NamedTuple):
    which: np.ndarray  # (B,) the batch row it began as
    history: np.ndarray  # (B, t) tokens so far
    attention: np.ndarray | None


class TableModel:
    """Every prefix has a distribution of its own, drawn from a seed that the prefix determines."""

    def __init__(self, vocabulary: int, seed: int, attends: int = 0) -> None:
        self.V, self.seed, self.attends, self.calls = vocabulary, seed, attends, 0

    def start(self, batch: int) -> State:
        return State(np.arange(batch), np.zeros((batch, 0), int), None)

    def distribution(self, which: int, prefix: tuple[int, ...]) -> np.ndarray:
        logits = 2 * np.random.default_rng([self.seed, which, *prefix]).standard_normal(self.V)
        return logits - np.log(np.exp(logits).sum())

    def look(self, which: int, prefix: tuple[int, ...]) -> np.ndarray:
        weights = np.random.default_rng([self.seed + 1, which, *prefix]).random(self.attends) ** 4
        return weights / weights.sum()

    def step(self, tokens: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        self.calls += len(tokens)
        history = np.concatenate((state.history, tokens[:, None]), axis=1)
        rows = [(int(w), tuple(h)) for w, h in zip(state.which, history, strict=True)]
        attention = np.array([self.look(*r) for r in rows]) if self.attends else None
        return np.array([self.distribution(*r) for r in rows]), State(state.which, history, attention)

    def select(self, state: State, rows: np.ndarray) -> State:
        return State(*[None if a is None else a[rows] for a in state])

    def best(self, which: int, limit: int, length_penalty: float, coverage_penalty: float) -> tuple[tuple[int, ...], float]:
        """The best finished sequence of at most `limit` tokens, by trying all."""
        found = []
        for length in range(limit):
            for body in itertools.product(range(1, self.V), repeat=length):
                prefixes = [(BOS, *body[:k]) for k in range(length + 1)]
                log_prob = sum(self.distribution(which, p)[t] for p, t in zip(prefixes, (*body, EOS), strict=True))
                score = log_prob / ((5 + length + 1) / 6) ** length_penalty
                if self.attends and coverage_penalty:
                    covered = sum(self.look(which, p) for p in prefixes)
                    score += coverage_penalty * np.log(np.minimum(covered, 1)).sum()
                found.append((body, score))
        return max(found, key=lambda pair: pair[1])


@given(st.integers(2, 4), st.integers(1, 4), st.integers(1, 3), st.sampled_from([0.0, 0.6, 1.0, 2.0]), st.integers(0, 10**6))
def test_a_beam_that_holds_everything_finds_what_exhaustive_search_finds(
    vocabulary: int, limit: int, batch: int, length_penalty: float, seed: int
) -> None:
    model = TableModel(vocabulary, seed)
    common = {"bos": BOS, "eos": EOS, "max_length": limit, "length_penalty": length_penalty}
    for which, h in enumerate(beam_search(model, model.start(batch), batch, beam=vocabulary**limit, **common)):
        tokens, score = model.best(which, limit, length_penalty, 0.0)
        assert (tuple(h.tokens), h.finished) == (tokens, True)
        assert h.score == pytest.approx(score, rel=1e-12)


@given(st.integers(0, 10**6), st.sampled_from([0.2, 1.0]))
def test_the_coverage_penalty_is_part_of_the_exhaustive_optimum(seed: int, coverage_penalty: float) -> None:
    model = TableModel(3, seed, attends=4)
    (h,) = beam_search(
        model, model.start(1), 1, bos=BOS, eos=EOS, max_length=4, beam=81, length_penalty=1.0, coverage_penalty=coverage_penalty
    )
    tokens, score = model.best(0, 4, 1.0, coverage_penalty)
    assert tuple(h.tokens) == tokens
    assert h.score == pytest.approx(score, rel=1e-12)


@given(st.integers(2, 12), st.integers(1, 4), st.integers(1, 9), st.integers(0, 10**6))
def test_a_beam_of_one_is_greedy(vocabulary: int, batch: int, limit: int, seed: int) -> None:
    model = TableModel(vocabulary, seed, attends=3)
    common = {"bos": BOS, "eos": EOS, "max_length": limit}
    narrow = beam_search(model, model.start(batch), batch, beam=1, **common)
    for a, b in zip(greedy(model, model.start(batch), batch, **common), narrow, strict=True):
        assert a.tokens.tolist() == b.tokens.tolist()
        assert a.finished == b.finished
        assert a.log_prob == pytest.approx(b.log_prob, rel=1e-12)
        np.testing.assert_array_equal(a.attention, b.attention)


@given(st.integers(2, 12), st.integers(1, 5), st.integers(1, 6), st.integers(0, 10**6))
def test_what_rides_in_the_batch_changes_nothing(vocabulary: int, batch: int, beam: int, seed: int) -> None:
    model = TableModel(vocabulary, seed)
    limits = np.arange(batch) % 4 + 2
    together = beam_search(model, model.start(batch), batch, bos=BOS, eos=EOS, max_length=limits, beam=beam)
    for which, h in enumerate(together):
        alone = model.select(model.start(batch), np.array([which]))
        (single,) = beam_search(model, alone, 1, bos=BOS, eos=EOS, max_length=int(limits[which]), beam=beam)
        assert h.tokens.tolist() == single.tokens.tolist()
        assert h.score == pytest.approx(single.score, rel=1e-12)


def test_a_log_probability_is_that_of_its_tokens() -> None:
    model = TableModel(6, 3)
    for h in beam_search(model, model.start(1), 1, bos=BOS, eos=EOS, max_length=7, beam=4, n_best=4)[0]:
        said = [*h.tokens, EOS] if h.finished else list(h.tokens)
        expected = sum(model.distribution(0, (BOS, *said[:k]))[token] for k, token in enumerate(said))
        assert h.log_prob == pytest.approx(expected, rel=1e-12)


def test_n_best_come_best_first_and_differ() -> None:
    model = TableModel(6, 3)
    (found,) = beam_search(model, model.start(1), 1, bos=BOS, eos=EOS, max_length=7, beam=5, n_best=5)
    finished = [h.score for h in found if h.finished]
    assert finished == sorted(finished, reverse=True)
    assert len({tuple(h.tokens) for h in found}) == len(found) == 5


def test_a_finished_sequence_leaves_the_batch() -> None:
    class Countdown(TableModel):
        """Row k says k twos, then the end."""

        def distribution(self, which: int, prefix: tuple[int, ...]) -> np.ndarray:
            p = np.full(self.V, -20.0)
            p[2 if len(prefix) - 1 < which else EOS] = 0
            return p

    model = Countdown(4, 0)
    found = greedy(model, model.start(5), 5, bos=BOS, eos=EOS, max_length=50)
    assert [h.tokens.tolist() for h in found] == [[2] * k for k in range(5)]
    assert model.calls == 5 + 4 + 3 + 2 + 1


def test_the_attention_has_a_row_for_each_token_and_the_end() -> None:
    model = TableModel(5, 1, attends=3)
    for h in beam_search(model, model.start(3), 3, bos=BOS, eos=EOS, max_length=8, beam=3):
        assert h.attention is not None
        assert h.attention.shape == (len(h.tokens) + h.finished, 3)


@pytest.mark.parametrize(("options", "allowed"), [({"top_k": 2}, 2), ({"top_p": 0.5}, None), ({"temperature": 1e-6}, 1), ({}, 5)])
def test_sampling_draws_from_the_distribution_that_was_asked_for(options: dict[str, float], allowed: int | None) -> None:
    model = TableModel(5, 11)
    n = 20_000
    start = State(np.zeros(n, int), np.zeros((n, 0), int), None)
    found = sample(model, start, n, bos=BOS, eos=EOS, max_length=1, rng=0, **options)
    p = np.exp(model.distribution(0, (BOS,)))
    order = np.argsort(-p)
    if allowed is None:
        allowed = int(np.searchsorted(np.cumsum(p[order]), 0.5)) + 1
    q = np.zeros(5)
    q[order[:allowed]] = p[order[:allowed]]
    q /= q.sum()
    drawn = np.bincount([h.tokens[0] if len(h.tokens) else EOS for h in found], minlength=5) / n
    # the standard error of a frequency is at most 1 / (2 sqrt n); five of them
    np.testing.assert_allclose(drawn, q, atol=2.5 / np.sqrt(n))


def test_the_same_seed_draws_the_same() -> None:
    def draw(seed: int) -> list[list[int]]:
        model = TableModel(9, 2)
        return [h.tokens.tolist() for h in sample(model, model.start(4), 4, bos=BOS, eos=EOS, max_length=9, rng=seed)]

    assert draw(5) == draw(5) != draw(6)


def test_bad_options_are_named() -> None:
    model = TableModel(3, 0)
    common = {"bos": BOS, "eos": EOS, "max_length": 3}
    with pytest.raises(ValueError, match="temperature must be above 0"):
        sample(model, model.start(1), 1, temperature=0, **common)
    with pytest.raises(ValueError, match=r"top_p must lie in \(0, 1\]"):
        sample(model, model.start(1), 1, top_p=0, **common)
    with pytest.raises(ValueError, match="beam must be at least 1"):
        beam_search(model, model.start(1), 1, beam=0, **common)
    with pytest.raises(ValueError, match="max_length must be at least 1"):
        greedy(model, model.start(1), 1, bos=BOS, eos=EOS, max_length=0)


class Flat(TableModel):
    """Every token is as likely as any other."""

    def distribution(self, which: int, prefix: tuple[int, ...]) -> np.ndarray:
        return np.full(self.V, -np.log(self.V))


@pytest.mark.parametrize("vocabulary", [3, 300])
def test_of_equal_scores_the_smaller_token_goes_first(vocabulary: int) -> None:
    model, common = Flat(vocabulary, 0), {"bos": BOS, "eos": vocabulary - 1, "max_length": 2}
    (narrow,) = beam_search(model, model.start(1), 1, beam=1, **common)
    (first,) = greedy(model, model.start(1), 1, **common)
    assert narrow.tokens.tolist() == first.tokens.tolist() == [0, 0]
    (found,) = beam_search(model, model.start(1), 1, beam=2, n_best=2, **common)
    assert [h.tokens.tolist() for h in found] == [[0, 0], [0, 1]]
    drawn = sample(model, model.start(200), 200, top_k=2, rng=0, **common)
    assert {int(t) for h in drawn for t in h.tokens} == {0, 1}


@pytest.mark.parametrize("broken", [np.nan, -np.inf])
@pytest.mark.parametrize("decode", [greedy, beam_search, sample])
def test_a_broken_model_is_reported_with_its_sequence(decode: Any, broken: float) -> None:
    class Broken(TableModel):
        def distribution(self, which: int, prefix: tuple[int, ...]) -> np.ndarray:
            return np.full(self.V, broken) if which == 1 and len(prefix) == 2 else np.log([1e-9, 0.2, 0.8 - 1e-9])

    with pytest.raises(FloatingPointError, match="sequence 1 after 1 tokens are NaN or all -inf"):
        decode(Broken(3, 0), Broken(3, 0).start(2), 2, bos=BOS, eos=EOS, max_length=4)


def test_an_empty_batch_decodes_to_nothing() -> None:
    model = TableModel(3, 0)
    found: list[Hypothesis] = greedy(model, model.start(0), 0, bos=BOS, eos=EOS, max_length=3)
    assert found == []
