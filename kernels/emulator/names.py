"""The names and the parameters of the real CuPy, from `cupy_names.json`, which `freeze.py` writes."""

from __future__ import annotations

import inspect
import json
from functools import cache
from pathlib import Path
from typing import Any

PATH = Path(__file__).with_name("cupy_names.json")


@cache
def frozen() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(PATH.read_text())
    return loaded


def known(section: str, name: str) -> bool:
    """Whether CuPy has `name` in `section`: "module", "linalg", "ndarray", ..."""
    return name in frozen()[section]


@cache
def signature(section: str, name: str) -> inspect.Signature | None:
    """The parameters of a function of CuPy's, without its defaults, or None where it is no function."""
    parameters = frozen()[section].get(name)
    if parameters is None:
        return None
    Parameter = inspect.Parameter
    kind: Any = Parameter.POSITIONAL_OR_KEYWORD
    result = []
    for parameter in parameters:
        if parameter == "*":
            kind = Parameter.KEYWORD_ONLY
        elif parameter.startswith("**"):
            result.append(Parameter(parameter[2:], Parameter.VAR_KEYWORD))
        elif parameter.startswith("*"):
            result.append(Parameter(parameter[1:], Parameter.VAR_POSITIONAL))
            kind = Parameter.KEYWORD_ONLY
        else:
            result.append(Parameter(parameter, kind))
    return inspect.Signature(result)


def check_call(section: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """A TypeError unless CuPy's function has these parameters."""
    expected = signature(section, name)
    if expected is None:
        return
    try:
        expected.bind_partial(*args, **kwargs)
    except TypeError as error:
        shown = ", ".join(frozen()[section][name])
        raise TypeError(f"{name}() {error}; CuPy has {name}({shown})") from None
