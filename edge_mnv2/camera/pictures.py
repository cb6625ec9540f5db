"""One picture, or a folder of pictures, as a source."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Optional

from edge_mnv2.camera.frame import Frame, Granted, Source
from edge_mnv2.camera.settings import CameraSettings, Geometry, Spec
from edge_mnv2.camera.still import list_stills, read_still
from edge_mnv2.errors import SourceError, UsageError


class StillSource(Source):
    """One frame."""

    def __init__(self, path: Path, geometry: Optional[Geometry] = None, least_side: Optional[int] = None) -> None:
        super().__init__(str(path), geometry)
        self.path = path
        self._least_side = least_side
        self._done = True

    def open(self) -> None:
        self._pixels = read_still(self.path, self._least_side)
        self._done = False
        height, width = self._pixels.shape[:2]
        self.granted = Granted(width, height, backend="still")

    def read(self) -> Optional[Frame]:
        if self._done:
            return None
        self._done = True
        return self._frame(self._pixels, "rgb", time.monotonic_ns(), 0, name=self.path.name)

    def close(self) -> None:
        self._done = True


class FolderSource(Source):
    """One frame for each picture below a folder, in natural order; one that cannot be read is reported and passed."""

    def __init__(self, path: Path, geometry: Optional[Geometry] = None, least_side: Optional[int] = None) -> None:
        super().__init__(str(path), geometry)
        self.path = path
        self._least_side = least_side
        self._files: list[Path] = []
        self._open = False

    def open(self) -> None:
        files = list_stills(self.path, self._report)
        if not files:
            raise SourceError(f"{self.path} holds no pictures")
        self._files, self._total = files[::-1], len(files)
        self._count = 0
        self._open = True
        self.granted = Granted(backend="folder")

    def read(self) -> Optional[Frame]:
        outside: Optional[UsageError] = None
        while self._files:
            file = self._files.pop()
            try:
                pixels = read_still(file, self._least_side)
            except SourceError as error:
                self._report(str(error))
                continue
            name = str(file.relative_to(self.path))
            try:
                frame = self._frame(pixels, "rgb", time.monotonic_ns(), self._count, name=name)
            except UsageError as error:  # pictures of a folder have sizes of their own: the region may miss one
                outside = error
                self._report(f"{file}: {error.message}")
                continue
            self._count += 1
            return frame
        if self._open and self._count == 0 and outside is not None:
            raise outside
        if self._open and self._count == 0:
            raise SourceError(f"none of the {self._total} pictures in {self.path} can be read")
        return None

    def close(self) -> None:
        self._open = False
        self._files = []


def make_still(spec: Spec, settings: CameraSettings) -> StillSource:
    """A picture's file."""
    assert spec.path is not None
    return StillSource(spec.path, settings.geometry(), settings.least_side)


def make_folder(spec: Spec, settings: CameraSettings) -> FolderSource:
    """A folder of pictures."""
    assert spec.path is not None
    return FolderSource(spec.path, settings.geometry(), settings.least_side)
