"""Every public name stands in the reference and has a docstring; a build in which one does not gives a warning, and so fails.

`minirnn_public` in conf.py lists the modules. Public is what their `__all__` has or, without one, the functions and classes made there.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Collection, Iterator, Sequence
from types import FunctionType, ModuleType
from typing import Any

from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)

MEMBERS = (property, classmethod, staticmethod, FunctionType)


def public(module: ModuleType) -> dict[str, Any]:
    """The public functions and classes of a module by name; sub-modules and plain values need no place of their own."""
    if hasattr(module, "__all__"):
        found = {name: getattr(module, name) for name in module.__all__}
    else:
        found = {name: value for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__}
    return {name: value for name, value in found.items() if name[0] != "_" and (inspect.isroutine(value) or inspect.isclass(value))}


def docstrings(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """The docstring of a function; of a class, and of each of the public methods and properties that it defines itself."""
    text = inspect.getdoc(value) or ""
    generated = text.startswith(f"{value.__name__}(")  # by dataclass or NamedTuple
    yield name, "" if generated else text
    if inspect.isclass(value):
        for attribute, member in vars(value).items():
            if attribute[0] != "_" and isinstance(member, MEMBERS):
                yield f"{name}.{attribute}", inspect.getdoc(getattr(value, attribute)) or ""


def undescribed(module: ModuleType) -> list[str]:
    """The public names of a module that have no docstring."""
    return [what for name, value in public(module).items() for what, text in docstrings(f"{module.__name__}.{name}", value) if not text]


def missing(modules: Sequence[ModuleType], known: Collection[str]) -> list[str]:
    """The public names of which the `known` ones have none, neither this one nor another public name of the same thing."""
    names = {f"{module.__name__}.{name}": value for module in modules for name, value in public(module).items()}
    shown = {id(value) for name, value in names.items() if name in known or f"{value.__module__}.{value.__qualname__}" in known}
    return [name for name, value in names.items() if id(value) not in shown]


def check(app: Sphinx, env: Any) -> None:
    modules = [importlib.import_module(name) for name in app.config.minirnn_public]
    for what in sorted({what for module in modules for what in undescribed(module)}):
        logger.warning("%s has no docstring", what, type="minirnn", subtype="docstring")
    for what in missing(modules, env.domains.python_domain.objects):
        logger.warning("%s is not in the reference (docs/reference)", what, type="minirnn", subtype="reference")


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_config_value("minirnn_public", [], "env")
    app.connect("env-check-consistency", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
