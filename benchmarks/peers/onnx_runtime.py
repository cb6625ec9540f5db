"""ONNX Runtime's CPU provider, as its image classification examples write it."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import onnxruntime
from loop import Classify, centre


def open_peer(model: str, threads: int) -> Classify:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    height, width = given.shape[1:3]

    def classify(frame: Any) -> int:
        small = cv2.cvtColor(cv2.resize(centre(frame), (width, height)), cv2.COLOR_BGR2RGB)
        return int(session.run(None, {given.name: small[np.newaxis]})[0][0].argmax())

    return classify
