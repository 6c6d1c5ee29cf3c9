"""The command `minirnn`: what can be asked for, and how whatever goes wrong is said in one line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TextIO

from minirnn._version import __version__
from minirnn.commands import bench, checks, compare, data, demo, evaluate, explain, profile, study, train, translate, verbs
from minirnn.commands.parser import Parser
from minirnn.errors import MinirnnError

OK, BAD_USAGE, INTERRUPTED, BROKEN_PIPE = 0, 2, 130, 141

DESCRIPTION = "Recurrent networks from scratch: train them, use them, and look inside."
EXAMPLE = """\
begin with
  minirnn demo
  minirnn train seq2seq --data multi30k --minutes 30
  minirnn translate runs/seq2seq "a dog runs on the beach"
"""


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="minirnn", description=DESCRIPTION, epilog=EXAMPLE)
    parser.add_argument("--version", action="version", version=f"minirnn {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    for group in (demo, train, evaluate, translate, verbs, study, profile, data, checks, compare, explain, bench):
        group.add(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; the exit code. Bad input is one line on standard error and 2, Ctrl-C is 130."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # whoever started this closed it
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))
    _tolerate(sys.stdout)
    _tolerate(sys.stderr)
    try:
        arguments = make_parser().parse_args(argv)
        code: int = arguments.handler(arguments)
        sys.stdout.flush()
    except MinirnnError as error:
        return _complain(str(error))
    except KeyboardInterrupt:
        print("minirnn: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # whoever read the output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except MemoryError as error:
        return _complain(f"out of memory: {error}; make the model or the batch smaller")
    except OSError as error:
        return _complain(f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error))
    return code


def _complain(message: str) -> int:
    print("minirnn: " + " ".join(message.split()), file=sys.stderr)
    return BAD_USAGE


def _tolerate(stream: TextIO) -> None:
    """Write a question mark, and do not fail, where the terminal's encoding lacks a letter."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
