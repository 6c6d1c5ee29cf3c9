"""Every GPU kernel, compiled for every architecture, and what it takes of the chip: the table of kernels/COMPILED.md.

    python -m minirnn.kernels.cuda.compiled [--check] [--architecture 75 ...] [FILE ...]

Needs no GPU and no driver. The exit code is 1 where a kernel spills registers, keeps anything in local memory, computes in float64
without being a float64 kernel, or takes more registers than one block of its size can have; and with --check where the table does not
list the kernels and dtypes that there are. Named files replace their part of the table; with --architecture it is printed, not written.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from minirnn.kernels.cuda import source, without_driver
from minirnn.kernels.cuda.numba_plan import THREADS
from minirnn.kernels.cuda.resources import REGISTERS, Resources, float64_instructions, launch_bounds, parse, shared_in

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
TABLE = source.KERNELS / "COMPILED.md"
LARGEST_BLOCK = 1024  # of any architecture here: what a kernel without launch bounds may be launched with

Listed = set[tuple[str, str, str]]  # file, kernel, dtype


@dataclass(frozen=True)
class Compiled:
    """One kernel of one file for one dtype and one architecture."""

    file: str  # below kernels/
    kernel: str
    dtype: str
    architecture: int
    threads: int | None  # the largest block it was compiled for
    float64: int  # instructions that touch float64
    resources: Resources

    def faults(self) -> list[str]:
        """What must not be, each as a phrase; empty for a clean kernel."""
        r, threads = self.resources, self.threads or LARGEST_BLOCK
        found = []
        if r.spill_stores or r.spill_loads:
            found.append(f"spills {r.spill_stores} bytes and loads {r.spill_loads}")
        if r.stack:
            found.append(f"keeps {r.stack} bytes in local memory")
        if self.float64 and self.dtype != "float64":
            found.append(f"has {self.float64} float64 instructions")
        if not r.fits(threads):
            found.append(f"takes {r.registers} registers, too many for a block of {threads} threads in {REGISTERS}")
        return found


def compile_unit(path: str, dtype: str, architectures: Iterable[int]) -> Iterator[Compiled]:
    """The kernels of a CUDA C++ file (its path below kernels/), as CuPy compiles them."""
    yield from compile_source(path, source.read(path), source.options(dtype), dtype, architectures)


def compile_source(file: str, text: str, options: Sequence[str], dtype: str, architectures: Iterable[int]) -> Iterator[Compiled]:
    """PTX tells of float64 and of launch bounds, neither of which depends on more than whether an architecture is an old one or a new one:
    that of the first and of the last is read."""
    architectures = sorted(architectures)
    codes = [without_driver.ptx(text, options, architecture) for architecture in {architectures[0], architectures[-1]}]
    threads = launch_bounds(codes[0])
    counts = [float64_instructions(code) for code in codes]
    not_inlined = max(sum(count for name, count in found.items() if name not in threads) for found in counts)
    for architecture in architectures:
        for kernel, resources in sorted(parse(without_driver.ptxas_report(text, options, architecture)).items()):
            float64 = max(found[kernel] for found in counts) + not_inlined
            yield Compiled(file, kernel, dtype, architecture, threads[kernel], float64, resources)


def compile_numba(file: str, kernel: str, dtype: str, architectures: Iterable[int]) -> Iterator[Compiled]:
    """A Numba-CUDA kernel of a file below kernels/: compiled to PTX by numba-cuda, and by ptxas from there on."""
    module = importlib.import_module("minirnn.kernels." + file.removesuffix(".py").replace("/", "."))
    function = getattr(module, kernel).py_func
    for architecture in architectures:
        code = without_driver.numba_ptx(function, signature_of(function, dtype), architecture)
        (resources,) = parse(without_driver.assemble(code, architecture)).values()
        float64 = sum(float64_instructions(code).values())
        yield Compiled(file, kernel, dtype, architecture, THREADS, float64, resources.with_shared(shared_in(code)))


def listed_in_sources(files: Sequence[str] = ()) -> Listed:
    """Every kernel there is: file, name, dtype."""
    found = {
        (unit.path, kernel, dtype)
        for unit in source.UNITS
        for kernel in re.findall(r"__global__\s+void\s+(?:__launch_bounds__\s*\([^)]*\)\s*)?(\w+)\s*\(", source.read(unit.path))
        for dtype in unit.dtypes
    }
    found |= {(file, kernel, dtype) for file, kernels in numba_files().items() for kernel in kernels for dtype in source.REAL}
    return {entry for entry in found if not files or entry[0] in files}


def read(table: str) -> list[Compiled]:
    """The rows of a table that `markdown` wrote; what it says of all architectures at once holds for each."""
    found, file, architectures = list[Compiled](), "", list[int]()
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if heading := re.match(r"## `([^`]+)`", line):
            file = heading[1]
        elif line.startswith("| kernel |"):
            architectures = [int(cell.removeprefix("sm_")) for cell in cells if cell.startswith("sm_")]
        elif line.startswith("| `"):
            kernel, dtype, threads, *registers = cells[: 3 + len(architectures)]
            shared, spilled, local, barriers, float64 = map(int, cells[3 + len(architectures) :])
            for architecture, count in zip(architectures, registers, strict=True):
                takes = Resources(int(count), local, spilled, 0, shared, barriers)
                bound = None if threads == "any" else int(threads)
                found.append(Compiled(file, kernel.strip("`"), dtype, architecture, bound, float64, takes))
    return found


def listed_in(table: str) -> Listed:
    """Every kernel that a table written by `markdown` has a row for."""
    return {(c.file, c.kernel, c.dtype) for c in read(table)}


def numba_files() -> dict[str, list[str]]:
    """Every file with Numba-CUDA kernels, below kernels/, and their names."""
    kernel = re.compile(r"^@cuda\.jit\ndef (\w+)\(", re.MULTILINE)
    files = sorted([*source.KERNELS.glob("*/numba_cuda.py"), source.KERNELS / "cuda" / "numba_rows.py"])
    found = {str(path.relative_to(source.KERNELS)): kernel.findall(path.read_text()) for path in files}
    return {file: kernels for file, kernels in found.items() if kernels}


def signature_of(function: Callable[..., Any], dtype: str) -> str:
    """The types of a Numba-CUDA kernel's arguments, from its docstring and its annotations.

    A line `name  (S, H)  ...` of the docstring makes an argument an array, of `dtype` unless the line says int32; bool and int are scalars.
    """
    arrays = {}
    for line in (function.__doc__ or "").splitlines():
        documented = re.match(r"\s+(\w+(?:, \w+)*)\s{2,}\(([^)]*)\)(.*)", line)
        if documented:
            dimensions = len([part for part in documented[2].split(",") if part.strip()])
            kind = "int32" if "int32" in documented[3] else dtype
            for name in documented[1].split(", "):
                arrays[name] = f"{kind}[{':, ' * (dimensions - 1)}::1]"
    scalars = {"int": "int64", "bool": "boolean"}
    types = []
    for name, parameter in inspect.signature(function).parameters.items():
        if name not in arrays and parameter.annotation not in scalars:
            raise ValueError(f"{function.__name__}: the docstring says no shape for {name}")
        types.append(arrays.get(name) or scalars[parameter.annotation])
    return f"void({', '.join(types)})"


def everything(files: Sequence[str], architectures: Sequence[int], failed: list[str]) -> Iterator[Compiled]:
    """All kernels of these files (none: of all), for every dtype and architecture; what does not compile is added to `failed`."""
    for unit in source.UNITS:
        for dtype in unit.dtypes if not files or unit.path in files else ():
            print(f"{unit.path}, {dtype}", file=sys.stderr, flush=True)
            try:
                yield from compile_unit(unit.path, dtype, architectures)
            except Exception as error:  # CuPy's own class, which cannot be imported without CuPy
                failed.append(f"{unit.path} ({dtype}) does not compile: {first_error(error)}")
    for file, kernels in numba_files().items():
        for kernel, dtype in product(kernels if not files or file in files else (), source.REAL):
            print(f"{file}, {kernel}, {dtype}", file=sys.stderr, flush=True)
            try:
                yield from compile_numba(file, kernel, dtype, architectures)
            except Exception as error:  # Numba's, or ptxas
                failed.append(f"{file}: {kernel} ({dtype}) does not compile: {first_error(error)}")


def first_error(error: Exception) -> str:
    """What a compiler complained of first, in one line: NVRTC's first error, or the beginning of what Numba says."""
    text = re.sub(r"\x1b\[[\d;]*m", "", str(error))  # Numba's colours
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in lines if ": error: " in line), " ".join(lines[:2])) or type(error).__name__


