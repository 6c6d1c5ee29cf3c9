"""The sanitizers see what no wrong result shows, and are silent about kernels that are right."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from minirnn.kernels.emulator import sanitizers

SOURCE = """
extern "C" __global__ void reverse(const float* x, float* y, int n) {
  __shared__ float s[64];
  const int i = threadIdx.x;
  s[i] = x[i];
  BARRIER
  float reversed = s[n - 1 - i] + __shfl_xor_sync(0xffffffffu, 0.0f, 1);
  y[i + SHIFT] = reversed;
}
"""
SCRIPT = """
import numpy as np
from minirnn.kernels.emulator import stand_in as xp
for source in {sources!r}:
    x, y = xp.arange(64, dtype=np.float32), xp.zeros(64, np.float32)
    with xp.schedule(3):
        xp.RawKernel(source, "reverse")((1,), (64,), (x, y, np.int32(64)))
    print("finished", (y.get() == np.arange(63, -1, -1)).all(), flush=True)
"""
RIGHT = {"BARRIER": "__syncthreads();", "SHIFT": "0"}


def report(tmp_path: Path, sanitizer: str, **planted: str) -> str:
    """What a sanitizer says of a kernel with a mistake, after it has been silent about the same kernel without."""
    if reason := sanitizers.lacks({"address": "address,undefined"}.get(sanitizer, sanitizer)):
        pytest.skip(reason)
    sources = []
    for changes in (RIGHT, {**RIGHT, **planted}):
        source = SOURCE
        for name, text in changes.items():
            source = source.replace(name, text)
        sources.append(source)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(sources=sources))
    command = [sys.executable, "-m", "minirnn.kernels.emulator", "sanitize", sanitizer, str(script)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.stdout == "finished True\n", result.stderr
    assert result.returncode
    return result.stderr


def test_a_race_is_found_whatever_the_result(tmp_path: Path) -> None:
    """A barrier of the warp orders half of the accesses."""
    said = report(tmp_path, "thread", BARRIER="__syncwarp();")
    assert "ThreadSanitizer: data race" in said
    assert "kernel.cu:7 in reverse" in said or "kernel.cu:5 in reverse" in said


def test_an_access_beyond_an_array_is_found(tmp_path: Path) -> None:
    said = report(tmp_path, "address", SHIFT="1")
    assert "AddressSanitizer: heap-buffer-overflow" in said
    assert "kernel.cu:8" in said


def test_an_index_beyond_a_shared_array_is_found(tmp_path: Path) -> None:
    said = report(tmp_path, "address", BARRIER="__syncthreads(); if (i == 63) s[i + 1] = 0; __syncthreads();")
    assert "index 64 out of bounds for type 'float [64]'" in said
