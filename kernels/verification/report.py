"""The closing table: what each tier ran, on the terminal and in VERIFIED.md. Every number in it was counted by the tier itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from minirnn.kernels.verification.mutation import Verdict

HEAD = ("tier", "kernels", "cases", "planted bugs found", "seconds")
COMMAND = "python -m minirnn.kernels.verification"


@dataclass(frozen=True)
class Row:
    """One tier. `kernels` counts a kernel once for each language, `cases` what was run or compiled."""

    number: int
    name: str
    kernels: int = 0
    cases: int = 0
    planted: tuple[int, int] | None = None  # found, of how many
    seconds: float = 0
    faults: tuple[str, ...] = ()
    not_run: str = ""  # why
    remark: str = ""

    @property
    def clean(self) -> bool:
        return not self.faults and (self.planted is None or self.planted[0] == self.planted[1])

    def cells(self) -> tuple[str, ...]:
        if self.not_run:
            return (f"{self.number} {self.name}", "-", "-", "-", "not run")
        planted = "-" if self.planted is None else f"{self.planted[0]} of {self.planted[1]}"
        kernels = str(self.kernels) if self.kernels else "-"
        return (f"{self.number} {self.name}", kernels, f"{self.cases:,}", planted, f"{self.seconds:.0f}")


def total(rows: Iterable[Row]) -> Row:
    """The last line. Kernels are not added up: the tiers run the same ones."""
    ran = [row for row in rows if not row.not_run]
    planted = [row.planted for row in ran if row.planted]
    return Row(
        0,
        "all that ran",
        cases=sum(row.cases for row in ran),
        planted=(sum(found for found, _ in planted), sum(of for _, of in planted)) if planted else None,
        seconds=sum(row.seconds for row in ran),
        faults=tuple(fault for row in ran for fault in row.faults),
    )


def table(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    last = total(rows).cells()
    return [*(row.cells() for row in rows), (last[0].removeprefix("0 "), *last[1:])]


def notes(rows: Iterable[Row]) -> list[str]:
    """Why a tier did not run, and what there is to say of one that did."""
    said = [(row.number, f"was not run: {row.not_run}" if row.not_run else row.remark) for row in rows]
    return [f"Tier {number} {remark}." for number, remark in said if remark]


def markdown(rows: Sequence[Row], verdicts: Sequence[Verdict], versions: Mapping[str, str], seconds: float) -> str:
    lines = [
        "# What is verified, and how",
        "",
        f"Written by `{COMMAND}`. Every number was counted by the run that wrote it; none is the speed of a GPU.",
        "",
        f"| {' | '.join(HEAD)} |",
        "|---|---:|---:|---:|---:|",
        *(f"| {' | '.join(cells)} |" for cells in table(rows)),
        "",
        f"{seconds:.0f} seconds in all. A kernel counts once for each language.",
        *notes(rows),
        "",
        ", ".join(f"{name} {version}" for name, version in versions.items()) + ".",
    ]
    faults = total(rows).faults
    if faults:
        lines += ["", f"**{len(faults)} faults:**", "", *(f"- {fault}" for fault in faults)]
    return "\n".join([*lines, *_planted(verdicts)]) + "\n"


def found_by(verdicts: Iterable[Verdict]) -> dict[str, int]:
    """How many planted bugs each check found, the busiest first."""
    counts = Counter(verdict.finding.by for verdict in verdicts if verdict.finding and verdict.right)
    return dict(counts.most_common())


def _planted(verdicts: Sequence[Verdict]) -> list[str]:
    if not verdicts:
        return []
    bugs = sorted((v for v in verdicts if not v.change.harmless), key=lambda v: (v.change.file, v.change.what))
    harmless = sorted((v for v in verdicts if v.change.harmless), key=lambda v: (v.change.file, v.change.what))
    lines = ["", "## Planted bugs", "", "Each is one change to the text of one file. The first check that finds it ends its run:", ""]
    lines += ["| check | bugs |", "|---|---:|", *(f"| {by} | {count} |" for by, count in found_by(bugs).items())]
    lines += ["", "| file | what is wrong | found by |", "|---|---|---|"]
    lines += [f"| `{v.change.file}` | {v.change.what} | {_cell(str(v.finding or v.fault))} |" for v in bugs]
    if harmless:
        lines += ["", "Changes that change nothing, and must be found by no check:", ""]
        lines += [f"- `{v.change.file}`: {v.change.what}{'' if v.right else ' (' + v.fault + ')'}" for v in harmless]
    return lines


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
