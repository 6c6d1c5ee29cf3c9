"""What is kept for the backward pass of an LSTM layer, and what keeping less costs.

    minirnn bench memory [--steps 125 250 500 1000] [--shape N,D,H] [--way NAME ...] [--against torch] [--segment K] [--chunk K]
                         [--dtype float32] [--threads K] [--rounds 5] [--no-peak] [--json] [--out FILE] [--picture FILE]

The ways, and the numbers that they keep between the passes per cell, which is one hidden unit at one step of one sequence (T N H of them):

    store            everything: h, c, and the four gates, which stand where the input product stood            6
    recompute        h and c; the gates come from two products over many steps when they are due                 2
    recompute-half   the gates of half of the steps                                                              4
    checkpoint       h, and of every segment of K steps the state it starts from (--segment, about sqrt(T))      1 + 2 / K
    truncated        one chunk of K steps at a time (--chunk), whose gradients are taken before the next begins  6 K / T
    torch            PyTorch's nn.LSTM, by itself and with torch.utils.checkpoint on the same segments

Recomputing is two products more than the six of a step that stores (the input's and the recurrent one, forward and twice backward): a third
more arithmetic, for half of the steps a sixth.

Beside these, some (N, H) states at the ends, and of each segment a few numbers by which a second run that differs is noticed.

The output h is among them: it is one array for the caller and for the backward pass. What the caller has anyway, x, the output's gradient
and the parameters, is not. All ways but `truncated` also return dx, D numbers per row, which the peak has in it.

    kept      the arrays that are alive between the passes, each buffer once, counted exactly: here along the graph, and as a check what
              NumPy reports to tracemalloc; in PyTorch the storages that autograd saves, oneDNN's workspace among them
    resident  by how much the process is larger between the passes, in a fresh process at its second step. Memory that was allocated
              and not yet written to is not resident: oneDNN's workspace is half of that
    peak      the most by which the process grew in that step (see `minirnn.bench.peak`); Linux alone, elsewhere "not measured"
    ms        of forward and backward, in turns with all others; median and quartiles

Before anything is measured, the gradients of every way but `truncated` must be those of `store`; of `truncated` the cosine of its
gradient with the whole one is shown, for the parameters together.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from minirnn.bench import curves, fits, peak, report
from minirnn.bench.libraries import torch_
from minirnn.bench.memory_case import PARAMETERS, Case
from minirnn.bench.progress import Progress
from minirnn.bench.timing import interleave, ratios, summary
from minirnn.bench.worker import Worker
from minirnn.errors import MinirnnError
from minirnn.kernels import workers

WAYS = ("store", "recompute-half", "recompute", "checkpoint", "truncated")
MODULES = {"minirnn": "minirnn.bench.memory_minirnn", "torch": "minirnn.bench.memory_torch"}
TORCH_WAYS = ("store", "checkpoint")
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}  # of a gradient, relative to its largest element, for one step
HOW = "the rise of resident memory (VmHWM of /proc/self/status) in the second step of a fresh process"
MB = 1e6
Name = tuple[str, str]  # a library and a way


def on_paper(library: str, way: str, case: Case) -> float | None:
    """Bytes kept between the passes, as the docstring above derives them; None for oneDNN, whose workspace is its own affair."""
    cell = case.N * case.H * np.dtype(case.dtype).itemsize  # one number per unit and sequence
    if way == "checkpoint":
        return float(cell * (case.T + 2 * len(case.sizes(case.segment))))
    if library == "torch":
        return None
    steps = {"store": 6 * case.T, "recompute-half": 4 * case.T, "recompute": 2 * case.T, "truncated": 6 * min(case.T, case.chunk)}
    return float(cell * steps[way])


class Bench:
    """A run of the benchmark: `measure(case)` gives what is known of one T."""

    def __init__(self, names: Sequence[Name], threads: int, rounds: int, peaks: bool) -> None:
        self.names, self.threads, self.rounds, self.peaks = names, threads, rounds, peaks

    def measure(self, case: Case, progress: Progress) -> list[dict[str, Any]]:
        described = asdict(case)
        results = []
        with ExitStack() as stack:
            libraries = dict.fromkeys(library for library, _ in self.names)
            processes = {library: stack.enter_context(Worker(MODULES[library], self.threads)) for library in libraries}
            gradients = self._gradients(case, processes)
            for library, way in self.names:
                processes[library].call("prepare", case=described, way=way)
            turns = {_joined(name): partial(processes[name[0]].call, "seconds", way=name[1]) for name in self.names}
            times = interleave(turns, self.rounds, after=lambda name: progress.advance(case.T, f"T = {case.T}, {name}"))
            for library, way in self.names:
                kept = processes[library].call("keep", case=described, way=way)
                name = _joined((library, way))
                found = {
                    "library": library,
                    "way": way,
                    "T": case.T,
                    "segment": case.segment if way == "checkpoint" else None,
                    "chunk": case.chunk if way == "truncated" else None,
                    "kept_bytes": kept["kept"],
                    "traced_bytes": kept.get("traced"),
                    "on_paper_bytes": on_paper(library, way, case),
                    "resident_bytes": None,
                    "peak_bytes": None,
                    "gradient": gradients[library, way],
                    "seconds": times[name],
                    "summary": summary(times[name]),
                    "over_store": summary(ratios(times[name], times["minirnn store"])).median,
                }
                results.append(found)
                progress.advance(case.T, f"T = {case.T}, {name}")
        for found in results if self.peaks else []:
            with Worker(MODULES[found["library"]], self.threads) as fresh:
                rise = fresh.call("peak", case=described, way=found["way"])
            found["resident_bytes"], found["peak_bytes"] = rise["between"], rise["peak"]
            progress.advance(case.T, f"T = {case.T}, peak of {found['library']} {found['way']}")
        return results

    def _gradients(self, case: Case, processes: Mapping[str, Worker]) -> dict[Name, dict[str, float]]:
        with tempfile.TemporaryDirectory() as folder:
            found = {}
            for library, way in self.names:
                file = str(Path(folder, f"{library}-{way}.npz"))
                processes[library].call("gradients", case=asdict(case), way=way, file=file)
                with np.load(file) as arrays:
                    found[library, way] = dict(arrays)
        whole = found["minirnn", "store"]
        return {(library, way): compare(library, way, case, gradients, whole) for (library, way), gradients in found.items()}

    def units(self, steps: Sequence[int]) -> float:
        """What the progress counts to."""
        return sum(steps) * len(self.names) * (self.rounds + 2 + self.peaks)


def compare(library: str, way: str, case: Case, found: Mapping[str, Any], whole: Mapping[str, Any]) -> dict[str, float]:
    """How a way's gradients stand to those that store gives: the largest relative difference, or the cosine. MinirnnError if wrong."""
    if way == "truncated":
        a, b = (np.concatenate([np.ravel(gradients[name]) for name in PARAMETERS]) for gradients in (found, whole))
        return {"cosine": float(a @ b / math.sqrt((a @ a) * (b @ b)))}
    return {"difference": agreement(f"bench memory: {library} {way}", case, found, whole)}


