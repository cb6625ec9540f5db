from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_mnv2.camera import open as opening
from edge_mnv2.camera.frame import Frame
from edge_mnv2.camera.open import open_source
from edge_mnv2.camera.pattern import TestPattern
from edge_mnv2.camera.settings import CameraSettings, Geometry, Roi, parse
from edge_mnv2.camera.watchdog import Watchdog
from edge_mnv2.errors import EdgeMnv2Error, SourceError, UsageError
from tests.camera import picamera2_standin

# What a SPEC means


@pytest.mark.parametrize(
    ("text", "kind", "facts"),
    [
        ("auto", "auto", {}),
        ("0", "device", {"number": 0, "path": None}),
        (" 12 ", "device", {"number": 12}),
        ("/dev/video7", "device", {"path": Path("/dev/video7")}),
        ("/dev/v4l/by-id/usb-Cam-index0", "device", {"path": Path("/dev/v4l/by-id/usb-Cam-index0")}),
        ("/dev/null", "device", {}),
        ("csi", "csi", {"number": 0}),
        ("csi:1", "csi", {"number": 1}),
        ("rtsp://cam/x", "rtsp", {}),
        ("RTSPS://cam/x", "rtsp", {}),
        ("https://cam/x", "http", {}),
        ("gst:videotestsrc ! appsink", "gst", {"pipeline": "videotestsrc ! appsink"}),
        ("demo", "demo", {}),
        ("test", "test", {"size": None, "fps": None}),
        ("test:640x480", "test", {"size": (640, 480), "fps": None}),
        ("test:1280x720@29.97", "test", {"size": (1280, 720), "fps": 29.97}),
        ("test:@5", "test", {"size": None, "fps": 5}),
    ],
)
def test_every_form_of_spec(text: str, kind: str, facts: dict) -> None:
    spec = parse(text)
    assert spec.kind == kind
    assert {name: getattr(spec, name) for name in facts} == facts


@pytest.mark.parametrize(
    "text",
    [
        *("", "test:", "test:0x0@30", "test:640x480@0", "test:640x@30", "test:abc", "test:640x480@1e9"),
        *("test:999999x10", "csi:x", "csi:-1", "csi:", "gst:", "gst: ", "ftp://cam/x", "rtsp://"),
        "udp://239.0.0.1:5000",
    ],
)
def test_malformed_specs_are_usage_errors(text: str) -> None:
    with pytest.raises(UsageError):
        parse(text)


def test_files_by_content_and_missing_files_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("picture.mp4", "PNG")
    Path("clip.jpg").write_bytes(b"\0\0\0\x18ftypisom\0\0\0\0isomiso2" + bytes(400))
    Image.new("RGB", (8, 8)).save("stream.mjpeg", "JPEG")
    Image.new("RGB", (8, 8)).save("0", "PNG")
    Path("demo").mkdir()
    kinds = {name: parse(name).kind for name in ("picture.mp4", "clip.jpg", "stream.mjpeg", ".", "./0", "./demo", "0")}
    assert kinds == {
        "picture.mp4": "still",
        "clip.jpg": "clip",
        "stream.mjpeg": "clip",
        ".": "folder",
        "./0": "still",
        "./demo": "folder",
        "0": "device",
    }
    assert parse(f"file://{tmp_path}/picture.mp4").kind == "still"
    for name in ("missing.mp4", "nowhere/x.jpg", "video0", "-1", "foo"):
        with pytest.raises(SourceError, match=r"file not found") as caught:
            parse(name)
        assert name in str(caught.value)
    with pytest.raises(SourceError, match="/dev/video0"):
        parse("video0")
    os.mkfifo("pipe.mp4")
    with pytest.raises(SourceError, match="neither a file nor a camera"):
        parse("pipe.mp4")
    with pytest.raises(SourceError):
        parse("nul\0.mp4")


