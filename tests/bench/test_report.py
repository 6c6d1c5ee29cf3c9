"""Numbers, tables and JSON as every benchmark gives them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from minirnn.bench.report import check_can_write, heading, load_warning, machine, significant, spread, table, to_json
from minirnn.bench.timing import summary
from minirnn.errors import MinirnnError


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0"), (0.01234, "0.0123"), (1.0, "1.00"), (12.34, "12.3"), (123.4, "123"), (12345.6, "12,346"), (-2.5, "-2.50")],
)
def test_numbers_keep_three_digits(value: float, shown: str) -> None:
    assert significant(value) == shown


def test_a_spread_is_a_median_with_quartiles() -> None:
    assert spread(summary([1.0, 2.0, 3.0]), scale=1e3, digits=2) == "2,000 (1,500 to 2,500)"


def test_columns_are_in_line() -> None:
    shown = table(["kernel", "ms"], [["numba", "1.5"], ["a long name", "12.5"]])
    assert shown.splitlines() == ["  kernel         ms", "  numba         1.5", "  a long name  12.5"]


def test_json_has_no_nan_and_knows_named_tuples() -> None:
    parsed = json.loads(to_json({"a": math.nan, "b": (1.0, math.inf), "c": summary([2.0])}))
    assert parsed == {"a": None, "b": [1.0, None], "c": dict.fromkeys(("median", "lower", "upper", "least", "most"), 2.0)}


def test_the_machine_is_described() -> None:
    found = machine(2, 0.25)
    assert found["threads"] == 2
    assert found["packages"]["numpy"]
    assert "2 threads" in heading(found)
    assert json.loads(to_json(found)) == found


def test_what_steers_a_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")  # the number of threads stands elsewhere
    found = machine(2, 0.25)
    assert found["environment"]["OPENBLAS_CORETYPE"] == "Haswell"
    assert "OPENBLAS_CORETYPE=Haswell" in heading(found)
    assert "NUM_THREADS" not in heading(found)


def test_other_work_is_warned_of() -> None:
    assert load_warning(None) is None
    assert load_warning(0.1) is None
    assert "load average is 1.7" in str(load_warning(1.7))


def test_a_file_that_cannot_be_written_is_refused_early(tmp_path: Path) -> None:
    check_can_write(None)
    check_can_write(str(tmp_path / "new.json"))
    with pytest.raises(MinirnnError, match="no such folder"):
        check_can_write(str(tmp_path / "missing" / "new.json"))
