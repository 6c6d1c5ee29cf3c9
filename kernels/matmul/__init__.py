"""The product of two matrices. `numpy_` is the reference; `numba_cpu` packs blocks for the caches. README.md has the derivation."""
