"""What a trace costs: forward and backward of a layer inside `minirnn.study.trace()` and outside it, in turns.

    python -m minirnn.bench.trace [--cell lstm] [--shapes T,N,D,H ...] [--rounds 21] [--return-memory] [--json]

Nothing is read from the trace, and nothing but the layer is timed: of a training step, with its embedding, output layer, loss and
optimiser, the share is smaller. Bits are compared first. Memory that was freed stays with the process, as it does in `minirnn train`,
unless --return-memory says otherwise. Several shapes are timed in a process each.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np

import minirnn as mr
from minirnn.bench import report
from minirnn.bench.timing import interleave, ratios, summary, turn
from minirnn.errors import MinirnnError
from minirnn.kernels import workers
from minirnn.training.memory import keep_freed

SHAPES = [(100, 128, 128, 128), (50, 64, 512, 512), (32, 32, 256, 256), (20, 16, 64, 64)]  # T, N, D, H
LAYERS = {"lstm": mr.nn.LSTM, "gru": mr.nn.GRU, "rnn": mr.nn.RNN}


def layer_call(cell: str, shape: tuple[int, int, int, int]) -> tuple[Callable[[bool], None], list[mr.Tensor]]:
    """Forward and backward of a layer, with a trace or without, and the tensors that get a gradient."""
    T, N, D, H = shape
    rng = np.random.default_rng(0)
    layer = LAYERS[cell](D, H, rng=0)
    x = mr.Tensor(rng.standard_normal((T, N, D)).astype(np.float32), requires_grad=True)
    dy = mr.Tensor(rng.standard_normal((T, N, H)).astype(np.float32))
    leaves = [x, *layer.parameters()]

    def call(traced: bool) -> None:
        for leaf in leaves:
            leaf.grad = None
        with mr.study.trace() if traced else nullcontext():
            layer(x)[0].backward(dy)

    return call, leaves


def measure(cell: str, shape: tuple[int, int, int, int], rounds: int) -> dict[str, Any]:
    """Seconds with and without, and their ratio round by round. Raises MinirnnError where the gradients' bits are not the same."""
    call, leaves = layer_call(cell, shape)
    found = []
    for traced in (False, True):
        call(traced)
        found.append([leaf.grad.data for leaf in leaves if leaf.grad is not None])
    if not all(np.array_equal(a, b) for a, b in zip(*found, strict=True)):
        raise MinirnnError(f"bench trace: {cell}, {shape}: the gradients are not the same with a trace; not timed")
    del found
    names = {"off": False, "on": True}
    times = interleave({name: partial(turn, partial(call, traced)) for name, traced in names.items()}, rounds)
    return {
        "shape": dict(zip("TNDH", shape, strict=True)),
        **{name: summary(seconds) for name, seconds in times.items()},
        "ratio": summary(ratios(times["on"], times["off"])),
    }


def run(arguments: argparse.Namespace) -> int:
    """What the command line asks for."""
    shapes = arguments.shapes
    if len(shapes) > 1:  # each with memory of its own
        own = ["--cell", arguments.cell, "--rounds", str(arguments.rounds), *(["--return-memory"] if arguments.return_memory else [])]
        own += ["--json"] if arguments.json else []
        for shape in shapes:
            command = [sys.executable, "-m", "minirnn.bench.trace", "--shapes", ",".join(map(str, shape)), *own]
            if failed := subprocess.run(command, check=False).returncode:
                return failed
        return 0
    load = report.load_average()
    if not arguments.return_memory:
        keep_freed()
    machine, result = report.machine(workers.count(), load), measure(arguments.cell, shapes[0], arguments.rounds)
    if arguments.json:
        print(report.to_json({"benchmark": "trace", "cell": arguments.cell, "machine": machine, **result}))
        return 0
    if warning := report.load_warning(load):
        print(warning, file=sys.stderr)
    print(
        f"{arguments.cell} T,N,D,H = {','.join(map(str, shapes[0]))}: {report.spread(result['off'], 1e3)} ms without a trace, "
        f"{report.spread(result['on'], 1e3)} ms with it, ratio {report.spread(result['ratio'], digits=4)}"
    )
    return 0


def shape_of(text: str) -> tuple[int, int, int, int]:
    try:
        T, N, D, H = map(int, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"a shape is T,N,D,H, four numbers, got {text!r}") from None
    if min(T, N, D, H) < 1:
        raise argparse.ArgumentTypeError(f"T, N, D and H must be 1 or more, got {text!r}")
    return T, N, D, H


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m minirnn.bench.trace", description=__doc__.partition("\n")[0])
    parser.add_argument("--cell", choices=LAYERS, default="lstm")
    parser.add_argument("--shapes", nargs="+", type=shape_of, default=SHAPES, metavar="T,N,D,H")
    parser.add_argument("--rounds", type=int, default=21, help="of both, in turns (default: 21)")
    parser.add_argument("--return-memory", action="store_true", help="freed memory goes back to the system, as it does outside training")
    parser.add_argument("--json", action="store_true", help="print one JSON object a shape")
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds must be 1 or more")
    try:
        return run(options)
    except MinirnnError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
