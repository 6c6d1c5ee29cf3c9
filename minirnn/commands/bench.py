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
    for add_one in (_recurrence, _matmul, _train, _memory, _scaling, _first_call, _gpu):
        add_one(benchmarks)


def _recurrence(benchmarks: Commands) -> None:
    for cell in ("lstm", "gru", "rnn"):
        benchmark = add_command(
            benchmarks,
            cell,
            _runner("minirnn.bench.recurrence"),
            f"{cell} layers on every kernel that can run here, on your own and in other libraries, against their matrix products",
            f"minirnn bench {cell} --shape 50,64,256,256 --kernel numba numpy --against torch",
        )
        benchmark.set_defaults(cell=cell)
        benchmark.add_argument("--grid", choices=["quick", "targets"], default="quick", help="shapes to time (default: quick)")
        benchmark.add_argument("--shape", metavar=SHAPE, type=shape, nargs="+", help="these in place of a grid's")
        benchmark.add_argument("--ragged", choices=["no", "yes", "both"], help="lengths from 1 to T, in random order (default: the grid's)")
        benchmark.add_argument("--layers", metavar="K", type=positive_integer, help="layers (default: the grid's, or 1)")
        benchmark.add_argument("--bidirectional", action="store_true", help="both directions")
        benchmark.add_argument("--pass", dest="pass_", choices=["forward", "both"], help="forward alone, or with backward (default: each)")
        benchmark.add_argument(
            "--kernel",
            metavar="NAME|FILE",
            nargs="+",
            help="these; a Python file is a kernel of your own (default: all that can run here, for the grid targets the preferred one)",
        )
        benchmark.add_argument("--against", choices=["torch", "flax"], nargs="+", help="other libraries, where they are installed")
        benchmark.add_argument("--dtype", choices=["float32", "float64"], default="float32", help="(default: float32)")
        benchmark.add_argument("--threads", metavar="K", type=positive_integer, help="for every library (default: OMP_NUM_THREADS, or all)")
        benchmark.add_argument("--rounds", metavar="R", type=positive_integer, help="timings of each (default: 5, for the grid targets 9)")
        benchmark.add_argument("--no-memory", action="store_true", help="measure no memory, which needs fresh processes")
        _add_output(benchmark)


def _matmul(benchmarks: Commands) -> None:
    benchmark = add_command(
        benchmarks,
        "matmul",
        _runner("minirnn.bench.matmul"),
        "our matrix products against NumPy's library and the machine's peak",
        "minirnn bench matmul --threads 1 --dtype float64",
    )
    benchmark.add_argument("--shape", metavar="M,K,N", type=shape_of_product, nargs="+", help="these in place of a recurrence's")
    benchmark.add_argument("--dtype", choices=["float32", "float64"], default="float32", help="(default: float32)")
    benchmark.add_argument("--threads", metavar="K", type=positive_integer, help="for both sides (default: OMP_NUM_THREADS, or all)")
    benchmark.add_argument("--rounds", metavar="R", type=positive_integer, default=7, help="timings of each, in turns (default: 7)")
    _add_output(benchmark, picture=False)


def _train(benchmarks: Commands) -> None:
    benchmark = add_command(
        benchmarks,
        "train",
        _runner("minirnn.bench.train"),
        "whole training steps of every model against an equivalent PyTorch model, on the same weights and data",
        "minirnn bench train --model captioner vae --profile",
    )
    benchmark.add_argument("--model", metavar="NAME", nargs="+", help="these alone, such as captioner, ssm, seq2seq (default: all)")
    benchmark.add_argument("--data-dir", metavar="DIR", help="where data files lie, beside $MINIRNN_DATA; what is missing is drawn")
    benchmark.add_argument("--threads", metavar="K", type=positive_integer, help="for each library (default: OMP_NUM_THREADS, or all)")
    benchmark.add_argument("--rounds", metavar="R", type=positive_integer, default=5, help="timings of each, in turns (default: 5)")
    benchmark.add_argument("--profile", action="store_true", help="print where the time goes, by each library's own profiler")
    benchmark.add_argument("--no-memory", action="store_true", help="measure no memory")
    _add_output(benchmark, picture=False)


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


