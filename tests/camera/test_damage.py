"""Damaged, huge and hidden pictures: each is flagged or gives the whole picture's answer, and whole ones are never."""

from __future__ import annotations

import io
import json
import os
import random
import resource
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_mnv2.camera.still import list_stills, read_still
from edge_mnv2.errors import SourceError
from tests.processes import edge_mnv2

# What happens to a file: of `whole`, with its size, and random numbers.
DAMAGE: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "zeroed": lambda whole, dice: whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2),
    "cut": lambda whole, dice: whole[: len(whole) // 2],
    "noise": lambda whole, dice: whole[: len(whole) // 2] + dice.randbytes(len(whole) - len(whole) // 2),
    "noise before the end mark": lambda whole, dice: (
        whole[: len(whole) // 2] + dice.randbytes(len(whole) - len(whole) // 2 - 2) + b"\xff\xd9"
    ),
    "zeros before the end mark": lambda whole, dice: (
        whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2 - 2) + b"\xff\xd9"
    ),
    "ones": lambda whole, dice: whole[: len(whole) // 2] + b"\xff" * (len(whole) - len(whole) // 2),
    "a lost block": lambda whole, dice: whole[: len(whole) // 2] + bytes(2048) + whole[len(whole) // 2 + 2048 :],
    "an end mark too early": lambda whole, dice: whole[: len(whole) // 2] + b"\xff\xd9",
    "a block left out": lambda whole, dice: whole[: len(whole) // 2] + whole[len(whole) // 2 + 2048 :],
}
WRITERS = {
    "as it is": None,
    "progressive": {"progressive": True, "quality": 92},
    "optimized": {"optimize": True},
    "restarts": {"restart_marker_rows": 1},
    "progressive with restarts": {"progressive": True, "restart_marker_blocks": 20},
    "full colour": {"subsampling": 0},
}


def photos(data: Path, count: int) -> list[Path]:
    files = sorted((data / "imagenet-dev").glob("*.jpg"))
    return files[:: max(1, len(files) // count)][:count]


def written(photo: Path, writer: str) -> bytes:
    options = WRITERS[writer]
    if options is None:
        return photo.read_bytes()
    buffer = io.BytesIO()
    Image.open(photo).save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("writer", WRITERS)
def test_half_lost_photos_are_flagged(data: Path, tmp_path: Path, writer: str) -> None:
    path = tmp_path / "a.jpg"
    missed = []
    for photo in photos(data, 50):
        whole = written(photo, writer)
        path.write_bytes(whole)
        assert read_still(path).shape[2] == 3, photo.name
        for name, damage in DAMAGE.items():
            path.write_bytes(damage(whole, random.Random(photo.name)))
            try:
                read_still(path)
                missed.append((name, photo.name))
            except SourceError as error:
                assert str(path) in str(error) and "\n" not in str(error)
    # Where progressive scans end by chance at the right place, only the finest details are gone.
    assert [name for name, _ in missed if "progressive" not in writer or name in ("zeroed", "cut", "noise")] == []
    assert len(missed) <= 5


@pytest.mark.slow
def test_no_whole_photo_is_flagged(data: Path) -> None:
    for photo in (data / "imagenet-dev").glob("*.jpg"):
        pixels = read_still(photo)
        assert (pixels == np.asarray(Image.open(photo).convert("RGB"))).all(), photo.name


@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"progressive": True}, {"quality": 1}, {"subsampling": 0}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("size", [(1, 1), (7, 300), (640, 17), (333, 222)])
def test_flat_and_tiny_pictures_are_whole(tmp_path: Path, options: dict, mode: str, size: tuple[int, int]) -> None:
    Image.new(mode, size, 255 if mode == "L" else (10, 200, 90, 0)[: len(mode)]).save(tmp_path / "a.jpg", **options)
    assert read_still(tmp_path / "a.jpg").shape == (size[1], size[0], 3)


def test_what_follows_the_picture_is_no_damage(tmp_path: Path, data: Path) -> None:
    whole = photos(data, 1)[0].read_bytes()
    for trailer in (bytes(5000), random.Random(1).randbytes(5000), b"MotionPhoto" + whole):
        (tmp_path / "a.jpg").write_bytes(whole + trailer)
        assert read_still(tmp_path / "a.jpg").ndim == 3


@pytest.mark.parametrize("suffix", ["webp", "gif", "jp2"])
def test_files_that_end_in_zeros(tmp_path: Path, data: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.open(photos(data, 1)[0]).save(path)
    assert read_still(path).ndim == 3
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))
    with pytest.raises(SourceError, match=path.name):
        read_still(path)


def bomb(width: int, height: int, colours: int = 2) -> bytes:
    """A small PNG of many black pixels (colour type 2: RGB, 6: RGBA)."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    packer, packed = zlib.compressobj(9), b""
    row = bytes(1 + width * (3 if colours == 2 else 4))
    for _ in range(height):
        packed += packer.compress(row)
    header = struct.pack(">IIBBBBB", width, height, 8, colours, 0, 0, 0)
    packed += packer.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


@pytest.mark.slow
def test_memory_is_checked_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_mnv2.board import cpus

    (tmp_path / "bomb.png").write_bytes(bomb(13_000, 13_000))
    monkeypatch.setattr(cpus.MemoryReader, "read", lambda self: cpus.Memory(total=1000, available=900))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SourceError, match=r"bomb\.png has 13000x13000 pixels, which need \d+ MB of memory; 900 MB are"):
        read_still(tmp_path / "bomb.png")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


MEASURE = """
import sys, time
from edge_mnv2.camera.still import read_still
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024
side = int(sys.argv[2]) or None
read_still(sys.argv[3], side)
before = peak()
began = time.process_time()
shape = read_still(sys.argv[1], side).shape
print(*shape[:2], time.process_time() - began, peak() - before)
"""


def measured(photo: Path, side: int, first: Path) -> tuple[int, int, float, float]:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(photo), str(side), str(first)], capture_output=True, text=True, check=True
    )
    height, width, seconds, megabytes = done.stdout.split()
    return int(height), int(width), float(seconds), float(megabytes)


@pytest.mark.slow
def test_a_large_photo_costs_little(tmp_path: Path, data: Path) -> None:
    photo = Image.open(photos(data, 1)[0]).convert("RGB")
    photo.resize((640, 480)).save(tmp_path / "small.jpg")
    noise = np.random.default_rng(0).integers(-6, 7, (3000, 4000, 3))
    pixels = (np.asarray(photo.resize((4000, 3000))).astype(int) + noise).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "large.jpg", quality=92)
    runs = [measured(tmp_path / "large.jpg", side, tmp_path / "small.jpg") for side in (0, 256, 0, 256)]
    assert runs[0][:2] == (3000, 4000) and runs[1][:2] == (750, 1000)
    assert min(runs[1][2], runs[3][2]) < min(runs[0][2], runs[2][2]) / 2, "a third, measured alone"
    assert runs[1][3] < 20, "megabytes above a 640x480 picture"


@pytest.mark.slow
def test_enlarged_photos_keep_their_answers(tmp_path: Path, data: Path) -> None:
    from edge_mnv2.runtime.classifier import Classifier
    from edge_mnv2.zoo.resolve import resolve

    same = 0
    files = photos(data, 50)
    with Classifier.open(resolve("mobilenet_v2_1.0_224_int8").path) as classifier:
        for photo in files:
            image = Image.open(photo).convert("RGB")
            image.resize((4 * image.width, 4 * image.height), Image.Resampling.BICUBIC).save(tmp_path / "a.jpg")
            answers = [
                classifier.scores(read_still(tmp_path / "a.jpg", side)) for side in (None, classifier.least_side)
            ]
            same += np.argmax(answers[0]) == np.argmax(answers[1])
    assert same >= 0.99 * len(files)


@pytest.mark.slow
def test_a_photo_of_two_hundred_megapixels_is_no_damage(tmp_path: Path) -> None:
    Image.new("RGB", (16_000, 12_500), (200, 30, 30)).save(tmp_path / "poster.jpg", quality=50)
    pixels = read_still(tmp_path / "poster.jpg", 256)
    assert min(pixels.shape[:2]) >= 640 and pixels.shape[0] < 2000
    assert np.abs(pixels[5, 5].astype(int) - (200, 30, 30)).max() <= 3


def test_transparent_pictures_in_strips(tmp_path: Path) -> None:
    layer = np.zeros((1300, 1100, 4), np.uint8)
    layer[..., 0], layer[..., 3] = 254, np.linspace(0, 255, 1300).astype(np.uint8)[:, None]
    Image.fromarray(layer).save(tmp_path / "a.png")
    picture = Image.open(tmp_path / "a.png")
    wanted = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    assert (read_still(tmp_path / "a.png") == np.asarray(wanted)).all()


# Folders below


def test_the_rest_of_a_folder_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("1.png", "closed/2.png", "open/3.png"):
        (tmp_path / "photos" / name).parent.mkdir(exist_ok=True, parents=True)
        Image.new("RGB", (20, 20)).save(tmp_path / "photos" / name)
    (tmp_path / "photos/linked").symlink_to(tmp_path / "photos/open")
    scan = os.scandir

    def refuse(path: object = ".") -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)  # type: ignore[call-overload]

    # Root, who runs these tests in a container, reads everything.
    monkeypatch.setattr(os, "scandir", refuse)
    problems: list[str] = []
    files = list_stills(tmp_path / "photos", problems.append)
    assert [file.name for file in files] == ["1.png", "3.png"]
    assert len(problems) == 2 and any("closed cannot be listed: Permission" in one for one in problems)
    assert any("linked is a link to a folder" in one for one in problems)
    from edge_mnv2.camera.open import open_source

    with open_source(str(tmp_path / "photos")) as source:
        frames = 0
        while source.read() is not None:
            frames += 1
    assert frames == 2 and source.error_count == 2


def test_classify_says_what_it_left_out(tmp_path: Path, data: Path) -> None:
    photo = photos(data, 1)[0]
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a.jpg").write_bytes(photo.read_bytes())
    (tmp_path / "half.jpg").write_bytes(DAMAGE["zeroed"](photo.read_bytes(), random.Random(1)))
    (tmp_path / "link").symlink_to(tmp_path / "sub")
    done = edge_mnv2("classify", str(tmp_path), "--json")
    assert done.returncode == 8
    results = json.loads(done.stdout)["results"]
    assert sum("top" in one for one in results) == 1
    assert any("half.jpg is damaged" in one.get("error", "") for one in results)
    assert any("link is a link to a folder" in one.get("error", "") for one in results)


def test_time_of_checked_decoding(data: Path) -> None:
    """What is checked costs next to nothing beside decoding."""
    files = photos(data, 20)

    def seconds(read: Callable[[Path], object]) -> float:
        began = time.process_time()
        for file in files:
            read(file)
        return time.process_time() - began

    plain = min(seconds(lambda file: np.asarray(Image.open(file).convert("RGB"))) for _ in range(3))
    checked = min(seconds(read_still) for _ in range(3))
    assert checked < 2 * plain
