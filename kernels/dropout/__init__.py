"""Dropout whose mask is a function of a key and an element's place, so that it is never stored. `numpy_` is the reference."""
