"""The rectifier and its gradient in one pass each. `numpy_` is the reference."""
