"""Streams through OpenCV: RTSP and other addresses by FFmpeg, pipelines by GStreamer."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Optional

from edge_mnv2.addresses import StreamUrl, redact
from edge_mnv2.camera import rtsp
from edge_mnv2.camera.frame import Frame, Granted
from edge_mnv2.camera.live import Captured, SourceEnded, ThreadedSource
from edge_mnv2.camera.opencv import CaptureReader, built_with, granted_by, import_cv2, positive
from edge_mnv2.camera.settings import CameraSettings, Spec
from edge_mnv2.errors import SourceError, SourceLost

OPEN_S = 5.0
"""For a connection and the first answer."""
DECODER_S = 20.0
"""For the stream behind it: a busy board takes its time, and some cameras send a key frame only every ten seconds."""
FIRST_S = 10.0
STALL_S = 5.0
BACKOFF = (0.5, 1.5)

_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
_one_opens = threading.Lock()
"""OpenCV reads FFmpeg's options from the environment."""
_LATE_S = 1.0
_END_S = 2.0


class CaptureStream(ThreadedSource):
    """A live stream that OpenCV opens by a text; `backend` is OpenCV's name of what opens it."""

    backoff = BACKOFF

    def __init__(self, description: str, settings: CameraSettings, backend: str) -> None:
        stall_s = settings.stall_s or STALL_S
        super().__init__(description, settings.geometry(), stall_s, learns=settings.stall_s is None)
        self.settings = settings
        self._backend = backend

    def open(self) -> None:
        self.close()
        # More than the library's own limits, so that its answer, which says more, comes first.
        self._start(self.description, self._connect, OPEN_S + DECODER_S + 1, FIRST_S)

    def take(self, limit_s: Optional[float] = None) -> Optional[Frame]:
        frame = super().take(limit_s)
        if frame is not None and self.granted is not None and self.granted.width is None:
            height, width = frame.pixels.shape[:2]
            self.granted = Granted(width, height, self.granted.fps, self.granted.format, self._backend)
        return frame

    def _connect(self) -> CaptureReader:
        raise NotImplementedError


class FfmpegStream(CaptureStream):
    """An RTSP or HTTP address by FFmpeg."""

    def __init__(self, url: StreamUrl, settings: CameraSettings) -> None:
        super().__init__(url.shown, settings, "ffmpeg")
        self._url = url

    def _connect(self) -> CaptureReader:
        reader, self.granted = open_capture(
            self._url, self.description, self.settings, self.stall_s, self._count_damage
        )
        return reader


def open_capture(
    url: StreamUrl, name: str, settings: CameraSettings, stall_s: float, damaged: Callable[[], None]
) -> tuple[CaptureReader, Granted]:
    """An address, opened by FFmpeg with time limits and one decoding thread, and what it gives.

    FFmpeg's threads each hold a frame back, which on eight cores would make a camera lag by a quarter of a second.
    What comes over HTTP comes in bursts, and is handed over at its own time. Raises SourceError with the reason.
    """
    is_rtsp = url.scheme.startswith("rtsp")
    if is_rtsp:
        rtsp.check_answers(url, name, OPEN_S, settings.ca)
    cv2 = import_cv2()
    limits = [
        *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, int(DECODER_S * 1000)),
        *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, max(1, int(stall_s * 1000))),
    ]
    threads = getattr(cv2, "CAP_PROP_N_THREADS", None)
    capture = cv2.VideoCapture()
    with _ffmpeg_options(_options(settings, is_rtsp)):
        opened = capture.open(url.full, cv2.CAP_FFMPEG, limits if threads is None else [*limits, threads, 1])
    if not opened:
        if is_rtsp:
            raise rtsp.why_no_stream(url, name, OPEN_S, settings)
        raise SourceError(f"{name} answers with nothing that can be played", hint="look for the stream's own address")
    if is_rtsp:
        # Here a failed read is the end of the stream or the time limit: there is nothing to be patient for.
        reader = CaptureReader(capture, name, patience_s=float("inf"), damaged=damaged)
    else:
        reader = PacedReader(capture, name, damaged)
    return reader, granted_by(capture, "ffmpeg")


def _options(settings: CameraSettings, is_rtsp: bool) -> str:
    """FFmpeg's options as OpenCV reads them: `name;value` joined by bars."""
    options = []
    if is_rtsp:
        # "auto" begins with TCP, and goes over to UDP where the server refuses it.
        transport = settings.rtsp_transport
        options.append("rtsp_flags;prefer_tcp" if transport == "auto" else f"rtsp_transport;{transport}")
    if settings.ca is not None:
        options += [f"ca_file;{settings.ca}", "tls_verify;1"]
    return "|".join(options)


@contextlib.contextmanager
def _ffmpeg_options(options: str) -> Iterator[None]:
    """`options` in the environment while a capture is opened; a user's own win."""
    with _one_opens:
        if os.environ.get(_OPTIONS):
            yield
            return
        os.environ[_OPTIONS] = options
        try:
            yield
        finally:
            del os.environ[_OPTIONS]


