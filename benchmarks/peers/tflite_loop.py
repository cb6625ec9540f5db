"""What the examples of both TensorFlow Lite packages do with an interpreter."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from loop import Classify, centre


def over(interpreter: Any) -> Classify:
    """Classify with `interpreter`, whose input is uint8 or int8."""
    interpreter.allocate_tensors()
    given, gives = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    height, width = given["shape"][1:3]
    signed = given["dtype"] == np.int8

    def classify(frame: Any) -> int:
        small = cv2.cvtColor(cv2.resize(centre(frame), (width, height)), cv2.COLOR_BGR2RGB)
        pixels = (small.astype(np.int16) - 128).astype(np.int8) if signed else small
        interpreter.set_tensor(given["index"], pixels[np.newaxis])
        interpreter.invoke()
        return int(interpreter.get_tensor(gives["index"])[0].argmax())

    return classify
