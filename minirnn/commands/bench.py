"""`minirnn bench`: how fast, validated before it is timed."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable

from minirnn.commands.parser import Commands, Parser, add_command, positive_integer

SHAPE = "T,N,D,H"
DTYPES = ("float16", "bfloat16", "float32", "float64")


def add(commands: Commands) -> None:
    parser = add_command(commands, "bench", None, "time kernels and training, validated first", "minirnn bench lstm")
    benchmarks = parser.add_subparsers(title="benchmarks", metavar="WHAT", required=True, parser_class=Parser)
    for add_one in (_lstm, _gpu):
        add_one(benchmarks)


def _lstm(benchmarks: Commands) -> None:
    benchmark = add_command(
        benchmarks,
        "lstm",
        _runner("minirnn.bench.lstm"),
        "forward and backward of a recurrence on every kernel that can run here, against the time of its matrix products",
        "minirnn bench lstm --shape 50,64,256,256 --kernel numba numpy",
    )
    benchmark.add_argument("--cell", choices=["lstm", "gru", "rnn"], default="lstm", help="which recurrence (default: lstm)")
    benchmark.add_argument("--shape", metavar=SHAPE, type=shape, nargs="+", help="steps, sequences, features, hidden units")
    benchmark.add_argument("--kernel", metavar="NAME", nargs="+", help="these kernels alone (default: all that can run here)")
    benchmark.add_argument("--dtype", choices=["float32", "float64"], default="float32", help="(default: float32)")
    benchmark.add_argument("--rounds", metavar="R", type=positive_integer, default=5, help="timings of each, in turns (default: 5)")
    benchmark.add_argument("--json", action="store_true", help="print one JSON object")


def _gpu(benchmarks: Commands) -> None:
    benchmark = add_command(
        benchmarks,
        "gpu",
        _runner("minirnn.bench.gpu"),
        "check the GPU kernels on this machine's GPU, then time them against cuDNN and their floor",
        "minirnn bench gpu --grid flashrnn --out gpu.json",
    )
    benchmark.add_argument("--grid", choices=["quick", "flashrnn", "haste", "all"], default="quick", help="shapes to time (default: quick)")
    benchmark.add_argument("--shape", metavar=SHAPE, type=shape, nargs="+", help="these shapes in place of a grid")
    benchmark.add_argument("--cell", choices=["lstm", "gru", "rnn"], nargs="+", default=["lstm"], help="which recurrences (default: lstm)")
    benchmark.add_argument("--kernel", metavar="NAME", choices=["cupy", "numba-cuda"], nargs="+", help="cupy or numba-cuda alone")
    benchmark.add_argument("--dtype", metavar="NAME", choices=DTYPES, nargs="+", help=f"{', '.join(DTYPES)} (default: all; the grid's)")
    benchmark.add_argument("--rounds", metavar="R", type=positive_integer, default=10, help="timings of each, in turns (default: 10)")
    benchmark.add_argument("--check", action="store_true", help="check, and time nothing")
    benchmark.add_argument("--sanitize", action="store_true", help="check under compute-sanitizer as well")
    benchmark.add_argument(
        "--device",
        choices=["cuda", "emulated"],
        default="cuda",
        help="cuda, the first that CUDA_VISIBLE_DEVICES shows; or emulated, where nothing is timed (default: cuda)",
    )
    benchmark.add_argument("--json", action="store_true", help="print one JSON object")
    benchmark.add_argument("--out", metavar="FILE", help="write the JSON object to a file")


def _add_output(benchmark: Parser, picture: bool = True) -> None:
    """Where the results go, for every benchmark: arguments.json, .out and .picture."""
    benchmark.add_argument("--json", action="store_true", help="print one JSON object")
    benchmark.add_argument("--out", metavar="FILE", help="write the JSON object to a file")
    if picture:
        benchmark.add_argument("--picture", metavar="FILE", help="draw the results into a PNG file")


def shape(text: str) -> tuple[int, int, int, int]:
    try:
        T, N, D, H = (int(part) for part in text.split(","))
        if min(T, N, D, H) < 1:
            raise ValueError
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected {SHAPE}, four whole numbers above 0, got {text!r}") from None
    return T, N, D, H


def _runner(module: str) -> Callable[[argparse.Namespace], int]:
    """The function `run(arguments)` of a module that is imported when it is called."""

    def run(arguments: argparse.Namespace) -> int:
        code: int = importlib.import_module(module).run(arguments)
        return code

    return run
