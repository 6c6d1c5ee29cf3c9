"""The translation task: data in, scores out, and what it keeps in the folder of a run."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from minirnn import MinirnnError
from minirnn.data import words
from minirnn.training import DataArguments, Trainer, TrainingOptions
from minirnn.training.tasks.translation import TranslationConfig, TranslationTask

pytest.importorskip("sacrebleu", reason="translations are scored with sacrebleu")

NUMBERS = {"one": "un", "two": "deux", "three": "trois", "four": "quatre", "five": "cinq"}
TINY = TranslationConfig(embedding=16, encoder_hidden=16, decoder_hidden=32, dropout=0.0, label_smoothing=0.0, batch_size=32)


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> DataArguments:
    rng = np.random.default_rng(0)
    phrases = {" ".join(rng.choice(list(NUMBERS), rng.integers(1, 5))) for _ in range(700)}
    file = tmp_path_factory.mktemp("data") / "numbers.tsv"
    file.write_text("".join(f"{p}\t{' '.join(NUMBERS[w] for w in p.split())}\n" for p in sorted(phrases)), encoding="utf-8")
    return DataArguments(str(file))


@pytest.fixture(scope="module")
def trained(arguments: DataArguments) -> TranslationTask:
    task = TranslationTask.build(TINY, arguments, seed=0)
    Trainer(task, TrainingOptions(lr=1e-2, epochs=10)).fit()
    return task


def test_it_learns_what_it_was_not_shown(trained: TranslationTask) -> None:
    scores = trained.evaluate("test")
    assert scores["exact"] == 100
    assert scores["bleu"] == pytest.approx(100)
    assert scores["brevity_penalty"] == 1


def test_the_scores_are_sacrebleus_on_words(trained: TranslationTask) -> None:
    import sacrebleu

    untrained = TranslationTask.build(TINY, trained.data, seed=1)
    pairs = untrained.text.train[:50]
    for task in (trained, untrained):
        found = task.translator.translate([s for s, _ in pairs])
        hypotheses, references = ([" ".join(words(text)) for text in side] for side in ([t.text for t in found], [t for _, t in pairs]))
        task.text = dataclasses.replace(task.text, valid=pairs)
        scores = task.evaluate("valid")
        assert scores["bleu"] == pytest.approx(sacrebleu.corpus_bleu(hypotheses, [references], tokenize="none", force=True).score)
        assert scores["chrf"] == pytest.approx(sacrebleu.corpus_chrf(hypotheses, [references]).score)
        assert scores["exact"] == 100 * np.mean([h == r for h, r in zip(hypotheses, references, strict=True)])
        assert "tok:none" in scores["signature"]
        assert "chrF2" in scores["signature"] or "nc:6" in scores["signature"]


def test_targets_without_any_word_are_scored_without_a_division_by_zero(trained: TranslationTask) -> None:
    task = TranslationTask.build(TINY, trained.data, seed=0)
    task.text = dataclasses.replace(task.text, valid=[("one two", "\u200b")])
    assert task.evaluate("valid")["exact"] in (0, 100)


def test_without_sacrebleu_nothing_is_begun(arguments: DataArguments, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sacrebleu", "sacrebleu.metrics.bleu", "sacrebleu.metrics.chrf"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MinirnnError, match="scored with the package sacrebleu: pip install"):
        TranslationTask.build(TINY, arguments, seed=0)


def test_perplexity_is_the_exponential_of_the_mean_loss_per_piece(trained: TranslationTask) -> None:
    scores = trained.validate()
    pairs = trained.text.valid
    total = count = 0.0
    for source, target in pairs:  # one by one, by the loss that training minimises
        task_batch = trained.numbers_of([(source, target)])
        trained.model.eval()
        total += trained.model.loss(task_batch).item() * task_batch.tokens
        count += task_batch.tokens
    assert scores["loss"] == pytest.approx(total / count, rel=1e-5)
    assert scores["perplexity"] == pytest.approx(math.exp(total / count), rel=1e-5)


def test_a_restored_task_translates_as_before(trained: TranslationTask, tmp_path: Path) -> None:
    trained.save_extras(tmp_path)
    again = TranslationTask.restore(trained.config, DataArguments("no such data are needed"), tmp_path)
    again.model.load_state_dict(trained.model.state_dict())
    texts = ["one two", "five five four"]
    for beam in (1, 4):
        expected = [t.text for t in trained.translator.translate(texts, beam=beam)]
        assert [t.text for t in again.translator.translate(texts, beam=beam)] == expected


def test_what_is_wrong_with_a_vocabulary_is_said(trained: TranslationTask, tmp_path: Path) -> None:
    with pytest.raises(MinirnnError, match=r"vocab\.json is missing"):
        TranslationTask.restore(trained.config, trained.data, tmp_path)
    trained.save_extras(tmp_path)
    file = tmp_path / "vocab.json"
    whole = file.read_text(encoding="utf-8")
    file.write_text(whole[: len(whole) // 2], encoding="utf-8")
    with pytest.raises(MinirnnError, match=r"vocab\.json is damaged"):
        TranslationTask.restore(trained.config, trained.data, tmp_path)
    stored = json.loads(whole)
    stored["target"]["words"].append("six")
    file.write_text(json.dumps(stored), encoding="utf-8")
    with pytest.raises(MinirnnError, match=r"holds \(9, 10\) pieces, the model was made for \(9, 9\)"):
        TranslationTask.restore(trained.config, trained.data, tmp_path)


def test_every_training_pair_is_in_one_batch_of_an_epoch(trained: TranslationTask) -> None:
    batches = trained.batches(0, np.random.default_rng(0))
    numbers = np.concatenate([b.numbers for b in batches])
    assert sorted(numbers) == list(range(len(trained.text.train)))
    assert sum(map(trained.size, batches)) == sum(len(t.split()) + 1 for _, t in trained.text.train)


def test_bpe_dropout_cuts_by_the_seed_of_the_batch(arguments: DataArguments) -> None:
    pytest.importorskip("sentencepiece", reason="subwords need sentencepiece")
    config = dataclasses.replace(TINY, vocabulary="subwords", subwords=40, bpe_dropout=0.5)
    task = TranslationTask.build(config, arguments, seed=0)
    first, second = task.batches(0, np.random.default_rng(0))[:2]
    once, twice = task.numbers(first), task.numbers(first)
    assert all(map(np.array_equal, once.source, twice.source))
    assert all(map(np.array_equal, once.target, twice.target))
    other = task.numbers(dataclasses.replace(first, seed=second.seed))
    assert not all(map(np.array_equal, once.source, other.source))
    source = task.translator.source
    assert [source.decode(ids) for ids in once.source] == [source.decode(ids) for ids in other.source]


def test_options_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ValueError, match="bpe_dropout cuts words in different ways and needs vocabulary=subwords"):
        dataclasses.replace(TINY, bpe_dropout=0.1)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        dataclasses.replace(TINY, batch_size=0)