def markdown(compiled: Sequence[Compiled]) -> str:
    """The table, file by file."""
    architectures = sorted({c.architecture for c in compiled})
    faults = [f"`{c.kernel}`, {c.dtype}, sm_{c.architecture}, {fault}" for c in compiled for fault in c.faults()]
    by_file: dict[str, dict[tuple[str, str], list[Compiled]]] = defaultdict(lambda: defaultdict(list))
    for c in compiled:
        by_file[c.file][c.kernel, c.dtype].append(c)
    lines = [*_head(compiled, faults)]
    for file, kernels in sorted(by_file.items()):
        columns = " | ".join(f"sm_{architecture}" for architecture in architectures)
        lines += ["", f"## `{file}`", "", f"| kernel | dtype | threads | {columns} | shared | spilled | local | barriers | float64 |"]
        lines.append("|---|---|" + "---:|" * (len(architectures) + 6))
        for (kernel, dtype), row in sorted(kernels.items()):
            lines.append(_row(kernel, dtype, {c.architecture: c for c in row}, architectures))
    return "\n".join(lines) + "\n"


def _head(compiled: Sequence[Compiled], faults: Sequence[str]) -> Iterator[str]:
    what = f"{len(compiled)} combinations of kernel, dtype and architecture"
    yield "# What the compiled kernels take\n"
    if faults:
        yield f"**{len(faults)} faults** in {what}:\n"
        yield from (f"- {fault}" for fault in faults)
    else:
        yield f"No spills, no local memory, no float64 outside of float64 kernels, and one block fits a multiprocessor:\n{what}."
    versions = ", ".join(f"{name} {version}" for name, version in without_driver.versions().items())
    yield f"""
Written by `make compiled` (`python -m minirnn.kernels.cuda.compiled`), which needs no GPU: CUDA C++ as CuPy compiles it with NVRTC,
Numba-CUDA kernels through numba-cuda and ptxas.

{versions}

Below sm_NN stand registers per thread. *threads* is the largest block that a kernel was compiled for; registers times threads stay within
the {REGISTERS:,} of a multiprocessor. *shared* is static shared memory in bytes: what a plan keeps of `w_hh` comes on top at the launch,
and `minirnn explain` says how much. *spilled* and *local* are bytes per thread, *float64* counts instructions: the most of all
architectures. Every dtype is compiled for every architecture; sm_75 multiplies float16 on its tensor cores 8 numbers at a time, and
bfloat16, of which its tensor cores know nothing, on CUDA cores."""


