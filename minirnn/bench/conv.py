"""Convolutions forward and backward, one by one and in an encoder, against PyTorch and against their matrix products.

    python -m minirnn.bench.conv [--batch 32] [--picture-size 64] [--rounds 9] [--return-memory] [--json]

The layers are those of a captioner's encoder: each convolution is followed by group normalisation and relu, and pictures need no gradient.
Before anything is timed, the output and all gradients of every convolution must agree with the definition, summed by NumPy in float64, and
with PyTorch where it is installed; those of the encoder, made float64, with PyTorch. In float32 they need not: where rounding moves a
number across relu's zero, a gradient jumps.

All take turns, so that whatever else the machine does meets all of them: a ratio is that of one turn, and the median and the extremes are
shown. The floor is the time that NumPy needs for the matrix products with nothing between them. PyTorch gets as many threads as minirnn,
and memory that is freed stays with the process (see `minirnn.training.memory`) unless --return-memory is given.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from time import perf_counter
from typing import Any

import numpy as np

from minirnn import nn
from minirnn.autograd import grad
from minirnn.errors import MinirnnError
from minirnn.kernels import workers
from minirnn.tensor import Tensor
from minirnn.training.memory import keep_freed

Array = np.ndarray[Any, Any]
Run = Callable[[], list[Array]]  # forward and backward: the output, and the gradients of its product with a given array

#          channels in and out, window, stride, padding
LAYERS = ((3, 32, 5, 2, 2), (32, 64, 3, 2, 1), (64, 96, 3, 2, 1), (96, 128, 3, 1, 1))
GROUP = 16  # channels that are normalised together
WARM_UP = 2  # turns that do not count
LEAST = 8  # rows and columns of a picture, so that the last layer sees one at least


@dataclass(frozen=True)
class Case:
    """What is timed.

    Args:
        what: for a reader.
        ours, theirs: forward and backward here and in PyTorch, if there is one.
        floor: the matrix products alone.
        checked: what must agree with each of `against`, by name.
        tolerance: of the difference, relative to the largest element of an array.
    """

    what: str
    ours: Run
    theirs: Run | None
    floor: Callable[[], None]
    checked: Run
    against: Mapping[str, Run]
    tolerance: float


@dataclass(frozen=True)
class Result:
    """The largest difference that was found, None if there was nothing to compare with, and milliseconds of each turn."""

    what: str
    difference: float | None
    minirnn_ms: list[float]
    floor_ms: list[float]
    torch_ms: list[float] | None

    def over(self, other: list[float]) -> tuple[float, float, float]:
        """Our time over another one of the same turn: median, least and most."""
        ratios = [ours / theirs for ours, theirs in zip(self.minirnn_ms, other, strict=True)]
        return statistics.median(ratios), min(ratios), max(ratios)


def cases(batch: int, size: int, layers: Sequence[tuple[int, ...]] = LAYERS) -> list[Case]:
    """Every convolution of an encoder of pictures (batch, 3, size, size), and all of it."""
    rng = np.random.default_rng(0)
    encoder = _encoder(layers)
    pictures = x = rng.standard_normal((batch, layers[0][0], size, size), np.float32)  # (N, C, H, W)
    found: list[Case] = []
    for conv in encoder[::3]:
        dy = rng.standard_normal(conv(Tensor(x)).shape, np.float32)  # (N, F, P, Q)
        found.append(_layer(conv, x, dy, bool(found), rng))
        x = rng.standard_normal(dy.shape, np.float32)
    floors = [case.floor for case in found]

    def floor() -> None:
        for each in floors:
            each()

    wide = [module.to(np.float64) for module in _encoder(layers)]
    arrays = pictures.astype(np.float64), dy.astype(np.float64), False
    twin = _torch(wide, *arrays)
    found.append(
        Case(
            what="all, with group normalisation and relu",
            ours=_ours(encoder, pictures, dy, False),
            theirs=_torch(encoder, pictures, dy, False),
            floor=floor,
            checked=_ours(wide, *arrays),
            against={"PyTorch": twin} if twin else {},
            tolerance=1e-10,
        )
    )
    return found


def measure(case: Case, rounds: int) -> Result:
    """Checks, then times. Raises RuntimeError where the numbers are wrong."""
    difference = check(case)
    runs: list[Callable[[], Any]] = [case.ours, case.floor, *([case.theirs] if case.theirs else [])]
    times: list[list[float]] = [[] for _ in runs]
    for turn in range(-WARM_UP, rounds):
        for run, taken in zip(runs, times, strict=True):
            began = perf_counter()
            run()
            if turn >= 0:
                taken.append(1e3 * (perf_counter() - began))
    return Result(case.what, difference, times[0], times[1], times[2] if case.theirs else None)


def check(case: Case) -> float | None:
    """The largest difference, relative to the largest element of its array; None where there is nothing to compare with."""
    found = case.checked()
    differences = []
    for name, run in case.against.items():
        for ours, wanted in zip(found, run(), strict=True):
            differences.append(float(np.abs(ours - wanted).max() / np.abs(wanted).max()))
            if not differences[-1] <= case.tolerance:
                raise RuntimeError(f"{case.what}: differs from {name} by {differences[-1]:.2g}; not timed")
    return max(differences, default=None)


def run(arguments: argparse.Namespace) -> int:
    """What the command line asks for."""
    if arguments.picture_size < LEAST:
        raise MinirnnError(f"--picture-size must be at least {LEAST}, got {arguments.picture_size}")
    if not arguments.return_memory:
        keep_freed()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None  # before our own work is part of it
    torch_version = _torch_version()
    results = []
    if not arguments.json:
        _print_head(arguments, load, torch_version)
    for case in cases(arguments.batch, arguments.picture_size):
        results.append(measure(case, arguments.rounds))
        if not arguments.json:
            _print(results[-1])
    if arguments.json:
        described = {
            "batch": arguments.batch,
            "picture_size": arguments.picture_size,
            "return_memory": arguments.return_memory,
            "threads": workers.count(),
            "load": load,
        }
        print(json.dumps({**described, "torch": torch_version, "results": [asdict(result) for result in results]}))
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `run` takes."""
    parser.add_argument("--batch", metavar="N", type=_positive, default=32, help="pictures (default: 32)")
    parser.add_argument("--picture-size", metavar="S", type=_positive, default=64, help="their rows and columns (default: 64)")
    parser.add_argument("--rounds", metavar="R", type=_positive, default=9, help="turns that are timed (default: 9)")
    parser.add_argument("--return-memory", action="store_true", help="let the C library return freed memory to the system")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m minirnn.bench.conv", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    try:
        return run(parser.parse_args(arguments))
    except MinirnnError as error:
        print(f"bench conv: {error}", file=sys.stderr)
        return 2


