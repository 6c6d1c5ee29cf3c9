"""English sentences that every installation has: those of the docstrings of Python's standard library and of NumPy.

The files are read with `ast`, and nothing of them is imported. That takes some seconds, so the sentences are kept in the cache folder.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import os
import platform
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from minirnn.data.fetch import cache_folder
from minirnn.data.kinds import Sentences
from minirnn.data.sources.sentences import cut, split
from minirnn.data.sources.source import Source
from minirnn.errors import MinirnnError
from minirnn.files import write_atomically

LEFT_OUT = {"test", "tests", "site-packages", "dist-packages", "lib2to3", "_vendor", "_bundled", "__pycache__"}  # folders

_ITEM = re.compile(r"[-*+] ")
_CODE = re.compile(r">>>|::|---|===|\.\. |\t")
_LITERAL = re.compile(r"``?([^`]*)`?`|\*([^*\s]+)\*")  # ``x`` and *x*, of which x stays
_SENTENCE = re.compile(r"[A-Z][\w ,;:'\"()/%+-]+[.!?]", re.ASCII)
_PROGRAM = re.compile(r"_|\b[A-Z]{3,}\b|[a-z][A-Z]|\w{17,}|\w\(|\d{4,}|: [A-Z]|\b[A-Z]\.$")  # what is not English in a sentence
LEAST_WORDS = 2
HELD_OUT = 0.05  # of the sentences, for validation and for test


def load(data_dir: str | None = None, seed: int = 0) -> Sentences:
    """About 14,000 sentences, 5 % for validation and 5 % for test, drawn with `seed`. `data_dir` is not used.

    The sentences are those of this installation: another version of Python or NumPy has others.
    """
    train, valid, test = split(sentences(), seed, HELD_OUT)
    python, numpy = platform.python_version(), version("numpy")
    return Sentences(
        name="docstrings",
        train=train,
        valid=valid,
        test=test,
        attribution=f"docstrings of Python {python} (PSF License) and NumPy {numpy} (BSD) on this machine",
        note="other versions of Python and NumPy give other sentences: compare scores on one machine only",
    )


def sentences() -> list[str]:
    """The different sentences in the order of the files' names; from the cache where they were read before."""
    roots = [Path(sysconfig.get_path("stdlib")), _package("numpy")]
    path = cache_folder() / f"docstrings-{_key(roots)}.json"
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(kept, list) and kept and all(isinstance(sentence, str) for sentence in kept):
            return kept
    except (OSError, ValueError):
        pass
    found = list(dict.fromkeys(sentence for root in roots for text in docstrings(root) for sentence in english(text)))
    if not found:
        raise MinirnnError(f"there are no docstrings in {roots[0]}: this Python comes without its sources; give a text file by its path")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(found))
    except (OSError, MinirnnError):
        pass  # next time they are read again
    return found


def docstrings(root: Path) -> Iterator[str]:
    """Every docstring in the Python files below a folder, files in the order of their names; files that are no Python are left out."""
    for folder, inner, files in os.walk(root):
        inner[:] = sorted(set(inner) - LEFT_OUT)
        for file in sorted(files):
            if not file.endswith(".py"):
                continue
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of the escapes in other people's strings
                    tree = ast.parse((Path(folder) / file).read_bytes())
            except (SyntaxError, ValueError, OSError, RecursionError, MemoryError):  # the last two where expressions are nested too deeply
                continue
            for node in ast.walk(tree):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                    text = ast.get_docstring(node)
                    if text:
                        yield text


def english(docstring: str) -> Iterator[str]:
    """The sentences of a docstring that hold words and marks alone, without code, names of variables and tables."""
    for number, block in enumerate(_blocks(docstring)):
        text = _LITERAL.sub(lambda found: found[1] or found[2] or "", " ".join(block))
        if _CODE.search(text):
            continue
        if number == 0 and len(block) == 1 and text[-1].isalpha():
            text += "."  # the summary, which many write without
        for sentence in cut(text):
            if _SENTENCE.fullmatch(sentence) and not _PROGRAM.search(sentence) and len(sentence.split()) >= LEAST_WORDS:
                yield sentence


def _blocks(docstring: str) -> Iterator[list[str]]:
    """Lines that stand together: up to an empty line, another indentation, or the next item of a list."""
    block: list[str] = []
    indent = 0
    for line in docstring.split("\n"):
        text = line.strip()
        here = len(line) - len(line.lstrip())
        item = _ITEM.match(text)
        if block and (not text or item or here != indent):
            yield block
            block = []
        if text:
            block.append(text[2:] if item else text)
            indent = here + 2 * bool(item)
    if block:
        yield block


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise MinirnnError(f"the package {name} is not installed, or not as files")
    return Path(spec.origin).parent


def _key(roots: list[Path]) -> str:
    """What the sentences depend on: the versions, where the files lie, and how they are read."""
    read_by = [Path(__file__).read_bytes(), Path(__file__).with_name("sentences.py").read_bytes()]
    parts = [sys.version.encode(), version("numpy").encode(), *(str(root).encode() for root in roots), *read_by]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


SOURCE = Source(
    name="docstrings",
    what="sentences about programs, in English",
    size="about 14,000 sentences",
    licence="PSF License (Python), BSD (NumPy)",
    origin="read from the docstrings of Python and NumPy on this machine",
    loaders={Sentences: load},
)
