"""`minirnn translate`: texts through a trained translator."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from minirnn.commands.options import add_device, add_json, add_run, add_texts, add_translation, given, texts
from minirnn.commands.parser import Commands, add_command
from minirnn.commands.train import kernel_for
from minirnn.errors import MinirnnError

if TYPE_CHECKING:
    from minirnn.models import Translation, Translator


def add(commands: Commands) -> None:
    parser = add_command(
        commands,
        "translate",
        run,
        "translate texts, or standard input line by line",
        'minirnn translate runs/seq2seq "two days ago" --beam 5 --show-attention attention.png\n'
        "  minirnn translate runs/seq2seq - < english.txt > french.txt",
    )
    add_run(parser)
    add_texts(parser)
    add_translation(parser)
    parser.add_argument(
        "--show-attention",
        metavar="PNG",
        nargs="?",
        const="",
        help="draw which words were looked at (default: attention.png in the run's folder; numbered for several texts)",
    )
    add_device(parser)
    add_json(parser, " for each text")


def run(arguments: argparse.Namespace) -> int:
    from minirnn.training import Run

    picture = picture_path(arguments.show_attention, Path(arguments.run) / "attention.png")
    run = Run.open(arguments.run)
    with kernel_for(device=arguments.device) as device:
        translator: Translator | None = getattr(run.task(device), "translator", None)
    if translator is None:
        raise MinirnnError(f"{run.folder} is a run of {run.model}, which does not translate")
    options = given(arguments, "beam", "length_penalty", "coverage_penalty", "copy_unknown")
    for number, (place, text) in enumerate(texts(arguments.texts), 1):
        try:
            with kernel_for(device=device):
                (found,) = translator.translate([text], **options)
        except MinirnnError as error:
            raise MinirnnError(f"{place}: {error}") from error
        print(_as_json(text, found) if arguments.json else found.text, flush=True)
        if picture is not None:
            _draw(found, numbered(picture, number), run.folder)
    return 0


def picture_path(asked: str | None, default: Path) -> Path | None:
    """Where --show-attention draws: nowhere if it was not given, and at `default` if no name was given with it."""
    if asked is None:
        return None
    path = Path(asked or default)
    if path.suffix != ".png":
        raise MinirnnError(f"--show-attention {path}: expected a file name that ends with .png; what is to be looked at comes before it")
    return path


def numbered(path: Path, number: int) -> Path:
    """look.png, look-2.png, look-3.png, ..."""
    return path if number == 1 else path.with_stem(f"{path.stem}-{number}")


def _as_json(text: str, found: Translation) -> str:
    shown = {"source": text, "translation": found.text, "score": float(found.score), "pieces": found.target}
    return json.dumps(shown, ensure_ascii=False)


def _draw(found: Translation, path: Path, folder: Path) -> None:
    from minirnn.training.pictures import alignment

    if found.attention is None:
        raise MinirnnError(f"{folder} was trained with attention=none: there is nothing to show")
    target = [*found.target, "(end)"][: len(found.attention)]
    print(f"drew {alignment(found.attention, found.source, target, path)}", file=sys.stderr)
