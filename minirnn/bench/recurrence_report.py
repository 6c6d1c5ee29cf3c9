"""What the benchmark of recurrent layers says: its table, its JSON, and its picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minirnn.bench import peak
from minirnn.bench.cases import PASSES, Case
from minirnn.bench.libraries.layer import PRODUCTS
from minirnn.bench.report import significant, spread, table
from minirnn.bench.timing import ratios, summary

OURS = "minirnn"
MEMORY = "resident memory (VmHWM) of a second pass in a fresh process, beyond weights, input and what is kept from the first one"
SAID = {"forward": "forward", "both": "forward and backward"}


def key(library: str, implementation: str, pass_: str) -> str:
    return f"{library} {implementation}, {SAID[pass_]}"


def label(entry: Mapping[str, Any], case: Case) -> str:
    """How a table names an implementation: ours by its kernel, another library's by the library."""
    library, name = entry["library"], entry["implementation"]
    if name == PRODUCTS:
        return f"{PRODUCTS} ({'NumPy' if library == OURS else library})"
    if library == OURS:
        return f"{library} {name}" if case.stepwise else name
    return library if name == "layer" and not case.stepwise else f"{library} {name}"


def gather(case: Case, passes: Sequence[str], entries: Sequence[dict[str, Any]], times: Mapping[str, list[float]]) -> dict[str, Any]:
    """Everything about one case, ready for JSON.

    Ratios are those of another library's time over ours, round by round; of several implementations of the other library the fastest one
    counts, by its median.
    """
    libraries = dict.fromkeys(entry["library"] for entry in entries)
    products = [{"library": library, "implementation": PRODUCTS, "right": True} for library in libraries]
    found = [_one(case, pass_, entry, times) for entry in [*entries, *products] for pass_ in passes]
    for one in found:
        if one["library"] == OURS and one["seconds"] and one["implementation"] != PRODUCTS:
            one["times_of_others_over_this"] = _others(one, found)
    return {"case": case.as_json(), "name": str(case), "lengths": case.lengths.tolist(), "flops": _flops(case, passes), "results": found}


def _one(case: Case, pass_: str, entry: dict[str, Any], times: Mapping[str, list[float]]) -> dict[str, Any]:
    seconds = times.get(key(entry["library"], entry["implementation"], pass_), [])
    floor = times.get(key(OURS, PRODUCTS, pass_), [])
    differences = entry.get("differences", [])
    worst = max(differences, key=lambda d: d["difference"] / d["allowed"], default=None)
    return {
        "library": entry["library"],
        "implementation": entry["implementation"],
        "label": label(entry, case),
        "pass": pass_,
        "right": entry["right"],
        "why_not": entry.get("why_not", ""),
        "difference": None if worst is None else worst["difference"],
        "allowed": None if worst is None else worst["allowed"],
        "worst_quantity": "" if worst is None else worst["quantity"],
        "faults": [d["fault"] for d in differences if not d["right"]],
        "seconds": seconds,
        "summary": summary(seconds) if seconds else None,
        "gflops": case.flops(pass_) / summary(seconds).median / 1e9 if seconds else None,
        "percent_of_floor": summary([100 * r for r in ratios(floor, seconds)]) if seconds and floor else None,
        **entry.get("resources", {}).get(pass_, {"peak_bytes": None, "allocations_per_step": None}),
        "times_of_others_over_this": {},
    }


