"""The registry: what there is, the choice, and the words with which a choice is refused."""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from minirnn.kernels import Kernel, availability, choose, explain, fused, kernel, kernels, load, register, registry

HAS_NUMBA = importlib.util.find_spec("numba") is not None
needs_emulator = pytest.mark.skipif(
    availability.missing("emulated") is not None, reason=f"the emulated device: {availability.missing('emulated')}"
)
SIZES: dict[str, Any] = {"T": 5, "N": 3, "H": 4, "dtype": np.float32}


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MINIRNN_KERNEL", raising=False)


@pytest.fixture
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_kernels", dict(registry._kernels))


@pytest.fixture
def _without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "numba" else find(name, *rest))


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_every_cell_has_the_three(cell: str) -> None:
    assert {"numba", "numpy", "unrolled"} <= {k.name for k in kernels(cell)}


@pytest.mark.parametrize("entry", [k for cell in registry.CELLS for k in kernels(cell) if k.module and not k.why_not()], ids=str)
def test_a_kernel_that_can_run_meets_the_contract(entry: Kernel) -> None:
    module = load(entry.cell, entry.name)
    assert callable(module.forward)
    assert callable(module.backward)


@pytest.mark.parametrize("operation", registry.OPERATIONS)
def test_operations_load(operation: str) -> None:
    assert fused(operation, np.zeros(1, np.float32)).__name__.startswith(f"minirnn.kernels.{operation}.")


@pytest.mark.skipif(not HAS_NUMBA, reason="needs numba")
def test_the_fused_one_is_preferred_where_it_can_run() -> None:
    assert choose("lstm", **SIZES).name == "numba"
    assert choose("lstm", **{**SIZES, "dtype": np.float16}).name == "numpy"
    assert choose("lstm", **SIZES, device="cuda").name == "unrolled"


@pytest.mark.skipif(not HAS_NUMBA, reason="needs numba")
def test_a_single_step_does_not_pay_for_packing_the_weights() -> None:
    assert choose("lstm", **{**SIZES, "T": 1}).name == "numpy"
    assert choose("lstm", **{**SIZES, "T": 1}, kernel="numba").name == "numba"
    assert "can run; numpy is preferred for fewer than 2 steps" in explain(1, 3, 2, 4)


@pytest.mark.usefixtures("_without_numba")
def test_without_numba() -> None:
    assert choose("lstm", **SIZES).name == "numpy"
    with pytest.raises(
        RuntimeError, match=r"'numba' cannot run .* needs the package numba, which is not installed; can run: numpy, unrolled"
    ):
        choose("lstm", **SIZES, kernel="numba")
    assert "cannot run: it needs the package numba" in explain(5, 3, 2, 4)


def test_argument_before_context_before_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIRNN_KERNEL", "unrolled")
    assert choose("lstm", **SIZES).name == "unrolled"
    with kernel("numpy"):
        assert choose("lstm", **SIZES).name == "numpy"
        assert choose("lstm", **SIZES, kernel="unrolled").name == "unrolled"
        with kernel("unrolled"):
            assert choose("lstm", **SIZES).name == "unrolled"
        with kernel(None):
            assert choose("lstm", **SIZES).name == ("numba" if HAS_NUMBA else "numpy")
        assert choose("lstm", **SIZES).name == "numpy"
    assert choose("lstm", **SIZES).name == "unrolled"


def test_an_operation_ignores_a_wish_that_only_recurrences_can_fulfil() -> None:
    with kernel("unrolled"):
        assert choose("adam", dtype=np.float32).name in ("numba", "numpy")
    with kernel("numpy"):
        assert choose("adam", dtype=np.float32).name == "numpy"


@needs_emulator
def test_an_operation_ignores_a_wish_that_means_another_device() -> None:
    with kernel("numpy"):
        assert choose("adam", dtype=np.float32, device="emulated").name == "cupy"
        with pytest.raises(RuntimeError, match="the lstm kernel 'numpy' cannot run"):
            choose("lstm", **SIZES, device="emulated")
    with kernel("cupy"):
        assert choose("adam", dtype=np.float32).name in ("numba", "numpy")
        assert choose("adam", dtype=np.float32, device="emulated").name == "cupy"


