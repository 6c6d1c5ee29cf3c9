"""Row arithmetic of the packed layout against a walk over every sequence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from minirnn.kernels.contract import check_packed
from minirnn.kernels.packed import last_rows, previous, starts, weight_gradient

from .problems import Array, batch_sizes, rows_of


@given(batch_sizes)
def test_previous_is_the_row_before_in_the_same_sequence(sizes: list[int]) -> None:
    S, N = sum(sizes), sizes[0]
    state, state0 = np.arange(S)[:, None], -1 - np.arange(N)[:, None]
    before = previous(state, state0, np.array(sizes))
    for n in range(N):
        rows = rows_of(n, sizes)
        assert before[rows, 0].tolist() == [-1 - n, *rows[:-1]]


@given(batch_sizes)
def test_last_rows(sizes: list[int]) -> None:
    assert last_rows(np.array(sizes)).tolist() == [rows_of(n, sizes)[-1] for n in range(sizes[0])]


@given(batch_sizes)
def test_starts(sizes: list[int]) -> None:
    assert starts(np.array(sizes)).tolist() == [sum(sizes[:t]) for t in range(len(sizes) + 1)]


@pytest.mark.parametrize("sizes", [[], [2, 3], [2, 0], [[2, 1]]])
def test_batch_sizes_that_are_none(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="LSTM: batch_sizes must be a non-increasing"):
        check_packed("LSTM", 4, np.zeros((3, 4)), np.zeros((4, 1)), np.array(sizes, np.int64))


@pytest.mark.parametrize("batch_sizes", [[3], [4, 4, 4], [4, 3, 3, 1]], ids=["one step", "dense", "ragged"])
def test_weight_gradient_is_the_product_with_the_state_before(batch_sizes: list[int]) -> None:
    def multiply(a: Array, b: Array, out: Array | None = None, accumulate: bool = False) -> Array:
        return a @ b if out is None else np.add(out, a @ b, out=out)

    rng, sizes = np.random.default_rng(0), np.array(batch_sizes)
    da, state, state0 = (rng.standard_normal(shape) for shape in ((sizes.sum(), 5), (sizes.sum(), 2), (sizes[0], 2)))
    result = weight_gradient(multiply, da, state, state0, sizes)
    np.testing.assert_allclose(result, da.T @ previous(state, state0, sizes), rtol=1e-12, atol=1e-12)
