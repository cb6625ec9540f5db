"""OpenVINO's CPU plug-in in synchronous mode with the latency hint, as its `hello_classification` sample writes it."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import openvino
from loop import Classify, centre


def open_peer(model: str, threads: int) -> Classify:
    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    compiled = openvino.Core().compile_model(model, "CPU", options)
    request = compiled.create_infer_request()
    height, width = list(compiled.input(0).shape)[1:3]

    def classify(frame: Any) -> int:
        small = cv2.cvtColor(cv2.resize(centre(frame), (width, height)), cv2.COLOR_BGR2RGB)
        return int(next(iter(request.infer([small[np.newaxis]]).values()))[0].argmax())

    return classify
