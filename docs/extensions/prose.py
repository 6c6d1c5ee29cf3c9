"""Docstrings as minirnn writes them, turned into reStructuredText.

They are plain prose for `help()`: equations stand as they are typed, tables of arguments are aligned with spaces, and `name` is code. None
of that is markup, and all of it would be damaged if it were read as such. This module finds the parts and says what each one is:

    an indented block, a line with a gap in it, an equation     shown as it is typed
    name   what it is, aligned, or below `Args:`                a table of two columns
    `name`                                                      code, and a link where the reference has the name
    - an item                                                   an item
    anything else                                               a paragraph, in which no character means anything
"""

from __future__ import annotations

import ast
import inspect
import io
import re
import textwrap
from collections.abc import Iterator, Sequence
from tokenize import COMMENT, generate_tokens

NAMES = re.compile(r"[\w*.<>`\"'-]+(?:(?:, | and |/)[\w*.<>`\"'-]+)*")
GAP = re.compile(r"\S   +\S")
ITEM = re.compile(r"(?:[-*]|\d+\.) ")
SECTION = re.compile(r"(Args|Arguments|Returns|Raises|Yields|Attributes|Fields):")
# Words that no equation has: a line with one of them is a sentence, whatever signs stand in it.
WORDS = re.compile(
    r"\b(the|of|an|over|with|is|are|was|for|in|to|and|or|where|each|on|at|by|as|from|whether|unless|any|every|all|after|if|that|this"
    r"|without|one|none|returns|it|its|per|between)\b",
    re.IGNORECASE,
)


def render(lines: Sequence[str]) -> list[str]:
    """reStructuredText that looks as the docstring `lines` (dedented, as `inspect.cleandoc` leaves them) reads."""
    out: list[str] = []
    for block in blocks(lines):
        out += _rendered(block)
        out.append("")
    return out


def blocks(lines: Sequence[str]) -> Iterator[list[str]]:
    """What blank lines set apart. A blank line between indented ones belongs to their block, as does all that is below a section."""
    block: list[str] = []
    for line, after in zip(lines, [*_next_filled(lines)], strict=True):
        if line.strip():
            below = block and (block[0].startswith(" ") or (len(block) > 1 and SECTION.fullmatch(block[0])))
            if below and not line.startswith(" "):
                yield block
                block = []
            block.append(line.rstrip())
        elif block and after.startswith(" ") and (block[0].startswith(" ") or SECTION.fullmatch(block[0])):
            block.append("")
        elif block:
            yield block
            block = []
    if block:
        yield block


def _next_filled(lines: Sequence[str]) -> list[str]:
    """For each line the first one after it that is not blank."""
    after, found = "", []
    for line in reversed(lines):
        found.append(after)
        after = line if line.strip() else after
    return found[::-1]


def _rendered(block: list[str]) -> list[str]:
    if SECTION.fullmatch(block[0]) and len(block) > 1:
        return _section(block[0][:-1], _dedented(block[1:]))
    if block[0].startswith(" "):
        return _literal(code := _dedented(block), "python" if is_python(code) else "none")
    if ITEM.match(block[0]):
        return _items(block)
    if (rows := aligned(block)) is not None:
        return table(rows)
    if any(GAP.search(line) for line in block) or is_equation(block):
        return _literal([part for line in block for part in re.split(r"(?<=;) {2,}", line)])
    head = next((k for k, line in enumerate(block) if line.startswith(" ")), len(block))
    return [*_paragraph(block[:head]), *(["", *_rendered(block[head:])] if head < len(block) else [])]


def is_equation(block: Sequence[str]) -> bool:
    """Whether lines say an equation and nothing else: signs of mathematics, and no word that only sentences have."""
    text = " ".join(block)
    if len(block) > 2 or WORDS.search(text) or text.endswith(".") or "`" in text:
        return False
    return bool(re.search(r"\S (=|<-|\+|-|/|\|\||@) \S", text))


