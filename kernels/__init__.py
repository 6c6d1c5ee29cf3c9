"""Recurrences on arrays: one contract, many implementations. Nothing here loads an implementation; the registry does, on first use."""

from __future__ import annotations

from minirnn.kernels.registry import Kernel, choose, explain, fused, kernel, kernels, load, register

__all__ = ["Kernel", "choose", "explain", "fused", "kernel", "kernels", "load", "register"]
