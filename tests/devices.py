"""The device that the suites of the device code run on: the emulated one; with MINIRNN_TEST_DEVICE=cuda the first GPU.

    MINIRNN_TEST_DEVICE=cuda python -m pytest tests/kernels/test_cuda_recurrences.py -k equal_the_reference

On a GPU nothing is counted and no schedule is chosen. `tests/test_on_a_gpu.py` has the suites that then still say something.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest

from minirnn.device import module_of
from minirnn.kernels.availability import missing
from minirnn.kernels.emulator import stand_in
from minirnn.kernels.emulator.counts import Counts

VARIABLE = "MINIRNN_TEST_DEVICE"
DEVICE = {"cuda": "cuda:0"}.get(asked := os.environ.get(VARIABLE, "emulated"), asked)
EMULATED = DEVICE == "emulated"
NEEDED = pytest.mark.skipif(missing(DEVICE) is not None, reason=f"needs the device {DEVICE}: {missing(DEVICE)}")


def module() -> Any:
    """The array module of the device."""
    return module_of(DEVICE)


def counting() -> AbstractContextManager[Counts]:
    """What the emulated device counts; on a GPU counts that stay 0."""
    return stand_in.counting() if EMULATED else nullcontext(Counts())


def schedule(seed: int) -> AbstractContextManager[Any]:
    """The order of the emulated device's threads; a GPU has its own."""
    return stand_in.schedule(seed) if EMULATED else nullcontext()
