"""Our matrix products against those of NumPy's library: right first, then how fast, and how near to what the machine can do.

    minirnn bench matmul [--shape M,K,N ...] [--dtype float32|float64] [--threads K] [--rounds R] [--json] [--out FILE]

The products are those of a recurrent layer over S = T N rows, z = x w^T, dx = dz w and dw = dz^T x (`kernels/matmul`), and those of one
time step, h w^T and dz w (`kernels/product.py`): there w is packed before, and the steps follow each other in compiled threads that
share the rows, as in a recurrence, while the library packs in every call. With --shape: a b of those sizes.

Each side has a process of its own with the same threads; they take turns, and median and quartiles are shown. Before it is timed, every
result is held against float64 (longdouble for float64): no number may be further off than gamma_K |a| |b| (Higham 2002, equation 3.5).
The peak is what a single tile reaches whose operands stay in the caches of its core, in as many threads at once.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import cache, partial
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from minirnn.bench.progress import Progress
from minirnn.bench.report import (
    check_can_write,
    heading,
    load_average,
    load_warning,
    machine,
    significant,
    spread,
    table,
    to_json,
    write_json,
)
from minirnn.bench.timing import interleave, ratios, summary, turn
from minirnn.bench.worker import Worker
from minirnn.errors import MinirnnError
from minirnn.kernels import workers
from minirnn.kernels.availability import installed

LAYERS = ((320, 64, 64), (1024, 256, 256), (3200, 512, 512), (1600, 1024, 1024), (12800, 128, 128))  # S, D, H
STEPS = ((16, 64), (1, 128), (32, 256), (128, 128), (64, 512), (32, 1024))  # N, H
REPEATED = 20  # steps of one call
SECONDS = 0.2  # of a turn with its warm-up, for the progress


class Case(NamedTuple):
    """(M, K) @ (K, N); a or b may be the transpose of what lies in memory, and a product of a step repeats with the same b."""

    what: str
    M: int
    K: int
    N: int
    a_transposed: bool = False
    b_transposed: bool = False
    step: bool = False

    @property
    def operations(self) -> float:
        return 2.0 * self.M * self.K * self.N


def cases() -> list[Case]:
    found = []
    for S, D, H in LAYERS:
        found += [
            Case("z = x w^T", S, D, 4 * H, b_transposed=True),
            Case("dx = dz w", S, 4 * H, D),
            Case("dw = dz^T x", 4 * H, S, D, a_transposed=True),
        ]
    for N, H in STEPS:
        found += [Case("step: h w^T", N, H, 4 * H, b_transposed=True, step=True), Case("step: dz w", N, 4 * H, H, step=True)]
    return found


def run(arguments: argparse.Namespace) -> int:
    if not installed("numba"):
        raise MinirnnError("bench matmul: our products need the package numba, which is not installed")
    check_can_write(arguments.out)
    load, threads = load_average(), arguments.threads or workers.count()
    chosen = [Case("a b", *shape) for shape in arguments.shape] if arguments.shape else cases()
    with (
        Worker(__name__, threads) as library,
        Worker(__name__, threads) as ours,
        Progress("bench matmul", len(chosen) * 2 * SECONDS * (arguments.rounds + 1), quiet=arguments.json) as progress,
    ):
        peak = ours.call("peak", dtype=arguments.dtype, threads=threads)
        results = []
        for case in chosen:
            sides = {"numpy": library, "ours": ours}
            for side, worker in sides.items():
                worker.call("prepare", side=side, case=list(case), dtype=arguments.dtype, threads=threads)
            turns = {side: partial(worker.call, "take_turn") for side, worker in sides.items()}
            times = interleave(turns, arguments.rounds, after=partial(_advance, progress, case))
            results.append(_result(case, times, peak))
    report = {"machine": machine(threads, load), "dtype": arguments.dtype, "peak": peak, "results": results}
    print(to_json(report) if arguments.json else _told(report))
    if arguments.out:
        write_json(report, arguments.out)
    return 0


def _advance(progress: Progress, case: Case, _: str) -> None:
    progress.advance(SECONDS, _named(case))


def _result(case: Case, times: dict[str, list[float]], peak: float) -> dict[str, Any]:
    speeds = {side: summary([case.operations / taken / 1e9 for taken in taken_each]) for side, taken_each in times.items()}
    faster = summary(ratios(times["numpy"], times["ours"]))
    return {**case._asdict(), "seconds": times, "gflops": speeds, "ratio": faster, "of_peak": speeds["ours"].median / peak}


def _named(case: Case) -> str:
    return f"{case.what} ({case.M}, {case.K}) ({case.K}, {case.N})"


def _told(report: dict[str, Any]) -> str:
    rows = []
    for r in report["results"]:
        speeds = [spread(r["gflops"][side]) for side in ("numpy", "ours")]
        rows.append([r["what"], f"({r['M']}, {r['K']}, {r['N']})", *speeds, spread(r["ratio"]), f"{100 * r['of_peak']:.0f} %"])
    lines = [heading(report["machine"]), f"{report['dtype']}; peak {significant(report['peak'])} GFLOP/s", ""]
    lines.append(table(["product", "(M, K, N)", "NumPy's GFLOP/s", "ours", "times as fast", "of peak"], rows, left=2))
    warning = load_warning(report["machine"]["load_average"])
    return "\n".join(lines if warning is None else [*lines, "", warning])


# What follows runs in the workers.

_run: Callable[[], Any]
_calls: int


def take_turn() -> float:
    """Seconds of one product."""
    return turn(_run) / _calls


def prepare(side: str, case: list[Any], dtype: str, threads: int) -> None:
    """Make `take_turn` time this product, after a look at its result."""
    global _run, _calls
    c = Case(*case)
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype(dtype) for shape in ((c.M, c.K), (c.K, c.N)))
    a, b = (np.asfortranarray(x) if t else x for x, t in ((a, c.a_transposed), (b, c.b_transposed)))
    _calls = REPEATED if c.step and side == "ours" else 1
    if side == "numpy":
        out = np.empty((c.M, c.N), dtype)
        _run = partial(np.matmul, a, b, out=out)
    elif c.step:
        _run, out = _steps(a, b, threads)
    else:
        from minirnn.kernels.matmul.numba_cpu import blocked

        out = np.empty((c.M, c.N), dtype)
        _run = partial(blocked, a, b, out=out)
    _run()
    off = error(a, b, out)
    if not off <= 1:
        raise MinirnnError(
            f"bench matmul: {side}, {_named(c)}: a number is {off:.3g} times as far off as rounding explains; nothing is timed"
        )


def error(a: Any, b: Any, y: Any) -> float:
    """The largest |y - a b| in units of gamma_K |a| |b|, over some of the rows: 1 or less of any product that only rounding disturbs."""
    rows = np.unique(np.linspace(0, len(a) - 1, 64).astype(int))
    wide = np.float64 if a.dtype == np.float32 else np.longdouble
    a, y, b = a[rows].astype(wide), y[rows], b.astype(wide)
    unit = np.finfo(y.dtype).eps / 2 * (a.shape[1] + 1)
    bound = unit / (1 - unit) * (np.abs(a) @ np.abs(b))
    return float((np.abs(y - a @ b) / bound).max(initial=0))


def _steps(a: Any, b: Any, threads: int) -> tuple[Callable[[], Any], Any]:
    """REPEATED products with a packed b in threads that share the rows of a, and where the result will stand."""
    from minirnn.kernels import product

    (M, K), N, L = a.shape, b.shape[1], product.lanes(a.dtype)
    panels, width = product.pack_columns(b), product.padded(N, 4 * L)
    out = product.empty(M * width, a.dtype)
    P = min(M, threads)
    return partial(workers.run, _compiled(), P, REPEATED, a.reshape(-1), M, K, panels, out), out.reshape(M, width)[:, :N]


def peak(dtype: str, threads: int) -> float:
    """GFLOP/s of one tile again and again, in so many threads that stay awake: the best of some tries."""
    from minirnn.kernels import product

    n, K, L = threads * product.TALLEST[4], product.DEEPEST, product.lanes(dtype)
    a, panels, out = (product.empty(size, dtype) for size in (n * K, K * 4 * L, n * 4 * L))
    for x in (a, panels):
        x[:] = 1
    times = 2_000
    seconds = []
    for _ in range(100):
        began = perf_counter()
        workers.run(_compiled(), threads, times, a, n, K, panels, out)
        seconds.append(perf_counter() - began)
    return 2.0 * times * n * K * 4 * L / min(seconds) / 1e9


@cache
def _compiled() -> Any:
    """`times` products of this thread's rows with a packed matrix."""
    from minirnn.kernels.compiling import compiled
    from minirnn.kernels.product import VECTOR, multiply_4

    def steps(p: int, P: int, times: int, a: Any, M: int, K: int, panels: Any, out: Any) -> None:
        width = out.size // M
        L = VECTOR // out.itemsize
        first, last = p * M // P, (p + 1) * M // P
        for _ in range(times):
            multiply_4(a, first * K, K, last - first, K, panels, width // (4 * L), out[first * width :], 4 * L, width, L)

    return compiled(error_model="numpy")(steps)
