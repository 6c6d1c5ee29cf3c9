"""Proof of the GPU kernels on a machine without a GPU: references, emulation, sanitizers, compilation and planted bugs, in one table."""
