"""Documents of the repository, shown in the site as they are: never copied, so that there is one text and one set of figures.

In a page, a line

    {{ kernels/lstm/README.md }}                  is replaced by that file
    {{ README.md: Measured }}                     by its section of that name, without the heading

Links in the text are from its own folder; they come to lead to the page that shows what they point at (`minirnn_pages` in conf.py: path in
the repository, page), or, for pictures, to the picture.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)

QUOTE = re.compile(r"^\{\{ (?P<path>[\w./-]+)(?:: (?P<section>.+))? \}\}$", re.MULTILINE)
LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")


def section(text: str, title: str) -> str:
    """What stands below a heading, up to the next heading of its level or of a higher one."""
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,2}} |\Z)", text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise LookupError(f"there is no section {title!r}")
    return found[2].strip("\n") + "\n"


def relinked(text: str, path: str, page: str, pages: dict[str, str]) -> tuple[str, list[str]]:
    """The text, which stands at `path` in the repository, with links as `page` needs them, and the targets that no page shows."""
    lost: list[str] = []

    def link(found: re.Match[str]) -> str:
        target = found["target"]
        if "://" in target:
            return found[0]
        place = os.path.normpath(PurePosixPath(path).parent / target)
        if found["picture"]:
            return f"![{found['text']}]({os.path.relpath(Path('..') / place, PurePosixPath(page).parent)})"
        if place not in pages:
            lost.append(place)
            return found["text"]
        return f"[{found['text']}](/{pages[place]}{found['anchor'] or ''})"

    return LINK.sub(link, text), lost


def quote(app: Sphinx, page: str, source: list[str]) -> None:
    root = Path(app.srcdir).parent

    def replaced(found: re.Match[str]) -> str:
        file = root / found["path"]
        app.env.note_dependency(str(file))
        try:
            text = file.read_text(encoding="utf-8")
            text = text if found["section"] is None else section(text, found["section"])
        except (OSError, LookupError) as error:
            logger.warning("%s: %s", found["path"], error, location=page, type="minirnn", subtype="quote")
            return ""
        text, lost = relinked(text, found["path"], page, app.config.minirnn_pages)
        for target in lost:
            logger.warning("%s links to %s, which no page shows (minirnn_pages)", found["path"], target, location=page)
        return text

    source[0] = QUOTE.sub(replaced, source[0])


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_config_value("minirnn_pages", {}, "env")
    app.connect("source-read", quote)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
