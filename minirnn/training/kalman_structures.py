"""Linear Gaussian state-space models of a known structure, before they have learnt anything."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from minirnn.data.scaling import Scaling
from minirnn.models.linear_gaussian_ssm import LinearGaussianConfig, LinearGaussianSSM

Structure = Literal["local_level", "local_linear_trend", "general"]
VAGUE = 10.0  # standard deviations of the data: how little is known of a first state that is not diffuse


def model(structure: Structure, seen: Scaling, *, states: int, diffuse: bool, rng: int) -> LinearGaussianSSM:
    """A new model. Half of what is seen counts as noise at first, and a tenth as steps of the level.

    seen     means and standard deviations of the D columns as the model sees them
    states   of a general model; 0 is as many as columns
    diffuse  whether nothing is known of the first level of a local level model
    """
    D, variance = len(seen.std), np.diag(seen.std**2)
    if structure == "general":
        general = LinearGaussianSSM(LinearGaussianConfig(states or D, D), rng=rng)
        general.C.data[...] *= seen.std[:, None]
        general.D.data[...], general.d.data[...] = np.diag(0.5 * seen.std), seen.mean
        return general
    one, none = np.eye(D), np.zeros((D, D))
    if structure == "local_level":
        start: dict[str, Any] = {"diffuse": True} if diffuse else {"mean": seen.mean, "covariance": VAGUE**2 * variance}
        return LinearGaussianSSM.from_matrices(one, one, Q=0.1 * variance, R=0.5 * variance, **start)
    return LinearGaussianSSM.from_matrices(
        np.block([[one, one], [none, one]]),
        np.hstack([one, none]),
        Q=np.block([[0.1 * variance, none], [none, 0.01 * variance]]),
        R=0.5 * variance,
        mean=np.concatenate([seen.mean, np.zeros(D)]),
        covariance=np.block([[VAGUE**2 * variance, none], [none, variance]]),
    )
