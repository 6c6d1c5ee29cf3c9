"""The tasks by name; each module is imported when its task is first asked for."""

from __future__ import annotations

import difflib
import importlib
from typing import Any

from minirnn.errors import MinirnnError
from minirnn.training.task import Task

_TASKS: dict[str, str | type[Task[Any, Any]]] = {
    "seq2seq": "minirnn.training.tasks.translation:TranslationTask",
    "captioner": "minirnn.training.tasks.captioner:CaptionerTask",
    "vae": "minirnn.training.tasks.vae:VAETask",
    "kalman": "minirnn.training.tasks.kalman:KalmanTask",
    "ssm": "minirnn.training.tasks.ssm:SSMTask",
}


def names() -> tuple[str, ...]:
    """The models that `minirnn train` knows."""
    return tuple(_TASKS)


def register(task: type[Task[Any, Any]]) -> None:
    """Add a task under its name."""
    if task.name in _TASKS:
        raise ValueError(f"register: there is a task named {task.name!r} already")
    _TASKS[task.name] = task


def find(name: str) -> type[Task[Any, Any]]:
    """The task of a model's name. Raises MinirnnError, with a name that looks like it, where there is none."""
    if name not in _TASKS:
        close = difflib.get_close_matches(name, _TASKS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(_TASKS)}"
        raise MinirnnError(f"unknown model {name!r}; {hint}")
    known = _TASKS[name]
    if isinstance(known, str):
        module, _, attribute = known.partition(":")
        known = getattr(importlib.import_module(module), attribute)
        _TASKS[name] = known
    return known
