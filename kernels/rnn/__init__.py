"""The plain recurrence, tanh or relu; README.md in this folder derives what its implementations compute."""
