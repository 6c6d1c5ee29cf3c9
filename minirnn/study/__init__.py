"""Looking inside: gradient checks."""

from __future__ import annotations

from minirnn.study.gradcheck import GradientError, gradcheck, gradgradcheck

__all__ = ["GradientError", "gradcheck", "gradgradcheck"]
