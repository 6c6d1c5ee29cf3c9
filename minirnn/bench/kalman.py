"""EM on the robot data against pykalman, and the forms of the filter against each other on longer and longer series.

    python -m minirnn.bench.kalman [--iterations 50] [--rounds 5] [--steps 100 1000 10000] [--data-dir DIR] [--json]

EM learns both noise covariances from the same start, for as many iterations, with all other parameters given. Before anything is timed,
our log-likelihoods must be those in the data file (to 1e-4, at all iterations), and our covariances pykalman's after the first ten
iterations (to 1e-6 of the largest number). Later pykalman's (0.11.2) lose their symmetry, and from about the twentieth iteration on they
are no longer those of EM; how far off they are at the end is shown. Every form of filter and smoother must agree with the compiled one
(to 1e-9 of the largest number). Contenders take turns; medians and extremes are shown. pykalman computes no log-likelihoods in EM; ours
does, and that is in its time. What Numba compiles is compiled before.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np

from minirnn.data.kinds import Numbers
from minirnn.data.sources.robot import Robot, read
from minirnn.errors import MinirnnError
from minirnn.kernels import registry
from minirnn.kernels.kalman import parallel, square_root
from minirnn.kernels.kalman.contract import Parameters
from minirnn.models.linear_gaussian_ssm import LinearGaussianSSM

START = 10.0  # times the identity: both covariances before the first iteration
PUBLISHED, COVARIANCES, FORMS = 1e-4, 1e-6, 1e-9  # how far numbers may be from those that they are checked against
CHECKED = 10  # iterations after which the covariances are compared
SLOW = 20_000  # steps above which the forms that loop over them in Python are left out


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one contender."""

    name: str
    median_ms: float
    least_ms: float
    most_ms: float


class Learnt:
    """The covariances after EM, and the log-likelihoods before each iteration where the program gives them."""

    def __init__(self, Q: Numbers, R: Numbers, log_likelihoods: Numbers | None) -> None:
        self.Q, self.R, self.log_likelihoods = Q, R, log_likelihoods


def ours(robot: Robot, iterations: int, kernel: str) -> Learnt:
    H, D = robot.A.shape[0], robot.C.shape[0]
    model = LinearGaussianSSM.from_matrices(
        robot.A,
        robot.C,
        Q=START * np.eye(H),
        R=START * np.eye(D),
        F=np.eye(H),  # the offsets b_t come in as inputs
        d=robot.d,
        mean=robot.m0,
        covariance=robot.P0,
        kernel=kernel,
    )
    log_likelihoods = model.em(robot.x, iterations, learn=("Q", "R"), inputs=robot.b)
    m = model.matrices()
    return Learnt(m.Q, m.R, log_likelihoods)


def theirs(robot: Robot, iterations: int) -> Learnt:
    try:
        pykalman = importlib.import_module("pykalman")
    except ImportError:
        raise MinirnnError("the benchmark compares with pykalman: pip install pykalman") from None
    model = pykalman.KalmanFilter(
        transition_matrices=robot.A,
        observation_matrices=robot.C,
        transition_covariance=START * np.eye(len(robot.A)),
        observation_covariance=START * np.eye(len(robot.C)),
        transition_offsets=robot.b[1:],
        observation_offsets=robot.d,
        initial_state_mean=robot.m0,
        initial_state_covariance=robot.P0,
    )
    model.em(np.ma.masked_invalid(robot.x), n_iter=iterations, em_vars=["transition_covariance", "observation_covariance"])
    return Learnt(model.transition_covariance, model.observation_covariance, None)


def em(robot: Robot, iterations: int, rounds: int) -> tuple[list[Timing], float]:
    """EM with each program, and how far pykalman's last Q is from ours, relative. Raises RuntimeError where numbers are not the same."""
    contenders: dict[str, Callable[[int], Learnt]] = {
        "pykalman": lambda count: theirs(robot, count),
        "minirnn, numpy": lambda count: ours(robot, count, "numpy"),
        "minirnn, numba": lambda count: ours(robot, count, "numba"),
    }
    early = {name: run(min(CHECKED, iterations)) for name, run in contenders.items()}
    for name, learnt in early.items():
        for what, a, b in (("Q", learnt.Q, early["pykalman"].Q), ("R", learnt.R, early["pykalman"].R)):
            if not np.abs(a - b).max() <= COVARIANCES * np.abs(b).max():
                raise RuntimeError(f"{name}: {what} differs from pykalman's by {np.abs(a - b).max():.2g}; not timed")
    whole = {name: run(iterations) for name, run in contenders.items()}
    for name, learnt in whole.items():
        if learnt.log_likelihoods is not None:
            shared = min(iterations, len(robot.log_likelihoods))
            off = np.abs(learnt.log_likelihoods[:shared] - robot.log_likelihoods[:shared]).max()
            if not off <= PUBLISHED:
                raise RuntimeError(f"{name}: the log-likelihoods differ from the published ones by {off:.2g}; not timed")
    Q = whole["minirnn, numba"].Q
    strayed = float(np.abs(whole["pykalman"].Q - Q).max() / np.abs(Q).max())
    return timed({name: partial(run, iterations) for name, run in contenders.items()}, rounds), strayed


