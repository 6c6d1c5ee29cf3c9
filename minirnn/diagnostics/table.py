"""Text tables: words to the left, numbers to the right."""

from __future__ import annotations

from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]], words: int = 0) -> list[str]:
    """Lines of one width, the header first; the first `words` columns are words."""
    lines = [header, *rows]
    widths = [max(len(line[k]) for line in lines) for k in range(len(header))]
    cells = [
        [text.ljust(width) if k < words else text.rjust(width) for k, (text, width) in enumerate(zip(line, widths, strict=True))]
        for line in lines
    ]
    return ["  ".join(line) for line in cells]


def titled(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], words: int = 0) -> str:
    """A table, set in below its title."""
    return "\n".join([title, *(f"  {line}" for line in table(header, rows, words))])
