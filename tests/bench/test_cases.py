"""The shapes of the benchmark of recurrent layers, and how many operations their matrix products are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from minirnn.bench.cases import CELLS, GATES, GRIDS, Case, draw
from minirnn.bench.libraries.layer import operands

BASE = Case("lstm", 7, 5, 3, 4)
CASES = [
    BASE,
    replace(BASE, cell="gru", ragged=True),
    replace(BASE, cell="rnn", N=1),
    replace(BASE, ragged=True, layers=2, bidirectional=True),
    replace(BASE, N=2, stepwise=True),
]


def counted(case: Case, pass_: str) -> int:
    """One multiplication and one addition at a time: for every step that a sequence has, every gate, unit and input of it."""
    operations = 0
    for length in case.lengths:
        for _ in range(length):
            for layer in range(case.layers):
                for _ in range(case.directions):
                    inputs = (case.D if layer == 0 else case.directions * case.H) + case.H
                    operations += 2 * GATES[case.cell] * case.H * inputs
    return operations * (3 if pass_ == "both" else 1)  # backward: as much for the gradient of the inputs, and for that of the weights


@pytest.mark.parametrize("case", CASES, ids=str)
def test_operations_are_those_of_a_count_by_hand(case: Case) -> None:
    for pass_ in case.passes:
        assert case.flops(pass_) == counted(case, pass_)
        assert sum(2 * a.shape[0] * a.shape[1] * b.shape[1] for a, b, _ in operands(case, pass_)) == case.flops(pass_)


def test_padding_does_not_count() -> None:
    ragged = replace(BASE, T=100, N=64, ragged=True)
    assert ragged.lengths.min() == 1
    assert ragged.lengths.max() == 100
    assert sorted(ragged.lengths) != ragged.lengths.tolist() != sorted(ragged.lengths, reverse=True)
    assert ragged.flops("both") * ragged.T * ragged.N == replace(ragged, ragged=False).flops("both") * ragged.lengths.sum()
    assert ragged.batch_sizes.tolist() == [int((ragged.lengths > t).sum()) for t in range(100)]
    assert np.diff(np.sort(ragged.lengths)).max() <= 2  # evenly spread


def test_everybody_draws_the_same_numbers() -> None:
    first, second = draw(CASES[3]), draw(CASES[3])
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert {array.dtype.name for array in first.values()} == {"float32"}
    assert {array.dtype.name for array in draw(replace(BASE, dtype="float64")).values()} == {"float64"}


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("cell", CELLS)
def test_a_grid_has_dense_and_ragged_cases_of_its_cell(grid: str, cell: str) -> None:
    cases = GRIDS[grid](cell, "float64")
    assert {case.cell for case in cases} == {cell}
    assert {case.dtype for case in cases} == {"float64"}
    assert {case.ragged for case in cases} == {False, True}
    assert len(set(cases)) == len(cases)
