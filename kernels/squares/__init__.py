"""The sum of an array's squares, for the norm of gradients. `numpy_` is the reference."""
