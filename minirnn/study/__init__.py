"""Looking inside: gradient checks, and what back-propagation through time does."""

from __future__ import annotations

from minirnn.study.checkpointing import Checkpointing, checkpointing
from minirnn.study.compare import Batch, Comparison, compare
from minirnn.study.gradcheck import GradientError, gradcheck, gradgradcheck
from minirnn.study.graph import Graph, graph
from minirnn.study.jacobian import Jacobian, Norms, jacobian, jacobian_norms
from minirnn.study.trace import Trace, Traced, trace
from minirnn.study.truncation import Truncation, truncated, truncation

__all__ = [
    "Batch",
    "Checkpointing",
    "Comparison",
    "GradientError",
    "Graph",
    "Jacobian",
    "Norms",
    "Trace",
    "Traced",
    "Truncation",
    "checkpointing",
    "compare",
    "gradcheck",
    "gradgradcheck",
    "graph",
    "jacobian",
    "jacobian_norms",
    "trace",
    "truncated",
    "truncation",
]
