"""Optimisers and learning-rate schedules."""

from minirnn.optim.adam import Adam, AdamW
from minirnn.optim.optimizer import Optimizer
from minirnn.optim.schedules import CosineLR, ExponentialLR, LambdaLR, LinearWarmup, ReduceOnPlateau, Schedule, StepLR
from minirnn.optim.sgd import SGD

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "CosineLR",
    "ExponentialLR",
    "LambdaLR",
    "LinearWarmup",
    "Optimizer",
    "ReduceOnPlateau",
    "Schedule",
    "StepLR",
]
