"""Learning series with a linear Gaussian state-space model, by EM or by the gradient, judged by exact likelihoods and one-step predictions.

    local_level          every column is a level that wanders, seen through noise                 states: one a column
    local_linear_trend   every column has a level that moves by a slope, and both wander          states: two a column
    general              a state of any size, every matrix learnt                                 states: what is set

The first two have diagonal covariances: their columns do not know of each other. With a local level nothing is known at the start (a
diffuse first state), and the first observation tells where the level begins; likelihoods are those of what follows. Series are learnt with
mean 0 and standard deviation 1 where `standardise` is set, p(x) = p(y) / prod_d std_d; all that is shown is in the data's own units.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import NormalDist
from typing import Any, ClassVar, Literal, NamedTuple, NoReturn, Self

import numpy as np

from minirnn import data as minirnn_data
from minirnn.data.kinds import Numbers, Series
from minirnn.data.scaling import Scaling
from minirnn.data.sources import nile
from minirnn.data.sources import series as csv
from minirnn.device import array_module
from minirnn.errors import MinirnnError
from minirnn.models.linear_gaussian_ssm import LinearGaussianSSM, Observations
from minirnn.tensor import Tensor
from minirnn.training import kalman_pictures, kalman_structures, series_baselines, series_pictures
from minirnn.training.kalman_structures import Structure
from minirnn.training.series_form import Form
from minirnn.training.task import DataArguments, Demo, Metric, Split, Task, TrainingOptions
from minirnn.training.verbs import Drawn, Forecast, Question

GAPS = ((0.2, 0.4), (0.6, 0.8))  # shares of a series that are hidden in pictures and samples
HELD = {"Q": "B", "R": "D", "covariance": "scale"}  # the parameters that hold what goes by another name


@dataclass(frozen=True)
class KalmanConfig:
    """Hyper-parameters of the model, and of how it is learnt.

    Args:
        structure: what is known of the model beforehand; see above.
        states: size of the state of a general model; 0 is as many as columns.
        method: em, or the gradient of the likelihood by the optimiser.
        learn: what is learnt, separated by commas: any of A, b, Q, C, d, R, mean and covariance (of the first state); nothing stands for
            Q,R, and for everything in a general model.
        standardise: whether the columns are brought to mean 0 and standard deviation 1 for the learning.
        iterations: of EM, or updates, in an epoch; each one reads all series.
    """

    structure: Structure = "local_level"
    states: int = 0
    method: Literal["em", "gradient"] = "em"
    learn: str = ""
    standardise: bool = True
    iterations: int = 20
    columns: int = 0
    diffuse: bool = False

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise ValueError(f"iterations must be at least 1, got {self.iterations}")
        if self.states < 0:
            raise ValueError(f"states must not be negative, got {self.states}")
        if self.states and self.structure != "general":
            raise ValueError(f"states is for structure=general; {self.structure} has its own number of them")


class Predicted(NamedTuple):
    """What was expected of every observation (T, D) of a series from those before it, in the data's own units."""

    mean: Numbers
    std: Numbers


