"""What `minirnn bench train` trains: every model of the package at its default sizes, with the first batches of its data.

Where a data set cannot be had here, examples of the same kind, number of words and lengths are drawn. Everything follows from a seed, so
that the process of either library makes the same weights and batches for itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minirnn.data import TranslationBatch, bucketed, get
from minirnn.data.vocabulary import UNK
from minirnn.device import Array
from minirnn.errors import MinirnnError
from minirnn.models import AutoregressiveLSTM, SequenceVAE
from minirnn.models.captioner import CaptionBatch
from minirnn.models.linear_gaussian_ssm import LinearGaussianConfig, LinearGaussianSSM, Observations
from minirnn.models.seq2seq import Seq2Seq
from minirnn.models.state_space import StateSpaceModel
from minirnn.nn import Module
from minirnn.tensor import Tensor
from minirnn.training import registry
from minirnn.training.settings import apply
from minirnn.training.task import DataArguments, TrainingOptions
from minirnn.training.tasks import ssm as ssm_task

BATCHES = 8  # in a pass: every eighth update looks at the weights where they are averaged, so each pass has one that does
GAUSSIAN = {"states": 5, "observations": 2, "N": 16, "T": 100}  # the batch of a general linear Gaussian model


@dataclass(frozen=True)
class Spec:
    """One row of the table.

    Args:
        task: of `minirnn train`; none for what has no data set.
        data: the data set.
        twin: the module of `minirnn.bench.torch_models`.
        settings: as `--set` takes them, beside those that are the default for the data.
    """

    task: str | None
    data: str
    twin: str
    settings: Mapping[str, Any] = field(default_factory=dict)


SPECS = {
    "captioner": Spec("captioner", "scenes", "captioner"),
    "captioner-group": Spec("captioner", "scenes", "captioner", {"normalisation": "group"}),
    "vae": Spec("vae", "tatoeba", "sequence_vae"),
    "language-model": Spec("vae", "tatoeba", "sequence_vae", {"latent": 0}),
    "ssm": Spec("ssm", "jsb", "neural_ssm"),
    "srnn": Spec("ssm", "jsb", "srnn", {"model": "srnn"}),
    "lstm": Spec("ssm", "jsb", "autoregressive", {"model": "lstm"}),
    "seq2seq": Spec("seq2seq", "multi30k", "seq2seq"),
    "seq2seq-cldr": Spec("seq2seq", "cldr", "seq2seq"),
    "kalman": Spec("kalman", "nile", "linear_gaussian_ssm", {"method": "gradient"}),
    "kalman-batch": Spec(None, "drawn", "linear_gaussian_ssm"),
}


@dataclass(frozen=True)
class Case:
    """A model before its first update, and what it learns from.

    Args:
        name: in `SPECS`.
        model: its parameters are those that both libraries start from.
        batches: as the model's `loss` takes them.
        sizes: of the batches, in `unit`.
        options: the optimiser's.
        data: for a reader.
    """

    name: str
    model: Any
    batches: Sequence[Any]
    sizes: Sequence[int]
    unit: str
    options: TrainingOptions
    data: str

    @property
    def twin(self) -> str:
        return SPECS[self.name].twin

    @property
    def dtype(self) -> str:
        """In which the parameters are now."""
        return str(next(self.model.parameters()).dtype)

    @property
    def examples(self) -> int:
        """N, in a batch."""
        first = self.batches[0]
        if isinstance(first, TranslationBatch):
            return first.size
        return len(first.captions) if isinstance(first, CaptionBatch) else len(first.x) if isinstance(first, Observations) else len(first)

    def noise(self, k: int, dtype: Any) -> Array | None:
        """What is drawn for batch k where both libraries have to draw the same, (N, Z) or (S, Z); None: nothing is."""
        batch, model = self.batches[k], self.model
        if not getattr(model.config, "latent", 0) or isinstance(model, AutoregressiveLSTM):
            return None
        rows = len(batch) if isinstance(model, SequenceVAE) else sum(map(len, batch))
        return np.random.default_rng(k).standard_normal((rows, model.config.latent)).astype(dtype)

    def loss(self, k: int, step: int, *, drawn: bool) -> Tensor:
        """The loss of batch k at update number `step`; `drawn`: with the noise of `noise`, not with the model's own."""
        batch, model = self.batches[k], self.model
        if isinstance(model, SequenceVAE):
            return model.loss(batch, step, self.noise(k, self.dtype) if drawn else None)
        if isinstance(model, StateSpaceModel):
            return model.loss(batch, step, rng=k if drawn else None)  # draws as `noise` does
        loss: Tensor = model.loss(batch)
        return loss


def missing(name: str, data_dir: str | None) -> str | None:
    """Why the data set of a case cannot be had here, None if it can. Downloads it where that is possible."""
    spec = SPECS[name]
    if spec.task is None:
        return None
    try:
        get(spec.data, data_dir)
    except MinirnnError as error:
        return str(error)
    return None


