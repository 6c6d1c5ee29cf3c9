"""The captioner's task: scores on captions with planted errors, baselines by brute force, and a problem learnt from data."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from minirnn import MinirnnError
from minirnn.data import images
from minirnn.data.kinds import CaptionedPictures
from minirnn.training import DataArguments, Trainer, TrainingOptions
from minirnn.training.caption_scores import agrees, majority, nearest, object_pair, slot_scores, text_scores
from minirnn.training.tasks import captioner
from minirnn.training.tasks.captioner import CaptionerTask, CaptioningConfig

pytest.importorskip("sacrebleu", reason="captions are scored with sacrebleu")

COLOURS = {"red": [0], "green": [1], "blue": [2], "white": [0, 1, 2]}
SIDES = {"left": 1, "right": 9}
TINY = CaptioningConfig(channels=8, grid_features=16, embedding=8, hidden=32, batch_size=16)
FAST = TrainingOptions(lr=5e-3, epochs=8)


class Squares:
    """16 x 16 pictures of one square on the left or the right: "a red square on the left", or "on the left a red square"."""

    def __init__(self, seed: int, length: int) -> None:
        self.seed, self.length = seed, length

    def __len__(self) -> int:
        return self.length

    def _facts(self, number: int) -> tuple[str, str, np.random.Generator]:
        rng = np.random.default_rng([self.seed, number])
        return str(rng.choice(list(COLOURS))), str(rng.choice(list(SIDES))), rng

    def images(self, numbers: Sequence[int] | NDArray[np.int64]) -> NDArray[np.uint8]:
        drawn = []
        for number in numbers:
            colour, side, rng = self._facts(int(number))
            image = rng.integers(0, 30, (3, 16, 16), np.uint8)
            top, left = 4 + rng.integers(0, 4), SIDES[side] + rng.integers(0, 2)
            image[COLOURS[colour], top : top + 5, left : left + 5] = 220
            drawn.append(image)
        return np.array(drawn)

    def captions(self, number: int) -> tuple[str, ...]:
        colour, side, _ = self._facts(number)
        return f"a {colour} square on the {side}", f"on the {side} a {colour} square"


def slots(caption: str) -> dict[str, str]:
    words = caption.split()
    return {name: word for name, known in (("object", COLOURS), ("place", SIDES)) for word in words if word in known}


@pytest.fixture(autouse=True)
def squares(monkeypatch: pytest.MonkeyPatch) -> CaptionedPictures:
    """The data set that every source is."""
    found = CaptionedPictures("squares", Squares(0, 400), Squares(1, 40), Squares(2, 60), "drawn here", slots=slots)
    monkeypatch.setattr(captioner.minirnn_data, "source", lambda *_, **__: found)
    return found


@pytest.fixture(scope="module")
def trained() -> CaptionerTask:
    with pytest.MonkeyPatch.context() as patch:
        found = CaptionedPictures("squares", Squares(0, 400), Squares(1, 40), Squares(2, 60), "drawn here", slots=slots)
        patch.setattr(captioner.minirnn_data, "source", lambda *_, **__: found)
        task = CaptionerTask.build(TINY, DataArguments("squares"), seed=0)
        Trainer(task, FAST).fit()
        return task


def test_it_is_far_better_than_the_baselines(trained: CaptionerTask) -> None:
    scores = trained.evaluate("test")
    baselines = scores["baselines"]
    error = 100 * np.sqrt(1 / 8 * 7 / 8 / 60)
    assert scores["exact"] > 90 > 100 / 8 + 10 * error
    assert scores["slots"]["objects"] > 90
    assert scores["slots"]["place"] > 90
    assert baselines["majority caption"]["exact"] < 100 / 8 + 4 * error
    assert baselines["shuffled pictures"]["exact"] < 100 / 8 + 4 * error
    assert scores["bleu4"] > baselines["majority caption"]["bleu4"]
    assert json.loads(json.dumps(scores)) == scores


def test_beam_search_is_an_option_of_the_evaluation(trained: CaptionerTask) -> None:
    scores = trained.evaluate("valid", beam=3, length_penalty=0.5)
    assert (scores["beam"], scores["length_penalty"], scores["pictures"]) == (3, 0.5, 40)
    assert scores["exact"] > 90


def test_validation_gives_the_metric_and_draws_nothing(trained: CaptionerTask) -> None:
    scores = trained.validate()
    assert scores == trained.validate()
    assert {"bleu4", "loss", "exact", "objects"} <= scores.keys()


REFERENCES = [
    ("a red square on the left", "on the left a red square"),
    ("a blue square on the right", "on the right a blue square"),
    ("a white square on the left", "on the left a white square"),
    ("a green square on the right", "on the right a green square"),
]


def test_planted_errors_are_found() -> None:
    captions = [r[k % 2] for k, r in enumerate(REFERENCES)]
    perfect = text_scores(captions, REFERENCES)
    assert perfect == pytest.approx({"bleu1": 100, "bleu2": 100, "bleu3": 100, "bleu4": 100, "exact": 100})
    assert slot_scores(captions, REFERENCES, slots) == {"objects": 100, "object": 100, "place": 100}
    captions[1] = "on the left a blue square"
    assert text_scores(captions, REFERENCES)["exact"] == 75
    assert text_scores(captions, REFERENCES)["bleu1"] == pytest.approx(100 * 23 / 24)
    assert slot_scores(captions, REFERENCES, slots) == {"objects": 100, "object": 100, "place": 75}
    captions[2] = "a square on the left"
    assert text_scores(captions, REFERENCES)["exact"] == 50
    assert slot_scores(captions, REFERENCES, slots) == {"objects": 75, "object": 75, "place": 75}


def test_a_caption_is_held_against_the_reference_that_it_is_closest_to() -> None:
    def parse(caption: str) -> dict[str, str]:
        words = caption.split()
        return {"object": words[0], "relation": words[1], "other object": words[2]}

    references = [("cat above dog", "dog below cat")]
    expected = {"objects": 100.0, "object": 100.0, "relation": 100.0, "other object": 100.0}
    assert slot_scores(["dog below cat"], references, parse) == expected
    assert slot_scores(["dog above cat"], references, parse) == {**expected, "relation": 0.0}
    assert slot_scores(["cat above cow"], references, parse) == {**expected, "objects": 50.0, "other object": 0.0}
    assert object_pair("dog above cat", parse) == object_pair("cat below dog", parse) == {"cat", "dog"}
    assert object_pair("a red square", slots) is None


def test_bleu_is_sacrebleus_with_as_many_references_as_each_picture_has() -> None:
    import sacrebleu

    captions = ["a red square on the right", "a blue square", "the left"]
    references = [REFERENCES[0], REFERENCES[1][:1], REFERENCES[2]]
    spread = [[r[0] for r in references], [references[0][1], references[2][1]]]
    spread[1].insert(1, references[1][0])  # the same reference twice changes nothing
    assert text_scores(captions, references)["bleu4"] == pytest.approx(sacrebleu.corpus_bleu(captions, spread, tokenize="none").score)


def test_case_and_spaces_make_no_difference_to_a_match() -> None:
    assert agrees("A  red square on the left", REFERENCES[0])
    assert not agrees("a red square on the left side", REFERENCES[0])


def test_the_nearest_picture_is_the_one_that_brute_force_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    import minirnn.training.caption_scores as scores

    monkeypatch.setattr(scores, "CHUNK", 7)
    train, test = Squares(0, 30), Squares(2, 9).images(range(9))
    known = train.images(range(30)).astype(np.int64)
    for count in (1, 7, 30):
        distances = [[int(((image.astype(np.int64) - other) ** 2).sum()) for other in known[:count]] for image in test]
        assert nearest(test, train, count) == np.argmin(distances, axis=1).tolist()


def test_the_majority_caption_is_the_most_frequent_of_all_references() -> None:
    class Said(Squares):
        def captions(self, number: int) -> tuple[str, ...]:
            return [("one", "two"), ("two",), ("three", "one"), ("two", "three")][number]

    assert majority(Said(0, 4)) == "two"


def test_shuffled_pictures_are_other_pictures(trained: CaptionerTask, squares: CaptionedPictures) -> None:
    seen: list[list[str]] = []
    real = trained._scores
    trained._scores = lambda captions, references: (seen.append(list(captions)), real(captions, references))[1]  # type: ignore[method-assign,func-returns-value]
    try:
        trained._baselines(squares.test, [str(k) for k in range(60)], [(str(k),) for k in range(60)])
    finally:
        del trained._scores
    *_, shuffled = seen
    assert sorted(shuffled, key=int) == [str(k) for k in range(60)]
    assert all(caption != str(k) for k, caption in enumerate(shuffled))


def test_pairs_that_training_never_shows_are_scored_apart(trained: CaptionerTask, squares: CaptionedPictures) -> None:
    def parse(caption: str) -> dict[str, str]:
        return dict(zip(("object", "other object"), caption.split(), strict=False))

    class Said(Squares):
        def captions(self, number: int) -> tuple[str, ...]:
            return [("cat dog",), ("dog cow",), ("cow",)][number % 3]

    task = CaptionerTask(trained.config, trained.data, trained.model, trained.vocabulary)
    task.pairs = dataclasses.replace(squares, train=Said(0, 2), slots=parse)
    found = task._by_pairs(["cat cow", "cow dog", "cow", "cow cat"], [("cat cow",), ("dog cow",), ("cow",), ("cat cow",)])
    assert found["unseen pairs"] == {"pictures": 2, "objects": 50.0, "exact": 50.0}
    assert found["all others"] == {"pictures": 2, "objects": pytest.approx(100 / 3), "exact": 50.0}


def test_every_training_picture_is_in_one_batch_of_an_epoch(trained: CaptionerTask) -> None:
    batches = trained.batches(3, np.random.default_rng(0))
    assert sorted(np.concatenate([b.numbers for b in batches])) == list(range(400))
    assert sum(map(trained.size, batches)) == 400


def test_where_pictures_have_no_end_no_epoch_repeats_one(trained: CaptionerTask, squares: CaptionedPictures) -> None:
    task = CaptionerTask(trained.config, trained.data, trained.model, trained.vocabulary)
    task.pairs = dataclasses.replace(squares, endless=True)
    numbers = np.concatenate([b.numbers for epoch in (0, 1, 2) for b in task.batches(epoch, np.random.default_rng(epoch))])
    assert sorted(numbers) == list(range(1200))


def test_a_batch_draws_among_the_references_by_its_seed(trained: CaptionerTask) -> None:
    batch = trained.batches(0, np.random.default_rng(0))[0]
    decode = trained.vocabulary.decode
    once, again = ([decode(c) for c in trained.numbers(batch).captions] for _ in range(2))
    assert once == again
    other = [decode(c) for c in trained.numbers(dataclasses.replace(batch, seed=batch.seed + 1)).captions]
    assert once != other
    for k, caption, changed in zip(batch.numbers, once, other, strict=True):
        assert {caption, changed} <= set(Squares(0, 400).captions(int(k)))


def test_of_two_objects_the_one_on_the_left_or_on_top_is_taught_first(trained: CaptionerTask, squares: CaptionedPictures) -> None:
    def parse(caption: str) -> dict[str, str]:
        found = [relation for relation in ("to the left of", "to the right of", "above", "below") if relation in caption]
        return {"relation": found[0]} if found else {}

    def taught(*captions: str, **changes: Any) -> list[str]:
        task = CaptionerTask(dataclasses.replace(trained.config, **changes), trained.data, trained.model, trained.vocabulary)
        task.pairs = dataclasses.replace(squares, slots=parse)
        return list(task._taught(captions))

    both = ("a cat to the right of a dog", "a dog to the left of a cat")
    assert taught(*both) == ["a dog to the left of a cat"]
    assert taught("a cat above a dog", "a dog below a cat") == ["a cat above a dog"]
    assert taught("three cats", "cats") == ["three cats", "cats"]
    assert taught(*both, reading_order=False) == list(both)


def test_a_restored_task_says_the_same(trained: CaptionerTask, tmp_path: Path) -> None:
    trained.save_extras(tmp_path)
    again = CaptionerTask.restore(trained.config, DataArguments("no such data are needed"), tmp_path)
    again.model.load_state_dict(trained.model.state_dict())
    pictures = Squares(2, 4).images(range(4))
    for options in ({}, {"beam": 3}):
        assert [c.text for c in again.say(pictures, **options)] == [c.text for c in trained.say(pictures, **options)]


def test_a_stopped_training_goes_on_as_if_it_had_not_stopped() -> None:
    def begun() -> CaptionerTask:
        return CaptionerTask.build(dataclasses.replace(TINY, dropout=0.3), DataArguments("squares"), seed=0)

    whole = begun()
    Trainer(whole, TrainingOptions(epochs=2)).fit()
    first = begun()
    half = Trainer(first, TrainingOptions(epochs=1))
    state = half.fit().state
    state.random, optimizer = half._random(), half.optimizer.state_dict()
    state.optimizer = optimizer["scalars"]
    second = begun()
    second.model.load_state_dict(first.model.state_dict())
    resumed = Trainer(second, TrainingOptions(epochs=2))
    resumed.load({f"optimizer/{name}": array for name, array in optimizer["arrays"].items()}, state, [])
    resumed.fit()
    for name, array in whole.model.state_dict().items():
        np.testing.assert_array_equal(second.model.state_dict()[name], array, err_msg=name)


def test_picture_files_of_any_size_are_captioned(trained: CaptionerTask, tmp_path: Path) -> None:
    pytest.importorskip("PIL", reason="pictures are read with Pillow")
    small = Squares(2, 2).images([0])[0]
    images.write(tmp_path / "small.png", small)
    images.write(tmp_path / "large.png", small.repeat(4, axis=1).repeat(4, axis=2))
    found = trained.caption([tmp_path / "small.png", tmp_path / "large.png"], beam=2)
    assert [c.text in Squares(2, 2).captions(0) for c in found] == [True, True]
    assert found[0].attention is not None
    assert len(found[0].attention) == len(found[0].words) + 1
    np.testing.assert_array_equal(found[0].image, small)
    (tmp_path / "notes.png").write_text("no picture")
    with pytest.raises(MinirnnError, match=r"notes\.png: not a picture"):
        trained.caption([tmp_path / "notes.png"])


def test_what_it_says_and_where_it_looks_is_drawn(trained: CaptionerTask, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pictures are drawn with Matplotlib")
    assert trained.hints(tmp_path) == []
    drawn = trained.pictures(tmp_path)
    assert [path.name for path in drawn] == ["samples.png", "looks.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in [*drawn, tmp_path / "picture.png"])
    assert trained.hints(tmp_path)[0] == ["caption", str(tmp_path), str(tmp_path / "picture.png")]


def test_samples_show_what_was_said_and_what_may_be_said(trained: CaptionerTask) -> None:
    rows = trained.samples(5)
    assert len(rows) == 5
    for row in rows:
        references = Squares(2, 60).captions(int(row["picture"].split()[1]))
        assert row["reference"] in references
        assert (row["caption"] in references) == (row[""] == "right")


def test_what_is_wrong_with_a_vocabulary_is_said(trained: CaptionerTask, tmp_path: Path) -> None:
    with pytest.raises(MinirnnError, match=r"vocab\.json is missing"):
        CaptionerTask.restore(trained.config, trained.data, tmp_path)
    trained.save_extras(tmp_path)
    file = tmp_path / "vocab.json"
    whole: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    file.write_text("{", encoding="utf-8")
    with pytest.raises(MinirnnError, match=r"vocab\.json is damaged"):
        CaptionerTask.restore(trained.config, trained.data, tmp_path)
    whole["words"]["words"].append("six")
    file.write_text(json.dumps(whole), encoding="utf-8")
    with pytest.raises(MinirnnError, match=r"pieces, the model was made for \d+; it belongs to another run"):
        CaptionerTask.restore(trained.config, trained.data, tmp_path)


def test_without_sacrebleu_nothing_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics.bleu", None)
    with pytest.raises(MinirnnError, match="scored with the package sacrebleu: pip install"):
        CaptionerTask.build(TINY, DataArguments("squares"), seed=0)


def test_a_batch_without_pictures_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        dataclasses.replace(TINY, batch_size=0)
