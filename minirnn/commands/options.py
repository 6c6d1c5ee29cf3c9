"""Arguments that several commands have: the run, the search, and texts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from minirnn.commands.parser import Parser, device, penalty, positive_integer
from minirnn.errors import MinirnnError


def add_run(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", help="the folder of a run, as minirnn train makes it")


def add_device(parser: Parser, default: str = "cpu") -> None:
    parser.add_argument(
        "--device",
        metavar="NAME",
        type=device,
        help=f"where to compute: cpu, cuda, cuda:1, or emulated, which runs the GPU's kernels on the CPU, slowly (default: {default})",
    )


def add_json(parser: Parser, each: str = "") -> None:
    parser.add_argument("--json", action="store_true", help=f"print one JSON object{each}")


def add_beam(parser: Parser) -> None:
    parser.add_argument("--beam", metavar="N", type=positive_integer, help="width of the beam search (default: 1, greedy)")
    parser.add_argument(
        "--length-penalty",
        metavar="P",
        type=penalty,
        help="of the beam search: a text's log-probability is divided by ((5 + length) / 6)^P; "
        "0 ranks by plain probability and prefers short texts (default: 1)",
    )


def add_translation(parser: Parser) -> None:
    add_beam(parser)
    parser.add_argument(
        "--coverage-penalty",
        metavar="P",
        type=penalty,
        help="of the beam search: weight of the penalty for source words that were hardly looked at (default: 0)",
    )
    parser.add_argument(
        "--copy-unknown",
        action=argparse.BooleanOptionalAction,
        help="for a word that is not in the vocabulary, write the source word that was looked at most (default: yes)",
    )


def given(arguments: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The arguments of these names that the user gave."""
    return {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}


def add_texts(parser: Parser) -> None:
    parser.add_argument("texts", metavar="TEXT", nargs="+", help="a text (in quotes), several of them, or - for standard input")


def texts(given: list[str]) -> Iterator[tuple[str, str]]:
    """The texts with what to call them in an error. A lone - stands for the lines of standard input."""
    if given == ["-"]:
        found = False
        for place, text in _lines(sys.stdin.buffer):
            found = True
            yield place, text
        if not found:
            raise MinirnnError("standard input is empty: there is nothing to work on")
        return
    for number, text in enumerate(given, 1):
        yield f"text {number}", checked(text, f"text {number}")


def checked(text: str, place: str) -> str:
    """The text, if it says something and can be written. Raises MinirnnError otherwise, which calls it `place`."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise MinirnnError(f"{place}: not UTF-8: {text!r}") from None
    if not text.strip():
        raise MinirnnError(f"{place} is empty: there is nothing to work on")
    return text


def _lines(stream: Iterable[bytes]) -> Iterator[tuple[str, str]]:
    for number, raw in enumerate(stream, 1):
        place = f"standard input, line {number}"
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            byte = f"byte 0x{raw[error.start]:02x} at position {error.start + 1}"
            raise MinirnnError(f"{place}: not UTF-8 ({byte}); convert it first, as with: iconv -f ISO-8859-1 -t UTF-8") from None
        yield place, checked(text.rstrip("\r\n"), place)
