"""What each task makes of an example that is to be looked into: labels, special marks, unknown words, losses; and what it refuses."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minirnn.data import TranslationBatch, images, music
from minirnn.data.kinds import CaptionedPictures, Series
from minirnn.data.sources import series as csv
from minirnn.errors import MinirnnError
from minirnn.models import CaptionBatch
from minirnn.study.examine import examine
from minirnn.study.example import Example
from minirnn.training import DataArguments
from minirnn.training.tasks import captioner, ssm
from minirnn.training.tasks.captioner import CaptionerTask, CaptioningConfig
from minirnn.training.tasks.kalman import KalmanConfig, KalmanTask
from minirnn.training.tasks.ssm import SSMTask, SSMTaskConfig
from minirnn.training.tasks.translation import TranslationConfig, TranslationTask
from minirnn.training.tasks.vae import VAETask, VAETaskConfig
from minirnn.training.verbs import Question

NUMBERS = {"one": "un", "two": "deux", "three": "trois", "four": "quatre", "five": "cinq"}


def ask(task: Any, **asked: Any) -> Example:
    task.model.eval()
    return examine(task.study(Question(**asked)), "runs/x")


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory) -> TranslationTask:
    pytest.importorskip("sacrebleu", reason="translations are scored with sacrebleu")
    file = tmp_path_factory.mktemp("data") / "numbers.tsv"
    pairs = [(f"{a} and {b}", f"{NUMBERS[a]} et {NUMBERS[b]}") for a in NUMBERS for b in NUMBERS]
    file.write_text("".join(f"{s}\t{t}\n" for s, t in pairs), encoding="utf-8")
    config = TranslationConfig(embedding=8, encoder_hidden=6, decoder_hidden=8, label_smoothing=0.1, min_count=1)
    return TranslationTask.build(config, DataArguments(str(file)), seed=0)


def test_a_translation_that_is_given(translator: TranslationTask) -> None:
    example = ask(translator, given="Two and zebras", target="deux et trois")
    source, before = example.inputs
    assert source.labels == ["two", "and", "zebras <unk>"]
    assert before.labels == ["<bos>", "deux", "et", "trois"]
    assert example.outputs.labels == ["deux", "et", "trois", "<eos>"]
    assert [(layer.name, layer.axis) for layer in example.layers] == [
        ("encoder.l0", "source"),
        ("encoder.l0_reverse", "source"),
        ("decoder.l0", "translation"),
    ]
    assert example.text == "Two and zebras → deux et trois"
    assert example.note == ""
    batch = translator.numbers_of([("two and zebras", "deux et trois")])
    assert example.outputs.losses.sum() == pytest.approx(-translator.model.log_likelihood(batch)[0], rel=1e-5)  # float32
    assert example.attention[0].weights.shape == (4, 3)


def test_a_translation_of_the_models_own(translator: TranslationTask) -> None:
    example = ask(translator, given="five")
    (found,) = translator.model.translate([translator.translator.source.encode("five")])
    spoken = [translator.translator.target.piece(k) for k in found.tokens]
    assert example.inputs[0].labels == ["five"]
    assert example.outputs.labels == [*spoken, "<eos>"]
    assert list(example.outputs.predicted[: len(spoken)]) == spoken  # which were the most probable ones
    assert example.note == "The words are the model's own" + ("." if found.finished else ", broken off where they did not end.")


def test_a_pair_of_the_data(translator: TranslationTask) -> None:
    source, target = translator.text.valid[0]
    example = ask(translator, split="valid", index=0)
    assert example.text == f"{source} → {target}"
    batch = TranslationBatch(*([side.encode(t)] for side, t in zip(_vocabularies(translator), (source, target), strict=True)))
    assert example.outputs.losses.sum() == pytest.approx(-translator.model.log_likelihood(batch)[0], rel=1e-5)
    assert ask(translator, split="valid", index=0, target="un").outputs.labels == ["un", "<eos>"]


def _vocabularies(translator: TranslationTask) -> tuple[Any, Any]:
    return translator.translator.source, translator.translator.target


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"given": "\u200b"}, "the input: there is nothing to read in '\\u200b': no word and no mark"),
        ({"given": "one", "target": "\u200b"}, "the target: there is nothing to read in"),
        ({"given": "one " * 7, "steps": 6}, "the input has 7 words, and a page takes 6: shorten it, or say --steps 7"),
        ({"split": "test", "index": 1000}, "pairs, numbered from 0: there is no number 1000"),
    ],
)
def test_what_cannot_be_translated(translator: TranslationTask, asked: dict[str, Any], words: str) -> None:
    with pytest.raises(MinirnnError) as caught:
        ask(translator, **asked)
    assert words in str(caught.value)


class Squares:
    """16 x 16 pictures of noise, of a red or a blue kind."""

    def __len__(self) -> int:
        return 40

    def images(self, numbers: Any) -> Any:
        return np.stack([np.random.default_rng(int(k)).integers(0, 256, (3, 16, 16), np.uint8) for k in numbers])

    def captions(self, number: int) -> Sequence[str]:
        return [f"a {'red' if number % 2 else 'blue'} square"]


@pytest.fixture(scope="module")
def describer() -> Any:
    pytest.importorskip("sacrebleu", reason="captions are scored with sacrebleu")
    found = CaptionedPictures("squares", Squares(), Squares(), Squares(), "drawn here")  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(captioner.minirnn_data, "source", lambda *_, **__: found)
        config = CaptioningConfig(channels=4, grid_features=6, embedding=5, hidden=8)
        return CaptionerTask.build(config, DataArguments("squares"), seed=0)


def test_a_picture(describer: CaptionerTask, tmp_path: Path) -> None:
    pytest.importorskip("PIL", reason="pictures are read with Pillow")
    image = Squares().images([3])[0]
    images.write(tmp_path / "x.png", image)
    example = ask(describer, given=str(tmp_path / "x.png"), target="a green square")
    picture, before = example.inputs
    side = describer.model.encoder.side
    assert picture.grid == (side, side)
    np.testing.assert_array_equal(picture.image, image)
    assert picture.labels[side] == "row 2, column 1"
    assert before.labels == ["<bos>", "a", "green <unk>", "square"]
    assert example.outputs.labels == ["a", "green <unk>", "square", "<eos>"]
    batch = CaptionBatch(image[None], [describer.vocabulary.encode("a green square")])
    assert example.outputs.losses.sum() == pytest.approx(-describer.model.log_likelihood(batch)[0], rel=1e-5)
    assert example.attention[0].weights.shape == (4, side * side)
    assert (example.influence["picture"] > 0).all()


def test_a_picture_of_the_data(describer: CaptionerTask) -> None:
    example = ask(describer, split="valid", index=5)
    assert example.outputs.labels == ["a", "red", "square", "<eos>"]
    assert example.text == "valid picture 5: a red square"
    np.testing.assert_array_equal(example.inputs[0].image, Squares().images([5])[0])
    with pytest.raises(MinirnnError, match="the test split has 40 pictures, numbered from 0: there is no number 40"):
        ask(describer, index=40)
    with pytest.raises(MinirnnError, match=r"nowhere\.png: no such file"):
        ask(describer, given="nowhere.png")


def test_a_picture_the_model_speaks_of(describer: CaptionerTask, tmp_path: Path) -> None:
    pytest.importorskip("PIL", reason="pictures are read with Pillow")
    images.write(tmp_path / "x.png", Squares().images([3])[0])
    example = ask(describer, given=str(tmp_path / "x.png"))
    said = describer.caption([tmp_path / "x.png"])[0]
    assert example.outputs.labels == [*said.words, "<eos>"]
    assert example.note.startswith("The words are the model's own")


@pytest.mark.parametrize("latent", [0, 3])
def test_a_sentence(latent: int, tmp_path: Path) -> None:
    file = tmp_path / "sentences.txt"
    lines = [f"{a} and {b} make {c}" for a in NUMBERS for b in NUMBERS for c in NUMBERS]
    file.write_text("\n".join(lines), encoding="utf-8")
    config = VAETaskConfig(embedding=6, encoder_hidden=5, decoder_hidden=7, latent=latent, min_count=1)
    task = VAETask.build(config, DataArguments(str(file)), seed=0)
    example = ask(task, given="One or two", seed=4)
    labels = ["one", "or <unk>", "two"]
    assert example.inputs[-1].labels == ["<bos>", *labels]
    ids = task.vocabulary.encode("one or two")
    if latent:
        assert example.inputs[0].labels == [*labels, "<eos>"]
        assert example.outputs.labels == [*labels, "<eos>", "KL"]
        assert example.outputs.predicted[-1] == ""
        assert [(layer.name, layer.axis) for layer in example.layers] == [("encoder.l0", "sentence"), ("decoder.l0", "words before")]
        assert example.outputs.losses.sum() == pytest.approx(-task.model.elbo([ids], rng=4).bound[0], rel=1e-5)
        assert "KL" in example.note
    else:
        assert example.outputs.labels == [*labels, "<eos>"]
        assert [(layer.name, layer.axis) for layer in example.layers] == [("decoder.l0", "sentence")]
        assert example.outputs.losses.sum() == pytest.approx(-task.model.log_likelihood([ids])[0], rel=1e-5)
    assert ask(task, given="one").inputs[-1].labels == ["<bos>", "one"]
    assert ask(task, index=1).text == task.text.test[1]
    with pytest.raises(MinirnnError, match="--target is for models that say something of an input; vae is given all there is by --input"):
        ask(task, given="one", target="two")


@pytest.fixture(scope="module")
def swings(tmp_path_factory: pytest.TempPathFactory) -> DataArguments:
    path, rng = tmp_path_factory.mktemp("data") / "swings.csv", np.random.default_rng(0)
    csv.write(path, ("high", "low"), [1000 + 300 * rng.standard_normal((12, 2)) for _ in range(12)])
    return DataArguments(str(path))


TINY = SSMTaskConfig(latent=3, hidden=6, encoder_hidden=5, combiner=4, emission_hidden=4)
LAYERS: dict[str, dict[str, tuple[str, bool]]] = {
    "lstm": {"lstm.l0": ("expected", False)},
    "srnn": {"past.l0": ("expected", False), "encoder.l0": ("expected", True)},
    "smoothing": {"encoder.l0": ("expected", True), "transition": ("expected", False)},
    "filtering": {"encoder.l0": ("expected", False), "transition": ("expected", False)},
}


@pytest.mark.parametrize("model", LAYERS)
def test_a_series(model: Any, swings: DataArguments, tmp_path: Path) -> None:
    kind = {"model": model} if model in ("lstm", "srnn") else {"model": "ssm", "posterior": model}
    task = SSMTask.build(dataclasses.replace(TINY, **kind), swings, seed=0)
    example = ask(task, index=1, seed=2)
    (axis,) = example.inputs
    x = task.series.test[1]
    np.testing.assert_array_equal(axis.values, x)
    assert axis.labels == example.outputs.labels == [str(t) for t in range(12)]
    assert {layer.name: (layer.axis, layer.reverse) for layer in example.layers} == LAYERS[model]
    exact = task.model.log_likelihood([task.form.scaling.apply(x)], rng=2)[0] - task.form.scaling.log_jacobian(x)
    assert example.outputs.losses.sum() == pytest.approx(-exact, rel=1e-5)
    assert example.outputs.predicted == []
    if model == "lstm":
        np.testing.assert_allclose(
            axis.expected, task.form.scaling.undo(task.model.filter(task.form.scaling.apply(x)).observation), rtol=1e-6
        )
    path = csv.write(tmp_path / "mine.csv", ("low", "high"), [x[:, ::-1]])
    short = ask(task, given=str(path), steps=5)
    assert short.inputs[0].labels == ["7", "8", "9", "10", "11"]
    np.testing.assert_array_equal(short.inputs[0].values, x[-5:])
    assert "the last 5 of 12 frames" in short.note
    with pytest.raises(MinirnnError, match=r"nowhere\.csv"):
        ask(task, given="nowhere.csv")


def test_music(tmp_path: Path) -> None:
    roll = np.zeros((6, 88))
    roll[:4, [39, 43]] = roll[4, 40] = 1  # a third, one note, and nothing
    found = Series("rolls", [roll] * 3, [roll], [roll], "binary", music.key_names(), "made here")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssm.minirnn_data, "source", lambda *_, **__: found)
        task = SSMTask.build(dataclasses.replace(TINY, model="lstm"), DataArguments("rolls"), seed=0)
    example = ask(task)
    assert example.inputs[0].labels == [str(t) for t in range(6)]
    assert example.outputs.labels == ["C4 E4"] * 4 + ["C#4", "(silence)"]
    assert len(example.outputs.predicted) == 6
    assert ((example.inputs[0].expected > 0) & (example.inputs[0].expected < 1)).all()


def test_what_is_missing_in_a_series_stays_missing(swings: DataArguments, tmp_path: Path) -> None:
    task = SSMTask.build(dataclasses.replace(TINY, missing=True), swings, seed=0)
    x = task.series.test[0].copy()
    x[3], x[5, 0] = np.nan, np.nan
    example = ask(task, given=str(csv.write(tmp_path / "mine.csv", ("high", "low"), [x])))
    np.testing.assert_array_equal(example.inputs[0].values, x)
    assert np.isfinite(example.outputs.losses).all()


def test_kalman_names_what_to_use_instead(swings: DataArguments) -> None:
    task = KalmanTask.build(KalmanConfig(), swings, seed=0)
    with pytest.raises(MinirnnError, match=f"no recurrent layer .*: minirnn train ssm --data {swings.source}"):
        ask(task)
