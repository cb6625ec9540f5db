"""One preprocessing path, checked against its definition."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edge_mnv2.errors import UsageError
from edge_mnv2.runtime.preprocess import GREY, Preprocessor, crop_box


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(
    ("width", "height", "aspect", "box"),
    [
        (256, 256, 1.0, (16, 16, 224, 224)),
        (640, 480, 1.0, (110, 30, 420, 420)),
        (480, 640, 1.0, (30, 110, 420, 420)),
        (1280, 720, 2.0, (80, 80, 1120, 560)),
        (1, 1, 1.0, (0, 0, 1, 1)),
        (3, 4000, 1.0, (0, 1998, 3, 3)),
    ],
)
def test_the_crop_is_the_centre(width: int, height: int, aspect: float, box: tuple[int, int, int, int]) -> None:
    assert crop_box(width, height, aspect) == box


def test_crop_is_one_linear_resize_of_the_centre_square() -> None:
    frame = picture(480, 640)
    expected = cv2.resize(frame[30:450, 110:530], (224, 224), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(Preprocessor(224, 224).to_rgb(frame), expected)
    assert np.array_equal(Preprocessor(224, 224).to_rgb(frame[..., ::-1].copy(), "bgr"), expected)


def test_stretch_takes_the_whole_picture() -> None:
    frame = picture(100, 300)
    assert np.array_equal(Preprocessor(64, 64, "stretch").to_rgb(frame), cv2.resize(frame, (64, 64)))


@pytest.mark.parametrize(("height", "width"), [(100, 300), (300, 100), (64, 64), (1, 500)])
def test_letterbox_keeps_the_aspect_between_grey_bars(height: int, width: int) -> None:
    fitted = Preprocessor(64, 64, "letterbox").to_rgb(np.full((height, width, 3), 250, np.uint8))
    bright = fitted[..., 0] == 250
    rows, columns = bright.any(axis=1).sum(), bright.any(axis=0).sum()
    assert max(rows, columns) == 64
    assert min(rows, columns) == max(1, round(64 * min(height, width) / max(height, width)))
    assert (fitted[~bright] == GREY).all()


def test_letterbox_forgets_the_last_shape() -> None:
    fit = Preprocessor(32, 32, "letterbox")
    fit.to_rgb(picture(10, 40))
    again = fit.to_rgb(np.zeros((40, 10, 3), np.uint8))
    assert (again[:, :8] == GREY).all() and (again[:, 24:] == GREY).all()


def test_views_of_a_frame_are_accepted() -> None:
    frame = picture(200, 200)
    for view in (frame[20:180, 10:150], frame[::-1], frame[:, ::-1], frame.transpose(1, 0, 2)):
        assert np.array_equal(
            Preprocessor(32, 32).to_rgb(view), Preprocessor(32, 32).to_rgb(np.ascontiguousarray(view))
        )


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(UsageError, match="squash"):
        Preprocessor(8, 8, "squash")