# What may be asked


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": 640},
        {"width": 8, "height": 8},
        {"fps": 0},
        {"fps": float("nan")},
        {"rotate": 45},
        {"flip": "x"},
        {"flip": "hh"},
        {"format": "MJPEG"},
        {"stall_s": 0},
        {"frozen_s": -1},
        {"warmup_frames": -1},
        {"roi": "1,2,3"},
        {"roi": "0,0,0,10"},
        {"roi": "nan,0,10,10"},
        {"roi": "-1,0,10,10"},
        {"roi": "0.5,0.5,10,10"},
        {"roi": (True, 0, 1, 1)},
    ],
)
def test_settings_out_of_range(wrong: dict) -> None:
    with pytest.raises(UsageError):
        CameraSettings(**wrong)


@pytest.mark.parametrize(
    ("roi", "box"),
    [
        ("10,20,100,50", (10, 20, 100, 50)),
        ("0.25,0.5,0.5,0.5", (160, 240, 320, 240)),
        ("0,0,1,1", (0, 0, 640, 480)),
        ("600,400,100,100", (600, 400, 40, 80)),
        ((0, 0, 640, 480), (0, 0, 640, 480)),
        ("0.5,0.5,0.0001,0.0001", (320, 240, 1, 1)),
        ("0.9999,0.9999,0.0001,0.0001", (639, 479, 1, 1)),
    ],
)
def test_regions(roi: str, box: tuple[int, ...]) -> None:
    assert Roi.parse(roi).box(640, 480) == box


def test_a_region_outside_the_picture_is_refused() -> None:
    with pytest.raises(UsageError, match="outside the 640x480 picture"):
        Roi.parse("640,0,10,10").box(640, 480)


