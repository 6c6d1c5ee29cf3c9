"""What a run keeps beside its weights, and without which they mean nothing: vocabularies, and the form of series."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from minirnn.errors import MinirnnError

T = TypeVar("T")


def read(path: Path, parse: Callable[[Any], T]) -> T:
    """What `parse` makes of a JSON file of the run. Raises MinirnnError where it is missing, or is not what `parse` can read."""
    try:
        return parse(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise MinirnnError(f"{path} is missing, without it the weights mean nothing; copy it from where the model was trained") from None
    except (ValueError, TypeError, KeyError, MinirnnError) as error:
        raise MinirnnError(f"{path} is damaged ({error}); copy it again from where the model was trained") from None


def check(path: Path, what: str, found: object, expected: object) -> None:
    """Raise MinirnnError unless the file holds as many `what` as the model was made for."""
    if found != expected:
        raise MinirnnError(f"{path} holds {found} {what}, the model was made for {expected}; it belongs to another run")
