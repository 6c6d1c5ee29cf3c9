"""Watching operations as they run: the anomaly detector and the profiler."""

from __future__ import annotations

from minirnn.diagnostics.anomaly import AnomalyError, detect_anomaly
from minirnn.diagnostics.monitor import Direction, Monitor, Results, is_watched, monitored, watched
from minirnn.diagnostics.profiling import Profile, Row, profile

__all__ = [
    "AnomalyError",
    "Direction",
    "Monitor",
    "Profile",
    "Results",
    "Row",
    "detect_anomaly",
    "is_watched",
    "monitored",
    "profile",
    "watched",
]
