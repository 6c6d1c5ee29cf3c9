"""The sequence VAE's task: sentences in, bounds out, what a collapsed model looks like, and what may be asked of a trained one."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from minirnn.data.vocabulary import BOS, EOS
from minirnn.errors import MinirnnError
from minirnn.training import DataArguments, Run, Trainer, TrainingOptions
from minirnn.training.tasks.vae import VAETask, VAETaskConfig

WORDS = ["red", "green", "blue", "white", "black"]
TINY = VAETaskConfig(
    embedding=16,
    encoder_hidden=24,
    decoder_hidden=24,
    latent=4,
    dropout=0.0,
    free_bits=0.75,
    annealing_steps=60,
    batch_size=32,
    min_count=1,
)
OPTIONS = TrainingOptions(lr=1e-2, schedule="linear", epochs=20)


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> DataArguments:
    """One word several times, then another one: what kind of sentence it is has to be known from the beginning to the end."""
    colours = [(a, b) for a in WORDS for b in WORDS]
    lines = {" ".join([a] * n + [b] * m) for a, b in colours for n in range(1, 8) for m in range(1, 8)}
    file = tmp_path_factory.mktemp("data") / "colours.txt"
    file.write_text("\n".join(sorted(lines)), encoding="utf-8")
    return DataArguments(str(file))


@pytest.fixture(scope="module")
def trained(arguments: DataArguments) -> VAETask:
    task = VAETask.build(TINY, arguments, seed=0)
    Trainer(task, OPTIONS).fit()
    return task


@pytest.fixture(scope="module")
def language_model(arguments: DataArguments) -> VAETask:
    task = VAETask.build(dataclasses.replace(TINY, latent=0), arguments, seed=0)
    Trainer(task, OPTIONS).fit()
    return task


def saved(task: VAETask, folder: Path) -> Path:
    """The run of a task that was trained without one."""
    run = Run(folder, "vae", task.config, OPTIONS, task.data, seed=0)
    folder.mkdir()
    run.write_start(task)
    Trainer(task, OPTIONS, run=run)._save_best()
    return folder


def collapsed(task: VAETask) -> VAETask:
    """A model of the same kind whose posterior is the prior, and whose decoder does not look at z."""
    other = VAETask.build(task.config, task.data, seed=1)
    for parameter in (other.model.posterior.weight, other.model.posterior.bias, other.model.first.weight):
        parameter.data[...] = 0
    other.model.decoder.weight_ih_l0.data[:, -task.config.latent :] = 0
    other.model.readout.weight.data[:, -task.config.latent :] = 0
    other.model.eval()
    return other


def test_it_learns_to_use_z(trained: VAETask) -> None:
    scores = trained.evaluate("test", samples=50)
    assert scores["kl"] > 2  # of the free 4 x 0.75 nats
    assert scores["active_units"] >= 2
    assert scores["mutual_information"] > 1
    untrained = VAETask.build(TINY, trained.data, seed=0).evaluate("test")
    assert scores["bound"] < 0.7 * untrained["bound"]


def test_the_columns_belong_together(trained: VAETask) -> None:
    scores = trained.evaluate("valid", samples=50)
    texts = trained.text.valid
    assert scores["loss"] == scores["reconstruction"] + scores["kl"]
    assert scores["bound"] < scores["loss"]  # the ELBO is the bound from one draw
    assert trained.evaluate("valid", samples=200)["bound"] < scores["bound"] + 0.05  # more draws bring it nearer, but for chance
    assert scores["sentences"] == len(texts)
    assert scores["words"] == sum(len(text.split()) + 1 for text in texts)
    assert scores["perplexity"] == pytest.approx(math.exp(scores["bound"] * scores["sentences"] / scores["words"]))
    assert 0 <= scores["mutual_information"] <= math.log(len(texts))
    assert scores == trained.evaluate("valid", samples=50)  # the draws are always the same
    assert trained.validate()["loss"] == scores["loss"]


def test_the_kl_is_that_of_two_gaussians(trained: VAETask) -> None:
    total = 0.0
    for text in trained.text.valid:
        q = trained.model.posteriors([[trained.vocabulary.encode(text)]])
        mean, std = q.mean.numpy().astype(np.float64), np.exp(q.log_std.numpy().astype(np.float64))
        total += float((0.5 * (mean**2 + std**2 - 1) - np.log(std)).sum())
    assert trained.evaluate("valid", samples=1)["kl"] == pytest.approx(total / len(trained.text.valid), rel=1e-5)


def test_a_collapsed_model_is_seen_to_be_one(trained: VAETask) -> None:
    scores = collapsed(trained).evaluate("test", samples=10)
    assert scores["kl"] == 0
    assert scores["active_units"] == 0
    assert scores["mutual_information"] == pytest.approx(0, abs=1e-6)
    assert scores["bound"] == pytest.approx(scores["loss"], rel=1e-5)  # where z says nothing, both are the likelihood itself


@pytest.mark.parametrize("split", ["valid", "test"])
def test_a_language_model_is_scored_exactly(language_model: VAETask, split: str) -> None:
    model, total, words = language_model.model, 0.0, 0
    texts = getattr(language_model.text, split)
    for text in texts:  # word by word, as in decoding
        state, before = model.start(np.zeros((1, 0))), np.array([BOS])
        for word in [*language_model.vocabulary.encode(text), EOS]:
            log_probs, state = model.step(before, state)
            total -= float(log_probs[0, word])
            before = np.array([word])
            words += 1
    scores = language_model.evaluate(split)  # type: ignore[arg-type]
    assert scores["bound"] == pytest.approx(total / len(texts), rel=1e-5)
    assert scores["perplexity"] == pytest.approx(math.exp(total / words), rel=1e-5)
    assert "kl" not in scores


def test_a_language_model_beside_it(trained: VAETask, language_model: VAETask, tmp_path: Path) -> None:
    scores = trained.evaluate("test", samples=20, against=saved(language_model, tmp_path / "lm"))
    assert scores["against_loss"] == pytest.approx(language_model.evaluate("test")["bound"], rel=1e-6)
    assert scores["above"] == pytest.approx(scores["bound"] / scores["against_loss"] - 1)
    assert scores["parameters"] > scores["against_parameters"] == language_model.model.num_parameters()
    with pytest.raises(MinirnnError, match=r"is no language model; train one: .*latent=0"):
        trained.evaluate("test", against=saved(trained, tmp_path / "vae"))
    known = dataclasses.replace(TINY, latent=0, min_count=10_000)
    with pytest.raises(MinirnnError, match="has another vocabulary"):
        trained.evaluate("test", against=saved(VAETask.build(known, trained.data, seed=0), tmp_path / "other"))


def test_until_the_annealing_is_over_the_last_weights_are_the_best(arguments: DataArguments) -> None:
    def best(annealing_steps: int) -> tuple[float | None, int, list[bool]]:
        task = VAETask.build(dataclasses.replace(TINY, annealing_steps=annealing_steps), arguments, seed=0)
        outcome = Trainer(task, dataclasses.replace(OPTIONS, epochs=2, validate_every=10)).fit()
        return outcome.state.best, outcome.state.best_step, [row["best"] for row in outcome.rows if "valid" in row]

    score, step, improved = best(10_000)
    assert score == math.inf
    assert all(improved)
    score, step, improved = best(35)
    assert score is not None
    assert score < math.inf
    assert step >= 40  # the first validation that counts
    assert all(improved[:4])


def test_stopped_and_resumed_it_has_the_same_bits(arguments: DataArguments, tmp_path: Path) -> None:
    config = dataclasses.replace(TINY, word_dropout=0.3, dropout=0.2, aggressive=True)

    def run(folder: Path) -> Run:
        return Run(folder, "vae", config, dataclasses.replace(OPTIONS, epochs=3), arguments, seed=3)

    def finish(run: Run, task: VAETask, trainer: Trainer) -> dict[str, bytes]:
        trainer.fit()
        return {name: array.tobytes() for name, array in task.model.state_dict().items()}

    whole = run(tmp_path / "whole")
    task = whole.start()
    assert isinstance(task, VAETask)
    expected = finish(whole, task, Trainer(task, whole.training, whole.seed))

    parts = run(tmp_path / "parts")
    task = parts.start()
    parts.folder.mkdir()
    parts = dataclasses.replace(parts, config=task.config)
    parts.write_start(task)
    trainer = Trainer(task, parts.training, parts.seed, parts)
    original = task.loss
    calls = iter(range(100))

    def loss(batch: np.ndarray, step: int):  # type: ignore[no-untyped-def,type-arg]
        trainer.interrupted = next(calls) == 40
        return original(batch, step)

    task.loss = loss  # type: ignore[method-assign]
    assert trainer.fit().reason == "interrupted"
    again, arrays, state = parts.resume()
    assert isinstance(again, VAETask)
    assert state.step == 41
    trainer = Trainer(again, parts.training, parts.seed, parts)
    trainer.load(arrays, state, parts.read_metrics(up_to=state.step))
    assert finish(parts, again, trainer) == expected


def test_one_seed_one_model(arguments: DataArguments) -> None:
    states = [VAETask.build(TINY, arguments, seed).model.state_dict() for seed in (0, 0, 1)]
    assert all(np.array_equal(states[0][name], states[1][name]) for name in states[0])
    assert not all(np.array_equal(states[0][name], states[2][name]) for name in states[0])


def test_every_training_sentence_is_in_one_batch_of_an_epoch_but_the_very_long(arguments: DataArguments) -> None:
    task = VAETask.build(dataclasses.replace(TINY, max_length=6), arguments, seed=0)
    batches = task.batches(0, np.random.default_rng(0))
    short = [text for text in task.text.train if len(text.split()) <= 6]
    assert sorted(np.concatenate(batches)) == list(range(len(short)))
    assert sum(map(task.size, batches)) == sum(len(text.split()) + 1 for text in short)


def test_what_is_written_follows_from_the_generator(trained: VAETask, tmp_path: Path) -> None:
    first, again, other = (trained.sample(20, np.random.default_rng(seed), tmp_path).texts for seed in (0, 0, 1))
    assert first == again != other
    assert len(first) == 20
    assert all(len(text.split()) <= 3 for text in trained.sample(20, np.random.default_rng(0), tmp_path, length=3).texts)
    assert trained.samples(5) == trained.samples(5)
    assert not list(tmp_path.iterdir())


def test_samples_read_like_the_data(trained: VAETask, tmp_path: Path) -> None:
    texts = trained.sample(200, np.random.default_rng(0), tmp_path, temperature=0.5).texts
    changes = [sum(a != b for a, b in zip(text.split(), text.split()[1:], strict=False)) for text in texts]
    assert np.mean([change <= 1 for change in changes]) > 0.8  # one colour, then another one


def test_a_sentence_comes_back_much_like_it_was(trained: VAETask) -> None:
    texts = trained.text.test
    back = trained.reconstruct(texts)
    first = np.mean([again.split()[:1] == text.split()[:1] for text, again in zip(texts, back, strict=True)])
    assert first > 0.6  # by chance 0.2
    assert trained.reconstruct([]) == []


def test_the_way_from_one_sentence_to_another_begins_and_ends_with_them(trained: VAETask) -> None:
    first, last = trained.text.test[0], trained.text.test[1]
    way = trained.interpolate(first, last, 5)
    assert len(way) == 5
    assert [way[0], way[-1]] == trained.reconstruct([first, last])


def test_what_cannot_be_asked(trained: VAETask, language_model: VAETask) -> None:
    with pytest.raises(MinirnnError, match="nothing to read in ' ': no word and no mark"):
        trained.reconstruct([" "])
    with pytest.raises(MinirnnError, match="nothing to read in ''"):
        trained.interpolate("red red", "", 3)
    with pytest.raises(MinirnnError, match="at least 2 steps, the two ends, not 1"):
        trained.interpolate("red", "blue", 1)
    for verb in (lambda: language_model.reconstruct(["red"]), lambda: language_model.interpolate("red", "blue", 3)):
        with pytest.raises(MinirnnError, match=r"a language model \(latent=0\) has no space of sentences"):
            verb()
    assert language_model.samples(3)[0].keys() == {"sentence", "a sample"}


def test_a_restored_task_says_the_same(trained: VAETask, tmp_path: Path) -> None:
    trained.save_extras(tmp_path)
    again = VAETask.restore(trained.config, DataArguments("no such data are needed"), tmp_path)
    again.model.load_state_dict(trained.model.state_dict())
    texts = ["red red red blue", "white black black"]
    assert again.reconstruct(texts) == trained.reconstruct(texts)


def test_what_is_wrong_with_a_vocabulary_is_said(trained: VAETask, tmp_path: Path) -> None:
    with pytest.raises(MinirnnError, match=r"vocab\.json is missing"):
        VAETask.restore(trained.config, trained.data, tmp_path)
    trained.save_extras(tmp_path)
    file = tmp_path / "vocab.json"
    whole = file.read_text(encoding="utf-8")
    file.write_text(whole[: len(whole) // 2], encoding="utf-8")
    with pytest.raises(MinirnnError, match=r"vocab\.json is damaged"):
        VAETask.restore(trained.config, trained.data, tmp_path)
    stored = json.loads(whole)
    stored["words"].append("six")
    file.write_text(json.dumps(stored), encoding="utf-8")
    with pytest.raises(MinirnnError, match="holds 10 words, the model was made for 9"):
        VAETask.restore(trained.config, trained.data, tmp_path)


def test_settings_out_of_range() -> None:
    for name in ("min_count", "batch_size", "max_length"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            VAETaskConfig(**{name: 0})


def test_pictures_are_drawn(arguments: DataArguments, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures need Matplotlib")
    run = Run(tmp_path / "run", "vae", TINY, dataclasses.replace(OPTIONS, epochs=2), arguments, seed=0)
    task = run.start()
    run.folder.mkdir()
    run.write_start(task)
    Trainer(task, run.training, run=run).fit()
    drawn = task.pictures(run.folder)
    assert [path.name for path in drawn] == ["latent.png", "annealing.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)
    assert all(hint[1] == str(run.folder) for hint in task.hints(run.folder))
    assert "sentences from colours.txt" in task.describe()
