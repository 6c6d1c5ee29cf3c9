"""The gradient of a table of rows that were looked up. `numpy_` is the reference; `numba_cpu` shares the columns among threads."""
