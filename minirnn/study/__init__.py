"""Looking inside: gradient checks, and what back-propagation through time does."""

from __future__ import annotations

from minirnn.study.gradcheck import GradientError, gradcheck, gradgradcheck
from minirnn.study.graph import Graph, graph
from minirnn.study.truncation import Truncation, truncated, truncation

__all__ = [
    "GradientError",
    "Graph",
    "Truncation",
    "gradcheck",
    "gradgradcheck",
    "graph",
    "truncated",
    "truncation",
]
