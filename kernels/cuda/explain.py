"""The plan of a recurrence on a GPU in words: form, tiles, what lies on chip, bytes and operations, floor, and predicted time."""

from __future__ import annotations

import importlib
import textwrap
from collections.abc import Iterator
from math import prod

from minirnn.kernels.cuda import predict
from minirnn.kernels.cuda.devices import BARRIER, KIB, LAUNCH, MIB, PUBLISHED, Device, here
from minirnn.kernels.cuda.numba_plan import THREADS, WARP, geometry
from minirnn.kernels.cuda.plan import MOST_TILES, WARPS, Plan, forced, plan
from minirnn.kernels.cuda.predict import DIRECTIONS, Blocks, Layer, Range, Step

WIDTH = 140
KEPT = {"lstm": {"gates": 4, "c": 1, "h": 1}, "gru": {"gates": 3, "hn": 1, "h": 1}, "rnn": {"h": 1}}  # for the backward pass


def describe(cell: str, T: int, N: int, D: int, H: int, dtype: str, device: str, kernel: str = "cupy") -> list[str]:
    """Lines on T steps of N sequences of `cell`, D features in and H hidden units.

    device   "cuda", "cuda:<index>" or "emulated": the one that is here; or one of PUBLISHED, which need not be
    kernel   "cupy" or "numba-cuda": whose plan
    """
    chip, layer = _find(device), Layer(cell, T, N, D, H, dtype)
    lines = [_limits(chip, device), ""]
    for direction in DIRECTIONS:
        lines += [*_direction(layer, direction, chip, kernel), ""]
    lines += [*_whole(layer, chip), "", *_table(layer, kernel)]
    return [part for line in lines for part in _wrapped(line)]


