"""The Kalman filter, its smoother and its score; README.md in this folder derives what the implementations compute."""
