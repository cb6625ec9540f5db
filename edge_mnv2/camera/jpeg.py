"""JPEG pictures of a live camera, decoded no larger than they are needed.

A JPEG decoder can leave out the finest coefficients and give a picture of a half, a quarter or an eighth of the size
for a fraction of the time (libjpeg's scaled decoding): a model that looks at 224 pixels needs no 720 rows.
"""

from __future__ import annotations

from typing import Optional, Union

import numpy as np

from edge_mnv2.camera.opencv import import_cv2


def reduction(width: int, height: int, least_side: Optional[int]) -> int:
    """1, 2, 4 or 8: by how much the sides may shrink so that the shorter one keeps `least_side` pixels (None: all)."""
    if least_side is None:
        return 1
    return next((by for by in (8, 4, 2) if min(width, height) // by >= least_side), 1)


class JpegDecoder:
    """Decodes to BGR uint8 HxWx3; the first picture in full, and by that one's size chooses the reduction.

    `full_size` is (width, height) as the camera sends them, None before the first picture.
    """

    def __init__(self, least_side: Optional[int] = None) -> None:
        self._cv2 = import_cv2()
        self._least_side = least_side
        self._flags = self._cv2.IMREAD_COLOR
        self.full_size: Optional[tuple[int, int]] = None

    def __call__(self, jpeg: Union[bytes, np.ndarray]) -> Optional[np.ndarray]:
        """The picture, None where it cannot be decoded."""
        cv2 = self._cv2
        data = jpeg.reshape(-1) if isinstance(jpeg, np.ndarray) else np.frombuffer(jpeg, np.uint8)
        pixels = cv2.imdecode(data, self._flags)
        if pixels is not None and self.full_size is None:
            height, width = pixels.shape[:2]
            self.full_size = width, height
            by = reduction(width, height, self._least_side)
            self._flags = cv2.IMREAD_COLOR if by == 1 else getattr(cv2, f"IMREAD_REDUCED_COLOR_{by}")
        return pixels
