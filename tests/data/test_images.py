from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minirnn.data import images
from minirnn.errors import MinirnnError

Image = pytest.importorskip("PIL.Image", reason="pictures need Pillow (pip install 'minirnn[demo]')")


def coloured(height: int, width: int) -> Any:
    """A gradient that has its own colour everywhere."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([255 * rows // max(1, height - 1), 255 * columns // max(1, width - 1), np.full_like(rows, 128)], 2).astype(np.uint8)


def test_a_picture_of_the_asked_size_is_what_was_written(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 40, 40), np.uint8)
    images.write(tmp_path / "noise.png", pixels)
    np.testing.assert_array_equal(images.read(tmp_path / "noise.png", 40), pixels)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(16, 90), st.integers(16, 90), st.integers(1, 70))
def test_any_size_gives_the_square_in_the_middle(tmp_path: Path, height: int, width: int, size: int) -> None:
    """A picture of one colour, with another one outside of its largest central square: none of that is seen."""
    side = min(height, width)
    pixels = np.zeros((height, width, 3), np.uint8)
    top, left = (height - side) // 2, (width - side) // 2
    pixels[top : top + side, left : left + side] = (200, 100, 50)
    Image.fromarray(pixels).save(tmp_path / "any.png")
    expected = np.broadcast_to(np.array([200, 100, 50], np.uint8)[:, None, None], (3, size, size))
    np.testing.assert_array_equal(images.read(tmp_path / "any.png", size), expected)


def test_shrinking_is_antialiased(tmp_path: Path) -> None:
    """A board of black and white pixels is grey from afar; without antialiasing it would be black, white or striped."""
    board = np.indices((128, 128)).sum(0) % 2 * 255
    images.write(tmp_path / "board.png", np.broadcast_to(board, (3, 128, 128)).astype(np.uint8))
    assert np.abs(images.read(tmp_path / "board.png", 16).astype(int) - 127).max() <= 8


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I", "I;16", "F"])
def test_every_mode_gives_the_colours(mode: str, tmp_path: Path) -> None:
    """White above and black below, as far as the file format can say it."""
    pixels = np.zeros((32, 32), np.uint8)
    pixels[:16] = 255
    picture = Image.fromarray(pixels)
    if mode in ("I", "I;16"):
        picture = Image.fromarray(pixels.astype(np.uint16) * 257).convert(mode)
    elif mode == "LAB":
        lab = np.zeros((32, 32, 3), np.uint8)
        lab[:16, :, 0] = 255
        picture = Image.frombytes("LAB", (32, 32), lab.tobytes())
    else:
        picture = picture.convert("RGB").convert(mode)
    picture.save(tmp_path / "any.tif")
    read = images.read(tmp_path / "any.tif", 32)
    assert read[:, :15].min() >= 250
    assert read[:, 17:].max() <= 5


def test_a_grey_picture_of_16_bits_keeps_its_greys(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 32, dtype=np.uint16)
    Image.fromarray(np.broadcast_to(ramp, (32, 32)).copy()).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(images.read(tmp_path / "deep.png", 32), np.broadcast_to(ramp // 257, (3, 32, 32)))


@pytest.mark.parametrize("form", ["RGBA", "P"])
def test_what_is_transparent_is_white(form: str, tmp_path: Path) -> None:
    pixels = np.zeros((32, 32, 4), np.uint8)
    pixels[:16] = (255, 0, 0, 255)
    picture = Image.fromarray(pixels)
    picture.quantize(4).save(tmp_path / "half.png") if form == "P" else picture.save(tmp_path / "half.png")
    read = images.read(tmp_path / "half.png", 32)
    np.testing.assert_array_equal(read[:, 0, 0], [255, 0, 0])
    np.testing.assert_array_equal(read[:, 31, 31], [255, 255, 255])


def test_half_transparent_is_half_white(tmp_path: Path) -> None:
    Image.new("RGBA", (20, 20), (0, 0, 0, 128)).save(tmp_path / "glass.png")
    assert np.abs(images.read(tmp_path / "glass.png", 20).astype(int) - 127).max() <= 1


def test_a_photograph_that_lay_on_its_side_is_turned(tmp_path: Path) -> None:
    pixels = coloured(48, 48)
    exif = Image.Exif()
    exif[0x0112] = 6  # what the camera saw has to be turned clockwise by 90 degrees
    Image.fromarray(pixels).save(tmp_path / "side.png", exif=exif)
    np.testing.assert_array_equal(images.read(tmp_path / "side.png", 48), np.rot90(pixels, -1).transpose(2, 0, 1))


def test_of_an_animation_the_first_picture_counts(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(images.read(tmp_path / "two.gif", 20)[:, 0, 0], [255, 0, 0])


def test_a_large_jpeg_looks_the_same_as_all_of_it(tmp_path: Path) -> None:
    Image.fromarray(coloured(600, 800)).save(tmp_path / "large.jpg", quality=95)
    images.write(tmp_path / "large.png", coloured(600, 800).transpose(2, 0, 1))
    jpeg, png = (images.read(tmp_path / f"large.{kind}", 64).astype(int) for kind in ("jpg", "png"))
    assert np.abs(jpeg - png).max() <= 6


def encoded(kind: str) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)).save(content, kind)
    return content.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"])
def test_cut_short_or_damaged_is_said_in_a_line(kind: str, tmp_path: Path) -> None:
    """Wherever it is cut, and whatever byte is wrong: a picture, or a message that names the file."""
    content = encoded(kind)
    rng = np.random.default_rng(1)
    messages = []
    for _ in range(40):
        damaged = bytearray(content[: int(rng.integers(len(content)))])
        for at in rng.integers(len(damaged), size=3) if damaged and rng.random() < 0.5 else ():
            damaged[at] = int(rng.integers(256))
        (tmp_path / "broken").write_bytes(damaged)
        try:
            read = images.read(tmp_path / "broken", 16)
        except MinirnnError as error:
            messages.append(str(error))
        else:
            assert read.shape == (3, 16, 16)
    assert messages
    assert all(message.startswith(f"{tmp_path / 'broken'}: ") for message in messages)


def test_messages(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("a dog")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "short.png").write_bytes(encoded("PNG")[:2000])
    Image.new("RGB", (15, 100)).save(tmp_path / "thin.png")
    for name, words in (
        ("text.png", "text.png: not a picture that Pillow can read; expected a picture such as PNG or JPEG"),
        ("empty.png", "empty.png: the file is empty; expected a picture"),
        ("short.png", "short.png: the picture is cut short or damaged"),
        ("thin.png", "thin.png: the picture has 15 x 100 pixels; at least 16 x 16 are needed"),
        ("none.png", "none.png: no such file or directory"),
        ("", "is a folder; expected a picture"),
    ):
        with pytest.raises(MinirnnError, match=words):
            images.read(tmp_path / name, 32)


def test_a_picture_with_too_many_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    Image.new("RGB", (100, 100)).save(tmp_path / "bomb.png")
    with pytest.raises(MinirnnError, match=r"bomb\.png: the picture is too large"):
        images.read(tmp_path / "bomb.png", 16)


def test_only_pixels_are_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"pixels must be \(3, H, W\) uint8, got \(4, 4, 3\) uint8"):
        images.write(tmp_path / "x.png", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(MinirnnError, match="cannot write"):
        images.write(tmp_path / "nowhere" / "x.png", np.zeros((3, 4, 4), np.uint8))


def test_without_pillow_the_message_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MinirnnError, match=r"pictures need the package pillow: pip install minirnn\[demo\]"):
        images.read(tmp_path / "x.png", 32)


def test_pillow_is_loaded_when_it_is_needed() -> None:
    code = "import sys, minirnn.data.images, minirnn.data.sources.scenes, minirnn.data.sources.picture_folder; print('PIL' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    assert subprocess.run([sys.executable, "-P", "-c", code], env=environment, capture_output=True, text=True).stdout == "False\n"
