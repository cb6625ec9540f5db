"""The `.tflite` of a trained network: a float32 model, or a full-integer int8 one with raw pixels in.

Both are written from the same operations. The float model is the reference that the integer model is measured against.
Its input is `(pixel - 127.5) / 127.5`, the convention of published MobileNetV2 float models; its first two operators
turn that into the normalization that the weights were trained with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Optional, Protocol

import numpy as np

from edge_mnv2.builder.inference import IMAGENET_PICTURES, INPUT, TENSORFLOW_PICTURES, Normalization, Operation
from edge_mnv2.builder.quantization import (
    LOGIT_MARGIN,
    VALUE_MARGIN,
    Affine,
    Integers,
    Ranges,
    activation_scales,
    affine,
    quantize,
    weight_axis,
)
from edge_mnv2.network.network import Network
from edge_mnv2.tflite.graph import write
from edge_mnv2.tflite.ir import (
    ACTIVATION_NONE,
    ACTIVATION_RELU,
    ACTIVATION_RELU6,
    PADDING_SAME,
    PADDING_VALID,
    PIXELS,
    Graph,
    Operator,
    Quantization,
    Signature,
    Subgraph,
    Tensor,
)

ACTIVATIONS = {"linear": ACTIVATION_NONE, "relu": ACTIVATION_RELU, "relu6": ACTIVATION_RELU6}

_VERSIONS = {
    # Operator: version for float32, version for int8 with one scale a channel.
    "ADD": (1, 2),
    "CONV_2D": (1, 3),
    "DEQUANTIZE": (2, 2),
    "DEPTHWISE_CONV_2D": (1, 3),
    "FULLY_CONNECTED": (1, 4),
    "LOGISTIC": (1, 2),
    "MEAN": (1, 2),
    "MUL": (1, 2),
    "PAD": (1, 2),
    "QUANTIZE": (1, 1),
    "RESHAPE": (1, 1),
    "SOFTMAX": (1, 2),
}


class NumberFormat(Protocol):
    """How a model represents numbers: its activations' type and quantization, and an operation's constants."""

    dtype: str

    def quantization(self, name: str, /) -> Optional[Quantization]:
        """Quantization of the activation `name`; None in a float model."""

    def constants(self, operation: Operation) -> tuple[Tensor, Tensor]:
        """Weights and bias of a convolution or linear layer, in the layout of `.tflite`."""


class Emitter:
    """Collects the tensors and operators of one graph."""

    def __init__(self, numbers: NumberFormat) -> None:
        self._numbers = numbers
        self.tensors: list[Tensor] = []
        self.operators: list[Operator] = []
        self._named: dict[str, Tensor] = {}

    def activation(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """A new tensor with a batch of one in front of `shape`, in the model's own numbers."""
        return self.add_tensor(Tensor(name, (1, *shape), self._numbers.dtype, None, self._numbers.quantization(name)))

    def add_tensor(self, tensor: Tensor) -> Tensor:
        self.tensors.append(tensor)
        self._named[tensor.name] = tensor
        return tensor

    def add_operator(
        self, kind: str, inputs: list[Tensor], output: Tensor, table: Optional[str] = None, **options: Any
    ) -> Tensor:
        version = _VERSIONS[kind][0 if self._numbers.dtype == "float32" else 1]
        self.operators.append(Operator(kind, list(inputs), [output], table, options, version))
        return output

    def operation(self, step: Operation) -> Tensor:
        """Append `step`; its inputs are there already."""
        inputs = [self._named[name] for name in step.inputs]
        shape = step.shape[2:] if step.kind in ("mean", "linear") else step.shape
        output = self.activation(step.output, shape)
        if step.kind == "pad":
            around = [[0, 0], [step.before, step.after], [step.before, step.after], [0, 0]]
            amounts = self.add_tensor(Tensor.constant(f"{step.output}.amounts", np.array(around, np.int32)))
            return self.add_operator("PAD", [*inputs, amounts], output, "PadOptions")
        if step.kind == "mean":
            axes = self.add_tensor(Tensor.constant("features.axes", np.array([1, 2], np.int32)))
            return self.add_operator("MEAN", [*inputs, axes], output, "ReducerOptions", keep_dims=False)
        if step.kind == "add":
            activation = ACTIVATIONS[step.activation]
            return self.add_operator("ADD", inputs, output, "AddOptions", fused_activation_function=activation)
        weights, bias = (self.add_tensor(tensor) for tensor in self._numbers.constants(step))
        if step.kind == "linear":
            return self.add_operator(
                "FULLY_CONNECTED",
                [*inputs, weights, bias],
                output,
                "FullyConnectedOptions",
                fused_activation_function=ACTIVATIONS[step.activation],
            )
        options = {
            "padding": PADDING_SAME if step.same else PADDING_VALID,
            "stride_w": step.stride,
            "stride_h": step.stride,
            "fused_activation_function": ACTIVATIONS[step.activation],
        }
        if step.kind == "depthwise":
            return self.add_operator(
                "DEPTHWISE_CONV_2D",
                [*inputs, weights, bias],
                output,
                "DepthwiseConv2DOptions",
                depth_multiplier=1,
                **options,
            )
        return self.add_operator("CONV_2D", [*inputs, weights, bias], output, "Conv2DOptions", **options)

    def graph(
        self, inputs: list[Tensor], outputs: list[Tensor], description: str, pixels: Optional[tuple[float, float]]
    ) -> Graph:
        """The whole model, with one signature that names the inputs and outputs as the tensors are named.

        `pixels`: mean and std of its input in pixel units, where its graph alone does not show them.
        """
        signature = Signature(
            "serving_default",
            {tensor.name: tensor for tensor in inputs},
            {tensor.name: tensor for tensor in outputs},
        )
        subgraph = Subgraph(self.tensors, inputs, outputs, self.operators, "main")
        # Kernels with one scale a channel came with TensorFlow 1.14.
        metadata = {"min_runtime_version": b"1.14.0".ljust(16, b"\0")}
        if pixels is not None:
            metadata[PIXELS] = " ".join(f"{number:.9g}" for number in pixels).encode()
        return Graph([subgraph], description, metadata, [signature])