def test_the_context_ends_with_an_error() -> None:
    with pytest.raises(ZeroDivisionError), kernel("numpy"):
        raise ZeroDivisionError
    assert choose("lstm", **SIZES).name == ("numba" if HAS_NUMBA else "numpy")


def test_one_that_cannot_run_is_refused_and_never_replaced() -> None:
    words = (
        r"kernel='numba': the lstm kernel 'numba' cannot run float16 on cpu, T=5, N=3, H=4: "
        r"it takes float32 or float64, and the dtype is float16; can run: numpy, unrolled"
    )
    with pytest.raises(RuntimeError, match=words):
        choose("lstm", **{**SIZES, "dtype": np.float16}, kernel="numba")
    with kernel("numpy"), pytest.raises(RuntimeError, match=r"with minirnn.kernel\('numpy'\): .* it runs on cpu, and the device is cuda"):
        choose("lstm", **SIZES, device="cuda")


def test_an_unknown_name_is_answered_with_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ValueError, match=r"kernel='cudnn': there is no kernel named 'cudnn'; there are numba, numpy, cupy, numba-cuda, unrolled"
    ):
        choose("lstm", **SIZES, kernel="cudnn")
    with pytest.raises(ValueError, match="there is no kernel named 'cudnn'"), kernel("cudnn"):
        pass
    monkeypatch.setenv("MINIRNN_KERNEL", "cudnn")
    with pytest.raises(ValueError, match="MINIRNN_KERNEL=cudnn: there is no kernel named 'cudnn'"):
        choose("lstm", **SIZES)
    with pytest.raises(ValueError, match="cell must be one of lstm, gru, rnn"):
        kernels("qrnn")


def test_unrolled_has_no_array_module() -> None:
    with pytest.raises(ValueError, match=r"made of Tensor operations and has no array module; see minirnn.ops.recurrence"):
        load("lstm", "unrolled")


@pytest.mark.usefixtures("_own_registry")
def test_a_new_kernel_is_found_by_name() -> None:
    register(Kernel("lstm", "mine", "here", "somehow", module="minirnn.kernels.lstm.numpy_"))
    assert choose("lstm", **SIZES, kernel="mine").where == "here"
    assert load("lstm", "mine").__name__ == "minirnn.kernels.lstm.numpy_"
    with pytest.raises(ValueError, match="lstm has a kernel named 'mine' already"):
        register(Kernel("lstm", "mine", "here", "somehow", module=None))
    with pytest.raises(ValueError, match="gru has no kernel named 'mine'; it has numba, numpy, cupy, numba-cuda, unrolled"):
        choose("gru", **SIZES, kernel="mine")


def test_explain_counts_bytes_and_operations() -> None:
    """T=20, N=64, D=H=256: 2 N H 4H operations a step, three products of that size; 6 numbers per row and unit are kept."""
    text = explain(20, 64, 256, 256)
    step = 2 * 64 * 256 * 4 * 256
    assert f"{step / 1e6:.3g} MFLOP" in text
    assert f"{6 * 20 * step / 1e9:.3g} GFLOP in matrix products" in text
    assert f"{6 * 4 * 20 * 64 * 256 / 1e6:.3g} MB" in text
    for entry in kernels("lstm"):
        assert f"  {entry.name} " in text


def test_explain_names_what_overrides() -> None:
    with kernel("numpy"):
        assert "runs (with minirnn.kernel('numpy'))" in explain(2, 2, 2, 2, cell="gru")


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_explain_measures_the_floor_when_asked(cell: str) -> None:
    assert "FLOP/s)" in explain(2, 3, 4, 5, cell=cell, measure=True)


