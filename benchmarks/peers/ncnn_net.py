"""ncnn's CPU kernels (half precision), as its Python examples write it; the model is converted by its own `pnnx`."""

from __future__ import annotations

from typing import Any

import ncnn
import numpy as np
from loop import Classify, centre

_MEAN = [0.485 * 255, 0.456 * 255, 0.406 * 255]
_NORM = [1 / (0.226 * 255)] * 3


def open_peer(model: str, threads: int) -> Classify:
    network = ncnn.Net()
    network.opt.num_threads = threads
    network.load_param(f"{model}.param")
    network.load_model(f"{model}.bin")

    def classify(frame: Any) -> int:
        square = centre(frame).copy()
        rows, columns = square.shape[:2]
        given = ncnn.Mat.from_pixels_resize(square, ncnn.Mat.PixelType.PIXEL_BGR2RGB, columns, rows, 224, 224)
        given.substract_mean_normalize(_MEAN, _NORM)
        extractor = network.create_extractor()
        extractor.input("in0", given)
        return int(np.array(extractor.extract("out0")[1]).argmax())

    return classify
