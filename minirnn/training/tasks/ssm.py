"""Learning series with latent states: `NeuralSSM`, `SRNN`, or an LSTM without any, judged by bounds on the likelihood of what comes next.

All scores are natural logarithms of likelihoods in the data's own units: totals over all series of a split, divided by the total number of
frames. Of a model with latent states they are bounds from below, and the true value is no less:

    bound    the ELBO, reconstruction - kl       iwae, fivo    the importance-weighted and the particle bound of K samples
    exact    the likelihood under the model that made the data, where it is known; gap = exact - bound

Real series are learnt with mean 0 and standard deviation 1, p(x) = p(y) / prod_d std_d; what is drawn comes back in the data's own units.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np

from minirnn import data as minirnn_data
from minirnn.data import music
from minirnn.data.kinds import Numbers, Series
from minirnn.data.sources import series as csv
from minirnn.errors import MinirnnError
from minirnn.models import SRNN, AutoregressiveConfig, AutoregressiveLSTM, NeuralSSM, NeuralSSMConfig, SRNNConfig
from minirnn.models.chunks import Reader
from minirnn.models.terms import Terms
from minirnn.study.examine import Subject
from minirnn.study.example import Axis
from minirnn.tensor import Tensor
from minirnn.training import music_pictures, series_baselines, series_pictures, subjects
from minirnn.training.checkpoint import Run
from minirnn.training.series_form import Form
from minirnn.training.series_pieces import Cutter, Pieces
from minirnn.training.task import DataArguments, Demo, Metric, Split, Task, TrainingOptions
from minirnn.training.verbs import Drawn, Forecast, Question

SAMPLES = 16  # K of the bounds where none is given
DRAWS = 500  # ways on which a series may go on, for a forecast
# What suits some hundred chorales; the latent states need the time that annealing gives them.
MUSIC = {
    "latent": 48,
    "hidden": 128,
    "encoder_hidden": 128,
    "combiner": 128,
    "emission_hidden": 128,
    "annealing": 800,
    "dropout": 0.1,
    "schedule": "cosine",
    "clip": 1.0,
    "average": 0.995,
    "epochs": 200,
}
PROBABLE = 0.02  # keys that a forecast of music lists: those that are at some step more probable

Model = NeuralSSM | SRNN | AutoregressiveLSTM


@dataclass(frozen=True)
class SSMTaskConfig(NeuralSSMConfig):
    """Hyper-parameters of the models, and of how series are shown to them. posterior=filtering is the lecture's q(z_t given x_1..x_t).

    Args:
        model: ssm, the neural state-space model; srnn, with a deterministic layer below; lstm, without latent states.
        layers: of the lstm model.
        batch_size: series per update.
        crop: longer series are cut into pieces of so many frames, anywhere; 0 never cuts.
        transpose: in training, music is moved by up to so many semitones, up or down.
        gaps: in training, the share of frames that are hidden, some 10 at a time, so that the model learns to fill gaps.
    """

    model: Literal["ssm", "srnn", "lstm"] = "ssm"
    layers: int = 1
    posterior: Literal["filtering", "smoothing"] = "smoothing"
    annealing: int = 300
    beta: float = 0.05
    batch_size: int = 16
    crop: int = 200
    transpose: int = 0
    gaps: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("layers", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("crop", "transpose"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if not 0 <= self.gaps < 1:
            raise ValueError(f"gaps must lie in [0, 1), got {self.gaps}")


class SSMTask(Task[SSMTaskConfig, Pieces]):
    name = "ssm"
    summary = "a neural state-space model (or model=srnn, or model=lstm without latent states), from series of numbers or piano rolls"
    config_type = SSMTaskConfig
    settled_by_data: ClassVar[frozenset[str]] = frozenset({"observed", "observation"})
    for_data: ClassVar[Mapping[str, Mapping[str, Any]]] = {"jsb": MUSIC, "chorales": MUSIC}
    training = TrainingOptions(lr=3e-3, schedule="linear", warmup=50, clip=5.0, epochs=100)
    default_data = "pendulum"
    metric = Metric("bound", higher_is_better=True)
    unit = "frames"
    demo = Demo(
        data="pendulum",
        minutes=2.0,
        title="A neural state-space model learns how a pendulum moves, from its place seen through noise.",
        settings={"gaps": 0.1},
    )
    evaluation_options: ClassVar[frozenset[str]] = frozenset({"samples", "against"})

    def __init__(self, config: SSMTaskConfig, data: DataArguments, form: Form, rng: int) -> None:
        self.config = config
        self.data = data
        self.form = form
        self.model: Model = _model(config, rng)

    @classmethod
    def build(cls, config: SSMTaskConfig, data: DataArguments, seed: int) -> Self:
        series = minirnn_data.source(data.source, data.folder, data.seed, kind=Series)
        gaps = config.gaps > 0 or any(np.isnan(x).any() for part in (series.train, series.valid, series.test) for x in part)
        if config.transpose and series.columns != music.key_names():
            raise MinirnnError(f"transpose moves music, but {series.name} is none: leave it at 0")
        missing = config.missing or gaps
        config = dataclasses.replace(config, observed=len(series.columns), observation=series.observation, missing=missing)
        task = cls(config, data, Form.of(series), seed)
        task.series = series
        task.model.start_from(task._training)
        return task

    @classmethod
    def restore(cls, config: SSMTaskConfig, data: DataArguments, folder: Path) -> Self:
        return cls(config, data, Form.load(folder, config.observed), 0)

    def save_extras(self, folder: Path) -> None:
        self.form.save(folder)

    @cached_property
    def series(self) -> Series:
        return minirnn_data.source(self.data.source, self.data.folder, self.data.seed, kind=Series)

    @property
    def is_music(self) -> bool:
        """Whether the columns are the keys of a piano."""
        return self.config.observation == "binary" and self.form.columns == music.key_names()

    @cached_property
    def _training(self) -> list[Numbers]:
        return [self.form.scaling.apply(x) for x in self.series.train]

    @cached_property
    def _cutter(self) -> Cutter:
        return Cutter(self._training, self.config.crop, self.config.transpose, self.config.gaps)

    def batches(self, epoch: int, rng: np.random.Generator) -> Sequence[Pieces]:
        return self._cutter.batches(self.config.batch_size, rng)

    def loss(self, batch: Pieces, step: int) -> Tensor:
        shown = self.shown(batch)
        return self.model.loss(shown, step) + self._log_jacobian(shown)

    def why_whole(self) -> str | None:
        if self.config.model == "lstm":
            return None
        return f"with model={self.config.model} draws latent states over whole sequences"

    def reader(self, batch: Pieces) -> Reader:
        assert isinstance(self.model, AutoregressiveLSTM)
        shown = self.shown(batch)
        reader = self.model.reader(shown)
        reader.offset = self._log_jacobian(shown)
        return reader

    def _log_jacobian(self, shown: Sequence[Numbers]) -> float:
        """ln p(y) - ln p(x), per frame."""
        return sum(map(self.form.scaling.log_jacobian, shown)) / sum(map(len, shown))

    def size(self, batch: Pieces) -> int:
        return self._cutter.frames(batch)

    def shown(self, batch: Pieces) -> list[Numbers]:
        """What the model is shown of a batch, scaled: cut, transposed, and with gaps."""
        return self._cutter.shown(batch)

    def validate(self) -> dict[str, float]:
        bound = self._per_frame(self.series.valid)
        return {"bound": bound, "loss": -bound}

    def evaluate(self, split: Split, *, samples: int = SAMPLES, against: Path | None = None, **options: Any) -> dict[str, Any]:
        """Scores on a split.

        Args:
            samples: K of the importance-weighted and of the particle bound.
            against: another run on the same data, to be scored on the same split.
        """
        series = getattr(self.series, split)
        frames = sum(map(len, series))
        result: dict[str, Any] = {"split": split, "series": len(series), "frames": frames}
        if isinstance(self.model, AutoregressiveLSTM):
            result["log_likelihood"] = own = self._per_frame(series)
        else:
            scaled = [self.form.scaling.apply(x) for x in series]
            reconstruction, kl = self.model.elbo_terms(scaled, samples=1, rng=0)
            result["reconstruction"] = (float(reconstruction.sum()) - sum(map(self.form.scaling.log_jacobian, series))) / frames
            result["kl"] = float(kl.sum()) / frames
            result["bound"] = own = result["reconstruction"] - result["kl"]
            result["samples"] = samples
            result["iwae"] = self._per_frame(series, samples, "iwae")
            result["fivo"] = self._per_frame(series, samples, "fivo")
        if self.series.truth is not None:
            result["exact"] = exact(self.series.truth, series)
            result["gap"] = result["exact"] - own
        baselines = series_baselines.fit(self.series.train, self.series.observation)
        result["baselines"] = {name: series_baselines.per_frame(baseline, series) for name, baseline in baselines.items()}
        return result if against is None else result | {"against": self._beside(against, split, samples)}

    def _per_frame(self, series: Sequence[Numbers], samples: int = 1, bound: Literal["elbo", "iwae", "fivo"] = "elbo") -> float:
        """The log-likelihood, or a bound on it, of series in the data's own units."""
        scaled = [self.form.scaling.apply(x) for x in series]
        total = float(self.model.log_likelihood(scaled, samples=samples, rng=0, bound=bound).sum())
        return (total - sum(map(self.form.scaling.log_jacobian, series))) / sum(map(len, series))

    def _beside(self, folder: Path, split: Split, samples: int) -> dict[str, Any]:
        run = Run.open(folder)
        if (run.data.source, run.data.seed) != (self.data.source, self.data.seed):
            raise MinirnnError(f"{folder} has learnt {run.data.source}, not {self.data.source}: the scores cannot be compared")
        task = run.task(self.device)
        options = {"samples": samples} if "samples" in task.evaluation_options else {}
        scores = task.evaluate(split, **options)
        return {"run": str(folder), "parameters": task.model.num_parameters(), **{k: v for k, v in scores.items() if isinstance(v, float)}}

    def sample(self, count: int, rng: np.random.Generator, folder: Path, *, temperature: float = 1.0, length: int | None = None) -> Drawn:
        """New series: samples.png, and for music sample-1.mid and sample-1.wav and so on, for all else samples.csv."""
        drawn = self.form.scaling.undo(self.model.sample(length or self.form.length, count, rng, temperature))
        shown, titles = list(drawn[: series_pictures.PANELS]), [f"sample {k + 1}" for k in range(min(count, series_pictures.PANELS))]
        if not self.is_music:
            picture = series_pictures.trajectories(shown, titles, self.form.columns, folder / "samples.png")
            return Drawn(files=[picture, csv.write(folder / "samples.csv", self.form.columns, list(drawn))])
        files = [music_pictures.piano_rolls(shown, titles, folder / "samples.png")]
        for k, roll in enumerate(drawn, 1):
            files += _played(roll, folder / f"sample-{k}")
        return Drawn(files=files)

    def forecast(self, steps: int, folder: Path, rng: np.random.Generator, *, path: Path | None = None, level: float = 0.9) -> Forecast:
        """How the first test series goes on, or the one in a .csv (music: also a .mid) file: median and interval of every column.

        For zeros and ones, their probabilities. forecast.png shows it; music comes as forecast.mid and forecast.wav too, played once.
        """
        past = self.series.test[0] if path is None else self._read(path)
        draws = self._continued(past, steps, rng)
        step = {"step": [float(k) for k in range(1, steps + 1)]}
        if self.config.observation == "binary":
            probability = draws.mean(axis=0)  # (L, D)
            kept = [d for d in range(len(self.form.columns)) if not self.is_music or probability[:, d].max() > PROBABLE]
            columns = step | {self.form.columns[d]: probability[:, d].tolist() for d in kept}
        else:
            low, median, high = np.quantile(draws, [(1 - level) / 2, 0.5, (1 + level) / 2], axis=0)
            columns = step | self.form.intervals(median, low, high, level)
        if not self.is_music:
            axis = (self.form.start, self.form.period) if path is None else (0.0, self.form.period)
            return Forecast(columns, [series_pictures.fan(past, draws, self.form.columns, folder / "forecast.png", level=level, axis=axis)])
        whole = np.concatenate([past, draws[0]])
        picture = music_pictures.piano_rolls([whole], ["what is given, and one way on"], folder / "forecast.png", len(past))
        return Forecast(columns, [picture, *_played(whole, folder / "forecast")])

    def _continued(self, past: Numbers, steps: int, rng: np.random.Generator) -> Numbers:
        """Draws of what comes next (N, L, D)."""
        return self.form.scaling.undo(self.model.forecast(self.form.scaling.apply(past), steps, DRAWS, rng))

    def _read(self, path: Path) -> Numbers:
        """The one series of a file, in the order of the model's columns."""
        if self.is_music and path.suffix in (".mid", ".midi"):
            return music.read_midi(path).astype(np.float64)
        return self.form.read(path)

    def samples(self, count: int, split: Split = "test") -> list[dict[str, str]]:
        """Of each series, what the model thinks comes after three quarters of it, with the middle 90 % of its draws, and what came."""
        series, rows, rng = getattr(self.series, split), [], np.random.default_rng(0)
        for k in sorted(rng.choice(len(series), min(count, len(series)), replace=False)):
            x = series[k]
            cut = max(1, len(x) * 3 // 4)
            if cut == len(x):
                continue
            steps = min(5, len(x) - cut)
            draws = self._continued(x[:cut], steps, rng)
            rows.append({"series": str(k + 1), **self._row(draws, x[cut : cut + steps])})
        return rows

    def _row(self, draws: Numbers, truth: Numbers) -> dict[str, str]:
        if self.is_music:
            names = np.array(self.form.columns)
            return {"next chord, one draw": " ".join(names[draws[0, 0] == 1]), "what came": " ".join(names[truth[0] == 1])}
        low, median, high = np.quantile(draws[:, -1], [0.05, 0.5, 0.95], axis=0)
        cells = {}
        for d, name in enumerate(self.form.columns[:2]):
            cells[f"{name} {len(truth)} frames later"] = f"{median[d]:.2g} ({low[d]:.2g} to {high[d]:.2g})"
            cells[f"{name} came"] = f"{truth[-1, d]:.2g}"
        return cells

    def study(self, asked: Question) -> Subject:
        """A series of the data, or of a file: its last frames. Losses are in the data's own units."""
        subjects.refuse_target(asked, self.name)
        x = (
            self._read(Path(asked.given))
            if asked.given is not None
            else subjects.chosen(getattr(self.series, asked.split), asked, "series")
        )
        first = max(0, len(x) - asked.steps)
        x, frames = x[first:], [str(t) for t in range(first, len(x))]
        scaled = self.form.scaling.apply(x)
        units = np.array([self.form.scaling.log_jacobian(frame[None]) for frame in x], np.float32)  # (T,)

        def terms() -> Terms:
            found = self.model.terms(scaled, rng=asked.seed)
            return found._replace(losses=found.losses + units.astype(found.losses.dtype))

        notes = [] if self.config.model == "lstm" else ["Losses are minus the ELBO, at one draw of z from q."]
        notes += [f"These are the last {len(x)} of {first + len(x)} frames; the model has not seen those before."] if first else []
        named = ", ".join(self.form.columns[:4]) + (", ..." if len(self.form.columns) > 4 else "")
        where = asked.given or f"{asked.split} series {asked.index} of {self.data.source}"
        return Subject(
            title={"ssm": "A neural state-space model", "srnn": "An SRNN", "lstm": "An LSTM"}[self.config.model] + " at work on a series",
            text=f"{where}: {len(x)} {'chords' if self.is_music else f'frames of {named}'}",
            note=" ".join(notes),
            model=self.name,
            terms=terms,
            inputs={"series": Axis("series", "series", frames, values=x, columns=self.form.columns)},
            output="expected",
            labels=self._chords(x) if self.is_music else frames,
            say=self._chords if self.is_music else None,
            expect=self.form.scaling.undo,
            under=dict.fromkeys(("encoder", "past", "lstm", "transition"), "expected"),  # frame t, be it what is read or what is foretold
        )

    def _chords(self, roll: Numbers) -> list[str]:
        """The keys that sound in each frame of a roll (T, D), or are more probable than not."""
        names = np.array(self.form.columns)
        return [" ".join(names[frame > 0.5]) or "(silence)" for frame in roll]

    def describe(self) -> str:
        data, kind = self.series, {"ssm": "A neural state-space model", "srnn": "An SRNN", "lstm": "An LSTM"}[self.config.model]
        frames = sum(map(len, data.train))
        return (
            f"{len(data.train):,} series of {len(data.columns)} numbers a frame from {data.name}, {frames:,} frames in all.\n"
            f"{data.attribution}\n"
            f"{kind} with {self.model.num_parameters():,} parameters."
        )

    def pictures(self, folder: Path) -> list[Path]:
        """forecast.png and filtered.png of a test series; for music samples.png, one of the test chorales and how the model goes on."""
        x, rng = self.series.test[0], np.random.default_rng(0)
        cut = max(1, len(x) * 2 // 3)
        if self.is_music:
            half = x[: len(x) // 2]
            way_on = np.concatenate([half, self._continued(half, len(x) - len(half), rng)[0]])
            titles = ["a test series", "its first half, and how the model goes on"]
            return [music_pictures.piano_rolls([x, way_on], titles, folder / "continued.png", len(half))]
        draws, axis = self._continued(x[:cut], max(1, len(x) - cut), rng), (0.0, self.form.period)
        drawn = [series_pictures.fan(x[:cut], draws, self.form.columns, folder / "forecast.png", truth=x[cut:], axis=axis)]
        if self.config.observation == "real":
            drawn.append(self._filtered(x, rng, folder / "filtered.png"))
        return drawn

    def _filtered(self, x: Numbers, rng: np.random.Generator, path: Path) -> Path:
        """A series filtered, and a gap in its middle filled if the model takes gaps."""
        scaling, seen, draws = self.form.scaling, x.copy(), None
        if self.config.missing:
            seen[len(x) * 2 // 5 : len(x) // 2] = np.nan
            draws = scaling.undo(self.model.impute(scaling.apply(seen), DRAWS, rng))
        mean = scaling.undo(self.model.filter(scaling.apply(seen), DRAWS, rng).observation)
        return series_pictures.filled(seen, mean, draws, self.form.columns, path, truth=x)

    def hints(self, folder: Path) -> list[list[str]]:
        return [["sample", str(folder), "-n", "4"], ["forecast", str(folder), "--steps", "40"], ["study", str(folder)]]


def exact(truth: Mapping[str, Any], series: Sequence[Numbers]) -> float:
    """The log-likelihood per frame of series under the linear Gaussian model that made them."""
    from minirnn.kernels.kalman.contract import Parameters
    from minirnn.kernels.kalman.numpy_ import filter

    A, B, C, D, m0, P0 = (np.asarray(truth[name], np.float64) for name in ("A", "B", "C", "D", "m0", "P0"))
    parameters = Parameters(A, B @ B.T, C, D @ D.T, np.zeros(len(A)), np.zeros(len(C)), m0, P0)
    return sum(float(filter(parameters, x[None]).log_likelihood.sum()) for x in series) / sum(map(len, series))


def _model(config: SSMTaskConfig, rng: int) -> Model:
    if config.model == "lstm":
        return AutoregressiveLSTM(_part(AutoregressiveConfig, config), rng=rng)
    if config.model == "srnn":
        return SRNN(_part(SRNNConfig, config), rng=rng)
    return NeuralSSM(config, rng=rng)


def _part(kind: type[Any], config: SSMTaskConfig) -> Any:
    """The configuration `kind` with the fields of `config` that it has."""
    return kind(**{field.name: getattr(config, field.name) for field in dataclasses.fields(kind)})


def _played(roll: Numbers, path: Path) -> list[Path]:
    """A piano roll as MIDI and as sound."""
    return [music.write_midi(roll, path.with_suffix(".mid")), music.write_wav(roll, path.with_suffix(".wav"))]
