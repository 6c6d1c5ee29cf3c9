"""The Kalman filter, smoother and score on a GPU: the lines of numpy_.py, whose array operations take the arrays of any device.

All sequences go through a step together, so a step is a few dozen launches however many there are. Nothing waits for the device. Where
the covariance (2.4) of an observation is not positive definite nothing is raised: the numbers of its sequence are NaN from there on.
"""

from minirnn.kernels.kalman.numpy_ import filter, score, smooth

__all__ = ["filter", "score", "smooth"]
