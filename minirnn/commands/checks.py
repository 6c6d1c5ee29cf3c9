"""`minirnn doctor` and `minirnn gradcheck`: whether this machine can do it, and whether it does it right."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minirnn.commands.parser import Commands, add_command

if TYPE_CHECKING:
    from minirnn.nn import Module
    from minirnn.tensor import Tensor

Check = tuple[str, Callable[..., Any], Sequence[Any]]  # what, f, inputs

LENGTHS = (5, 3, 1)  # a ragged batch
D, H = 2, 3


def add(commands: Commands) -> None:
    what = "compare gradients, first and second, with finite differences, on this machine's kernels"
    parser = add_command(commands, "gradcheck", gradcheck, what, "minirnn gradcheck")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each check")
    parser = add_command(commands, "doctor", doctor, "show versions, devices, and which kernels can run here and why not", "minirnn doctor")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def doctor(arguments: argparse.Namespace) -> int:
    from minirnn.doctor import examine, report

    found = examine()
    print(json.dumps(found, ensure_ascii=False) if arguments.json else report(found))
    return 0


def gradcheck(arguments: argparse.Namespace) -> int:
    """0 if every gradient is the derivative, else 1."""
    from minirnn import study

    failed = 0
    if not arguments.json:
        print(f"{'what':<28}{'gradient':<12}{'second':<12}{'seconds':>7}")
    for what, f, inputs in _checks():
        began = time.perf_counter()
        faults: dict[str, str | None] = {}
        for order, check, elementwise in (("gradient", study.gradcheck, 64), ("second", study.gradgradcheck, 0)):
            try:
                check(f, inputs, directions=2, elementwise=elementwise)
                faults[order] = None
            except study.GradientError as error:
                faults[order] = str(error)
        seconds = time.perf_counter() - began
        failed += any(faults.values())
        if arguments.json:
            print(json.dumps({"what": what, **faults, "seconds": round(seconds, 3)}), flush=True)
            continue
        print(f"{what:<28}" + "".join(f"{'WRONG' if fault else 'right':<12}" for fault in faults.values()) + f"{seconds:7.2f}", flush=True)
        for fault in filter(None, faults.values()):
            print(f"  {fault}")
    if not arguments.json:
        print(f"\n{failed} wrong" if failed else "\nall gradients are the derivatives")
    return int(failed > 0)


def _checks() -> Iterator[Check]:
    """Every recurrence on every kernel that can run here, then the other layers; all in float64 on small random inputs."""
    from minirnn import nn
    from minirnn.kernels import kernels
    from minirnn.nn.packing import Packing

    rng = np.random.default_rng(0)
    sizes = Packing(np.array(LENGTHS)).batch_sizes
    rows, N = int(np.sum(sizes)), len(LENGTHS)
    recurrences: dict[str, type[nn.LSTM] | type[nn.GRU] | type[nn.RNN]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
    for cell, kind in recurrences.items():
        for kernel in kernels(cell):
            if kernel.why_not("float64", "cpu") is None:
                layer = kind(D, H, kernel=kernel.name, rng=rng)
                yield _layer(f"{kind.__name__}, kernel {kernel.name}", layer, _ragged(layer), _normal(rng, rows, D), *_states(rng, cell, N))
    yield _layer("Linear", nn.Linear(D, H, rng=rng), None, _normal(rng, N, D))
    embedding = nn.Embedding(5, D, rng=rng)
    yield _layer("Embedding", embedding, lambda *_: embedding(np.array([[0, 4], [4, 4]])))
    yield _layer("Conv2d", nn.Conv2d(2, 3, 3, padding=1, rng=rng), None, _normal(rng, 2, 2, 4, 5))
    yield _layer("MaxPool2d", nn.MaxPool2d(2), None, _normal(rng, 2, 2, 4, 6))
    yield _layer("LayerNorm", nn.LayerNorm(4), None, _normal(rng, N, 4))
    mask = np.array([[True, True, True], [True, False, False]])
    for kind_of_score in ("dot", "general", "additive"):
        attention = nn.Attention(kind_of_score, 4, 4, rng=rng)
        yield _layer(f"Attention, {kind_of_score}", attention, _masked(attention, mask), _normal(rng, 2, 2, 4), _normal(rng, 2, 3, 4))


def _layer(what: str, layer: Module, f: Callable[..., Any] | None, *inputs: Tensor) -> Check:
    layer.to("float64")
    count = len(inputs)
    return what, f or (lambda *tensors: layer(*tensors[:count])), [*inputs, *layer.parameters()]


def _ragged(layer: Module) -> Callable[..., Any]:
    from minirnn.nn import Packed, Packing

    packing = Packing(np.array(LENGTHS))

    def f(x: Tensor, h: Tensor, *rest: Tensor) -> Any:
        lstm = type(layer).__name__ == "LSTM"
        output, last = layer(Packed(x, packing), (h, rest[0]) if lstm else h)
        return [output.rows, *(last if lstm else (last,))]

    return f


def _masked(layer: Module, mask: Any) -> Callable[..., Any]:
    return lambda queries, keys, *_: layer(queries, keys, mask)


def _states(rng: np.random.Generator, cell: str, N: int) -> list[Tensor]:
    return [_normal(rng, 1, N, H) for _ in range(2 if cell == "lstm" else 1)]


def _normal(rng: np.random.Generator, *shape: int) -> Tensor:
    from minirnn.tensor import tensor

    return tensor(rng.standard_normal(shape), requires_grad=True)
