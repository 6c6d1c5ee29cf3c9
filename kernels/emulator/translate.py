"""From CUDA C++ to C++: all that a C++ compiler cannot be taught by a header is where `__shared__` arrays live."""

from __future__ import annotations

import re

_ALIGN = r"(?:__align__\(\d+\)\s*|alignas\([^()]*\)\s*)?"
_DYNAMIC = re.compile(rf"extern\s+__shared__\s+{_ALIGN}([\w:]+(?:\s+\w+)*?)\s+(\w+)\s*\[\s*\]\s*;")
_STATIC = re.compile(rf"__shared__\s+{_ALIGN}([\w:]+(?:<[^;>]*>)?(?:\s+\w+)*?)\s+(\w+)\s*((?:\[[^\];]*\])*)\s*;")
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.S)
_PARENTHESES = r"\((?:[^()]|\([^()]*\))*\)"
_BOUNDS = re.compile(rf"__launch_bounds__\s*({_PARENTHESES})")
_KERNEL = re.compile(
    r'(?:extern\s+"C"\s+)?(?:static\s+)?__global__'
    rf"(?:__launch_bounds__\s*{_PARENTHESES}|[^({{;])*?\b(\w+)\s*{_PARENTHESES}(?=\s*\{{)"
)
_TEMPLATE = re.compile(r"template\s*<[^{};]*>\s*$")


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


def symbol(name: str) -> str:
    """What the description of a kernel, or of an instance of a template, is called in the library."""
    return "emu_kernel_" + re.sub(r"\W", "_", name)


def export_kernels(text: str) -> tuple[str, list[str]]:
    """The text with a description of each kernel before it, and their names; templates are left out.

    A description stands where its kernel does: an #if leaves out both, and the macros of the launch bounds are known there.
    """
    names = []

    def described(match: re.Match[str]) -> str:
        if _TEMPLATE.search(text, 0, match.start()):
            return match[0]
        names.append(match[1])
        bound = _BOUNDS.search(match[0])
        # the second number of the bounds is advice to the compiler
        threads = re.split(r",(?![^(]*\))", bound[1][1:-1])[0] if bound else "0"
        declaration = match[0].replace("\n", " ")
        return f"{declaration}; EMU_EXPORT({symbol(match[1])}, ({threads}), {match[1]}) {match[0]}"

    return _KERNEL.sub(described, text), names
