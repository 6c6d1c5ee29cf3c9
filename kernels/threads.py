"""Lets Numba's threads and those of NumPy's matrix product take turns on the same cores.

An OpenMP thread that has finished its share of a loop spins for milliseconds in case another loop follows. A recurrence alternates a
loop of Numba's with a matrix product, whose own threads then wait for the core that the idle one burns: measured on two cores, a
product of 0.8 ms takes 8 ms. Told to wait passively the thread sleeps at once, which costs a loop about 30 microseconds instead.
GNU's OpenMP reads the setting once, when it is loaded; so every module with a parallel Numba function calls `share_cores` first.
"""

from __future__ import annotations

import importlib
import os

SETTING = "OMP_WAIT_POLICY"


def share_cores() -> None:
    """Load Numba's OpenMP layer with passive waiting, unless it is loaded already or the user has set OMP_WAIT_POLICY."""
    if SETTING in os.environ:
        return
    os.environ[SETTING] = "passive"
    try:
        importlib.import_module("numba.np.ufunc.omppool")
    except ImportError:
        pass  # no OpenMP here: Numba takes another layer, whose idle threads sleep
    finally:
        del os.environ[SETTING]
