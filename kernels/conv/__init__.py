"""Convolution of images without laying out their windows. `numpy_` is the reference."""
