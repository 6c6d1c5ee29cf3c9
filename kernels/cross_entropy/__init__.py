"""Cross entropy fused with log-softmax over rows of logits. `numpy_` is the reference; `numba_cpu` reads each row while it is in cache."""
