"""Checkpointing shown: what is kept is what the formulas say, gradients are equal, and what cannot be measured is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from minirnn.study import Checkpointing, checkpointing

T, N, D, H = 12, 2, 3, 5
CELL = N * H * 8  # bytes of one number per unit and sequence, in float64


@pytest.fixture(scope="module")
def found() -> Checkpointing:
    return checkpointing(T=T, N=N, D=D, H=H, segments=(1, 3), dtype="float64", rounds=1, peaks=False, threads=1)


def test_it_keeps_what_the_formulas_say(found: Checkpointing) -> None:
    """Beside a few states at the ends, and of each segment some numbers by which a second run that differs is noticed."""
    rows = {row.name: row for row in found.rows}
    assert list(rows) == ["store", "recompute-half", "recompute", "1 segment", "3 segments"]
    ends = 8 * CELL
    for name, numbers in (("store", 6 * T), ("recompute-half", 4 * T), ("recompute", 2 * T), ("1 segment", T + 2), ("3 segments", T + 6)):
        prints = 3 * 64 * 8 * (rows[name].segments or 0)
        assert numbers * CELL - ends <= rows[name].kept <= numbers * CELL + ends + prints, name


def test_gradients_are_equal_and_times_there(found: Checkpointing) -> None:
    for row in found.rows:
        assert row.difference < 1e-12
        assert row.seconds > 0
        assert row.peak is None
    assert found.rows[0].over_store == 1


def test_a_table_and_a_picture(found: Checkpointing, tmp_path: Path) -> None:
    lines = str(found).splitlines()
    assert lines[0] == "LSTM, T=12 steps, N=2 sequences, D=3 features, H=5 hidden units, float64"
    assert [line[:16].strip() for line in lines[2:]] == [row.name for row in found.rows]
    pytest.importorskip("matplotlib")
    assert found.draw(tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_bad_numbers_are_named() -> None:
    with pytest.raises(ValueError, match="checkpointing: H must be at least 1, got 0"):
        checkpointing(H=0)
    with pytest.raises(ValueError, match='dtype must be "float32" or "float64", got \'int8\''):
        checkpointing(dtype="int8")
    for segments in ((), (0,), (1, 13), 4):
        with pytest.raises(ValueError, match="segments must be numbers from 1 to T = 12"):
            checkpointing(T=12, segments=segments)
