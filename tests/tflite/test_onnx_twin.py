"""The ONNX twin of a `.tflite`, run by ONNX Runtime, against LiteRT's plain kernels on the `.tflite`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pytest

from edge_mnv2 import paths
from edge_mnv2.camera.still import read_still
from edge_mnv2.runtime.interpreter import open_interpreter
from edge_mnv2.runtime.preprocess import Preprocessor
from edge_mnv2.tflite.graph import read, write
from edge_mnv2.tflite.ir import (
    ACTIVATION_RELU,
    ACTIVATION_RELU6,
    ACTIVATION_RELU_N1_TO_1,
    Graph,
    Operator,
    Quantization,
    Subgraph,
    Tensor,
)
from edge_mnv2.tflite.onnx_twin import NoTwin, onnx_twin

onnxruntime = pytest.importorskip("onnxruntime", reason="no onnxruntime wheel for this system")

SAME, VALID = 0, 1
MODELS = ("mobilenet_v1_0.25_128_quant", "mobilenet_v2_1.0_224_quant", "tf2_mobilenet_v2_1.0_224_ptq")


def session(model: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.x64quantprecision", "1")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def both(model: bytes, pictures: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, float]:
    """Real answers of LiteRT and of the twin for pictures uint8, and the output's step."""
    content, picture = onnx_twin(read(model))
    twin = session(content)
    assert twin.get_inputs()[0].shape == list(picture.shape)
    ours, theirs = [], []
    with open_interpreter(model, xnnpack=False) as interpreter:
        given, answer = interpreter.inputs[0], interpreter.outputs[0]
        for pixels in pictures:
            floats = pixels[None].astype(np.float32) / 127.5 - 1
            if picture.dtype == "float32":
                interpreter.set_input(floats)
                twin_pixels: np.ndarray = floats
            else:
                twin_pixels = pixels[None]
                shifted = pixels[None] if given.dtype == np.uint8 else (pixels[None] ^ 128).view(np.int8)
                interpreter.set_input(shifted)
            interpreter.invoke()
            ours.append(answer.dequantize(interpreter.output()))
            theirs.append(twin.run(None, {"image": twin_pixels})[0])
    assert ours[0].shape == theirs[0].shape
    return np.array(ours), np.array(theirs), answer.scale or 1.0


@pytest.mark.parametrize("name", MODELS)
def test_other_peoples_models_answer_the_same(data: Path, name: str) -> None:
    model = (data / "models" / f"{name}.tflite").read_bytes()
    size = read(model).inputs[0].shape[1]
    fit = Preprocessor(size, size)
    pictures = [fit.to_rgb(read_still(path)).copy() for path in sorted((data / "imagenet-dev").glob("*.jpg"))[:12]]
    ours, theirs, _ = both(model, pictures)
    assert np.abs(ours - theirs).max() < 0.1
    sure = np.sort(ours.reshape(len(ours), -1))[:, -2:]
    sure = sure[:, 1] - sure[:, 0] > 0.2
    same = ours.reshape(len(ours), -1).argmax(1) == theirs.reshape(len(ours), -1).argmax(1)
    assert same[sure].all() and sure.sum() > 4


def test_the_default_model_answers_the_same() -> None:
    model = paths.packaged("models", "mobilenet_v2_1.0_224_int8.tflite").read_bytes()
    fit = Preprocessor(224, 224)
    pictures = [fit.to_rgb(read_still(path)).copy() for path in paths.packaged("models", "photographs").glob("*.jpg")]
    assert len(pictures) >= 7
    ours, theirs, step = both(model, pictures)
    assert np.abs(ours - theirs).max() < 12 * step
    assert np.abs((ours - theirs).mean()) < 0.1 * step


