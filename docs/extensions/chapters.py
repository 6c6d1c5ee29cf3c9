"""How the gallery runs a chapter of `examples/` and finds its picture.

A chapter writes its picture to the file that it is given as an argument, or else beside itself. Here it is given a place of its own, and
the picture stands in the page below the code that made it.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from sphinx_gallery.scrapers import figure_rst

PICTURES = {".png", ".svg"}


def arguments(gallery: dict[str, Any], chapter: dict[str, Any]) -> list[str]:
    """What stands in `sys.argv` behind the chapter's own name. A chapter also has `__file__`, as when it is run by itself."""
    source = Path(chapter["src_file"])
    chapter["example_globals"]["__file__"] = str(source)
    folder = Path(gallery["src_dir"]).parent / "build" / "docs" / "work" / "course"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{source.stem}*"):
        old.unlink()
    return [str(folder / f"{source.stem}.png")]


def pictures(block: tuple[Any, ...], chapter: dict[str, Any], gallery: dict[str, Any]) -> str:
    """The pictures that the code just run has written, those of one chapter by name, as the gallery wants them."""
    found = []
    for picture in sorted(Path(sys.argv[1]).parent.glob(f"{Path(sys.argv[1]).stem}*")) if sys.argv[1:] else []:
        if picture.suffix in PICTURES:
            place = Path(next(chapter["image_path_iterator"])).with_suffix(picture.suffix)
            shutil.move(picture, place)
            found.append(str(place))
    return figure_rst(found, gallery["src_dir"]) if found else ""
