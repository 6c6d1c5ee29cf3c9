"""`minirnn evaluate`: the scores of a trained run."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minirnn.commands.options import add_device, add_json, add_run, add_translation, given
from minirnn.commands.parser import Commands, add_command, positive_integer
from minirnn.commands.train import kernel_for
from minirnn.errors import MinirnnError

if TYPE_CHECKING:
    from minirnn.training import Task

SPLITS = ("train", "valid", "test")
OPTIONS = ("beam", "length_penalty", "coverage_penalty", "copy_unknown", "samples", "against")


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "evaluate",
        run,
        "score a trained run on data that it was not trained on",
        "minirnn evaluate runs/seq2seq --beam 5\n  minirnn evaluate runs/vae --samples 500 --against runs/lm --json",
    )
    add_run(parser)
    parser.add_argument("--split", choices=SPLITS, default="test", help="which part of the data (default: test)")
    add_translation(parser)
    parser.add_argument("--samples", metavar="K", type=positive_integer, help="of importance-weighted and particle bounds: how many")
    parser.add_argument("--against", metavar="RUN", type=Path, help="another run on the same data, scored beside it")
    parser.add_argument("--data-dir", metavar="DIR", help="where the data files lie now, if they were moved")
    add_device(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    from dataclasses import replace

    from minirnn.training import Run

    run = Run.open(arguments.run)
    if arguments.data_dir is not None:
        run = replace(run, data=replace(run.data, folder=arguments.data_dir))
    with kernel_for(device=arguments.device) as device:
        task, options = run.task(device), given(arguments, *OPTIONS)
        unknown = options.keys() - task.evaluation_options
        if unknown:
            raise MinirnnError(f"{run.folder} is a run of {run.model}, which has no --{min(unknown).replace('_', '-')}")
        scores = evaluate_task(task, arguments.split, options)
    if arguments.json:
        shown = {"run": str(run.folder), "model": run.model, "data": run.data.source, **scores}
        print(json.dumps(shown, ensure_ascii=False, default=str))
    else:
        print_scores(scores)
    return 0


def evaluate_task(task: Task[Any, Any], split: Any, options: dict[str, Any]) -> dict[str, Any]:
    from minirnn.autograd import no_grad

    task.model.eval()
    with no_grad():
        return task.evaluate(split, **options)


def print_scores(scores: dict[str, Any]) -> None:
    """One line for each score; a score that is itself a table of scores is indented under its name."""
    for line in _lines(scores, ""):
        print(line)


def _lines(scores: dict[str, Any], indent: str) -> list[str]:
    width = max(map(len, scores), default=0)
    lines = []
    for name, value in scores.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}", *_lines(value, indent + "  ")]
        else:
            lines.append(f"{indent}{name:<{width}}  {_number(value) if isinstance(value, float) else value}")
    return lines


def _number(value: float) -> str:
    """Four digits, and of large numbers one after the point."""
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:.1f}"