class Net:
    """A chain of operators on a picture of 8x10 pixels with random constants."""

    def __init__(self, dtype: str = "int8", channels: int = 3) -> None:
        self._random = np.random.default_rng(1)
        self.dtype = dtype
        shape = (1, 8, 10, channels)
        self.image = self.last = Tensor("image", shape, dtype, None, self.steps(1 / 64, 0))
        self.operators: list[Operator] = []

    def steps(self, scale: float, zero: int) -> Quantization:
        return Quantization.per_tensor(scale, zero + (128 if self.dtype == "uint8" else 0))

    def add(
        self,
        kind: str,
        shape: Sequence[int],
        *constants: Tensor,
        scale: float = 1 / 32,
        zero: int = 3,
        version: int = 2,
        table: Optional[str] = None,
        inputs: Optional[list[Tensor]] = None,
        **options: Any,
    ) -> Tensor:
        output = Tensor(f"t{len(self.operators)}", tuple(shape), self.dtype, None, self.steps(scale, zero))
        self.operators.append(Operator(kind, [*(inputs or [self.last]), *constants], [output], table, options, version))
        self.last = output
        return output

    def weights(self, shape: Sequence[int], axis: int) -> list[Tensor]:
        assert self.last.quantization is not None
        count, own = shape[axis], float(self.last.quantization.scale[0])
        values = self._random.integers(-90, 90, shape)
        if self.dtype == "uint8":
            scale = np.array([0.01], np.float32)
            given = Tensor.constant("w", (values + 128).astype(np.uint8), Quantization.per_tensor(0.01, 120))
        else:
            scale = (0.002 + 0.01 * self._random.random(count)).astype(np.float32)
            given = Tensor.constant("w", values.astype(np.int8), Quantization.per_channel(scale, axis))
        bias = self._random.integers(-900, 900, count).astype(np.int32)
        steps = np.broadcast_to(scale * own, count) if self.dtype == "int8" else scale * own
        return [given, Tensor.constant("b", bias, Quantization(steps, np.zeros(len(steps), np.int64)))]

    def convolution(self, rows: int, columns: int, outputs: int, **options: Any) -> Tensor:
        own = {"padding": SAME, "stride_h": 1, "stride_w": 1, "fused_activation_function": 0, **options}
        own.update(dilation_h_factor=1, dilation_w_factor=1)
        constants = self.weights((outputs, 3, 3, self.last.shape[3]), 0)
        return self.add("CONV_2D", (1, rows, columns, outputs), *constants, version=3, table="Conv2DOptions", **own)

    def depthwise(self, rows: int, columns: int, multiplier: int = 1, **options: Any) -> Tensor:
        own = {"padding": SAME, "stride_h": 1, "stride_w": 1, "fused_activation_function": 0, **options}
        own.update(dilation_h_factor=1, dilation_w_factor=1, depth_multiplier=multiplier)
        outputs = self.last.shape[3] * multiplier
        constants = self.weights((1, 3, 3, outputs), 3)
        shape = (1, rows, columns, outputs)
        return self.add("DEPTHWISE_CONV_2D", shape, *constants, version=3, table="DepthwiseConv2DOptions", **own)

    def linear(self, outputs: int, activation: int = 0) -> Tensor:
        constants = self.weights((outputs, int(np.prod(self.last.shape))), 0)
        options = {"fused_activation_function": activation}
        return self.add(
            "FULLY_CONNECTED", (1, outputs), *constants, version=4, table="FullyConnectedOptions", **options
        )

    def pool(self, kind: str, shape: Sequence[int], size: tuple[int, int], **options: Any) -> Tensor:
        own = {"filter_height": size[0], "filter_width": size[1], "stride_h": 1, "stride_w": 1, "padding": SAME}
        own = {**own, "fused_activation_function": 0, **options}
        return self.add(kind, shape, table="Pool2DOptions", **self.kept(), **own)

    def kept(self) -> dict[str, Any]:
        """The scaling of the last tensor, for operators that keep it."""
        assert self.last.quantization is not None
        zero = int(self.last.quantization.zero_point[0]) - (128 if self.dtype == "uint8" else 0)
        return {"scale": float(self.last.quantization.scale[0]), "zero": zero}

    def model(self) -> bytes:
        subgraph = Subgraph([], [self.image], [self.last], self.operators, "main")
        subgraph.drop_unused()
        return write(Graph([subgraph], "chain"))


def shape_of(*numbers: int) -> Tensor:
    return Tensor.constant("shape", np.array(numbers, np.int32))


def strided(net: Net) -> None:
    net.convolution(4, 5, 6, stride_h=2, stride_w=2)


def padded_valid(net: Net) -> None:
    around = Tensor.constant("pad", np.array([[0, 0], [1, 0], [1, 0], [0, 0]], np.int32))
    net.add("PAD", (1, 9, 11, 3), around, table="PadOptions", **net.kept())
    net.convolution(4, 5, 6, stride_h=2, stride_w=2, padding=VALID, fused_activation_function=ACTIVATION_RELU6)


def padded_alone(net: Net) -> None:
    around = Tensor.constant("pad", np.array([[0, 0], [1, 2], [0, 1], [0, 0]], np.int32))
    net.add("PAD", (1, 11, 11, 3), around, table="PadOptions", **net.kept())
    net.pool("MAX_POOL_2D", (1, 11, 11, 3), (2, 2))


def depthwise_twice(net: Net) -> None:
    net.depthwise(4, 5, 2, stride_h=2, stride_w=2, fused_activation_function=ACTIVATION_RELU)
    net.depthwise(2, 3, padding=VALID, fused_activation_function=ACTIVATION_RELU_N1_TO_1)


def pooled(net: Net) -> None:
    net.pool("AVERAGE_POOL_2D", (1, 4, 5, 3), (3, 3), stride_h=2, stride_w=2)
    net.pool("AVERAGE_POOL_2D", (1, 1, 1, 3), (4, 5), padding=VALID)
    net.add("RESHAPE", (1, 3), shape_of(1, 3), table="ReshapeOptions", version=1, **net.kept())


def flattened(net: Net) -> None:
    net.add("RESHAPE", (1, 240), shape_of(1, 240), table="ReshapeOptions", version=1, **net.kept())
    net.linear(5)


