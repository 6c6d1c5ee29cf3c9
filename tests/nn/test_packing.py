"""Packed batches against the definition, spelled out with loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirnn import Tensor, nn

lengths_of_batches = st.lists(st.integers(1, 7), min_size=1, max_size=6)


@given(lengths_of_batches)
def test_indices_are_what_they_are_said_to_be(lengths: list[int]) -> None:
    packing = nn.Packing(lengths)
    order = sorted(range(len(lengths)), key=lambda n: -lengths[n])
    where = [(t, n) for t in range(max(lengths)) for n in order if lengths[n] > t]
    N = len(lengths)
    assert packing.order.tolist() == order
    assert [order[k] for k in packing.inverse] == list(range(N))
    assert packing.sorted_lengths.tolist() == sorted(lengths, reverse=True)
    assert packing.batch_sizes.tolist() == [sum(length > t for length in lengths) for t in range(max(lengths))]
    assert list(zip(packing.time.tolist(), packing.sequence.tolist(), strict=True)) == where
    assert packing.rows.tolist() == [t * N + n for t, n in where]
    assert packing.reverse.tolist() == [where.index((lengths[n] - 1 - t, n)) for t, n in where]
    assert packing.last.tolist() == [where.index((lengths[n] - 1, n)) for n in range(N)]
    assert [sum(lengths), max(lengths), N] == [packing.S, packing.T, packing.N]
    assert packing.mask(8).sum(1).tolist() == lengths


@given(lengths_of_batches, st.integers(0, 2), st.booleans())
def test_packing_and_unpacking_leave_all_but_the_padding(lengths: list[int], extra: int, batch_first: bool) -> None:
    T, N = max(lengths) + extra, len(lengths)
    x = np.random.default_rng(0).standard_normal((T, N, 2))
    x[~nn.Packing(lengths).mask(T).T] = np.nan
    back = nn.pack(Tensor(x), lengths).unpack(T, batch_first).numpy()
    np.testing.assert_array_equal(back.swapaxes(0, 1) if batch_first else back, np.nan_to_num(x))


@given(lengths_of_batches)
def test_packing_a_list_is_packing_its_padded_form(lengths: list[int]) -> None:
    x = np.random.default_rng(0).standard_normal((max(lengths), len(lengths), 3))
    parts = [x[:length, n] for n, length in enumerate(lengths)]
    expected = nn.pack(Tensor(x), lengths)
    np.testing.assert_array_equal(nn.pack_sequence(parts).rows.numpy(), expected.rows.numpy())
    leaves = [Tensor(part, requires_grad=True) for part in parts]
    packed = nn.pack_sequence(leaves)
    np.testing.assert_array_equal(packed.rows.numpy(), expected.rows.numpy())
    (packed.rows * packed.rows).sum().backward()
    for leaf, part in zip(leaves, parts, strict=True):
        assert leaf.grad is not None
        np.testing.assert_array_equal(leaf.grad.numpy(), 2 * part)


def test_a_dense_batch_is_packed_without_a_copy() -> None:
    x = np.zeros((4, 3, 2))
    assert np.shares_memory(nn.pack(Tensor(x), [4, 4, 4]).rows.data, x)
    assert np.shares_memory(nn.pack(Tensor(x), [2, 2, 2]).rows.data, x)


def test_indices_cannot_be_overwritten() -> None:
    with pytest.raises(ValueError, match="read-only"):
        nn.Packing([2, 1]).rows[0] = 5


@pytest.mark.parametrize(
    ("lengths", "words"),
    [
        ([3, 0, 2], "sequence 1 has length 0; every sequence needs at least one step"),
        ([], r"lengths must be \(N,\) integers"),
        ([1.5, 2.0], r"lengths must be \(N,\) integers.*float64"),
        ([[1, 2]], r"lengths must be \(N,\) integers.*\(1, 2\)"),
    ],
)
def test_bad_lengths_are_refused(lengths: list[int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        nn.Packing(lengths)


def test_lengths_that_do_not_fit_the_batch_are_refused() -> None:
    x = Tensor(np.zeros((4, 2, 3)))
    with pytest.raises(ValueError, match=r"sequence 1 has length 5, x \(T, N, ...\) = \(4, 2, 3\) has only 4 steps"):
        nn.pack(x, [1, 5])
    with pytest.raises(ValueError, match=r"one for each sequence of x .*got \(3,\)"):
        nn.pack(x, [1, 2, 3])
    with pytest.raises(ValueError, match=r"rows must be \(S, ...\) with S=3"):
        nn.Packed(x, nn.Packing([1, 2]))
    with pytest.raises(ValueError, match="T=2 is shorter than the longest sequence, 4"):
        nn.pack(x, [4, 1]).unpack(2)
