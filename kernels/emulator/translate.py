"""From CUDA C++ to C++: all that a C++ compiler cannot be taught by a header is where `__shared__` arrays live."""

from __future__ import annotations

import re

_ALIGN = r"(?:__align__\(\d+\)\s*|alignas\([^()]*\)\s*)?"
_DYNAMIC = re.compile(rf"extern\s+__shared__\s+{_ALIGN}([\w:]+(?:\s+\w+)*?)\s+(\w+)\s*\[\s*\]\s*;")
_STATIC = re.compile(rf"__shared__\s+{_ALIGN}([\w:]+(?:<[^;>]*>)?(?:\s+\w+)*?)\s+(\w+)\s*((?:\[[^\];]*\])*)\s*;")
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.S)
_BOUNDS = re.compile(r"__launch_bounds__\s*\(((?:[^()]|\([^()]*\))*)\)")
_KERNEL = re.compile(r'(template\s*<[^{};]*>\s*)?(?:extern\s+"C"\s+)?(?:static\s+)?__global__([^({;]*?)\b(\w+)\s*\(')


class EmulatorError(RuntimeError):
    """A kernel that a GPU would refuse, hang on, or compute something undefined with."""


def translate(source: str) -> str:
    """The source with every declaration of shared memory replaced by a macro of cuda_on_cpu.h; lines keep their numbers."""
    text = without_comments(source)
    text = _DYNAMIC.sub(r"EMU_DYNAMIC_SHARED(\1, \2);", text)
    text = _STATIC.sub(r"EMU_SHARED(\1, \2, \3);", text)
    left = re.search(r"[^\n]*__shared__[^\n]*", text)
    if left:
        raise EmulatorError(
            "declare shared memory as `__shared__ T name[..];` or `extern __shared__ T name[];`, one to a statement, not as "
            + left[0].strip()
        )
    return text


def without_comments(source: str) -> str:
    return _COMMENT.sub(lambda comment: re.sub(r"[^\n]", " ", comment[0]), source)


def kernels(source: str) -> dict[str, str | None]:
    """The `__global__` functions that are no templates, each with the text of its launch bounds or None."""
    bounds: list[str] = []

    def note(match: re.Match[str]) -> str:
        bounds.append(re.split(r",(?![^(]*\))", match[1])[0])  # the second number of a bound is advice
        return f" BOUNDS__{len(bounds) - 1} "

    found: dict[str, str | None] = {}
    for template, qualifiers, name in _KERNEL.findall(_BOUNDS.sub(note, without_comments(source))):
        if not template:
            bound = re.search(r"BOUNDS__(\d+)", qualifiers)
            found[name] = bounds[int(bound[1])] if bound else None
    return found
