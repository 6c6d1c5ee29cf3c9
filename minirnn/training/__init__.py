"""Training: the loop, run folders with checkpoints, progress, and one task for each model."""

from minirnn.training.checkpoint import Run, TrainingState
from minirnn.training.loop import Outcome, Trainer
from minirnn.training.task import DataArguments, Demo, Metric, Split, Task, TrainingOptions

__all__ = ["DataArguments", "Demo", "Metric", "Outcome", "Run", "Split", "Task", "Trainer", "TrainingOptions", "TrainingState"]
