"""Hyper-parameters as text: `key=value` pairs become fields of frozen dataclasses, and dataclasses become JSON and come back."""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from minirnn.errors import MinirnnError

_TRUE, _FALSE = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}
_NAMES = {int: "an integer", float: "a number", bool: "true or false", str: "text", type(None): "none"}


def parse(assignments: Iterable[str]) -> dict[str, str]:
    """`["hidden=256", "lr=1e-3"]` as a dict of texts. Raises MinirnnError for what is not `key=value`, and for a key given twice."""
    settings: dict[str, str] = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not key:
            raise MinirnnError(f"--set {text}: expected key=value, as in --set lr=0.001")
        if key in settings:
            raise MinirnnError(f"--set {key}: given twice, as {settings[key]!r} and {value.strip()!r}")
        settings[key] = value.strip()
    return settings


def apply(settings: Mapping[str, Any], *groups: Any) -> tuple[Any, ...]:
    """The frozen dataclasses `groups` with the fields that `settings` names replaced; a text is converted to the type of its field.

    Raises MinirnnError for a key that no group has (with those that look like it) and for a value that does not fit.
    """
    types_of = [get_type_hints(type(group)) for group in groups]
    known = [field.name for group in groups for field in dataclasses.fields(group)]
    changes: list[dict[str, Any]] = [{} for _ in groups]
    for key, value in settings.items():
        owner = next((k for k, group in enumerate(groups) if any(field.name == key for field in dataclasses.fields(group))), None)
        if owner is None:
            close = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(sorted(known))}"
            raise MinirnnError(f"--set {key}: no such setting; {hint}")
        changes[owner][key] = convert(key, value, types_of[owner][key])
    return tuple(replace(group, change) for group, change in zip(groups, changes, strict=True))


def replace(group: Any, changes: Mapping[str, Any]) -> Any:
    """A dataclass with some fields changed; what its own checks object to becomes a MinirnnError."""
    try:
        return dataclasses.replace(group, **changes)
    except (ValueError, TypeError) as error:
        raise MinirnnError(f"--set {' '.join(f'{key}={value}' for key, value in changes.items())}: {error}") from error


def convert(key: str, value: Any, kind: Any) -> Any:
    """`value`, a text or already a value, as the type `kind` (int, float, bool, str, Literal, a union of these with None)."""
    choices = _choices(kind)
    for choice in choices:
        fits, converted = _as(value, choice)
        if fits:
            return converted
    raise MinirnnError(f"--set {key}={value}: expected {' or '.join(_describe(choice) for choice in choices)}, got {value!r}")


def from_json(kind: type[Any], values: object, what: str) -> Any:
    """The dataclass `kind` from the dict that `dataclasses.asdict` gave; `what` names it in the MinirnnError for one that does not fit."""
    if not isinstance(values, Mapping):
        raise MinirnnError(f"{what}: expected an object with the fields of {kind.__name__}, found {type(values).__name__}")
    hints = get_type_hints(kind)
    fields = {field.name for field in dataclasses.fields(kind)}
    unknown = sorted(set(values) - fields)
    if unknown:
        raise MinirnnError(f"{what}: {kind.__name__} has no field {', '.join(unknown)}; written by another version of minirnn?")
    try:
        return kind(**{name: convert(name, value, hints[name]) for name, value in values.items()})
    except (ValueError, TypeError, MinirnnError) as error:
        raise MinirnnError(f"{what}: {error}") from error


def _choices(kind: Any) -> Sequence[Any]:
    if get_origin(kind) in (Union, types.UnionType):
        return [choice for part in get_args(kind) for choice in _choices(part)]
    return [kind]


def _as(value: Any, kind: Any) -> tuple[bool, Any]:
    """Whether `value` can be read as `kind`, and what it then is."""
    if get_origin(kind) is Literal:
        allowed = get_args(kind)
        return next(((True, option) for option in allowed if value == option or str(value) == str(option)), (False, None))
    if kind is type(None):
        return value is None or str(value).lower() == "none", None
    if kind is bool:
        if isinstance(value, bool):
            return True, value
        text = str(value).lower()
        return text in _TRUE | _FALSE, text in _TRUE
    if kind is str:
        return isinstance(value, str), value
    if kind in (int, float) and not isinstance(value, bool):
        try:
            number = kind(value) if isinstance(value, str) or kind(value) == value else None
        except (ValueError, TypeError, OverflowError):
            return False, None
        return number is not None and math.isfinite(number), number
    return isinstance(value, kind) if isinstance(kind, type) else False, value


def _describe(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    return _NAMES.get(kind, getattr(kind, "__name__", str(kind)))
