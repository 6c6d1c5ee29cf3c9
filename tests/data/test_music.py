"""Piano rolls as MIDI and as sound: read back the same, heard at the right pitch."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minirnn.data import music
from minirnn.errors import MinirnnError


def random_roll(frames: int, seed: int, density: float = 0.1) -> np.ndarray:
    return (np.random.default_rng(seed).random((frames, music.KEYS)) < density).astype(np.uint8)


@given(frames=st.sampled_from([0, 1, 2, 3, 17, 64, 129]), seed=st.integers(0, 99), per_quarter=st.sampled_from([1, 2, 4]))
def test_midi_is_read_back_as_it_was(frames: int, seed: int, per_quarter: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    roll = random_roll(frames, seed)
    path = music.write_midi(roll, tmp_path_factory.mktemp("midi") / "roll.mid", per_quarter)
    assert np.array_equal(music.read_midi(path, per_quarter), roll)


def test_another_reader_finds_the_same_notes(tmp_path: Path) -> None:
    mido = pytest.importorskip("mido", reason="needs another reader of MIDI: pip install mido")
    roll = random_roll(40, 1)
    file = mido.MidiFile(music.write_midi(roll, tmp_path / "roll.mid", tempo=120))
    assert file.type == 0
    assert file.length == pytest.approx(40 / 2)  # seconds: 120 quarter notes a minute
    now, started, found = 0, {}, np.zeros_like(roll)
    for message in file.tracks[0]:
        now += message.time
        if message.type == "note_on":
            started[message.note] = now // file.ticks_per_beat
        elif message.type == "note_off":
            found[started.pop(message.note) : now // file.ticks_per_beat, message.note - 21] = 1
    assert not started
    assert np.array_equal(found, roll)


@pytest.mark.parametrize("kind", [0, 1])
def test_files_of_another_writer_are_read(kind: int, tmp_path: Path) -> None:
    mido = pytest.importorskip("mido", reason="needs another writer of MIDI: pip install mido")
    file = mido.MidiFile(type=kind, ticks_per_beat=96)
    for notes in ([(60, 0, 96), (64, 96, 192)], [(36, 0, 192)])[: 1 + kind]:
        track = file.add_track()
        track.append(mido.MetaMessage("track_name", name="x" * 200))  # a length of two bytes
        track.append(mido.Message("control_change", control=7, value=100))
        now = 0
        for tick, kind_of, note in sorted([(a, 1, n) for n, a, _ in notes] + [(b, 0, n) for n, _, b in notes]):
            track.append(mido.Message("note_on", note=note, velocity=64 * kind_of, time=tick - now))  # velocity 0 ends a note
            now = tick
    file.save(tmp_path / "other.mid")
    roll = music.read_midi(tmp_path / "other.mid")
    expected = np.zeros((2, 88))
    expected[0, 60 - 21] = expected[1, 64 - 21] = 1
    if kind:
        expected[:, 36 - 21] = 1
    assert np.array_equal(roll, expected)


def test_a_key_held_over_frames_is_one_note() -> None:
    roll = np.zeros((6, 88))
    roll[0:3, 40] = roll[4:6, 40] = roll[2, 7] = 1
    assert music.notes(roll) == [(0, 3, 40), (2, 3, 7), (4, 6, 40)]


@pytest.mark.parametrize("key", [0, 20, 48, 87])
def test_the_sound_of_a_key_has_its_frequency(key: int, tmp_path: Path) -> None:
    roll = np.zeros((4, 88))
    roll[:, key] = 1
    with wave.open(str(music.write_wav(roll, tmp_path / "a.wav"))) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, music.RATE)
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    assert len(samples) == pytest.approx((4 * 60 / music.TEMPO + music.RELEASE) * music.RATE, abs=2)
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    peak = spectrum.argmax() * music.RATE / len(samples)
    assert peak == pytest.approx(440 * 2 ** ((key - 48) / 12), abs=music.RATE / len(samples))  # one bin


def test_chords_do_not_clip_and_bytes_repeat(tmp_path: Path) -> None:
    roll = random_roll(3, 2, density=0.5)
    sound = music.sound(roll)
    assert np.abs(sound).max() == pytest.approx(music.LOUDEST)
    for write, name in ((music.write_wav, "a.wav"), (music.write_midi, "a.mid")):
        assert write(roll, tmp_path / name).read_bytes() == write(roll, tmp_path / f"again-{name}").read_bytes()
    assert not music.sound(np.zeros((3, 88))).any()
    assert not list(tmp_path.glob(".*"))  # no temporary file is left


def test_the_names_of_the_keys() -> None:
    names = music.key_names()
    assert (names[0], names[48], names[87], len(names)) == ("A0", "A4", "C8", 88)


def test_what_is_no_roll_and_no_midi(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected zeros and ones \(T, 88\), got an array \(3, 5\)"):
        music.notes(np.zeros((3, 5)))
    with pytest.raises(ValueError, match="frames_per_quarter must divide 480, got 7"):
        music.write_midi(np.zeros((1, 88)), tmp_path / "a.mid", 7)
    whole = music.write_midi(random_roll(9, 0), tmp_path / "a.mid").read_bytes()
    for content in (b"", b"RIFF" + bytes(40), whole[:-5], whole[:20]):
        (tmp_path / "b.mid").write_bytes(content)
        if content == whole[:20]:  # a header with no track is music without a note
            assert music.read_midi(tmp_path / "b.mid").shape == (0, 88)
            continue
        with pytest.raises(MinirnnError, match=r"b\.mid: not a MIDI file that can be read"):
            music.read_midi(tmp_path / "b.mid")
