"""A damped pendulum, kicked at random and watched by a noisy camera; simulated on this machine.

    d theta = omega dt
    d omega = -(g / l) sin theta dt - c omega dt + s dW            W: Brownian motion, the kicks
    x = (sin theta, -cos theta) + r psi,   psi ~ N(0, I)           the bob's place in rod lengths, from the pivot

The camera sees where the bob is and never how fast it moves: that is for the model to find out. Small swings would be linear; the kicks
make them large, and now and then carry the pendulum over the top.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minirnn.data.kinds import Numbers, Series
from minirnn.data.sources.source import Source

GRAVITY, LENGTH = 9.81, 1.0  # m / s^2 and m: small swings take 2 s
DAMPING, KICKS, NOISE = 0.2, 1.5, 0.15  # c (1 / s), s (rad / s^1.5) and r (rod lengths)
PERIOD, SUBSTEPS = 0.1, 10  # seconds between two frames, and steps of the integration in that time
FRAMES = 100
TRAIN, VALID, TEST = 300, 50, 50  # series


class Films(NamedTuple):
    """Simulated pendulums: what the camera saw, where the bob was, and the state."""

    seen: Numbers  # (N, T, 2)
    place: Numbers  # (N, T, 2)
    state: Numbers  # (N, T, 2): theta, omega


def simulate(count: int, frames: int, rng: np.random.Generator) -> Films:
    """`count` pendulums that start anywhere, with any speed, for `frames` frames."""
    theta = rng.uniform(-2.5, 2.5, count)
    omega = rng.normal(0.0, 2.0, count)
    dt = PERIOD / SUBSTEPS
    states = np.empty((count, frames, 2))
    for t in range(frames):
        states[:, t, 0], states[:, t, 1] = theta, omega
        for kick in rng.normal(0.0, KICKS * np.sqrt(dt), (SUBSTEPS, count)):
            omega = omega + dt * (-GRAVITY / LENGTH * np.sin(theta) - DAMPING * omega) + kick
            theta = theta + dt * omega
    place = np.stack([np.sin(states[..., 0]), -np.cos(states[..., 0])], axis=-1)
    return Films(place + rng.normal(0.0, NOISE, place.shape), place, states)


def load(data_dir: str | None = None, seed: int = 0) -> Series:
    """300 films for training, 50 for validation and 50 for test, 100 frames each, drawn with `seed`. `data_dir` is not used."""
    films = list(simulate(TRAIN + VALID + TEST, FRAMES, np.random.default_rng(seed)).seen)
    return Series(
        name="pendulum",
        train=films[:TRAIN],
        valid=films[TRAIN : TRAIN + VALID],
        test=films[TRAIN + VALID :],
        observation="real",
        columns=("x", "y"),
        attribution="simulated on this machine",
        period=PERIOD,
    )


SOURCE = Source(
    name="pendulum",
    what="a kicked pendulum seen through noise",
    size=f"{TRAIN + VALID + TEST} films of {FRAMES} frames, 2 numbers each",
    licence="your own",
    origin="simulated on this machine",
    loaders={Series: load},
)
