"""Group normalisation fused with its weight and bias. `numpy_` is the reference."""