def forms(steps: int, rounds: int) -> dict[str, list[Timing]]:
    """Filter and smoother of every form on one series of so many steps. Raises RuntimeError where their numbers are not the same."""
    parameters, y = _problem(steps)
    modules: dict[str, Any] = {"numba": registry.load("kalman", "numba")}
    if steps <= SLOW:
        modules |= {"numpy": registry.load("kalman", "numpy"), "square_root": square_root}
    modules["parallel"] = parallel
    filtered = {name: module.filter(parameters, y) for name, module in modules.items()}
    smoothed = {name: module.smooth(parameters, filtered[name]) for name, module in modules.items()}
    for name in modules:
        for what, a, b in (
            ("filtered mean", filtered[name].mean, filtered["numba"].mean),
            ("log-likelihood", filtered[name].log_likelihood, filtered["numba"].log_likelihood),
            ("smoothed mean", smoothed[name].mean, smoothed["numba"].mean),
            ("smoothed covariance", smoothed[name].cov, smoothed["numba"].cov),
        ):
            if not np.abs(a - b).max() <= FORMS * np.abs(b).max():
                raise RuntimeError(f"{name}, {steps} steps: the {what} differs by {np.abs(a - b).max():.2g}; not timed")
    return {
        "filter": timed({name: partial(module.filter, parameters, y) for name, module in modules.items()}, rounds),
        "smooth": timed({name: partial(module.smooth, parameters, filtered[name]) for name, module in modules.items()}, rounds),
    }


def timed(contenders: Mapping[str, Callable[[], Any]], rounds: int) -> list[Timing]:
    """Rounds in which the contenders take turns."""
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            began = perf_counter()
            run()
            taken[name].append(1e3 * (perf_counter() - began))
    return [Timing(name, statistics.median(ms), min(ms), max(ms)) for name, ms in taken.items()]


def run(arguments: argparse.Namespace) -> int:
    """What the command line asks for."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    robot = read(arguments.data_dir)
    learning, strayed = em(robot, arguments.iterations, arguments.rounds)
    growing = {steps: forms(steps, arguments.rounds) for steps in arguments.steps}
    if arguments.json:
        shown = {str(steps): {what: [asdict(t) for t in row] for what, row in parts.items()} for steps, parts in growing.items()}
        print(
            json.dumps(
                {
                    "iterations": arguments.iterations,
                    "load": load,
                    "pykalman_strayed": strayed,
                    "em": [asdict(t) for t in learning],
                    "forms": shown,
                }
            )
        )
        return 0
    (T, D), H = robot.x.shape, len(robot.A)
    print(f"load average {load:.1f}\n" if load is not None else "", end="")
    print(f"EM, {arguments.iterations} iterations, {T} steps, {D} observed, {H} states, float64, median of {arguments.rounds}")
    slowest = learning[0].median_ms
    for t in learning:
        print(f"  {t.name:<16}{t.median_ms:10.1f} ms   {t.least_ms:8.1f} to {t.most_ms:8.1f}   {slowest / t.median_ms:8.1f} x pykalman")
    print(f"  pykalman's last Q differs from ours, whose log-likelihoods are the published ones, by {strayed:.1e} of its largest number")
    print("\nFilter and smoother, one series, 5 states, 2 observed, float64, milliseconds: median (least to most); all agree")
    for steps, parts in growing.items():
        for what, row in parts.items():
            cells = "   ".join(f"{t.name} {t.median_ms:.2f} ({t.least_ms:.2f} to {t.most_ms:.2f})" for t in row)
            print(f"  T={steps:<8}{what:<8}{cells}")
    return 0


def _problem(steps: int) -> tuple[Parameters, Numbers]:
    """A stable model of the robot's size, and a series of noise; no form's time depends on the numbers."""
    rng, n, p = np.random.default_rng(0), 5, 2
    A = 0.95 * np.linalg.qr(rng.standard_normal((n, n)))[0]
    C = rng.standard_normal((p, n))
    parameters = Parameters(A, 0.25 * np.eye(n), C, 0.25 * np.eye(p), np.zeros(n), np.zeros(p), np.zeros(n), np.eye(n))
    return parameters, rng.standard_normal((1, steps, p))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m minirnn.bench.kalman", description=__doc__.partition("\n")[0])
    parser.add_argument("--iterations", type=int, default=50, help="of EM (default: 50)")
    parser.add_argument("--rounds", type=int, default=5, help="timings of each, in turns (default: 5)")
    parser.add_argument("--steps", type=int, nargs="+", default=[100, 1000, 10_000], help="lengths of the series for the forms")
    parser.add_argument("--data-dir", help="where lgssm/robot.mat lies")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return run(parser.parse_args())


if __name__ == "__main__":
    raise SystemExit(main())
