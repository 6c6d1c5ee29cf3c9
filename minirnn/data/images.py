"""Picture files as arrays, by Pillow, which is imported when a picture is read or written."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minirnn.errors import MinirnnError
from minirnn.files import write_atomically

LEAST = 16  # pixels, of the shorter side; with fewer there is nothing to see
DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N")  # Pillow's names for what is read from grey pictures of 16 bits
WHITE = (255, 255, 255, 255)

_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
)


def read(path: str | os.PathLike[str], size: int) -> NDArray[np.uint8]:
    """A picture file as (3, size, size): red, green and blue from 0 to 255.

    The largest square in the middle is cut out, so that nothing is stretched and there are no bars, and resized with antialiasing. Any size
    and mode is taken: what is transparent is white, a grey picture has three equal parts, of an animation the first picture counts, and
    a photograph that a camera held sideways is turned upright.

    Raises MinirnnError for what is missing, not a picture, cut short, or smaller than 16 pixels.
    """
    name = os.fspath(path)
    pillow, operations = _pillow()
    if Path(path).is_dir():
        raise MinirnnError(f"{name} is a folder; expected a picture")
    try:
        with warnings.catch_warnings(action="ignore"), pillow.open(path) as file:  # what is wrong and matters is an error, too
            if min(file.size) < LEAST:
                raise MinirnnError(f"{name}: the picture has {file.size[0]} x {file.size[1]} pixels; at least {LEAST} x {LEAST} are needed")
            file.draft(None, (2 * size, 2 * size))  # a large JPEG is decoded at a fraction of its size
            return _square(_on_white(operations.exif_transpose(file), pillow), size, pillow)
    except pillow.UnidentifiedImageError:
        raise MinirnnError(f"{name}: {_what_else(Path(path))}; expected a picture such as PNG or JPEG") from None
    except pillow.DecompressionBombError as error:
        raise MinirnnError(f"{name}: the picture is too large ({error})") from None
    except _BROKEN as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise MinirnnError(f"{name}: {(error.strerror or str(error)).lower()}") from None
        raise MinirnnError(f"{name}: the picture is cut short or damaged ({error})") from None


def write(path: str | os.PathLike[str], pixels: NDArray[np.uint8]) -> None:
    """Writes pixels (3, H, W) as a PNG file."""
    if pixels.ndim != 3 or len(pixels) != 3 or pixels.dtype != np.uint8:
        raise ValueError(f"write: pixels must be (3, H, W) uint8, got {pixels.shape} {pixels.dtype}")
    content = io.BytesIO()
    _pillow()[0].fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(content, "PNG")
    write_atomically(path, content.getvalue())


def _on_white(picture: Any, pillow: Any) -> Any:
    """The picture with red, green and blue alone."""
    if picture.mode in DEEP:
        return pillow.fromarray((np.asarray(picture, np.int64).clip(0, 65535) // 257).astype(np.uint8)).convert("RGB")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    picture = picture.convert("RGBA")
    return pillow.alpha_composite(pillow.new("RGBA", picture.size, WHITE), picture).convert("RGB")


def _square(picture: Any, size: int, pillow: Any) -> NDArray[np.uint8]:
    """The middle of a picture, (3, size, size)."""
    width, height = picture.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    square = picture.crop((left, top, left + side, top + side)).resize((size, size), pillow.Resampling.LANCZOS)
    return np.ascontiguousarray(np.asarray(square, np.uint8).transpose(2, 0, 1))


def _what_else(path: Path) -> str:
    return "the file is empty" if path.stat().st_size == 0 else "not a picture that Pillow can read"


def _pillow() -> tuple[Any, Any]:
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise MinirnnError("pictures need the package pillow: pip install minirnn[demo]") from None
    return Image, ImageOps