def test_importing_the_registry_loads_no_kernel() -> None:
    code = (
        "import sys, minirnn.kernels; loaded = [m for m in sys.modules if m.split('.')[0] == 'numba' or m.startswith('minirnn.kernels.l')];"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Devices


@needs_emulator
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_on_a_device_cuda_comes_before_numba(cell: str) -> None:
    able = [k.name for k in kernels(cell) if k.why_not(np.float32, "emulated") is None]
    assert able == ["cupy", "numba-cuda", "unrolled"]
    assert choose(cell, **SIZES, device="emulated").name == "cupy"
    assert choose(cell, **{**SIZES, "dtype": "float16"}, device="emulated").name == "cupy"
    with pytest.raises(RuntimeError, match=r"'numba-cuda' cannot run float16 on emulated.*: it takes float32 or float64, .*can run: cupy"):
        choose(cell, **{**SIZES, "dtype": np.float16}, device="emulated", kernel="numba-cuda")


@needs_emulator
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("name", ["cupy", "numba-cuda"])
def test_a_kernel_of_a_device_meets_the_contract(cell: str, name: str) -> None:
    module = load(cell, name, "emulated")
    assert callable(module.forward)
    assert callable(module.backward)


@needs_emulator
@pytest.mark.parametrize("operation", registry.ON_ANY_DEVICE)
def test_operations_load_for_the_arrays_own_device(operation: str) -> None:
    array = importlib.import_module("minirnn.kernels.emulator.stand_in").zeros(1, np.float32)
    assert fused(operation, array).__name__ == f"minirnn.kernels.{operation}.cupy_"


@pytest.mark.parametrize("operation", registry.ON_THE_CPU)
@pytest.mark.parametrize("device", ["cuda", "emulated"])
def test_operations_of_the_cpu_have_the_reference_and_are_refused_elsewhere(operation: str, device: str) -> None:
    assert [k.name for k in kernels(operation)] == ["numba", "numpy"]
    with pytest.raises(RuntimeError, match=f"no {operation} kernel can run float32 on {device}: it is fused on the CPU alone"):
        choose(operation, dtype="float32", device=device)


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "missing", lambda device: f"there is no {device}")
    monkeypatch.setattr(registry, "emulator_lacks", lambda part: f"{part} has no compiler")
    entries = {k.name: k for k in kernels("lstm")}
    assert entries["cupy"].why_not("float32", "cuda:1") in ("there is no cuda:1", "it needs the package cupy, which is not installed")
    assert entries["cupy"].why_not("float32", "emulated") == "build has no compiler"
    assert entries["numba-cuda"].why_not("float32", "emulated") == "numba_engine has no compiler"
    assert choose("lstm", **SIZES, device="emulated").name == "unrolled"
    with pytest.raises(RuntimeError, match=r"no adam kernel can run float32 on emulated: .*cupy: build has no compiler"):
        choose("adam", dtype="float32", device="emulated")


def test_bfloat16_is_a_name_with_and_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = {k.name: k for k in kernels("lstm")}
    assert entries["cupy"].does_not_take("bfloat16", "cuda") is None
    assert "it takes float32 or float64, and the dtype is bfloat16" in (entries["numba-cuda"].why_not("bfloat16", "cuda") or "")
    monkeypatch.setattr(registry, "installed", lambda package: package != "ml_dtypes")
    assert entries["cupy"].why_not("bfloat16", "emulated") == "it needs the package ml_dtypes, which is not installed"
    program = "from minirnn.kernels import explain; print(explain(2, 2, 2, 2, dtype='bfloat16', device='H100'))"
    assert "bfloat16 on H100" in subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("device", ["H100", "A100", "RTX 4090"])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_explain_a_gpu_that_need_not_be_here(device: str, cell: str) -> None:
    text = explain(128, 16, 256, 256, dtype="float16", device=device, cell=cell)
    assert f"float16 on {device}" in text
    assert f"cannot run: it runs on cpu, and the device is {device}" in text
    assert re.search(r"cupy .*\n +runs\n", text)
    assert re.search(r"numba-cuda .*\n +cannot run: it takes float32 or float64", text)
    assert "prediction" in text or "predicted" in text
