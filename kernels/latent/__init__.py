"""Recurrences that draw as they go: z_t comes from a posterior that looks at z_{t-1}. `gain` is NeuralSSM's, `residual` SRNN's.

Both keep what the backward pass needs of every row, which then has no product of a weight's gradient within the steps: these are one
product each, over all rows, at the end. With sizes of some dozen to some hundred units the time goes into the calls and the products of one
step; primitive operations, each with its place on the tape, take several times as long. Made of array operations, they run on arrays of any
device; `batch_sizes` stays on the host, and nothing waits.
"""
