"""The one exception that means: what the user gave cannot be used, and here is what to do."""

from __future__ import annotations


class MinirnnError(Exception):
    """Bad data, a bad file or a bad option. The command line prints it as one line and exits with 2."""
