"""A window on the board's own screen, drawn through SDL so that OpenCV needs no desktop."""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path
from typing import Any, Optional

import numpy as np

from edge_mnv2.errors import UsageError
from edge_mnv2.installed import need
from edge_mnv2.outputs.picture import annotate, bgr, jpeg, say
from edge_mnv2.outputs.records import timestamp
from edge_mnv2.outputs.snapshots import SnapshotSink
from edge_mnv2.outputs.table import OutputValues
from edge_mnv2.pipeline.frame_loop import FrameLoop
from edge_mnv2.pipeline.result import Result

# Read when pygame is imported: no line of its own, and signals stay with the run.
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
os.environ.setdefault("SDL_NO_SIGNAL_HANDLERS", "1")

log = logging.getLogger(__name__)

_TITLE = "edge-mnv2    q quit   s save picture   p pause   f full screen"
_SIZE = (960, 540)
_PER_S = 30
_MESSAGE_S = 2.5
_NO_DISPLAY = "run it on the board's desktop, set DISPLAY (DISPLAY=:0), or look with --web from another machine"


class Window:
    """Shows the newest result, from a thread of its own; keys q (or Esc), s, p and f. A sink that remembers only the
    newest result. Raises UsageError where there is no display or no pygame."""

    name = "window"

    def __init__(self, snapshots: Optional[SnapshotSink] = None) -> None:
        self._pygame: Any = need("pygame", "window", "--window")
        if not _has_display():
            raise UsageError("--window: no display here", hint=_NO_DISPLAY)
        self._snapshots = snapshots
        self._loop: Optional[FrameLoop] = None
        self._latest: Optional[Result] = None
        self._message, self._message_until = "", 0.0
        self._halt = threading.Event()
        self._ready = threading.Event()
        self._trouble: Optional[str] = None
        self._thread = threading.Thread(target=self._work, name="window", daemon=True)
        self._thread.start()
        self._ready.wait(10)
        if self._trouble is not None:
            raise UsageError(f"--window: {self._trouble}", hint=_NO_DISPLAY)

    def attach(self, loop: FrameLoop) -> None:
        """What the keys act on."""
        self._loop = loop

    def write(self, result: Result) -> None:
        self._latest = result

    def close(self) -> None:
        self._halt.set()
        self._thread.join(2.0)

    def _work(self) -> None:
        pygame = self._pygame
        try:
            pygame.display.init()
            if pygame.display.get_driver() in ("dummy", "offscreen") and not os.environ.get("SDL_VIDEODRIVER"):
                raise pygame.error("no display")
            pygame.display.set_caption(_TITLE)
            screen = pygame.display.set_mode(_SIZE, pygame.RESIZABLE)
        except pygame.error as error:
            self._trouble = f"the display cannot be used ({str(error).strip()})"
            return
        finally:
            self._ready.set()
        try:
            self._draw_until_closed(screen)
        except Exception as error:
            log.warning("window: %s: %s", type(error).__name__, error)
        finally:
            pygame.display.quit()

    def _draw_until_closed(self, screen: Any) -> None:
        pygame = self._pygame
        shown: Any = None
        while not self._halt.wait(1 / _PER_S):
            dirty = False
            for event in pygame.event.get():
                dirty |= self._react(event)
            latest, said = self._latest, self._said()
            now = (id(latest), said, screen.get_size())
            if now != shown or dirty:
                shown = now
                self._show(screen, latest, said)

    def _react(self, event: Any) -> bool:
        """Do what a key asks for; whether the window has to be drawn anew."""
        pygame = self._pygame
        if event.type == pygame.QUIT or (event.type == pygame.KEYDOWN and event.key in (pygame.K_q, pygame.K_ESCAPE)):
            if self._loop is not None:
                self._loop.stop()
        elif event.type == pygame.KEYDOWN and event.key == pygame.K_p and self._loop is not None:
            self._loop.controls.change(paused=not self._loop.controls.paused)
        elif event.type == pygame.KEYDOWN and event.key == pygame.K_s:
            self._save()
        elif event.type == pygame.KEYDOWN and event.key == pygame.K_f:
            try:
                pygame.display.toggle_fullscreen()
            except pygame.error:
                self._tell("full screen cannot be had here")
        return bool(event.type in (pygame.VIDEORESIZE, pygame.VIDEOEXPOSE))

    def _said(self) -> str:
        if time.monotonic() < self._message_until:
            return self._message
        if self._loop is not None and self._loop.controls.paused:
            return "paused"
        return "" if self._latest is not None else "waiting for the first frame"

    def _save(self) -> None:
        result = self._latest
        if result is None:
            return
        try:
            if self._snapshots is not None:
                saved = self._snapshots.take(result)
            else:
                saved = f"edge-mnv2-{timestamp(result.wall_time).replace(':', '-')}.jpg"
                Path(saved).write_bytes(jpeg(bgr(result.frame), 90))
        except OSError as error:
            self._tell(f"not saved: {error.strerror or error}")
        else:
            self._tell(f"saved {saved}")

    def _tell(self, message: str) -> None:
        """Show it for a moment, and in the log."""
        self._message, self._message_until = message, time.monotonic() + _MESSAGE_S
        log.info("%s", message)

    def _show(self, screen: Any, latest: Optional[Result], said: str) -> None:
        width, height = screen.get_size()
        if latest is not None:
            picture = _fitted(latest, width, height)
            annotate(picture, latest)
        else:
            picture = np.zeros((max(1, height), max(1, width), 3), np.uint8)
        if said:
            say(picture, said)
        rgb = np.ascontiguousarray(picture[..., ::-1])
        surface = self._pygame.image.frombuffer(rgb.tobytes(), (rgb.shape[1], rgb.shape[0]), "RGB")
        screen.fill((0, 0, 0))
        screen.blit(surface, ((width - rgb.shape[1]) // 2, (height - rgb.shape[0]) // 2))
        self._pygame.display.flip()


def _has_display() -> bool:
    """There may be one: SDL finds out, with complaints of its own where there is nothing at all."""
    named = any(os.environ.get(name) for name in ("SDL_VIDEODRIVER", "DISPLAY", "WAYLAND_DISPLAY"))
    return named or any(Path("/dev/dri").glob("card*"))


def _fitted(result: Result, width: int, height: int) -> np.ndarray:
    """The frame as BGR, as large as fits into `width` x `height`."""
    import cv2

    picture = bgr(result.frame, max(width, height), result.seen)
    scale = min(width / picture.shape[1], height / picture.shape[0])
    size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    if size == (picture.shape[1], picture.shape[0]):
        return picture
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def open_output(_values: OutputValues, live: Any) -> Window:
    return Window(live.snapshots)