def agreement(who: str, case: Case, found: Mapping[str, Any], expected: Mapping[str, Any]) -> float:
    """The largest difference of gradients, relative to the largest element of each. MinirnnError where they do not agree."""
    difference = float(np.max([np.abs(found[name] - dx).max() / np.abs(dx).max() for name, dx in expected.items()]))  # NaN if one is
    if not difference <= TOLERANCE[case.dtype] * math.sqrt(case.T):  # the rounding of T steps adds up like a random walk
        raise MinirnnError(f"{who}: gradients differ by {difference:.2g} at {case}; not measured")
    return difference


def _joined(name: Name) -> str:
    return " ".join(name)


def fitted(results: Sequence[dict[str, Any]], N: int, H: int) -> list[dict[str, Any]]:
    """Bytes per step and cell of each way: the slopes of lines through kept and peak bytes over T, divided by N H."""
    found = []
    for library, way in dict.fromkeys((r["library"], r["way"]) for r in results):
        rows = [r for r in results if (r["library"], r["way"]) == (library, way)]
        entry: dict[str, Any] = {"library": library, "way": way}
        for what in ("kept", "peak", "on_paper"):
            points = [(r["T"], r[f"{what}_bytes"]) for r in rows if r[f"{what}_bytes"] is not None]
            line = fits.line([T for T, _ in points], [y for _, y in points])
            entry[f"{what}_bytes_per_cell"] = line.slope / (N * H) if line else None
        found.append(entry)
    return found


def run(arguments: argparse.Namespace) -> int:
    """What the command line asks for."""
    for path in (arguments.out, arguments.picture):
        report.check_can_write(path)
    if arguments.picture:
        from minirnn.training import pictures

        pictures.figure(1, 1)  # says at once that Matplotlib is missing
    against, missing = others(arguments.against or ())
    load = report.load_average()
    N, D, H = arguments.shape
    names: list[Name] = [("minirnn", way) for way in WAYS if way == "store" or way in (arguments.way or WAYS)]
    names += [("torch", way) for way in TORCH_WAYS if "torch" in against and (way == "store" or ("minirnn", way) in names)]
    threads = arguments.threads or workers.count()
    bench = Bench(names, threads, arguments.rounds, not arguments.no_peak)
    result: dict[str, Any] = {
        "benchmark": "memory",
        "machine": report.machine(threads, load),
        "shape": {"N": N, "D": D, "H": H},
        "dtype": arguments.dtype,
        "not_compared_with": missing,
        "rounds": arguments.rounds,
        "peak": "not asked for" if arguments.no_peak else HOW if peak.resident() is not None else peak.NOT_HERE,
        "results": [],
    }
    say = (lambda *text: None) if arguments.json else print
    say(f"LSTM, N={N} sequences, D={D} features, H={H} hidden units, {arguments.dtype}; {report.heading(result['machine'], ['torch'])}")
    if warning := report.load_warning(load):
        print(warning, file=sys.stderr)
    for library, reason in missing.items():
        say(f"not compared with {library}: {reason}")
    steps = sorted(set(arguments.steps))
    with Progress("bench memory", bench.units(steps)) as progress:
        for T in steps:
            segment = arguments.segment or max(1, round(math.sqrt(T)))
            case = Case(T, N, D, H, arguments.dtype, segment, arguments.chunk)
            found = bench.measure(case, progress)
            result["results"] += found
            progress.hide()
            say("\n" + _table(found, case))
    result["fits"] = fitted(result["results"], N, H)
    say("\n" + _summary(result, steps[-1]))
    if arguments.out:
        report.write_json(result, arguments.out)
    if arguments.picture:
        draw(result, Path(arguments.picture))
    if arguments.json:
        print(report.to_json(result))
    return 0


