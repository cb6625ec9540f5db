"""Models as people bring them: one network, wrapped in every way that tools scale inputs and name answers.

The network answers `GAIN * (mean of a colour)` over real inputs of -1 to 1: row 0 for red, 1 for green, 2 for blue. So
whatever the wrapping, the same picture has the same scores, where it is fed as the wrapping wants.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from typing import Any, Optional, Union

import flatbuffers
import numpy as np

from edge_mnv2.tflite import graph
from edge_mnv2.tflite.ir import Graph, Operator, Quantization, Subgraph, Tensor

GAIN = 4.0
SIZE = 12
COLOUR = (200, 90, 30)


def scores(colour: Sequence[int] = COLOUR) -> np.ndarray:
    """The softmax that the network gives for a picture of one colour."""
    logits = GAIN * (np.array(colour, float) - 127.5) / 127.5
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


class Net:
    """Collects operators of one model; `last` is the tensor that the next one reads."""

    def __init__(self, dtype: str = "float32", shape: Sequence[int] = (1, SIZE, SIZE, 3), **more: Any) -> None:
        self.source = self.last = Tensor("image", tuple(shape), dtype, **more)
        self.tensors, self.operators = [self.last], []
        self.outputs: list[Tensor] = []

    def constant(self, values: Any, quantization: Optional[Quantization] = None, dtype: Any = np.float32) -> Tensor:
        tensor = Tensor.constant(f"constant{len(self.tensors)}", np.asarray(values, dtype), quantization)
        self.tensors.append(tensor)
        return tensor

    def add(
        self,
        kind: str,
        *constants: Tensor,
        shape: Optional[Sequence[int]] = None,
        dtype: Optional[str] = None,
        quantization: Optional[Quantization] = None,
        table: Optional[str] = None,
        version: int = 1,
        **options: Any,
    ) -> Net:
        name = f"{kind.lower()}{len(self.tensors)}"
        result = Tensor(name, tuple(shape or self.last.shape), dtype or self.last.dtype, quantization=quantization)
        self.tensors.append(result)
        self.operators.append(Operator(kind, [self.last, *constants], [result], table, options, version))
        self.last = result
        return self

    def arithmetic(self, kind: str, value: Any) -> Net:
        return self.add(kind, self.constant(value), table=f"{kind.title()}Options")

    def body(self, factor: float = 1.0, offset: float = 0.0, rows: int = 3) -> Net:
        """A 1x1 convolution that takes real inputs of -1 to 1 as `factor * x + offset`, mean, fully connected."""
        n, channels = self.last.shape[0], self.last.shape[3]
        kernel = np.eye(channels, dtype=np.float32).reshape(channels, 1, 1, channels)
        weights, bias = self.constant(kernel * factor), self.constant(np.full(channels, offset))
        self.add("CONV_2D", weights, bias, table="Conv2DOptions", padding=1, stride_w=1, stride_h=1)
        self.add(
            "MEAN", self.constant([1, 2], dtype=np.int32), shape=(n, channels), table="ReducerOptions", keep_dims=False
        )
        return self.linear(np.eye(channels)[:rows] * GAIN)

    def linear(self, matrix: np.ndarray) -> Net:
        weights, bias = self.constant(matrix), self.constant(np.zeros(len(matrix)))
        shape = (self.last.shape[0], len(matrix))
        return self.add("FULLY_CONNECTED", weights, bias, shape=shape, table="FullyConnectedOptions")

    def softmax(self) -> Net:
        return self.add("SOFTMAX", table="SoftmaxOptions", beta=1.0)

    def output(self) -> Net:
        """The last tensor is an output; the next operator goes on from the one before it."""
        self.outputs.append(self.last)
        self.last = self.operators[-1].inputs[0]  # type: ignore[assignment]
        return self

    def write(self, metadata: Optional[bytes] = None, archive: bytes = b"") -> bytes:
        outputs = self.outputs or [self.last]
        named = {} if metadata is None else {"TFLITE_METADATA": metadata}
        subgraph = Subgraph(self.tensors, [self.source], outputs, self.operators)
        return graph.write(Graph([subgraph], "brought", named)) + archive


def metadata(
    mean: Optional[Sequence[float]] = None,
    std: Optional[Sequence[float]] = None,
    labels: Sequence[str] = ("",),
    kind: int = 2,
) -> bytes:
    """TFLITE_METADATA with normalization of the input, and the name of a file of `kind` (2: labels) for each output
    ("": none)."""
    builder = flatbuffers.Builder(512)

    def floats(values: Sequence[float]) -> int:
        builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            builder.PrependFloat32(value)
        return int(builder.EndVector())

    def tables(offsets: Sequence[int]) -> int:
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return int(builder.EndVector())

    units = []
    if mean is not None and std is not None:
        means, stds = floats(mean), floats(std)
        builder.StartObject(2)
        builder.PrependUOffsetTRelativeSlot(0, means, 0)
        builder.PrependUOffsetTRelativeSlot(1, stds, 0)
        options = builder.EndObject()
        builder.StartObject(2)
        builder.PrependUint8Slot(0, 1, 0)
        builder.PrependUOffsetTRelativeSlot(1, options, 0)
        units.append(builder.EndObject())
    vector = tables(units)
    builder.StartObject(7)
    builder.PrependUOffsetTRelativeSlot(4, vector, 0)
    source = builder.EndObject()
    results = []
    for label in labels:
        files = []
        if label:
            name = builder.CreateString(label)
            builder.StartObject(5)
            builder.PrependUOffsetTRelativeSlot(0, name, 0)
            builder.PrependInt8Slot(2, kind, 0)
            files.append(builder.EndObject())
        vector = tables(files)
        builder.StartObject(7)
        builder.PrependUOffsetTRelativeSlot(6, vector, 0)
        results.append(builder.EndObject())
    sources, answers = tables([source]), tables(results)
    builder.StartObject(4)
    builder.PrependUOffsetTRelativeSlot(2, sources, 0)
    builder.PrependUOffsetTRelativeSlot(3, answers, 0)
    subgraphs = tables([builder.EndObject()])
    builder.StartObject(4)
    builder.PrependUOffsetTRelativeSlot(3, subgraphs, 0)
    builder.Finish(builder.EndObject(), file_identifier=b"M001")
    return bytes(builder.Output())


def archive(**files: Union[str, bytes]) -> bytes:
    """A zip as TFLite metadata append it; a name's `_` stands for its dot."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        for name, content in files.items():
            packed.writestr(name.replace("_", "."), content)
    return stream.getvalue()


