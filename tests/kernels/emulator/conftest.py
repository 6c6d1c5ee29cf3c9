"""Skips the tests of the emulator where it cannot run, and says why."""

from __future__ import annotations

import pytest

from minirnn.kernels.emulator import build


@pytest.fixture(autouse=True, scope="session")
def _compiler() -> None:
    if reason := build.missing():
        pytest.skip(f"the emulator cannot run here: {reason}")
