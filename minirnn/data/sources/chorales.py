"""Chorales by J. S. Bach as piano rolls in quarter notes, from the scores that the package music21 brings along.

The scores are MusicXML, and are read as such: music21 itself is never imported. Harmonisations of one tune are on one side of the split.
"""

from __future__ import annotations

import importlib.util
import re
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minirnn.data.kinds import Numbers, Series
from minirnn.data.music import KEYS, LOWEST, key_names
from minirnn.data.sources.source import Source
from minirnn.errors import MinirnnError

VOICES = 4
OPENING = 8  # beats that tell a tune
VALID = TEST = 0.2  # shares of the chorales, about

_SEMITONES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_SCORE = re.compile(r"bwv[\d.]+[a-z]?(-\w+)?\.(mxl|xml)")
_VOICE = re.compile(r"(Soprano|Alto|Tenor|Bass)\b(?! 2)")


class Note(NamedTuple):
    """A note from `start` for `length` quarter notes; `pitch` is its number in MIDI, where 60 is the middle C."""

    start: Fraction
    length: Fraction
    pitch: int


def load(data_dir: str | None = None, seed: int = 0) -> Series:
    """About 400 chorales, split 60 : 20 : 20 by tune with `seed`. `data_dir` is not used. Raises MinirnnError without music21."""
    tunes: dict[tuple[int, ...], list[Numbers]] = {}
    seen = set()
    for path in _scores():
        voices = [notes for notes in read(path) if notes]
        score = tuple(map(tuple, voices))
        if len(voices) == VOICES and score not in seen:
            seen.add(score)
            tunes.setdefault(_tune(voices[0]), []).append(piano_roll(voices))
    groups = list(tunes.values())
    order = np.random.default_rng(seed).permutation(len(groups))
    total = sum(map(len, groups))
    train, valid, test = list[Numbers](), list[Numbers](), list[Numbers]()
    for k in order:
        into = test if len(test) < TEST * total else valid if len(valid) < VALID * total else train
        into.extend(groups[k])
    return Series(
        name="chorales",
        train=train,
        valid=valid,
        test=test,
        observation="binary",
        columns=key_names(),
        attribution="chorales by J. S. Bach (public domain) as encoded for the corpus of music21 (music21.org)",
        note="not the chorales of jsb, nor its split: scores on the two cannot be compared",
    )


def read(path: Path) -> list[list[Note]]:
    """The notes of every part of a score (`.xml`, or zipped as `.mxl`); of more than four parts those that sing. Raises MinirnnError."""
    try:
        root = _root(path)
        names = {part.get("id"): (part.findtext("part-name") or "").strip() for part in root.findall("part-list/score-part")}
        parts = root.findall("part")
        if len(parts) > VOICES:
            parts = [part for part in parts if _VOICE.match(names.get(part.get("id")) or "")]
        return [list(_notes(part)) for part in parts]
    except (OSError, ET.ParseError, zipfile.BadZipFile, StopIteration, KeyError, ValueError, TypeError) as error:
        raise MinirnnError(f"{path}: not a score in MusicXML ({error or type(error).__name__})") from None


def piano_roll(voices: Sequence[Sequence[Note]]) -> Numbers:
    """(T, 88): 1 where a key is held on the beat; one row for each quarter note."""
    frames = int(max(-(-(note.start + note.length) // 1) for notes in voices for note in notes))
    roll = np.zeros((frames, KEYS))
    for notes in voices:
        for start, length, pitch in notes:
            if LOWEST <= pitch < LOWEST + KEYS:
                roll[int(-(-start // 1)) : int(-(-(start + length) // 1)), pitch - LOWEST] = 1
    return roll


def _tune(soprano: Sequence[Note]) -> tuple[int, ...]:
    """The intervals between the highest notes of the first beats, so that neither the key nor a passing note makes another tune."""
    opening = piano_roll([soprano])[:OPENING]
    return tuple(np.diff(KEYS - opening[:, ::-1].argmax(axis=1)).tolist())


def _scores() -> list[Path]:
    """The chorales of the corpus, in the order of their numbers."""
    found = importlib.util.find_spec("music21")
    if found is None or not found.submodule_search_locations:
        raise MinirnnError("chorales come with the package music21: pip install music21; or take jsb, which is a small download")
    folder = Path(found.submodule_search_locations[0]) / "corpus" / "bach"
    scores = [path for path in folder.glob("bwv*") if _SCORE.fullmatch(path.name)]
    if not scores:
        raise MinirnnError(f"there are no chorales in {folder}: this music21 was installed without its corpus; install it again")
    return sorted(scores, key=lambda path: [int(piece) if piece.isdigit() else piece for piece in re.split(r"(\d+)", path.name)])


def _root(path: Path) -> ET.Element:
    if path.suffix != ".mxl":
        return ET.parse(path).getroot()
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith((".xml", ".musicxml")) and not name.startswith("META"))
        return ET.fromstring(archive.read(name))


def _notes(part: ET.Element) -> Iterator[Note]:
    """The notes of a part; grace notes have no length and are left out."""
    unit, now, last = Fraction(1), Fraction(0), Fraction(0)
    for element in part.iterfind("measure/*"):
        if element.tag == "attributes":
            unit = Fraction(1, int(element.findtext("divisions") or unit.denominator))
        elif element.tag in ("backup", "forward"):
            length = int(element.findtext("duration") or 0) * unit
            now += length if element.tag == "forward" else -length
        elif element.tag == "note" and element.find("grace") is None:
            length, together = int(element.findtext("duration") or 0) * unit, element.find("chord") is not None
            start = last if together else now
            pitch = element.find("pitch")
            if pitch is not None:
                yield Note(start, length, _pitch(pitch))
            if not together:
                last, now = now, now + length


def _pitch(element: ET.Element) -> int:
    step, octave = element.findtext("step") or "", int(element.findtext("octave") or "")
    return 12 * (octave + 1) + _SEMITONES[step] + round(float(element.findtext("alter") or 0))


SOURCE = Source(
    name="chorales",
    what="chorales by Bach as piano rolls in quarter notes",
    size="about 400 chorales of 88 keys",
    licence="public domain (the music), BSD (music21)",
    origin="read from the package music21, where it is installed",
    loaders={Series: load},
)
