"""Where the frames of a measurement come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

from edge_mnv2.camera.frame import FrameSource
from edge_mnv2.camera.open import open_source
from edge_mnv2.camera.settings import CameraSettings
from edge_mnv2.camera.spec import parse
from edge_mnv2.pipeline.frame_loop import FrameLoop
from edge_mnv2.pipeline.result import Engine
from edge_mnv2.pipeline.statistics import Statistics
from edge_mnv2.settings.schema import Camera

PATTERN_SIZE = (640, 480)
_SIZABLE = ("device", "csi")


@dataclass(frozen=True)
class Feed:
    """A source and how it is read.

    `waits`: it delivers at a rate of its own, as a camera does. The others give each frame as soon as it can be taken
    and begin again at their end. `size` is (width, height) of a test pattern. `sizable`: the source can be asked for
    other sizes.
    """

    source: FrameSource
    waits: bool
    size: Optional[tuple[int, int]] = None
    sizable: bool = False

    @property
    def description(self) -> str:
        if self.size is not None and not self.waits:
            return f"test pattern {self.size[0]}x{self.size[1]}, without pause"
        return self.source.description

    def loop(self, engines: Sequence[Engine], statistics: Optional[Statistics] = None, **more: Any) -> FrameLoop:
        """The loop of `run` over this source, which has to be open."""
        return FrameLoop(
            self.source,
            engines,
            every_frame=not self.waits,
            repeat=not self.waits,
            statistics=statistics,
            **more,
        )


def pattern(size: tuple[int, int] = PATTERN_SIZE, settings: Optional[Camera] = None) -> Feed:
    """The test pattern in `size`, turned and cropped as the settings say."""
    asked = CameraSettings(**settings.asked()) if settings is not None else CameraSettings()
    return Feed(open_source("test:{}x{}".format(*size), asked, hurry=True), False, size, True)


def choose(spec: Optional[str], settings: Camera) -> Feed:
    """The feed for `--source SPEC`; the test pattern, in the settings' size, where none was named.

    A test pattern keeps its rate only where one was given (`test:640x480@30`): it then stands for a camera. Nothing is
    opened. Raises UsageError, SourceError, DownloadError as `open_source`.
    """
    parsed = parse("test" if spec is None else spec)
    if parsed.kind == "test" and parsed.fps is None:
        return pattern(parsed.size or settings_size(settings) or PATTERN_SIZE, settings)
    source = open_source(str(spec), CameraSettings(**settings.asked()))
    return Feed(
        source, source.live, parsed.size, parsed.kind in _SIZABLE or (parsed.kind == "test" and not parsed.size)
    )


def settings_size(settings: Camera) -> Optional[tuple[int, int]]:
    """(width, height) where the settings ask for a size."""
    return None if settings.width is None or settings.height is None else (settings.width, settings.height)
