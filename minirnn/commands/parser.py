"""argparse as `minirnn` wants it: errors in one line, examples kept as they are written, numbers that are checked."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any, NoReturn, TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


class Parser(argparse.ArgumentParser):
    """`details` makes the last part of the help, and is called only when the help is shown: it may import what is heavy."""

    details: Callable[[], str] | None = None

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False, **options})

    def format_help(self) -> str:
        return super().format_help() + (f"\n{self.details()}\n" if self.details is not None else "")

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {' '.join(message.split())}; see {self.prog} --help\n")


def add_command(commands: Commands, name: str, run: Callable[[argparse.Namespace], int] | None, summary: str, example: str) -> Parser:
    """A sub-command with its summary and an example; `run(arguments)` gives the exit code, None is for a group of further sub-commands."""
    parser = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".", epilog=f"example\n  {example}")
    if run is not None:
        parser.set_defaults(handler=run)
    return parser


def positive_integer(text: str) -> int:
    return int(_number(text, int, "a whole number above 0", lambda n: n > 0))


def seed(text: str) -> int:
    return int(_number(text, int, "a whole number, 0 or above", lambda n: n >= 0))


def positive(text: str) -> float:
    return _number(text, float, "a number above 0", lambda n: n > 0 and math.isfinite(n))


def device(text: str) -> str:
    from minirnn.device import NAMES, is_device_name

    if not is_device_name(text):
        raise argparse.ArgumentTypeError(f"expected {NAMES}, got {text!r}")
    return text


def share(text: str) -> float:
    return _number(text, float, "a number between 0 and 1", lambda n: 0 < n < 1)


def penalty(text: str) -> float:
    return _number(text, float, "a number from 0 to 10", lambda n: 0 <= n <= 10)


def _number(text: str, kind: Callable[[str], float], expected: str, fits: Callable[[float], bool]) -> float:
    try:
        number = kind(text)
    except ValueError:
        number = math.nan
    if not fits(number):
        raise argparse.ArgumentTypeError(f"expected {expected}, got {text!r}")
    return number
