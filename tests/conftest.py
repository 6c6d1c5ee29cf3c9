"""What every test can use: a seeded generator, the folder of real data, and hypothesis set to repeat itself exactly."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("MINIRNN_QUIET", "1")  # what a command says does not depend on what has been compiled before

_COMMON = {"deadline": None, "max_examples": 25, "suppress_health_check": [HealthCheck.too_slow]}

settings.register_profile("ci", **_COMMON, derandomize=True, database=None, print_blob=True)
settings.register_profile("explore", **{**_COMMON, "max_examples": 500})  # HYPOTHESIS_PROFILE=explore draws new shapes at every run
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        cupy = pytest.importorskip("cupy", reason="needs CuPy (pip install 'minirnn[cuda12]' or 'minirnn[cuda13]')")
        try:
            devices = cupy.cuda.runtime.getDeviceCount()
        except cupy.cuda.runtime.CUDARuntimeError as error:
            pytest.skip(f"needs a CUDA device: {error}")
        if not devices:
            pytest.skip("needs a CUDA device: there is none")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder that MINIRNN_DATA names, with a sub-folder for each data set; a test that needs it is skipped where there is none."""
    named = os.environ.get("MINIRNN_DATA")
    if not named:
        pytest.skip("needs real data: set MINIRNN_DATA to a folder that holds multi30k/, tatoeba/, ...")
    folder = Path(named)
    if not folder.is_dir():
        pytest.skip(f"needs real data: MINIRNN_DATA names {folder}, which is no folder")
    return folder
