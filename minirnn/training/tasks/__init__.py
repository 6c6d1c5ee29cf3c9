"""One task for each model."""