def unflattened(net: Net) -> None:
    net.linear(7, ACTIVATION_RELU)


def sums(net: Net) -> None:
    first = net.convolution(8, 10, 3)
    options = {"fused_activation_function": ACTIVATION_RELU, "table": "AddOptions"}
    net.add("ADD", (1, 8, 10, 3), inputs=[first, net.image], **options)
    net.add("MUL", (1, 8, 10, 3), inputs=[net.last, net.image], table="MulOptions", fused_activation_function=0)
    net.add("SUB", (1, 8, 10, 3), inputs=[net.last, net.image], table="SubOptions", fused_activation_function=0)


def joined(net: Net) -> None:
    first = net.convolution(8, 10, 4)
    net.last = net.image
    second = net.convolution(8, 10, 2)
    options = {"table": "ConcatenationOptions", "axis": 3, "fused_activation_function": 0}
    net.add("CONCATENATION", (1, 8, 10, 6), inputs=[first, second], **options)


def averaged(net: Net) -> None:
    net.add("MEAN", (1, 3), shape_of(1, 2), table="ReducerOptions", keep_dims=False)
    net.linear(6)
    net.add("SOFTMAX", (1, 6), table="SoftmaxOptions", beta=1.0, scale=1 / 256, zero=-128)


def sigmoid(net: Net) -> None:
    net.linear(6)
    net.add("LOGISTIC", (1, 6), scale=1 / 256, zero=-128)


def open_set(net: Net) -> None:
    net.add("MEAN", (1, 1, 1, 3), shape_of(1, 2), table="ReducerOptions", keep_dims=True)
    net.add("SQUEEZE", (1, 3), table="SqueezeOptions", version=1, squeeze_dims=np.array([1, 2], np.int32), **net.kept())
    logits = net.linear(6)
    best = net.add("REDUCE_MAX", (1, 1), shape_of(1), table="ReducerOptions", keep_dims=True, **net.kept())
    options = {"table": "ConcatenationOptions", "axis": 1, "fused_activation_function": 0}
    net.add("CONCATENATION", (1, 7), inputs=[logits, best], **options)


def unit_length(net: Net) -> None:
    net.linear(6)
    net.add("L2_NORMALIZATION", (1, 6), table="L2NormOptions", scale=1 / 128, zero=0, fused_activation_function=0)


def requantized(net: Net) -> None:
    net.add("QUANTIZE", (1, 8, 10, 3), scale=1 / 50, zero=7)
    net.convolution(8, 10, 2)


def lifted(net: Net) -> None:
    """A value far from 0: int8 from the lowest value on, the rest added in int32, as `teach` writes it."""
    net.linear(1)
    own = net.kept()
    step = Quantization.per_tensor(own["scale"])
    wide = net.add("CAST", (1, 1), table="CastOptions", version=1)
    wide.dtype, wide.quantization = "int32", step
    lowest = Tensor.constant("lowest", np.full((1, 1), 1000, np.int32), step)
    total = net.add("ADD", (1, 1), lowest, table="AddOptions", version=1, fused_activation_function=0)
    total.dtype, total.quantization = "int32", step


CHAINS = (
    strided, padded_valid, padded_alone, depthwise_twice, pooled, flattened, unflattened, sums, joined, averaged,
    sigmoid, open_set, unit_length, requantized, lifted,
)  # fmt: skip
SIGNED_ONLY = (open_set, unit_length, requantized, padded_alone, lifted)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: chain.__name__)
def test_every_operator(chain: Any, dtype: str) -> None:
    if dtype == "uint8" and chain in SIGNED_ONLY:
        pytest.skip("LiteRT has these kernels for int8")
    net = Net(dtype)
    chain(net)
    pictures = list(np.random.default_rng(2).integers(0, 255, (6, 8, 10, 3), np.uint8))
    ours, theirs, step = both(net.model(), pictures)
    assert np.ptp(ours) > 5 * step, "the chain says nothing"
    assert np.abs(ours - theirs).max() <= 3.01 * step  # three roundings in a row at most


def test_floats_are_refused_with_the_part() -> None:
    image = Tensor("image", (1, 8, 10, 3), "float32")
    output = Tensor("y", (1, 8, 10, 3), "float32")
    subgraph = Subgraph([image, output], [image], [output], [Operator("RELU", [image], [output])])
    with pytest.raises(NoTwin, match="RELU computes in float32"):
        onnx_twin(Graph([subgraph]))


def test_an_operator_without_a_form_is_named() -> None:
    net = Net()
    net.add("HARD_SWISH", net.image.shape)
    with pytest.raises(NoTwin, match="HARD_SWISH has no ONNX form"):
        onnx_twin(read(net.model()))


def test_a_twin_is_a_sound_onnx_file() -> None:
    onnx = pytest.importorskip("onnx", reason="no onnx wheel for this system")
    for chain in CHAINS:
        net = Net()
        chain(net)
        model = onnx.load_from_string(onnx_twin(read(net.model()))[0])
        onnx.checker.check_model(model, full_check=True)
