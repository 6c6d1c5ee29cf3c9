"""How long a step should take: floors that no kernel can pass, and predictions for a plan. Nothing here is measured.

Time of one step for N running sequences, H hidden units and G gates (README.md of each cell has the products):

    (1)  operations   2 N G H^2                       h_{t-1} @ w_hh^T forward, dz_t @ w_hh backward
    (2)  memory       numbers per row and unit, by the cell's table below, N H of them: what a step must read and write at least
    (3)  floor        max(operations / peak, memory / bandwidth)

The persistent form keeps w_hh on chip. Its grid is C blocks of U hidden units each, times Y groups that share out the batch in tiles of R
rows, of which a block multiplies P = ceil(ceil(N / R) / Y), whole ones. ceil(C Y / M) blocks lie on the busiest of M multiprocessors.

    (4)  product      ceil(C Y / M) P 2 R G U H / (peak / M)           on the busiest multiprocessor
    (5)  on chip      ceil(C Y / M) P G U H size / (128 clock)         the slice of w_hh leaves shared memory once per tile; or, where
                                                                       each warp reads it for itself, L times a clock for each k
    (6)  exchange     (C N E H size + memory) / L2 bandwidth           C blocks read each row of h_{t-1} (E = 1) or of dz_t (E = G)
    (7)  step         max((3), (4), (5), (6)) + barrier                one grid barrier, none where C = 1

The step form launches a library product and a pointwise kernel.

    (8)  weights      G H^2 size / (L2 bandwidth if they fit there, else bandwidth)
    (9)  step         max(operations / peak, (8)) + (product's result written and read again + memory) / bandwidth + 2 launches

A barrier and a launch have a range (devices.py), so a prediction has one too: least and most.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from minirnn.kernels.cuda.devices import BARRIER, LAUNCH, Device

SHARED_BYTES_PER_CLOCK = 128  # 32 banks of 4 bytes, per multiprocessor (CUDA C++ Programming Guide)
SIZES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
DIRECTIONS = ("forward", "backward")


class Range(NamedTuple):
    """Seconds, from the best latency to the worst."""

    least: float
    most: float

    def __add__(self, other: object) -> Range:
        if not isinstance(other, Range):
            return NotImplemented
        return Range(self.least + other.least, self.most + other.most)

    def times(self, factor: float) -> Range:
        return Range(factor * self.least, factor * self.most)


class Moved(NamedTuple):
    """Numbers that one step reads from and writes to global memory, per row and hidden unit, by what they are."""

    read: dict[str, int]
    written: dict[str, int]

    @property
    def numbers(self) -> int:
        return sum(self.read.values()) + sum(self.written.values())


GATES = {"lstm": 4, "gru": 3, "rnn": 1}
MOVED: dict[tuple[str, str], Moved] = {
    ("lstm", "forward"): Moved({"z": 4}, {"gates": 4, "c": 1, "h": 1}),
    ("lstm", "backward"): Moved({"gates": 4, "c": 1, "dh": 1}, {"dz": 4}),
    ("gru", "forward"): Moved({"z": 3}, {"gates": 3, "hn": 1, "h": 1}),
    ("gru", "backward"): Moved({"gates": 3, "hn": 1, "h": 1, "dh": 1}, {"dz": 3}),
    ("rnn", "forward"): Moved({"z": 1}, {"h": 1}),
    ("rnn", "backward"): Moved({"h": 1, "dh": 1}, {"dz": 1}),
}


@dataclass(frozen=True)
class Step:
    """One step of a recurrence, whatever runs it."""

    cell: str
    direction: str
    N: int
    H: int
    dtype: str

    @property
    def size(self) -> int:
        return SIZES[self.dtype]

    @property
    def gates(self) -> int:
        return GATES[self.cell]

    @property
    def moved(self) -> Moved:
        return MOVED[self.cell, self.direction]

    @property
    def operations(self) -> int:
        """(1)"""
        return 2 * self.N * self.gates * self.H**2

    @property
    def memory(self) -> int:
        """(2), in bytes"""
        return self.moved.numbers * self.N * self.H * self.size

    @property
    def weights(self) -> int:
        """Bytes of w_hh."""
        return self.gates * self.H**2 * self.size

    @property
    def exchanged(self) -> int:
        """E: the numbers per row and unit that every block must read of all others."""
        return 1 if self.direction == "forward" else self.gates

    def floor(self, device: Device) -> float:
        """(3), in seconds. Raises ValueError where the device's rates are unknown."""
        peak, bandwidth = _rates(device, self.dtype)
        return max(self.operations / peak, self.memory / bandwidth)


