"""`minirnn bench gpu` without a GPU: it says so; and its own code, on the emulated device, finds wrong kernels and prints no times."""

from __future__ import annotations

import itertools
import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from minirnn.bench import gpu, gpu_cases, gpu_check, gpu_layers, gpu_timing
from minirnn.bench.gpu_cases import Case
from minirnn.cli import main
from minirnn.kernels.availability import missing
from minirnn.kernels.cuda.devices import H100
from minirnn.kernels.cuda.predict import Layer

_reason = missing("emulated")
EMULATED = pytest.mark.skipif(_reason is not None, reason=f"needs the emulator: {_reason}")
QUICK = ("bench", "gpu", "--device", "emulated", "--kernel", "cupy", "--dtype", "float32")


@pytest.fixture
def _few_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "TINY_AWKWARD", (((3, 2), 9),))
    monkeypatch.setattr(gpu, "TINY", gpu_cases.TINY._replace(cases=gpu_cases.TINY.cases[:1]))


@pytest.mark.skipif(missing("cuda") is None, reason="there is a GPU")
@pytest.mark.parametrize("options", [(), ("--json",), ("--check", "--sanitize")])
def test_without_a_gpu_it_says_so_and_exits_with_2(options: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "gpu", *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("minirnn: nothing to measure: ")
    assert err.count("\n") == 1


@EMULATED
def test_a_file_that_cannot_be_written_is_noticed_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*QUICK, "--out", str(tmp_path / "no" / "gpu.json")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "there is no such folder" in err


@EMULATED
@pytest.mark.usefixtures("_few_shapes")
def test_an_interrupted_benchmark_keeps_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*given: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(gpu, "compare", interrupted)
    written = tmp_path / "gpu.json"
    assert main([*QUICK, "--out", str(written)]) == 130
    report = json.loads(written.read_text())
    assert len(report["checks"]) == 2
    assert report["results"] == []


@EMULATED
@pytest.mark.usefixtures("_few_shapes")
def test_an_emulated_device_is_checked_and_not_timed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = tmp_path / "gpu.json"
    assert main([*QUICK, "--out", str(written)]) == 0
    shown = capsys.readouterr().out
    assert "lstm cupy persistent float32" in shown
    assert "lstm, T=3 N=2 D=4 H=8, float32: not timed" in shown
    assert " ms" not in shown
    report = json.loads(written.read_text())
    assert report["emulated"] is True
    assert report["device"]["name"] == "emulated GPU"
    assert [(c["kernel"], c["form"], c["right"]) for c in report["checks"]] == [("cupy", "step", True), ("cupy", "persistent", True)]
    (result,) = report["results"]
    assert [(t["form"], t["what"]) for t in result["timings"]] == [(f, w) for f in ("step", "persistent") for w in ("forward", "both")]
    for timing in result["timings"]:
        assert 0 < timing["difference"] < 1e-5
        assert all(timing[name] is None for name in ("median_ms", "least_ms", "most_ms", "percent_of_floor", "predicted_ms"))


@EMULATED
@pytest.mark.usefixtures("_few_shapes")
def test_json_is_all_that_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*QUICK, "--check", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert "results" not in report
    assert all(check["right"] for check in report["checks"])


@EMULATED
@pytest.mark.usefixtures("_few_shapes")
@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda g: g._replace(dw_hh=g.dw_hh * np.float32(1.001)), "cupy step float32 at T=2 N=3 D=5 H=9 ragged: dw_hh differs by 0.00"),
        (lambda g: g._replace(dh0=g.dh0 * np.float32(np.nan)), "dh0 differs by inf from NumPy in float64, 1e-05 is allowed"),
        (lambda g: g._replace(dc0=g.dc0[:1]), "dc0, of shape (1, 9) and not (3, 9) differs by inf"),
        (lambda g: 1 // 0, "lstm kernel cupy step float32 at T=2 N=3 D=5 H=9 ragged: ZeroDivisionError: "),
    ],
    ids=["factor", "nan", "shape", "raises"],
)  # fmt: skip
def test_a_wrong_kernel_ends_it(
    spoil: Any, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(cell: str, name: str, device: str = "cpu") -> Any:
        kernel = right(cell, name, device)
        return (
            kernel if name == "numpy" else SimpleNamespace(forward=kernel.forward, backward=lambda *given: spoil(kernel.backward(*given)))
        )

    right = gpu_layers.load
    monkeypatch.setattr(gpu_layers, "load", load)
    written = tmp_path / "gpu.json"
    assert main([*QUICK, "--out", str(written)]) == 1
    shown = capsys.readouterr()
    assert complaint in shown.err
    assert "WRONG" in shown.out
    report = json.loads(written.read_text())
    assert "results" not in report
    assert not report["checks"][0]["right"]


@EMULATED
def test_a_kernel_is_checked_on_the_shape_that_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    xp = gpu.module_of("emulated")
    assert len(gpu_timing.compare("lstm", Case(9, 2, 3, 8), "float32", [("cupy", "step")], 1, xp, "emulated")) == 2
    monkeypatch.setattr(gpu_check, "allowed", lambda dtype, T: 1e-9)
    with pytest.raises(RuntimeError, match=r"lstm kernel cupy step float32 at T=3 N=2 D=3 H=8: .* is allowed; not timed"):
        gpu_timing.compare("lstm", Case(9, 2, 3, 8), "float32", [("cupy", "step")], 1, xp, "emulated")


@EMULATED
def test_what_does_not_fit_is_not_run_and_says_why() -> None:
    """H = 1,024 needs 64 blocks of 16 units at once: the emulated device holds 16."""
    xp = gpu.module_of("emulated")
    forward, both = gpu_timing.compare("lstm", Case(1, 1, 1, 1024), "float32", [("cupy", "persistent")], 1, xp, "emulated")
    assert forward.why_not == both.why_not
    assert "the persistent form cannot run on emulated GPU" in forward.why_not
    assert forward.difference is None


@EMULATED
def test_contestants_take_turns_after_a_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    class Layer:
        def __init__(self, cell: str, kernel: str, form: str, *rest: Any) -> None:
            self.name = form

        def forward(self) -> None:
            calls.append(self.name)

        def both(self) -> None:
            if self.name == "persistent":
                raise MemoryError("out of memory allocating 5 bytes")

    monkeypatch.setattr(gpu_timing, "Ours", Layer)
    right = gpu_check.Checked("lstm", "cupy", "", "float32", "", 0.0, 1.0, "h")
    able = [gpu_timing.Contestant("cupy", form, right) for form in ("step", "persistent")]
    found = gpu_timing._times("lstm", Case(1, 1, 1, 1), "float32", able, 4, gpu.module_of("emulated"), "emulated")
    assert calls == ["step", "persistent"] * (gpu_timing.WARM_UP + 4)
    assert {key[1:]: len(taken) if isinstance(taken, list) else taken for key, taken in found.items()} == {
        ("step", "forward"): 4,
        ("step", "both"): 4,
        ("persistent", "forward"): 4,
        ("persistent", "both"): "out of memory",
    }


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_pytorch_computes_the_same_layer(cell: str) -> None:
    pytest.importorskip("torch", reason="compares with PyTorch")
    case = Case(4, 3, 5, 7)
    arrays = gpu_layers.draw(cell, [3] * 4, 5, 7, "float64")
    found = gpu_layers.CuDNN(cell, arrays, case, "float64", where="cpu").both()
    expected = gpu_layers.reference(cell, arrays, [3] * 4)
    assert set(found) == set(expected)
    off, where = gpu_check.difference(found, expected)
    assert off < 1e-12, where
    assert gpu_layers.CuDNN(cell, arrays, case, "float64", where="cpu").forward().shape == (4, 3, 7)


def test_pytorch_is_not_timed_where_it_computes_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="compares with PyTorch")
    right = partial(gpu_layers.CuDNN, where="cpu")
    monkeypatch.setattr(gpu_check, "CuDNN", right)
    assert gpu_check.check_cudnn("lstm", Case(9, 2, 3, 4), "float32").why_not == ""
    monkeypatch.setattr(gpu_check, "allowed", lambda dtype, T: 1e-9)
    checked = gpu_check.check_cudnn("lstm", Case(9, 2, 3, 4), "float32")
    assert checked.difference is None
    assert checked.why_not.startswith("lstm kernel cudnn float32 at T=3 N=2 D=3 H=4: ")
    monkeypatch.setattr(gpu_check, "CuDNN", partial(right, where="nowhere"))
    assert "nowhere" in gpu_check.check_cudnn("lstm", Case(9, 2, 3, 4), "float32").why_not


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_what_16_bits_are_allowed_is_less_than_a_mistake(dtype: str) -> None:
    """Two gates exchanged, one step late, the path through c left out: each is off by more than the bound, even in bfloat16."""
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    batch_sizes, H = [6, 6, 4], 16
    arrays = gpu_layers.draw("lstm", batch_sizes, 5, H, dtype)
    right = gpu_layers.reference("lstm", arrays, batch_sizes)
    swapped = np.r_[H : 2 * H, 0:H, 2 * H : 4 * H]
    mistakes = [
        {**right, "dw_hh": right["dw_hh"][swapped]},
        {**right, "h": np.roll(right["h"], 6, axis=0)},
        {**right, "dc0": 0 * right["dc0"]},
        {**right, "dx": 1.1 * right["dx"]},
    ]
    limit = gpu_check.allowed(dtype, 3)
    assert [gpu_check.difference(found, right)[0] > limit for found in mistakes] == [True] * 4


