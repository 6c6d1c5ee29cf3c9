"""Pictures of a captioner: what it says of pictures, and where it looked for each word."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minirnn.device import Array
from minirnn.training.pictures import figure, save

ACROSS = 4  # pictures side by side
LINE = 34  # letters of a caption on a line


class Judged(NamedTuple):
    """A picture (3, S, S), what the model says of it, what may be said of it, and whether that agrees."""

    image: Array
    caption: str
    reference: str
    right: bool


def sheet(examples: Sequence[Judged], credit: str, path: Path) -> Path:
    """A contact sheet: above each picture the caption, green where it agrees with a reference; where not, red, and the reference below."""
    rows = math.ceil(len(examples) / ACROSS)
    picture = figure(2.6 * ACROSS, 3.3 * rows + 0.4)
    every = np.ravel(picture.subplots(rows, ACROSS, squeeze=False))
    for axes in every[len(examples) :]:
        axes.axis("off")
    for axes, example in zip(every, examples, strict=False):
        axes.imshow(example.image.transpose(1, 2, 0))
        axes.set(xticks=[], yticks=[])
        mark, colour = ("✓", "tab:green") if example.right else ("✗", "tab:red")
        axes.set_title(textwrap.fill(f"{mark} {example.caption}", LINE), color=colour, fontsize=8)
        if not example.right:
            axes.set_xlabel(textwrap.fill(f"({example.reference})", LINE), color="0.3", fontsize=8)
    picture.supxlabel(credit, fontsize=7, color="0.4")
    return save(picture, path)


def looks(image: Array, words: Sequence[str], attention: Array, path: Path) -> Path:
    """The picture (3, S, S) once for each word, lit where the word looked: `attention` (L, h, w), each map relative to its own maximum."""
    count = len(words) + 1
    rows = math.ceil(count / ACROSS)
    picture = figure(1.9 * ACROSS, 2.1 * rows)
    every = np.ravel(picture.subplots(rows, ACROSS, squeeze=False))
    for axes in every:
        axes.axis("off")
    pixels, side = image.transpose(1, 2, 0), image.shape[1]
    every[0].imshow(pixels)
    every[0].set_title("the picture", fontsize=9)
    for axes, word, map_ in zip(every[1:], words, attention, strict=False):
        axes.imshow(pixels, extent=(0, side, side, 0))
        shade = 1 - map_ / max(float(map_.max()), 1e-9)  # (h, w) opaque where the word did not look
        veil = np.zeros((*shade.shape, 4))
        veil[..., 3] = 0.8 * shade
        axes.imshow(veil, extent=(0, side, side, 0), interpolation="bilinear")
        axes.set_title(word, fontsize=9)
    return save(picture, path)