def _row(kernel: str, dtype: str, by_architecture: dict[int, Compiled], architectures: Sequence[int]) -> str:
    row = list(by_architecture.values())
    registers = [str(by_architecture[architecture].resources.registers) for architecture in architectures]
    most = [
        max(c.resources.shared for c in row),
        max(c.resources.spill_stores + c.resources.spill_loads for c in row),
        max(c.resources.stack for c in row),
        max(c.resources.barriers for c in row),
        max(c.float64 for c in row),
    ]
    cells = [f"`{kernel}`", dtype, str(row[0].threads or "any"), *registers, *map(str, most)]
    return f"| {' | '.join(cells)} |"


def _check() -> int:
    """Whether the table lists what there is; says what it lacks or has too many."""
    written = listed_in(TABLE.read_text()) if TABLE.exists() else set()
    existing = listed_in_sources()
    for what, entries in (("is not in", existing - written), ("is gone, but in", written - existing)):
        for file, kernel, dtype in sorted(entries):
            print(f"{file}: {kernel} ({dtype}) {what} {TABLE.name}", file=sys.stderr)
    if written != existing:
        print(f"{TABLE}: out of date; make compiled writes it anew", file=sys.stderr)
    return int(written != existing)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m minirnn.kernels.cuda.compiled", description=__doc__.partition("\n")[0])
    parser.add_argument("files", metavar="FILE", nargs="*", help="below kernels/ (default: all)")
    parser.add_argument("--architecture", metavar="N", type=int, nargs="+", choices=ARCHITECTURES, help="75 for sm_75 (default: all)")
    parser.add_argument("--check", action="store_true", help="compile nothing: does COMPILED.md list the kernels and dtypes there are?")
    options = parser.parse_args(arguments)
    if options.check:
        return _check()
    for reason in (without_driver.why_not_cupy(), without_driver.why_not_numba()):
        if reason:
            print(f"cannot compile: {reason}", file=sys.stderr)
            return 2
    known = {file for file, _, _ in listed_in_sources()}
    if unknown := [file for file in options.files if file not in known]:
        print(f"no such file: {unknown[0]}; there are {', '.join(sorted(known))}", file=sys.stderr)
        return 2
    began, failed = time.monotonic(), list[str]()
    compiled = list(everything(options.files, options.architecture or ARCHITECTURES, failed))
    faults = [f"{c.file}: {c.kernel}, {c.dtype}, sm_{c.architecture}, {fault}" for c in compiled for fault in c.faults()]
    print(*failed, *faults, sep="\n", end="\n" if failed or faults else "", file=sys.stderr)
    if options.architecture:
        print(markdown(compiled), end="")
    elif not failed:
        kept = [c for c in read(TABLE.read_text()) if c.file not in options.files] if options.files and TABLE.exists() else []
        TABLE.write_text(markdown([*kept, *compiled]))
    print(f"{len(compiled)} compiled in {time.monotonic() - began:.0f} s, {len(failed) + len(faults)} at fault", file=sys.stderr)
    return int(bool(failed or faults))


if __name__ == "__main__":
    sys.exit(main())