def test_the_grids_are_those_of_their_sources() -> None:
    flashrnn, haste = gpu_cases.GRIDS["flashrnn"], gpu_cases.GRIDS["haste"]
    assert Case(1024, 16, 768, 768) in flashrnn.cases
    assert len(flashrnn.cases) == len(set(flashrnn.cases)) == 6 + 14 + 8 - 4  # four shapes are in two or three of the experiments
    assert len(haste.cases) == 5 * 9 * 4
    assert {case.T for case in haste.cases} == {50}


@EMULATED
def test_a_gpu_gets_times_percentages_and_predictions(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU would see, with the stand-in for CuPy in the place of a GPU, PyTorch on the CPU, and clocks that count 4, 1, 2, 3 ms."""
    pytest.importorskip("torch", reason="compares with PyTorch")

    def clock(call: Any) -> float:
        call()
        return next(ticks)

    ticks = itertools.cycle([4.0, 1.0, 2.0, 3.0])
    on_cpu = partial(gpu_layers.CuDNN, where="cpu")
    for module in (gpu_timing, gpu_check):
        monkeypatch.setattr(module, "CuDNN", on_cpu)
    monkeypatch.setattr(gpu_timing, "_torch_clock", clock)
    monkeypatch.setattr(gpu_timing, "_clock", lambda xp: clock)
    monkeypatch.setattr(gpu_timing, "here", lambda xp: H100)
    pairs = [("cupy", "step"), ("cupy", "persistent"), ("cudnn", "")]
    case, xp = Case(2, 3, 4, 5), gpu.module_of("emulated")
    timings = gpu_timing.compare("lstm", case, "float32", pairs, 4, xp, "cuda")
    assert [(t.kernel, t.form, t.what) for t in timings] == [(*pair, what) for pair in pairs for what in gpu_timing.WHAT]
    floor = Layer("lstm", *case, "float32").floor("forward", H100)
    for t in timings:
        assert t.median_ms is not None
        assert t.least_ms is not None
        assert t.most_ms is not None
        assert 1 <= t.least_ms <= t.median_ms <= t.most_ms <= 4
        assert t.percent_of_floor is not None
        assert (t.predicted_ms is None) == (t.kernel == "cudnn")
    assert timings[0].percent_of_floor == pytest.approx(100 * 1e3 * floor / timings[0].median_ms)
    lines: list[str] = []
    gpu._print("lstm", case, "float32", timings, 4, lines.append)
    assert lines[0] == "lstm, T=2 N=3 D=4 H=5, float32, median of 4"
    assert [line.split()[0] for line in lines[2:-1]] == ["cupy"] * 4 + ["cudnn"] * 2
    assert f"{timings[0].median_ms:.3f}" in lines[2]


@pytest.mark.gpu
@pytest.mark.skipif(missing("cuda") is not None, reason="needs a GPU")
def test_the_kernels_are_right_on_a_gpu() -> None:
    assert main(["bench", "gpu", "--check", "--cell", "lstm", "gru", "rnn"]) == 0
