"""`minirnn.models.LinearGaussianSSM` in PyTorch: a Kalman filter over all sequences at once, one step after the other.

Sequences are equally long and without gaps, so that covariances are the same for all of them and are computed once.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from minirnn.models.linear_gaussian_ssm import LinearGaussianConfig, Observations


class Twin(nn.Module):
    def __init__(self, config: LinearGaussianConfig) -> None:
        super().__init__()
        self.config = config
        n, p = config.states, config.observations
        if config.inputs:
            raise ValueError("the linear Gaussian model in PyTorch has no inputs")
        self.A, self.B, self.b = (nn.Parameter(torch.empty(shape)) for shape in ((n, n), (n, n), (n,)))
        self.C, self.D, self.d = (nn.Parameter(torch.empty(shape)) for shape in ((p, n), (p, p), (p,)))
        if not config.diffuse:
            self.mean, self.scale = nn.Parameter(torch.empty(n)), nn.Parameter(torch.empty(n, n))

    def prepare(self, batch: Observations) -> Tensor:
        """(T, N, p)"""
        x = torch.tensor(batch.x, dtype=self.A.dtype)
        if (torch.from_numpy(batch.lengths) != x.shape[1]).any() or x.isnan().any():
            raise ValueError("the linear Gaussian model in PyTorch takes equally long sequences without gaps")
        return x.transpose(0, 1).contiguous()

    def loss(self, x: Tensor, step: int = 0, noise: Any = None) -> Tensor:
        A, C, Q, R = self.A, self.C, self.B @ self.B.T, self.D @ self.D.T
        T, N, _ = x.shape
        if self.config.diffuse:  # the first observation says where the state is
            m, factor = torch.linalg.solve(C, (x[0] - self.d).T).T, torch.linalg.solve(C, self.D)  # (N, n), (n, p)
        else:
            m, factor = self.mean.expand(N, -1), self.scale
        P = factor @ factor.T  # (n, n)
        whites, diagonals = [], []
        for t in range(1 if self.config.diffuse else 0, T):
            if t:
                m, P = m @ A.T + self.b, A @ P @ A.T + Q
            v = x[t] - m @ C.T - self.d  # (N, p)
            CP = C @ P
            L = torch.linalg.cholesky(CP @ C.T + R)  # (p, p)
            white = torch.linalg.solve_triangular(L, torch.cat((v.T, CP), 1), upper=False)  # (p, N + n)  L^-1 [v, C P]
            u, gain = white[:, :N], white[:, N:]
            m, P = m + u.T @ gain, P - gain.T @ gain
            whites.append(u)
            diagonals.append(L.diagonal())
        u, diagonal = torch.cat(whites), torch.cat(diagonals)
        return ((u * u).sum() / 2 + N * diagonal.log().sum() + 0.5 * math.log(2 * math.pi) * u.numel()) / (T * N)
