"""Where random numbers come from: an explicit generator, or the package's own default one."""

from __future__ import annotations

from functools import cache
from typing import TypeAlias

import numpy as np

Rng: TypeAlias = "np.random.Generator | int | None"  # in quotes: NumPy loads np.random when it is first asked for

DEFAULT_SEED = 0


@cache
def _default() -> np.random.Generator:
    return np.random.default_rng(DEFAULT_SEED)


def generator(rng: Rng = None) -> np.random.Generator:
    """The generator that `rng` stands for.

    A `numpy.random.Generator` is itself, shared and not copied; an integer seeds a new one; None is the package's default generator,
    which starts from seed 0 and moves on with every draw. Raises TypeError for anything else, and ValueError for a negative seed.
    """
    if rng is None:
        return _default()
    if isinstance(rng, np.random.Generator):
        return rng
    return np.random.default_rng(_checked(rng))


def manual_seed(seed: int) -> None:
    """Restart the default generator from `seed` (an integer, 0 or more), for everybody who already holds it too."""
    _default().bit_generator.state = np.random.default_rng(_checked(seed)).bit_generator.state


def _checked(seed: int) -> int:
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise TypeError(f"rng: expected a numpy.random.Generator, an integer seed or None, got {seed!r} of type {type(seed).__name__}")
    if seed < 0:
        raise ValueError(f"rng: a seed is 0 or more, got {seed}")
    return int(seed)
