"""The benchmark of products: what it times is right, what is wrong it refuses, and what it reports adds up."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba", reason="the products are compiled by Numba")

from minirnn.bench.matmul import Case, cases, error, prepare
from minirnn.cli import main
from minirnn.errors import MinirnnError

SMALL = [
    Case("z", 30, 7, 40, b_transposed=True),
    Case("dx", 30, 40, 7),
    Case("dw", 40, 30, 7, a_transposed=True),
    Case("step", 5, 9, 36, b_transposed=True, step=True),
]


@pytest.mark.parametrize("side", ["numpy", "ours"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", SMALL, ids=str)
def test_what_is_timed_is_right(case: Case, dtype: str, side: str) -> None:
    prepare(side, list(case), dtype, threads=2)  # raises where the result is wrong


def test_a_wrong_product_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    from minirnn.kernels.matmul import numba_cpu

    def wrong(a: Any, b: Any, out: Any) -> None:
        np.matmul(a, b, out=out)
        out[2, 3] *= 1.001

    monkeypatch.setattr(numba_cpu, "blocked", wrong)
    with pytest.raises(MinirnnError, match=r"ours, z \(30, 7\) \(7, 40\): a number is .* times as far off as rounding explains"):
        prepare("ours", list(SMALL[0]), "float32", threads=1)


def test_the_error_is_measured_in_roundings() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((50, 300)).astype(np.float32), rng.standard_normal((300, 20)).astype(np.float32)
    y = a.astype(np.float64) @ b
    assert error(a, b, y.astype(np.float32)) < 0.05
    y[0, 0] = np.nan
    assert not error(a, b, y.astype(np.float32)) <= 1


def test_a_layers_products_are_those_of_its_passes() -> None:
    for z, dx, dw in zip(*(iter(case for case in cases() if not case.step),) * 3, strict=True):
        assert (z.M, z.K, z.N) == (dx.M, dx.N, dx.K) == (dw.K, dw.N, dw.M)
        assert z.operations == dx.operations == dw.operations


def test_a_report(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minirnn.bench.timing.SETTLE", 0.0)
    assert main(["bench", "matmul", "--shape", "20,30,40", "--rounds", "2", "--threads", "1", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    (result,) = report["results"]
    assert (result["M"], result["K"], result["N"]) == (20, 30, 40)
    ours = result["gflops"]["ours"]["median"]
    assert ours == pytest.approx(2 * 20 * 30 * 40 / 1e9 * np.mean([1 / s for s in result["seconds"]["ours"]]), rel=1e-6)
    assert result["of_peak"] == pytest.approx(ours / report["peak"])
    assert report["machine"]["threads"] == 1
