"""JPEGs of live cameras, decoded no larger than they are needed."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any, Optional

import cv2
import numpy as np
import pytest

from edge_mnv2.camera.jpeg import JpegDecoder, reduction
from edge_mnv2.camera.open import open_source
from edge_mnv2.camera.settings import CameraSettings
from tests.camera.stream_servers import MjpegServer, jpeg, number_in


@pytest.mark.parametrize(
    ("size", "least_side", "by"),
    [
        ((1280, 720), None, 1),
        ((1280, 720), 256, 2),
        ((1920, 1080), 256, 4),
        ((3840, 2160), 256, 8),
        ((7680, 4320), 256, 8),
        ((640, 480), 256, 1),
        ((640, 480), 240, 2),
        ((480, 640), 240, 2),
        ((640, 480), 10_000, 1),
    ],
)
def test_reduction(size: tuple[int, int], least_side: Optional[int], by: int) -> None:
    assert reduction(*size, least_side) == by


def test_the_first_picture_tells_the_size() -> None:
    decoder = JpegDecoder(256)
    sizes = []
    for number in range(3):
        pixels = decoder(jpeg(number, size=(1280, 720)))
        assert pixels is not None and number_in(pixels) == number
        sizes.append(pixels.shape)
    assert sizes == [(720, 1280, 3), (360, 640, 3), (360, 640, 3)] and decoder.full_size == (1280, 720)
    assert decoder(np.frombuffer(jpeg(5, size=(1280, 720)), np.uint8).reshape(1, -1)).shape == (360, 640, 3)  # type: ignore[union-attr]
    assert decoder(b"\xff\xd8 nothing") is None


def test_a_camera_that_is_set_to_another_size_gives_enough_pixels() -> None:
    decoder = JpegDecoder(256)
    for size in ((1920, 1080), (320, 240), (641, 481), (1281, 721), (320, 240), (2592, 1944)):
        by = reduction(*size, 256)
        for number in range(3):
            pixels = decoder(jpeg(number, size=size))
            assert pixels is not None and decoder.full_size == size
            # In full at first where less is enough.
            expected = size if number == 0 else tuple(-(-side // by) for side in size)
            assert pixels.shape[1::-1] == expected or (number == 0 and min(pixels.shape[:2]) >= 256)


def test_what_cannot_be_decoded_is_none() -> None:
    whole = jpeg(1, size=(64, 48))
    at = whole.index(b"\xff\xc0") + 5
    huge = whole[:at] + b"\xff\xff\xff\xff" + whole[at + 4 :]
    for picture in (b"", b"\xff\xd8", b"text", huge):
        decoder = JpegDecoder(256)
        assert decoder(picture) is None and decoder(whole) is not None and decoder(picture) is None


def test_a_stream_is_decoded_smaller_and_says_its_real_size() -> None:
    server = MjpegServer(lambda connection: (jpeg(number, size=(1280, 720)) for number in itertools.count()))
    try:
        with open_source(server.url, CameraSettings(least_side=256)) as source:
            frames = [source.read() for _ in range(4)]
            assert source.granted is not None and (source.granted.width, source.granted.height) == (1280, 720)
        assert all(frame is not None and frame.pixels.shape == (360, 640, 3) for frame in frames[1:])
        numbers = [number_in(frame.pixels) for frame in frames if frame is not None]
        assert numbers == sorted(numbers)
    finally:
        server.close()


@pytest.mark.parametrize(
    ("options", "whole"),
    [([], False), (["--resize", "stretch"], False), (["--roi", "0,0,640,720"], True), (["--snapshots", "DIR"], True)],
)
def test_run_decodes_in_full_where_somebody_looks(
    options: list[str], whole: bool, run: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is recognized stays; whose picture is kept or who counts in its pixels gets all of them."""
    photo = cv2.imread(str(data / "images" / "cat_720p.jpg"))
    file = cv2.imencode(".jpg", cv2.resize(photo, (1280, 720)), [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
    shapes: list[tuple[int, ...]] = []
    decode = JpegDecoder.__call__

    def watched(self: JpegDecoder, data: Any) -> Optional[np.ndarray]:
        pixels = decode(self, data)
        shapes.append(pixels.shape if pixels is not None else ())
        return pixels

    monkeypatch.setattr(JpegDecoder, "__call__", watched)
    server = MjpegServer(lambda connection: itertools.repeat(file))
    log = tmp_path / "log.jsonl"
    options = [str(tmp_path / "kept") if option == "DIR" else option for option in options]
    try:
        code, _, err = run(
            "run", "--source", server.url, "--max-frames", 4, "--log", log, "--delegate", "none", *options
        )
    finally:
        server.close()
    assert code == 0, err
    assert shapes[-1] == ((720, 1280, 3) if whole else (360, 640, 3))
    best = [json.loads(line)["top"][0] for line in log.read_text().splitlines()]
    if "--roi" not in options:
        assert {one["label"] for one in best} <= {"tabby, tabby cat", "tiger cat", "Egyptian cat"}, best