def _memory(benchmarks: Commands) -> None:
    benchmark = add_command(
        benchmarks,
        "memory",
        _runner("minirnn.bench.memory"),
        "what an LSTM layer keeps for the backward pass, ways to keep less, and what they cost",
        "minirnn bench memory --steps 250 500 1000 --against torch --picture memory.png",
    )
    benchmark.add_argument(
        "--steps", metavar="T", type=positive_integer, nargs="+", default=[125, 250, 500, 1000], help="(default: 125 to 1000)"
    )
    benchmark.add_argument(
        "--shape", metavar="N,D,H", type=sizes, default=(32, 128, 128), help="sequences, features, hidden units (default: 32,128,128)"
    )
    benchmark.add_argument(
        "--way",
        choices=["store", "recompute-half", "recompute", "checkpoint", "truncated"],
        nargs="+",
        help="these, and store (default: all)",
    )
    benchmark.add_argument("--segment", metavar="K", type=positive_integer, help="steps between two checkpoints (default: sqrt(T))")
    benchmark.add_argument("--chunk", metavar="K", type=positive_integer, default=50, help="steps after which truncated cuts (default: 50)")
    benchmark.add_argument("--against", choices=["torch"], nargs="+", help="PyTorch, where it is installed")
    benchmark.add_argument("--dtype", choices=["float32", "float64"], default="float32", help="(default: float32)")
    benchmark.add_argument("--threads", metavar="K", type=positive_integer, help="for every library (default: OMP_NUM_THREADS, or all)")
    benchmark.add_argument("--rounds", metavar="R", type=positive_integer, default=5, help="timings of each, in turns (default: 5)")
    benchmark.add_argument("--no-peak", action="store_true", help="measure no peaks, each of which needs a fresh process")
    _add_output(benchmark)


def _scaling(benchmarks: Commands) -> None:
    benchmark = add_command(
        benchmarks,
        "scaling",
        _runner("minirnn.bench.scaling"),
        "how the time of an LSTM layer grows with T, N, H and threads, with the fitted exponents",
        "minirnn bench scaling --against torch --picture scaling.png",
    )
    benchmark.add_argument("--axis", choices=["T", "N", "H", "threads"], nargs="+", help="what is varied (default: each, alone)")
    benchmark.add_argument("--shape", metavar=SHAPE, type=shape, help="from which it is varied (default: 128,8,64,64)")
    benchmark.add_argument("--against", choices=["torch"], nargs="+", help="PyTorch, where it is installed")
    benchmark.add_argument("--dtype", choices=["float32", "float64"], default="float32", help="(default: float32)")
    benchmark.add_argument("--threads", metavar="K", type=positive_integer, help="for every library (default: OMP_NUM_THREADS, or all)")
    benchmark.add_argument("--rounds", metavar="R", type=positive_integer, default=3, help="timings of each, in turns (default: 3)")
    _add_output(benchmark)


def _first_call(benchmarks: Commands) -> None:
    benchmark = add_command(
        benchmarks,
        "first-call",
        _runner("minirnn.bench.first_call"),
        "the first training step of a new process, with and without compiled kernels in the cache",
        "minirnn bench first-call",
    )
    benchmark.add_argument("--shape", metavar=SHAPE, type=shape, default=(20, 16, 64, 64), help="of the layer (default: 20,16,64,64)")
    benchmark.add_argument("--rounds", metavar="R", type=positive_integer, default=5, help="new processes with a warm cache (default: 5)")
    benchmark.add_argument("--no-cold", action="store_true", help="compile nothing anew")
    _add_output(benchmark, picture=False)


def shape(text: str) -> tuple[int, int, int, int]:
    T, N, D, H = _numbers(text, SHAPE)
    return T, N, D, H


def sizes(text: str) -> tuple[int, int, int]:
    N, D, H = _numbers(text, "N,D,H")
    return N, D, H


def shape_of_product(text: str) -> tuple[int, int, int]:
    M, K, N = _numbers(text, "M,K,N")
    return M, K, N


def _numbers(text: str, names: str) -> list[int]:
    """A whole number above 0 for each name."""
    count = len(names.split(","))
    try:
        numbers = [int(part) for part in text.split(",")]
        if len(numbers) != count or min(numbers) < 1:
            raise ValueError
    except ValueError:
        words = {3: "three", 4: "four"}[count]
        raise argparse.ArgumentTypeError(f"expected {names}, {words} whole numbers above 0, got {text!r}") from None
    return numbers


def _runner(module: str) -> Callable[[argparse.Namespace], int]:
    """The function `run(arguments)` of a module that is imported when it is called."""

    def run(arguments: argparse.Namespace) -> int:
        code: int = importlib.import_module(module).run(arguments)
        return code

    return run
