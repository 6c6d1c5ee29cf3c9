"""Series from a known linear Gaussian state-space model: the one problem on which a bound can be held against the exact log-likelihood.

    z_t = A z_{t-1} + B eps_t,   x_t = C z_t + D psi_t,   z_1 ~ N(m0, P0),   eps, psi ~ N(0, I)

z turns by an eighth of a circle in each step and shrinks to 95 %; x sees it through three noisy projections. P0 is the covariance that
A and B keep, so that z is stationary.
"""

from __future__ import annotations

import numpy as np

from minirnn.data.kinds import Numbers, Series
from minirnn.data.sources.source import Source

FRAMES = 50
TRAIN, VALID, TEST = 500, 100, 100  # series

SHRINK, ANGLE, NOISE = 0.95, np.pi / 4, 0.3


def parameters() -> dict[str, Numbers]:
    """A, B, C and D, with the mean m0 and the covariance P0 of z_1."""
    turn = np.array([[np.cos(ANGLE), -np.sin(ANGLE)], [np.sin(ANGLE), np.cos(ANGLE)]])
    stationary = NOISE**2 / (1 - SHRINK**2)  # p = shrink^2 p + noise^2
    return {
        "A": SHRINK * turn,
        "B": NOISE * np.eye(2),
        "C": np.array([[1.0, 0.0], [0.0, 1.0], [0.7, -0.7]]),
        "D": 0.5 * np.eye(3),
        "m0": np.zeros(2),
        "P0": stationary * np.eye(2),
    }


def simulate(count: int, frames: int, rng: np.random.Generator) -> Numbers:
    """(N, T, 3): what is seen of `count` independent runs."""
    A, B, C, D, m0, P0 = parameters().values()
    z = m0 + rng.normal(size=(count, 2)) @ np.linalg.cholesky(P0).T
    seen = np.empty((count, frames, 3))
    for t in range(frames):
        z = z if t == 0 else z @ A.T + rng.normal(size=(count, 2)) @ B.T
        seen[:, t] = z @ C.T + rng.normal(size=(count, 3)) @ D.T
    return seen


def load(data_dir: str | None = None, seed: int = 0) -> Series:
    """500 series for training, 100 for validation and 100 for test, 50 steps each, drawn with `seed`. `data_dir` is not used."""
    series = list(simulate(TRAIN + VALID + TEST, FRAMES, np.random.default_rng(seed)))
    return Series(
        name="lgssm",
        train=series[:TRAIN],
        valid=series[TRAIN : TRAIN + VALID],
        test=series[TRAIN + VALID :],
        observation="real",
        columns=("x1", "x2", "x3"),
        attribution="simulated on this machine",
        truth=parameters(),
    )


SOURCE = Source(
    name="lgssm",
    what="series from a known linear Gaussian model",
    size=f"{TRAIN + VALID + TEST} series of {FRAMES} steps, 3 numbers each",
    licence="your own",
    origin="simulated on this machine",
    loaders={Series: load},
)
