"""Writes `cupy_names.json`: what the real CuPy is called, and with which arguments. Runs where CuPy can be imported; no driver is needed.

python -m minirnn.kernels.emulator.freeze
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from typing import Any

from minirnn.kernels.emulator.names import PATH

_SIGNATURE = re.compile(r"\w+\.(\w+)\(self(?:, )?(.*?)\)(?: ->.*)?$")
_KINDS: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}


def main() -> None:
    import cupy

    frozen = {
        "version": cupy.__version__,
        "module": dict(_names(cupy)),
        "linalg": dict(_names(cupy.linalg)),
        "random": dict(_names(cupy.random)),
        "stride_tricks": dict(_names(cupy.lib.stride_tricks)),
        "cuda": {name: None for name, _ in _names(cupy.cuda)},
        "ndarray": dict(_methods(cupy.ndarray)),
        "Generator": dict(_methods(cupy.random.Generator)),
        "Device": dict(_methods(cupy.cuda.Device)),
        "Stream": dict(_methods(cupy.cuda.Stream)),
        "Event": dict(_methods(cupy.cuda.Event)),
        "ufuncs": {name: thing.types for name, thing in _public(cupy) if isinstance(thing, cupy.ufunc)},
    }
    PATH.write_text(as_text(frozen))
    print(f"{PATH}: CuPy {cupy.__version__}, {len(frozen['module'])} names, {len(frozen['ndarray'])} of ndarray")


def as_text(frozen: dict[str, Any]) -> str:
    """JSON with one line to each name, so that a new version of CuPy shows as a short difference."""
    sections = []
    for section, names in frozen.items():
        if isinstance(names, dict):
            lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in sorted(names.items()))
            sections.append(f"{json.dumps(section)}: {{\n{lines}\n}}")
        else:
            sections.append(f"{json.dumps(section)}: {json.dumps(names)}")
    return "{\n" + ",\n".join(sections) + "\n}\n"


def _public(thing: Any) -> Iterator[tuple[str, Any]]:
    for name in sorted(dir(thing)):
        if not name.startswith("_"):
            yield name, getattr(thing, name)


def _names(module: Any) -> Iterator[tuple[str, list[str] | None]]:
    """Each public name; of a function its parameters, of anything else None."""
    for name, thing in _public(module):
        if inspect.ismodule(thing) and not thing.__name__.startswith(module.__name__ + "."):
            continue
        parameters = None
        if inspect.isfunction(thing) or inspect.isbuiltin(thing):
            try:
                parameters = list(_parameters(inspect.signature(thing)))
            except ValueError:
                parameters = ["*args", "**kwargs"]
        yield name, parameters


def _parameters(signature: inspect.Signature) -> Iterator[str]:
    """Names in order, with the bare * before the first that must be given by keyword."""
    starred = False
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            yield "*"
        starred = starred or parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL)
        yield _KINDS.get(parameter.kind, "") + parameter.name


def _methods(owner: Any) -> Iterator[tuple[str, list[str] | None]]:
    """Each public attribute; of a method its parameters, which compiled classes give in the first line of the docstring."""
    for name in sorted(dir(owner)):
        if name.startswith("_"):
            continue
        thing = inspect.getattr_static(owner, name)
        line = (getattr(thing, "__doc__", None) or "").strip().split("\n")[0]
        found = _SIGNATURE.match(line)
        if found and found[1] == name:
            arguments = [re.split(r"[=:]", argument)[0].split()[-1] for argument in _split(found[2])]
            yield name, arguments
        else:
            yield name, ["*args", "**kwargs"] if callable(thing) else None


def _split(arguments: str) -> list[str]:
    """At the commas that are not inside brackets."""
    return [argument for argument in re.split(r",\s*(?![^()\[\]]*[)\]])", arguments) if argument]


if __name__ == "__main__":
    main()