@dataclass(frozen=True)
class Blocks:
    """What of a persistent plan its time depends on."""

    columns: int  # C: blocks side by side, that share out the hidden units
    units: int  # U
    groups: int  # Y
    rows: int  # R
    loads: int = 0  # L: reads of shared memory by all warps of a block, for each of the H or G H numbers of a row; 0: once per tile, whole

    @property
    def barriers(self) -> int:
        """Grid barriers of a step: a block that owns all units waits for nobody."""
        return int(self.columns > 1)

    def crowd(self, device: Device) -> int:
        """Blocks on the busiest multiprocessor."""
        return -(-self.columns * self.groups // device.multiprocessors)

    def passes(self, N: int) -> int:
        """P"""
        tiles = -(-N // self.rows)
        return -(-tiles // self.groups)


def persistent(step: Step, plan: Blocks, device: Device) -> Range:
    """(7): one step of the persistent form, predicted."""
    work = max(parts(step, plan, device).values())
    return Range(*(work + plan.barriers * barrier for barrier in BARRIER))


def parts(step: Step, plan: Blocks, device: Device) -> dict[str, float]:
    """(3) to (6), in seconds: the largest of them is the work of a step."""
    peak, _ = _rates(device, step.dtype)
    if device.clock is None or device.l2_bandwidth is None:
        raise ValueError(f"no prediction for {device.name}: its clock or its L2 bandwidth is not known")
    M, passes = device.multiprocessors, plan.crowd(device) * plan.passes(step.N)  # of all blocks on the busiest multiprocessor
    slice_ = step.gates * plan.units * step.H
    on_chip = slice_ * step.size / SHARED_BYTES_PER_CLOCK if not plan.loads else plan.loads * step.exchanged * step.H  # clocks
    exchanged = plan.columns * step.N * step.exchanged * step.H * step.size
    return {
        "floor": step.floor(device),
        "product": passes * 2 * plan.rows * slice_ / (peak / M),
        "on chip": passes * on_chip / device.clock,
        "exchange": (exchanged + step.memory) / device.l2_bandwidth,
    }


def stepwise(step: Step, device: Device) -> Range:
    """(9): one step of the step form, predicted."""
    peak, bandwidth = _rates(device, step.dtype)
    cached = step.weights <= device.l2 and device.l2_bandwidth is not None
    product = max(step.operations / peak, step.weights / (device.l2_bandwidth if cached and device.l2_bandwidth else bandwidth))
    result = 2 * (step.gates if step.direction == "forward" else 1) * step.N * step.H * step.size
    pointwise = (result + step.memory) / bandwidth
    return Range(*(product + pointwise + 2 * launch for launch in LAUNCH))


@dataclass(frozen=True)
class Layer:
    """A whole layer: T steps of N sequences, D features in, with its products over all rows."""

    cell: str
    T: int
    N: int
    D: int
    H: int
    dtype: str

    def step(self, direction: str) -> Step:
        return Step(self.cell, direction, self.N, self.H, self.dtype)

    def products(self, direction: str) -> dict[str, tuple[int, int]]:
        """Operations and least bytes of each matrix product over all S = T N rows."""
        S, D, size = self.T * self.N, self.D, SIZES[self.dtype]
        wide = GATES[self.cell] * self.H
        if direction == "forward":
            return {"z = x w_ih^T": (2 * S * D * wide, size * (S * D + D * wide + S * wide))}
        return {
            "dw_hh = dz^T h": (2 * S * self.H * wide, size * (S * wide + S * self.H + self.H * wide)),
            "dw_ih = dz^T x": (2 * S * D * wide, size * (S * wide + S * D + D * wide)),
            "dx = dz w_ih": (2 * S * D * wide, size * (S * wide + D * wide + S * D)),
        }

    def operations(self, direction: str) -> int:
        return self.T * self.step(direction).operations + sum(operations for operations, _ in self.products(direction).values())

    def floor(self, direction: str, device: Device) -> float:
        """Seconds: every step and every product at its own floor."""
        return self.T * self.step(direction).floor(device) + self.products_floor(direction, device)

    def products_floor(self, direction: str, device: Device) -> float:
        peak, bandwidth = _rates(device, self.dtype)
        return sum(max(operations / peak, moved / bandwidth) for operations, moved in self.products(direction).values())

    def predicted(self, direction: str, device: Device, plan: Blocks | None) -> Range:
        """Seconds of the layer: its steps as predicted for the plan (None: for the step form), and its products at their floor."""
        step = self.step(direction)
        one = stepwise(step, device) if plan is None else persistent(step, plan, device)
        products = self.products_floor(direction, device)
        return one.times(self.T) + Range(products, products)


def _rates(device: Device, dtype: str) -> tuple[float, float]:
    peak = device.rate(dtype)
    if peak is None or device.bandwidth is None:
        raise ValueError(f"no floor for {device.name}: its peak rates are not known; they are for H100, A100 and RTX 4090")
    return peak, device.bandwidth
