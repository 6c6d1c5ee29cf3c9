from __future__ import annotations

import os
import subprocess
import sys

import pytest

from minirnn.training.memory import keep_freed

CODE = """
import resource, sys
import numpy as np
from minirnn.training.memory import keep_freed
kept = sys.argv[1] == "keep" and keep_freed()
def step():
    arrays = [np.ones(2**20, np.float64) for _ in range(3)]  # 24 MiB
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
step()
before = faults()
for _ in range(10):
    step()
print(kept, faults() - before)
"""


def faults(what: str) -> tuple[str, int]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, "-P", "-c", CODE, what], env=environment, capture_output=True, text=True, check=True)
    kept, count = done.stdout.split()
    return kept, int(count)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc alone")
def test_a_step_does_not_fault_in_what_the_one_before_had() -> None:
    kept, count = faults("keep")
    if kept == "False":
        pytest.skip("the C library is not glibc")
    pages = 24 * 2**20 // os.sysconf("SC_PAGESIZE")  # of one step
    assert count < pages  # ten steps together: what is moved by a little at most


def test_elsewhere_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed() is False
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    assert keep_freed() is False
