"""The emulator from the command line.

python -m minirnn.kernels.emulator watch FILE.cu KERNEL --grid 2 --block 4 --args arange:8 empty:8
python -m minirnn.kernels.emulator sanitize thread SCRIPT.py ...
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from minirnn.kernels.emulator import build, memory, sanitizers
from minirnn.kernels.emulator.library import Kernel
from minirnn.kernels.emulator.translate import EmulatorError
from minirnn.kernels.emulator.watch import watch


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options) or 0)
    except (EmulatorError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m minirnn.kernels.emulator", description="Run CUDA kernels on a CPU.")
    commands = parser.add_subparsers(required=True)
    watching = commands.add_parser("watch", help="run a kernel and draw when each thread came to which barrier")
    watching.add_argument("file", type=Path, help="a .cu file")
    watching.add_argument("kernel", help="the name of a __global__ function in it")
    watching.add_argument(
        "--args",
        dest="arguments",
        nargs="*",
        default=[],
        metavar="ARG",
        help="of the kernel: numbers, and arrays as zeros:8, ones:2x3, arange:8, random:8 or empty:8",
    )
    watching.add_argument("--grid", type=_sizes, default=(1,), metavar="X[,Y[,Z]]", help="blocks")
    watching.add_argument("--block", type=_sizes, default=(32,), metavar="X[,Y[,Z]]", help="threads of a block")
    watching.add_argument("--shared", type=int, default=0, metavar="BYTES", help="dynamic shared memory of a block")
    watching.add_argument("--cooperative", action="store_true", help="all blocks run at the same time and may wait for each other")
    watching.add_argument("--seed", type=int, default=2, help="of the schedule; 0 ascending, 1 descending")
    watching.add_argument("-D", dest="defines", action="append", default=[], metavar="NAME[=VALUE]", help="a macro")
    watching.set_defaults(command=_watch)
    sanitizing = commands.add_parser("sanitize", help="run a Python script whose kernels are compiled with a sanitizer")
    sanitizing.add_argument(
        "sanitizer", choices=("thread", "address"), help="thread finds races, address what is out of bounds or undefined"
    )
    sanitizing.add_argument("script", nargs=argparse.REMAINDER, help="SCRIPT.py and its arguments, or -m MODULE")
    sanitizing.set_defaults(command=_sanitize)
    return parser


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(int(size) for size in text.split(","))


def _watch(options: argparse.Namespace) -> None:
    kernels = build.compile(options.file.read_text(), defines=options.defines)
    if options.kernel not in kernels:
        raise ValueError(f"{options.file} has no kernel {options.kernel!r}, it has {', '.join(kernels)}")
    kernel = kernels[options.kernel]
    if len(options.arguments) != len(kernel.types):
        raise ValueError(f"{kernel.name} takes {len(kernel.types)} arguments, got {len(options.arguments)}")
    arguments = [argument(kernel, i, text) for i, text in enumerate(options.arguments)]
    print(
        watch(
            kernel, options.grid, options.block, arguments, shared_memory=options.shared, cooperative=options.cooperative, seed=options.seed
        )
    )
    for i, each in enumerate(arguments):
        if isinstance(each, np.ndarray):
            print(f"argument {i}: {np.array2string(each, threshold=32)}")
            if not memory.intact(each):
                raise EmulatorError(f"{kernel.name} wrote outside of argument {i}")


def argument(kernel: Kernel, i: int, text: str) -> Any:
    """A number, or an array from its description, of the type that parameter i of the kernel has."""
    kind, _, shape = text.partition(":")
    if kernel.types[i] != "P":
        return np.dtype(kernel.types[i]).type(float(text) if kernel.types[i] in "fde" else int(text))
    element = kernel.elements[i]
    if element in "vSE" or kind not in ("zeros", "ones", "arange", "random", "empty"):
        raise ValueError(f"argument {i} of {kernel.name} is a pointer: give zeros:SHAPE, ones:, arange:, random: or empty:, got {text!r}")
    array = memory.empty(tuple(int(size) for size in shape.split("x")), element)
    if kind == "random":
        array[...] = np.random.default_rng(i).standard_normal(array.shape)
    elif kind != "empty":
        array[...] = {"zeros": 0, "ones": 1, "arange": np.arange(math.prod(array.shape)).reshape(array.shape)}[kind]
    return array


def _sanitize(options: argparse.Namespace) -> None:
    sanitizer = "address,undefined" if options.sanitizer == "address" else options.sanitizer
    if reason := sanitizers.lacks(sanitizer):
        raise EmulatorError(reason)
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *options.script], sanitizers.environment(sanitizer))


if __name__ == "__main__":
    sys.exit(main())