def _encoder(layers: Sequence[tuple[int, ...]]) -> list[nn.Module]:
    """The same weights each time."""
    stack: list[nn.Module] = []
    for k, (C, F, window, stride, padding) in enumerate(layers):
        stack += [nn.Conv2d(C, F, window, stride=stride, padding=padding, rng=k), nn.GroupNorm(max(1, F // GROUP), F), nn.ReLU()]
    return stack


def _layer(conv: Any, x: Array, dy: Array, needs: bool, rng: np.random.Generator) -> Case:
    """One convolution of x (N, C, H, W); `needs`: also its gradient."""
    F, C, U, V = conv.weight.shape
    ours, theirs = _ours([conv], x, dy, needs), _torch([conv], x, dy, needs)
    terms = max(dy.size // F, C * U * V)  # of the longest sum
    columns = rng.standard_normal((C * U * V, dy.size // F), np.float32)
    return Case(
        what=f"{C} to {F} channels, {U} x {V}, stride {conv.stride}, on {x.shape[2]} x {x.shape[3]}",
        ours=ours,
        theirs=theirs,
        floor=_products(conv.weight.numpy().reshape(F, -1), columns, dy.reshape(F, -1), needs),
        checked=ours,
        against={"the definition": _definition(conv, x, dy, needs), **({"PyTorch": theirs} if theirs else {})},
        tolerance=float(np.finfo(np.float32).eps * np.sqrt(terms)),  # rounding adds up like a random walk
    )


def _products(weight: Array, columns: Array, dy: Array, needs: bool) -> Callable[[], None]:
    """weight (F, K), columns (K, M), dy (F, M)"""

    def floor() -> None:
        np.matmul(weight, columns)
        np.matmul(dy, columns.T)
        if needs:
            np.matmul(weight.T, dy)

    return floor


def _ours(stack: Sequence[nn.Module], x: Array, dy: Array, needs: bool) -> Run:
    parameters = [p for module in stack for p in module.parameters()]

    def run() -> list[Array]:
        y = given = Tensor(x, requires_grad=needs)
        for module in stack:
            y = module(y)
        wanted = [given, *parameters] if needs else parameters
        return [y.numpy(), *(g.numpy() for g in grad(y, wanted, Tensor(dy)))]

    return run


def _torch(stack: Sequence[nn.Module], x: Array, dy: Array, needs: bool) -> Run | None:
    """The same layers with the same weights in PyTorch; None without it."""
    if _torch_version() is None:
        return None
    import torch

    torch.set_num_threads(workers.count())
    twins = [_twin(module) for module in stack]
    parameters = [p for twin in twins for p in twin.parameters()]

    def run() -> list[Array]:
        y = given = torch.tensor(x, requires_grad=needs)
        for twin in twins:
            y = twin(y)
        wanted = [given, *parameters] if needs else parameters
        return [y.detach().numpy(), *(g.numpy() for g in torch.autograd.grad(y, wanted, torch.from_numpy(dy)))]

    return run


def _twin(module: Any) -> Any:
    import torch

    twin: torch.nn.Module
    if isinstance(module, nn.Conv2d):
        C, F = module.in_channels, module.out_channels
        twin = torch.nn.Conv2d(C, F, module.kernel_size, stride=module.stride, padding=module.padding)
    elif isinstance(module, nn.GroupNorm):
        twin = torch.nn.GroupNorm(module.num_groups, module.num_channels)
    else:
        return torch.nn.ReLU()
    for p, value in zip(twin.parameters(), module.parameters(), strict=True):
        p.data = torch.tensor(value.numpy())
    return twin


def _definition(conv: Any, x: Array, dy: Array, needs: bool) -> Run:
    """y[n, f] = b_f + sum over c, u, v of w[f, c, u, v] times the image that (u, v) sees, and the derivatives of that, in float64."""

    def run() -> list[Array]:
        w, b = (p.numpy().astype(np.float64) for p in (conv.weight, conv.bias))
        s, around = conv.stride, conv.padding
        _, _, P, Q = dy.shape
        padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (around, around), (around, around)))
        y, dw, dpadded = np.zeros(dy.shape), np.zeros(w.shape), np.zeros(padded.shape)
        for u, v in np.ndindex(*w.shape[2:]):
            seen = (..., slice(u, u + s * P, s), slice(v, v + s * Q, s))
            y += np.einsum("fc,ncpq->nfpq", w[:, :, u, v], padded[seen], optimize=True)
            dw[:, :, u, v] = np.einsum("nfpq,ncpq->fc", dy, padded[seen], optimize=True)
            dpadded[seen] += np.einsum("fc,nfpq->ncpq", w[:, :, u, v], dy, optimize=True)
        _, _, H, W = x.shape
        dx = [dpadded[:, :, around : around + H, around : around + W]] if needs else []
        return [y + b[:, None, None], *dx, dw, dy.sum((0, 2, 3), dtype=np.float64)]

    return run


def _torch_version() -> str | None:
    if find_spec("torch") is None:
        return None
    import torch

    return str(torch.__version__)


def _print_head(arguments: argparse.Namespace, load: float | None, torch_version: str | None) -> None:
    against = f"PyTorch {torch_version}" if torch_version else "no PyTorch here"
    print(f"forward and backward, {arguments.batch} pictures of {arguments.picture_size} x {arguments.picture_size}, float32; {against}")
    print(f"{workers.count()} threads, load average {load:.1f}" if load is not None else f"{workers.count()} threads")
    print(
        f"\n{'':<46}{'ms, median':^30}{'minirnn over':^36}\n{'':<46}{'minirnn':>10}{'products':>10}{'PyTorch':>10}"
        f"{'products':>18}{'PyTorch':>18}"
    )


def _print(result: Result) -> None:
    medians = [statistics.median(times) if times else None for times in (result.minirnn_ms, result.floor_ms, result.torch_ms)]
    shown = "".join(f"{'-' if ms is None else f'{ms:.1f}':>10}" for ms in medians)
    for other in (result.floor_ms, result.torch_ms):
        ratio = "{:.2f} ({:.2f}-{:.2f})".format(*result.over(other)) if other else "-"
        shown += f"{ratio:>18}"
    checked = "not checked" if result.difference is None else f"agrees to {result.difference:.0e}"
    print(f"{result.what:<46}{shown}   {checked}", flush=True)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