def others(asked: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The libraries to compare with that are there, and for each of those that are not, by its name for people, why not."""
    reason = torch_.why_not()
    return [name for name in asked if reason is None], {torch_.TITLE: reason} if asked and reason else {}


LABELS = {"minirnn": "", "torch": "PyTorch's "}


def _table(results: Sequence[dict[str, Any]], case: Case) -> str:
    cells = case.T * case.N * case.H
    head = (f"T = {case.T}", "kept MB", "B/cell", "on paper", "resident MB", "peak MB", "B/cell", "ms", "of store's", "gradient")
    rows = []
    for r in results:
        gradient = f"cosine {r['gradient']['cosine']:.3f}" if "cosine" in r["gradient"] else f"equal to {r['gradient']['difference']:.0e}"
        rows.append(
            (
                _label(r, case),
                _megabytes(r["kept_bytes"]),
                _per(r["kept_bytes"], cells),
                _per(r["on_paper_bytes"], cells),
                _megabytes(r["resident_bytes"]),
                _megabytes(r["peak_bytes"]),
                _per(r["peak_bytes"], cells),
                report.spread(r["summary"], 1e3),
                f"{r['over_store']:.2f}",
                gradient,
            )
        )
    return report.table(head, rows)


def _label(r: Mapping[str, Any], case: Case) -> str:
    detail = {"checkpoint": f" every {case.segment}", "truncated": f" at {case.chunk}"}.get(r["way"], "")
    return f"{LABELS[r['library']]}{r['way']}{detail}"


def _megabytes(value: int | None) -> str:
    return "-" if value is None else report.significant(value / MB)


def _per(value: float | None, cells: int) -> str:
    return "-" if value is None else f"{value / cells:.1f}"


def _summary(result: Mapping[str, Any], T: int) -> str:
    rows = []
    for fit in result["fits"]:
        values = [fit[f"{what}_bytes_per_cell"] for what in ("kept", "on_paper", "peak")]
        rows.append((LABELS[fit["library"]] + fit["way"], *("-" if value is None else f"{value:.2f}" for value in values)))
    several = len({r["T"] for r in result["results"]}) > 1
    lines = [report.table(("bytes per step and cell, fitted", "kept", "on paper", "peak"), rows), ""] if several else []
    last = {(r["library"], r["way"]): r for r in result["results"] if r["T"] == T}
    torch = last.get(("torch", "store"))
    for way in ("recompute-half", "recompute"):
        if (found := last.get(("minirnn", way))) is None:
            continue
        said = f"{way}, T = {T}: {found['over_store']:.2f} of the time of store"
        if torch and torch["peak_bytes"] and found["peak_bytes"]:
            said += f", {found['peak_bytes'] / torch['peak_bytes']:.2f} of PyTorch's peak memory"
        lines.append(said)
    lines.append(f"peak: {result['peak']}")
    return "\n".join(lines)


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Kept and peak bytes over T, both axes logarithmic, each line named at its end."""
    from minirnn.training import pictures

    colors = {
        "store": "tab:red",
        "recompute-half": "tab:purple",
        "recompute": "tab:blue",
        "checkpoint": "tab:green",
        "truncated": "tab:gray",
    }
    picture = pictures.figure(11, 5)
    for axes, (what, title) in zip(
        picture.subplots(1, 2, sharey=True),
        (("kept", "kept between forward and backward"), ("peak", "peak of forward and backward")),
        strict=True,
    ):
        ends = []
        for fit in result["fits"]:
            rows = [r for r in result["results"] if (r["library"], r["way"]) == (fit["library"], fit["way"])]
            points = [(r["T"], r[f"{what}_bytes"] / MB) for r in rows if r[f"{what}_bytes"]]
            if points:
                style = "--" if fit["library"] == "torch" else "-"
                axes.plot(*zip(*points, strict=True), style, marker="o", markersize=3, color=colors[fit["way"]])
                ends.append((*points[-1], LABELS[fit["library"]] + fit["way"], colors[fit["way"]]))
        axes.set(xscale="log", yscale="log", xlabel="T, time steps", title=title)
        axes.set_xticks(sorted({r["T"] for r in result["results"]}), labels=[str(T) for T in sorted({r["T"] for r in result["results"]})])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        curves.label_ends(axes, ends)
    picture.axes[0].set_ylabel("MB")
    N, D, H = (result["shape"][name] for name in "NDH")
    picture.suptitle(f"LSTM layer, N={N}, D={D}, H={H}, {result['dtype']}")
    pictures.save(picture, path)
