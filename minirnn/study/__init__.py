"""Looking inside: gradient checks, and what back-propagation through time does to gradients."""

from __future__ import annotations

from minirnn.study.gradcheck import GradientError, gradcheck, gradgradcheck
from minirnn.study.truncation import Truncation, truncated, truncation

__all__ = ["GradientError", "Truncation", "gradcheck", "gradgradcheck", "truncated", "truncation"]