class PacedReader(CaptureReader):
    """Reads what comes in bursts (HLS, a clip over HTTP) at the time of its stamps.

    A stream of known length has an end: SourceEnded instead of SourceLost.
    """

    def __init__(self, capture: Any, name: str, damaged: Callable[[], None]) -> None:
        super().__init__(capture, name, patience_s=float("inf"), damaged=damaged)
        cv2 = import_cv2()
        count, fps = (positive(capture.get(which)) for which in (cv2.CAP_PROP_FRAME_COUNT, cv2.CAP_PROP_FPS))
        self._duration_s = None if count is None or fps is None else count / fps
        self._stamp = cv2.CAP_PROP_POS_MSEC
        self._first_s: Optional[float] = None
        self._last_s = 0.0
        self._began = 0.0
        self._stop = threading.Event()

    def read(self) -> Optional[Captured]:
        try:
            item = super().read()
        except SourceLost:
            if self._duration_s is not None and self._last_s - (self._first_s or 0.0) >= self._duration_s - _END_S:
                raise SourceEnded(f"{self._name} has ended") from None
            raise
        if item is None:
            return None
        now, stamp_s = time.monotonic(), self.capture.get(self._stamp) / 1e3
        due = self._began + stamp_s
        # A first stamp, one that jumps, and a connection that fell behind begin a new count.
        if self._first_s is None or stamp_s < self._last_s or due < now - _LATE_S or due > now + 10:
            self._first_s = stamp_s if self._first_s is None else self._first_s
            self._began = now - stamp_s
        self._last_s = stamp_s
        self._stop.wait(max(0.0, self._began + stamp_s - now))
        return item[0], time.monotonic_ns()

    def interrupt(self) -> None:
        self._stop.set()


class GStreamerStream(CaptureStream):
    """A GStreamer pipeline; without an appsink of its own it gets one that keeps the newest frame only."""

    def __init__(self, pipeline: str, settings: CameraSettings, description: Optional[str] = None) -> None:
        super().__init__(description or f"gst:{redact(pipeline)}", settings, "gstreamer")
        self._pipeline = complete_pipeline(pipeline)

    def _connect(self) -> CaptureReader:
        reason = gstreamer_missing()
        if reason is not None:
            raise SourceError(reason)
        cv2 = import_cv2()
        capture = cv2.VideoCapture(self._pipeline, cv2.CAP_GSTREAMER)
        if not capture.isOpened():
            raise SourceError(
                f"GStreamer cannot run {self.description}", hint="try it with gst-launch-1.0, which says more"
            )
        self.granted = granted_by(capture, self._backend)
        return CaptureReader(capture, self.description, patience_s=float("inf"), damaged=self._count_damage)


def make_ffmpeg(spec: Spec, settings: CameraSettings) -> FfmpegStream:
    """An address."""
    assert spec.url is not None
    return FfmpegStream(spec.url, settings)


def make_gstreamer(spec: Spec, settings: CameraSettings) -> GStreamerStream:
    """A user's pipeline."""
    return GStreamerStream(spec.pipeline, settings)


def make_v4l2src(spec: Spec, settings: CameraSettings) -> GStreamerStream:
    """A V4L2 camera through GStreamer. Raises SourceError where it is not there."""
    path = spec.path or Path(f"/dev/video{spec.number}")
    if not path.exists():
        raise SourceError(f"there is no camera {path}")
    width, height = settings.size or (640, 480)
    pipeline = f"v4l2src device={path} ! decodebin ! videoscale ! video/x-raw,width={width},height={height}"
    return GStreamerStream(pipeline, settings, str(path))


def make_jetson_csi(spec: Spec, settings: CameraSettings) -> GStreamerStream:
    """A Jetson's CSI sensor."""
    return GStreamerStream(jetson_csi_pipeline(spec.number, settings), settings, f"csi:{spec.number}")


def gstreamer_missing() -> Optional[str]:
    """What is missing and what to do where this OpenCV cannot run GStreamer pipelines; None where it can."""
    if built_with("GStreamer"):
        return None
    version = import_cv2().__version__
    return (
        f"the installed OpenCV ({version}) is built without GStreamer, as pip's always is: apt install python3-opencv "
        "and remove pip's opencv-python; on a Jetson use JetPack's own"
    )


def complete_pipeline(pipeline: str) -> str:
    """`pipeline` with a sink that hands over BGR frames and drops old ones, where it has no appsink."""
    pipeline = pipeline.strip()
    if "appsink" in pipeline:
        return pipeline
    return f"{pipeline} ! videoconvert ! video/x-raw,format=BGR ! appsink drop=true max-buffers=1 sync=false"


def jetson_csi_pipeline(camera: int, settings: CameraSettings) -> str:
    """A Jetson's CSI sensor through Argus: the sensor's own mode in its memory, scaled by the hardware."""
    width, height = settings.size or (640, 480)
    rate = max(1, round(settings.fps or 30))
    return (
        f"nvarguscamerasrc sensor-id={camera} ! video/x-raw(memory:NVMM),framerate={rate}/1 ! nvvidconv ! "
        f"video/x-raw,width={width},height={height},format=BGRx ! videoconvert ! video/x-raw,format=BGR ! "
        "appsink drop=true max-buffers=1 sync=false"
    )
