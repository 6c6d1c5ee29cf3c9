"""`minirnn demo`: a model learns before one's eyes, and is then tried out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minirnn.commands.options import add_device
from minirnn.commands.parser import Commands, add_command, positive, seed
from minirnn.commands.program import command

if TYPE_CHECKING:
    from minirnn.training import Task

SAMPLES = 8


def add(commands: Commands) -> None:
    parser = add_command(
        commands, "demo", run, "watch a model learn for a few minutes, and then try it", "minirnn demo captioner\n  minirnn demo all"
    )
    parser.add_argument("name", metavar="NAME", nargs="?", default="seq2seq", help="a model, or all (default: seq2seq)")
    parser.add_argument("--minutes", metavar="M", type=positive, help="of training (default: the model's own, at most 3)")
    parser.add_argument("--out", metavar="DIR", type=Path, help="the run's folder (default: runs/demo-NAME, with a number if there is one)")
    parser.add_argument("--seed", metavar="S", type=seed, default=0, help="of everything random (default: 0)")
    add_device(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress, results alone")


def run(arguments: argparse.Namespace) -> int:
    from minirnn.errors import MinirnnError
    from minirnn.training import registry

    names = registry.names() if arguments.name == "all" else (arguments.name,)
    if arguments.out is not None and arguments.name == "all":
        raise MinirnnError("demo all makes one folder for each model: leave out --out")
    for number, name in enumerate(names, 1):
        if len(names) > 1:
            print(f"\n{number} of {len(names)}: {name}\n")
        code = _demo(name, arguments)
        if code:
            return code
    return 0


def _demo(name: str, arguments: argparse.Namespace) -> int:
    import sys

    from minirnn.commands.evaluate import evaluate_task, print_scores
    from minirnn.commands.train import ENDINGS, kernel_for, new_run, train_new
    from minirnn.training import registry

    demo = registry.find(name).demo
    settings = {**demo.settings, "minutes": arguments.minutes or demo.minutes, "epochs": demo.settings.get("epochs", 0)}
    described = {"out": arguments.out, "seed": arguments.seed, "device": arguments.device, "folder_name": f"demo-{name}"}
    made = new_run(name, data=demo.data, settings=settings, **described)
    print(demo.title)
    print(f"At most {settings['minutes']:g} minutes of training; the run is kept in {made.folder}.\n", flush=True)

    def prepared(task: Task[Any, Any]) -> None:
        print(f"{task.describe()}\n", flush=True)

    task, outcome = train_new(made, arguments.quiet, prepared)
    if outcome.reason == "interrupted":
        print(f"stopped; go on with\n  {command('train', '--resume', made.folder)}", file=sys.stderr)
        return 130
    state = outcome.state
    epochs = state.passes
    print(f"{ENDINGS[outcome.reason]}: {state.step:,} updates, {epochs:.1f} epochs, {state.elapsed / 60:.1f} minutes\n")
    with kernel_for(device=made.device):
        made.load_best(task)
        print(f"{demo.examples}:")
        _print_table(task.samples(SAMPLES))
        print(f"\n{demo.scored}:")
        print_scores(evaluate_task(task, "test", {}))
        _draw(task, made.folder)
    print("\nTry next:")
    for following in [*task.hints(made.folder), ["evaluate", str(made.folder)]]:
        print(f"  {command(*following)}")
    return 0


def _print_table(rows: list[dict[str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*rows[0], box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(value.replace("[", r"\[") for value in row.values()))
    Console(highlight=False).print(table)


def _draw(task: Task[Any, Any], folder: Path) -> None:
    from minirnn.training.pictures import NoMatplotlib

    try:
        drawn = [path for path in [folder / "curve.png", *task.pictures(folder)] if path.exists()]
    except NoMatplotlib:
        return  # was said at the end of the training
    print("\nPictures:")
    for path in drawn:
        print(f"  {path}")
