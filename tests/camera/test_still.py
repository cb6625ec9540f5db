from __future__ import annotations

import io
import os
import random
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, features

from edge_mnv2.camera import still
from edge_mnv2.camera.still import list_stills, read_still
from edge_mnv2.errors import SourceError

RED, WHITE = (254, 0, 0), (255, 255, 255)


def picture(width: int = 96, height: int = 64) -> Image.Image:
    """Red above, a blue bar at the bottom left: asymmetric, so that every orientation looks different."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:] = RED
    pixels[height * 3 // 4 :, : width // 2] = (0, 0, 254)
    return Image.fromarray(pixels)


def near(pixel: np.ndarray, colour: tuple[int, int, int], tolerance: int = 4) -> bool:
    return bool(np.abs(pixel.astype(int) - colour).max() <= tolerance)


def png16(pixels: np.ndarray) -> bytes:
    """A PNG of 16-bit RGB samples, which Pillow reads but does not write."""
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_every_kind_of_picture_becomes_rgb(tmp_path: Path) -> None:
    image = picture()
    blue = Image.new("RGB", image.size, "blue")
    opaque = image.convert("RGBA")
    saved = {
        "plain.png": image,
        "palette.png": image.quantize(8),
        "alpha.png": opaque,
        "cmyk.tif": image.convert("CMYK"),
        "cmyk.jpg": image.convert("CMYK"),
        "plain.bmp": image,
        "plain.ppm": image,
        "plain.jp2": image,
        "plain.jpg": image,
    }
    for name, value in saved.items():
        value.save(tmp_path / name)
    for name in ("frames.gif", "frames.png", "frames.webp", "frames.tif", "frames.mpo"):
        image.save(tmp_path / name, save_all=True, append_images=[blue])
    if features.check("avif"):
        image.save(tmp_path / "plain.avif", quality=95)
    (tmp_path / "deep.png").write_bytes(png16(np.asarray(image).astype(np.uint16) * 257))
    for path in list_stills(tmp_path):
        pixels = read_still(path)
        assert pixels.dtype == np.uint8 and pixels.shape == (64, 96, 3) and pixels.flags.c_contiguous, path.name
        assert near(pixels[8, 70], RED, 8) and near(pixels[60, 10], (0, 0, 254), 8), path.name
    assert len(list_stills(tmp_path)) == len(saved) + 6 + features.check("avif")


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_grey_and_one_bit_fill_all_channels(tmp_path: Path, suffix: str) -> None:
    ramp = np.tile(np.arange(0, 240, 4, dtype=np.uint8), (20, 1))
    Image.fromarray(ramp).save(tmp_path / f"grey.{suffix}")
    Image.fromarray(ramp > 100).save(tmp_path / f"bit.{suffix}")
    grey, bit = read_still(tmp_path / f"grey.{suffix}"), read_still(tmp_path / f"bit.{suffix}")
    assert all((grey[..., channel] == ramp).all() for channel in range(3))
    assert all((bit[..., channel] == np.where(ramp > 100, 255, 0)).all() for channel in range(3))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_grey_keeps_the_high_byte(tmp_path: Path, suffix: str) -> None:
    ramp = np.tile(np.arange(0, 240, 4, dtype=np.uint16), (20, 1))
    Image.fromarray(ramp * 257).save(tmp_path / f"grey.{suffix}")
    pixels = read_still(tmp_path / f"grey.{suffix}")
    assert all((pixels[..., channel] == ramp).all() for channel in range(3))


def test_a_tiff_whose_zero_is_white_is_no_negative(tmp_path: Path) -> None:
    ramp = np.tile(np.arange(0, 240, 4, dtype=np.uint16), (20, 1))
    for dtype, factor in ((np.uint8, 1), (np.uint16, 257)):
        samples = Image.fromarray((ramp * factor).astype(dtype))
        samples.save(tmp_path / "scan.tif")
        whole = (tmp_path / "scan.tif").read_bytes()
        black, white = (struct.pack("<HHIHH", 262, 3, 1, zero, 0) for zero in (1, 0))
        assert whole.count(black) == 1
        (tmp_path / "scan.tif").write_bytes(whole.replace(black, white))
        assert (read_still(tmp_path / "scan.tif")[..., 0] == 255 - ramp).all(), dtype


def test_an_address_is_no_file() -> None:
    with pytest.raises(SourceError, match=r"file not found.*`run --source` takes addresses"):
        read_still(Path("http://cam.local/snapshot.jpg"))


def test_samples_that_cannot_be_read_are_no_damage(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "measured.tif"), np.ones((4, 4, 3), np.float32))
    with pytest.raises(SourceError, match=r"measured\.tif has a kind of samples that cannot be read here"):
        read_still(tmp_path / "measured.tif")


def test_transparency_of_every_kind_lies_over_white(tmp_path: Path) -> None:
    image = picture()
    layer = image.convert("RGBA")
    layer.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, 96).astype(np.uint8), (64, 1))))
    layer.save(tmp_path / "layer.png")
    layer.save(tmp_path / "layer.webp", lossless=True, exact=True)
    layer.convert("LA").save(tmp_path / "grey.png")
    image.save(tmp_path / "key.png", transparency=RED)
    palette = image.quantize(4)
    red = palette.getpixel((70, 8))
    palette.save(tmp_path / "palette.png", transparency=red)
    palette.save(tmp_path / "palette.gif", transparency=red)
    for name in ("layer.png", "layer.webp", "grey.png", "key.png", "palette.png", "palette.gif"):
        pixels = read_still(tmp_path / name)
        assert near(pixels[8, 0], WHITE), name
    assert near(read_still(tmp_path / "layer.png")[8, 95], RED)
    assert near(read_still(tmp_path / "layer.png")[8, 48], (254, 126, 126))
    for name in ("key.png", "palette.png", "palette.gif"):
        assert near(read_still(tmp_path / name)[60, 10], (0, 0, 254)), name


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_exif_orientation_is_applied(tmp_path: Path, suffix: str) -> None:
    upright = picture()
    # What a camera stores so that the tag turns it upright again.
    stored = {
        1: upright,
        2: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: upright.transpose(Image.Transpose.ROTATE_180),
        4: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: upright.transpose(Image.Transpose.TRANSPOSE),
        6: upright.transpose(Image.Transpose.ROTATE_90),
        7: upright.transpose(Image.Transpose.TRANSVERSE),
        8: upright.transpose(Image.Transpose.ROTATE_270),
    }
    for orientation, image in stored.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / f"{orientation}.{suffix}"
        image.save(path, exif=exif, **({} if suffix in ("png", "tif") else {"quality": 95}))
        pixels = read_still(path)
        assert pixels.shape == (64, 96, 3), path.name
        assert near(pixels[8, 10], RED, 12) and near(pixels[60, 10], (0, 0, 254), 12), path.name
        assert near(pixels[60, 80], RED, 12), path.name


def test_nonsense_orientation_means_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 77
    picture().save(tmp_path / "a.jpg", exif=exif)
    assert read_still(tmp_path / "a.jpg").shape == (64, 96, 3)


def test_content_decides_not_the_extension(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.gif")
    for name in ("a.jpg", "a.mp4", "a.txt", "a"):
        (tmp_path / name).write_bytes((tmp_path / "a.gif").read_bytes())
        assert near(read_still(tmp_path / name)[8, 70], RED)


def test_what_is_no_picture_gives_one_line_that_names_it(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    picture().save(buffer, "PNG")
    png = buffer.getvalue()
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 0xFF
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "float.tif")
    contents = {
        "empty.jpg": b"",
        "text.png": b"hello world\n" * 40,
        "page.jpg": b"<!DOCTYPE html><html></html>",
        "binary.jpg": bytes(range(256)) * 4,
        "cut.png": png[: len(png) // 2],
        "flipped.png": bytes(flipped),
        "huge.png": png[:16] + struct.pack(">II", 60000, 60000) + png[24:],
        "phone.heic": b"\0\0\0\x18ftypheic\0\0\0\0heicmif1" + bytes(400),
        "clip.mp4": b"\0\0\0\x18ftypisom\0\0\0\0isomiso2" + bytes(400),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "folder.jpg").mkdir()
    names = [*contents, "float.tif", "pipe.jpg", "dangling.jpg", "folder.jpg", "missing.jpg", "nul\0.jpg"]
    for name in names:
        with pytest.raises(SourceError) as caught:
            read_still(tmp_path / name)
        text = str(caught.value)
        assert name.split("\0")[0] in text and "\n" not in text and "<_io" not in text, text
        assert caught.value.exit_code == 4


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "ppm", "gif", "webp", "tif", "jp2"])
def test_a_picture_that_was_cut_short_is_never_taken_for_whole(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (64, 96, 3), dtype=np.uint8)
    path = tmp_path / f"whole.{suffix}"
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    assert read_still(path).shape == (64, 96, 3)
    for share in (0.1, 0.5, 0.9):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(SourceError, match=path.name):
            read_still(path)


def test_damaged_pictures_never_raise_anything_else(tmp_path: Path) -> None:
    dice = random.Random(7)
    refused = read = 0
    for suffix in ("jpg", "png", "bmp", "gif", "webp", "tif", "jp2", "ppm"):
        path = tmp_path / f"a.{suffix}"
        picture().save(path)
        whole = path.read_bytes()
        for _ in range(40):
            damaged = bytearray(whole)
            for _ in range(dice.choice([1, 3, 20])):
                damaged[dice.randrange(len(damaged))] = dice.randrange(256)
            path.write_bytes(damaged)
            try:
                pixels = read_still(path)
                assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
                read += 1
            except SourceError as error:
                assert str(path) in str(error) and "\n" not in str(error)
                refused += 1
    assert read and refused


def test_unreadable_file(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads everything")
    picture().save(tmp_path / "a.png")
    (tmp_path / "a.png").chmod(0)
    with pytest.raises(SourceError, match=r"a\.png.*Permission"):
        read_still(tmp_path / "a.png")


def test_list_is_in_natural_order_without_hidden_and_foreign_files(tmp_path: Path) -> None:
    names = ["img10.png", "img2.png", "IMG1.png", "b/3.png", "b/20.png", ".hidden.png", ".git/x.png", "no_suffix"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        picture().save(tmp_path / name, "PNG")
    for name, content in {
        "labels.csv": b"a,b",
        "README": b"hi",
        "Thumbs.db": b"\xd0\xcf",
        "broken.jpg": b"",
        "x.bin": b"\0" * 9,
    }.items():
        (tmp_path / name).write_bytes(content)
    listed = [str(path.relative_to(tmp_path)) for path in list_stills(tmp_path)]
    assert listed == ["b/3.png", "b/20.png", "broken.jpg", "IMG1.png", "img2.png", "img10.png", "no_suffix"]


@pytest.mark.parametrize(
    ("suffix", "clip"), [("gif", True), ("webp", False), ("png", True), ("tif", False), ("mpo", None)]
)
def test_of_several_frames_the_first_is_taken_and_that_is_said_once(
    suffix: str, clip: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if suffix == "webp" and not features.check("webp"):
        pytest.skip("this Pillow reads no WebP")
    monkeypatch.setattr("edge_mnv2.camera.still._said", [])
    others = [Image.new("RGB", (96, 64), colour) for colour in ("blue", "green")]
    for name in ("a", "b"):
        picture().save(tmp_path / f"{name}.{suffix}", save_all=True, append_images=others)
        assert near(read_still(tmp_path / f"{name}.{suffix}")[0, 0], RED, 12)
    picture().save(tmp_path / "one.gif")
    read_still(tmp_path / "one.gif")
    said = [record.getMessage() for record in caplog.records]
    if clip is None:
        assert said == []
    else:
        assert len(said) == 1 and f"a.{suffix} has 3 frames" in said[0]
        assert (f"ffmpeg -i a.{suffix} a.mp4" in said[0]) is clip


def test_damage_in_a_later_frame_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_mnv2.camera.still._said", [])
    picture().save(tmp_path / "a.gif", save_all=True, append_images=[Image.new("RGB", (96, 64), "blue")])
    whole = (tmp_path / "a.gif").read_bytes()
    for length in range(len(whole) - 1, len(whole) - 40, -1):
        (tmp_path / "a.gif").write_bytes(whole[:length])
        assert near(read_still(tmp_path / "a.gif")[0, 0], RED)


def test_a_long_search_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(4):
        picture().save(tmp_path / f"{number}.png")
    assert len(list_stills(tmp_path)) == 4 and not caplog.text
    monkeypatch.setattr("edge_mnv2.camera.still._SILENT_S", -1.0)
    assert len(list_stills(tmp_path)) == 4
    assert [record.getMessage() for record in caplog.records] == [
        f"looking for pictures below {tmp_path}: 1 of 1 files so far"
    ]


def test_what_cannot_be_searched_fills_no_screen(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number:02}").symlink_to(tmp_path)
    problems: list[str] = []
    assert list_stills(tmp_path, problems.append) == []
    assert len(problems) == 10 and problems[-1].startswith("21 more folders")


def test_what_the_kernel_writes_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of it never ends; `/proc/kmsg` waits for the next message."""
    if not Path("/proc/self/limits").exists():
        pytest.skip("no /proc here")
    monkeypatch.setattr(Path, "open", lambda *_given: pytest.fail("it is read"))
    assert not still._listed(Path("/proc/self/limits"))


def test_list_of_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nowhere"):
        list_stills(tmp_path / "nowhere")


def test_reads_the_reference_photos(data: Path) -> None:
    for path in list_stills(data / "images"):
        assert read_still(path).ndim == 3
