"""Functions without parameters as modules, for `Sequential`."""

from __future__ import annotations

from minirnn import ops
from minirnn.nn.module import Module
from minirnn.tensor import Tensor


class Tanh(Module):
    """y = tanh x"""

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape; y like x."""
        return ops.tanh(x)


class Sigmoid(Module):
    """y = 1 / (1 + e^-x)"""

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape; y like x."""
        return ops.sigmoid(x)


class ReLU(Module):
    """y = max(x, 0)"""

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape; y like x."""
        return ops.relu(x)


class Softplus(Module):
    """y = ln(1 + e^x)"""

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape; y like x."""
        return ops.softplus(x)


class Flatten(Module):
    """x (N, ...) as (N, the product of the others)"""

    def forward(self, x: Tensor) -> Tensor:
        """x (N, ...); y (N, the product of the others)."""
        return x.reshape((len(x), -1))