def build(
    name: str, data_dir: str | None = None, *, drawn: bool = False, count: int = BATCHES, settings: Mapping[str, Any] | None = None
) -> Case:
    """A case of SPECS.

    Args:
        name: which one.
        data_dir: where data files lie, beside $MINIRNN_DATA and the cache.
        drawn: draw examples in place of the data set.
        count: batches, the last of which may be the first again.
        settings: more of them, as for a smaller model.
    """
    spec = SPECS[name]
    if spec.task is None:
        return _gaussian(name, count, {**GAUSSIAN, **(settings or {})})
    kind = registry.find(spec.task)
    config, options = apply({**kind.for_data.get(spec.data, {}), **spec.settings, **(settings or {})}, kind.config_type(), kind.training)
    if drawn:
        model, examples, sizes = DRAWN[spec.data](config, np.random.default_rng(0))
        what = f"drawn, like {spec.data}"
    else:
        task = kind.build(config, DataArguments(spec.data, data_dir), seed=0)
        model, what = task.model, spec.data
        numbers = list(task.batches(0, np.random.default_rng(0)))[:count]
        examples, sizes = [_examples(task, batch) for batch in numbers], [task.size(batch) for batch in numbers]
    chosen = [k % len(examples) for k in range(count)]
    return Case(name, model, [examples[k] for k in chosen], [sizes[k] for k in chosen], kind.unit, options, what)


def _examples(task: Any, batch: Any) -> Any:
    """The batch as the model's loss takes it."""
    if task.name == "ssm":
        return task.shown(batch)
    if task.name == "kalman":
        return task.model.observations([task.form.scaling.apply(x) for x in task.series.train])
    return task.numbers(batch)


def _gaussian(name: str, count: int, sizes: Mapping[str, int]) -> Case:
    """Series of another model of the same sizes. Everything is learnt."""
    config, N, T = LinearGaussianConfig(sizes["states"], sizes["observations"]), sizes["N"], sizes["T"]
    model = LinearGaussianSSM(config, rng=0)
    batches = [model.observations(LinearGaussianSSM(config, rng=1).sample(T, N, rng=k).x) for k in range(count)]
    what = f"drawn: {N} series, {config.states} states, {config.observations} observed"
    return Case(name, model, batches, [N * T] * count, "steps", registry.find("kalman").training, what)


Drawn = tuple[Module, list[Any], list[int]]  # a model, batches, and their sizes


def _pairs(source_size: int, target_size: int, config: Any, rng: np.random.Generator) -> Drawn:
    count = 100 * config.batch_size
    lengths = np.clip(rng.normal(13, 4, count), 2, 40)
    source, target = lengths.astype(int), np.clip(lengths + rng.normal(1, 2, count), 2, 40).astype(int)
    model = Seq2Seq(dataclasses.replace(config, source_size=source_size, target_size=target_size), rng=0)
    batches = [
        TranslationBatch([_words(n, source_size, rng) for n in source[chosen]], [_words(n, target_size, rng) for n in target[chosen]])
        for chosen in bucketed(source, target, config.batch_size, rng)[:BATCHES]
    ]
    return model, batches, [batch.tokens for batch in batches]


def _sentences(size: int, config: Any, rng: np.random.Generator) -> Drawn:
    lengths = np.clip(rng.normal(7.7, 2.7, 100 * config.batch_size), 2, 38).astype(int)
    model = SequenceVAE(dataclasses.replace(config, vocabulary_size=size), rng=0)
    batches = [[_words(n, size, rng) for n in lengths[chosen]] for chosen in bucketed(lengths, lengths, config.batch_size, rng)[:BATCHES]]
    return model, batches, [sum(map(len, batch)) + len(batch) for batch in batches]


def _music(config: Any, rng: np.random.Generator) -> Drawn:
    """Frames of 88 keys, of which one in twenty sounds."""
    lengths = np.clip(rng.normal(60, 19, 229), 25, 129).astype(int)
    config = dataclasses.replace(config, observed=88, observation="binary")
    series = [(rng.random((n, 88)) < 0.05).astype(np.float64) for n in lengths]
    model = ssm_task._model(config, 0)
    model.start_from(series)
    batches = [[series[k] for k in chosen] for chosen in bucketed(lengths, lengths, config.batch_size, rng)[:BATCHES]]
    return model, batches, [sum(map(len, batch)) for batch in batches]


def _words(count: int, size: int, rng: np.random.Generator) -> Array:
    """Words of which few are frequent, and none is a mark."""
    return UNK + 1 + (rng.random(count) ** 3 * (size - UNK - 1)).astype(np.int64)


DRAWN = {
    "multi30k": lambda config, rng: _pairs(5901, 6437, config, rng),
    "cldr": lambda config, rng: _pairs(3000, 3300, config, rng),
    "tatoeba": lambda config, rng: _sentences(8266, config, rng),
    "jsb": _music,
}
