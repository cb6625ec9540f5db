"""From operations to a graph: the part that the float and the integer model have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Optional, Protocol

import numpy as np

from edge_mnv2.builder.inference import Operation
from edge_mnv2.network.network import Network
from edge_mnv2.tflite.ir import (
    ACTIVATION_NONE,
    ACTIVATION_RELU,
    ACTIVATION_RELU6,
    PADDING_SAME,
    PADDING_VALID,
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


class Numbers(Protocol):
    """How a model represents numbers: its activations' type and quantization, and an operation's constants."""

    dtype: str

    def quantization(self, name: str) -> Optional[Quantization]:
        """Quantization of the activation `name`; None in a float model."""

    def constants(self, operation: Operation) -> tuple[Tensor, Tensor]:
        """Weights and bias of a convolution or linear layer, in the layout of `.tflite`."""


class Emitter:
    """Collects the tensors and operators of one graph."""

    def __init__(self, numbers: Numbers) -> None:
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
                fused_activation_function=ACTIVATION_NONE,
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

    def graph(self, inputs: list[Tensor], outputs: list[Tensor], description: str) -> Graph:
        """The whole model, with one signature that names the inputs and outputs as the tensors are named."""
        signature = Signature(
            "serving_default",
            {tensor.name: tensor for tensor in inputs},
            {tensor.name: tensor for tensor in outputs},
        )
        subgraph = Subgraph(self.tensors, inputs, outputs, self.operators, "main")
        # Kernels with one scale a channel came with TensorFlow 1.14.
        return Graph([subgraph], description, {"min_runtime_version": b"1.14.0".ljust(16, b"\0")}, [signature])


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
