"""What a model of series has to beat: models that are fitted in one line and know one frame of the past, or none.

Each is fitted to the training series and gives the log-likelihood of one series. A missing value (NaN) adds nothing, and what comes
after one is told like a first value.

    real      independent    x_t ~ N(m, s^2)                       binary    independent   P(x_t = 1) = p
              last value     x_t ~ N(x_{t-1}, s^2)                           last value    P(x_t = x_{t-1}) = q, the same for all columns
              AR(1)          x_t ~ N(a + b x_{t-1}, s^2)                     Markov        P(x_t = 1 | x_{t-1}) = p_0 or p_1

for each column by itself, and in all but the first of a kind the first value is told by the first. Counts of binary values begin at a half.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from minirnn.data.kinds import Numbers

Baseline = Callable[[Numbers], float]  # a series (T, D) -> its log-likelihood
Terms = Callable[[Numbers, Numbers], Numbers]  # x_{t-1} and x_t (n, D) -> ln p(x_t | x_{t-1}) (n, D), NaN where it cannot be told
NARROW = 1e-6  # of a column's spread: no standard deviation is fitted below it


def fit(series: Sequence[Numbers], observation: Literal["real", "binary"]) -> dict[str, Baseline]:
    """The baselines by name, fitted to series (T_n, D)."""
    values = np.concatenate(series)
    before, after = (np.concatenate([x[cut] for x in series]) for cut in (slice(None, -1), slice(1, None)))
    if observation == "binary":
        return _binary(values, before, after)
    return _real(values, before, after)


def per_frame(baseline: Baseline, series: Sequence[Numbers]) -> float:
    """The total log-likelihood over the total number of frames."""
    return sum(map(baseline, series)) / sum(map(len, series))


def _real(values: Numbers, before: Numbers, after: Numbers) -> dict[str, Baseline]:
    mean, spread = _mean(values), np.sqrt(_mean((values - _mean(values)) ** 2))
    least = np.where(spread > 0, NARROW * spread, 1.0)
    known = ~np.isnan(before) & ~np.isnan(after)
    x, y = np.where(known, before, np.nan), np.where(known, after, np.nan)
    slope = _mean((x - _mean(x)) * (y - _mean(y))) / np.maximum(_mean((x - _mean(x)) ** 2), 1e-300)
    offset = _mean(y) - slope * _mean(x)

    def scale(residual: Numbers) -> Numbers:
        return np.maximum(np.sqrt(_mean(residual**2)), least)

    step, rest, spread = scale(y - x), scale(y - offset - slope * x), np.maximum(spread, least)

    def alone(now: Numbers) -> Numbers:
        return _normal(now - mean, spread)

    return {
        "independent": _total(alone, None),
        "last value": _total(alone, lambda last, now: _normal(now - last, step)),
        "AR(1)": _total(alone, lambda last, now: _normal(now - offset - slope * last, rest)),
    }


def _binary(values: Numbers, before: Numbers, after: Numbers) -> dict[str, Baseline]:
    p = _share(values == 1, ~np.isnan(values), axis=0)
    known = ~np.isnan(before) & ~np.isnan(after)
    from_off, from_on = (_share(after == 1, known & (before == state), axis=0) for state in (0, 1))
    stays = _share(before == after, known, axis=None)

    def given(if_off: Numbers, if_on: Numbers) -> Terms:
        return lambda last, now: np.where(np.isnan(last), np.nan, _bernoulli(now, np.where(last == 1, if_on, if_off)))

    def alone(now: Numbers) -> Numbers:
        return _bernoulli(now, p)

    return {
        "independent": _total(alone, None),
        "last value": _total(alone, given(1 - stays, stays)),
        "Markov": _total(alone, given(from_off, from_on)),
    }


def _share(of: NDArray[np.bool_], among: NDArray[np.bool_], axis: int | None) -> Numbers:
    return np.asarray((np.sum(of & among, axis=axis) + 0.5) / (np.sum(among, axis=axis) + 1.0))


def _total(alone: Callable[[Numbers], Numbers], given: Terms | None) -> Baseline:
    def log_likelihood(x: Numbers) -> float:
        terms = alone(x)
        if given is not None:
            told = given(x[:-1], x[1:])
            terms[1:] = np.where(np.isnan(told), terms[1:], told)
        return float(np.nansum(terms))

    return log_likelihood


def _mean(x: Numbers) -> Numbers:
    """Of each column (D,), without what is missing; 0 where everything is."""
    return np.asarray(np.nansum(x, axis=0) / np.maximum(np.sum(~np.isnan(x), axis=0), 1))


def _normal(residual: Numbers, scale: Numbers) -> Numbers:
    return np.asarray(-0.5 * (residual / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi))


def _bernoulli(x: Numbers, p: Numbers) -> Numbers:
    return np.where(np.isnan(x), np.nan, np.where(x == 1, np.log(p), np.log1p(-p)))
