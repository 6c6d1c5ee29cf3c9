"""Gradient checkpointing: memory and time of an LSTM layer against the number of segments, and of computing the gates again.

    found = mr.study.checkpointing(T=1000, segments=(1, 2, 4, 8, 16, 32, 64))
    print(found)
    found.draw("checkpointing.png")

T steps are cut into s segments. Of each its first state is kept and, as everywhere, the outputs h; what the backward pass needs beside is
computed again, segment by segment, when its turn comes (`mr.checkpoint` over the chunks of time). In numbers per hidden unit and sequence,

    kept between the passes     T + 2 s                  against 6 T of a layer that keeps its gates
    and in the backward pass    one segment, 6 T / s     so that the peak is least near s = sqrt(3 T)
    time                        the forward pass twice, whatever s is

`recompute=` of a layer is the other way: it keeps h and c, 2 T numbers, and gets the gates from two products over many steps at once, which
is not the forward pass again. `minirnn bench memory` has the same ways over T, and beside PyTorch's.

Every row is measured as there: its gradients are those of `store`, else it is an error; the memory is that of fresh processes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from minirnn.kernels import workers

MB = 1e6
WAYS = ("store", "recompute-half", "recompute")


@dataclass(frozen=True)
class Row:
    """One way to keep less.

    Args:
        way: "store", "recompute-half", "recompute" or "checkpoint".
        segments: of "checkpoint"; else None.
        kept: bytes of all arrays between the passes.
        peak: bytes by which a fresh process grows in a step, at most; None where nobody counts (other systems than Linux).
        seconds: of forward and backward, the median.
        over_store: the median ratio to the time of "store", taken in turns.
        difference: from the gradients of "store", the largest, relative to each gradient's largest element.
    """

    way: str
    segments: int | None
    kept: int
    peak: int | None
    seconds: float
    over_store: float
    difference: float

    @property
    def name(self) -> str:
        return self.way if self.segments is None else f"{self.segments} segment{'s' * (self.segments > 1)}"


@dataclass(frozen=True)
class Checkpointing:
    """What `checkpointing` found; `print` it for a table."""

    T: int
    N: int
    D: int
    H: int
    dtype: str
    rows: tuple[Row, ...]

    def __str__(self) -> str:
        lines = [f"LSTM, T={self.T} steps, N={self.N} sequences, D={self.D} features, H={self.H} hidden units, {self.dtype}"]
        lines.append(f"{'':16}{'kept MB':>10}{'peak MB':>10}{'ms':>10}{'of store':>10}{'gradient':>12}")
        for row in self.rows:
            peak = "-" if row.peak is None else f"{row.peak / MB:.1f}"
            numbers = f"{row.kept / MB:10.1f}{peak:>10}{1e3 * row.seconds:10.1f}{row.over_store:10.2f}"
            lines.append(f"{row.name:16}{numbers}{f'± {row.difference:.0e}':>12}")
        return "\n".join(lines)

    def draw(self, path: str | Path) -> Path:
        """Memory and time over the number of segments, with the other ways as lines across. Needs Matplotlib."""
        from minirnn.training import pictures

        checkpoints = [row for row in self.rows if row.segments is not None]
        s = [row.segments for row in checkpoints]
        memory, time = (picture := pictures.figure(10, 4)).subplots(1, 2)
        blue, red, *others = pictures.COLORS
        memory.plot(s, [row.kept / MB for row in checkpoints], "o-", color=blue, markersize=4, label="checkpoints, kept")
        if all(row.peak is not None for row in self.rows):
            memory.plot(s, [(row.peak or 0) / MB for row in checkpoints], "o-", color=red, markersize=4, label="checkpoints, peak")
        time.plot(s, [row.over_store for row in checkpoints], "o-", color=blue, markersize=4, label="checkpoints")
        for row, color in zip((row for row in self.rows if row.segments is None), others, strict=False):
            most, what = (row.kept, "kept") if row.peak is None else (row.peak, "peak")
            memory.axhline(most / MB, color=color, linestyle="--", linewidth=1, label=f"{row.way}, {what}")
            time.axhline(row.over_store, color=color, linestyle="--", linewidth=1, label=row.way)
        memory.set(ylabel="MB", title="memory")
        time.set(title="time of forward and backward, over that of store")
        for axes in (memory, time):
            axes.set(xlabel="s, segments of time", xscale="log", ylim=(0, None))
            axes.set_xticks(s, labels=[str(k) for k in s])
            axes.minorticks_off()
            axes.grid(alpha=0.3)
            axes.legend(fontsize=8)
        picture.suptitle(f"LSTM layer, T={self.T}, N={self.N}, D={self.D}, H={self.H}, {self.dtype}", fontsize=10)
        return pictures.save(picture, Path(path))


def checkpointing(
    *,
    T: int = 1000,
    N: int = 32,
    D: int = 64,
    H: int = 128,
    segments: Sequence[int] = (1, 2, 4, 8, 16, 32, 64),
    dtype: str = "float32",
    rounds: int = 5,
    peaks: bool = True,
    threads: int | None = None,
) -> Checkpointing:
    """Memory, time and gradients of a training step of an LSTM layer, for every number of segments and for `recompute=`.

    Args:
        T, N, D, H: steps, sequences, features, hidden units.
        segments: numbers of segments, 1 .. T each, all of one length but for a shorter one at the end; where that cannot be, there are
            a few less.
        dtype: "float32" or "float64".
        rounds: in which all take turns to be timed.
        peaks: whether to measure what processes grow by; each takes a fresh one.
        threads: that each process may use; all cores if None.
    """
    from minirnn.bench.memory import Bench
    from minirnn.bench.memory_case import Case
    from minirnn.bench.progress import Progress

    sizes = {"T": T, "N": N, "D": D, "H": H, "rounds": rounds}
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"checkpointing: {name} must be at least 1, got {value}")
    if dtype not in ("float32", "float64"):
        raise ValueError(f'checkpointing: dtype must be "float32" or "float64", got {dtype!r}')
    if not isinstance(segments, Sequence) or not segments or not all(1 <= s <= T for s in segments):
        raise ValueError(f"checkpointing: segments must be numbers from 1 to T = {T}, got {segments!r}")
    rows: list[Row] = []
    for k, s in enumerate(segments):
        length = math.ceil(T / s)
        ways = [*(WAYS if k == 0 else WAYS[:1]), "checkpoint"]
        bench = Bench([("minirnn", way) for way in ways], threads or workers.count(), rounds, peaks)
        with Progress("checkpointing", bench.units([T]), quiet=True) as silent:
            measured = bench.measure(Case(T, N, D, H, dtype, length, T), silent)
        for found in measured if k == 0 else measured[1:]:
            count = math.ceil(T / length) if found["way"] == "checkpoint" else None
            what = found["kept_bytes"], found["peak_bytes"], found["summary"].median, found["over_store"], found["gradient"]["difference"]
            rows.append(Row(found["way"], count, *what))
    return Checkpointing(T, N, D, H, dtype, tuple(rows))
