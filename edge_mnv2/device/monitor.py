"""Health sampled in the background, so that no frame waits for a sensor."""

from __future__ import annotations

import logging
import threading
from typing import Callable, Optional

from edge_mnv2.device.health import Health, HealthSample
from edge_mnv2.device.throttling import WORDS

log = logging.getLogger(__name__)


class HealthMonitor:
    """A thread that samples `health` every `interval_s` seconds until `stop`; a context manager.

    `listener` is called in that thread with each sample. Reading the properties never blocks.
    """

    def __init__(
        self,
        health: Health,
        interval_s: float = 2.0,
        listener: Optional[Callable[[HealthSample], None]] = None,
    ) -> None:
        self._health = health
        self._interval_s = interval_s
        self._listener = listener
        self._latest = HealthSample()
        self._max_temp_c: Optional[float] = None
        self._throttled: Optional[frozenset[str]] = None
        self._ended = threading.Event()
        self._first = threading.Event()
        self._thread: Optional[threading.Thread] = None

    @property
    def latest(self) -> HealthSample:
        """The newest sample; one without any value before the first."""
        return self._latest

    @property
    def max_temp_c(self) -> Optional[float]:
        """The highest temperature sampled since `start`."""
        return self._max_temp_c

    @property
    def throttled(self) -> Optional[list[str]]:
        """Every word of throttling seen since `start`; None where the board cannot tell."""
        seen = self._throttled
        return None if seen is None else [word for word in WORDS if word in seen]

    def start(self) -> HealthMonitor:
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)
        self._thread.start()
        return self

    def wait(self, timeout_s: float) -> HealthSample:
        """The first sample, waiting up to `timeout_s` seconds for it."""
        self._first.wait(timeout_s)
        return self._latest

    def stop(self) -> None:
        """End the thread. Safe to call twice; returns within the time one sample takes."""
        self._ended.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=5.0)

    def __enter__(self) -> HealthMonitor:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def _run(self) -> None:
        while not self._ended.is_set():
            self._take(self._health.sample())
            self._first.set()
            self._ended.wait(self._interval_s)

    def _take(self, sample: HealthSample) -> None:
        self._latest = sample
        if sample.temp_c is not None:
            self._max_temp_c = sample.temp_c if self._max_temp_c is None else max(self._max_temp_c, sample.temp_c)
        if sample.throttled is not None:
            self._throttled = (self._throttled or frozenset()) | frozenset(sample.throttled)
        if self._listener is not None:
            try:
                self._listener(sample)
            except Exception as error:
                log.debug("health listener: %s: %s", type(error).__name__, error)
