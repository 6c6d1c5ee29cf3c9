"""On a real GPU: the suites of the device code, the benchmark's check of every kernel, and training in every dtype.

The suites run in processes of their own with MINIRNN_TEST_DEVICE=cuda, see `tests/devices.py`. What they count, how they order threads and
which mistakes they plant are the emulator's: those tests are left out.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.devices import VARIABLE

pytestmark = pytest.mark.gpu
TESTS = Path(__file__).parent
RECURRENCES = (
    "equal_the_reference or long_sums or complex_step or central_differences or alone_and_in_a_batch or nan_stays or means_zero "
    "or any_order or saturate or rounded_once"
)
SUITES = [
    ("kernels/test_cuda_recurrences.py", RECURRENCES),
    ("kernels/test_numba_cuda.py", RECURRENCES),
    ("kernels/test_cuda_adam.py", ""),
    ("kernels/test_cuda_cross_entropy.py", ""),
    ("kernels/test_cuda_embedding.py", ""),
    ("kernels/test_layer_norm.py", ""),
    ("kernels/test_dropout.py", ""),
    ("ops/test_device.py", "not nothing_waits"),
    ("nn/test_device.py", ""),
    ("optim/test_device.py", "not moves_to_the_device_once and not one_wait"),
]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, VARIABLE: "cuda"}
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=TESTS.parent, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("suite", "chosen"), SUITES, ids=[suite for suite, _ in SUITES])
def test_a_suite_of_the_emulated_device(suite: str, chosen: str) -> None:
    done = run("pytest", "-q", "-p", "no:cacheprovider", str(TESTS / suite), "-k", chosen)
    assert done.returncode == 0, done.stdout[-8000:]
    assert " passed" in done.stdout


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_every_kernel_and_form_is_right_on_awkward_and_large_shapes(cell: str) -> None:
    done = run("minirnn", "bench", "gpu", "--check", "--cell", cell)
    assert done.returncode == 0, done.stdout + done.stderr
