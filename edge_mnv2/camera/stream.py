"""Streams through OpenCV: RTSP and other addresses by FFmpeg, pipelines by GStreamer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Optional

from edge_mnv2.addresses import StreamUrl, redact
from edge_mnv2.camera.frame import Frame, Granted
from edge_mnv2.camera.live import ThreadedSource
from edge_mnv2.camera.opencv import CaptureReader, built_with, fourcc_text, import_cv2, positive
from edge_mnv2.camera.settings import CameraSettings
from edge_mnv2.camera.spec import Spec
from edge_mnv2.errors import SourceError

OPEN_S = 5.0
FIRST_S = 10.0
"""More time for the first frame of a stream that is there: some cameras send a key frame only every ten seconds."""
STALL_S = 5.0


class CaptureStream(ThreadedSource):
    """A live stream that OpenCV opens by a text; `backend` is OpenCV's name of what opens it."""

    backoff = (0.5, 15.0)

    def __init__(self, description: str, settings: CameraSettings, backend: str) -> None:
        super().__init__(description, settings.geometry(), settings.stall_s or STALL_S)
        self._backend = backend

    def open(self) -> None:
        self.close()
        # A second more than the library's own limit, so that its answer, which says more, comes first.
        self._start(self.description, self._connect, OPEN_S + 1, FIRST_S)

    def take(self, limit_s: Optional[float] = None) -> Optional[Frame]:
        frame = super().take(limit_s)
        if frame is not None and self.granted is not None and self.granted.width is None:
            height, width = frame.pixels.shape[:2]
            self.granted = Granted(width, height, self.granted.fps, self.granted.format, self._backend)
        return frame

    def _connect(self) -> CaptureReader:
        raise NotImplementedError

    def _opened(self, capture: Any) -> CaptureReader:
        cv2 = import_cv2()
        self.granted = Granted(
            int(positive(capture.get(cv2.CAP_PROP_FRAME_WIDTH)) or 0) or None,
            int(positive(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)) or 0) or None,
            positive(capture.get(cv2.CAP_PROP_FPS)),
            fourcc_text(capture.get(cv2.CAP_PROP_FOURCC)),
            self._backend,
        )
        # Here a failed read is the end of the stream or the time limit: there is nothing to be patient for.
        return CaptureReader(capture, self.description, patience_s=float("inf"), damaged=self._count_damage)


class FfmpegStream(CaptureStream):
    """An RTSP or HTTP address by FFmpeg: TCP, with time limits, and one decoding thread.

    FFmpeg's threads each hold a frame back, which on eight cores would make a camera lag by a quarter of a second.
    """

    def __init__(self, url: StreamUrl, settings: CameraSettings) -> None:
        super().__init__(url.shown, settings, "ffmpeg")
        self._url = url

    def _connect(self) -> CaptureReader:
        cv2 = import_cv2()
        os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp")
        limits = [
            *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, int(OPEN_S * 1000)),
            *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, max(1, int(self.stall_s * 1000))),
        ]
        threads = getattr(cv2, "CAP_PROP_N_THREADS", None)
        capture = cv2.VideoCapture()
        if not capture.open(self._url.full, cv2.CAP_FFMPEG, limits if threads is None else [*limits, threads, 1]):
            raise SourceError(
                f"no stream from {self.description}",
                hint="check the address, the user name and password, and that the camera is on",
            )
        return self._opened(capture)


class GStreamerStream(CaptureStream):
    """A GStreamer pipeline; without an appsink of its own it gets one that keeps the newest frame only."""

    backoff = (0.5, 5.0)

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
        return self._opened(capture)


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
