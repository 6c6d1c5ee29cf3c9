"""The gap between a bound and the likelihood, where the likelihood is known: one table and one plot.

    python -m minirnn.study.linear_gaussian_gap --updates 3000

Series are drawn from a known linear Gaussian model (the data source `lgssm`), new ones for every update, so that nothing can be learnt by
heart; the Kalman filter gives their exact log-likelihood. A neural state-space model learns them twice, with the two posteriors. What its
ELBO falls short by, in nats per step on held-out series, is

    exact - ELBO  =  what prior and emission miss  +  KL(q(z | x) || p(z | x))

The smoothing posterior, which knows z_{t-1} and x_t, x_t+1, ..., can be the exact one. The filtering posterior q(z_t | x_1..x_t) cannot:
it draws each z_t without knowing z_{t-1} or what comes after. The ELBO never exceeds the exact log-likelihood in expectation.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from minirnn.data.sources import lgssm
from minirnn.device import Array
from minirnn.errors import MinirnnError
from minirnn.kernels.kalman import numpy_ as kalman
from minirnn.kernels.kalman.contract import Parameters
from minirnn.models import NeuralSSM, NeuralSSMConfig
from minirnn.nn.utils import clip_grad_norm_
from minirnn.optim import Adam
from minirnn.training.averaging import WeightAverage
from minirnn.training.pictures import NoMatplotlib, figure, save

SIZES: dict[str, Any] = {"latent": 2, "hidden": 32, "encoder_hidden": 32, "combiner": 32, "emission_hidden": 16}
BATCH, FRAMES = 64, lgssm.FRAMES  # series per update, steps of each
RATE, AVERAGE, WARMUP = 5e-3, 0.99, 50
POINTS = 12  # of each curve
DRAWS = 4  # that the ELBO is the mean of
SAMPLES = 32  # K of the other bounds
POSTERIORS: tuple[Literal["smoothing", "filtering"], ...] = ("smoothing", "filtering")


@dataclass(frozen=True)
class Result:
    """One posterior: gaps in nats per step, each with its standard error over the series; the gap of the ELBO over the updates."""

    posterior: str
    gaps: dict[str, tuple[float, float]]
    curve: list[tuple[int, float]]
    seconds: float


def exact(x: Array) -> Array:
    """ln p(x_1..x_T) of each series of x (N, T, 3) under the model that drew it: (N,)"""
    A, B, C, D, mean, covariance = lgssm.parameters().values()
    parameters = Parameters(A, B @ B.T, C, D @ D.T, np.zeros(len(A)), np.zeros(len(C)), mean, covariance)
    return kalman.filter(parameters, x).log_likelihood


def learn(
    posterior: Literal["smoothing", "filtering"], updates: int, seed: int = 0, *, held_out: int = 400, quiet: bool = False, **sizes: int
) -> Result:
    """Train one model and hold its bounds against the exact log-likelihood.

    `held_out` is the number of series that bounds are taken on, `sizes` replace those of the model. Adam, its rate falling to 0 as a
    cosine, on series drawn afresh; the weights judged are averages over the last hundred updates or so.
    """
    rng, begin = np.random.default_rng(seed), time.perf_counter()
    model = NeuralSSM(NeuralSSMConfig(observed=3, posterior=posterior, **{**SIZES, **sizes}), rng=seed)
    model.start_from(list(lgssm.simulate(BATCH, FRAMES, rng)))
    judged = lgssm.simulate(held_out, FRAMES, np.random.default_rng([seed, 1]))
    truth = exact(judged)
    optimizer, average = Adam(model.parameters(), RATE), WeightAverage(model, AVERAGE)
    curve: list[tuple[int, float]] = []

    def gap(bound: Any, samples: int) -> tuple[float, float]:
        with average.in_place():
            missed = (truth - model.log_likelihood(list(judged), samples, 0, bound)) / FRAMES  # (held_out,)
        return float(missed.mean()), float(missed.std() / np.sqrt(held_out))

    for update in range(updates):
        optimizer.lr = RATE * 0.5 * (1 + np.cos(np.pi * update / updates)) * min(1.0, (update + 1) / WARMUP)
        loss = model.loss(list(lgssm.simulate(BATCH, FRAMES, rng)), update)
        optimizer.zero_grad()
        loss.backward()
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.update(update + 1)
        if (update + 1) * POINTS // updates > update * POINTS // updates:
            curve.append((update + 1, gap("elbo", DRAWS)[0]))
            if not quiet:
                print(f"{posterior} {update + 1}/{updates}: {curve[-1][1]:.4f} nats per step below", file=sys.stderr, flush=True)
    gaps = {"elbo": gap("elbo", DRAWS), "iwae": gap("iwae", SAMPLES), "fivo": gap("fivo", SAMPLES)}
    return Result(posterior, gaps, curve, time.perf_counter() - begin)


def table(results: Sequence[Result]) -> str:
    """The results as lines for people."""
    heads = {"elbo": "ELBO", "iwae": f"IWAE, K = {SAMPLES}", "fivo": f"FIVO, K = {SAMPLES}"}
    lines = ["exact log-likelihood minus bound, nats per step", "posterior " + "".join(f"{head:>20}" for head in heads.values())]
    for result in results:
        cells = "".join(f"{mean:>11.4f} +- {error:.4f}" for mean, error in (result.gaps[name] for name in heads))
        lines.append(f"{result.posterior:<10}{cells}  {result.seconds:.0f} s")
    return "\n".join(lines)


def draw(results: Sequence[Result], path: Path) -> Path:
    """The gap of the ELBO over the updates, on a logarithmic axis: the exact log-likelihood is at its bottom, infinitely far."""
    picture = figure(7, 4)
    axes = picture.subplots()
    for result in results:
        updates, gaps = zip(*result.curve, strict=True)
        axes.plot(updates, np.maximum(gaps, 1e-3), "o-", label=f"{result.posterior} posterior: {result.gaps['elbo'][0]:.3f} at the end")
    axes.axhline(0.02, color="grey", linestyle="--", linewidth=1)
    axes.set(xlabel="updates", ylabel="exact log-likelihood - ELBO, nats per step", yscale="log")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    return save(picture, path)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m minirnn.study.linear_gaussian_gap", description="The gap between bounds and the exact log-likelihood."
    )
    parser.add_argument("--updates", type=int, default=3000, help="updates of each model (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights, noise and series (default: %(default)s)")
    parser.add_argument("--picture", type=Path, help="where the plot goes, a .png file (default: no plot)")
    given = parser.parse_args(arguments)
    if given.updates < 1 or given.seed < 0:
        parser.error("--updates must be at least 1 and --seed at least 0")
    try:
        results = [learn(posterior, given.updates, given.seed) for posterior in POSTERIORS]
        print(table(results))
        if given.picture is not None:
            print(draw(results, given.picture))
    except NoMatplotlib as error:
        print(error, file=sys.stderr)
    except MinirnnError as error:
        print(f"linear_gaussian_gap: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