def plan_of(kernel: str, step: Step, chip: Device) -> Plan:
    """The plan of a kernel, "cupy" or "numba-cuda", for a step of all N sequences."""
    if kernel == "cupy":
        return plan(step.cell, step.direction, step.H, step.N, step.dtype, chip)
    found = geometry(step.cell, step.H, step.N, step.size, chip)
    sizes = step.cell, step.direction, step.H, step.N, step.dtype, chip
    tiles, asked = 0 if isinstance(found, str) else -(-step.N // (found.rows * found.groups)), forced()
    if isinstance(found, str):
        why = found
    elif asked == "step":
        why = "the step form was asked for"
    elif tiles > MOST_TILES and asked is None:
        why = f"a block would take {tiles} tiles in turn, and the library's product is quicker"
    else:
        why = "the persistent form was asked for" if asked else "keeps w_hh on chip, and one launch serves all steps"
        return Plan(*sizes, "persistent", found.units, found.rows, found.grid, found.block, found.shared, False, why)
    return Plan(*sizes, "step", 0, 0, (-(-step.N * step.H // THREADS),), (THREADS,), 0, False, why)


def blocks_of(found: Plan) -> Blocks | None:
    """What predictions need of a plan; None for the step form."""
    if found.form != "persistent":
        return None
    loads = 0  # slice.cuh: the warps share out the slice, and each number of it is read once per tile
    if len(found.block) == 2:  # numba_rows.py: every thread reads x and w, of all gates forward, of one column backward
        loads = prod(found.block) // WARP * (1 + (predict.GATES[found.cell] if found.direction == "forward" else 1))
    return Blocks(found.slices, found.units, found.groups, found.rows, loads)


def _wrapped(line: str) -> list[str]:
    return textwrap.wrap(line, WIDTH, initial_indent="  ", subsequent_indent=" " * 12, drop_whitespace=True) or [""]


def _find(device: str) -> Device:
    if device in PUBLISHED:
        return PUBLISHED[device]
    kind, _, index = device.partition(":")
    if kind == "emulated":
        return here(importlib.import_module("minirnn.kernels.emulator.stand_in"))
    if kind != "cuda":
        raise ValueError(f'explain: device must be "cuda", "emulated" or one of {", ".join(PUBLISHED)}, got {device!r}')
    cupy = importlib.import_module("cupy")
    with cupy.cuda.Device(int(index or 0)):
        return here(cupy)


def _limits(chip: Device, asked: str) -> str:
    source = "as published" if asked in PUBLISHED else "as the device says"
    return (
        f"{chip.name}, {source}: {chip.multiprocessors} multiprocessors; of each, {chip.registers * 4 // KIB} KiB of registers, and "
        f"{chip.shared_per_block / KIB:.0f} KiB of shared memory for one block; {chip.l2 / MIB:.0f} MiB of L2"
    )


def _direction(layer: Layer, direction: str, chip: Device, kernel: str) -> Iterator[str]:
    step = layer.step(direction)
    found = plan_of(kernel, step, chip)
    blocks, unit = blocks_of(found), "tensor cores" if found.tensor_cores else "CUDA cores"
    if blocks is None:
        grid = f"{found.grid[0]} blocks of {prod(found.block)} threads"
        yield f"{direction:<10}step form: for each step a library product and a pointwise kernel, {grid}"
        yield f"{'':<10}not persistent: {found.why}"
        yield f"on chip   nothing from one step to the next; w_hh, {_bytes(step.weights)}, is read again in every step"
    else:
        grid = f"{blocks.columns} x {blocks.groups} blocks of {prod(found.block)} threads"
        barriers = "one grid barrier a step" if blocks.barriers else "no grid barrier: one block holds all units"
        slice_ = step.gates * blocks.units * layer.H * step.size
        yield f"{direction:<10}persistent: {grid}, one launch for all {layer.T} steps, {barriers}"
        tiles = f"{_tiles(blocks, layer.N)} of {blocks.rows} sequences"
        yield f"{'':<10}a block owns {blocks.units} hidden units and takes {tiles} a step, on {unit}"
        yield f"{'':<10}not step by step: {found.why}"
        shared = f"{found.shared / KIB:.0f} of {chip.shared_per_block / KIB:.0f} KiB of shared memory"
        yield f"on chip   {shared}: its slice of w_hh, {slice_ / KIB:.0f} KiB, and rows and sums on their way;"
        yield f"{'':<10}{_bytes(_sums(found, step))} of {chip.registers * 4 // KIB} KiB of registers: the sums of a tile"
    moved = f"reads {_list(step.moved.read)} and writes {_list(step.moved.written)} per unit and row"
    yield f"one step  {_operations(step.operations)}; {moved}: {_bytes(step.memory)}"
    if blocks is not None:
        yield f"{'':<10}{_exchange(step, blocks)}"
    yield from _times(step, blocks, chip)


def _tiles(blocks: Blocks, N: int) -> str:
    passes = blocks.passes(N)
    return "one tile" if passes == 1 else f"{passes} tiles"


def _sums(found: Plan, step: Step) -> int:
    """Bytes of the sums that a block keeps in registers. In slice.cuh each warp has its own of the whole tile, and on CUDA cores several
    lanes share out k where there are fewer than 32 columns."""
    columns = found.units * (step.gates if step.direction == "forward" else 1)
    numbers = found.rows * columns
    if len(found.block) == 1:
        numbers *= WARPS * (1 if found.tensor_cores else {8: 4, 16: 2}.get(columns, 1))
    return numbers * max(4, step.size)


def _exchange(step: Step, blocks: Blocks) -> str:
    what = "h_{t-1}" if step.direction == "forward" else "dz_t"
    numbers = step.exchanged * step.N * step.H * step.size
    return f"{what}, {_bytes(numbers)}, is read by each of {blocks.columns} blocks: {_bytes(blocks.columns * numbers)} from L2"


def _times(step: Step, blocks: Blocks | None, chip: Device) -> Iterator[str]:
    try:
        floor = step.floor(chip)
        predicted = predict.stepwise(step, chip) if blocks is None else predict.persistent(step, blocks, chip)
    except ValueError as error:
        yield f"floor     {error}"
        return
    peak, bandwidth = chip.rate(step.dtype) or 0.0, chip.bandwidth or 0.0
    bound = "operations" if step.operations / peak >= step.memory / bandwidth else "memory"
    yield f"floor     {_micro(floor)} us a step, bound by {bound}: {peak / 1e12:.3g} TFLOP/s, {bandwidth / 1e12:.3g} TB/s"
    yield f"predicted {_range(predicted)} us a step, NOT MEASURED"
    yield f"{'':<10}that is {_formula(step, blocks, chip)}"
    if blocks is not None:
        yield f"{'':<10}in the step form {_range(predict.stepwise(step, chip))} us: {_formula(step, None, chip)}"


def _formula(step: Step, blocks: Blocks | None, chip: Device) -> str:
    if blocks is None:
        launches = f"two launches of {LAUNCH[0] * 1e6:.1f} to {LAUNCH[1] * 1e6:.0f}"
        return f"the product (operations or w_hh), the gates' traffic, and {launches}"
    times = ", ".join(f"{name} {_micro(seconds)}" for name, seconds in predict.parts(step, blocks, chip).items())
    barrier = f"; and a barrier of {BARRIER[0] * 1e6:.1f} to {BARRIER[1] * 1e6:.0f}" if blocks.barriers else ""
    return f"the largest of {times}{barrier}"


def _whole(layer: Layer, chip: Device) -> Iterator[str]:
    kept = KEPT[layer.cell]
    rows = layer.T * layer.N * layer.H * predict.SIZES[layer.dtype]
    yield f"kept      for the backward pass, per unit and row, {_list(kept)}: {_bytes(sum(kept.values()) * rows)}"
    for direction in DIRECTIONS:
        products = ", ".join(layer.products(direction))
        line = f"{'layer' if direction == 'forward' else '':<10}{direction}, with {products}: {_operations(layer.operations(direction))}"
        try:
            yield f"{line}, floor {_milli(layer.floor(direction, chip))} ms"
        except ValueError:
            yield line


def _table(layer: Layer, kernel: str) -> Iterator[str]:
    """The same plan's question asked of every published device."""
    yield f"{'predicted, NOT MEASURED':<30}" + "".join(f"{name:>22}" for name in PUBLISHED)
    rows: dict[str, list[str]] = {}
    for chip in PUBLISHED.values():
        total, floor = Range(0.0, 0.0), 0.0
        for direction in DIRECTIONS:
            step = layer.step(direction)
            found = plan_of(kernel, step, chip)
            blocks = blocks_of(found)
            one = predict.stepwise(step, chip) if blocks is None else predict.persistent(step, blocks, chip)
            total += layer.predicted(direction, chip, blocks)
            floor += layer.floor(direction, chip)
            rows.setdefault(f"{direction}: form", []).append(found.form)
            rows.setdefault(f"{direction}: a step, us", []).append(_range(one))
            if direction == "forward":
                rows.setdefault("forward: layer, ms", []).append(_range(total, 1e3))
        rows.setdefault("both ways: layer, ms", []).append(_range(total, 1e3))
        rows.setdefault("both ways: floor, ms", []).append(_milli(floor))
    for name, cells in rows.items():
        yield f"{name:<30}" + "".join(f"{cell:>22}" for cell in cells)


def _list(numbers: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in numbers.items())


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} GiB"


def _operations(count: float) -> str:
    for unit in ("", "k", "M", "G"):
        if count < 1000:
            return f"{count:.3g} {unit}FLOP"
        count /= 1000
    return f"{count:.3g} TFLOP"


def _micro(seconds: float) -> str:
    return f"{seconds * 1e6:.3g}"


def _milli(seconds: float) -> str:
    return f"{seconds * 1e3:.3g}"


def _range(seconds: Range, factor: float = 1e6) -> str:
    return f"{seconds.least * factor:.3g} to {seconds.most * factor:.3g}"