def aligned(block: Sequence[str]) -> list[tuple[str, str]] | None:
    """The rows of a table whose second column begins below itself, `name  what it is`; None where the block is no such table."""
    first = re.match(r"(\S.*?)  +(?=\S)", block[0])
    if first is None:
        return None
    column, rows = first.end(), []
    for line in block:
        name, text = line[:column].strip(), line[column:]
        if not text or text.startswith(" ") or line[column - 1] != " ":
            return None
        if name and NAMES.fullmatch(name) and line[column - 2 : column] == "  ":
            rows.append((name, text))
        elif not name and rows:
            rows[-1] = (rows[-1][0], f"{rows[-1][1]} {text}")
        else:
            return None
    return rows


def _section(title: str, body: list[str]) -> list[str]:
    """`Args:` and what is indented below it: `name: what it is`, each with lines that are indented further."""
    heading = [] if title in ("Args", "Arguments", "Attributes", "Fields") else [f"{title}:", ""]
    rows: list[tuple[str, str]] = []
    for line in filter(None, body):
        name, colon, text = line.partition(": ")
        if line.startswith(" ") and rows:
            rows[-1] = (rows[-1][0], f"{rows[-1][1]} {line.strip()}")
        elif colon and NAMES.fullmatch(name):
            rows.append((name, text))
        else:
            return [f"{title}:", "", *render(body)]
    return [*heading, *table(rows)]


def table(rows: Sequence[tuple[str, str]]) -> list[str]:
    out = [".. list-table::", "   :class: arguments", "   :widths: auto", ""]
    for name, text in rows:
        out += [f"   * - {_code(name)}", f"     - {inline(text)}"]
    return out


def _code(names: str) -> str:
    """`a, b` as two pieces of code, without links: they are the arguments of what is being described."""
    return ", ".join(f"``{name.strip('`')}``" for name in re.split(r", ", names))


def _literal(block: list[str], language: str = "none") -> list[str]:
    while block and not block[-1]:
        block = block[:-1]
    return [f".. code-block:: {language}", "", *(f"   {line}" if line else "" for line in block)]


def is_python(block: Sequence[str]) -> bool:
    """Whether the lines are a program, and not an equation that happens to parse: something is called, or a block begins."""
    try:
        tree = ast.parse("\n".join(block))
    except SyntaxError:
        return False
    calls = any(isinstance(node, ast.Call) for node in ast.walk(tree))
    return calls and not any(isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitXor) for node in ast.walk(tree))


def _items(block: list[str]) -> list[str]:
    items: list[str] = []
    for line in block:
        if ITEM.match(line):
            items.append(ITEM.sub("", line, count=1))
        else:
            items[-1] += f" {line.strip()}"
    mark = "#." if block[0][0].isdigit() else "-"
    return [f"{mark} {inline(item)}" for item in items]


def _paragraph(block: Sequence[str]) -> list[str]:
    return [inline(" ".join(line.strip() for line in block))]


def inline(text: str) -> str:
    """One line of reStructuredText that shows `text`, with code where backticks are; its first sign says that it is no list."""
    parts = re.split(r"`([^`]+)`", text)
    parts[::2] = [re.sub(r"([\\*`|_<>\[\]{}:])", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [":minirnn:`" + part.replace("\\", "\\\\") + "`\\ " for part in parts[1::2]]
    return "\\ " + "".join(parts)


def _dedented(block: Sequence[str]) -> list[str]:
    margin = min(len(line) - len(line.lstrip()) for line in block if line)
    return [line[margin:] for line in block]


def fields(cls: type) -> list[tuple[str, str]]:
    """The fields of a NamedTuple or dataclass that have a comment behind them: `h: Array  # (S, H)`."""
    try:
        source = inspect.getsource(cls)
    except (OSError, TypeError):
        return []
    tokens = generate_tokens(io.StringIO(source).readline)
    comments = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == COMMENT}
    body = ast.parse(textwrap.dedent(source)).body[0].body  # type: ignore[attr-defined]
    found = [(line.target.id, comments.get(line.end_lineno, "")) for line in body if isinstance(line, ast.AnnAssign)]
    return [(name, re.sub(r"\s+", " ", text)) for name, text in found if name[0] != "_"] if any(text for _, text in found) else []
