"""`minirnn train`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minirnn.commands.options import add_device
from minirnn.commands.parser import Commands, add_command, positive, positive_integer, seed
from minirnn.commands.program import command
from minirnn.errors import MinirnnError

if TYPE_CHECKING:
    from minirnn.training import Outcome, Run, Task

SETTLED = {"data": "--data", "data_dir": "--data-dir", "out": "--out", "seed": "--seed", "kernel": "--kernel", "bptt": "--bptt"}

ENDINGS = {
    "epochs": "all epochs are done",
    "minutes": "the minutes are used up",
    "patience": "the validations brought no improvement any more",
    "interrupted": "interrupted",
}


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "train",
        run,
        "train a model; checkpoints, metrics and pictures go to a folder, and Ctrl-C stops so that --resume can go on",
        "minirnn train seq2seq --data cldr --epochs 5 --set lr=0.002 dropout=0.2\n  minirnn train --resume runs/seq2seq --epochs 10",
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="the model, such as seq2seq; needed unless a run is resumed")
    parser.add_argument("--data", metavar="SOURCE|PATH", help="a data set (see minirnn data list) or a file")
    parser.add_argument("--data-dir", metavar="DIR", help="where downloaded data files lie, beside $MINIRNN_DATA and the cache")
    parser.add_argument("--out", metavar="DIR", type=Path, help="the run's folder (default: runs/NAME, with a number if there is one)")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--minutes", metavar="M", type=positive, help="stop after so many minutes of training, validations included")
    budget.add_argument("--epochs", metavar="E", type=positive_integer, help="stop after so many passes over the data")
    parser.add_argument("--seed", metavar="S", type=seed, help="of weights, order and dropout: one seed, one result (default: 0)")
    add_device(parser, "cpu, and for a resumed run where it was")
    parser.add_argument("--kernel", metavar="NAME", help="the recurrence's implementation (see minirnn doctor)")
    parser.add_argument(
        "--bptt",
        metavar="K1[,K2]",
        help="truncated BPTT: an update after every K1 steps of a sequence, through the last K2 (default: K1); its state is carried on",
    )
    parser.add_argument("--resume", metavar="DIR", type=Path, help="go on with this run; minutes and epochs count from its beginning")
    parser.add_argument("--set", metavar="key=value", nargs="+", action="extend", default=[], help="change hyper-parameters, listed below")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.details = models


def models() -> str:
    """Every model with its summary and, with their defaults, the settings that `--set` changes."""
    from dataclasses import asdict

    from minirnn.training import registry

    lines = ["models, and what --set changes of each (with the defaults)"]
    for name in registry.names():
        task = registry.find(name)
        settings = asdict(task.config_type()) | asdict(task.training)
        shown = " ".join(f"{key}={value}" for key, value in settings.items() if key not in task.settled_by_data)
        lines += [f"  {name}: {task.summary} (--data {task.default_data})"]
        lines += [_filled(shown)]
        for data, others in task.for_data.items():
            lines += [_filled(f"with --data {data}: " + " ".join(f"{key}={value}" for key, value in others.items()))]
    return "\n".join(lines)


def _filled(text: str) -> str:
    from textwrap import fill

    return fill(text, width=100, initial_indent="    ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)


def run(arguments: argparse.Namespace) -> int:
    outcome_of = _resume if arguments.resume is not None else _start
    made, task, outcome = outcome_of(arguments)
    if outcome.reason == "interrupted":
        print(f"stopped at update {outcome.state.step:,}; go on with\n  {command('train', '--resume', made.folder)}", file=sys.stderr)
        return 130
    if not arguments.quiet:
        report(made, task, outcome)
    return 0


def new_run(
    name: str,
    *,
    data: str | None = None,
    data_dir: str | None = None,
    out: Path | None = None,
    settings: dict[str, Any] | None = None,
    seed: int | None = None,
    device: str | None = None,
    kernel: str | None = None,
    folder_name: str | None = None,
) -> Run:
    """The description of a new run from what the user asked for; nothing is written yet."""
    from minirnn.training import DataArguments, Run, registry
    from minirnn.training.checkpoint import check_free, new_folder
    from minirnn.training.settings import apply

    task = registry.find(name)
    defaults = task.for_data.get(data or task.default_data, {})
    config, training = apply({**defaults, **(settings or {})}, task.config_type(), task.training)
    folder = out if out is not None else new_folder(folder_name or name)
    check_free(folder)
    return Run(
        folder=folder,
        model=task.name,
        config=config,
        training=training,
        data=DataArguments(_lasting(data or task.default_data), data_dir and str(Path(data_dir).absolute())),
        seed=seed or 0,
        device=device or "cpu",
        kernel=kernel,
    )


def train_new(run: Run, quiet: bool, prepared: Callable[[Task[Any, Any]], None] = lambda task: None) -> tuple[Task[Any, Any], Outcome]:
    """Train from the beginning; `prepared` is called with the task before the first update."""
    from minirnn.training import Trainer, progress
    from minirnn.training.memory import keep_freed

    keep_freed()
    with kernel_for(run.kernel, run.device):
        task = run.start()
        trainer = Trainer(task, run.training, run.seed, run, progress.make(task.unit, quiet))
        prepared(task)
        with run.lock(), run.begun(task):
            return task, _finish(run, task, trainer.fit())


@contextmanager
def kernel_for(kernel: str | None = None, device: str | None = None) -> Iterator[str]:
    """Everything on a device (None: the CPU), recurrences on the kernel of this name (None: what the environment or the machine says).

    Gives the device. Raises MinirnnError where it, or the kernel on it, cannot be used here.
    """
    from minirnn.device import device as usable
    from minirnn.kernels import registry

    try:
        where = usable(device or "cpu")
        registry.choose("lstm", dtype="float32", device=where, kernel=kernel)
    except (ValueError, RuntimeError) as error:
        raise MinirnnError(f"{error}; minirnn doctor shows what can run here") from error
    with where, registry.kernel(kernel) if kernel else nullcontext():
        yield str(where)


def report(run: Run, task: Task[Any, Any], outcome: Outcome) -> None:
    """What came out, on standard output."""
    state = outcome.state
    best = "" if state.best is None else f", best validation {task.metric.name} {state.best:.4g} at update {state.best_step:,}"
    minutes = f"{state.elapsed / 60:.1f} min"
    print(f"{ENDINGS[outcome.reason]}: {state.step:,} updates in {minutes}{best}")
    print(f"the run is in {run.folder}; next:")
    for following in [["evaluate", str(run.folder)], *task.hints(run.folder)]:
        print(f"  {command(*following)}")


def _lasting(source: str) -> str:
    """A path that holds wherever the run is used from; the name of a data set as it is, even where there is a file of that name."""
    from minirnn.data import all_sources

    named = any(source == known.name for known in all_sources())
    return str(Path(source).absolute()) if Path(source).exists() and not named else source


def _start(arguments: argparse.Namespace) -> tuple[Run, Task[Any, Any], Outcome]:
    from minirnn.training.settings import parse

    if arguments.name is None:
        raise MinirnnError("train: name a model, as in minirnn train seq2seq, or a run to go on with, by --resume DIR")
    given = ("data", "data_dir", "out", "seed", "device", "kernel")
    described = {name: getattr(arguments, name) for name in given}
    made = new_run(arguments.name, settings=parse(arguments.set) | _chosen(arguments), **described)
    return made, *train_new(made, arguments.quiet)


def _resume(arguments: argparse.Namespace) -> tuple[Run, Task[Any, Any], Outcome]:
    from dataclasses import replace

    from minirnn.device import is_device_name
    from minirnn.kernels.availability import missing
    from minirnn.training import Run, Trainer, progress
    from minirnn.training.memory import keep_freed
    from minirnn.training.settings import apply

    keep_freed()
    run = Run.open(arguments.resume)
    moved = arguments.device not in (None, run.device)
    settled = SETTLED.items() - {("kernel", "--kernel")} if moved else SETTLED.items()  # a kernel belongs to its device
    given = [option for name, option in sorted(settled) if getattr(arguments, name) is not None] + ["--set"] * bool(arguments.set)
    if given:
        raise MinirnnError(
            f"--resume keeps the settings of {run.folder}: leave out {', '.join(given)}; --minutes, --epochs and --device may change"
        )
    run = replace(run, device=arguments.device, kernel=arguments.kernel) if moved else run
    if not moved and is_device_name(run.device) and (reason := missing(run.device)) is not None:
        raise MinirnnError(f'{run.folder} was trained on device "{run.device}", which cannot be used here: {reason}; or add --device cpu')
    if arguments.name not in (None, run.model):
        raise MinirnnError(f"{run.folder} is a run of {run.model}, not of {arguments.name}")
    (training,) = apply(_budget(arguments), run.training)
    with run.lock(), kernel_for(run.kernel, run.device):
        task, arrays, state = run.resume()
        changed, run = training != run.training, replace(run, training=training)
        if changed and 0 < training.patience <= state.stale:
            state.stale = 0  # who asks for more grants new patience
        trainer = Trainer(task, training, run.seed, run, progress.make(task.unit, arguments.quiet))
        trainer.load(arrays, state, run.read_metrics(up_to=state.step))
        if changed or moved:
            run.write_config(task)
        began = state.step
        outcome = _finish(run, task, trainer.fit())
    if outcome.state.step == began and outcome.reason != "interrupted" and not arguments.quiet:
        print(f"nothing was left to do: {ENDINGS[outcome.reason]}; --epochs or --minutes with a larger number gives more", file=sys.stderr)
    return run, task, outcome


def _finish(run: Run, task: Task[Any, Any], outcome: Outcome) -> Outcome:
    """Draw the curve; without Matplotlib there is none, and training says so once."""
    from minirnn.training import pictures

    if outcome.rows:
        try:
            pictures.curve(outcome.rows, task.metric.name, run.folder / "curve.png")
        except pictures.NoMatplotlib as error:
            print(f"no {run.folder / 'curve.png'}: {error}", file=sys.stderr)
    return outcome


def _chosen(arguments: argparse.Namespace) -> dict[str, Any]:
    """Settings that have an option of their own."""
    return _budget(arguments) | ({"bptt": arguments.bptt} if arguments.bptt is not None else {})


def _budget(arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.minutes is not None:
        return {"minutes": arguments.minutes, "epochs": 0}
    return {"epochs": arguments.epochs, "minutes": 0.0} if arguments.epochs is not None else {}
