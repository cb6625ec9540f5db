"""What a run classifies is shown: the square of `crop`, the region of interest, the whole with `letterbox`."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import numpy as np
import pytest

from edge_mnv2.camera.open import open_source
from edge_mnv2.camera.settings import CameraSettings
from edge_mnv2.outputs.picture import bgr
from edge_mnv2.pipeline.frame_loop import FrameLoop
from edge_mnv2.pipeline.result import Result
from edge_mnv2.runtime.classifier import Classifier
from edge_mnv2.runtime.model_io import ModelSpec
from tests.stubs import stub_at


class Results:
    def __init__(self) -> None:
        self.results: list[Result] = []

    def write(self, result: Result) -> None:
        self.results.append(result)


@pytest.mark.parametrize(
    ("size", "resize", "roi", "seen"),
    [
        ((640, 480), "crop", None, (110, 30, 420, 420)),
        ((480, 640), "crop", None, (30, 110, 420, 420)),
        ((640, 480), "stretch", None, (0, 0, 640, 480)),
        ((640, 480), "letterbox", None, (0, 0, 640, 480)),
        ((640, 480), "crop", "100,40,320,400", (120, 100, 280, 280)),
        ((640, 480), "letterbox", "100,40,320,400", (100, 40, 320, 400)),
    ],
)
def test_the_part_that_is_classified(
    tmp_path: Path, size: tuple[int, int], resize: str, roi: Optional[str], seen: tuple[int, ...]
) -> None:
    model = stub_at(tmp_path)
    source = open_source("test:{}x{}@200".format(*size), CameraSettings(roi=roi))
    results = Results()
    with Classifier.open(model, spec=ModelSpec(resize=resize)) as classifier, source:
        FrameLoop(source, [classifier], [results], max_frames=2).run()
    assert results.results[-1].seen == seen


def outlined(picture: np.ndarray, box: tuple[int, int, int, int]) -> bool:
    """The four edges of `box` differ from the grey around them."""
    left, top, width, height = box
    edges = (
        picture[top, left : left + width],
        picture[top + height - 1, left : left + width],
        picture[top : top + height, left],
        picture[top : top + height, left + width - 1],
    )
    return all((edge != 99).any(axis=-1).all() for edge in edges)


def test_it_is_drawn_where_it_is_a_part() -> None:
    from edge_mnv2.camera.frame import Frame

    frame = Frame(np.full((480, 640, 3), 99, np.uint8), "rgb", 0, 0)
    plain = bgr(frame, 0, (0, 0, 640, 480))
    assert (plain == 99).all(), "the whole picture needs no frame"
    square = bgr(frame, 0, (110, 30, 420, 420))
    assert outlined(square, (110, 30, 420, 420)) and (square[:29] == 99).all()
    small = bgr(frame, 320, (110, 30, 420, 420))
    assert small.shape == (240, 320, 3) and outlined(small, (55, 15, 210, 210))
    both = bgr(Frame(frame.pixels, "rgb", 0, 0, roi=(100, 40, 320, 400)), 0, (120, 100, 280, 280))
    assert outlined(both, (100, 40, 320, 400)) and outlined(both, (120, 100, 280, 280))
    assert (frame.pixels == 99).all(), "the frame itself stays as it is"
