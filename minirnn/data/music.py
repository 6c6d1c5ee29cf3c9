"""Piano rolls as files: MIDI, which can be read back, and sound.

A piano roll is (T, 88), 1 where a key is held; its column 0 is the lowest A of a piano, MIDI's note 21. A key that is held over successive
frames is one note: whether it was struck again, a roll does not say.
"""

from __future__ import annotations

import io
import os
import struct
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minirnn.errors import MinirnnError
from minirnn.files import write_atomically

KEYS, LOWEST = 88, 21  # the keys of a piano, and MIDI's number of the first
TICKS = 480  # of MIDI in a quarter note
TEMPO = 90.0  # quarter notes in a minute
RATE = 22_050  # samples of sound in a second
PARTIALS = 6  # sines in a tone; those that the rate cannot carry are left out
ATTACK, DECAY, RELEASE = 0.015, 0.8, 0.12  # seconds
LOUDEST = 0.9  # of what a sample can hold


class Note(NamedTuple):
    """A key (0 to 87) that is held from frame `start` up to, and not in, frame `end`."""

    start: int
    end: int
    key: int


def key_names() -> tuple[str, ...]:
    """The keys of a piano: A0, A#0, B0, C1, ..., C8."""
    names = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
    return tuple(f"{names[note % 12]}{note // 12 - 1}" for note in range(LOWEST, LOWEST + KEYS))


def frequency(key: int) -> float:
    """Of a key, in hertz, in equal temperament with A4 (key 48) at 440."""
    return float(440.0 * 2.0 ** ((key - 48) / 12))


def notes(roll: ArrayLike) -> list[Note]:
    """The notes of a piano roll, by their start and then by their key."""
    held = _checked(roll).astype(np.int8)
    edges = np.diff(held, axis=0, prepend=0, append=0).T  # (88, T + 1): 1 where a note starts, -1 where it has ended
    keys, starts = np.nonzero(edges == 1)
    _, ends = np.nonzero(edges == -1)  # in the same order, since on each key starts and ends take turns
    return sorted(Note(int(start), int(end), int(key)) for start, end, key in zip(starts, ends, keys, strict=True))


def write_midi(roll: ArrayLike, path: str | os.PathLike[str], frames_per_quarter: int = 1, tempo: float = TEMPO) -> Path:
    """A piano roll as a MIDI file of format 0, for a piano; the path."""
    unit = _unit(frames_per_quarter)
    events = [(note.start * unit, 1, bytes((0x90, LOWEST + note.key, 80))) for note in notes(roll)]
    events += [(note.end * unit, 0, bytes((0x80, LOWEST + note.key, 0))) for note in notes(roll)]
    track = b"\0\xff\x51\x03" + round(60e6 / tempo).to_bytes(3, "big") + b"\0\xc0\0"  # microseconds in a quarter note; the piano
    now = 0
    for tick, _, message in sorted(events):  # what ends at a tick ends before anything starts
        track += _variable(tick - now) + message
        now = tick
    track += _variable(len(_checked(roll)) * unit - now) + b"\xff\x2f\0"
    header = b"MThd" + struct.pack(">IHHH", 6, 0, 1, TICKS)
    write_atomically(path, header + b"MTrk" + struct.pack(">I", len(track)) + track)
    return Path(path)


def read_midi(path: str | os.PathLike[str], frames_per_quarter: int = 1) -> NDArray[np.uint8]:
    """The piano roll of a MIDI file of format 0 or 1: all channels but the drums, every note for one frame at the least.

    Raises MinirnnError for what is no such file.
    """
    try:
        data = Path(path).read_bytes()
        tag, size, form, _, division = struct.unpack_from(">4sIHHH", data)
        if tag != b"MThd" or form > 1 or division >= 0x8000:
            raise ValueError("expected a file of format 0 or 1 that counts ticks in a quarter note")
        tracks = list(_tracks(data[8 + size :]))
        ends = [0.0]
        found = []
        for track in tracks:
            started: dict[tuple[int, int], int] = {}
            for tick, channel, pitch, loud in _messages(track):
                ends.append(tick)
                if loud >= 0 and (channel, pitch) in started:
                    found.append((started.pop((channel, pitch)), tick, pitch))
                if loud > 0 and channel != 9:
                    started[channel, pitch] = tick
            found += [(start, int(ends[-1]), pitch) for (_, pitch), start in started.items()]  # never ended
    except (OSError, ValueError, IndexError, struct.error) as error:
        raise MinirnnError(f"{os.fspath(path)}: not a MIDI file that can be read ({error})") from None
    unit = division / frames_per_quarter
    spans = [(round(start / unit), max(round(end / unit), round(start / unit) + 1), pitch - LOWEST) for start, end, pitch in found]
    roll = np.zeros((max([round(max(ends) / unit), *(end for _, end, _ in spans)]), KEYS), np.uint8)
    for start, end, key in spans:
        if 0 <= key < KEYS:
            roll[start:end, key] = 1
    return roll


