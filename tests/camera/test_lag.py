from __future__ import annotations

import os

import numpy as np
import pytest

from edge_mnv2.camera.open import open_source
from edge_mnv2.pipeline.frame_loop import FrameLoop
from edge_mnv2.pipeline.result import Result
from edge_mnv2.runtime.classifier import Classifier
from edge_mnv2.zoo.resolve import resolve
from tests.camera.stream_servers import MjpegServer, number_in

_SECONDS = float(os.environ.get("EDGE_MNV2_LAG_SECONDS", "5"))


class Lags:
    """For each result: when it came, and how long ago the server had sent its frame (ms)."""

    def __init__(self, server: MjpegServer) -> None:
        self.server = server
        self.seen: list[tuple[float, float]] = []

    def write(self, result: Result) -> None:
        number = number_in(result.frame.pixels)
        self.seen.append((result.uptime_s, (result.finished_at - self.server.sent[number]) / 1e6))


@pytest.mark.slow
def test_a_slow_board_does_not_fall_behind_a_fast_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    """EDGE_MNV2_LAG_SECONDS=60 for the long one. A queue would be seconds behind at the end of five."""
    monkeypatch.setenv("EDGE_MNV2_SIMULATE_INFERENCE_MS", "100")
    with MjpegServer(fps=30) as server, Classifier.open(resolve("mobilenet_v2_1.0_224_int8").path) as classifier:
        lags = Lags(server)
        with open_source(server.url) as source:
            FrameLoop(source, [classifier], [lags], duration_s=_SECONDS).run()
    last = [lag for at, lag in lags.seen if at > _SECONDS * 5 / 6]
    p95 = float(np.percentile(last, 95))
    print(f"lag of the last {len(last)} results: median {np.median(last):.0f} ms, p95 {p95:.0f} ms")
    assert len(lags.seen) < _SECONDS * 11 and p95 < 1000
