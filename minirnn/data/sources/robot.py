"""A robot's path seen through noise: two numbers a step from a linear Gaussian state-space model with five state variables.

Made by Pieter Abbeel for a course in 2011 (CS 287, University of California, Berkeley), and since then the test data of the package
pykalman. The state at time 0 is not observed, so the series has a first row of NaN. The file also holds what a MATLAB program found: the
log-likelihoods of 50 iterations of EM that learn the two noise covariances, starting from 10 times the identity.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minirnn.data.fetch import DataFile, fetch
from minirnn.data.kinds import Numbers, Series
from minirnn.data.sources.source import Source
from minirnn.errors import MinirnnError

FILE = DataFile(
    "lgssm/robot.mat",
    "21b492e604148b2c27afd0b71485d3ce55bbee23f14e167e0db7937dcf795a34",
    187886,
    ("https://raw.githubusercontent.com/pykalman/pykalman/main/pykalman/datasets/data/robot.mat",),
)


class Robot(NamedTuple):
    """What is in the file. T = 501 times, H = 5 state variables, D = 2 observed ones."""

    x: Numbers  # (T, D) observations, the first row NaN
    A: Numbers  # (H, H) z_t = A z_{t-1} + b_t + noise
    C: Numbers  # (D, H) x_t = C z_t + d + noise
    b: Numbers  # (T, H) offsets of the transition; row 0 has none before it and is 0
    d: Numbers  # (D,) offset of the observation
    m0: Numbers  # (H,) mean of the state at time 0
    P0: Numbers  # (H, H) and its covariance
    log_likelihoods: Numbers  # (50,) after 0, 1, ..., 49 iterations of EM


def read(data_dir: str | None = None) -> Robot:
    """The contents of the file, which is found or downloaded."""
    found = _matlab(fetch(FILE, data_dir))
    H = len(found["A"])
    return Robot(
        x=np.vstack([np.full((1, 2), np.nan), found["y"].T]),
        A=found["A"],
        C=found["C"],
        b=np.vstack([np.zeros((1, H)), found["b"].T]),
        d=found["d"][:, 0],
        m0=found["x0"][:, 0].astype(np.float64),
        P0=found["P_0"].astype(np.float64),
        log_likelihoods=found["ll"][0],
    )


def load(data_dir: str | None = None, seed: int = 0) -> Series:
    """One series (501, 2), which is training, validation and test at once; `seed` is not used."""
    robot = read(data_dir)
    return Series(
        name="robot",
        train=[robot.x],
        valid=[robot.x],
        test=[robot.x],
        observation="real",
        columns=("x1", "x2"),
        attribution="robot tracking data of P. Abbeel (2011), from pykalman's test data, BSD licence",
        note="one series alone: what is scored is the series that was learnt from, predicted one step ahead",
    )


def _matlab(path: Path) -> dict[str, Any]:
    try:
        from scipy.io import loadmat
    except ImportError:
        raise MinirnnError('MATLAB files are read with SciPy: pip install "minirnn[demo]"') from None
    contents: dict[str, Any] = loadmat(path)
    return contents


SOURCE = Source(
    name="robot",
    what="a simulated robot's path, seen through noise",
    size="1 series of 501 times 2 numbers",
    licence="BSD",
    origin="github.com/pykalman/pykalman",
    files=(FILE,),
    loaders={Series: load},
)
