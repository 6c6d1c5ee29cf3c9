"""`minirnn caption`, `sample`, `reconstruct`, `interpolate` and `forecast`: what else a trained run can be asked for."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minirnn.commands.options import add_beam, add_device, add_json, add_run, add_texts, checked, given, texts
from minirnn.commands.parser import Commands, Parser, add_command, positive, positive_integer, seed, share
from minirnn.commands.train import kernel_for
from minirnn.commands.translate import numbered, picture_path
from minirnn.errors import MinirnnError

if TYPE_CHECKING:
    from minirnn.training.verbs import Caption, Captions, Forecasts, Interpolates, Reconstructs, Samples


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "caption",
        caption,
        "say what is on pictures",
        "minirnn caption runs/captioner dog.png --beam 5 --show-attention",
    )
    add_run(parser)
    parser.add_argument("pictures", metavar="IMAGE", nargs="+", type=Path, help="a picture file of any size")
    add_beam(parser)
    parser.add_argument(
        "--show-attention",
        metavar="PNG",
        nargs="?",
        const="",
        help="draw where each word looked (default: looks.png in the run's folder; numbered for several pictures)",
    )
    add_device(parser)
    add_json(parser, " for each picture")

    parser = add_command(
        commands, "sample", sample, "draw new sentences, music or series from a model", "minirnn sample runs/vae -n 10 --temperature 0.8"
    )
    add_run(parser)
    parser.add_argument("-n", "--count", metavar="N", type=positive_integer, default=8, help="how many (default: 8)")
    parser.add_argument("--temperature", metavar="T", type=positive, default=1.0, help="below 1: what is more probable (default: 1)")
    parser.add_argument("--length", metavar="T", type=positive_integer, help="steps of a series (default: the model's own)")
    _add_drawing(parser)

    parser = add_command(
        commands,
        "reconstruct",
        reconstruct,
        "send texts through a model's latent space and back",
        'minirnn reconstruct runs/vae "i like tea"\n  minirnn reconstruct runs/vae - < sentences.txt',
    )
    add_run(parser)
    add_texts(parser)
    add_device(parser)
    add_json(parser, " for each text")

    parser = add_command(
        commands,
        "interpolate",
        interpolate,
        "walk in a straight line from one text to another in the latent space",
        'minirnn interpolate runs/vae "i like tea" "he went home" --steps 7',
    )
    add_run(parser)
    parser.add_argument("first", metavar="A", help="the text to begin with")
    parser.add_argument("second", metavar="B", help="the text to end with")
    parser.add_argument("--steps", metavar="N", type=positive_integer, default=7, help="texts on the way, both ends included (default: 7)")
    add_device(parser)
    add_json(parser)

    parser = add_command(
        commands,
        "forecast",
        forecast,
        "say what comes next in a series, and how sure that is",
        "minirnn forecast runs/kalman --steps 12\n  minirnn forecast runs/ssm --series mine.csv --json",
    )
    add_run(parser)
    parser.add_argument("--steps", metavar="T", type=positive_integer, default=20, help="how far (default: 20)")
    parser.add_argument("--level", metavar="P", type=share, default=0.9, help="what the intervals should hold, 0 to 1 (default: 0.9)")
    parser.add_argument("--series", metavar="CSV", type=Path, help="a .csv file of numbers to go on from (default: the test series)")
    _add_drawing(parser)


def caption(arguments: argparse.Namespace) -> int:
    picture = picture_path(arguments.show_attention, Path(arguments.run) / "looks.png")
    captioner: Captions = _able(arguments, "caption", "caption pictures")
    for number, path in enumerate(arguments.pictures, 1):
        with kernel_for(device=arguments.device):
            (found,) = captioner.caption([path], **given(arguments, "beam", "length_penalty"))
        shown = {"picture": str(path), "caption": found.text, "score": float(found.score)}
        print(json.dumps(shown, ensure_ascii=False) if arguments.json else found.text, flush=True)
        if picture is not None:
            _draw(found, numbered(picture, number), arguments.run)
    return 0


def sample(arguments: argparse.Namespace) -> int:
    import numpy as np

    model: Samples = _able(arguments, "sample", "draw samples")
    with kernel_for(device=arguments.device):
        drawn = model.sample(
            arguments.count,
            np.random.default_rng(arguments.seed),
            _folder(arguments),
            temperature=arguments.temperature,
            length=arguments.length,
        )
    if arguments.json:
        print(json.dumps({"samples": drawn.texts, "files": [str(path) for path in drawn.files]}, ensure_ascii=False))
    else:
        print("\n".join([*drawn.texts, *map(str, drawn.files)]))
    return 0


def reconstruct(arguments: argparse.Namespace) -> int:
    model: Reconstructs = _able(arguments, "reconstruct", "reconstruct texts")
    for place, text in texts(arguments.texts):
        try:
            with kernel_for(device=arguments.device):
                (found,) = model.reconstruct([text])
        except MinirnnError as error:
            raise MinirnnError(f"{place}: {error}") from error
        print(json.dumps({"text": text, "reconstruction": found}, ensure_ascii=False) if arguments.json else found, flush=True)
    return 0


def interpolate(arguments: argparse.Namespace) -> int:
    model: Interpolates = _able(arguments, "interpolate", "interpolate texts")
    first, second = checked(arguments.first, "text A"), checked(arguments.second, "text B")
    with kernel_for(device=arguments.device):
        found = model.interpolate(first, second, arguments.steps)
    print(json.dumps({"texts": found}, ensure_ascii=False) if arguments.json else "\n".join(found))
    return 0


def forecast(arguments: argparse.Namespace) -> int:
    import numpy as np

    model: Forecasts = _able(arguments, "forecast", "forecast series")
    with kernel_for(device=arguments.device):
        found = model.forecast(
            arguments.steps, _folder(arguments), np.random.default_rng(arguments.seed), path=arguments.series, level=arguments.level
        )
    if arguments.json:
        print(json.dumps({"columns": found.columns, "files": [str(path) for path in found.files]}))
        return 0
    print("\t".join(found.columns))
    for row in zip(*found.columns.values(), strict=True):
        print("\t".join(f"{value:.6g}" for value in row))
    for path in found.files:
        print(f"drew {path}", file=sys.stderr)
    return 0


def _add_drawing(parser: Parser) -> None:
    parser.add_argument("--seed", metavar="S", type=seed, default=0, help="of what is drawn (default: 0)")
    parser.add_argument("--out", metavar="DIR", type=Path, help="where files go (default: the run's folder)")
    add_device(parser)
    add_json(parser)


def _folder(arguments: argparse.Namespace) -> Path:
    folder = Path(arguments.out or arguments.run)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _able(arguments: argparse.Namespace, verb: str, what: str) -> Any:
    """The trained task of a run, on the device asked for, if it has the method `verb`: what minirnn.training.verbs says about it."""
    from minirnn.training import Run

    run = Run.open(arguments.run)
    with kernel_for(device=arguments.device) as device:
        task = run.task(device)
    if not hasattr(task, verb):
        raise MinirnnError(f"{run.folder} is a run of {run.model}, which does not {what}")
    return task


def _draw(found: Caption, path: Path, folder: str) -> None:
    from minirnn.training.captioner_pictures import looks

    if found.attention is None:
        raise MinirnnError(f"{folder} was trained with attention=none: there is nothing to show")
    print(f"drew {looks(found.image, [*found.words, '(end)'][: len(found.attention)], found.attention, path)}", file=sys.stderr)
