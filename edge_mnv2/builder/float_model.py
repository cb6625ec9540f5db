"""The float32 `.tflite` of a trained network: the reference that the integer model is measured against.

Its input is `(pixel - 127.5) / 127.5`, the convention of published MobileNetV2 float models; the first two operators
turn that into the normalization that the weights were trained with.
"""

from __future__ import annotations

from typing import Optional

import numpy as np

from edge_mnv2.builder.emit import Emitter, head
from edge_mnv2.builder.inference import INPUT, MEAN, STD, Operation
from edge_mnv2.network.network import Network
from edge_mnv2.tflite.graph import write
from edge_mnv2.tflite.ir import ACTIVATION_NONE, Quantization, Tensor

PIXEL_MEAN = PIXEL_STD = 127.5


class _Floats:
    dtype = "float32"

    def quantization(self, name: str) -> Optional[Quantization]:
        return None

    def constants(self, operation: Operation) -> tuple[Tensor, Tensor]:
        assert operation.weights is not None and operation.bias is not None
        return (
            Tensor.constant(f"{operation.output}.weights", operation.weights.astype(np.float32)),
            Tensor.constant(f"{operation.output}.bias", operation.bias.astype(np.float32)),
        )


def float_model(network: Network, steps: list[Operation]) -> bytes:
    """The `.tflite` of `network`, whose operations are `steps`: float32 in and out."""
    emitter = Emitter(_Floats())
    height, width, channels = network.input
    image = emitter.add_tensor(Tensor("image", (1, height, width, channels), "float32"))
    mean, std = np.array(MEAN), np.array(STD)
    # (pixel / 255 - mean) / std, with pixel = 127.5 * input + 127.5
    scale = emitter.add_tensor(Tensor.constant("image.scale", (PIXEL_STD / 255.0 / std).astype(np.float32)))
    shift = emitter.add_tensor(Tensor.constant("image.shift", ((PIXEL_MEAN / 255.0 - mean) / std).astype(np.float32)))
    scaled = emitter.activation("image.scaled", network.input)
    emitter.add_operator("MUL", [image, scale], scaled, "MulOptions", fused_activation_function=ACTIVATION_NONE)
    normalized = emitter.activation(INPUT, network.input)
    emitter.add_operator("ADD", [scaled, shift], normalized, "AddOptions", fused_activation_function=ACTIVATION_NONE)
    for step in steps:
        answer = emitter.operation(step)
    answer = head(emitter, network, answer, _constant)
    return write(emitter.graph([image], [answer], f"{network.name} float32"))


def _constant(name: str, value: float) -> Tensor:
    return Tensor.constant(name, np.array([value], np.float32))
