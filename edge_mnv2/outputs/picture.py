"""Frames as JPEG."""

from __future__ import annotations

import numpy as np

from edge_mnv2.camera.frame import Frame

_ROI = (40, 200, 255)


def bgr(frame: Frame, most: int = 0) -> np.ndarray:
    """`frame` as BGR uint8 of its own memory, its longer side at most `most` pixels (0: as it is), its region of
    interest outlined."""
    import cv2

    pixels = frame.pixels
    height, width = pixels.shape[:2]
    scale = min(1.0, most / max(height, width)) if most else 1.0
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        # Twice smaller and more, LINEAR leaves pixels out; AREA costs little there.
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale <= 0.5 else cv2.INTER_LINEAR)
    if frame.order == "rgb":
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    elif pixels is frame.pixels:
        pixels = pixels.copy()
    if frame.roi is not None:
        left, top, wide, high = (round(value * scale) for value in frame.roi)
        thick = max(1, round(max(pixels.shape[:2]) / 400))
        cv2.rectangle(pixels, (left, top), (left + wide - 1, top + high - 1), _ROI, thick)
    return pixels


def jpeg(pixels: np.ndarray, quality: int = 80) -> bytes:
    """BGR uint8 HxWx3 as JPEG."""
    import cv2

    made, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not made:
        raise ValueError("the picture could not be encoded")
    return data.tobytes()
