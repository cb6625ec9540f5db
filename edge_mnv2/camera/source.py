"""What all sources have in common."""

from __future__ import annotations

import logging
from typing import Optional

import numpy as np

from edge_mnv2.camera.frame import Frame, Granted
from edge_mnv2.camera.geometry import Geometry

log = logging.getLogger(__name__)

MAX_ERRORS = 1000


class Source:
    """Base of every frame source: its description, what went wrong, and frames turned as the user wants them."""

    live = False
    backoff = (0.2, 1.0)
    """First and longest pause between attempts to open a lost source again, in seconds."""

    def __init__(self, description: str, geometry: Optional[Geometry] = None) -> None:
        self.description = description
        self.geometry = geometry or Geometry()
        self.granted: Optional[Granted] = None
        self.state = "ok"
        self.reconnects = 0
        self.errors: list[str] = []
        self.error_count = 0
        self.decode_errors = 0

    def open(self) -> None:
        raise NotImplementedError

    def read(self) -> Optional[Frame]:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Source:
        self.open()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _frame(
        self,
        pixels: np.ndarray,
        order: str,
        captured_at: int,
        index: int,
        position_ns: Optional[int] = None,
        name: Optional[str] = None,
    ) -> Frame:
        pixels = self.geometry.turn(pixels)
        return Frame(pixels, order, captured_at, index, position_ns, name, self.geometry.box(pixels))

    def _report(self, problem: str) -> None:
        """Say once that an input could not be read in full; the list is bounded, a folder can be large."""
        if problem in self.errors:
            return
        log.warning("%s", problem)
        self.error_count += 1
        if len(self.errors) < MAX_ERRORS:
            self.errors.append(problem)
