"""`minirnn explain`: the plan of a recurrence on a device that need not be here, and what it says where it cannot."""

from __future__ import annotations

import pytest

from minirnn.kernels import explain
from minirnn.kernels.availability import missing

from .conftest import Call


@pytest.mark.parametrize(("device", "name"), [("h100", "H100"), ("A100", "A100"), ("RTX-4090", "RTX 4090"), ("rtx 4090", "RTX 4090")])
def test_a_published_gpu_need_not_be_here(call: Call, device: str, name: str) -> None:
    shown = call("explain", "--shape", "100,16,64,512", "--cell", "gru", "--dtype", "bfloat16", "--device", device)
    assert shown.code == 0
    assert shown.out == explain(100, 16, 64, 512, dtype="bfloat16", device=name, cell="gru") + "\n"
    assert "predicted, NOT MEASURED" in shown.out


def test_the_cpu_is_the_default_and_its_floor_can_be_measured(call: Call) -> None:
    assert "measure=True times them here" in call("explain", "--shape", "2,3,4,5").out
    assert "these products alone, NumPy, best of 5" in call("explain", "--shape", "2,3,4,5", "--measure").out


@pytest.mark.skipif(missing("emulated") is not None, reason="needs what the emulator needs")
def test_the_emulated_device_has_a_plan_and_no_prediction(call: Call) -> None:
    shown = call("explain", "--shape", "4,5,6,40", "--device", "emulated").out
    assert "emulated GPU, as the device says" in shown
    assert "no floor for emulated GPU: its peak rates are not known" in " ".join(shown.split())


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--device", "h100"], "--shape"),
        (["--shape", "1,2,3"], "expected T,N,D,H"),
        (["--shape", "1,2,3,4", "--device", "abacus"], 'expected "cpu", "cuda", "cuda:<index>" or "emulated"'),
        (["--shape", "1,2,3,4", "--dtype", "int8"], "invalid choice: 'int8'"),
    ],
)
def test_bad_usage(call: Call, arguments: list[str], complaint: str) -> None:
    assert complaint in call("explain", *arguments).complaint