def head(emitter: Emitter, network: Network, answer: Tensor, constant: Callable[[str, float], Tensor]) -> Tensor:
    """From the logits to what the network answers; `constant` makes a tensor of one value in the model's own type."""
    wanted, shape = network.head, (network.outputs,)
    if wanted.softmax:
        output = emitter.activation("probabilities", shape)
        return emitter.add_operator("SOFTMAX", [answer], output, "SoftmaxOptions", beta=1.0)
    if wanted.bounds is None:
        return answer
    low, high = wanted.bounds
    fraction = emitter.add_operator("LOGISTIC", [answer], emitter.activation("fraction", shape))
    span = emitter.add_tensor(constant("span", high - low))
    scaled = emitter.activation("scaled" if low else "value", shape)
    emitter.add_operator("MUL", [fraction, span], scaled, "MulOptions", fused_activation_function=ACTIVATION_NONE)
    if not low:
        return scaled
    start = emitter.add_tensor(constant("low", low))
    output = emitter.activation("value", shape)
    return emitter.add_operator("ADD", [scaled, start], output, "AddOptions", fused_activation_function=ACTIVATION_NONE)


PIXEL_MEAN = PIXEL_STD = 127.5

_USUAL = (IMAGENET_PICTURES, TENSORFLOW_PICTURES)
"""How most pictures are normalized: whoever opens a model takes its input so."""


class _Floats:
    dtype = "float32"

    def quantization(self, _name: str) -> Optional[Quantization]:
        return None

    def constants(self, operation: Operation) -> tuple[Tensor, Tensor]:
        assert operation.weights is not None and operation.bias is not None
        return (
            Tensor.constant(f"{operation.output}.weights", operation.weights.astype(np.float32)),
            Tensor.constant(f"{operation.output}.bias", operation.bias.astype(np.float32)),
        )


def float_model(network: Network, steps: list[Operation], pictures: Normalization = IMAGENET_PICTURES) -> bytes:
    """The `.tflite` of `network`, whose operations are `steps`: float32 in and out, `pictures` normalized inside."""
    emitter = Emitter(_Floats())
    height, width, channels = network.input
    image = emitter.add_tensor(Tensor("image", (1, height, width, channels), "float32"))
    mean, std = np.array(pictures.mean), np.array(pictures.std)
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
    said = None if pictures in _USUAL else (PIXEL_MEAN, PIXEL_STD)
    return write(emitter.graph([image], [answer], f"{network.name} float32", said))


