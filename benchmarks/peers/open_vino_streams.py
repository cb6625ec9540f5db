"""OpenVINO with a stream a thread: two requests are under way at once, which is its way to the most frames a second.

With two threads `classify` gives the answer of the picture before last, so that it waits for nothing just begun.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import openvino
from loop import Classify, centre


def open_peer(model: str, threads: int) -> Classify:
    options = {"NUM_STREAMS": threads, "INFERENCE_NUM_THREADS": threads}
    compiled = openvino.Core().compile_model(model, "CPU", options)
    height, width = list(compiled.input(0).shape)[1:3]
    requests = [compiled.create_infer_request() for _ in range(threads)]
    given = 0

    def answer(request: Any) -> int:
        request.wait()
        return int(request.get_output_tensor(0).data[0].argmax())

    def classify(frame: Any) -> int:
        nonlocal given
        small = cv2.cvtColor(cv2.resize(centre(frame), (width, height)), cv2.COLOR_BGR2RGB)
        request = requests[given % threads]
        row = answer(request) if threads > 1 and given >= threads else -1
        request.start_async([small[np.newaxis]])
        given += 1
        return answer(request) if threads == 1 else row

    return classify