def _others(ours: Mapping[str, Any], found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    over = {}
    for library in dict.fromkeys(one["library"] for one in found if one["library"] != OURS):
        theirs = [one for one in found if (one["library"], one["pass"]) == (library, ours["pass"]) and one["implementation"] != PRODUCTS]
        theirs = [one for one in theirs if one["seconds"]]
        if theirs:
            fastest = min(theirs, key=lambda one: one["summary"].median)
            over[library] = {"implementation": fastest["implementation"], "summary": summary(ratios(fastest["seconds"], ours["seconds"]))}
    return over


def _flops(case: Case, passes: Sequence[str]) -> dict[str, int]:
    return {pass_: case.flops(pass_) for pass_ in passes}


def table_of(found: Mapping[str, Any], rounds: int) -> str:
    """A case for people."""
    case = found["case"]
    lengths = f"ragged, {min(found['lengths'])} to {max(found['lengths'])} steps" if case["ragged"] else f"T={case['T']} steps"
    lines = [
        f"{found['name']}, {case['dtype']}: {lengths}, N={case['N']} sequences, D={case['D']} features, H={case['H']} hidden units; "
        f"median (quartiles) of {rounds} rounds"
    ]
    others = list(dict.fromkeys(name for one in found["results"] for name in one["times_of_others_over_this"]))
    head = ["", "pass", "ms", "GFLOP/s", "% of floor", "peak MiB", "allocated/step", "difference"]
    lines.append(table([*head, *(f"{name}'s time / this" for name in others)], [_row(one, others) for one in found["results"]], left=2))
    return "\n".join(lines)


def _row(one: Mapping[str, Any], others: Sequence[str]) -> list[str]:
    if not one["seconds"]:
        return [one["label"], one["pass"], "WRONG, not timed", *[""] * (5 + len(others))]
    over = one["times_of_others_over_this"]
    allocated, memory, difference = one["allocations_per_step"], one["peak_bytes"], one["difference"]
    return [
        one["label"],
        one["pass"],
        spread(one["summary"], 1e3),
        significant(one["gflops"]),
        f"{one['percent_of_floor'].median:.0f}",
        "-" if memory is None else f"{memory / 2**20:.1f}",
        "-" if allocated is None else f"{allocated:g}",
        "-" if difference is None else f"{difference:.0e}",
        *(spread(over[name]["summary"]) if name in over else "" for name in others),
    ]


def legend(report: Mapping[str, Any]) -> str:
    """What the columns mean."""
    lines = [
        "both: forward and backward, with the gradients of the input and of all weights; forward: without any.",
        "% of floor: NumPy's time for the matrix products alone over this one's, of which 100 is as fast; GFLOP/s counts these products.",
        f"peak MiB: {MEMORY if peak.resident() is not None else peak.NOT_HERE}.",
        "allocated/step: arrays in each further time step. difference: the largest from float64, relative to a quantity's largest element.",
    ]
    if any(one["times_of_others_over_this"] for case in report["cases"] for one in case["results"]):
        lines.append(
            "time / this: above 1 this one is faster; median (quartiles) of ratios, round by round; their fastest implementation counts."
        )
    return "\n".join(lines)


def picture(report: Mapping[str, Any], path: Path) -> Path:
    """GFLOP/s of every implementation at every case, with the quartiles, and those of the products as a line across."""
    from minirnn.training.pictures import figure, save

    found = [one | {"case": case["name"]} for case in report["cases"] for one in case["results"] if one["seconds"]]
    passes = [pass_ for pass_ in PASSES if any(one["pass"] == pass_ for one in found)]
    labels = list(dict.fromkeys(one["label"] for one in found if one["implementation"] != PRODUCTS))
    drawn = figure(max(7.0, 1.1 * len(report["cases"]) + 3), 3.8 * max(1, len(passes)))
    for axes, pass_ in zip(drawn.subplots(max(1, len(passes)), squeeze=False)[:, 0], passes, strict=False):
        _draw(axes, [one for one in found if one["pass"] == pass_], {label: f"C{number}" for number, label in enumerate(labels)})
        axes.set(ylabel="GFLOP/s", title=SAID[pass_])
    machine, dtype = report["machine"], report["settings"]["dtype"]
    drawn.suptitle(f"{report['benchmark']}, {machine['processor']}, {machine['threads']} threads, {dtype}", fontsize=9)
    return save(drawn, path)


def _draw(axes: Any, found: Sequence[Mapping[str, Any]], colours: Mapping[str, str]) -> None:
    """The bars of one pass, a group for each case."""
    cases = list(dict.fromkeys(one["case"] for one in found))
    drawn: dict[str, Any] = {}
    for x, case in enumerate(cases):
        bars = [one for one in found if one["case"] == case and one["implementation"] != PRODUCTS]
        width = 0.8 / max(1, len(bars))
        for number, one in enumerate(bars):
            speed, times = one["gflops"], one["summary"]
            slower, faster = speed * (1 - times.median / times.upper), speed * (times.median / times.lower - 1)
            place = x - 0.4 + (number + 0.5) * width
            bar = axes.bar(place, speed, width, yerr=[[slower], [faster]], color=colours[one["label"]], error_kw={"linewidth": 0.8})
            drawn.setdefault(one["label"], bar)
        for one in found:
            if (one["case"], one["library"], one["implementation"]) == (case, OURS, PRODUCTS):
                line = axes.hlines(one["gflops"], x - 0.42, x + 0.42, "black", linewidth=1)
                drawn.setdefault("the products alone", line)
    names = [name.partition(" ")[2].replace("), ", ")\n").replace(", bi", "\nbi") for name in cases]
    axes.set_xticks(range(len(cases)), names, fontsize=7, rotation=20)
    axes.legend(list(drawn.values()), list(drawn), fontsize=7)
    axes.grid(axis="y", alpha=0.3)
