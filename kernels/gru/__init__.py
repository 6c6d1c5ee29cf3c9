"""The GRU recurrence; README.md in this folder derives what its implementations compute."""
