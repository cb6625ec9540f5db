"""OpenCV's own `dnn` module, as its classification sample writes it; reads ONNX with a float NCHW input."""

from __future__ import annotations

from typing import Any

import cv2
from loop import Classify, centre

_MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)


def open_peer(model: str, threads: int) -> Classify:
    cv2.setNumThreads(threads)
    network = cv2.dnn.readNet(model)

    def classify(frame: Any) -> int:
        # The sample's way to the input: one scale for all channels.
        blob = cv2.dnn.blobFromImage(centre(frame), 1 / (0.226 * 255), (224, 224), _MEAN, swapRB=True)
        network.setInput(blob)
        return int(network.forward()[0].argmax())

    return classify
