"""The sub-commands of `minirnn`, one file for each group. Each file has `add(commands)`; what is heavy is imported when a command runs."""
