"""The last minutes of a run, one point a second."""

from __future__ import annotations

from collections import deque
from typing import Any, Optional

from edge_mnv2.outputs.live import Live

SECONDS = 300


class History:
    """FPS, latency (ms, the newest result's) and temperature of the last five minutes; None where nothing was known."""

    def __init__(self) -> None:
        self._points: deque[tuple[Optional[float], Optional[float], Optional[float]]] = deque(maxlen=SECONDS)

    def add(self, live: Live) -> None:
        """Take the point of this second."""
        loop, latest = live.loop, live.latest
        if loop is None or latest is None:
            self._points.append((None, None, None))
            return
        fps = round(loop.statistics.recent_fps(), 2)
        self._points.append((fps, round(latest.latency_ns / 1e6, 2) if fps else None, latest.temp_c))

    def document(self) -> dict[str, Any]:
        points = list(self._points)
        return {
            "interval_s": 1,
            "fps": [point[0] for point in points],
            "latency_ms": [point[1] for point in points],
            "temp_c": [point[2] for point in points],
        }
