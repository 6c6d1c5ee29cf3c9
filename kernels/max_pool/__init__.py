"""Max pooling of images. `numpy_` is the reference."""