def _constant(name: str, value: float) -> Tensor:
    return Tensor.constant(name, np.array([value], np.float32))


class _Integers:
    dtype = "int8"

    def __init__(self, scales: Mapping[str, Affine], constants: Mapping[str, Integers]) -> None:
        self._scales = scales
        self._constants = constants

    def quantization(self, name: str) -> Optional[Quantization]:
        return Quantization.per_tensor(self._scales[name].scale, self._scales[name].zero_point)

    def constants(self, operation: Operation) -> tuple[Tensor, Tensor]:
        values = self._constants[operation.output]
        bias_scale = values.weight_scale.astype(np.float64) * self._scales[operation.inputs[0]].scale
        return (
            Tensor.constant(
                f"{operation.output}.weights",
                values.weights,
                Quantization.per_channel(values.weight_scale, weight_axis(operation)),
            ),
            Tensor.constant(f"{operation.output}.bias", values.bias, Quantization.per_channel(bias_scale, 0)),
        )


QuantizedNetwork = tuple[dict[str, Affine], dict[str, Integers]]
"""Scale and zero point of every activation, and the constants of every layer, by the names of tensors."""


def numbers(
    network: Network, steps: list[Operation], ranges: Ranges, pictures: Normalization = IMAGENET_PICTURES
) -> QuantizedNetwork:
    """The integers of `network`, whose operations are `steps`, with activations quantized for `ranges`."""
    margin = LOGIT_MARGIN if network.head.task == "classification" else VALUE_MARGIN
    scales = activation_scales(steps, ranges, margin, pictures)
    return scales, quantize(steps, scales, pictures)


def integer_model(
    network: Network,
    steps: list[Operation],
    numbers: QuantizedNetwork,
    *,
    input_dtype: str = "uint8",
    output_dtype: str = "int8",
) -> bytes:
    """The `.tflite` of `network`, whose operations are `steps`, in the integers of `numbers`.

    The input is the pixel itself (uint8) or the pixel minus 128 (int8). The output is int8, or float32 by a last
    operator that dequantizes it.
    """
    scales = {**numbers[0], **_head_scales(network)}
    emitter = Emitter(_Integers(scales, numbers[1]))
    if input_dtype == "uint8":
        source = scales[INPUT]
        pixels = Quantization.per_tensor(source.scale, source.zero_point + 128)
        image = emitter.add_tensor(Tensor("image", (1, *network.input), "uint8", None, pixels))
        emitter.add_operator("QUANTIZE", [image], emitter.activation(INPUT, network.input), "QuantizeOptions")
    else:
        image = emitter.activation(INPUT, network.input)
    for step in steps:
        answer = emitter.operation(step)
    answer = head(emitter, network, answer, _exact)
    if output_dtype == "float32":
        real = emitter.add_tensor(Tensor(f"{answer.name}.real", answer.shape, "float32"))
        answer = emitter.add_operator("DEQUANTIZE", [answer], real, "DequantizeOptions")
    return write(emitter.graph([image], [answer], f"{network.name} int8", direct_pixels(numbers[0])))


def direct_pixels(scales: Mapping[str, Affine]) -> Optional[tuple[float, float]]:
    """Mean and std, in pixel units, by which pixels as they are give the input; None where readers assume so anyway."""
    source = scales[INPUT]
    pixels = source.zero_point + 128, 1 / source.scale
    usual = [(one.zero_pixel, 255.0 * one.common_std) for one in _USUAL]
    return None if any(np.allclose(pixels, one, rtol=1e-5) for one in usual) else pixels


def _head_scales(network: Network) -> dict[str, Affine]:
    """Scales of what follows the logits. The kernels of SOFTMAX and LOGISTIC give 256ths of 1, nothing else."""
    scales = {"probabilities": Affine(1 / 256, -128), "fraction": Affine(1 / 256, -128)}
    if network.head.bounds is not None:
        low, high = network.head.bounds
        scales["scaled"] = Affine(float(np.float32((high - low) / 256)), -128)
        scales["value"] = affine(low, high) if low else scales["scaled"]
    return scales


def _exact(name: str, value: float) -> Tensor:
    """A constant of one value, which is the end of its own integer range."""
    stored = np.array([127 if value > 0 else -127], np.int8)
    return Tensor.constant(name, stored, Quantization.per_tensor(abs(value) / 127, 0))
