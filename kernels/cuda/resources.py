"""What a compiled kernel takes of a multiprocessor, as `ptxas -v` reports it, and what its PTX tells besides."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

REGISTERS = 65_536  # of 32 bits, in a multiprocessor and for one block at most (CUDA C++ Programming Guide, all of sm_75 to sm_120)
WARP = 32
UNIT = 8  # registers per thread are handed out in eights: 256 to a warp


@dataclass(frozen=True)
class Resources:
    """One kernel, compiled for one architecture. Bytes of local memory and of spills are per thread, of shared memory per block."""

    registers: int  # per thread
    stack: int  # local memory: arrays that are indexed by a variable, and what was spilled
    spill_stores: int
    spill_loads: int
    shared: int  # static; what a launch asks for comes on top
    barriers: int

    def with_shared(self, shared: int) -> Resources:
        """The same, where ptxas could not know: it counts shared memory at the link that relocatable code is waiting for."""
        return replace(self, shared=max(shared, self.shared))

    def fits(self, threads: int) -> bool:
        """Whether the registers of a multiprocessor hold one block of so many threads."""
        warps = -(-threads // WARP)
        return -(-self.registers // UNIT) * UNIT * warps * WARP <= REGISTERS


def parse(report: str) -> dict[str, Resources]:
    """The kernels of a report of `ptxas -v`, by name; ptxas itself and NVRTC with --ptxas-options=-v write it alike."""
    found = {}
    for entry in re.finditer(r"Compiling entry function '([^']+)' for '[^']+'(.*?)(?=Compiling entry function|\Z)", report, re.DOTALL):
        name, text = entry.groups()
        if re.search(r"Used \d+ registers", text) is None:
            raise ValueError(f"ptxas: the report on {name} does not say how many registers it uses: {text.strip()[:200]!r}")
        found[name] = Resources(
            registers=_number(r"Used (\d+) registers", text),
            stack=_number(r"(\d+) bytes stack frame", text),
            spill_stores=_number(r"(\d+) bytes spill stores", text),
            spill_loads=_number(r"(\d+) bytes spill loads", text),
            shared=_number(r"(\d+) bytes smem", text),
            barriers=_number(r"used (\d+) barriers", text),
        )
    return found


def float64_instructions(ptx: str) -> dict[str, int]:
    """How many instructions of each kernel, and of each function that was not inlined, touch float64; declarations do not count."""
    return {
        name: sum(1 for line in body.splitlines() if ".f64" in line and not line.lstrip().startswith((".reg", ".param", ".local", "//")))
        for _, name, _, body in _functions(ptx)
    }


def launch_bounds(ptx: str) -> dict[str, int | None]:
    """The most threads of a block that each kernel was compiled for (`__launch_bounds__`); None where it does not say."""
    bounds: dict[str, int | None] = {}
    for kind, name, head, _ in _functions(ptx):
        if kind == "entry":
            sizes = re.search(r"\.maxntid\s+(\d+)(?:,\s*(\d+))?(?:,\s*(\d+))?", head)
            bounds[name] = _product(sizes.groups()) if sizes else None
    return bounds


def shared_in(ptx: str) -> int:
    """Bytes of static shared memory that a PTX file declares."""
    sizes = re.findall(r"^[ \t]*(?:\.visible )?\.shared \.align \d+ \.b8 [\w$]+\[(\d+)\];", ptx, re.MULTILINE)
    return sum(map(int, sizes))


def _functions(ptx: str) -> Iterator[tuple[str, str, str, str]]:
    """Every function of a PTX file that has a body: "entry" or "func", its name, its head, and its body.

    A body ends where the next function begins: braces tell nothing, inline assembly brings its own.
    """
    begin = re.compile(r"^[ \t]*(?:\.visible |\.weak |\.extern )*\.(entry|func)\b\s*(?:\([^)]*\)\s*)?([\w$]+)([^{;]*)([{;])", re.MULTILINE)
    heads = list(begin.finditer(ptx))
    for head, following in zip(heads, [*heads[1:], None], strict=True):
        if head[4] == "{":
            yield head[1], head[2], head[3], ptx[head.end() : following.start() if following else len(ptx)]


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    return int(found[1]) if found else 0


def _product(sizes: tuple[str | None, ...]) -> int:
    product = 1
    for size in sizes:
        product *= int(size or 1)
    return product