def sound(roll: ArrayLike, frames_per_quarter: int = 1, tempo: float = TEMPO) -> NDArray[np.float64]:
    """The samples of a piano roll, between -1 and 1: sines with their partials, that swell, decay and are let go."""
    seconds = 60 / tempo / _per_quarter(frames_per_quarter)
    samples = np.zeros(round((len(_checked(roll)) * seconds + RELEASE) * RATE) + 1)
    for start, end, key in notes(roll):
        length = (end - start) * seconds
        t = np.arange(round((length + RELEASE) * RATE)) / RATE
        partials = np.arange(1, PARTIALS + 1)
        partials = partials[partials * frequency(key) < RATE / 2]
        tone = np.einsum("p,pt->t", partials**-1.5, np.sin(2 * np.pi * frequency(key) * partials[:, None] * t))
        envelope = np.minimum(t / ATTACK, 1) * np.exp(-t / DECAY) * np.clip((length + RELEASE - t) / RELEASE, 0, 1)
        first = round(start * seconds * RATE)
        samples[first : first + len(t)] += tone * envelope
    samples *= LOUDEST / max(np.abs(samples).max(), 1e-9)
    return samples


def write_wav(roll: ArrayLike, path: str | os.PathLike[str], frames_per_quarter: int = 1, tempo: float = TEMPO) -> Path:
    """A piano roll as sound, one channel of 16 bits at 22,050 samples a second; the path."""
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(np.round(32767 * sound(roll, frames_per_quarter, tempo)).astype("<i2").tobytes())
    write_atomically(path, content.getvalue())
    return Path(path)


def _checked(roll: ArrayLike) -> NDArray[np.bool_]:
    array: NDArray[Any] = np.asarray(roll)
    if array.ndim != 2 or array.shape[1] != KEYS or not np.isin(array, (0, 1)).all():
        raise ValueError(f"roll: expected zeros and ones (T, {KEYS}), got an array {array.shape}")
    return array.astype(np.bool_)


def _per_quarter(frames: int) -> int:
    if frames < 1 or TICKS % frames:
        raise ValueError(f"frames_per_quarter must divide {TICKS}, got {frames}")
    return frames


def _unit(frames_per_quarter: int) -> int:
    return TICKS // _per_quarter(frames_per_quarter)


def _variable(number: int) -> bytes:
    """Seven bits in a byte, the highest first; the highest bit says that more follow."""
    groups = [number & 127]
    while number := number >> 7:
        groups.append(number & 127 | 128)
    return bytes(reversed(groups))


def _tracks(data: bytes) -> Iterator[bytes]:
    place = 0
    while place + 8 <= len(data):
        tag, size = struct.unpack_from(">4sI", data, place)
        if tag == b"MTrk":
            if place + 8 + size > len(data):
                raise ValueError("it is cut short")
            yield data[place + 8 : place + 8 + size]
        place += 8 + size


def _messages(track: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Of a track: the tick, the channel, the pitch, and how loud a note starts; 0 where it ends, and -1 for whatever is no note."""
    place, tick, status = 0, 0, 0

    def number() -> int:
        nonlocal place
        value = 0
        while True:
            byte = track[place]
            value, place = value << 7 | byte & 127, place + 1
            if byte < 128:
                return value

    while place < len(track):
        tick += number()
        if track[place] >= 128:
            status, place = track[place], place + 1
        if status < 128:
            raise ValueError(f"a message without its kind at byte {place} of a track")
        if status >= 240:  # text, tempo and the like
            place += status == 255
            length = number()
            place += length
            yield tick, 0, 0, -1
            continue
        kind, channel = status >> 4, status & 15
        if kind in (8, 9):
            yield tick, channel, track[place], track[place + 1] if kind == 9 else 0
        place += 1 if kind in (12, 13) else 2