def quantized(dtype: str, scale: float, zero_point: int) -> Net:
    """The network behind an integer input: dequantized first, so that real inputs are `scale * (q - zero point)`."""
    net = Net(dtype, quantization=Quantization.per_tensor(scale, zero_point))
    return net.add("DEQUANTIZE", dtype="float32", version=2)


FLOAT_INSIDE = {
    "Rescaling to -1..1": lambda: Net().arithmetic("MUL", 1 / 127.5).arithmetic("ADD", -1.0).body(),
    "subtract, divide": lambda: Net().arithmetic("SUB", 127.5).arithmetic("DIV", 127.5).body(),
    "Rescaling to 0..1": lambda: Net().arithmetic("MUL", 1 / 255).body(2.0, -1.0),
    "per channel": lambda: Net().arithmetic("SUB", [127.5] * 3).arithmetic("MUL", [1 / 127.5] * 3).body(),
    "0..1 normalized inside": lambda: Net().arithmetic("SUB", [0.5] * 3).arithmetic("MUL", [2.0] * 3).body(),
    "padded first": lambda: (
        Net()
        .arithmetic("MUL", 1 / 127.5)
        .arithmetic("SUB", 1.0)
        .add("RESHAPE", table="ReshapeOptions", new_shape=[1, SIZE, SIZE, 3])
        .body()
    ),
    "folded into the convolution": lambda: Net().body(1 / 127.5, -1.0),
    "folded, without an offset": lambda: Net().arithmetic("MUL", 1.0).body(1 / 127.5, -1.0),
}
"""Wrappings that say by themselves how a float input is scaled."""
