"""Attention of ragged queries: scores, softmax and context in one pass, and their gradient in another. `numpy_` is the reference."""
