"""The update of Adam and AdamW as one pass over memory. `numpy_` is the reference; `numba_cpu` is the fused form of it."""
