"""`minirnn profile`: where the time of a training step goes, by layer, operation and kernel."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minirnn.commands.options import add_device, add_json
from minirnn.commands.parser import Commands, add_command, positive_integer, seed
from minirnn.commands.train import kernel_for, new_run

if TYPE_CHECKING:
    from minirnn.diagnostics import Profile
    from minirnn.training import Run, Task


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "profile",
        run,
        "show where the time of a training step goes: milliseconds, bytes and FLOPs by layer, operation and kernel",
        "minirnn profile seq2seq --data cldr\n  minirnn profile runs/captioner --by kernel --steps 10",
    )
    parser.add_argument("name", metavar="NAME|RUN", help="a model, such as seq2seq, with new weights; or the folder of a run")
    parser.add_argument("--data", metavar="SOURCE|PATH", help="of a model: a data set (see minirnn data list) or a file")
    parser.add_argument("--data-dir", metavar="DIR", help="where downloaded data files lie, beside $MINIRNN_DATA and the cache")
    parser.add_argument(
        "--steps", metavar="K", type=positive_integer, default=3, help="how many, after one that is not counted (default: 3)"
    )
    parser.add_argument(
        "--by",
        choices=["place", "layer", "operation", "step", "kernel"],
        help="one table: layer, operation and direction; layers; operations; time steps too; or kernels (default: the first and the last)",
    )
    parser.add_argument("--seed", metavar="S", type=seed, help="of a model: its weights and the order of its data (default: 0)")
    parser.add_argument("--kernel", metavar="NAME", help="the recurrence's implementation (see minirnn doctor)")
    parser.add_argument("--set", metavar="key=value", nargs="+", action="extend", default=[], help="of a model: see minirnn train --help")
    add_device(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    described = _described(arguments)
    with kernel_for(arguments.kernel or described.kernel, arguments.device) as device:
        task = described.task(device) if _is_run(arguments.name) else described.start()
        cost, size = profiled(task, described, arguments.steps)
    if arguments.json:
        shown = {"model": described.model, "data": described.data.source, "steps": arguments.steps, task.unit: size}
        print(json.dumps({**shown, **cost.as_dict()}))
        return 0
    each = f"{1e3 * cost.seconds / arguments.steps:.1f} ms"
    print(f"{described.model} on {described.data.source}: {arguments.steps} steps of {each}, {size:,} {task.unit} together\n")
    print(cost if arguments.by is None else cost.table(arguments.by))
    return 0


def profiled(task: Task[Any, Any], run: Run, steps: int) -> tuple[Profile, int]:
    """What training steps on the first batches cost, after one that compiles what there is to compile; and how large the batches are."""
    import numpy as np

    from minirnn.diagnostics import profile
    from minirnn.training.loop import make_optimizer

    optimizer = make_optimizer(run.training, task.model)
    batches = task.batches(0, np.random.default_rng([run.seed, 0]))
    chosen = [batches[k % len(batches)] for k in range(steps)]
    task.model.train()

    def step(batch: Any) -> None:
        if task.update(batch, 0) is None:
            task.loss(batch, 0).backward()
            optimizer.step(max_norm=run.training.clip or np.inf)
            optimizer.zero_grad()

    step(chosen[0])
    with profile() as cost:
        for batch in chosen:
            step(batch)
    return cost, sum(task.size(batch) for batch in chosen)


def _is_run(name: str) -> bool:
    return Path(name).is_dir()


def _described(arguments: argparse.Namespace) -> Run:
    """The run, or what a new one of the model would be; nothing is written."""
    from dataclasses import replace

    from minirnn.errors import MinirnnError
    from minirnn.training import Run
    from minirnn.training.settings import parse

    if not _is_run(arguments.name):
        given = {name: getattr(arguments, name) for name in ("data", "data_dir", "seed", "device", "kernel")}
        return new_run(arguments.name, settings=parse(arguments.set), **given)
    settled = [f"--{name}" for name in ("data", "seed", "set") if getattr(arguments, name)]
    if settled:
        raise MinirnnError(f"{arguments.name} is a run, whose settings are known: leave out {', '.join(settled)}")
    made = Run.open(arguments.name)
    return made if arguments.data_dir is None else replace(made, data=replace(made.data, folder=arguments.data_dir))