class KalmanTask(Task[KalmanConfig, int]):
    name = "kalman"
    summary = "a linear Gaussian state-space model (local level, local linear trend, or general), from series of numbers"
    config_type = KalmanConfig
    settled_by_data: ClassVar[frozenset[str]] = frozenset({"columns", "diffuse"})
    training = TrainingOptions(lr=0.02, clip=0.0, epochs=50)
    default_data = "nile"
    metric = Metric("per_step", higher_is_better=True)
    unit = "steps"
    demo = Demo(
        data="nile",
        minutes=0.5,
        title="A local level model learns by EM how much the Nile's flow wanders, and how noisily it is measured.",
        settings={"iterations": 50, "epochs": 10},
        examples="Twenty years twice over, hidden from the smoother and filled in again (the variances are those of all years)",
        scored="Scores on the whole series, and what was learnt",
    )

    def __init__(self, config: KalmanConfig, data: DataArguments, form: Form, rng: int, seen: Scaling | None = None) -> None:
        """`seen`: means and standard deviations of the columns as the model sees them; None where they do not matter any more."""
        self.config = config
        self.data = data
        self.form = form
        seen = seen or Scaling.none(config.columns)
        self.model: LinearGaussianSSM = kalman_structures.model(
            config.structure, seen, states=config.states, diffuse=config.diffuse, rng=rng
        )
        self.learnt = _learnt(config, self.model)
        self._diagonal = config.structure != "general"
        held = {HELD.get(name, name) for name in self.learnt}
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad = name in held
        if self._diagonal:
            for factor in (p for p in (self.model.B, self.model.D) if p.requires_grad):
                factor.register_hook(_on_the_diagonal)

    @classmethod
    def build(cls, config: KalmanConfig, data: DataArguments, seed: int) -> Self:
        series = minirnn_data.source(data.source, data.folder, data.seed, kind=Series)
        if series.observation == "binary":
            raise MinirnnError(f"{series.name} holds zeros and ones, and this model is one of real numbers: train ssm on it instead")
        parts = [*series.train, *series.valid, *series.test]
        if max(map(len, series.train)) < 2:
            raise MinirnnError(f"{series.name}: at least one series of 2 steps or more is needed to learn from")
        if all(np.isnan(x).all() for x in series.train):
            raise MinirnnError(f"{series.name}: all values to learn from are missing")
        diffuse = config.structure == "local_level" and not any(np.isnan(x[0]).any() for x in parts)
        config = dataclasses.replace(config, columns=len(series.columns), diffuse=diffuse)
        form, seen = Form.of(series), Scaling.none(len(series.columns))
        if not config.standardise:
            form, seen = dataclasses.replace(form, scaling=seen), form.scaling
        task = cls(config, data, form, seed, seen)
        task.series = series
        return task

    @classmethod
    def restore(cls, config: KalmanConfig, data: DataArguments, folder: Path) -> Self:
        return cls(config, data, Form.load(folder, config.columns), 0)

    def save_extras(self, folder: Path) -> None:
        self.form.save(folder)

    @cached_property
    def series(self) -> Series:
        return minirnn_data.source(self.data.source, self.data.folder, self.data.seed, kind=Series)

    @cached_property
    def _training(self) -> Observations:
        return self.model.observations([self.form.scaling.apply(x) for x in self.series.train])

    @cached_property
    def _jacobian(self) -> float:
        """What a loss per step in the model's units lacks to be one in the data's."""
        return sum(map(self._log_jacobian, self.series.train)) / self.size(0)

    def batches(self, epoch: int, rng: np.random.Generator) -> Sequence[int]:
        """Each update reads all training series; it has a number and nothing else."""
        return range(self.config.iterations)

    def size(self, batch: int) -> int:
        return int(self._training.lengths.sum())

    def why_whole(self) -> str | None:
        return "filters whole series"

    def loss(self, batch: int, step: int) -> Tensor:
        try:
            return self.model.loss(self._training) + self._jacobian
        except np.linalg.LinAlgError as error:
            raise MinirnnError(str(error)) from error

    def update(self, batch: int, step: int) -> float | None:
        """An iteration of EM. A diagonal covariance is at its maximum where its diagonal is that of the one that is not."""
        if self.config.method == "gradient":
            return None
        try:
            (before,) = self.model.em(self._training.x, 1, learn=self.learnt, lengths=self._training.lengths)
        except np.linalg.LinAlgError as error:
            raise MinirnnError(str(error)) from error
        if self._diagonal:
            for factor in (self.model.B, self.model.D):
                xp = array_module(factor.data)
                factor.data[...] = xp.diag(xp.sqrt(xp.diag(factor.data @ factor.data.T)))
        return float(-before / self.size(batch) + self._jacobian)

    def validate(self) -> dict[str, float]:
        per_step = self._per_step(self.series.valid)
        return {"per_step": per_step, "loss": -per_step}

    def evaluate(self, split: Split, **options: Any) -> dict[str, Any]:
        """Scores on a split, those per step given the first one of each series.

        log_likelihood   the total; with a diffuse start that of all steps but the first
        rmse             of the prediction one step ahead, and of the baselines', by column
        coverage         the share of the observations that lie in their 90 % intervals
        """
        series = getattr(self.series, split)
        result: dict[str, Any] = {"split": split, "series": len(series), "steps": sum(map(len, series))}
        result["log_likelihood"] = sum(map(self._log_likelihood, series))
        result["per_step"] = self._per_step(series)
        fitted = series_baselines.fit(self.series.train, "real")
        later = max(1, sum(len(x) - 1 for x in series))
        alone = fitted["independent"]
        result["baselines"] = {name: sum(told(x) - alone(x[:1]) for x in series) / later for name, told in fitted.items()}
        if self.series.truth is not None:
            true = _true(self.series.truth)
            result["exact"] = sum(float(true.filter(x).log_likelihoods[:, 1:].sum()) for x in series) / later
        predicted = [self.predict(x) for x in series]
        result["rmse"] = self._errors(series, [p.mean for p in predicted])
        result["baseline_rmse"] = {
            "last value": self._errors(series, [_last(x) for x in series]),
            "mean": self._errors(series, [np.broadcast_to(np.nanmean(np.concatenate(self.series.train), axis=0), x.shape) for x in series]),
        }
        inside = [np.abs(x - p.mean)[1:] <= NormalDist().inv_cdf(0.95) * p.std[1:] for x, p in zip(series, predicted, strict=True)]
        result["coverage"] = float(sum(part.sum() for part in inside) / max(1, sum((~np.isnan(x[1:])).sum() for x in series)))
        if self.config.structure != "general":
            result["variances"] = self.variances()
        if self.series.name == nile.SOURCE.name and self.config.structure == "local_level":
            result["published"] = self._published(series)
        return result

    def predict(self, x: Numbers) -> Predicted:
        """What was expected of each step of a series from those before it; of the first, with a diffuse start, nothing: infinite std."""
        filtered, scaling = self.model.filter(self.form.scaling.apply(x)), self.form.scaling
        mean, cov = self.model.observe(filtered.predicted_mean, filtered.predicted_cov)
        std = np.sqrt(np.diagonal(cov[0], axis1=1, axis2=2)) * scaling.std
        if self.config.diffuse:
            std[0] = np.inf
        return Predicted(scaling.undo(mean[0]), std)

    def variances(self) -> dict[str, float]:
        """The variances of a local level or trend in the data's own units."""
        m, std, columns = self.model.matrices(), self.form.scaling.std, self.form.columns
        parts = {"observation": np.diag(m.R), "level": np.diag(m.Q)[: len(columns)], "slope": np.diag(m.Q)[len(columns) :]}
        suffix = [""] if len(columns) == 1 else [f" of {name}" for name in columns]
        return {
            f"{what} variance{suffix[d]}": float(value * std[d] ** 2) for what, values in parts.items() for d, value in enumerate(values)
        }

    def _published(self, series: Sequence[Numbers]) -> dict[str, float]:
        """The variances of the book, and the log-likelihood that they have."""
        model = LinearGaussianSSM.local_level(nile.PUBLISHED["level variance"], nile.PUBLISHED["observation variance"])
        return {**nile.PUBLISHED, "log_likelihood": sum(float(model.log_likelihood(x).sum()) for x in series)}

    def _log_likelihood(self, x: Numbers) -> float:
        return float(self.model.log_likelihood(self.form.scaling.apply(x)).sum()) - self._log_jacobian(x)

    def _log_jacobian(self, x: Numbers) -> float:
        """Of what the likelihood counts: with a diffuse start all but the first row."""
        return self.form.scaling.log_jacobian(x[1:] if self.config.diffuse else x)

    def _per_step(self, series: Sequence[Numbers]) -> float:
        """ln p(x_t | x_<t), averaged over all steps but the first of each series."""
        total = 0.0
        for x in series:
            found = self.model.filter(self.form.scaling.apply(x)).log_likelihoods
            total += float(found[:, 1:].sum()) - self.form.scaling.log_jacobian(x[1:])
        return total / max(1, sum(len(x) - 1 for x in series))

    def _errors(self, series: Sequence[Numbers], expected: Sequence[Numbers]) -> Any:
        """The root mean square of x - expected after the first step: one number, or one a column."""
        off = np.concatenate([(x - mean)[1:] for x, mean in zip(series, expected, strict=True)])
        seen = ~np.isnan(off)
        rmse = np.sqrt(np.nansum(off**2, axis=0) / np.maximum(1, seen.sum(0)))
        return float(rmse[0]) if len(rmse) == 1 else dict(zip(self.form.columns, rmse.tolist(), strict=True))

    def fill(self, x: Numbers) -> Predicted:
        """What each step of a series is expected to be given all that was observed of it: its signal C z + d, without the noise."""
        smoothed, m = self.model.smooth(self.form.scaling.apply(x)), self.model.matrices()
        mean, cov = self.model.observe(smoothed.mean, smoothed.cov)
        variance = np.diagonal(cov[0] - m.R, axis1=1, axis2=2)
        return Predicted(self.form.scaling.undo(mean[0]), np.sqrt(np.maximum(variance, 0)) * self.form.scaling.std)

    def ahead(self, x: Numbers, steps: int, level: float) -> tuple[Numbers, Numbers, Numbers]:
        """Mean, lower and upper end (steps, D) of what follows a series."""
        found = self.model.forecast(self.form.scaling.apply(x), steps, level)
        mean, lower, upper = (self.form.scaling.undo(part[0]) for part in (found.mean, found.lower, found.upper))
        return mean, lower, upper

    def sample(self, count: int, rng: np.random.Generator, folder: Path, *, temperature: float = 1.0, length: int | None = None) -> Drawn:
        """New series: samples.png and samples.csv. After a diffuse start they begin where the first training series begins."""
        m = self.model.matrices()
        mean, covariance = m.m0, m.P0
        if self.config.diffuse:
            mean, covariance = np.linalg.solve(m.C, self.form.scaling.apply(self.series.train[0][0]) - m.d), m.R
        Q, R, P0 = (temperature * part for part in (m.Q, m.R, covariance))
        model = LinearGaussianSSM.from_matrices(m.A, m.C, Q=Q, R=R, b=m.b, d=m.d, mean=mean, covariance=P0)
        drawn = self.form.scaling.undo(model.sample(length or self.form.length, count, rng).x)
        shown = list(drawn[: series_pictures.PANELS])
        titles = [f"sample {k + 1}" for k in range(len(shown))]
        picture = series_pictures.trajectories(shown, titles, self.form.columns, folder / "samples.png")
        return Drawn(files=[picture, csv.write(folder / "samples.csv", self.form.columns, list(drawn))])

    def forecast(self, steps: int, folder: Path, rng: np.random.Generator, *, path: Path | None = None, level: float = 0.9) -> Forecast:
        """How the first test series goes on, or the one in a .csv file: mean and interval of every column, exact; nothing is drawn."""
        past = self.series.test[0] if path is None else self._read(path)
        start, period = (self.form.start, self.form.period) if path is None else (0.0, self.form.period)
        mean, lower, upper = self.ahead(past, steps, level)
        columns = {"step": [float(k) for k in range(1, steps + 1)]}
        if start:
            columns["time"] = (start + period * (len(past) + np.arange(steps))).tolist()
        columns |= self.form.intervals(mean, lower, upper, level)
        picture = kalman_pictures.level(
            past,
            np.zeros(len(past), np.bool_),
            self.fill(past),
            (mean, lower, upper),
            self.form.columns,
            folder / "forecast.png",
            level=level,
            axis=(start, period),
        )
        return Forecast(columns, [picture])

    def _read(self, path: Path) -> Numbers:
        """The one series of a file, in the order of the model's columns."""
        values = self.form.read(path)
        if self.config.diffuse:
            whole = np.flatnonzero(~np.isnan(values).any(axis=1))
            if not len(whole):
                raise MinirnnError(f"{path}: no row has a value in every column, and such a row is where this model starts")
            values = values[whole[0] :]
        return values

    def samples(self, count: int, split: Split = "test") -> list[dict[str, str]]:
        """Observations that were hidden from the smoother, and what it filled in."""
        x = getattr(self.series, split)[0]
        seen, hidden = _gapped(x)
        filled, noise = self.fill(seen), np.sqrt(np.diag(self.model.matrices().R)) * self.form.scaling.std
        places = np.flatnonzero(hidden & ~np.isnan(x).any(axis=1))
        rows, half = [], NormalDist().inv_cdf(0.95)
        for t in places[np.unique(np.linspace(0, len(places) - 1, min(count, len(places))).round().astype(int))] if len(places) else []:
            row = {"time": f"{self.form.start + self.form.period * t:g}"}
            for d, name in enumerate(self.form.columns[:3]):
                off = half * float(np.hypot(filled.std[t, d], noise[d]))
                row[f"{name}, hidden"] = f"{x[t, d]:.4g}"
                row["filled in, 90 %" if len(self.form.columns) == 1 else f"{name}, filled in, 90 %"] = (
                    f"{filled.mean[t, d]:.4g} ({filled.mean[t, d] - off:.4g} to {filled.mean[t, d] + off:.4g})"
                )
            rows.append(row)
        return rows or [{"time": "-", "hidden": "the series is too short to hide anything of it"}]

    def study(self, asked: Question) -> NoReturn:
        raise MinirnnError(
            "a kalman run has no recurrent layer that back-propagation goes through; the neural model of the same series has: "
            f"minirnn train ssm --data {self.data.source}"
        )

    def describe(self) -> str:
        data, frames = self.series, sum(map(len, self.series.train))
        how = {"em": "EM", "gradient": "the gradient of the likelihood"}[self.config.method]
        states, start = self.model.config.states, "nothing known of the first state" if self.config.diffuse else "a vague first state"
        return (
            f"{len(data.train):,} series of {len(data.columns)} numbers a step from {data.name}, {frames:,} steps in all.\n"
            f"{data.attribution}\n{f'{data.note[0].upper()}{data.note[1:]}.' if data.note else ''}\n"
            f"A {self.config.structure.replace('_', ' ')} model, {states} state{'s' if states > 1 else ''}, {start}; "
            f"{', '.join(sorted(self.learnt))} learnt by {how}."
        )

    def pictures(self, folder: Path) -> list[Path]:
        """NAME.png: the first test series with parts of it hidden and filled in again, its smoothed level, and a forecast."""
        x = self.series.test[0]
        seen, hidden = _gapped(x)
        ahead = self.ahead(seen, max(2, len(x) // 5), 0.9)
        path, axis = folder / f"{Path(self.series.name).stem}.png", (self.form.start, self.form.period)
        return [kalman_pictures.level(x, hidden, self.fill(seen), ahead, self.form.columns, path, axis=axis)]

    def hints(self, folder: Path) -> list[list[str]]:
        return [["forecast", str(folder), "--steps", "10"], ["sample", str(folder), "-n", "4"]]


def _gapped(x: Numbers) -> tuple[Numbers, Any]:
    """A series with parts of it missing, and which of its steps those are: (T, D), (T,)."""
    hidden = np.zeros(len(x), np.bool_)
    for begin, end in GAPS:
        hidden[max(1, int(begin * len(x))) : int(end * len(x))] = True
    return np.where(hidden[:, None], np.nan, x), hidden


def _last(x: Numbers) -> Numbers:
    """The last observed value before each step, NaN where there is none."""
    last = np.full_like(x, np.nan)
    for t in range(1, len(x)):
        last[t] = np.where(np.isnan(x[t - 1]), last[t - 1], x[t - 1])
    return last


def _on_the_diagonal(gradient: Tensor) -> Tensor:
    return gradient * Tensor(array_module(gradient.data).eye(len(gradient), dtype=gradient.dtype))


def _true(truth: Any) -> LinearGaussianSSM:
    return LinearGaussianSSM.from_matrices(truth["A"], truth["C"], B=truth["B"], D=truth["D"], mean=truth["m0"], covariance=truth["P0"])


def _learnt(config: KalmanConfig, model: LinearGaussianSSM) -> frozenset[str]:
    """What is to be learnt, by the names of `LinearGaussianSSM.em`."""
    if not config.learn:
        return model.learnable() if config.structure == "general" else frozenset({"Q", "R"})
    names = frozenset(name.strip() for name in config.learn.split(",") if name.strip())
    for name in sorted(names - model.learnable()):
        raise MinirnnError(f"learn={config.learn}: {name!r} cannot be learnt here; there are {', '.join(sorted(model.learnable()))}")
    if not names:
        raise MinirnnError(f"learn={config.learn}: nothing is named; there are {', '.join(sorted(model.learnable()))}")
    return names