@pytest.mark.parametrize("rotate", [0, 90, 180, 270])
@pytest.mark.parametrize("flip", [None, "h", "v", "hv", "vh"])
def test_turning_is_rotation_clockwise_then_flip(rotate: int, flip: str) -> None:
    picture = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    wanted = np.rot90(picture, -rotate // 90)
    if flip and "h" in flip:
        wanted = wanted[:, ::-1]
    if flip and "v" in flip:
        wanted = wanted[::-1]
    turned = Geometry(rotate, flip).turn(picture)
    assert (turned == wanted).all() and turned.flags.c_contiguous
    assert (turned is picture) == (wanted.shape == picture.shape and bool((wanted == picture).all()))


def test_a_frame_shows_the_whole_and_classifies_the_region() -> None:
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[10:20, 30:50] = (1, 2, 3)
    frame = Frame(pixels, "bgr", 0, 0, roi=(30, 10, 20, 10))
    assert (frame.region == (1, 2, 3)).all() and frame.region.shape == (10, 20, 3)
    assert frame.image[15, 35].tolist() == [3, 2, 1] and frame.image.shape == (48, 64, 3)
    assert Frame(pixels, "rgb", 0, 0).region is pixels


# Sources without hardware


def test_the_pattern_moves_at_its_rate_and_repeats_itself() -> None:
    with open_source("test:320x240@100") as source:
        frames = [source.read() for _ in range(30)]
        assert source.live and source.granted.fps == 100
    assert all(frame.pixels.shape == (240, 320, 3) and frame.order == "rgb" for frame in frames)
    assert [frame.index for frame in frames] == list(range(30))
    steps = np.diff([frame.captured_at for frame in frames])
    assert np.median(steps) == pytest.approx(1e7, rel=0.01)
    assert all((a.pixels != b.pixels).any() for a, b in zip(frames, frames[1:]))
    with open_source("test:320x240@100") as again:
        assert (again.read().pixels == frames[0].pixels).all()


def test_the_pattern_is_a_camera_a_late_reader_misses_frames() -> None:
    with TestPattern(64, 48, 50) as source:
        first = source.read()
        time.sleep(0.5)
        late = source.read()
        assert first is not None and late is not None
        assert late.captured_at - first.captured_at > 4e8 and late.index == 1
        assert time.monotonic_ns() - late.captured_at < 4e8
    assert source.read() is None


def test_the_pattern_costs_next_to_nothing() -> None:
    with TestPattern(1920, 1080, 100_000) as source:
        source.read()
        began = time.process_time()
        for _ in range(2000):
            source.read()
        # Painting a frame of this size would take milliseconds each.
        assert (time.process_time() - began) / 2000 < 0.0005


def test_the_pattern_takes_size_and_rate_from_the_settings_too() -> None:
    with open_source("test", CameraSettings(width=100, height=80, fps=200)) as source:
        assert source.read().pixels.shape == (80, 100, 3) and source.granted.fps == 200


def test_a_still_is_one_frame(tmp_path: Path) -> None:
    Image.new("RGB", (60, 40), (250, 10, 20)).save(tmp_path / "a.png")
    with open_source(str(tmp_path / "a.png"), CameraSettings(rotate=90)) as source:
        frame = source.read()
        assert frame.image.shape == (60, 40, 3) and frame.image[5, 5].tolist() == [250, 10, 20]
        assert frame.name == "a.png" and frame.position_ns is None and source.read() is None
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    with pytest.raises(SourceError, match=r"b\.png"):
        open_source(str(tmp_path / "b.png")).open()


def test_a_folder_goes_on_over_bad_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("10.png", "2.png", "sub/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (20, 20), (int(Path(name).stem), 0, 0)).save(tmp_path / name)
    (tmp_path / "3.jpg").write_bytes(b"")
    (tmp_path / "4.jpg").write_bytes(b"text")
    (tmp_path / "notes.txt").write_bytes(b"text")
    source = open_source(str(tmp_path))
    for _ in range(2):
        with source:
            names = []
            while (frame := source.read()) is not None:
                names.append(frame.name)
        assert names == ["2.png", "10.png", "sub/1.png"]
    assert source.error_count == 2 and len(source.errors) == 2 and not source.live
    assert caplog.text.count("3.jpg") == 1


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_ports_and_names_that_cannot_be_are_said(scheme: str) -> None:
    for port in ("0", "65536", "99999"):
        with pytest.raises(UsageError, match="this is no port"):
            open_source(f"{scheme}://user:secret@127.0.0.1:{port}/x")
    for host in ("camera..local", "c" * 64 + ".local"):
        with pytest.raises(SourceError, match="cannot be a computer's name"):
            open_source(f"{scheme}://{host}/x").open()


def test_a_folder_goes_on_where_the_region_misses_a_picture(tmp_path: Path) -> None:
    for name, size in (("1.png", (60, 40)), ("2.png", (20, 20)), ("3.png", (60, 40))):
        Image.new("RGB", size).save(tmp_path / name)
    with open_source(str(tmp_path), CameraSettings(roi="30,10,20,20")) as source:
        names = []
        while (frame := source.read()) is not None:
            names.append(frame.name)
    assert names == ["1.png", "3.png"]
    assert source.errors == [f"{tmp_path / '2.png'}: region 30,10,20,20 lies outside the 20x20 picture"]
    everywhere = open_source(str(tmp_path), CameraSettings(roi="90,90,20,20"))
    with everywhere, pytest.raises(UsageError, match="lies outside"):
        everywhere.read()


def test_folders_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no pictures"):
        open_source(str(tmp_path)).open()
    (tmp_path / "a.jpg").write_bytes(b"")
    with open_source(str(tmp_path)) as source, pytest.raises(SourceError, match="none of the 1 pictures"):
        source.read()


# Which backend opens what


def test_the_variable_goes_before_the_profile(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("EDGE_MNV2_CAMERA_BACKEND", "test")
    for spec in ("0", "csi", "rtsp://cam/x"):
        source = open_source(spec, CameraSettings(backend="opencv", width=64, height=48, fps=100))
        with source:
            assert source.read().pixels.shape == (48, 64, 3)
    assert "through test, as EDGE_MNV2_CAMERA_BACKEND says" in caplog.text


@pytest.mark.parametrize(("spec", "backend"), [("0", "picamera2"), ("csi", "mjpeg"), ("0", "nonsense")])
def test_a_backend_that_cannot_open_it(monkeypatch: pytest.MonkeyPatch, spec: str, backend: str) -> None:
    monkeypatch.setenv("EDGE_MNV2_CAMERA_BACKEND", backend)
    with pytest.raises(UsageError, match=f"{backend}.*one of .*test"):
        open_source(spec)


def test_a_profiles_backend_is_for_its_camera_only(tmp_path: Path) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    for spec in (str(tmp_path / "a.png"), "test", "http://127.0.0.1:1/x"):
        open_source(spec, CameraSettings(backend="picamera2"))


def test_a_jetsons_csi_camera_goes_through_gstreamer(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = "OpenCV is built without GStreamer: do this"
    monkeypatch.setattr("edge_mnv2.camera.stream.gstreamer_missing", lambda: missing)
    table = [backend for backend in opening.KINDS["csi"].backends if backend.name == "gstreamer"]
    assert table[0].unusable() == "OpenCV is built without GStreamer: do this"
    source = table[0].make(parse("csi:1"), CameraSettings())
    assert source.description == "csi:1" and source.live


def test_is_it_a_jetson(tmp_path: Path) -> None:
    assert not opening.on_jetson(tmp_path)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nv_tegra_release").write_text("# R35")
    assert opening.on_jetson(tmp_path)


def test_live_sources_are_watched_and_others_are_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    picamera2_standin.installed(monkeypatch, np.zeros((48, 64, 3), np.uint8))
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    for spec in ("0", "csi", "rtsp://cam/x", "http://cam/x", "gst:videotestsrc"):
        assert isinstance(open_source(spec, give_up_s=3), Watchdog), spec
    for spec in ("test", str(tmp_path / "a.png"), str(tmp_path)):
        assert not isinstance(open_source(spec), Watchdog), spec


def test_sources_close_twice_and_before_they_are_open(tmp_path: Path) -> None:
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    for spec in ("test", "0", "rtsp://cam/x", "http://cam/x", "gst:x", str(tmp_path / "a.png"), str(tmp_path)):
        source = open_source(spec)
        source.close()
        source.close()
        assert source.read() is None, spec


def test_opening_imports_nothing_heavy() -> None:
    import subprocess

    code = (
        "import sys; from edge_mnv2.camera.open import open_source; open_source('test');"
        "print([name for name in ('cv2', 'picamera2', 'PIL.Image', 'requests') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_same_picture_through_every_way_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: Path
) -> None:
    """A photo as still, clip, MJPEG stream and from the CSI stand-in: the same class and nearly the same scores."""
    import itertools

    from edge_mnv2.camera.still import read_still
    from edge_mnv2.runtime.classifier import Classifier
    from edge_mnv2.zoo.resolve import resolve
    from tests.camera import mp4
    from tests.camera.stream_servers import MjpegServer

    photo = Image.fromarray(read_still(data / "images/parrot.jpg")).resize((640, 480))
    photo.save(tmp_path / "photo.png")
    photo.save(tmp_path / "photo.jpg", quality=95)
    pixels = np.asarray(photo)
    mp4.write_clip(tmp_path / "photo.avi", [pixels] * 3, "MJPG")
    mp4.write_clip(tmp_path / "photo.mp4", [pixels] * 3, "mp4v")
    picamera2_standin.installed(monkeypatch, pixels)
    jpeg = (tmp_path / "photo.jpg").read_bytes()
    with MjpegServer(lambda connection: itertools.repeat(jpeg)) as server:
        specs = [*(str(tmp_path / f"photo.{suffix}") for suffix in ("png", "jpg", "avi", "mp4")), server.url, "csi"]
        with Classifier.open(resolve("mobilenet_v2_1.0_224_int8").path) as classifier:
            scores = {}
            for spec in specs:
                with open_source(spec) as source:
                    frame = source.read()
                    scores[spec] = np.array(classifier.scores(frame.region, frame.order))
    wanted = scores[specs[0]]
    for spec, found in scores.items():
        assert found.argmax() == wanted.argmax() and np.abs(found - wanted).max() <= 0.02, spec


def test_errors_know_what_to_do(tmp_path: Path) -> None:
    for spec in ("nofile.mp4", "test:x", "csi:x", "rtsp://", str(tmp_path)):
        with pytest.raises(EdgeMnv2Error) as caught, open_source(spec) as source:
            source.read()
        assert caught.value.exit_code in (2, 4) and "\n" not in str(caught.value)
