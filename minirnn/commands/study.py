"""`minirnn study`: one page that shows a trained model at work on one example."""

from __future__ import annotations

import argparse
from collections.abc import Sized
from dataclasses import replace
from pathlib import Path
from typing import Any

from minirnn.commands.evaluate import SPLITS
from minirnn.commands.options import add_device, add_run, checked
from minirnn.commands.parser import Commands, add_command, positive_integer, seed
from minirnn.commands.train import kernel_for
from minirnn.errors import MinirnnError

PAGE = "study.html"
TRAINED = ("step", "loss", "norm", "lr")  # of a line of metrics.jsonl that the page shows
ROWS = 1000  # of them, at the most


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "study",
        run,
        "see inside a trained model at work on one example: a page for the browser",
        'minirnn study runs/seq2seq --input "two days ago" --target "il y a deux jours" --out page.html\n'
        "  minirnn study runs/captioner --input dog.png\n"
        "  minirnn study runs/ssm --input mine.csv --steps 60\n"
        "  minirnn study runs/vae --split test --index 3",
    )
    add_run(parser)
    parser.add_argument(
        "--input", metavar="INPUT", help="a text (in quotes), a picture file, or a .csv file of a series (default: an example of the data)"
    )
    parser.add_argument(
        "--target", metavar="TEXT", help="what the model should say of it (default: what it says by itself; of the data, the reference)"
    )
    parser.add_argument("--split", choices=SPLITS, help="which part of the data the example is of (default: test)")
    parser.add_argument("--index", metavar="K", type=seed, help="which example of that part, counted from 0 (default: 0)")
    parser.add_argument(
        "--steps",
        metavar="T",
        type=positive_integer,
        default=100,
        help="of a series the last T frames; of texts at most T words (default: 100)",
    )
    parser.add_argument("--beam", metavar="N", type=positive_integer, default=1, help="width of the search for what it says (default: 1)")
    parser.add_argument("--seed", metavar="S", type=seed, default=0, help="of what is drawn (default: 0)")
    parser.add_argument(
        "--out", metavar="PAGE", type=Path, help=f"the page, a name that ends with .html (default: {PAGE} in the run's folder)"
    )
    parser.add_argument("--data-dir", metavar="DIR", help="where the data files lie now, if they were moved")
    add_device(parser)


def run(arguments: argparse.Namespace) -> int:
    from minirnn.bench.progress import Progress
    from minirnn.study import page
    from minirnn.study.examine import examine
    from minirnn.training import Run

    run = Run.open(arguments.run)
    if arguments.data_dir is not None:
        run = replace(run, data=replace(run.data, folder=arguments.data_dir))
    path = _page(arguments.out, run.folder)
    asked = _question(arguments)
    with kernel_for(device=arguments.device) as device:
        task = run.task(device)
        if not hasattr(task, "study"):
            raise MinirnnError(f"{run.folder} is a run of {run.model}, which cannot be looked into")
        subject = task.study(asked)
        with Progress("minirnn study", total=1) as progress:

            def told(done: int, of: int) -> None:
                if done == 1:
                    progress.__enter__()  # what came before, such as compiling, is no measure of what comes
                else:
                    progress.advance(1 / (of - 1), f"loss step {done - 1} of {of - 1}")

            example = examine(subject, str(run.folder), told)
    page.write(replace(example, history=history(run.read_metrics())), path)
    print(f"{path}: {example.text}")
    print(f"{_count(example.outputs, 'loss step')}, {_count(example.layers, 'recurrent layer')}, {path.stat().st_size / 1e6:.1f} MB")
    print(f"open it in a browser, it needs no network: {path.resolve().as_uri()}")
    return 0


def _count(things: Sized, name: str) -> str:
    return f"{len(things)} {name}" + "s" * (len(things) != 1)


def history(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, float]]]:
    """The lines of `metrics.jsonl` as the page shows them, every k-th of very many: of training, and of validations their numbers."""
    train = [{name: row[name] for name in TRAINED if name in row} for row in rows if "loss" in row]
    valid = [{"step": row["step"], **_numbers(row["valid"])} for row in rows if "valid" in row]
    return {"train": _some(train), "valid": _some(valid)}


def _some(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    """At most ROWS, the last one among them."""
    return rows[:: -max(1, -(-len(rows) // ROWS))][::-1]


def _numbers(scores: dict[str, Any]) -> dict[str, float]:
    return {name: score for name, score in scores.items() if isinstance(score, int | float)}


def _question(arguments: argparse.Namespace) -> Any:
    from minirnn.training.verbs import Question

    given, target = arguments.input, arguments.target
    if given is not None and (arguments.split is not None or arguments.index is not None):
        raise MinirnnError("--split and --index choose an example of the data: leave them out where --input is given")
    return Question(
        given=None if given is None else checked(given, "--input"),
        target=None if target is None else checked(target, "--target"),
        split=arguments.split or "test",
        index=arguments.index or 0,
        steps=arguments.steps,
        beam=arguments.beam,
        seed=arguments.seed,
    )


def _page(asked: Path | None, folder: Path) -> Path:
    path = folder / PAGE if asked is None else asked
    if path.suffix not in (".html", ".htm"):
        raise MinirnnError(f"--out {path}: expected a file name that ends with .html")
    if not path.parent.is_dir():
        raise MinirnnError(f"--out {path}: there is no folder {path.parent}")
    return path
