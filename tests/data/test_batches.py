from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirnn.data import TranslationBatch, bucketed

lengths = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=200)


@given(lengths, st.integers(1, 17), st.integers(0, 5), st.none() | st.integers(1, 90))
def test_each_example_once_and_no_batch_too_large(pairs: list[tuple[int, int]], size: int, seed: int, tokens: int | None) -> None:
    source, target = [a for a, _ in pairs], [b for _, b in pairs]
    batches = bucketed(source, target, size, seed, tokens)
    assert sorted(i for batch in batches for i in batch.tolist()) == list(range(len(pairs)))
    for batch in batches:
        assert 1 <= len(batch) <= size
        if tokens is not None and len(batch) > 1:
            assert sum(source[i] + target[i] for i in batch) <= tokens


def test_the_generator_decides_the_order(rng: np.random.Generator) -> None:
    source, target = rng.integers(1, 30, (2, 500))

    def order(seed: int) -> list[list[int]]:
        return [batch.tolist() for batch in bucketed(source, target, 16, np.random.default_rng(seed))]

    assert order(3) == order(3)
    assert order(3) != order(4)


def test_lengths_in_a_batch_are_similar_and_their_order_is_not_sorted(rng: np.random.Generator) -> None:
    source, target = rng.integers(1, 50, (2, 6400))
    batches = bucketed(source, target, 64, 0)
    spread = np.mean([np.ptp(target[batch]) for batch in batches])
    assert spread <= 2  # 100 batches over 49 lengths, where a random batch spans nearly all of them
    means = [target[batch].mean() for batch in batches]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.5


def test_an_example_over_the_budget_is_alone() -> None:
    assert sorted(map(len, bucketed([50, 1, 1], [50, 1, 1], 8, 0, tokens=4))) == [1, 2]


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"expected source and target lengths \(N,\) and \(N,\), got \(2,\) and \(3,\)"):
        bucketed([1, 2], [1, 2, 3], 4, 0)
    with pytest.raises(ValueError, match="batch_size and tokens must be at least 1, not 0 and None"):
        bucketed([1], [1], 0, 0)
    with pytest.raises(ValueError, match="1 sources but 0 targets"):
        TranslationBatch([np.array([4])], [])


def test_a_batch_counts_its_predictions() -> None:
    batch = TranslationBatch([np.array([4, 5]), np.array([6])], [np.array([7]), np.array([8, 9, 10])])
    assert batch.size == 2
    assert batch.tokens == (1 + 1) + (3 + 1)  # the end mark is predicted too
