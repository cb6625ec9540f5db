"""OpenCV as the package imports it: its libraries read their environment at the first use in a process."""

from __future__ import annotations

import contextlib

from edge_mnv2.camera.opencv import import_cv2
from edge_mnv2.errors import SourceError

with contextlib.suppress(SourceError):  # stills are read without it
    import_cv2()
